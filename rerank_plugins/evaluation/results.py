"""Results of one reranker over a data set: quality, lift, latency and cost."""

from __future__ import annotations

import itertools
import math
from array import array
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from .abstention import Abstention, measure_abstention, relevant_positions
from .answer_cache import Answer
from .data import Dataset, Question
from .metrics import Metrics, measure_names
from .protocol import evaluator_names, evaluator_values, first_stage_values
from .runner import RerankerRun
from .significance import interval, p_value

__all__ = ["EvaluationResult", "Lift", "Rankings", "evaluate_run", "first_stage_result", "metric_names"]

SLICE = 500
"""Questions that are measured at a time."""
PAID_AGAIN = "listwise and remote: each list would be paid for again"


@dataclass(frozen=True, slots=True)
class Lift:
    """Change of the main metric against the first stage, over all queries."""

    mean: float
    low: float
    high: float
    """`low` and `high`: the 95 % bootstrap interval."""
    p: float
    """The p-value of the two-sided paired randomization test."""


@dataclass(frozen=True, slots=True)
class EvaluationResult:
    """One row of the comparison: a reranker, or the first stage."""

    label: str
    model: str
    """The model that answered, as the first answer names it."""
    values: Mapping[str, tuple[float, ...]] = field(repr=False)
    """Metric → one value per query."""
    means: Mapping[str, float]
    """Metric → mean over all queries."""
    rankings: Mapping[str, tuple[str, ...]] = field(repr=False)
    """Query id → document ids, best first."""
    lift: Lift | None = None
    """`None` for the first stage itself."""
    p50_ms: float | None = None
    """Median latency of a call over all candidates, in milliseconds; `None` where no call was made."""
    p95_ms: float | None = None
    """95th percentile of that latency."""
    documents_per_second: float | None = None
    usd_per_1000: float | None = None
    """US dollars per 1,000 queries: 0 where no request left the process, `None` where price or usage is unknown."""
    list_prices: Mapping[str, str] = field(default_factory=dict)
    """Model whose cost follows from a published price → the day when that price was read."""
    degraded: float = 0.0
    """Share of the queries, 0 to 1, that a fallback answered or no backend answered."""
    failed: int = 0
    """Number of queries that no backend answered. They count with the first stage's order."""
    depths: Mapping[int, float] = field(default_factory=dict)
    """Number of candidates → mean of the main metric."""
    depths_missing: str | None = None
    """Why `depths` holds only the largest number of candidates."""
    error: str | None = None
    """Why the run stopped early. The other fields are then empty."""
    groups: Mapping[str, Mapping[str, float]] = field(default_factory=dict)
    """Data set → metric → mean, where several data sets were read together."""
    abstention: Abstention | None = None
    """Whether the best score tells that nothing is relevant; `None` for the first stage."""
    weights: tuple[float, ...] = field(default=(), repr=False)
    """Weight of each query in means, 1 on average; empty where all count the same."""
    base_means: Mapping[str, float] = field(default_factory=dict)
    """For the first stage by the rules of sentence-transformers: the figures that its evaluators print as `base_*`.
    They count relevant documents that are no candidates, and those of a reranker do not, so a lift is not measured
    against them."""
    base_groups: Mapping[str, Mapping[str, float]] = field(default_factory=dict)
    """Data set → the same figures."""

    def to_dict(self) -> dict[str, Any]:
        """Return plain data that `json.dumps` takes, without rankings."""
        row: dict[str, Any] = {
            "reranker": self.label,
            "model": self.model,
            "error": self.error,
            "means": dict(self.means),
        }
        if self.lift is not None:
            row["lift"] = {name: getattr(self.lift, name) for name in ("mean", "low", "high", "p")}
        for name in (
            "p50_ms",
            "p95_ms",
            "documents_per_second",
            "usd_per_1000",
            "list_prices",
            "degraded",
            "failed",
            "depths_missing",
        ):
            value = getattr(self, name)
            row[name] = dict(value) if isinstance(value, Mapping) else value
        if self.groups:
            row["groups"] = {group: dict(means) for group, means in self.groups.items()}
        if self.base_means:
            row["base_means"] = dict(self.base_means)
        if self.abstention is not None:
            row["abstention"] = self.abstention.to_dict()
        return {
            **row,
            "depths": {str(depth): value for depth, value in self.depths.items()},
            "per_query": dict(self.values),
        }


