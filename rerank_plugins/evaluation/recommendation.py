"""Advice in words: which reranker fits the user's budget, or none."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from ..core.errors import InputError
from .judging import Judgements
from .results import EvaluationResult
from .significance import interval

__all__ = ["Advice", "Budget", "advise"]

MIN_QUERIES = 50
"""With fewer queries, intervals are too wide to separate a usual lift (0.02 to 0.05) from none."""
SIGNIFICANCE_LEVEL = 0.05
"""Above this p, the randomization test does not confirm the interval. With five queries or fewer it never does."""


@dataclass(frozen=True, slots=True)
class Budget:
    """Limits on the time and cost of a call; `None` for no limit."""

    ms: float | None = None
    """Milliseconds that 95 of 100 calls may take."""
    usd: float | None = None
    """US dollars that 1,000 queries may cost."""

    def __post_init__(self) -> None:
        """Check the numbers.

        Raises:
            InputError: A number is below 0.
        """
        for name, value in (("budget_ms", self.ms), ("budget_usd", self.usd)):
            if value is not None and not value >= 0:
                raise InputError(f"{name} must be a number of at least 0, or None for any; got {value}.")

    def violation(self, row: EvaluationResult) -> str | None:
        """Return why a reranker is over the budget; `None` if it is not."""
        if self.ms is not None and (row.p95_ms is None or row.p95_ms > self.ms):
            return f"its p95 of {_format_number(row.p95_ms)} ms is over your {_format_number(self.ms)} ms"
        if self.usd is not None and row.usd_per_1000 is None:
            return "what it costs is not known (give its spec a `price`)"
        if self.usd is not None and row.usd_per_1000 is not None and row.usd_per_1000 > self.usd * (1 + 1e-9):
            return f"its ${row.usd_per_1000:.2f} per 1,000 queries are over your ${self.usd:.2f}"
        return None


@dataclass(frozen=True, slots=True)
class Advice:
    """A decision and its reasons."""

    choice: str | None
    """The label of the reranker to use; `None` means to keep the retriever as it is."""
    lines: tuple[str, ...]
    """Sentences; the first is the decision."""

    def __str__(self) -> str:
        """Return the sentences, one per line."""
        return "\n".join(self.lines)


def advise(
    first: EvaluationResult,
    rows: Sequence[EvaluationResult],
    budget: Budget,
    main: str,
    judgements: Judgements | None = None,
) -> Advice:
    """Return the advice that follows from the results.

    A reranker improves the first stage where the whole 95 % interval of its lift is above zero. Of those within the
    budget, the advice names the one with the largest mean lift (of equals the cheapest, then the fastest). It adds the
    fastest and the cheapest reranker whose quality these queries cannot separate from it.

    Args:
        first: The result of the first stage.
        rows: The results of the rerankers.
        budget: Limits on time and cost.
        main: The main metric, in which lifts are measured.
        judgements: What a model judged, where people did not.
    """
    known = [row for row in rows if row.lift is not None]
    better = [row for row in known if row.lift is not None and row.lift.low > 0]
    fitting = [row for row in better if budget.violation(row) is None]
    best = min(fitting, key=lambda row: (-round(_mean_lift(row), 9), _cost(row), _latency(row)), default=None)
    if best is None:
        decision = _advise_no_reranker(known, better, budget, main)
    else:
        decision = _advise_reranker(best, better, budget, main)
    remarks = _warnings(first, rows, best, main)
    judged = () if judgements is None else _describe_judgements(judgements, rows)
    return Advice(None if best is None else best.label, (*decision, *remarks, *judged))


def _describe_judgements(judgements: Judgements, rows: Sequence[EvaluationResult]) -> Iterator[str]:
    cost = "unknown" if judgements.cost_usd is None else f"${judgements.cost_usd:.4f}"
    yield (
        f"The model {judgements.judge} judged {judgements.queries:,} queries ({judgements.documents:,} documents), not "
        f"people: cost {cost}."
    )
    if judgements.unscored:
        yield f"It gave no score to {judgements.unscored:,} of these documents. They count as not relevant."
    if judgements.failed:
        yield (
            f"It did not answer for {judgements.failed:,} queries, which are left out: run the command again to judge "
            "them."
        )
    if judgements.kappa is not None:
        rest = ", where documents without a grade count as not relevant" if judgements.assumed else ""
        yield f"It agrees with people with kappa {judgements.kappa:.2f} on {judgements.compared:,} documents{rest}."
    if judgements.hand_kappa is not None:
        documents = f"{judgements.hand_checked:,} documents"
        yield f"It agrees with the sample checked by hand with kappa {judgements.hand_kappa:.2f} on {documents}."
    if judgements.kappa is None and judgements.hand_kappa is None:
        yield "How far it agrees with people is not known: check a sample by hand before you rely on this."
    if any(judgements.judge == row.label for row in rows):
        yield f"{judgements.judge} is compared by its own judgements, which favour it."


def _advise_no_reranker(
    known: Sequence[EvaluationResult], better: Sequence[EvaluationResult], budget: Budget, main: str
) -> Iterator[str]:
    if better:
        yield "Keep your retriever as it is: what would improve it does not fit your budget."
        for row in sorted(better, key=_mean_lift, reverse=True):
            yield f"{row.label} adds {_format_lift(row)} {main}, but {budget.violation(row)}."
        return
    yield "Keep your retriever as it is: no reranker here improves it by more than chance could."
    if known:
        row = max(known, key=_mean_lift)
        yield f"The nearest is {row.label}: {_format_lift(row)} {main}, an interval that is not above zero."


def _advise_reranker(
    best: EvaluationResult, better: Sequence[EvaluationResult], budget: Budget, main: str
) -> Iterator[str]:
    fitting = [row for row in better if budget.violation(row) is None]
    limits = [f"{_format_number(budget.ms)} ms"] if budget.ms is not None else []
    limits += [f"${budget.usd:.2f} per 1,000 queries"] if budget.usd is not None else []
    under = f" within {' and '.join(limits)}" if limits else ""
    yield (
        f"Use {best.label}{under}: it adds {_format_lift(best)} {main} to the order of your retriever. "
        f"{_describe_cost(best)}"
    )
    if best.lift is not None and best.lift.p > SIGNIFICANCE_LEVEL:
        yield f"By the paired test chance alone could make such a lift (p = {best.lift.p:.2f}): measure more queries."
    rivals = [row for row in fitting if row is not best and _not_separable(row, best, main)]
    quicker = min((row for row in rivals if _latency(row) < _latency(best) / 2), key=_latency, default=None)
    cheaper = min((row for row in rivals if _is_much_cheaper(row, best)), key=_cost, default=None)
    for rival, how in ((quicker, "faster"), (None if cheaper is quicker else cheaper, "cheaper")):
        if rival is not None:
            gap, low, high = _difference(best, rival, main)
            yield (
                f"{rival.label} is much {how}, and these queries do not tell it apart from {best.label} "
                f"(difference {gap:.3f} [{low:+.3f}, {high:+.3f}]). {_describe_cost(rival)}"
            )
    for row in sorted(better, key=_mean_lift, reverse=True):
        if budget.violation(row) is not None and _mean_lift(row) > _mean_lift(best):
            yield f"{row.label} adds more, {_format_lift(row)}, but {budget.violation(row)}."


def _is_much_cheaper(row: EvaluationResult, best: EvaluationResult) -> bool:
    if best.usd_per_1000 is None:  # an unknown price is above 0
        return row.usd_per_1000 == 0
    return _cost(row) < _cost(best) / 2


def _not_separable(row: EvaluationResult, best: EvaluationResult, main: str) -> bool:
    return _difference(best, row, main)[1] <= 0


def _difference(best: EvaluationResult, row: EvaluationResult, main: str) -> tuple[float, float, float]:
    weights = best.weights or (1.0,) * len(best.values[main])
    pairs = zip(best.values[main], row.values[main], weights, strict=True)
    return interval([weight * (ours - theirs) for ours, theirs, weight in pairs])


def _warnings(
    first: EvaluationResult, rows: Sequence[EvaluationResult], best: EvaluationResult | None, main: str
) -> Iterator[str]:
    for row in rows:
        if row.lift is not None and row.lift.high < 0:
            yield f"{row.label} makes your retriever worse: {_format_lift(row)}."
    for row in rows:
        if row.error is not None:
            yield f"{row.label} was given up and not measured: {row.error}"
        elif row.degraded:
            label = "it" if row is best else row.label
            yield (
                f"{row.degraded:.0%} of the answers of {label} were degraded: a fallback gave them, or the order "
                "did not change."
            )
    if read := sorted({f"{label} ({date})" for row in rows for label, date in row.list_prices.items()}):
        yield f"Costs follow from list prices that may have changed since they were read: {', '.join(read)}."
    if (count := len(first.values[main])) < MIN_QUERIES:
        queries = "query is" if count == 1 else "queries are"
        yield f"{count} {queries} few: measure {MIN_QUERIES} or more before you rely on this."


def _format_lift(row: EvaluationResult) -> str:
    lift = row.lift
    return "" if lift is None else f"{lift.mean:+.3f} [{lift.low:+.3f}, {lift.high:+.3f}]"


def _describe_cost(row: EvaluationResult) -> str:
    cost = (
        "at a price that is not known" if row.usd_per_1000 is None else f"for ${row.usd_per_1000:.2f} per 1,000 queries"
    )
    return f"95 of 100 calls take at most {_format_number(row.p95_ms)} ms, {cost}."


def _mean_lift(row: EvaluationResult) -> float:
    return row.lift.mean if row.lift is not None else 0.0


def _cost(row: EvaluationResult) -> float:
    return math.inf if row.usd_per_1000 is None else row.usd_per_1000


def _latency(row: EvaluationResult) -> float:
    return row.p95_ms or 0.0


def _format_number(value: float | None) -> str:
    return "?" if value is None else f"{value:,.0f}" if value >= 10 else f"{value:.1f}"
