"""Calibration error of probabilities: expected calibration error (ECE), Brier score, and the bins behind them."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import Any

__all__ = ["BINS", "measure_calibration"]

BINS = 15
"""Number of bins of equal width over [0, 1], as in Guo et al. (ICML 2017, section 2), and of bins of equal count."""


def measure_calibration(probabilities: Sequence[float], relevant: Sequence[bool]) -> dict[str, Any]:
    """Return the calibration error of probabilities against labels. All errors are 0 to 1; lower is better.

    Args:
        probabilities: One per document, 0 to 1.
        relevant: One label per document.

    Returns:
        `ece`: the mean of |mean probability - share of relevant documents| over 15 bins of equal width, weighted by
        count.
        `ece_equal_count`: the same over 15 bins of equal count. Where nearly all documents are irrelevant, one bin of
        equal width would hold them all.
        `brier`: the mean squared error (Brier 1950).
        `bins`: (mean probability, share of relevant documents, count) of every bin of equal width that is not empty.
    """
    pairs = sorted(zip(probabilities, map(float, relevant), strict=True))
    wide: list[list[tuple[float, float]]] = [[] for _ in range(BINS)]
    for pair in pairs:
        wide[min(int(pair[0] * BINS), BINS - 1)].append(pair)
    edges = [len(pairs) * number // BINS for number in range(BINS + 1)]
    even = [pairs[low:high] for low, high in itertools.pairwise(edges)]
    bins = [_bin(members) for members in wide if members]
    return {
        "ece": _ece(bins, len(pairs)),
        "ece_equal_count": _ece([_bin(members) for members in even if members], len(pairs)),
        "brier": sum((chance - label) ** 2 for chance, label in pairs) / len(pairs),
        "bins": bins,
    }


def _bin(pairs: Sequence[tuple[float, float]]) -> tuple[float, float, int]:
    count = len(pairs)
    return sum(chance for chance, _ in pairs) / count, sum(label for _, label in pairs) / count, count


def _ece(bins: Sequence[tuple[float, float, int]], total: int) -> float:
    return sum(count * abs(chance - share) for chance, share, count in bins) / total