class Rankings(Mapping[str, tuple[str, ...]]):
    """Query id → document ids, best first. Holds positions only; ids are read from the data set when they are needed.

    Args:
        dataset: The data set.
        orders: For each question, the positions of its candidates, best first; `None` for the first stage's order.
    """

    def __init__(self, dataset: Dataset, orders: Sequence[Sequence[int]] | None = None) -> None:
        """Set data set and orders. See the class."""
        self._dataset, self._orders = dataset, orders
        self._names: dict[str, int] = {}

    def order(self, at: int) -> Sequence[int]:
        """Return the positions of the candidates of the question at a position, best first."""
        if self._orders is not None:
            return self._orders[at]
        return range(len(self._dataset.questions[at].candidates))

    def __getitem__(self, query: str) -> tuple[str, ...]:
        """Return the ranking of one query."""
        if not self._names:
            self._names = {question.id: at for at, question in enumerate(self._dataset.questions)}
        at = self._names[query]
        return self.ranking(at, self._dataset.questions[at])

    def ranking(self, at: int, question: Question) -> tuple[str, ...]:
        """Return the ranking of `question`, which is the one at the position `at`."""
        return tuple(question.candidates[position].id for position in self.order(at))

    def __iter__(self) -> Iterator[str]:
        """Yield the ids of the queries."""
        return (question.id for question in self._dataset.questions)

    def __len__(self) -> int:
        """Return the number of queries."""
        return len(self._dataset.questions)


def metric_names(dataset: Dataset, k: int) -> tuple[str, ...]:
    """Return the names of the metrics; the first is the main metric."""
    return evaluator_names(k) if dataset.protocol == "sentence-transformers" else measure_names(k)


def first_stage_result(dataset: Dataset, k: int) -> EvaluationResult:
    """Return the result of the first stage: the retriever's order, without a reranker."""
    figures, base = _Figures(dataset, k), _Figures(dataset, k)
    for questions in _slices(dataset):
        orders = [range(len(question.candidates)) for question in questions]
        figures.add(questions, orders, [(None,) * len(order) for order in orders])
        if dataset.protocol == "sentence-transformers":
            base.add_base(questions)
    return EvaluationResult(
        dataset.first_stage,
        "first stage",
        figures.values(),
        figures.means(),
        Rankings(dataset),
        groups=figures.groups(),
        base_means=base.means() if dataset.protocol == "sentence-transformers" else {},
        base_groups=base.groups() if dataset.protocol == "sentence-transformers" else {},
    )


