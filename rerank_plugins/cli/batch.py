"""`rerank-plugins batch`: rerank files of queries and candidates in parts, in this process or on Ray."""

from __future__ import annotations

import argparse
import functools
import sys
from typing import TYPE_CHECKING, Any

from .command import FAILED, NAME, RAY_DEFAULTS, SPEC, Command, add_ray_options, parse_spec, set_dependent_defaults
from .terminal import TQDM_OPTIONS, say

if TYPE_CHECKING:
    from ..serving.batch import BatchCounts

__all__ = ["COMMAND"]


def _add_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--input", required=True, metavar="PATH", help="Parquet or JSONL: a file, a folder, or s3://…")
    parser.add_argument("--output", required=True, metavar="FOLDER", help="a new folder, or one to continue; or s3://…")
    parser.add_argument("-r", "--reranker", metavar="SPEC", help=SPEC)
    parser.add_argument(
        "-n", "--top-n", metavar="N", type=int, help="results to write for each row, at least 1; default: all"
    )
    parser.add_argument(
        "--format", choices=("parquet", "jsonl"), help="format of the output; default: that of the input"
    )
    parser.add_argument("--query-column", default="query", metavar="NAME", help="column of the query; default: query")
    parser.add_argument(
        "--documents-column", default="documents", metavar="NAME", help="column of the documents; default: documents"
    )
    parser.add_argument(
        "--retrieval-scores-column",
        metavar="NAME",
        help="column of the retriever's scores, for rerankers that use them; default: none",
    )
    parser.add_argument(
        "--rows-per-part",
        default=500,
        type=int,
        metavar="N",
        help="rows written at a time, lost if the command is killed; default: 500",
    )
    parser.add_argument(
        "--in-flight", default=8, type=int, metavar="N", help="rows reranked at the same time; default: 8"
    )
    add_ray_options(parser)


def _run(arguments: argparse.Namespace) -> int:
    from ..serving.batch import BatchJob, in_one_process, run
    from ..serving.batch_rows import Columns

    set_dependent_defaults(arguments, "--ray", RAY_DEFAULTS)
    jsonl = arguments.input.lower().endswith((".jsonl", ".ndjson"))
    job = BatchJob(
        input=arguments.input,
        output=arguments.output,
        spec=None if arguments.reranker is None else parse_spec(arguments.reranker),
        config=arguments.config,
        columns=Columns(arguments.query_column, arguments.documents_column, arguments.retrieval_scores_column),
        top_n=arguments.top_n,
        kind=arguments.format or ("jsonl" if jsonl else "parquet"),
        rows_per_part=arguments.rows_per_part,
        in_flight=arguments.in_flight,
    )
    rerank_parts = in_one_process
    if arguments.ray:
        from ..serving.ray_data import on_ray

        rerank_parts = functools.partial(on_ray, actors=arguments.actors, num_cpus=arguments.cpus_per_actor)
    progress = _Progress()
    try:
        done = run(job, rerank_parts, progress)
    finally:
        progress.close()
    say(
        f"{done.reranked:,} rows reranked into {arguments.output}"
        + (f", {done.degraded:,} of them by a fallback" if done.degraded else "")
        + (f"; {done.set_aside:,} set aside with the reasons in its folder _set_aside" if done.set_aside else "")
    )
    return FAILED if done.set_aside else 0


class _Progress:
    """A progress bar on stderr if it is a terminal; a log or a pipe gets nothing."""

    def __init__(self) -> None:
        self._rows_before = 0
        """Rows that an earlier run of the same job reranked."""
        self._bar: Any = None

    def __call__(self, done: BatchCounts, parts: int) -> None:
        rows = done.reranked + done.set_aside
        if self._bar is None:
            if not sys.stderr.isatty():
                return
            from tqdm import tqdm

            self._rows_before = rows
            self._bar = tqdm(total=parts, initial=done.parts, desc=NAME, unit="part", **TQDM_OPTIONS)
        speed = (rows - self._rows_before) / max(self._bar.format_dict["elapsed"], 1e-3)
        self._bar.set_postfix_str(f"{rows:,} rows, {done.set_aside:,} set aside, {speed:.1f} rows/s", refresh=False)
        self._bar.update(done.parts - self._bar.n)
        self._bar.refresh()

    def close(self) -> None:
        if self._bar is not None:
            self._bar.close()


COMMAND = Command(
    "batch",
    "rerank files of queries and candidates, here or on Ray",
    _run,
    _add_options,
    """examples:
  rerank-plugins batch --input questions.parquet --output reranked --reranker embedded --top-n 10
  rerank-plugins batch --input s3://bucket/questions --output s3://bucket/reranked -r cohere:rerank-v4.0-fast
  rerank-plugins batch --input questions.jsonl --output reranked -r embedded --ray --actors 8""",
    """

Each row holds a query and a list of documents (strings or objects). The output holds the rows without that list, and
with four columns: `reranked`, a list, best first, of index, document, relevance_score, raw_score, truncated and reason;
and rerank_model, rerank_degraded and rerank_reason. An input that already has one of these columns is refused.

From JSONL to Parquet, a column whose values have no common type, or are nested too deep, becomes a string column with
each value as JSON. From Parquet to JSONL, NaN and infinity become null.

Rows with an error are set aside with the reason, and the exit code is 1. If the backend is down, or the command was
stopped, run it again: finished parts are not repeated. An input that was edited counts as another job.""",
)
