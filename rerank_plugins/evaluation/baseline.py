"""Regression check: is a reranker worse than in a run whose figures were kept?"""

from __future__ import annotations

import hashlib
import json
import math
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

from ..core.errors import InputError, clause
from ..core.types import is_score
from .comparison_data import ComparisonData
from .data import Dataset, Question
from .results import EvaluationResult
from .significance import interval

__all__ = ["Regression", "check_baseline", "compare_to_baseline", "earlier_labels", "query_hashes", "read_baseline"]

Verdict = Literal["passed", "failed", "unclear"]


@dataclass(frozen=True, slots=True)
class Regression:
    """One reranker against the same reranker in an earlier run."""

    label: str
    baseline: str
    """The label in the earlier run."""
    main: str
    """The metric."""
    queries: int
    """Queries that both runs have."""
    margin: float
    """The loss that is allowed."""
    mean: float
    low: float
    high: float
    """`mean`, `low` and `high`: the change of the metric and its 95 % bootstrap interval; below 0 is worse."""
    verdict: Verdict
    """`failed`: the loss is larger than the margin, and the interval is below zero, or there is a `problem`. `passed`:
    the whole interval is above the loss that is allowed. `unclear`: the interval is too wide to tell."""
    problem: str | None = None
    """Why the two cannot be compared. The figures are then 0."""
    remarks: tuple[str, ...] = ()
    """Sentences about queries that were left out, and answers that were degraded or failed."""

    def to_dict(self) -> dict[str, Any]:
        """Return plain data that `json.dumps` takes."""
        return asdict(self)

    def __str__(self) -> str:
        """Return the verdict as a sentence, and the remarks."""
        return " ".join((self._sentence(), *self.remarks))

    def _sentence(self) -> str:
        if self.problem is not None:
            return self.problem
        change = f"{self.mean:+.3f} [{self.low:+.3f}, {self.high:+.3f}] {self.main} over {self.queries:,} queries"
        if self.verdict == "failed":
            return f"{self.label} is worse than the baseline: {change}; allowed is a loss of {self.margin:g}."
        if self.verdict == "passed":
            return f"{self.label} is no worse than the baseline by more than {self.margin:g}: {change}."
        return (
            f"{self.label}: these queries cannot tell whether it lost more than {self.margin:g}: {change}. "
            f"{self._needed()}"
        )

    def _needed(self) -> str:
        """Return how many queries would tell: the width of an interval falls with the root of their number.

        With this mean, only one verdict can come: `passed` once the lower end is above the loss that is allowed, or
        `failed` once the upper end is below zero.
        """
        half = (self.high - self.low) / 2
        gap = self.mean + self.margin if self.mean >= -self.margin else -self.mean
        if gap < half / 100:
            return "The change is as large as the loss that is allowed: set another one."
        return f"About {math.ceil(self.queries * (half / gap) ** 2):,} queries would tell."


def read_baseline(file: str | os.PathLike[str]) -> dict[str, Any]:
    """Return the figures that `compare --json` wrote.

    Args:
        file: The path of the JSON.

    Raises:
        InputError: The file cannot be read, or holds something else.

    >>> from rerank_plugins.evaluation import read_baseline
    >>> import pathlib, tempfile
    >>> file = pathlib.Path(tempfile.mkdtemp()) / "kept.json"
    >>> _ = file.write_text('{"main": "nDCG@10", "queries": ["q1"], "rerankers": []}', "utf-8")
    >>> read_baseline(file)["main"]
    'nDCG@10'
    """
    try:
        figures = json.loads(Path(file).expanduser().read_text("utf-8"))
    except OSError as error:
        raise InputError(f"{file} cannot be read: {error.strerror}. Check the path of the baseline.") from error
    except (ValueError, RecursionError) as error:
        raise InputError(f"{file} is not JSON: {clause(error)}. A baseline is what compare --json wrote.") from error
    rows = figures.get("rerankers") if isinstance(figures, dict) else None
    well_formed = (
        isinstance(rows, list)
        and isinstance(figures.get("main"), str)
        and isinstance(figures.get("queries"), list)
        and all(isinstance(query, str) for query in figures["queries"])
        and isinstance(figures.get("hashes", []), list)
        and all(map(_is_result, rows))
    )
    if not well_formed:
        raise InputError(f"{file} is no baseline: it must be what compare --json wrote.")
    return dict(figures)


