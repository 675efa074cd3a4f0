"""What the commands share: how one is described, its exit codes, and the reranker that it names."""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from ..core.errors import ConfigError, InputError, clause
from ..core.numeric import MOST, finite, integer

if TYPE_CHECKING:
    from ..reranker import Reranker

__all__ = [
    "EXIT_CODES",
    "FAILED",
    "INTERRUPTED",
    "NAME",
    "SPEC",
    "SPEC_FORMS",
    "WRONG_USE",
    "Command",
    "integer_from",
    "named",
    "number_from",
    "spec_argument",
    "spec_from",
    "writable",
]

T = TypeVar("T")

NAME = "rerank-plugins"
FAILED, WRONG_USE, INTERRUPTED = 1, 2, 130
EXIT_CODES = "exit codes: 0 fine; 1 the reranker failed; 2 wrong usage, configuration or input; 130 interrupted"
SPEC_FORMS = (
    "a backend ('lexical'), a backend and its model ('cohere:rerank-v4.0-fast'), the name of a reranker in the "
    "configuration file, or a mapping as JSON"
)
SPEC = f"{SPEC_FORMS}; default: $RERANK_PLUGINS_RERANKER, else the embedded model"


@dataclass(frozen=True)
class Command:
    """One command of the line: its words, its options, and what it does.

    `run` gets the parsed arguments and returns the exit code; what it raises of our own errors, `main` tells.
    """

    name: str
    about: str
    run: Callable[[argparse.Namespace], int]
    options: Callable[[argparse.ArgumentParser], object]
    examples: str
    more: str = ""


def spec_argument(parser: argparse.ArgumentParser) -> None:
    """Let the command take a spec, or none."""
    parser.add_argument("reranker", metavar="SPEC", nargs="?", help=SPEC)


def integer_from(low: int, high: int = MOST) -> Callable[[str], int]:
    """Return the `type` of an argument: an integer from `low` to `high`."""
    return lambda text: _checked(int, integer, text, low, high)


def number_from(low: float, high: float = 1e12) -> Callable[[str], float]:
    """Return the `type` of an argument: a finite number from `low` to `high`."""
    return lambda text: _checked(float, finite, text, low, high)


def _checked(read: Callable[[str], T], check: Callable[[Any, str, Any, Any], T], text: str, low: T, high: T) -> T:
    try:
        value: Any = read(text)
    except ValueError:
        value = text
    try:
        return check(value, "it", low, high)
    except ConfigError as error:
        raise argparse.ArgumentTypeError(str(error)) from None


def writable(option: str, name: str | None) -> None:
    """See, before anything is paid for, that a file can be written there; `None` is no file.

    Raises:
        InputError: There is no such folder, or what is there is a folder.
    """
    if name is None:
        return
    try:
        path = Path(name).expanduser()
        folder = path.is_dir()
    except (OSError, ValueError, RuntimeError) as error:
        raise InputError(
            f"{option} is no path that can be written: {getattr(error, 'strerror', None) or error}."
        ) from error
    if folder:
        raise InputError(f"{option} {name} is a folder: name a file in it.")
    if not path.absolute().parent.is_dir():
        raise InputError(f"{option} {name} is in a folder that is not there: make it first, or name another file.")


def spec_from(text: str) -> str | dict[str, Any]:
    """Return the spec that was typed: a name, or a mapping where it begins like JSON.

    Raises:
        ConfigError: It begins like JSON and is none.
    """
    if not text.lstrip().startswith("{"):
        return text
    try:
        found: dict[str, Any] = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise ConfigError(f"The reranker begins like JSON and is none: {clause(error)}. Check its quotes.") from error
    return found


def named(arguments: argparse.Namespace, options: Mapping[str, Any]) -> Reranker:
    """Load the reranker that `arguments.reranker` names."""
    from ..config import load_reranker

    spec = None if arguments.reranker is None else spec_from(arguments.reranker)
    return load_reranker(spec, config=arguments.config, **options)
