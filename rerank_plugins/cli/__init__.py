"""The command `rerank-plugins`. A command is a file of this folder."""

from __future__ import annotations

import argparse
import contextlib
import io
import logging
import os
import sys
from collections.abc import Iterator, Sequence
from typing import NoReturn

from .. import __version__
from ..core.errors import ConfigError, InputError, RerankError
from . import batch, calibrate, check, compare, export, fetch, listing, rerank, schema, serve
from .command import EXIT_CODES, FAILED, INTERRUPTED, NAME, WRONG_USE
from .terminal import printable, say

__all__ = ["main"]

COMMANDS = tuple(
    each.COMMAND for each in (rerank, listing, fetch, check, compare, calibrate, export, serve, batch, schema)
)


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command line and return its exit code.

    Args:
        argv: The arguments after the program's name; `None` is the process's own.

    Returns:
        0 fine; 1 the reranker failed; 2 wrong usage, configuration or input; 130 interrupted by Ctrl-C. A reader that
        closes the pipe early (`| head`) has what it wanted: that is 0, and silent.
    """
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="replace")  # a terminal that knows fewer characters is no reason to stop
    try:
        arguments = _arguments(argv)
        with _warnings_shown():
            code: int = arguments.run(arguments)
        sys.stdout.flush()
    except SystemExit as stop:  # argparse: --help, --version, wrong usage
        return stop.code if isinstance(stop.code, int) else 0
    except KeyboardInterrupt:
        return INTERRUPTED
    except BrokenPipeError:
        # What is left in the buffer has no reader: without this, the interpreter complains about it on its way out.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except (ConfigError, InputError) as error:
        return _complain(error, WRONG_USE)
    except (RerankError, OSError) as error:
        return _complain(error, FAILED)
    return code


def _complain(what: object, code: int) -> int:
    say(f"{NAME}: {' '.join(str(what).split())}", file=sys.stderr)
    return code


@contextlib.contextmanager
def _warnings_shown() -> Iterator[None]:
    """Show what the package logs (a degraded answer, say) the way errors are shown."""
    log, shown = logging.getLogger("rerank_plugins"), logging.StreamHandler()
    shown.setFormatter(_Printable(f"{NAME}: %(message)s"))
    log.addHandler(shown)
    try:
        yield
    finally:
        log.removeHandler(shown)


class _Printable(logging.Formatter):
    """Writes a record, a traceback included, without control characters."""

    def format(self, record: logging.LogRecord) -> str:
        return "\n".join(map(printable, super().format(record).splitlines()))


class _Parser(argparse.ArgumentParser):
    """Says what is wrong in two lines rather than with the whole usage."""

    def error(self, message: str) -> NoReturn:
        self.exit(WRONG_USE, f"{NAME}: {printable(message)}\nTry '{self.prog} --help'.\n")


def _arguments(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = _Parser(
        prog=NAME, description="Rerank documents with any model or vendor, named by one string.", epilog=EXIT_CODES
    )
    parser.add_argument("--version", action="version", version=f"{NAME} {__version__}")
    commands = parser.add_subparsers(dest="command", metavar="COMMAND", required=True)
    for command in COMMANDS:
        about = f"{command.about[0].upper()}{command.about[1:]}."
        made = commands.add_parser(
            command.name,
            help=command.about,
            description=f"{about} {command.more}".rstrip(),
            epilog=f"{command.examples}\n\n{EXIT_CODES}",
            formatter_class=argparse.RawDescriptionHelpFormatter,
        )
        made.set_defaults(run=command.run)
        made.add_argument(
            "--config", metavar="FILE", help="TOML file of named rerankers; default: $RERANK_PLUGINS_CONFIG"
        )
        command.options(made)

    arguments, rest = parser.parse_known_args(argv)
    # Files may stand after options too: argparse (before Python 3.12.7) would not take them there.
    files = [each for position, each in enumerate(rest) if _is_file(each, rest[:position])]
    unknown = [each for position, each in enumerate(rest) if each != "--" and not _is_file(each, rest[:position])]
    if unknown or (files and arguments.command != "rerank"):
        parser.error(f"unrecognized arguments: {' '.join(unknown or files)}")
    if arguments.command == "rerank":
        arguments.files = [*arguments.files, *files] or ["-"]
    return arguments


def _is_file(argument: str, before: list[str]) -> bool:
    return argument == "-" or "--" in before or not argument.startswith("-")
