"""What a difference between two rerankers is worth, given that the queries are a sample. Seeded: the same every time."""

from __future__ import annotations

from collections.abc import Sequence

__all__ = ["interval", "p_value"]

SAMPLES = 10_000
_AT_ONCE = 1_000


def interval(differences: Sequence[float], *, share: float = 0.95, seed: int = 0) -> tuple[float, float, float]:
    """Return the mean difference and its bootstrap interval over queries.

    The percentile bootstrap (Efron and Tibshirani, "An Introduction to the Bootstrap", 1993, section 13.3): 10,000 samples of
    as many queries, drawn with replacement.

    Args:
        differences: One per query.
        share: How much of the bootstrap the interval holds.
        seed: Of the draws.
    """
    import numpy as np

    values = np.asarray(differences, dtype=np.float64)
    generator = np.random.default_rng(seed)
    means = [generator.choice(values, (_AT_ONCE, len(values))).mean(axis=1) for _ in range(SAMPLES // _AT_ONCE)]
    low, high = np.quantile(np.concatenate(means), [(1 - share) / 2, (1 + share) / 2])
    return float(values.mean()), float(low), float(high)


def p_value(differences: Sequence[float], *, seed: int = 0) -> float:
    """Return how often chance alone makes a mean difference at least this large, either way.

    The paired randomization test (Smucker, Allan and Carterette, "A Comparison of Statistical Significance Tests for
    Information Retrieval Evaluation", CIKM 2007, section 3.1): the sign of each query's difference is flipped at random,
    10,000 times. Never 0: the observed assignment is one of those that chance can make.
    """
    import numpy as np

    values = np.asarray(differences, dtype=np.float64)
    observed = abs(values.mean())
    generator = np.random.default_rng(seed)
    extreme = 0
    for _ in range(SAMPLES // _AT_ONCE):
        signs = generator.integers(0, 2, (_AT_ONCE, len(values)), dtype=np.int8) * 2 - 1
        # A hair of tolerance: the same sum in another order differs in its last bits.
        extreme += int((abs((signs * values).mean(axis=1)) >= observed - 1e-12).sum())
    return (extreme + 1) / (SAMPLES + 1)