def _is_result(row: Any) -> bool:
    """Return whether a value of a file can be the result of one reranker."""
    return (
        isinstance(row, dict)
        and isinstance(row.get("reranker"), str)
        and isinstance(row.get("per_query"), dict)
        and all(isinstance(values, list) for values in row["per_query"].values())
        and all(row.get(name) is None or is_score(row[name]) for name in ("degraded", "failed"))
    )


def compare_to_baseline(
    comparison: ComparisonData, baseline: Mapping[str, Any], margin: float
) -> tuple[Regression, ...]:
    """Compare each reranker with the one of the same label in an earlier run, over the queries that both have.

    Queries with another text, other candidates or other judgements are left out. Where each run has one reranker, these
    two are compared, whatever their labels.

    Args:
        comparison: The new run.
        baseline: The figures of the earlier run: `Comparison.to_dict()`, or what `read_baseline` returns.
        margin: The loss of the main metric that is allowed, at least 0.

    Returns:
        One `Regression` per reranker: `verdict` (`passed`, `failed` or `unclear`), `mean`, `low`, `high`, `queries`,
        `problem` (such as a label that the baseline lacks, which fails) and `remarks`.

    Raises:
        InputError: The runs have no reranker or no query in common, or another main metric, protocol, data set or first
            stage.

    >>> from rerank_plugins.evaluation import Candidate, Dataset, Question, compare, compare_to_baseline
    >>> texts = ("A bank raised its rates.", "Bees make honey.")
    >>> candidates = tuple(Candidate(f"d{number}", text) for number, text in enumerate(texts))
    >>> dataset = Dataset.of("bees", [Question("q1", "who makes honey?", candidates)], {"q1": {"d1": 1}})
    >>> comparison = compare(dataset, ["lexical"])
    >>> compare_to_baseline(comparison, comparison.to_dict(), 0.01)[0].verdict
    'passed'
    """
    if not 0 <= margin < math.inf:
        raise InputError(f"The loss that is allowed must be a number of at least 0, got {margin}.")
    check_baseline(baseline, comparison.dataset, comparison.main)
    earlier = {row["reranker"]: row for row in baseline["rerankers"]}
    labels = earlier_labels(baseline, [row.label for row in comparison.rows])
    pairs = zip(comparison.rows, labels, strict=True)
    hashes = query_hashes(comparison.dataset)
    return tuple(_regression(comparison, row, earlier.get(label), baseline, hashes, margin) for row, label in pairs)


def earlier_labels(baseline: Mapping[str, Any], labels: Sequence[str]) -> list[str]:
    """Return for each reranker of the new run the label that it has in the earlier one, which may lack some of them.

    It needs no answer, so it can come before any request.

    Raises:
        InputError: The two runs have no reranker in common.
    """
    earlier = list(dict.fromkeys(row["reranker"] for row in baseline["rerankers"]))
    if len(labels) == len(earlier) == 1:
        return earlier
    if not set(labels) & set(earlier):
        raise InputError(
            f"The baseline has none of the rerankers {', '.join(labels)}: it has {', '.join(earlier) or 'none'}. Name "
            "one of them, or keep a new baseline."
        )
    return list(labels)


def check_baseline(baseline: Mapping[str, Any], dataset: Dataset, main: str) -> None:
    """Refuse figures of a run with other options or texts. It needs no answer, so it can come before any request.

    Args:
        baseline: The figures of the earlier run.
        dataset: The data set of the new run.
        main: The main metric of the new run.

    Raises:
        InputError: The earlier run has another main metric, protocol, data set or first stage, or every query has
            another text, other candidates or judgements now.
    """
    mine: dict[str, object] = {
        "main": main,
        "protocol": dataset.protocol,
        "dataset": dataset.name,
        "first_stage": dataset.first_stage,
    }
    if "hashes" not in baseline:  # of an earlier version: the number of candidates is all that is known of them
        mine["candidates"] = dataset.depth
    words = {
        "main": "main metric",
        "dataset": "data set",
        "first_stage": "first stage",
        "candidates": "number of candidates",
    }
    for name, value in mine.items():
        if (other := baseline.get(name, value)) != value:
            raise InputError(
                f"The baseline has another {words.get(name, name)}, {other}, and this run {value}: the two cannot be "
                "compared. Use the options of the run that was kept, or keep a new baseline."
            )
    # Queries that a judge still has to label have no judgements to compare yet.
    if "hashes" in baseline and not dataset.unlabelled:
        _require_unchanged_query(baseline, dataset)


