"""The command `rerank-plugins`: rerank lines or JSONL, list the backends, check one, export a model."""

from __future__ import annotations

import argparse
import contextlib
import io
import json
import logging
import os
import shutil
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

from . import __version__
from .core.errors import ConfigError, InputError, RerankError
from .rows import Row, read

if TYPE_CHECKING:
    from .reranker import Reranker, RerankResponse, RerankResult

__all__ = ["main"]

NAME = "rerank-plugins"
FAILED, WRONG_USE, INTERRUPTED = 1, 2, 130
INSTALL = "pip install 'rerank-plugins[{}]'"

CHECK_QUERY = "How does a reranker order search results?"
CHECK_DOCUMENTS = (
    "Bananas are yellow and rich in potassium.",
    "A reranker reads the query together with each of the search results and orders them, the best first.",
    "Bread rises because yeast makes gas in the dough.",
)
CHECK_BEST = 1

_EXIT_CODES = """exit codes: 0 fine; 1 the reranker failed; 2 wrong usage, configuration or input; 130 interrupted"""
_SPEC = (
    "a backend ('lexical'), a backend and its model ('cohere:rerank-v4.0-fast'), the name of a reranker in the "
    "configuration file, or a mapping as JSON; default: $RERANK_PLUGINS_RERANKER, else the embedded model"
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
    print(f"{NAME}: {' '.join(str(what).split())}", file=sys.stderr)
    return code


@contextlib.contextmanager
def _warnings_shown() -> Iterator[None]:
    """Show what the package logs (a degraded answer, say) the way errors are shown."""
    log, shown = logging.getLogger("rerank_plugins"), logging.StreamHandler()
    shown.setFormatter(logging.Formatter(f"{NAME}: %(message)s"))
    log.addHandler(shown)
    try:
        yield
    finally:
        log.removeHandler(shown)


# --- usage ---


class _Parser(argparse.ArgumentParser):
    """Says what is wrong in two lines rather than with the whole usage."""

    def error(self, message: str) -> NoReturn:
        self.exit(WRONG_USE, f"{NAME}: {message}\nTry '{self.prog} --help'.\n")


def _arguments(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = _Parser(
        prog=NAME, description="Rerank documents with any model or vendor, named by one string.", epilog=_EXIT_CODES
    )
    parser.add_argument("--version", action="version", version=f"{NAME} {__version__}")
    commands = parser.add_subparsers(dest="command", metavar="COMMAND", required=True)

    def command(name: str, run: Callable[[argparse.Namespace], int], about: str, more: str) -> argparse.ArgumentParser:
        made = commands.add_parser(
            name,
            help=about,
            description=f"{about[0].upper()}{about[1:]}. {more}".rstrip(),
            epilog=f"{_EXAMPLES[name]}\n\n{_EXIT_CODES}",
            formatter_class=argparse.RawDescriptionHelpFormatter,
        )
        made.set_defaults(run=run)
        made.add_argument(
            "--config", metavar="FILE", help="TOML file of named rerankers; default: $RERANK_PLUGINS_CONFIG"
        )
        return made

    _rerank_options(command("rerank", _rerank, "order documents by how well they answer a query", _RERANK_MORE))
    listing = command("list", _list, "show every backend, and what is missing for it", "")
    listing.add_argument("--json", action="store_true", help="as a JSON array")
    listing.add_argument("--models", action="store_true", help="the local models that can be named instead")
    fetching = command("fetch", _fetch, "bring a reranker's models to this machine", _FETCH_MORE)
    fetching.add_argument("reranker", metavar="SPEC", nargs="?", help=_SPEC)
    checking = command("check", _check, "load a reranker, rerank three documents, and say how it went", _CHECK_MORE)
    checking.add_argument("reranker", metavar="SPEC", nargs="?", help=_SPEC)
    exporting = command("export", _export, "make a folder for the onnx backend from a checkpoint", _EXPORT_MORE)
    exporting.add_argument(
        "model", metavar="MODEL", help="folder of a sequence-classification checkpoint (safetensors)"
    )
    exporting.add_argument("folder", metavar="DIR", help="where the ONNX folder is written")

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


def _rerank_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("query", metavar="QUERY")
    parser.add_argument("files", metavar="FILE", nargs="*", help="one document a line, or JSONL; '-' or none: stdin")
    parser.add_argument("-r", "--reranker", metavar="SPEC", help=_SPEC)
    parser.add_argument("-n", "--top-n", metavar="N", type=int, help="how many to show, at least 1; default: all")
    parser.add_argument("--instruction", metavar="TEXT", help="what relevant means, for models that follow it")
    parser.add_argument(
        "--score-threshold", metavar="X", type=float, help="leave out relevance scores below X (0 to 1)"
    )
    parser.add_argument("--jsonl", action="store_true", help="read JSONL whatever the file is called")
    parser.add_argument(
        "--field", metavar="NAME", help="the field of a JSONL object that is the document; default: 'text', else all"
    )
    parser.add_argument("--format", choices=("table", "jsonl"), default="table", help="of the output; default: table")
    parser.add_argument("--json", dest="format", action="store_const", const="jsonl", help="same as --format jsonl")


_RERANK_MORE = """

Input: UTF-8. Files ending in .jsonl or .ndjson hold one JSON string or object a line; all others one document a
line. Blank lines are no documents, but count as lines. No documents at all: no output, and exit code 0.

Output, best first: a table (rank, relevance score, file:line, document), or with --json one object a line with rank,
index, relevance_score, raw_score, truncated, reason, file, line and document (the row as it was read)."""
_CHECK_MORE = "The exit code is 1 when it fails, and when a stand-in answers."
_FETCH_MORE = "Stand-ins of its fallback too. Afterwards no network is needed: see local_files_only and HF_HUB_OFFLINE."
_EXPORT_MORE = "Float32; the result is held against torch before it is handed over. Needs 'rerank-plugins[export]'."
_EXAMPLES = {
    "export": "example:\n  rerank-plugins export ./my-cross-encoder ./my-onnx  # then: onnx:./my-onnx",
    "rerank": """examples:
  rerank-plugins rerank "how do I reset my password" faq.txt
  grep -ri password docs/ | rerank-plugins rerank "how do I reset my password" --top-n 5 -
  rerank-plugins rerank "side effects" hits.jsonl --field body --json | jq -r .document.id
  rerank-plugins rerank "side effects" hits.jsonl --reranker '{"use": "cohere:rerank-v4.0-fast", "deadline": 2}'""",
    "list": """examples:
  rerank-plugins list
  rerank-plugins list --models
  rerank-plugins list --json | jq -r '.[] | select(.installed) | .name'""",
    "fetch": """examples:
  rerank-plugins fetch ms-marco
  rerank-plugins fetch onnx:BAAI/bge-reranker-base
  rerank-plugins fetch production --config rerank.toml""",
    "check": """examples:
  rerank-plugins check
  rerank-plugins check voyage:rerank-2.5
  rerank-plugins check production --config rerank.toml""",
}


# --- rerank ---


def _rerank(arguments: argparse.Namespace) -> int:
    given = {name: getattr(arguments, name) for name in ("top_n", "instruction", "score_threshold")}
    with _reranker(arguments, {name: value for name, value in given.items() if value is not None}) as reranker:
        rows = [row for file in arguments.files for row in read(file, jsonl=arguments.jsonl, field=arguments.field)]
        if not rows:
            print(f"{NAME}: no documents in {', '.join(arguments.files)}: nothing to rank.", file=sys.stderr)
        with _progress(f"reranking {len(rows):,} documents with {reranker.scorer.label}"):
            response = reranker.rerank(arguments.query, [row.document for row in rows])
    write = _table if arguments.format == "table" else _jsonl
    for line in write(response, rows):
        print(line)
    return 0


def _reranker(arguments: argparse.Namespace, options: dict[str, Any]) -> Reranker:
    from .config import load_reranker

    spec = arguments.reranker
    if spec is not None and spec.lstrip().startswith("{"):
        try:
            spec = json.loads(spec)
        except ValueError as error:
            raise ConfigError(f"The reranker begins like JSON and is none: {error}. Check its quotes.") from error
    return load_reranker(spec, config=arguments.config, **options)


def _table(response: RerankResponse, rows: Sequence[Row]) -> Iterator[str]:
    cells = [("rank", "score", "where", "document")]
    for rank, result in enumerate(response, start=1):
        row, score = rows[result.index], result.relevance_score
        shown = _printable(_snippet(result))
        cells.append((str(rank), "-" if score is None else f"{score:.4f}", _printable(f"{row.file}:{row.line}"), shown))
    widths = [max(len(line[column]) for line in cells) for column in range(3)]
    # Cut to the window, but never what another program reads.
    width = shutil.get_terminal_size().columns if sys.stdout.isatty() else None
    for line in cells if len(cells) > 1 else ():
        yield f"{line[0]:>{widths[0]}}  {line[1]:>{widths[1]}}  {line[2]:<{widths[2]}}  {line[3]}"[:width]


def _snippet(result: RerankResult) -> str:
    if result.reason is not None:
        return f"({result.reason})"
    document = result.document
    return document if isinstance(document, str) else _json(document)


def _printable(text: str) -> str:
    """Return `text` on one line and without control characters: a document cannot steer the terminal."""
    return "".join(each if each.isprintable() else " " for each in " ".join(text.split())).rstrip()


def _jsonl(response: RerankResponse, rows: Sequence[Row]) -> Iterator[str]:
    for rank, result in enumerate(response, start=1):
        row = rows[result.index]
        yield _json(
            {
                "rank": rank,
                "index": result.index,
                "relevance_score": result.relevance_score,
                "raw_score": result.raw_score,
                "truncated": result.truncated,
                "reason": result.reason,
                "file": row.file,
                "line": row.line,
                "document": row.value,
            }
        )


def _json(value: Any) -> str:
    text = json.dumps(value, ensure_ascii=False)
    # A lone surrogate is no UTF-8, and its escape is refused by other readers of JSON (jq): U+FFFD stands for it.
    return text.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "replace")


@contextlib.contextmanager
def _progress(what: str) -> Iterator[None]:
    """Tell a person who waits what for; a log or a pipe gets nothing."""
    if not sys.stderr.isatty():
        yield
        return
    started = time.perf_counter()
    print(f"{what}… ", end="", file=sys.stderr, flush=True)
    outcome = "stopped after"
    try:
        yield
        outcome = "done in"
    finally:
        print(f"{outcome} {time.perf_counter() - started:.1f} s", file=sys.stderr)


# --- list and check ---


def _list(arguments: argparse.Namespace) -> int:
    from .registry import entries, models
    from .spec import profiles

    if arguments.models:
        found = models()
        print(json.dumps(found, indent=2, ensure_ascii=False) if arguments.json else "\n".join(_columns(found)))
        return 0
    kinds = ("local", "hosted", "server", "plugin")
    rows: list[dict[str, Any]] = []
    for name, entry in sorted(entries().items(), key=lambda item: (kinds.index(item[1].kind), item[0])):
        missing = entry.missing()
        install = INSTALL.format(entry.extra or "all") if missing else None
        told = {"installed": missing is None, "missing": missing, "install": install}
        rows.append({"name": name, "kind": entry.kind, "summary": entry.summary, **told})
    for name, settings in sorted(profiles(arguments.config).items()):
        told = {"installed": None, "missing": None, "install": None}
        rows.append({"name": name, "kind": "named", "summary": str(settings.get("use", "?")), **told})
    print(json.dumps(rows, indent=2, ensure_ascii=False) if arguments.json else "\n".join(_listing(rows)))
    return 0


def _listing(rows: Iterable[dict[str, Any]]) -> Iterator[str]:
    kind = None
    rows = list(rows)
    width = max(len(row["name"]) for row in rows)
    for row in rows:
        if row["kind"] != kind:
            kind = row["kind"]
            yield f"{kind}:"
        need = f" (missing {row['missing']}: {row['install']})" if row["missing"] else ""
        yield f"  {row['name']:<{width}}  {row['summary']}{need}"


def _columns(rows: Sequence[dict[str, str]]) -> Iterator[str]:
    widths = {key: max(len(key), *(len(row[key]) for row in rows)) for key in rows[0]}
    for row in ({key: key for key in rows[0]}, *rows):
        yield "  ".join(f"{value:<{widths[key]}}" for key, value in row.items()).rstrip()


def _fetch(arguments: argparse.Namespace) -> int:
    from .config import backends

    with _reranker(arguments, {"top_n": None, "score_threshold": None}) as reranker:
        for backend in backends(reranker):
            told = backend.fetch()  # the hub's client shows its bar
            print(f"{backend.label}: {told if told is not None else 'needs no files'}")
    return 0


def _check(arguments: argparse.Namespace) -> int:
    with _reranker(arguments, {"top_n": None, "score_threshold": None}) as reranker:
        started = time.perf_counter()
        with _progress(f"loading {reranker.scorer.label}"):
            reranker.warmup()
        loaded = time.perf_counter() - started
        response = reranker.rerank(CHECK_QUERY, CHECK_DOCUMENTS)
    print(
        f"{'degraded' if response.degraded else 'ok'}: {response.model} {_order(response)}; "
        f"loaded in {loaded:.1f} s, 3 documents in {response.latency_ms:.0f} ms{_usage(response)}"
    )
    return FAILED if response.degraded else 0


def _order(response: RerankResponse) -> str:
    if all(result.raw_score is None for result in response):
        return "keeps the order given"
    return "put the right document first" if response[0].index == CHECK_BEST else "did NOT put the right document first"


def _usage(response: RerankResponse) -> str:
    usage = response.usage
    told = {
        "requests": usage.requests or None,
        "tokens": usage.input_tokens,
        "search units": usage.search_units,
        "USD": usage.cost_usd,
    }
    return "".join(f", {name}: {value:g}" for name, value in told.items() if value is not None)


def _export(arguments: argparse.Namespace) -> int:
    from .engine.export import export

    with _progress(f"exporting {arguments.model}"):
        made = export(Path(arguments.model).expanduser(), Path(arguments.folder).expanduser())
    last = "; last layer for the first token only" if made.first_token_only else ""
    print(
        f"ok: onnx:{arguments.folder} agrees with torch on {made.pairs} pairs: "
        f"largest difference {made.largest:.1e}, Kendall tau {made.tau:.4f}{last}"
    )
    return 0
