"""Several rerankers over one data set: ask, measure, advise."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ..core.errors import InputError
from ..core.loop import run_sync
from ..reranker import Reranker
from .advice import Advice, Budget, advised
from .asking import Progress, ask, entered
from .data import Dataset
from .figures import Figures, figures_of, first_stage
from .kept import Kept
from .metrics import Metrics

__all__ = ["DEPTHS", "Comparison", "compare"]

DEPTHS = (10, 20, 50, 100, 200)
"""Candidates at which quality is told, as far as the lists go."""


@dataclass(frozen=True, slots=True)
class Comparison:
    """What was measured, and what it says."""

    dataset: Dataset
    main: str
    """The measure of the lifts, such as nDCG@10."""
    k: int
    first: Figures
    """The order given."""
    rows: tuple[Figures, ...]
    """The rerankers, in the order asked for."""
    budget: Budget
    advice: Advice
    depths: tuple[int, ...] = field(default=())

    def to_dict(self) -> dict[str, Any]:
        """Return plain data: settings, figures with every query's values, and the advice. No text of documents."""
        return {
            "dataset": self.dataset.name,
            "first_stage": self.dataset.first_stage,
            "queries": [each.id for each in self.dataset.questions],
            "unjudged": self.dataset.unjudged,
            "candidates": self.dataset.depth,
            "depths": list(self.depths),
            "main": self.main,
            "budget": {"ms": self.budget.ms, "usd_per_1000": self.budget.usd},
            "retriever": self.first.to_dict(),
            "rerankers": [row.to_dict() for row in self.rows],
            "choice": self.advice.choice,
            "advice": list(self.advice.lines),
        }


def compare(
    dataset: Dataset,
    rerankers: Sequence[str | Mapping[str, Any] | Reranker],
    *,
    k: int = 10,
    budget_ms: float | None = None,
    budget_usd: float | None = None,
    depths: Sequence[int] = DEPTHS,
    kept: str | Path | None = None,
    fresh: bool = False,
    at_once: int = 1,
    config: str | None = None,
    progress: Progress | None = None,
) -> Comparison:
    """Ask every reranker every question, and say which is worth it.

    Args:
        dataset: From `read` or `from_retriever`.
        rerankers: Specs, or rerankers made by `load_reranker` from one.
        k: The cut of nDCG, MRR and recall, at least 1.
        budget_ms: Milliseconds that 95 of 100 calls may take.
        budget_usd: US dollars that 1,000 queries may cost.
        depths: Candidates at which quality is told beside all of them.
        kept: A file of answers, written as they come; a later call asks only for what is not in it. `None` keeps nothing.
        fresh: Forget what `kept` holds of these rerankers and questions.
        at_once: Questions under way at the same time, at least 1.
        config: A TOML file of named rerankers.
        progress: Told of each answer.

    Returns:
        The figures, the same in every run over the same answers.

    Raises:
        ConfigError: A spec is wrong, a key missing; nothing was asked yet.
        MissingExtra: ir-measures is not installed.
        InputError: No reranker, or a number out of its range.
        BackendError: No reranker at all could be measured; the first one's error.
    """
    if not rerankers:
        raise InputError("There is nothing to compare: name at least one reranker.")
    if k < 1 or at_once < 1 or any(depth < 1 for depth in depths):
        raise InputError("k, depths and at_once are numbers of at least 1.")
    budget = Budget(budget_ms, budget_usd)
    names = [each.id for each in dataset.questions]
    metrics = Metrics(dataset.grades, names, k)
    asked = entered(rerankers, config, known=[dataset.first_stage])
    at = (*sorted({depth for depth in depths if depth < dataset.depth}), dataset.depth)
    if dataset.depth < 1:
        raise InputError(f"The first stage of {dataset.name} found nothing for any query: there is nothing to rerank.")
    answers = Kept(Path(kept) if kept is not None else None)
    try:
        run_sync(ask(asked, dataset, at, answers, at_once=at_once, fresh=fresh, progress=progress))
    finally:
        answers.close()
        for one, given in zip(asked, rerankers, strict=True):
            if not isinstance(given, Reranker):
                one.reranker.close()
    if all(one.error is not None for one in asked):
        raise next(one.error for one in asked if one.error is not None)
    first = first_stage(dataset, metrics)
    rows = tuple(figures_of(one, dataset, at, metrics, first) for one in asked)
    return Comparison(dataset, metrics.main, k, first, rows, budget, advised(first, rows, budget, metrics.main), at)
