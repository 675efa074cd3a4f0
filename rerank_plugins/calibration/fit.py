"""Fit a curve to judged scores, with scikit-learn, and see how well it holds on questions that it was not fitted to."""

from __future__ import annotations

import importlib.util
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Literal, get_args

from ..core.curve import METHODS, Curve, Method, log_odds
from ..core.errors import InputError, MissingExtra
from ..core.types import Capabilities
from .measure import BINS, measure

if TYPE_CHECKING:
    import numpy as np

__all__ = ["CHOICES", "FOLDS", "Choice", "Judged", "fit", "fittable", "fitted_curve"]

Choice = Literal["auto", "platt", "isotonic", "temperature"]
CHOICES: tuple[Choice, ...] = get_args(Choice)
FOLDS = 5

Judged = tuple[str, float, bool]
"""The query, a raw score, and whether that document is relevant to it."""


def fittable() -> None:
    """See, before any score is paid for, that a curve can be fitted.

    Raises:
        MissingExtra: scikit-learn is not installed.
    """
    if importlib.util.find_spec("sklearn") is None:
        raise MissingExtra("Fitting a calibration", extra="calibration", package="scikit-learn")


def fit(
    judged: Sequence[Judged], capabilities: Capabilities, method: Choice = "auto", *, seed: int = 0
) -> tuple[Curve, dict[str, Any]]:
    """Return the curve fitted to all of `judged`, and how well its method holds out.

    Args:
        judged: Scores with labels; those of one query never stand on both sides of a fold.
        capabilities: Of the scorer: what its raw scores mean without a curve.
        method: `auto` takes the one with the least Brier score held out.
        seed: Shuffles the queries into at most five folds.

    Returns:
        The curve; and `folds`, `seed`, `bins`, `queries`, `pairs`, `relevant`, `before`, `after` and the other `methods`'
        figures; see `measure`.

    Raises:
        InputError: Fewer than two queries, no relevant or no other document, or scores that order the wrong way.
        MissingExtra: scikit-learn is not installed.
    """
    fittable()
    import numpy as np
    from sklearn.model_selection import GroupKFold

    queries = [query for query, _, _ in judged]
    raws = np.array([raw for _, raw, _ in judged], dtype=np.float64)
    labels = np.array([label for _, _, label in judged], dtype=bool)
    if len(set(queries)) < 2 or labels.all() or not labels.any():
        raise InputError(
            f"A calibration needs relevant and other documents of two queries or more; there are {len(set(queries))} "
            f"queries with {int(labels.sum())} relevant documents among {len(labels)}. Give more judged data."
        )
    declared = [capabilities.relevance(raw) for raw in raws.tolist()]
    folds = GroupKFold(min(FOLDS, len(set(queries))), shuffle=True, random_state=seed)
    held: dict[Method, list[float]] = {}
    curves: dict[Method, Curve] = {}
    refused: list[InputError] = []
    for each in METHODS if method == "auto" else (method,):
        chances = np.empty(len(raws))
        try:
            for train, test in folds.split(raws, groups=queries):
                curve, _ = fitted_curve(each, raws[train], [declared[at] for at in train], labels[train])
                chances[test] = [curve.probability(float(raws[at]), declared[at]) for at in test]
            curves[each], _ = fitted_curve(each, raws, declared, labels)
        except InputError as error:
            refused.append(error)
            continue
        held[each] = chances.tolist()
    # Isotonic levels out what falls, so that it is the slope of `platt` that tells an order the wrong way round.
    if not held or (refused and "platt" not in held and method == "auto"):
        raise refused[0]
    figures = {each: measure(chances, labels.tolist()) for each, chances in held.items()}
    best = min(figures, key=lambda each: figures[each]["brier"])
    return curves[best], {
        "folds": folds.get_n_splits(),
        "seed": seed,
        "bins": BINS,
        "queries": len(set(queries)),
        "pairs": len(judged),
        "relevant": int(labels.sum()),
        "before": measure(declared, labels.tolist()),
        "after": figures[best],
        "methods": {
            each: {key: told[key] for key in ("ece", "ece_equal_count", "brier")} for each, told in figures.items()
        },
    }


def fitted_curve(method: Method, raws: np.ndarray, declared: Sequence[float], labels: np.ndarray) -> tuple[Curve, Any]:
    """Return a curve fitted to all that is given, and scikit-learn's estimator behind it.

    The estimator predicts from the standardised raw score (`platt`), the raw score (`isotonic`) or the log-odds of the
    declared relevance (`temperature`).

    Raises:
        InputError: The higher the score, the less relevant: no curve that rises can mend that.
    """
    import numpy as np
    from sklearn.isotonic import IsotonicRegression
    from sklearn.linear_model import LogisticRegression

    if method == "isotonic":
        isotonic = IsotonicRegression(y_min=0.0, y_max=1.0, increasing=True, out_of_bounds="clip")
        isotonic.fit(raws, labels.astype(np.float64))
        points = zip(isotonic.X_thresholds_.tolist(), isotonic.y_thresholds_.tolist(), strict=True)
        return Curve(method=method, points=tuple(points)), isotonic
    # A weak penalty: it moves nothing where there is data, and keeps the slope finite where the classes do not overlap.
    if method == "temperature":
        temperature = LogisticRegression(C=1e3, fit_intercept=False, tol=1e-8, max_iter=1000)
        temperature.fit(np.array([[log_odds(each)] for each in declared]), labels)
        return Curve(method=method, slope=_rising(temperature.coef_[0, 0])), temperature
    mean, spread = float(raws.mean()), float(raws.std()) or 1.0
    platt = LogisticRegression(C=1e3, tol=1e-8, max_iter=1000).fit(((raws - mean) / spread)[:, None], labels)
    slope = _rising(platt.coef_[0, 0] / spread)
    return Curve(method=method, slope=slope, intercept=float(platt.intercept_[0]) - slope * mean), platt


def _rising(slope: float) -> float:
    if not slope > 0:
        raise InputError(
            "In this data no rising curve of this method fits: a higher score goes with a less relevant document, or "
            "(temperature, which only stretches around 0.5) nearly all scores lie on the wrong side of 0.5. Take "
            "another method; where none fits, look at the labels, or take another reranker."
        )
    return float(slope)
