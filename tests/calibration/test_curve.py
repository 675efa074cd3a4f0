"""The curves: never falling, and what scikit-learn says."""

from __future__ import annotations

import math
import random

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rerank_plugins import InputError
from rerank_plugins.calibration.fit import fit, fitted_curve
from rerank_plugins.calibration.measure import measure
from rerank_plugins.core import Capabilities
from rerank_plugins.core.curve import METHODS, Curve, log_odds

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
def test_no_curve_ever_falls_or_leaves_0_1(curve, capabilities, raws):
    raws += [math.nextafter(each, math.inf) for each in raws] + [raw for raw, _ in curve.points]
    found = [curve.probability(raw, capabilities.relevance(raw)) for raw in sorted(raws)]
    assert found == sorted(found)
    assert 0.0 <= found[0] <= found[-1] <= 1.0


def judged(seed: int, queries: int = 40) -> list[tuple[str, float, bool]]:
    draw = random.Random(seed)
    rows = [(str(at // 10), draw.uniform(-0.5, 1.5)) for at in range(queries * 10)]
    return [(query, raw, draw.random() < 1 / (1 + math.exp(-5 * (raw - 1)))) for query, raw in rows]


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("capabilities", SCALES, ids=lambda each: each.scale)
def test_what_scikit_learn_predicts(method, capabilities):
    rows = judged(1)
    raws, labels = np.array([raw for _, raw, _ in rows]), np.array([label for *_, label in rows])
    declared = [capabilities.relevance(raw) for raw in raws.tolist()]
    curve, estimator = fitted_curve(method, raws, declared, labels)
    # Beyond what it was fitted to as well.
    asked = np.concatenate([raws, np.linspace(-3, 3, 201)])
    if method == "isotonic":
        expected = estimator.predict(asked)
    else:
        log = np.array([log_odds(capabilities.relevance(raw)) for raw in asked.tolist()])
        features = (asked - raws.mean()) / raws.std() if method == "platt" else log
        expected = estimator.predict_proba(features[:, None])[:, 1]
    found = [curve.probability(raw, capabilities.relevance(raw)) for raw in asked.tolist()]
    assert np.abs(np.array(found) - expected).max() <= 1e-9


def test_the_bins_by_hand():
    found = measure([0.1, 0.1, 0.9, 1.0], [False, True, True, True])
    assert found["bins"] == [(0.1, 0.5, 2), (0.9, 1.0, 1), (1.0, 1.0, 1)]
    assert found["ece"] == pytest.approx((2 * 0.4 + 0.1) / 4)
    assert found["ece_equal_count"] == pytest.approx((0.1 + 0.9 + 0.1) / 4)
    assert found["brier"] == pytest.approx((0.01 + 0.81 + 0.01) / 4)


def test_held_out_by_query_seeded_and_better_than_before():
    rows = judged(2, 100)
    curve, told = fit(rows, SCALES[2])
    assert fit(rows, SCALES[2]) == (curve, told)
    assert (told["folds"], told["queries"], told["pairs"], told["bins"]) == (5, 100, 1000, 15)
    assert told["after"]["ece"] < 0.05 < told["before"]["ece"]
    assert told["after"]["brier"] == min(each["brier"] for each in told["methods"].values())


def test_a_query_never_stands_on_both_sides_of_a_fold():
    """All of a query's documents have one score of their own and one label: only its own rows could tell that label."""
    rows = [(str(query), query + at / 100, query % 2 == 0) for query in range(20) for at in range(30)]
    _, told = fit(rows, Capabilities(scale="logit"), "isotonic")
    assert told["after"]["brier"] > 0.2


@pytest.mark.parametrize(
    "rows",
    [
        [],
        [("one", 0.1, True), ("one", 0.2, False)],
        [("one", 0.1, True), ("two", 0.2, True)],
        [("one", 0.1, False), ("two", 0.2, False)],
    ],
)
def test_too_little_to_fit(rows):
    with pytest.raises(InputError, match="Give more judged data"):
        fit(rows, SCALES[1])


@pytest.mark.parametrize("method", ["auto", "platt"])
def test_an_order_the_wrong_way_round(method):
    with pytest.raises(InputError, match="less relevant"):
        fit([(query, -raw, label) for query, raw, label in judged(3)], SCALES[0], method)


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
def test_a_curve_that_would_change_an_order_cannot_be_made(wrong):
    with pytest.raises(ValueError, match=r"\w"):
        Curve(**wrong)
