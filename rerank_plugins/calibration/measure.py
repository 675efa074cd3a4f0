"""How far probabilities can be trusted: expected calibration error, Brier score, and the bins behind them."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import Any

__all__ = ["BINS", "measure"]

BINS = 15
"""Of equal width over [0, 1], as Guo et al. (ICML 2017, section 2) take; and as many of equal count."""


def measure(probabilities: Sequence[float], relevant: Sequence[bool]) -> dict[str, Any]:
    """Return how probabilities and labels agree; all figures 0 to 1, less is better.

    Returns:
        `ece`: the mean over 15 bins of equal width of |mean probability - share of relevant|, by their counts;
        `ece_equal_count`: the same over 15 bins of equal count (where nearly all documents are irrelevant, one wide bin
        would hold them all); `brier`: the mean squared error (Brier 1950); `bins`: of equal width, those that hold anything:
        mean probability, share of relevant, count.
    """
    pairs = sorted(zip(probabilities, map(float, relevant), strict=True))
    wide: list[list[tuple[float, float]]] = [[] for _ in range(BINS)]
    for pair in pairs:
        wide[min(int(pair[0] * BINS), BINS - 1)].append(pair)
    edges = [len(pairs) * each // BINS for each in range(BINS + 1)]
    even = [pairs[low:high] for low, high in itertools.pairwise(edges)]
    bins = [_bin(each) for each in wide if each]
    return {
        "ece": _ece(bins, len(pairs)),
        "ece_equal_count": _ece([_bin(each) for each in even if each], len(pairs)),
        "brier": sum((chance - label) ** 2 for chance, label in pairs) / len(pairs),
        "bins": bins,
    }


def _bin(pairs: Sequence[tuple[float, float]]) -> tuple[float, float, int]:
    count = len(pairs)
    return sum(chance for chance, _ in pairs) / count, sum(label for _, label in pairs) / count, count


def _ece(bins: Sequence[tuple[float, float, int]], total: int) -> float:
    return sum(count * abs(chance - share) for chance, share, count in bins) / total
