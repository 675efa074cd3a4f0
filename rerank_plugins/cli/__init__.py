"""The command line `rerank-plugins`. Each of its commands is a module of this package."""

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
    module.COMMAND for module in (rerank, listing, fetch, check, compare, calibrate, export, serve, batch, schema)
)


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command line and return its exit code.

    Args:
        argv: The arguments after the program's name; `None` means those of the process.

    Returns:
        0 for success; 1 if the reranker failed; 2 for wrong usage, configuration or input; 130 after Ctrl-C. If the
        reader closes the pipe early (`| head`), the exit code is 0 and nothing is printed.

    Example:
        >>> from rerank_plugins.cli import main
        >>> main(["check", "lexical"])  # doctest: +ELLIPSIS
        ok: lexical put the right document first; loaded in ... s, 3 documents in ... ms
        0
    """
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="replace")  # print "?" for a character that the terminal's encoding lacks
    try:
        arguments = _parse_arguments(argv)
        with _show_warnings():
            code: int = arguments.run(arguments)
        sys.stdout.flush()
    except SystemExit as exit_request:  # argparse raises it for --help, --version and wrong usage
        return exit_request.code if isinstance(exit_request.code, int) else 0
    except KeyboardInterrupt:
        return INTERRUPTED
    except BrokenPipeError:
        # The interpreter flushes stdout when it exits; into the closed pipe, that would print another error.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except (ConfigError, InputError) as error:
        return _print_error(error, WRONG_USE)
    except (RerankError, OSError) as error:
        return _print_error(error, FAILED)
    return code


def _print_error(error: Exception, code: int) -> int:
    """Print `error` on one line of stderr and return `code`."""
    say(f"{NAME}: {' '.join(str(error).split())}", file=sys.stderr)
    return code


@contextlib.contextmanager
def _show_warnings() -> Iterator[None]:
    """Print the warnings that the package logs, such as one about a degraded answer, as errors are printed."""
    logger, stderr = logging.getLogger("rerank_plugins"), logging.StreamHandler()
    stderr.setFormatter(_PrintableFormatter(f"{NAME}: %(message)s"))
    logger.addHandler(stderr)
    try:
        yield
    finally:
        logger.removeHandler(stderr)


class _PrintableFormatter(logging.Formatter):
    """Formats a log record, its traceback included, without control characters."""

    def format(self, record: logging.LogRecord) -> str:
        return "\n".join(map(printable, super().format(record).splitlines()))


class _Parser(argparse.ArgumentParser):
    """Reports wrong usage in two lines, instead of printing all of the usage."""

    def error(self, message: str) -> NoReturn:
        self.exit(WRONG_USE, f"{NAME}: {printable(message)}\nTry '{self.prog} --help'.\n")


def _parse_arguments(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = _Parser(
        prog=NAME, description="Rerank documents with any model or vendor, named by one string.", epilog=EXIT_CODES
    )
    parser.add_argument("--version", action="version", version=f"{NAME} {__version__}")
    commands = parser.add_subparsers(dest="command", metavar="COMMAND", required=True)
    for command in COMMANDS:
        summary = f"{command.summary[0].upper()}{command.summary[1:]}."
        subparser = commands.add_parser(
            command.name,
            help=command.summary,
            description=f"{summary}\n\n{command.details.strip()}".rstrip(),
            epilog=f"{command.examples}\n\n{EXIT_CODES}",
            formatter_class=argparse.RawDescriptionHelpFormatter,
        )
        subparser.set_defaults(run=command.run)
        subparser.add_argument(
            "--config", metavar="FILE", help="TOML file with named rerankers; default: $RERANK_PLUGINS_CONFIG"
        )
        command.add_options(subparser)

    arguments, rest = parser.parse_known_args(argv)
    # Files may also come after options. argparse before Python 3.12.7 does not accept them there.
    files = [word for position, word in enumerate(rest) if _is_file(word, rest[:position])]
    unknown = [word for position, word in enumerate(rest) if word != "--" and not _is_file(word, rest[:position])]
    if unknown or (files and arguments.command != "rerank"):
        parser.error(f"unrecognized arguments: {' '.join(unknown or files)}")
    if arguments.command == "rerank":
        arguments.files = [*arguments.files, *files] or ["-"]
    return arguments


def _is_file(argument: str, before: list[str]) -> bool:
    return argument == "-" or "--" in before or not argument.startswith("-")
