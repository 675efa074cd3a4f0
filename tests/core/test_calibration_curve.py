"""Calibration curves are monotonic and equal to scikit-learn's predictions."""

from __future__ import annotations

import math
import random

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rerank_plugins import InputError
from rerank_plugins.calibration.fit import fit, fit_curve
from rerank_plugins.calibration.measure import measure_calibration
from rerank_plugins.core import Capabilities
from rerank_plugins.core.calibration_curve import METHODS, Curve, log_odds

pytestmark = pytest.mark.thorough  # a fit imports scikit-learn

RAW = st.floats(-1e6, 1e6)
SCALES = [
    Capabilities(scale="logit", offset=0.5, divisor=2.0),
    Capabilities(scale="unit"),
    Capabilities(scale="cosine"),
]


@st.composite
def curves(draw) -> Curve:
    method = draw(st.sampled_from(METHODS))
    if method != "isotonic":
        return Curve(method=method, slope=draw(st.floats(1e-6, 1e6)), intercept=draw(st.floats(-1e3, 1e3)))
    raws = sorted(draw(st.sets(RAW, min_size=1, max_size=9)))
    chances = sorted(draw(st.lists(st.floats(0, 1), min_size=len(raws), max_size=len(raws))))
    return Curve(method=method, points=tuple(zip(raws, chances, strict=True)))


@given(curves(), st.sampled_from(SCALES), st.lists(RAW, min_size=2, max_size=20))
def test_curve_never_decreases_and_stays_between_0_and_1(curve, capabilities, raws):
    raws += [math.nextafter(each, math.inf) for each in raws] + [raw for raw, _ in curve.points]
    probabilities = [curve.probability(raw, capabilities.relevance(raw)) for raw in sorted(raws)]
    assert probabilities == sorted(probabilities)
    assert 0.0 <= probabilities[0] <= probabilities[-1] <= 1.0


def judged_rows(seed: int, queries: int = 40) -> list[tuple[str, float, bool]]:
    draw = random.Random(seed)
    rows = [(str(at // 10), draw.uniform(-0.5, 1.5)) for at in range(queries * 10)]
    return [(query, raw, draw.random() < 1 / (1 + math.exp(-5 * (raw - 1)))) for query, raw in rows]


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("capabilities", SCALES, ids=lambda capabilities: capabilities.scale)
def test_curve_equals_the_predictions_of_scikit_learn(method, capabilities):
    rows = judged_rows(1)
    raws, labels = np.array([raw for _, raw, _ in rows]), np.array([label for *_, label in rows])
    declared = [capabilities.relevance(raw) for raw in raws.tolist()]
    curve, estimator = fit_curve(method, raws, declared, labels)
    # Includes values outside the range of the fitted scores.
    inputs = np.concatenate([raws, np.linspace(-3, 3, 201)])
    if method == "isotonic":
        expected = estimator.predict(inputs)
    else:
        log = np.array([log_odds(capabilities.relevance(raw)) for raw in inputs.tolist()])
        features = (inputs - raws.mean()) / raws.std() if method == "platt" else log
        expected = estimator.predict_proba(features[:, None])[:, 1]
    probabilities = [curve.probability(raw, capabilities.relevance(raw)) for raw in inputs.tolist()]
    assert np.abs(np.array(probabilities) - expected).max() <= 1e-9


def test_calibration_bins_equal_values_computed_by_hand():
    measured = measure_calibration([0.1, 0.1, 0.9, 1.0], [False, True, True, True])
    assert measured["bins"] == [(0.1, 0.5, 2), (0.9, 1.0, 1), (1.0, 1.0, 1)]
    assert measured["ece"] == pytest.approx((2 * 0.4 + 0.1) / 4)
    assert measured["ece_equal_count"] == pytest.approx((0.1 + 0.9 + 0.1) / 4)
    assert measured["brier"] == pytest.approx((0.01 + 0.81 + 0.01) / 4)


def test_fit_is_deterministic_and_lowers_the_held_out_error():
    rows = judged_rows(2, 100)
    curve, summary = fit(rows, SCALES[2])
    assert fit(rows, SCALES[2]) == (curve, summary)
    assert (summary["folds"], summary["queries"], summary["pairs"], summary["bins"]) == (5, 100, 1000, 15)
    assert summary["after"]["ece"] < 0.05 < summary["before"]["ece"]
    assert summary["after"]["brier"] == min(each["brier"] for each in summary["methods"].values())


def test_fold_never_splits_a_query():
    """Each query has its own range of scores and one label: only rows of the same query could predict that label."""
    rows = [(str(query), query + at / 100, query % 2 == 0) for query in range(20) for at in range(30)]
    _, summary = fit(rows, Capabilities(scale="logit"), "isotonic")
    assert summary["after"]["brier"] > 0.2


@pytest.mark.parametrize(
    "rows",
    [
        [],
        [("one", 0.1, True), ("one", 0.2, False)],
        [("one", 0.1, True), ("two", 0.2, True)],
        [("one", 0.1, False), ("two", 0.2, False)],
    ],
)
def test_fit_with_too_few_judgements_raises_an_input_error(rows):
    with pytest.raises(InputError, match="Give more judged data"):
        fit(rows, SCALES[1])


@pytest.mark.parametrize("method", ["auto", "platt"])
def test_fit_of_inverted_scores_raises_an_input_error(method):
    with pytest.raises(InputError, match="less relevant"):
        fit([(query, -raw, label) for query, raw, label in judged_rows(3)], SCALES[0], method)


@pytest.mark.parametrize(
    "wrong",
    [
        {"method": "guess"},
        {"method": "platt", "slope": -1.0},
        {"method": "platt", "slope": math.nan},
        {"method": "isotonic"},
        {"method": "isotonic", "points": ((0.0, 0.5), (1.0, 0.4))},
        {"method": "isotonic", "points": ((1.0, 0.5), (0.0, 0.6))},
        {"method": "isotonic", "points": ((0.0, 0.5), (1.0, 1.5))},
    ],
)
def test_curve_that_could_change_the_order_is_refused(wrong):
    with pytest.raises(ValueError, match=r"\w"):
        Curve(**wrong)
