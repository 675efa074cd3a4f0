"""`rerank-plugins compare`: which reranker, and is it worth it?"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from .command import FAILED, INTERRUPTED, NAME, SPEC_FORMS, Command, integer_from, number_from, spec_from, writable
from .terminal import columns, counted, json_text, printable, say

if TYPE_CHECKING:
    from ..evaluation import Comparison

__all__ = ["COMMAND"]


def _options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("data", metavar="DATA", nargs="?", help="a BEIR folder, or a JSONL file of labelled lists")
    for name, what in (
        ("run", "TREC run: the candidates as your retriever ordered them; without one BM25 finds them"),
        ("qrels", "judgements, TREC or BEIR, instead of the folder's"),
        ("queries", "JSONL or TSV, instead of the folder's"),
        ("corpus", "JSONL, TSV or TREC's <DOC> file, instead of the folder's"),
    ):
        parser.add_argument(f"--{name}", metavar="FILE", dest=f"{name}_file", help=what)
    parser.add_argument(
        "-r",
        "--reranker",
        metavar="SPEC",
        action="append",
        required=True,
        help=f"{SPEC_FORMS}; required, and repeatable",
    )
    parser.add_argument(
        "--top-k", metavar="N", type=integer_from(1), default=100, help="candidates of a query; default: 100"
    )
    parser.add_argument(
        "--k", metavar="N", type=integer_from(1), default=10, help="cut of nDCG, MRR and recall; default: 10"
    )
    parser.add_argument(
        "--limit", metavar="N", type=integer_from(1), help="so many queries, evenly from all; default: all"
    )
    parser.add_argument("--budget-ms", metavar="MS", type=number_from(0), help="what 95 of 100 calls may take")
    parser.add_argument("--budget-usd", metavar="USD", type=number_from(0), help="what 1,000 queries may cost")
    parser.add_argument("--html", metavar="FILE", help="write the report, one file that needs no network")
    parser.add_argument("--json", metavar="FILE", help="write the figures, every query's too")
    parser.add_argument("--keep", metavar="FILE", help="where answers are kept; default: a file in the cache folder")
    parser.add_argument("--fresh", action="store_true", help="ask again what is kept")
    parser.add_argument(
        "--at-once", metavar="N", type=integer_from(1), default=1, help="questions under way at once; default: 1"
    )


def _run(arguments: argparse.Namespace) -> int:
    from ..engine.hub import cache_folder
    from ..evaluation import compare, read

    writable("--json", arguments.json)
    writable("--html", arguments.html)
    if arguments.html:
        from ..evaluation.report import drawable

        drawable()
    files = {name: getattr(arguments, f"{name}_file") for name in ("run", "qrels", "queries", "corpus")}
    dataset = read(arguments.data, **files, top_k=arguments.top_k, limit=arguments.limit)
    kept = Path(arguments.keep) if arguments.keep else cache_folder() / "comparisons.sqlite3"
    try:
        with counted() as progress:
            comparison = compare(
                dataset,
                [spec_from(each) for each in arguments.reranker],
                k=arguments.k,
                budget_ms=arguments.budget_ms,
                budget_usd=arguments.budget_usd,
                kept=kept,
                fresh=arguments.fresh,
                at_once=arguments.at_once,
                config=arguments.config,
                progress=progress,
            )
    except KeyboardInterrupt:
        again = " (without --fresh)" if arguments.fresh else ""
        say(
            f"{NAME}: stopped. Every answer so far is kept in {kept}: the same command goes on from there{again}.",
            file=sys.stderr,
        )
        return INTERRUPTED
    _show(comparison)
    if arguments.json:
        Path(arguments.json).expanduser().write_text(json_text(comparison.to_dict()) + "\n", "utf-8")
    if arguments.html:
        from ..evaluation.report import html

        Path(arguments.html).expanduser().write_text(html(comparison), "utf-8")
        say(f"\nReport: {arguments.html}")
    return FAILED if any(row.error for row in comparison.rows) else 0


def _show(comparison: Comparison) -> None:
    from ..evaluation.table import depth_rows, rows

    dataset = comparison.dataset
    unjudged = f" ({dataset.unjudged:,} more have no judgement)" if dataset.unjudged else ""
    say(
        f"{printable(dataset.name)}: {len(dataset.questions):,} queries{unjudged}, up to {dataset.depth} candidates each; "
        f"first stage: {printable(dataset.first_stage)}\n"
    )
    for line in columns(rows(comparison)):
        say(line)
    say(f"\n{comparison.main} by number of candidates:")
    for line in columns(depth_rows(comparison)):
        say(line)
    say()
    for line in comparison.advice.lines:
        say(printable(line))


COMMAND = Command(
    "compare",
    "measure rerankers on your own data, and say which is worth it",
    _run,
    _options,
    """examples:
  rerank-plugins compare ./my-data --reranker lexical --reranker embedded --budget-ms 500 --html report.html
  rerank-plugins compare ./my-data --run run.txt -r cohere:rerank-v4.0-fast -r '{"use": "voyage", "price": {…}}'
  rerank-plugins compare labelled.jsonl -r production --config rerank.toml --json figures.json""",
    """

DATA is a folder with corpus.jsonl, queries.jsonl (or .tsv), qrels/test.tsv (or qrels.txt) and, of your retriever, run.txt; or
a JSONL file, a line of which is {"query": "…", "candidates": ["…", …], "labels": [1, 0, …]}. Needs
'rerank-plugins[evaluation]'.

The lift is the change of nDCG against the first stage with its 95 % bootstrap interval; p is of the paired randomization
test. Latency is of whole calls over all candidates, caches included. Ctrl-C stops; the same command goes on.""",
)
