"""The answer in words: which reranker, under the user's own budget, or none."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from ..core.errors import InputError
from .chance import interval
from .figures import Figures

__all__ = ["Advice", "Budget", "advised"]

FEW = 50
"""Queries below which intervals are too wide to tell a usual lift (0.02 to 0.05) from none."""
SURE = 0.05
"""The p above which the randomization test does not bear out what the interval says: with five queries or fewer, always."""


@dataclass(frozen=True, slots=True)
class Budget:
    """What a call may take and cost; `None` is any."""

    ms: float | None = None
    """Milliseconds, for 95 of 100 calls."""
    usd: float | None = None
    """US dollars for 1,000 queries."""

    def __post_init__(self) -> None:
        """Check.

        Raises:
            InputError: A number below 0.
        """
        for name, value in (("budget_ms", self.ms), ("budget_usd", self.usd)):
            if value is not None and not value >= 0:
                raise InputError(f"{name} has to be a number of at least 0, and {value} is not.")

    def broken_by(self, row: Figures) -> str | None:
        """Return why a reranker does not fit, or `None` where it does."""
        if self.ms is not None and (row.p95_ms is None or row.p95_ms > self.ms):
            return f"its p95 of {_number(row.p95_ms)} ms is over your {_number(self.ms)} ms"
        if self.usd is not None and row.usd_per_1000 is None:
            return "what it costs is not known (give its spec a `price`)"
        if self.usd is not None and row.usd_per_1000 is not None and row.usd_per_1000 > self.usd * (1 + 1e-9):
            return f"its ${row.usd_per_1000:.2f} per 1,000 queries are over your ${self.usd:.2f}"
        return None


@dataclass(frozen=True, slots=True)
class Advice:
    """A decision and its reasons."""

    choice: str | None
    """The label of the reranker to use; `None` is to keep the retriever as it is."""
    lines: tuple[str, ...]
    """Sentences; the first is the decision."""

    def __str__(self) -> str:
        """Return the sentences, one a line."""
        return "\n".join(self.lines)


def advised(first: Figures, rows: Sequence[Figures], budget: Budget, main: str) -> Advice:
    """Return what the figures say.

    A reranker is worth something where the whole 95 % interval of its lift is above zero. Of those that fit the budget the
    one with the largest mean lift is named (of equals the cheapest, then the fastest), and with it the fastest and the
    cheapest that these queries do not tell apart from it.

    Args:
        first: The first stage.
        rows: The rerankers.
        budget: What a call may take and cost.
        main: The measure of the lifts.
    """
    known = [row for row in rows if row.lift is not None]
    better = [row for row in known if row.lift is not None and row.lift.low > 0]
    fitting = [row for row in better if budget.broken_by(row) is None]
    best = min(fitting, key=lambda row: (-round(_lift(row), 9), _price(row), _slowness(row)), default=None)
    decision = _kept(known, better, budget, main) if best is None else _taken(best, better, budget, main)
    notes = _notes(first, rows, best, main)
    return Advice(None if best is None else best.label, (*decision, *notes))


def _kept(known: Sequence[Figures], better: Sequence[Figures], budget: Budget, main: str) -> Iterator[str]:
    if better:
        yield "Keep your retriever as it is: what would improve it does not fit your budget."
        for row in sorted(better, key=_lift, reverse=True):
            yield f"{row.label} adds {_told(row)} {main}, but {budget.broken_by(row)}."
        return
    yield "Keep your retriever as it is: no reranker here improves it by more than chance could."
    if known:
        row = max(known, key=_lift)
        yield f"The nearest is {row.label}: {_told(row)} {main}, an interval that is not above zero."


def _taken(best: Figures, better: Sequence[Figures], budget: Budget, main: str) -> Iterator[str]:
    fitting = [row for row in better if budget.broken_by(row) is None]
    limits = [f"{_number(budget.ms)} ms"] if budget.ms is not None else []
    limits += [f"${budget.usd:.2f} per 1,000 queries"] if budget.usd is not None else []
    under = f" within {' and '.join(limits)}" if limits else ""
    yield f"Use {best.label}{under}: it adds {_told(best)} {main} to the order of your retriever. {_takes(best)}"
    if best.lift is not None and best.lift.p > SURE:
        yield f"By the paired test chance alone could make such a lift (p = {best.lift.p:.2f}): measure more queries."
    others = [row for row in fitting if row is not best and _as_good(row, best, main)]
    quicker = min((row for row in others if _slowness(row) < _slowness(best) / 2), key=_slowness, default=None)
    cheaper = min((row for row in others if _is_much_cheaper(row, best)), key=_price, default=None)
    for other, how in ((quicker, "faster"), (None if cheaper is quicker else cheaper, "cheaper")):
        if other is not None:
            gap, low, high = _gap(best, other, main)
            yield (
                f"{other.label} is much {how}, and these queries do not tell it apart from {best.label} "
                f"(difference {gap:.3f} [{low:+.3f}, {high:+.3f}]). {_takes(other)}"
            )
    for row in sorted(better, key=_lift, reverse=True):
        if budget.broken_by(row) is not None and _lift(row) > _lift(best):
            yield f"{row.label} adds more, {_told(row)}, but {budget.broken_by(row)}."


def _is_much_cheaper(row: Figures, best: Figures) -> bool:
    if best.usd_per_1000 is None:  # more than nothing, whatever it is
        return row.usd_per_1000 == 0
    return _price(row) < _price(best) / 2


def _as_good(row: Figures, best: Figures, main: str) -> bool:
    return _gap(best, row, main)[1] <= 0


def _gap(best: Figures, row: Figures, main: str) -> tuple[float, float, float]:
    return interval([one - two for one, two in zip(best.values[main], row.values[main], strict=True)])


def _notes(first: Figures, rows: Sequence[Figures], best: Figures | None, main: str) -> Iterator[str]:
    for row in rows:
        if row.lift is not None and row.lift.high < 0:
            yield f"{row.label} makes your retriever worse: {_told(row)}."
    for row in rows:
        if row.error is not None:
            yield f"{row.label} was given up, and says nothing here: {row.error}"
        elif row.degraded:
            answered = "it" if row is best else row.label
            yield f"{row.degraded:.0%} of the answers of {answered} were degraded: a stand-in gave them, or the order stayed."
    if (count := len(first.values[main])) < FEW:
        yield f"{count} {'query is' if count == 1 else 'queries are'} few: measure {FEW} or more before you rely on this."


def _told(row: Figures) -> str:
    lift = row.lift
    return "" if lift is None else f"{lift.mean:+.3f} [{lift.low:+.3f}, {lift.high:+.3f}]"


def _takes(row: Figures) -> str:
    cost = (
        "at a price that is not known" if row.usd_per_1000 is None else f"for ${row.usd_per_1000:.2f} per 1,000 queries"
    )
    return f"95 of 100 calls take at most {_number(row.p95_ms)} ms, {cost}."


def _lift(row: Figures) -> float:
    return row.lift.mean if row.lift is not None else 0.0


def _price(row: Figures) -> float:
    return math.inf if row.usd_per_1000 is None else row.usd_per_1000


def _slowness(row: Figures) -> float:
    return row.p95_ms or 0.0


def _number(value: float | None) -> str:
    return "?" if value is None else f"{value:,.0f}" if value >= 10 else f"{value:.1f}"
