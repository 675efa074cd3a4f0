"""Significance of a difference between two rerankers over a sample of queries.

Random draws are seeded, so results are reproducible.
"""

from __future__ import annotations

from collections.abc import Sequence

__all__ = ["interval", "p_value"]

SAMPLES = 10_000
"""Bootstrap samples, or random assignments of signs."""
_BATCH = 1_000
"""Samples that are drawn at a time, to bound the memory."""
_ELEMENTS = 1_000_000
"""Values that are drawn at a time, where there are more than a thousand queries."""


def _batches(count: int) -> list[int]:
    """Return how many samples of `count` values to draw at a time."""
    size = min(_BATCH, max(1, _ELEMENTS // count))
    whole, rest = divmod(SAMPLES, size)
    return [size] * whole + [rest] * (rest > 0)


def interval(differences: Sequence[float], *, share: float = 0.95, seed: int = 0) -> tuple[float, float, float]:
    """Return the mean difference and the two ends of its bootstrap confidence interval over queries.

    The method is the percentile bootstrap (Efron and Tibshirani, "An Introduction to the Bootstrap", 1993, section
    13.3) with 10,000 samples of as many queries, drawn with replacement.

    Args:
        differences: One value per query, at least one.
        share: The confidence level, between 0 and 1.
        seed: Seed of the random draws.

    Returns:
        The mean, the lower end and the upper end.

    >>> from rerank_plugins.evaluation import interval
    >>> interval([0.25, 0.25, 0.25])
    (0.25, 0.25, 0.25)
    """
    import numpy as np

    values = np.asarray(differences, dtype=np.float64)
    generator = np.random.default_rng(seed)
    means = [generator.choice(values, (size, len(values))).mean(axis=1) for size in _batches(len(values))]
    low, high = np.quantile(np.concatenate(means), [(1 - share) / 2, (1 + share) / 2])
    return float(values.mean()), float(low), float(high)


def p_value(differences: Sequence[float], *, seed: int = 0) -> float:
    """Return the two-sided p-value of the mean difference by the paired randomization test.

    The test (Smucker, Allan and Carterette, "A Comparison of Statistical Significance Tests for Information Retrieval
    Evaluation", CIKM 2007, section 3.1) flips the sign of each query's difference at random, 10,000 times. The result
    is never 0, because the observed assignment of signs is one of the possible ones.

    Args:
        differences: One value per query, at least one.
        seed: Seed of the random flips.

    Returns:
        The share of random assignments whose mean is at least as far from 0 as the observed one; above 0, at most 1.

    >>> from rerank_plugins.evaluation import p_value
    >>> p_value([0.2] * 20) < 0.001
    True
    """
    import numpy as np

    values = np.asarray(differences, dtype=np.float64)
    observed = abs(values.mean())
    generator = np.random.default_rng(seed)
    extreme = 0
    for size in _batches(len(values)):
        signs = generator.integers(0, 2, (size, len(values)), dtype=np.int8) * 2 - 1
        # The tolerance covers rounding: the same sum in another order differs in its last bits.
        extreme += int((abs((signs * values).mean(axis=1)) >= observed - 1e-12).sum())
    return (extreme + 1) / (SAMPLES + 1)
