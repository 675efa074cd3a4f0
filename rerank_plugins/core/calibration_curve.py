"""Calibration curves: they turn a raw score into a probability of relevance. `rerank-plugins calibrate` fits them."""

from __future__ import annotations

import bisect
import math
from dataclasses import dataclass
from typing import Literal, get_args

__all__ = ["METHODS", "Curve", "Method", "log_odds", "sigmoid"]

Method = Literal["platt", "isotonic", "temperature"]
METHODS: tuple[Method, ...] = get_args(Method)

_CERTAIN = 1e-7
"""Smallest distance of a relevance from 0 and 1 before its log-odds are computed: they are infinite there."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Curve:
    """A curve that never falls, so it never changes the order of documents.

    `platt`: sigmoid(slope * raw + intercept), slope above 0 (Platt, Advances in Large Margin Classifiers, 1999).
    `isotonic`: linear between `points`, constant beyond them (Zadrozny and Elkan, KDD 2002).
    `temperature`: sigmoid(slope * log-odds of the uncalibrated relevance), slope = 1 / temperature above 0 (Guo et al.,
    ICML 2017, section 4.2).
    """

    method: Method
    slope: float = 1.0
    intercept: float = 0.0
    points: tuple[tuple[float, float], ...] = ()
    """For `isotonic`: pairs of raw score and probability, both rising."""

    def __post_init__(self) -> None:
        """Check that the curve never falls.

        Raises:
            ValueError: The method is unknown, a number is not finite, or the curve falls or leaves [0, 1].
        """
        if self.method not in METHODS:
            raise ValueError(f"there is no method {self.method!r}")
        numbers = (self.slope, self.intercept, *(number for point in self.points for number in point))
        if not all(isinstance(number, float) and math.isfinite(number) for number in numbers):
            raise ValueError("a parameter is not a finite number")
        if self.slope <= 0:
            raise ValueError("the slope is not above 0")
        if self.method != "isotonic":
            return
        raws, chances = [raw for raw, _ in self.points], [chance for _, chance in self.points]
        if not raws or raws != sorted(set(raws)) or chances != sorted(chances):
            raise ValueError("the points do not rise")
        if chances[0] < 0.0 or chances[-1] > 1.0:
            raise ValueError("the points leave [0, 1]")

    def probability(self, raw: float, relevance: float) -> float:
        """Return the probability in [0, 1] that a document is relevant.

        Args:
            raw: The raw score of the model.
            relevance: The uncalibrated relevance of the declared scale, in [0, 1].
        """
        if self.method == "platt":
            return sigmoid(self.slope * raw + self.intercept)
        if self.method == "temperature":
            return sigmoid(self.slope * log_odds(relevance))
        return self._between(raw)

    def _between(self, raw: float) -> float:
        after = bisect.bisect_right(self.points, raw, key=lambda point: point[0])
        if after in (0, len(self.points)):
            return self.points[min(after, len(self.points) - 1)][1]
        (left, low), (right, high) = self.points[after - 1 : after + 1]
        # Rounding must not exceed the next point: the curve would fall there.
        return min(high, low + (high - low) / (right - left) * (raw - left))


def sigmoid(logit: float) -> float:
    """Return 1 / (1 + exp(-logit)). The result never falls with a rising `logit`, in float64 too."""
    return 1.0 / (1.0 + math.exp(min(-logit, 709.0)))


def log_odds(relevance: float) -> float:
    """Return ln(p / (1 - p)) of a relevance p, clamped to [1e-7, 1 - 1e-7]."""
    share = min(1.0 - _CERTAIN, max(_CERTAIN, relevance))
    return math.log(share / (1.0 - share))