def evaluate_run(
    run: RerankerRun, dataset: Dataset, depths: Sequence[int], k: int, first: EvaluationResult
) -> EvaluationResult:
    """Return the result of a finished run; for a run that stopped early, a result that holds only its error."""
    if run.error is not None:
        return EvaluationResult(run.label, run.label, {}, {}, {}, error=str(run.error))
    at_full_depth = run.answers[dataset.depth]
    full = _Figures(dataset, k)
    shorter = {depth: _Figures(dataset, k) for depth in depths[:-1] if run.pointwise or depth in run.answers}
    orders: list[Sequence[int]] = []
    best = _BestScores(run)
    for questions in _slices(dataset):
        answers = [at_full_depth[question.id] for question in questions]
        full.add(questions, [answer.order for answer in answers], [answer.scores for answer in answers])
        orders += [array("I", answer.order) for answer in answers]
        for depth, figures in shorter.items():
            cut = [question.cut(depth) for question in questions]
            at_depth = [_answer_at_depth(run, depth, question) for question in cut]
            figures.add(cut, [order for order, _ in at_depth], [scores for _, scores in at_depth])
        best.add(dataset, questions, answers)
    values = full.values()
    main, weights = next(iter(values)), dataset.weights()
    differences = [
        weight * (new - old) for new, old, weight in zip(values[main], first.values[main], weights, strict=True)
    ]
    answered = [answer for answer in at_full_depth.values() if answer.order and not answer.failed]
    p50, p95 = _quantiles([answer.latency_ms for answer in answered])
    return EvaluationResult(
        label=run.label,
        model=next((answer.model for answer in answered), run.label),
        values=values,
        means=full.means(),
        rankings=Rankings(dataset, orders),
        lift=Lift(*interval(differences), p_value(differences)),
        p50_ms=p50,
        p95_ms=p95,
        documents_per_second=_documents_per_second(answered),
        usd_per_1000=_usd_per_1000(answered),
        list_prices={label: price.date for label, vendor in run.vendors.items() if (price := vendor.list_price)},
        degraded=sum(answer.degraded for answer in at_full_depth.values()) / len(at_full_depth),
        failed=sum(answer.failed for answer in at_full_depth.values()),
        depths={depth: figures.means()[main] for depth, figures in shorter.items()} | {depths[-1]: full.means()[main]},
        depths_missing=None if len(shorter) == len(depths) - 1 else PAID_AGAIN,
        groups=full.groups(),
        abstention=best.abstention(),
        weights=weights if dataset.groups else (),
    )


class _Figures:
    """Collects the metrics of one order of every list, some questions at a time."""

    def __init__(self, dataset: Dataset, k: int) -> None:
        self._dataset, self._k = dataset, k
        self._values: dict[str, list[float]] = {name: [] for name in metric_names(dataset, k)}

    def add(
        self,
        questions: Sequence[Question],
        orders: Sequence[Sequence[int]],
        scores: Sequence[Sequence[float | None]],
    ) -> None:
        """Add questions: the positions of their candidates, best first, and the raw scores; `None` for no score."""
        grades = self._dataset.grades
        if self._dataset.protocol == "sentence-transformers":
            for at, (question, order) in enumerate(zip(questions, orders, strict=True)):
                self._append(evaluator_values(self._relevant(question), _complete(scores[at], order), self._k))
            return
        names = [question.id for question in questions]
        rankings = {
            question.id: tuple(question.candidates[at].id for at in order)
            for question, order in zip(questions, orders, strict=True)
        }
        for name, measured in Metrics(grades, names, self._k).measure(rankings).items():
            self._values[name] += measured

    def add_base(self, questions: Sequence[Question]) -> None:
        """Add what sentence-transformers' evaluators print for the order that was given."""
        for question in questions:
            relevant = self._relevant(question)
            missing = sum(grade > 0 for grade in self._dataset.grades[question.id].values()) - sum(relevant)
            self._append(first_stage_values(relevant, question.added, missing, self._k))

    def _relevant(self, question: Question) -> list[bool]:
        grades = self._dataset.grades[question.id]
        return [grades.get(candidate.id, 0) > 0 for candidate in question.candidates]

    def _append(self, row: Sequence[float]) -> None:
        for values, value in zip(self._values.values(), row, strict=True):
            values.append(value)

    def values(self) -> dict[str, tuple[float, ...]]:
        """Return metric → one value per query."""
        return {name: tuple(values) for name, values in self._values.items()}

    def groups(self) -> dict[str, dict[str, float]]:
        """Return data set → metric → mean, where several were read together."""
        return {
            group: {name: _mean([values[at] for at in positions]) for name, values in self._values.items()}
            for group, positions in self._dataset.groups.items()
        }

    def means(self) -> dict[str, float]:
        """Return metric → mean over the queries; of several data sets the mean of their means."""
        if groups := self.groups():
            return {name: _mean([means[name] for means in groups.values()]) for name in self._values}
        return {name: _mean(values) for name, values in self._values.items()}


