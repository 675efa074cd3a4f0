"""Fits a curve to judged scores with scikit-learn, and measures it on held-out queries by cross-validation."""

from __future__ import annotations

import importlib.util
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Literal, get_args

from ..core.calibration_curve import METHODS, Curve, Method, log_odds
from ..core.errors import InputError, MissingExtra
from ..core.types import Capabilities
from .measure import BINS, measure_calibration

if TYPE_CHECKING:
    import numpy as np

__all__ = ["MAX_FOLDS", "METHOD_CHOICES", "JudgedScore", "MethodChoice", "fit", "fit_curve", "require_scikit_learn"]

MethodChoice = Literal["auto", "platt", "isotonic", "temperature"]
METHOD_CHOICES: tuple[MethodChoice, ...] = get_args(MethodChoice)
MAX_FOLDS = 5

JudgedScore = tuple[str, float, bool]
"""(query, raw score of a document, whether the document is relevant)."""


def require_scikit_learn() -> None:
    """Check that scikit-learn is installed. Call it before you request scores, which may cost money.

    Raises:
        MissingExtra: scikit-learn is not installed.
    """
    if importlib.util.find_spec("sklearn") is None:
        raise MissingExtra("Fitting a calibration", extra="calibration", package="scikit-learn")


def fit(
    judged: Sequence[JudgedScore], capabilities: Capabilities, method: MethodChoice = "auto", *, seed: int = 0
) -> tuple[Curve, dict[str, Any]]:
    """Fit a curve to all judged scores, and measure its method on held-out queries.

    Args:
        judged: Scores with labels. The scores of one query are never divided between training and test.
        capabilities: Capabilities of the scorer. Their scale maps a raw score to the relevance before calibration.
        method: `auto` chooses the method with the lowest Brier score on held-out queries.
        seed: Seed with which the queries are shuffled into at most five folds.

    Returns:
        The curve, and a mapping: `folds`, `seed`, `bins`; the counts `queries`, `pairs` and `relevant`; `before` and
        `after`, the calibration error without and with the curve (see `measure_calibration`); and `methods`, the error
        of every method.

    Raises:
        InputError: There are fewer than two queries, no relevant or no irrelevant document, or higher scores go with
            less relevant documents.
        MissingExtra: scikit-learn is not installed.
    """
    require_scikit_learn()
    import numpy as np
    from sklearn.model_selection import GroupKFold

    queries = [query for query, _, _ in judged]
    raws = np.array([raw for _, raw, _ in judged], dtype=np.float64)
    labels = np.array([label for _, _, label in judged], dtype=bool)
    if len(set(queries)) < 2 or labels.all() or not labels.any():
        raise InputError(
            f"A calibration needs relevant and irrelevant documents of at least two queries, got {len(set(queries))} "
            f"queries with {int(labels.sum())} relevant documents among {len(labels)}. Give more judged data."
        )
    declared_relevance = [capabilities.relevance(raw) for raw in raws.tolist()]
    folds = GroupKFold(min(MAX_FOLDS, len(set(queries))), shuffle=True, random_state=seed)
    held_out_probabilities: dict[Method, list[float]] = {}
    curves: dict[Method, Curve] = {}
    errors: list[InputError] = []
    for name in METHODS if method == "auto" else (method,):
        probabilities = np.empty(len(raws))
        try:
            for train, test in folds.split(raws, groups=queries):
                curve, _ = fit_curve(name, raws[train], [declared_relevance[index] for index in train], labels[train])
                probabilities[test] = [
                    curve.probability(float(raws[index]), declared_relevance[index]) for index in test
                ]
            curves[name], _ = fit_curve(name, raws, declared_relevance, labels)
        except InputError as error:
            errors.append(error)
            continue
        held_out_probabilities[name] = probabilities.tolist()
    # If higher scores go with less relevant documents, isotonic regression fits a constant, and raises no error. Only
    # `platt` detects this reliably, so its error counts for all methods.
    if not held_out_probabilities or (errors and "platt" not in held_out_probabilities and method == "auto"):
        raise errors[0]
    metrics = {
        name: measure_calibration(probabilities, labels.tolist())
        for name, probabilities in held_out_probabilities.items()
    }
    best = min(metrics, key=lambda name: metrics[name]["brier"])
    return curves[best], {
        "folds": folds.get_n_splits(),
        "seed": seed,
        "bins": BINS,
        "queries": len(set(queries)),
        "pairs": len(judged),
        "relevant": int(labels.sum()),
        "before": measure_calibration(declared_relevance, labels.tolist()),
        "after": metrics[best],
        "methods": {
            name: {key: values[key] for key in ("ece", "ece_equal_count", "brier")} for name, values in metrics.items()
        },
    }


def fit_curve(
    method: Method, raws: np.ndarray, declared_relevance: Sequence[float], labels: np.ndarray
) -> tuple[Curve, Any]:
    """Return a curve fitted to all scores, and the fitted scikit-learn estimator.

    The input of the estimator is the standardised raw score (`platt`), the raw score (`isotonic`), or the log-odds of
    the relevance before calibration (`temperature`).

    Raises:
        InputError: Higher scores go with less relevant documents, which no rising curve fits.
    """
    import numpy as np
    from sklearn.isotonic import IsotonicRegression
    from sklearn.linear_model import LogisticRegression

    if method == "isotonic":
        isotonic = IsotonicRegression(y_min=0.0, y_max=1.0, increasing=True, out_of_bounds="clip")
        isotonic.fit(raws, labels.astype(np.float64))
        points = zip(isotonic.X_thresholds_.tolist(), isotonic.y_thresholds_.tolist(), strict=True)
        return Curve(method=method, points=tuple(points)), isotonic
    # A weak penalty (large C) keeps the slope finite if a threshold separates the classes. Otherwise its effect is not
    # measurable.
    if method == "temperature":
        temperature = LogisticRegression(C=1e3, fit_intercept=False, tol=1e-8, max_iter=1000)
        temperature.fit(np.array([[log_odds(relevance)] for relevance in declared_relevance]), labels)
        return Curve(method=method, slope=_positive_slope(temperature.coef_[0, 0])), temperature
    mean, deviation = float(raws.mean()), float(raws.std()) or 1.0
    platt = LogisticRegression(C=1e3, tol=1e-8, max_iter=1000).fit(((raws - mean) / deviation)[:, None], labels)
    slope = _positive_slope(platt.coef_[0, 0] / deviation)
    return Curve(method=method, slope=slope, intercept=float(platt.intercept_[0]) - slope * mean), platt


def _positive_slope(slope: float) -> float:
    if not slope > 0:
        raise InputError(
            "No rising curve of this method fits the data: higher scores go with less relevant documents, or "
            "(with temperature, which only scales the log-odds) nearly all scores are on the wrong side of 0.5. Use "
            "another method. If none fits, check the labels, or use another reranker."
        )
    return float(slope)
