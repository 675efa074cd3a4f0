"""What a reranker is worth and takes: its figures over one data set."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from .asking import Asked
from .chance import interval, p_value
from .data import Dataset, Question
from .kept import Answer
from .metrics import Metrics

__all__ = ["Figures", "Lift", "figures_of", "first_stage"]


@dataclass(frozen=True, slots=True)
class Lift:
    """The change of the main measure against the first stage, over queries."""

    mean: float
    low: float
    high: float
    """`low` and `high`: the 95 % bootstrap interval."""
    p: float
    """Of the paired randomization test, two-sided."""


@dataclass(frozen=True, slots=True)
class Figures:
    """One row of the comparison."""

    label: str
    model: str
    """Who answered, as the first answer says."""
    values: Mapping[str, tuple[float, ...]] = field(repr=False)
    """Measure → one value per query."""
    means: Mapping[str, float]
    rankings: Mapping[str, tuple[str, ...]] = field(repr=False)
    """Query id → document ids, best first."""
    lift: Lift | None = None
    """`None` for the first stage itself."""
    p50_ms: float | None = None
    p95_ms: float | None = None
    """Of whole calls, over all candidates; `None` where nobody was asked."""
    documents_per_second: float | None = None
    usd_per_1000: float | None = None
    """Per 1,000 queries: 0 where nothing left the process, `None` where the price or the usage is not known."""
    degraded: float = 0.0
    """Share of the queries that a stand-in answered, or nobody."""
    failed: int = 0
    """Queries that nobody answered; they count with the order given."""
    depths: Mapping[int, float] = field(default_factory=dict)
    """Candidates → mean of the main measure."""
    depths_missing: str | None = None
    """Why `depths` holds only the deepest."""
    error: str | None = None
    """Why it was given up; its figures are then of nothing."""

    def to_dict(self) -> dict[str, Any]:
        """Return plain data, without rankings."""
        told: dict[str, Any] = {
            "reranker": self.label,
            "model": self.model,
            "error": self.error,
            "means": dict(self.means),
        }
        if self.lift is not None:
            told["lift"] = {name: getattr(self.lift, name) for name in ("mean", "low", "high", "p")}
        for name in (
            "p50_ms",
            "p95_ms",
            "documents_per_second",
            "usd_per_1000",
            "degraded",
            "failed",
            "depths_missing",
        ):
            told[name] = getattr(self, name)
        return {
            **told,
            "depths": {str(depth): value for depth, value in self.depths.items()},
            "per_query": dict(self.values),
        }


def first_stage(dataset: Dataset, metrics: Metrics) -> Figures:
    """Return the figures of the order given."""
    rankings = {each.id: tuple(candidate.id for candidate in each.candidates) for each in dataset.questions}
    values = metrics.measure(rankings)
    return Figures(dataset.first_stage, "first stage", values, _means(values), rankings)


def figures_of(one: Asked, dataset: Dataset, depths: Sequence[int], metrics: Metrics, first: Figures) -> Figures:
    """Return the figures of a reranker that was asked; of one that was given up, its error."""
    if one.error is not None:
        return Figures(one.label, one.label, {}, {}, {}, error=str(one.error))
    whole = one.answers[dataset.depth]
    rankings = _rankings(dataset.questions, {name: answer.order for name, answer in whole.items()})
    values = metrics.measure(rankings)
    main = metrics.main
    differences = [new - old for new, old in zip(values[main], first.values[main], strict=True)]
    answered = [answer for answer in whole.values() if answer.order and not answer.failed]
    p50, p95 = _quantiles([each.latency_ms for each in answered])
    at_depth = {}
    for depth in depths:
        if (orders := _orders(one, dataset, depth)) is not None:
            at_depth[depth] = _mean(metrics.measure(_rankings(dataset.questions, orders))[main])
    missing = None if len(at_depth) == len(depths) else "listwise and remote: each depth would be paid for again"
    return Figures(
        label=one.label,
        model=next((each.model for each in answered), one.label),
        values=values,
        means=_means(values),
        rankings=rankings,
        lift=Lift(*interval(differences), p_value(differences)),
        p50_ms=p50,
        p95_ms=p95,
        documents_per_second=_throughput(answered),
        usd_per_1000=_cost(answered),
        degraded=sum(each.degraded for each in whole.values()) / len(whole),
        failed=sum(each.failed for each in whole.values()),
        depths=at_depth,
        depths_missing=missing,
    )


def _orders(one: Asked, dataset: Dataset, depth: int) -> dict[str, tuple[int, ...]] | None:
    if depth in one.answers:
        found = {name: answer.order for name, answer in one.answers[depth].items()}
    elif one.pointwise:
        found = {name: answer.cut(depth) for name, answer in one.answers[dataset.depth].items()}
    else:
        return None
    return found


def _rankings(questions: Iterable[Question], orders: Mapping[str, Sequence[int]]) -> dict[str, tuple[str, ...]]:
    return {each.id: tuple(each.candidates[at].id for at in orders.get(each.id, ())) for each in questions}


def _means(values: Mapping[str, Sequence[float]]) -> dict[str, float]:
    return {name: _mean(each) for name, each in values.items()}


def _mean(values: Sequence[float]) -> float:
    return sum(values) / len(values)


def _quantiles(latencies: Sequence[float]) -> tuple[float, float] | tuple[None, None]:
    import numpy as np

    if not latencies:
        return None, None
    p50, p95 = np.quantile(latencies, [0.5, 0.95])
    return float(p50), float(p95)


def _throughput(answers: Sequence[Answer]) -> float | None:
    # Little's law: with so many under way all the time, each second of latency is that share of a second of the clock.
    seconds = sum(each.latency_ms / each.at_once for each in answers) / 1000.0
    return sum(len(each.order) for each in answers) / seconds if seconds else None


def _cost(answers: Sequence[Answer]) -> float | None:
    if not answers:
        return None
    costs = [0.0 if each.cost_usd is None and not each.requests else each.cost_usd for each in answers]
    known = [each for each in costs if each is not None]
    return 1000.0 * math.fsum(known) / len(known) if len(known) == len(costs) else None
