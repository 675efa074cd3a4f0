"""`rerank-plugins rerank`: rank the lines of text or JSONL files, and print a table or JSONL."""

from __future__ import annotations

import argparse
import shutil
import sys
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

from ..core.errors import InputError
from ..jsonl import JSONL_SUFFIXES, Row, read_rows
from .command import NAME, SPEC, Command, load_named_reranker
from .terminal import json_text, printable, progress, say

if TYPE_CHECKING:
    from ..reranker import RerankResponse, RerankResult

__all__ = ["COMMAND"]


def _add_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("query", metavar="QUERY", help="the search query")
    parser.add_argument(
        "files", metavar="FILE", nargs="*", help="one document per line, or JSONL; '-' or no file: stdin"
    )
    parser.add_argument("-r", "--reranker", metavar="SPEC", help=SPEC)
    parser.add_argument("-n", "--top-n", metavar="N", type=int, help="documents to print, at least 1; default: all")
    parser.add_argument(
        "--instruction", metavar="TEXT", help="what relevant means, for models that follow an instruction"
    )
    parser.add_argument(
        "--score-threshold", metavar="X", type=float, help="minimum relevance score of a printed document, from 0 to 1"
    )
    parser.add_argument("--jsonl", action="store_true", help="read the files as JSONL, whatever their names")
    selection = parser.add_mutually_exclusive_group()  # with --field the documents are strings, which have no fields
    selection.add_argument(
        "--field", metavar="NAME", help="field of a JSONL object that is the document; default: all fields"
    )
    selection.add_argument(
        "--fields",
        metavar="NAMES",
        type=lambda names: [name.strip() for name in names.split(",")],
        help="fields of a JSONL object to read, in this order, separated by commas; default: all",
    )
    parser.add_argument(
        "--format", choices=("table", "jsonl"), default="table", help="format of the output; default: table"
    )
    parser.add_argument("--json", dest="format", action="store_const", const="jsonl", help="same as --format jsonl")


def _run(arguments: argparse.Namespace) -> int:
    _check_fields(arguments)
    options = {name: getattr(arguments, name) for name in ("top_n", "instruction", "score_threshold", "fields")}
    with load_named_reranker(
        arguments, {name: value for name, value in options.items() if value is not None}
    ) as reranker:
        rows = [
            row for file in arguments.files for row in read_rows(file, jsonl=arguments.jsonl, field=arguments.field)
        ]
        if not rows:
            say(f"{NAME}: no documents in {', '.join(arguments.files)}: nothing to rank.", file=sys.stderr)
        with progress(f"reranking {len(rows):,} documents with {reranker.scorer.label}"):
            response = reranker.rerank(arguments.query, [row.document for row in rows])
    lines = _table_lines if arguments.format == "table" else _jsonl_lines
    for line in lines(response, rows):
        say(line)
    return 0


def _check_fields(arguments: argparse.Namespace) -> None:
    """Refuse the names of fields where every file is plain text, which has none."""
    option = "--field" if arguments.field is not None else "--fields" if arguments.fields is not None else None
    if option and not arguments.jsonl and not any(name.lower().endswith(JSONL_SUFFIXES) for name in arguments.files):
        raise InputError(
            f"{option} has no effect on plain text, one document a line: add --jsonl if each line is JSON, or leave "
            f"out {option}."
        )


def _table_lines(response: RerankResponse, rows: Sequence[Row]) -> Iterator[str]:
    cells = [("rank", "score", "where", "document")]
    for rank, result in enumerate(response, start=1):
        row, score = rows[result.index], result.relevance_score
        document = printable(_document_with_reason(result))
        location = printable(f"{row.file}:{row.line}")
        cells.append((str(rank), "-" if score is None else f"{score:.4f}", location, document))
    widths = [max(len(line[column]) for line in cells) for column in range(3)]
    # Lines are cut to the width of a terminal, but not in a pipe or a file.
    width = shutil.get_terminal_size().columns if sys.stdout.isatty() else None
    for line in cells if len(cells) > 1 else ():
        yield f"{line[0]:>{widths[0]}}  {line[1]:>{widths[1]}}  {line[2]:<{widths[2]}}  {line[3]}"[:width]


def _document_with_reason(result: RerankResult) -> str:
    document = result.document if isinstance(result.document, str) else json_text(result.document)
    if result.reason is None:
        return document
    # A document with a score may have a reason too: the fields that were not read.
    return f"({result.reason})" if result.raw_score is None else f"{document} ({result.reason})"


def _jsonl_lines(response: RerankResponse, rows: Sequence[Row]) -> Iterator[str]:
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


_DETAILS = """

Input: UTF-8. Files ending in .jsonl or .ndjson hold one JSON string or object per line, other files one document per
line. Blank lines are skipped, but counted as lines. Without documents there is no output, and the exit code is 0.

Output, best first: a table (rank, relevance score, file:line, document), or with --json one object per line with rank,
index, relevance_score, raw_score, truncated, reason, file, line and document (as it was read)."""
COMMAND = Command(
    "rerank",
    "order documents by how well they answer a query",
    _run,
    _add_options,
    """examples:
  rerank-plugins rerank "how do I reset my password" faq.txt
  grep -ri password docs/ | rerank-plugins rerank "how do I reset my password" --top-n 5 -
  rerank-plugins rerank "side effects" hits.jsonl --field body --json | jq -r .document.id
  rerank-plugins rerank "side effects" hits.jsonl --reranker '{"use": "cohere:rerank-v4.0-fast", "deadline": 2}'""",
    _DETAILS,
)
