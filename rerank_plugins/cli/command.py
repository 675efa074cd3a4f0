"""Shared by all commands: their description, exit codes, argument types, and the reranker that a SPEC names."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from ..core.errors import ConfigError, InputError
from ..core.numeric import MAX_INTEGER, finite, integer

if TYPE_CHECKING:
    from ..reranker import Reranker

__all__ = [
    "EXIT_CODES",
    "FAILED",
    "INTERRUPTED",
    "NAME",
    "RAY_DEFAULTS",
    "SPEC",
    "SPEC_FORMS",
    "WRONG_USE",
    "Command",
    "add_ray_options",
    "add_spec_argument",
    "check_writable",
    "integer_type",
    "load_named_reranker",
    "number_type",
    "parse_spec",
    "set_dependent_defaults",
]

T = TypeVar("T")

NAME = "rerank-plugins"
FAILED, WRONG_USE, INTERRUPTED = 1, 2, 130
EXIT_CODES = "exit codes: 0 success; 1 the reranker failed; 2 wrong usage, configuration or input; 130 interrupted"
SPEC_FORMS = (
    "a backend ('lexical'), a backend and its model ('cohere:rerank-v4.0-fast'), the name of a reranker in the "
    "configuration file, or a mapping as JSON"
)
SPEC = f"{SPEC_FORMS}; default: $RERANK_PLUGINS_RERANKER, else the embedded model"


@dataclass(frozen=True)
class Command:
    """One command: its name, help texts and options, and the function that runs it."""

    name: str
    summary: str
    """One phrase without a period, for the list of commands and the first line of the command's help."""
    run: Callable[[argparse.Namespace], int]
    """Takes the parsed arguments and returns the exit code. `main` prints the package's own errors that it raises."""
    add_options: Callable[[argparse.ArgumentParser], object]
    examples: str
    details: str = ""
    """The rest of the help, after the summary."""


def add_spec_argument(parser: argparse.ArgumentParser) -> None:
    """Add the optional positional argument SPEC."""
    parser.add_argument("reranker", metavar="SPEC", nargs="?", help=SPEC)


def integer_type(low: int, high: int = MAX_INTEGER) -> Callable[[str], int]:
    """Return an argparse `type`: an integer from `low` to `high`."""
    return lambda text: _parse_number(int, integer, text, low, high)


def number_type(low: float, high: float = 1e12) -> Callable[[str], float]:
    """Return an argparse `type`: a finite number from `low` to `high`."""
    return lambda text: _parse_number(float, finite, text, low, high)


def _parse_number(
    convert: Callable[[str], T], check: Callable[[Any, str, Any, Any], T], text: str, low: T, high: T
) -> T:
    try:
        value: Any = convert(text)
    except ValueError:
        value = text
    try:
        return check(value, "it", low, high)
    except ConfigError as error:
        raise argparse.ArgumentTypeError(str(error)) from None


def check_writable(option: str, name: str | None) -> None:
    """Check that a file can be written, before any request is paid for.

    Args:
        option: The option of the command line, for the error.
        name: Path of the file; `None` passes the check.

    Raises:
        InputError: The path is a folder, is not valid, or is in a folder that does not exist.
    """
    if name is None:
        return
    try:
        path = Path(name).expanduser()
        is_folder = path.is_dir()
    except (OSError, ValueError, RuntimeError) as error:
        raise InputError(
            f"{option} must be a path that can be written: {getattr(error, 'strerror', None) or error}."
        ) from error
    if is_folder:
        raise InputError(f"{option} {name} is a folder: name a file in it.")
    if not path.absolute().parent.is_dir():
        raise InputError(f"{option} {name} is in a folder that does not exist: make it first, or name another file.")


def add_ray_options(parser: argparse.ArgumentParser) -> None:
    """Add the options of a command that can run on Ray."""
    parser.add_argument(
        "--ray", action="store_true", help="run on Ray: the cluster of $RAY_ADDRESS, else a local one that is started"
    )
    parser.add_argument("--actors", type=integer_type(1), metavar="N", help="with --ray: number of actors; default: 2")
    parser.add_argument(
        "--cpus-per-actor",
        type=number_type(0.001, 10_000),
        metavar="X",
        help="with --ray: CPUs of each actor; default: 1",
    )


RAY_DEFAULTS: Mapping[str, Any] = {"actors": 2, "cpus_per_actor": 1.0}


def set_dependent_defaults(arguments: argparse.Namespace, option: str, defaults: Mapping[str, Any]) -> None:
    """Set the defaults of options that belong to another option, and refuse them where that one is missing.

    Args:
        arguments: The parsed arguments, in which options that were not written are `None`.
        option: The option that the others belong to, such as `--ray`.
        defaults: Name of each of the others in `arguments` → its default.

    Raises:
        InputError: One of the others was written without `option`, and would have no effect.
    """
    is_set = getattr(arguments, option.removeprefix("--").replace("-", "_")) not in (None, False)
    for name, default in defaults.items():
        if getattr(arguments, name) is None:
            setattr(arguments, name, default)
        elif not is_set:
            dependent = f"--{name.replace('_', '-')}"
            raise InputError(f"{dependent} has no effect without {option}: add {option}, or leave out {dependent}.")


def parse_spec(text: str) -> str | dict[str, Any]:
    """Return the spec in `text`: a string, or a mapping if it starts like a JSON object.

    Raises:
        ConfigError: It starts like JSON but does not parse, or it is the name of a TOML file.
    """
    if text.endswith(".toml") and ":" not in text:
        raise ConfigError(f"{text!r} is the name of a file, not of a reranker: write --config {text}.")
    from ..config.sources import parse_json_spec

    spec: str | dict[str, Any] = parse_json_spec(text, "The reranker")
    return spec


def load_named_reranker(arguments: argparse.Namespace, options: Mapping[str, Any]) -> Reranker:
    """Load the reranker that `arguments.reranker` names, with `options` in place of the spec's own."""
    from ..config import load_reranker

    spec = None if arguments.reranker is None else parse_spec(arguments.reranker)
    return load_reranker(spec, config=arguments.config, **options)
