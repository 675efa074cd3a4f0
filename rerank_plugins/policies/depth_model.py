"""How much relevance the documents hold that an expensive scorer has not read yet: a calibrated estimate.

An expensive scorer reads documents in the order of a cheap score. A logistic regression estimates, for each document
that it has not read, by how much the DCG of the first `for_top` results would rise if it was read too, as a share of
the DCG after reading all. The gain of a document is its relevance by the expensive scorer. The sum over these documents
bounds what stopping now loses on average. The regression knows how the cheap score rates the document, and where in the
cheap order the relevance was that was found so far.

`training/depth.py` fits the weights and prints them. It uses the development split alone.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

from ..core.types import Depth

__all__ = ["FIRST", "features", "next_depth", "unread_shares"]

FIRST = 5
"""Documents that are read first."""
_STEPS = {1: 1.0, 2: 0.5}
_STEP = 0.35
"""Of the documents that seem needed, the share that one round reads, by the number of rounds left; what it reads may
show that fewer are needed."""
_OVERLAP = 2.0
"""The estimates are made one by one, and documents displace each other: their sum is that much larger than what is lost
on average when reading stops. On the development split, a miss of 0.014 loses 0.0124, and 0.02 loses 0.0197."""
WEIGHTS: tuple[float, ...] = (-3.6847, -0.5254, 1.0624, -0.2658, 0.5418, 0.3105, 0.1794, 0.0853, -0.048)
"""Of `features`. Fitted by `training/depth.py` to 224 queries of the development split (November 2026)."""
_LARGEST_Z = 4.0


def next_depth(cheap: Sequence[float], gains: Sequence[float], depth: Depth, left: int) -> int:
    """Return how many documents should be read, at least those that are read already.

    Args:
        cheap: The cheap score of each document, in an order in which they never rise.
        gains: The relevance of the documents that are read, the first ones of that order.
        depth: Which top is protected, and how well.
        left: How many rounds are left, at least 1.
    """
    shares = unread_shares(cheap, gains, depth.for_top)
    read, rest, needed = len(gains), sum(shares), 0
    while needed < len(shares) and rest > depth.miss * _OVERLAP:
        rest -= shares[needed]
        needed += 1
    return read + math.ceil(needed * _STEPS.get(left, _STEP))


def unread_shares(cheap: Sequence[float], gains: Sequence[float], for_top: int) -> list[float]:
    """Return for each unread document the share of the first results' DCG that reading it would add, by estimate.

    See `next_depth` for the arguments.
    """
    shares = []
    for row in features(cheap, gains, for_top):
        logit = sum(weight * value for weight, value in zip(WEIGHTS, row, strict=True))
        shares.append(1.0 / (1.0 + math.exp(-max(-50.0, min(50.0, logit)))))
    whole = max(1.0, sum(shares))  # the estimates are made one by one
    return [share / whole for share in shares]


def features(cheap: Sequence[float], gains: Sequence[float], for_top: int) -> list[tuple[float, ...]]:
    """Return what the estimate for each unread document is computed from. See `next_depth` for the arguments."""
    read, count = len(gains), len(cheap)
    largest = max(map(abs, cheap)) or 1.0
    cheap = [value / largest for value in cheap]  # the square of a very large score would be infinite
    mean = sum(cheap) / count
    spread = math.sqrt(sum((value - mean) ** 2 for value in cheap) / count)
    best = sorted(range(read), key=lambda place: -gains[place])[:for_top]
    parts = {place: gains[place] / math.log2(rank + 2) for rank, place in enumerate(best)}
    whole = sum(parts.values())
    late = sum(part for place, part in parts.items() if 2 * place >= read) / whole if whole > 0.0 else 1.0
    first = max(parts.values()) / whole if whole > 0.0 else 1.0 / read
    state = (
        math.log(late + 0.003),  # the relevance that the second half of the read documents holds
        math.log(first),  # that of the best one
        math.log(1 + best[0]),  # its place in the cheap order
        math.log(read),
        math.log(for_top),
    )
    rows: list[tuple[float, ...]] = []
    for place in range(read, count):
        z = (cheap[place] - mean) / spread if spread > 0.0 else 0.0
        z = max(-_LARGEST_Z, min(_LARGEST_Z, z))
        rows.append((1.0, math.log(1 + place), z, z * z, *state))
    return rows
