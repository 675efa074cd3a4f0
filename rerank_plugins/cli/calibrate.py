"""`rerank-plugins calibrate`: write a file that turns the scores of a reranker into probabilities."""

from __future__ import annotations

import argparse
import shlex
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..core.errors import BackendError, InputError, clause
from .command import Command, add_spec_argument, check_writable, integer_type, load_named_reranker, number_type
from .terminal import json_text, progress, say

if TYPE_CHECKING:
    from ..calibration.fit import JudgedScore
    from ..calibration.pairs import JudgedQuery
    from ..reranker import Reranker

__all__ = ["COMMAND"]

EXCLUDED_OPTIONS = ("top_n", "score_threshold", "calibration", "fallback", "diversify")
"""Options of the spec that are not applied: they change which scores are returned, or which model returns them."""
DEFAULT_CANDIDATES = 100
MIN_RELEVANT = 100
"""With fewer relevant documents, the output warns that the metrics and the curve are rough."""


def _add_options(parser: argparse.ArgumentParser) -> None:
    add_spec_argument(parser)
    parser.add_argument(
        "--data", required=True, metavar="FILE", help="JSONL with query, candidates and labels; or a BEIR folder"
    )
    parser.add_argument("--out", required=True, metavar="FILE", help="calibration file to write (JSON)")
    parser.add_argument(
        "--method", default="auto", choices=("auto", "platt", "isotonic", "temperature"), help="default: auto"
    )
    parser.add_argument("--plot", metavar="FILE", help="reliability plot to write, .svg or .html")
    parser.add_argument(
        "--relevant-from",
        type=number_type(-1e12),
        default=1.0,
        metavar="GRADE",
        help="lowest label of a relevant document; default: 1",
    )
    parser.add_argument(
        "--candidates",
        type=integer_type(1),
        metavar="N",
        help="candidates per query, if --data is a BEIR folder; default: 100",
    )
    parser.add_argument(
        "--seed", type=integer_type(0, 2**32 - 1), default=0, metavar="N", help="seed of the folds; default: 0"
    )


def _run(arguments: argparse.Namespace) -> int:
    from ..calibration.file import Calibration, save_calibration
    from ..calibration.fit import fit, require_scikit_learn
    from ..calibration.plot import check_plot_path, draw_reliability_plot
    from ..config import identity

    require_scikit_learn()
    check_writable("--out", arguments.out)
    check_writable("--plot", arguments.plot)
    if arguments.plot:
        check_plot_path(Path(arguments.plot))
    with load_named_reranker(arguments, dict.fromkeys(EXCLUDED_OPTIONS)) as reranker:
        identity(reranker)  # raises before any request if the reranker cannot be calibrated
        with progress(f"asking {reranker.scorer.label}"):
            judged = _score_judged_pairs(reranker, arguments)
        capabilities = reranker.scorer.capabilities
        curve, held_out = fit(judged, capabilities, arguments.method, seed=arguments.seed)
        label, calibrated_model = reranker.scorer.label, identity(reranker)
        spec = {name: value for name, value in (reranker.spec or {}).items() if value is not None}
    save_calibration(Calibration(of=calibrated_model, curve=curve, held_out=held_out), Path(arguments.out).expanduser())
    if arguments.plot:
        draw_reliability_plot(held_out, label, Path(arguments.plot).expanduser())
    _print_results(label, curve.method, held_out)
    # Quoted for a shell, to paste after -r. The JSON inside the quotes can be pasted into a program.
    say(f"use it: -r {shlex.quote(json_text({**spec, 'calibration': arguments.out}))}")
    return 0


def _score_judged_pairs(reranker: Reranker, arguments: argparse.Namespace) -> list[JudgedScore]:
    """Rerank the candidates of each judged query. Return (query number, raw score, is relevant) of each candidate."""
    judged: list[JudgedScore] = []
    for number, judged_query in enumerate(
        _read_judged_queries(Path(arguments.data).expanduser(), arguments.candidates)
    ):
        response = reranker.rerank(judged_query.query, judged_query.candidates)
        if response.degraded:
            raise BackendError(
                "A fallback answered, and its scores must not be used for this calibration: "
                f"{clause(response.reason)}. Try again later."
            )
        judged += [
            (str(number), result.raw_score, judged_query.labels[result.index] >= arguments.relevant_from)
            for result in response
            if result.raw_score is not None  # blank documents, and those that were not read, have none
        ]
    return judged


def _read_judged_queries(data: Path, candidates: int | None) -> Iterator[JudgedQuery]:
    """Yield the queries of a JSONL file or of a BEIR folder. In a folder, unjudged candidates count as not relevant."""
    from ..calibration.pairs import JudgedQuery, read_judged_queries

    if not data.is_dir():
        if candidates is not None and data.exists():
            raise InputError(
                f"--candidates has no effect on {data}, whose lines hold all candidates: leave out --candidates, or "
                "name a BEIR folder."
            )
        yield from read_judged_queries(data)
        return
    from ..evaluation import read

    dataset = read(data, top_k=candidates or DEFAULT_CANDIDATES)
    for question in dataset.questions:
        grades = dataset.grades[question.id]
        labels = tuple(float(grades.get(candidate.id, 0)) for candidate in question.candidates)
        yield JudgedQuery(question.text, tuple(candidate.text for candidate in question.candidates), labels)


def _print_results(label: str, method: str, held_out: Mapping[str, Any]) -> None:
    say(
        f"{label}: {method}, fitted to {held_out['pairs']} scores of {held_out['queries']} queries, "
        f"{held_out['relevant']} relevant; held out in {held_out['folds']} folds by query (seed {held_out['seed']}):"
    )
    say(f"{'':8}{'ECE':>8}{'ECE, equal count':>18}{'Brier':>8}   ({held_out['bins']} bins)")
    for name in ("before", "after"):
        metrics = held_out[name]
        say(f"{name:8}{metrics['ece']:8.4f}{metrics['ece_equal_count']:18.4f}{metrics['brier']:8.4f}")
    if held_out["relevant"] < MIN_RELEVANT:
        say(
            f"Only {held_out['relevant']} documents are relevant: with fewer than {MIN_RELEVANT}, the metrics and the "
            "curve are rough."
        )


COMMAND = Command(
    "calibrate",
    "turn the scores of a reranker into probabilities, with judged data",
    _run,
    _add_options,
    """examples:
  rerank-plugins calibrate embedded --data judged.jsonl --out embedded.json --plot embedded.svg
  rerank-plugins calibrate cohere:rerank-v4.0-fast --data ./beir-folder --out cohere.json --method platt""",
    'A line of the data: {"query": "…", "candidates": ["…", "…"], "labels": [1, 0]}. The candidates should be\n'
    "all that a retriever returns, not only the judged ones. Needs 'rerank-plugins[calibration]' to fit, and nothing\n"
    "to use the file.",
)
