"""How much two rerankers agree: rank correlation, overlap of the top, and who is better on how many queries."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

from .results import EvaluationResult, Rankings

__all__ = ["PairAgreement", "measure_agreement", "rank_biased_overlap"]

PERSISTENCE = 0.9
"""p of rank-biased overlap: the ten first ranks have 86 % of the weight."""
MAX_QUERIES = 1_000
"""Queries that are compared, at even distances among all."""


@dataclass(frozen=True, slots=True)
class PairAgreement:
    """Agreement of two orders of the same candidates, as means over queries."""

    first: str
    second: str
    """`first` and `second`: the labels."""
    queries: int
    """Queries with at least two candidates."""
    tau: float
    """Kendall's tau over the whole lists: 1 is the same order, -1 the reverse, 0 is unrelated."""
    rbo: float
    """Rank-biased overlap of the first k documents (p = 0.9): 1 is the same order, 0 no document in common."""
    same_first: float
    """Share of the queries with the same first document."""
    changed: float
    """How many of the first k documents of one are not among the first k of the other."""
    moved: float
    """By how many places a candidate is elsewhere."""
    wins: int
    """Queries on which `second` is better than `first` by the main metric."""
    losses: int
    """Queries on which `second` is worse."""

    def to_dict(self) -> dict[str, Any]:
        """Return plain data that `json.dumps` takes."""
        return asdict(self)


def measure_agreement(results: Sequence[EvaluationResult], main: str, k: int) -> tuple[PairAgreement, ...]:
    """Return the agreement of each pair of results, the first stage among them. Results with an error are left out.

    Args:
        results: The results.
        main: The metric of wins and losses.
        k: The number of documents at the top.
    """
    measured = [
        (result, result.rankings)
        for result in results
        if result.error is None and isinstance(result.rankings, Rankings)
    ]
    return tuple(_agree(*one, *other, main, k) for one, other in itertools.combinations(measured, 2))


def rank_biased_overlap(first: Sequence[int], second: Sequence[int], p: float = PERSISTENCE) -> float:
    """Return the rank-biased overlap of two lists of the same length, extrapolated (RBO_EXT).

    Webber, Moffat and Zobel, "A similarity measure for indefinite rankings", ACM TOIS 28(4), 2010, equation 23.

    Args:
        first: Documents, best first, none twice.
        second: As many documents.
        p: The weight of rank d is p ** (d - 1); above 0, below 1.
    """
    seen_first: set[int] = set()
    seen_second: set[int] = set()
    overlap, total = 0, 0.0
    for depth, (one, other) in enumerate(zip(first, second, strict=True), start=1):
        overlap += (one == other) + (one in seen_second) + (other in seen_first)
        seen_first.add(one)
        seen_second.add(other)
        total += overlap / depth * p**depth
    return overlap / len(first) * p ** len(first) + (1 - p) / p * total


def _agree(
    one: EvaluationResult, one_order: Rankings, other: EvaluationResult, other_order: Rankings, main: str, k: int
) -> PairAgreement:
    import numpy as np
    from scipy.stats import kendalltau

    taus, overlaps, firsts, changes, moves = [], [], [], [], []
    count = len(one_order)
    for at in range(0, count, max(1, math.ceil(count / MAX_QUERIES))):
        orders = one_order.order(at), other_order.order(at)
        if len(orders[0]) < 2 or len(orders[0]) != len(orders[1]):
            continue
        places = [np.argsort(np.asarray(order)) for order in orders]  # of each candidate, its place
        taus.append(float(kendalltau(*places).statistic))
        top, other_top = list(orders[0][:k]), list(orders[1][:k])
        overlaps.append(rank_biased_overlap(top, other_top))
        firsts.append(top[0] == other_top[0])
        changes.append(len(set(top) - set(other_top)))
        moves.append(float(np.abs(places[0] - places[1]).mean()))
    differences = [new - old for new, old in zip(other.values[main], one.values[main], strict=True)]

    def mean(values: Sequence[float]) -> float:
        return math.fsum(values) / len(values) if values else 1.0  # lists of one document are the same order

    return PairAgreement(
        one.label,
        other.label,
        len(taus),
        mean(taus),
        mean(overlaps),
        mean(firsts),
        mean(changes) if changes else 0.0,
        mean(moves) if moves else 0.0,
        wins=sum(difference > 0 for difference in differences),
        losses=sum(difference < 0 for difference in differences),
    )