class _BestScores:
    """Collects the best score of each list with and without its relevant documents."""

    def __init__(self, run: RerankerRun) -> None:
        self._run = run
        self._with, self._without = array("d"), array("d")
        self._unscored = False

    def add(self, dataset: Dataset, questions: Sequence[Question], answers: Sequence[Answer]) -> None:
        for question, answer in zip(questions, answers, strict=True):
            relevant = relevant_positions(question, dataset.grades[question.id])
            if answer.degraded or not 0 < len(relevant) < len(question.candidates):
                continue
            scores = answer.scores
            rest: Sequence[float | None] = [score for at, score in enumerate(scores) if at not in set(relevant)]
            if not self._run.pointwise:
                other = self._run.without_relevant.get(question.id)
                rest = other.scores if other is not None and not other.degraded else ()
            best = max((score for score in scores if score is not None), default=None)
            best_rest = max((score for score in rest if score is not None), default=None)
            if best is None or best_rest is None:
                self._unscored = True
                continue
            self._with.append(best)
            self._without.append(best_rest)

    def abstention(self) -> Abstention:
        capabilities = self._run.reranker.scorer.capabilities
        if capabilities.scale == "ordinal":
            return Abstention(missing="its scores are only an order")
        if self._run.remote and not self._run.pointwise and not self._run.without_relevant:
            return Abstention(missing=f"{PAID_AGAIN}; --abstention pays")
        if self._unscored and not self._with:
            return Abstention(missing="it gave no scores")
        return measure_abstention(self._with, self._without, capabilities.relevance, self._run.threshold)


def _slices(dataset: Dataset) -> Iterator[tuple[Question, ...]]:
    """Yield the questions, some at a time: lists of many questions are not in memory at once."""
    for start in range(0, len(dataset.questions), SLICE):
        yield tuple(dataset.questions[start : start + SLICE])


def _complete(scores: Sequence[float | None], order: Sequence[int]) -> list[float]:
    """Return the scores; places as scores where a document has none, or where the order is not that of the scores.

    `diversify` changes the order and keeps the scores.
    """
    known = [score for score in scores if score is not None]
    if len(known) == len(scores) and all(known[one] >= known[two] for one, two in itertools.pairwise(order)):
        return known
    places = [0.0] * len(scores)
    for place, at in enumerate(order):
        places[at] = -float(place)
    return places


def _answer_at_depth(run: RerankerRun, depth: int, question: Question) -> tuple[Sequence[int], Sequence[float | None]]:
    """Return order and scores of the candidates of `question`, which was cut to a depth."""
    full = run.answers[max(run.answers)][question.id]
    if depth in run.answers and len(question.candidates) < len(full.order):
        answer = run.answers[depth][question.id]
        return answer.order, answer.scores
    return full.at_depth(depth, question.added) if run.pointwise else (full.order, full.scores)


def _mean(values: Sequence[float]) -> float:
    return sum(values) / len(values)


def _quantiles(latencies: Sequence[float]) -> tuple[float, float] | tuple[None, None]:
    import numpy as np

    if not latencies:
        return None, None
    p50, p95 = np.quantile(latencies, [0.5, 0.95])
    return float(p50), float(p95)


def _documents_per_second(answers: Sequence[Answer]) -> float | None:
    # Little's law: with `at_once` calls in flight, a second of latency takes 1 / at_once of a second of wall time.
    seconds = sum(answer.latency_ms / answer.at_once for answer in answers) / 1000.0
    return sum(len(answer.order) for answer in answers) / seconds if seconds else None


def _usd_per_1000(answers: Sequence[Answer]) -> float | None:
    if not answers:
        return None
    costs = [0.0 if answer.cost_usd is None and not answer.requests else answer.cost_usd for answer in answers]
    known = [cost for cost in costs if cost is not None]
    return 1000.0 * math.fsum(known) / len(known) if len(known) == len(costs) else None
