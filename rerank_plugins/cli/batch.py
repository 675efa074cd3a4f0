"""`rerank-plugins batch`: files of queries and candidates, in parts, here or on Ray."""

from __future__ import annotations

import argparse
import functools
import sys
from typing import TYPE_CHECKING, Any

from .command import FAILED, NAME, SPEC, Command, integer_from, number_from, spec_from
from .terminal import BAR_OPTIONS, say

if TYPE_CHECKING:
    from ..serving.batch import Done

__all__ = ["COMMAND"]


def _options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--input", required=True, metavar="PATH", help="a Parquet or JSONL file or folder, or s3://…")
    parser.add_argument(
        "--output", required=True, metavar="FOLDER", help="a new folder, or one to go on with; or s3://…"
    )
    parser.add_argument("-r", "--reranker", metavar="SPEC", help=SPEC)
    parser.add_argument("-n", "--top-n", metavar="N", type=int, help="how many of each row to keep; default: all")
    parser.add_argument("--format", choices=("parquet", "jsonl"), help="of the output; default: as the input is named")
    parser.add_argument("--query-column", default="query", metavar="NAME", help="default: query")
    parser.add_argument("--documents-column", default="documents", metavar="NAME", help="default: documents")
    parser.add_argument(
        "--retrieval-scores-column", metavar="NAME", help="of the retriever, for rerankers that use them"
    )
    parser.add_argument(
        "--rows-per-part", default=500, type=int, metavar="N", help="what is lost at most; default: 500"
    )
    parser.add_argument("--in-flight", default=8, type=int, metavar="N", help="rows at the same time; default: 8")
    parser.add_argument("--ray", action="store_true", help="on Ray: the cluster of $RAY_ADDRESS, else one started here")
    parser.add_argument(
        "--actors", default=2, type=integer_from(1), metavar="N", help="with --ray: how many; default: 2"
    )
    parser.add_argument(
        "--cpus-per-actor", default=1.0, type=number_from(0.001, 10_000), metavar="X", help="with --ray; default: 1"
    )


def _run(arguments: argparse.Namespace) -> int:
    from ..serving.batch import Job, in_one_process, run
    from ..serving.rows import Columns

    jsonl = arguments.input.lower().endswith((".jsonl", ".ndjson"))
    job = Job(
        input=arguments.input,
        output=arguments.output,
        spec=None if arguments.reranker is None else spec_from(arguments.reranker),
        config=arguments.config,
        columns=Columns(arguments.query_column, arguments.documents_column, arguments.retrieval_scores_column),
        top_n=arguments.top_n,
        kind=arguments.format or ("jsonl" if jsonl else "parquet"),
        rows_per_part=arguments.rows_per_part,
        in_flight=arguments.in_flight,
    )
    way = in_one_process
    if arguments.ray:
        from ..serving.ray_data import on_ray

        way = functools.partial(on_ray, actors=arguments.actors, num_cpus=arguments.cpus_per_actor)
    shown = _Progress()
    try:
        done = run(job, way, shown)
    finally:
        shown.end()
    say(
        f"{done.reranked:,} rows reranked into {arguments.output}"
        + (f", {done.degraded:,} of them by a stand-in" if done.degraded else "")
        + (f"; {done.set_aside:,} set aside, with the reasons, in its folder _set_aside" if done.set_aside else "")
    )
    return FAILED if done.set_aside else 0


class _Progress:
    """Shows a person how far it is; a log or a pipe gets nothing."""

    def __init__(self) -> None:
        self._before = 0
        self._bar: Any = None

    def __call__(self, done: Done, parts: int) -> None:
        rows = done.reranked + done.set_aside
        if self._bar is None:
            if not sys.stderr.isatty():
                return
            from tqdm import tqdm

            self._before = rows  # from an earlier run
            self._bar = tqdm(total=parts, initial=done.parts, desc=NAME, unit="part", **BAR_OPTIONS)
        speed = (rows - self._before) / max(self._bar.format_dict["elapsed"], 1e-3)
        self._bar.set_postfix_str(f"{rows:,} rows, {done.set_aside:,} set aside, {speed:.1f} rows/s", refresh=False)
        self._bar.update(done.parts - self._bar.n)
        self._bar.refresh()

    def end(self) -> None:
        if self._bar is not None:
            self._bar.close()


COMMAND = Command(
    "batch",
    "rerank files of queries and candidates, here or on Ray",
    _run,
    _options,
    """examples:
  rerank-plugins batch --input questions.parquet --output reranked --reranker embedded --top-n 10
  rerank-plugins batch --input s3://bucket/questions --output s3://bucket/reranked -r cohere:rerank-v4.0-fast
  rerank-plugins batch --input questions.jsonl --output reranked -r embedded --ray --actors 8""",
    """

Each row holds a query and a list of documents (texts, or objects). The output holds the rows without that list and with
`reranked`: a list, best first, of index, document, relevance_score, raw_score, truncated and reason; and rerank_model,
rerank_degraded and rerank_reason. An input with a column of one of these names is refused. In Parquet a column of JSONL rows
whose values have no common type, or are nested too deep, is text, each value as JSON. In JSONL, NaN and infinity of a
Parquet file are null. An input that was edited is another job. Rows at fault are set aside with the reason, and the exit code is 1. If the backend is
down, or the command is stopped, give it again: what is done stays done.""",
)
