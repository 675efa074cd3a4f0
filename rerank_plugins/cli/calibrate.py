"""`rerank-plugins calibrate`: a file that makes a reranker's scores probabilities."""

from __future__ import annotations

import argparse
import shlex
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..core.errors import BackendError
from .command import Command, integer_from, named, number_from, spec_argument, writable
from .terminal import json_text, progress, say

if TYPE_CHECKING:
    from ..calibration.fit import Judged
    from ..calibration.pairs import Question
    from ..reranker import Reranker

__all__ = ["COMMAND"]

BARE = ("top_n", "score_threshold", "calibration", "fallback", "diversify")
"""Options that change which scores come back, or whose they are."""
CANDIDATES = 100
FEW = 100


def _options(parser: argparse.ArgumentParser) -> None:
    spec_argument(parser)
    parser.add_argument(
        "--data", required=True, metavar="FILE", help="JSONL of query, candidates, labels; or a BEIR folder"
    )
    parser.add_argument("--out", required=True, metavar="FILE", help="where the calibration is written (JSON)")
    parser.add_argument("--method", default="auto", choices=("auto", "platt", "isotonic", "temperature"))
    parser.add_argument("--plot", metavar="FILE", help="a reliability plot, .svg or .html")
    parser.add_argument(
        "--relevant-from", type=number_from(-1e12), default=1.0, metavar="GRADE", help="least label that is relevant: 1"
    )
    parser.add_argument(
        "--candidates", type=integer_from(1), default=CANDIDATES, metavar="N", help="of a BEIR folder, a query: 100"
    )
    parser.add_argument("--seed", type=integer_from(0, 2**32 - 1), default=0, help="of the folds: 0")


def _run(arguments: argparse.Namespace) -> int:
    from ..calibration.file import Calibration, write
    from ..calibration.fit import fit, fittable
    from ..calibration.plot import plot, plottable
    from ..config import identity

    fittable()
    writable("--out", arguments.out)
    writable("--plot", arguments.plot)
    if arguments.plot:
        plottable(Path(arguments.plot))
    with named(arguments, dict.fromkeys(BARE)) as reranker:
        identity(reranker)  # what cannot be calibrated is refused before anything is asked
        with progress(f"asking {reranker.scorer.label}"):
            judged = _judged(reranker, arguments)
        capabilities = reranker.scorer.capabilities
        curve, held_out = fit(judged, capabilities, arguments.method, seed=arguments.seed)
        label, of = reranker.scorer.label, identity(reranker)
        spec = {name: value for name, value in (reranker.spec or {}).items() if value is not None}
    write(Calibration(of=of, curve=curve, held_out=held_out), Path(arguments.out).expanduser())
    if arguments.plot:
        plot(held_out, label, Path(arguments.plot).expanduser())
    _tell(label, curve.method, held_out)
    # As JSON in the shell's quotes: it can be pasted behind -r, and its inside into a program or a file.
    say(f"use it: -r {shlex.quote(json_text({**spec, 'calibration': arguments.out}))}")
    return 0


def _judged(reranker: Reranker, arguments: argparse.Namespace) -> list[Judged]:
    judged: list[Judged] = []
    for number, each in enumerate(_questions(Path(arguments.data).expanduser(), arguments.candidates)):
        response = reranker.rerank(each.query, each.candidates)
        if response.degraded:
            raise BackendError(f"A stand-in answered, whose scores are not to be calibrated: {response.reason}.")
        judged += [
            (str(number), found.raw_score, each.labels[found.index] >= arguments.relevant_from)
            for found in response
            if found.raw_score is not None  # a blank one
        ]
    return judged


def _questions(data: Path, candidates: int) -> Iterator[Question]:
    """Yield the questions of a JSONL file, or of a folder as `compare` reads it; what is not judged is not relevant."""
    from ..calibration.pairs import Question, questions

    if not data.is_dir():
        yield from questions(data)
        return
    from ..evaluation import read

    found = read(data, top_k=candidates)
    for each in found.questions:
        grades = found.grades[each.id]
        labels = tuple(float(grades.get(one.id, 0)) for one in each.candidates)
        yield Question(each.text, tuple(one.text for one in each.candidates), labels)


def _tell(label: str, method: str, held_out: Mapping[str, Any]) -> None:
    say(
        f"{label}: {method}, fitted to {held_out['pairs']} scores of {held_out['queries']} queries, "
        f"{held_out['relevant']} relevant; held out in {held_out['folds']} folds by query (seed {held_out['seed']}):"
    )
    say(f"{'':8}{'ECE':>8}{'ECE, equal count':>18}{'Brier':>8}   ({held_out['bins']} bins)")
    for name in ("before", "after"):
        told = held_out[name]
        say(f"{name:8}{told['ece']:8.4f}{told['ece_equal_count']:18.4f}{told['brier']:8.4f}")
    if held_out["relevant"] < FEW:
        say(f"Only {held_out['relevant']} documents are relevant: with fewer than {FEW}, figures and curve are rough.")


COMMAND = Command(
    "calibrate",
    "make a reranker's scores probabilities, from judged data",
    _run,
    _options,
    """examples:
  rerank-plugins calibrate embedded --data judged.jsonl --out embedded.json --plot embedded.svg
  rerank-plugins calibrate cohere:rerank-v4.0-fast --data ./beir-folder --out cohere.json --method platt""",
    'A line of the data: {"query": "…", "candidates": ["…", "…"], "labels": [1, 0]}; what a retriever finds, not only\n'
    "what is judged. Needs 'rerank-plugins[calibration]' to fit; to use the file, nothing.",
)
