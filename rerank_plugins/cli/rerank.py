"""`rerank-plugins rerank`: lines or JSONL in, a ranked table or JSONL out."""

from __future__ import annotations

import argparse
import shutil
import sys
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

from ..rows import Row, read
from .command import NAME, SPEC, Command, named
from .terminal import json_text, printable, progress, say

if TYPE_CHECKING:
    from ..reranker import RerankResponse, RerankResult

__all__ = ["COMMAND"]


def _options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("query", metavar="QUERY")
    parser.add_argument("files", metavar="FILE", nargs="*", help="one document a line, or JSONL; '-' or none: stdin")
    parser.add_argument("-r", "--reranker", metavar="SPEC", help=SPEC)
    parser.add_argument("-n", "--top-n", metavar="N", type=int, help="how many to show, at least 1; default: all")
    parser.add_argument("--instruction", metavar="TEXT", help="what relevant means, for models that follow it")
    parser.add_argument(
        "--score-threshold", metavar="X", type=float, help="leave out relevance scores below X (0 to 1)"
    )
    parser.add_argument("--jsonl", action="store_true", help="read JSONL whatever the file is called")
    parser.add_argument(
        "--field", metavar="NAME", help="the field of a JSONL object that is the document; default: all of its fields"
    )
    parser.add_argument(
        "--fields",
        metavar="NAMES",
        type=lambda names: [name.strip() for name in names.split(",")],
        help="the fields of JSONL objects that are read, in this order, with commas between them; default: all",
    )
    parser.add_argument("--format", choices=("table", "jsonl"), default="table", help="of the output; default: table")
    parser.add_argument("--json", dest="format", action="store_const", const="jsonl", help="same as --format jsonl")


def _run(arguments: argparse.Namespace) -> int:
    options = {name: getattr(arguments, name) for name in ("top_n", "instruction", "score_threshold", "fields")}
    with named(arguments, {name: value for name, value in options.items() if value is not None}) as reranker:
        rows = [row for file in arguments.files for row in read(file, jsonl=arguments.jsonl, field=arguments.field)]
        if not rows:
            say(f"{NAME}: no documents in {', '.join(arguments.files)}: nothing to rank.", file=sys.stderr)
        with progress(f"reranking {len(rows):,} documents with {reranker.scorer.label}"):
            response = reranker.rerank(arguments.query, [row.document for row in rows])
    write = _table if arguments.format == "table" else _jsonl
    for line in write(response, rows):
        say(line)
    return 0


def _table(response: RerankResponse, rows: Sequence[Row]) -> Iterator[str]:
    cells = [("rank", "score", "where", "document")]
    for rank, result in enumerate(response, start=1):
        row, score = rows[result.index], result.relevance_score
        shown = printable(_snippet(result))
        cells.append((str(rank), "-" if score is None else f"{score:.4f}", printable(f"{row.file}:{row.line}"), shown))
    widths = [max(len(line[column]) for line in cells) for column in range(3)]
    # Cut to the window, but never what another program reads.
    width = shutil.get_terminal_size().columns if sys.stdout.isatty() else None
    for line in cells if len(cells) > 1 else ():
        yield f"{line[0]:>{widths[0]}}  {line[1]:>{widths[1]}}  {line[2]:<{widths[2]}}  {line[3]}"[:width]


def _snippet(result: RerankResult) -> str:
    document = result.document if isinstance(result.document, str) else json_text(result.document)
    if result.reason is None:
        return document
    # A document that has a score may have a reason too: which of its fields were not read.
    return f"({result.reason})" if result.raw_score is None else f"{document} ({result.reason})"


def _jsonl(response: RerankResponse, rows: Sequence[Row]) -> Iterator[str]:
    for rank, result in enumerate(response, start=1):
        row = rows[result.index]
        yield json_text(
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


_MORE = """

Input: UTF-8. Files ending in .jsonl or .ndjson hold one JSON string or object a line; all others one document a
line. Blank lines are no documents, but count as lines. No documents at all: no output, and exit code 0.

Output, best first: a table (rank, relevance score, file:line, document), or with --json one object a line with rank,
index, relevance_score, raw_score, truncated, reason, file, line and document (the row as it was read)."""
COMMAND = Command(
    "rerank",
    "order documents by how well they answer a query",
    _run,
    _options,
    """examples:
  rerank-plugins rerank "how do I reset my password" faq.txt
  grep -ri password docs/ | rerank-plugins rerank "how do I reset my password" --top-n 5 -
  rerank-plugins rerank "side effects" hits.jsonl --field body --json | jq -r .document.id
  rerank-plugins rerank "side effects" hits.jsonl --reranker '{"use": "cohere:rerank-v4.0-fast", "deadline": 2}'""",
    _MORE,
)
