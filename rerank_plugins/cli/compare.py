"""`rerank-plugins compare`: measure several rerankers on labelled data."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from .command import (
    FAILED,
    INTERRUPTED,
    NAME,
    RAY_DEFAULTS,
    SPEC_FORMS,
    Command,
    add_ray_options,
    check_writable,
    integer_type,
    number_type,
    parse_spec,
    set_dependent_defaults,
)
from .terminal import json_text, printable, progress_bars, say, table_lines

if TYPE_CHECKING:
    from ..evaluation import Comparison

__all__ = ["COMMAND"]


def _add_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "data",
        metavar="DATA",
        nargs="?",
        help="a BEIR folder, a JSONL file of labelled candidates, 'nanobeir', or hub:org/name",
    )
    parser.add_argument(
        "--subset",
        metavar="NAME",
        action="append",
        help="data set of NanoBEIR, such as msmarco, or split of MTEB or BEIR; repeatable; default: all but arguana "
        "and touche2020, or test",
    )
    parser.add_argument(
        "--as-retrieved",
        action="store_true",
        help="for NanoBEIR: do not add the relevant documents that BM25 did not find",
    )
    for name, description in (
        ("run", "TREC run with the candidates in your retriever's order; default: BM25 retrieves them"),
        ("qrels", "relevance judgements, TREC or BEIR, instead of the folder's"),
        ("queries", "queries, JSONL or TSV, instead of the folder's"),
        ("corpus", "documents, JSONL, TSV or TREC's <DOC> file, instead of the folder's"),
    ):
        parser.add_argument(f"--{name}", metavar="FILE", dest=f"{name}_file", help=description)
    parser.add_argument(
        "-r",
        "--reranker",
        metavar="SPEC",
        action="append",
        required=True,
        help=f"{SPEC_FORMS}; required, and repeatable",
    )
    parser.add_argument(
        "--top-k", metavar="N", type=integer_type(1), default=100, help="candidates per query; default: 100"
    )
    parser.add_argument(
        "--k", metavar="N", type=integer_type(1), default=10, help="cut-off of nDCG, MRR and recall; default: 10"
    )
    parser.add_argument(
        "--limit",
        metavar="N",
        type=integer_type(1),
        help="queries to use, evenly spaced; with --judge also of those it judges; default: all",
    )
    parser.add_argument(
        "--budget-ms", metavar="MS", type=number_type(0), help="maximum latency of 95 of 100 calls, in ms"
    )
    parser.add_argument(
        "--budget-usd", metavar="USD", type=number_type(0), help="maximum cost of 1,000 queries, in USD"
    )
    parser.add_argument(
        "--abstention",
        action="store_true",
        help="also tell whether the best score says that nothing is relevant where each query is then paid for twice",
    )
    _add_judge_options(parser)
    _add_baseline_options(parser)
    parser.add_argument("--html", metavar="FILE", help="write a report as one file that needs no network")
    parser.add_argument("--json", metavar="FILE", help="write the results, also those of each query")
    parser.add_argument(
        "--keep", metavar="FILE", help="file that stores the answers; default: a file in the cache folder"
    )
    parser.add_argument("--fresh", action="store_true", help="ignore stored answers")
    parser.add_argument(
        "--at-once", metavar="N", type=integer_type(1), default=1, help="queries reranked at the same time; default: 1"
    )
    add_ray_options(parser)


def _add_judge_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--judge",
        metavar="SPEC",
        help="decision or chat model that judges the candidates of queries without judgements; figures are marked",
    )
    parser.add_argument(
        "--judge-check",
        metavar="N",
        type=integer_type(0),
        help="with --judge: queries with judgements that it judges too, for its agreement with people; default: 50",
    )
    parser.add_argument(
        "--judge-sample",
        metavar="FILE",
        help="with --judge: JSONL of 50 judged documents to check by hand; once it has labels by hand, they are read",
    )


def _add_baseline_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--baseline", metavar="FILE", help="figures that --json wrote: fail if a reranker is worse than it was then"
    )
    parser.add_argument(
        "--fail-below",
        metavar="X",
        type=number_type(0, 1),
        help="with --baseline: the loss of nDCG that is allowed; default: 0.01",
    )
    parser.add_argument(
        "--fail-unclear",
        action="store_true",
        default=None,
        help="with --baseline: also fail where the interval is too wide to tell",
    )


def _run(arguments: argparse.Namespace) -> int:
    from ..core.errors import InputError
    from ..core.file_paths import expand_user
    from ..engine.files import cache_folder
    from ..evaluation import RayPool, compare, compare_to_baseline, read, read_baseline
    from ..evaluation.baseline import check_baseline, earlier_labels
    from ..evaluation.judging import CHECKED_QUERIES
    from ..evaluation.results import metric_names
    from ..evaluation.runner import run_labels

    set_dependent_defaults(arguments, "--judge", {"judge_check": CHECKED_QUERIES, "judge_sample": None})
    set_dependent_defaults(arguments, "--baseline", {"fail_below": 0.01, "fail_unclear": False})
    set_dependent_defaults(arguments, "--ray", RAY_DEFAULTS)
    check_writable("--json", arguments.json)
    check_writable("--html", arguments.html)
    check_writable("--judge-sample", arguments.judge_sample)
    if arguments.html:
        from ..evaluation.report import require_chart_library

        require_chart_library()
    if arguments.baseline and arguments.json and _same_file(arguments.baseline, arguments.json):
        raise InputError("--baseline and --json name the same file: write the new figures to another one.")
    baseline = read_baseline(arguments.baseline) if arguments.baseline else None
    files = {name: getattr(arguments, f"{name}_file") for name in ("run", "qrels", "queries", "corpus")}
    dataset = read(
        arguments.data,
        **files,
        top_k=arguments.top_k,
        limit=arguments.limit,
        subsets=arguments.subset,
        add_relevant=not arguments.as_retrieved,
        unlabelled=arguments.judge is not None,
    )
    specs = [parse_spec(text) for text in arguments.reranker]
    if baseline is not None:
        check_baseline(baseline, dataset, metric_names(dataset, arguments.k)[0])
        earlier_labels(baseline, run_labels(specs, arguments.config, reserved_labels=[dataset.first_stage]))
    if arguments.judge is not None:
        say(_judge_work(len(dataset.unlabelled), min(len(dataset.questions), arguments.judge_check)), file=sys.stderr)
    answers_file = expand_user(arguments.keep, "--keep") if arguments.keep else cache_folder() / "comparisons.sqlite3"
    try:
        with progress_bars() as progress:
            comparison = compare(
                dataset,
                specs,
                k=arguments.k,
                budget_ms=arguments.budget_ms,
                budget_usd=arguments.budget_usd,
                answer_cache=answers_file,
                fresh=arguments.fresh,
                at_once=arguments.at_once,
                abstention=arguments.abstention,
                judge=None if arguments.judge is None else parse_spec(arguments.judge),
                judge_check=arguments.judge_check,
                judge_sample=arguments.judge_sample,
                ray=RayPool(arguments.actors, arguments.cpus_per_actor) if arguments.ray else None,
                config=arguments.config,
                progress=progress,
            )
    except KeyboardInterrupt:
        option = " without --fresh" if arguments.fresh else ""
        say(
            f"{NAME}: stopped. The answers so far are in {answers_file}: run the command again{option} to continue.",
            file=sys.stderr,
        )
        return INTERRUPTED
    _print_tables(comparison)
    if arguments.json:
        Path(arguments.json).expanduser().write_text(json_text(comparison.to_dict()) + "\n", "utf-8")
    if arguments.html:
        Path(arguments.html).expanduser().write_text(comparison.to_html(), "utf-8")
        say(f"\nReport: {arguments.html}")
    failed = any(row.error for row in comparison.rows)
    if baseline is not None:
        say()
        for regression in compare_to_baseline(comparison, baseline, arguments.fail_below):
            say(f"{regression.verdict.upper()}: {printable(str(regression))}")
            failed |= regression.verdict == "failed" or (regression.verdict == "unclear" and arguments.fail_unclear)
    return FAILED if failed else 0


def _same_file(one: str, other: str) -> bool:
    return Path(one).expanduser().resolve() == Path(other).expanduser().resolve()


def _judge_work(unlabelled: int, checked: int) -> str:
    """Return what a judge is asked for, which is said before its first request: it may be paid for."""
    checks = f" and, to compare it with people, {checked:,} with judgements" if checked else ""
    return f"The judge gets the candidates of {unlabelled:,} queries without judgements{checks} (see --limit)."


def _print_tables(comparison: Comparison) -> None:
    from ..evaluation.table import abstention_rows, agreement_rows, depth_rows, group_rows, result_rows

    dataset = comparison.dataset
    unjudged = f" ({dataset.unjudged:,} more have no judgement)" if dataset.unjudged else ""
    say(
        f"{printable(dataset.name)}: {len(dataset.questions):,} queries{unjudged}, up to {dataset.depth} candidates "
        f"each; first stage: {printable(dataset.first_stage)}\n"
    )
    for line in table_lines(result_rows(comparison)):
        say(line)
    if base := comparison.first.base_means:
        figures = ", ".join(f"{name} {value:.3f}" for name, value in base.items())
        say(
            f"\nsentence-transformers' evaluators print as base_* of the first stage: {figures}. They count relevant "
            "documents that are no candidates; lifts are measured without these."
        )
    say(f"\n{comparison.main} by number of candidates:")
    for line in table_lines(depth_rows(comparison)):
        say(line)
    for title, rows in (
        (f"{comparison.main} by data set, of which the mean counts each the same:", group_rows(comparison)),
        ("Does the best score tell that nothing is relevant?", abstention_rows(comparison)),
        ("Agreement of each pair:", agreement_rows(comparison)),
    ):
        if rows:
            say(f"\n{title}")
            for line in table_lines(rows):
                say(line)
    say()
    for line in comparison.advice.lines:
        say(printable(line))


COMMAND = Command(
    "compare",
    "measure rerankers on your own data or a public collection, and recommend one",
    _run,
    _add_options,
    """examples:
  rerank-plugins compare ./my-data --reranker lexical --reranker embedded --budget-ms 500 --html report.html
  rerank-plugins compare ./my-data --run run.txt -r cohere:rerank-v4.0-fast -r '{"use": "voyage", "price": {…}}'
  rerank-plugins compare labelled.jsonl -r production --config rerank.toml --json figures.json
  rerank-plugins compare labelled.jsonl -r production --config rerank.toml --baseline figures.json --fail-below 0.01
  rerank-plugins compare nanobeir --subset msmarco --subset nq -r embedded
  rerank-plugins compare ./unlabelled -r embedded --judge openai:gpt-6-luna --judge-sample check.jsonl""",
    """

DATA is a folder with corpus.jsonl, queries.jsonl (or .tsv), qrels/test.tsv (or qrels.txt) and, from your retriever,
run.txt; or a JSONL file with lines such as {"query": "…", "candidates": ["…", …], "labels": [1, 0, …]}. It may
also be nanobeir, or hub:org/name for another collection of the hub, or a local copy of one, in the layout of NanoBEIR,
BEIR or MTEB. Needs
'rerank-plugins[evaluation]', and for Parquet 'rerank-plugins[evaluation,batch]'.

The lift is the change of nDCG against the first stage, with its 95 % bootstrap interval; p is from the paired
randomization test. The latency is that of whole calls over all candidates, with caches. After Ctrl-C, the same
command continues.

With --baseline, the exit code is 1 if a reranker lost more than --fail-below and the 95 % interval of the loss is below
zero. Where the interval is too wide to tell, the command says so and, without --fail-unclear, passes.""",
)