def query_hashes(dataset: Dataset) -> list[str]:
    """Return one hash per question of its text, its candidates in their order, and its grades."""
    return [_query_hash(dataset, question) for question in dataset.questions]


def _query_hash(dataset: Dataset, question: Question) -> str:
    candidates = [(candidate.id, candidate.text) for candidate in question.candidates]
    grades = sorted(dataset.grades.get(question.id, {}).items())
    content = json.dumps([question.text, candidates, question.added, grades])
    return hashlib.sha256(content.encode()).hexdigest()[:16]


def _require_unchanged_query(baseline: Mapping[str, Any], dataset: Dataset) -> None:
    """Check that a query is the same as in the baseline. It hashes up to that one, which is mostly the first."""
    names, hashes = set(baseline["queries"]), dict(zip(baseline["queries"], baseline["hashes"], strict=False))
    changed = 0
    for question in dataset.questions:
        if question.id in names:
            digest = _query_hash(dataset, question)
            if hashes.get(question.id, digest) == digest:
                return
            changed += 1
    raise InputError(f"The baseline has no figures for any of these queries{_changes(changed)}: keep a new baseline.")


def _changes(changed: int) -> str:
    if not changed:
        return ""
    return (
        f": {changed:,} of them have another text, other candidates or judgements now, or an earlier version read "
        "their documents in another way"
    )


def _regression(
    comparison: ComparisonData,
    row: EvaluationResult,
    earlier: Mapping[str, Any] | None,
    baseline: Mapping[str, Any],
    hashes: Sequence[str],
    margin: float,
) -> Regression:
    names = ", ".join(entry["reranker"] for entry in baseline["rerankers"])
    problem = None
    if row.error is not None:
        problem = f"{row.label} was given up and not measured: {row.error}"
    elif earlier is None:
        problem = f"{row.label} is not in the baseline, which has {names}: name one of them, or keep a new baseline."
    elif earlier.get("error"):
        problem = f"{row.label} failed in the run of the baseline, which has no figures of it: keep a new baseline."
    if problem is not None or earlier is None:
        label = "" if earlier is None else earlier["reranker"]
        return Regression(row.label, label, comparison.main, 0, margin, 0.0, 0.0, 0.0, "failed", problem)
    old_values = dict(zip(baseline["queries"], earlier["per_query"].get(comparison.main, ()), strict=False))
    old_hashes = dict(zip(baseline["queries"], baseline.get("hashes", ()), strict=False))
    weights = row.weights or (1.0,) * len(row.values[comparison.main])
    new = zip(comparison.dataset.questions, row.values[comparison.main], weights, hashes, strict=True)
    differences, weights_left, changed = [], [], 0
    for question, value, weight, digest in new:
        if not is_score(old_values.get(question.id)):
            continue
        if old_hashes.get(question.id, digest) != digest:
            changed += 1
        else:
            differences.append(value - old_values[question.id])
            weights_left.append(weight)
    if not differences:
        raise InputError(
            f"The baseline has no figures of {earlier['reranker']} for any of these queries{_changes(changed)}: keep a "
            "new baseline."
        )
    # The weights average 1 over all queries of the run. Over the compared ones they must do so again.
    scale = len(weights_left) / math.fsum(weights_left)
    pairs = zip(differences, weights_left, strict=True)
    mean, low, high = interval([difference * weight * scale for difference, weight in pairs])
    if mean < -margin and high < 0:
        verdict: Verdict = "failed"
    else:
        verdict = "passed" if low >= -margin else "unclear"
    return Regression(
        row.label,
        earlier["reranker"],
        comparison.main,
        len(differences),
        margin,
        mean,
        low,
        high,
        verdict,
        remarks=tuple(_remarks(row, earlier, changed, has_hashes="hashes" in baseline)),
    )


def _remarks(row: EvaluationResult, earlier: Mapping[str, Any], changed: int, *, has_hashes: bool) -> Iterator[str]:
    if not has_hashes:
        yield (
            "The baseline is of an earlier version and has no hashes: texts and judgements that changed since are not "
            "noticed. Keep a new baseline."
        )
    if changed:
        yield f"{changed:,} queries were left out: their text, candidates or judgements are not those of the baseline."
    for degraded, failed, when in (
        (row.degraded, row.failed, "its answers"),
        (earlier.get("degraded") or 0.0, earlier.get("failed") or 0, "the baseline's answers"),
    ):
        if degraded:
            yield f"{degraded:.0%} of {when} were degraded, and {failed:,} of these failed."
