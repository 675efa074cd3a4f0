"""Rank fusion, compared with its formulas."""

from __future__ import annotations

import itertools
import math
from dataclasses import replace

import pytest
from support.scripted import REQUEST, Scripted
from support.virtual_time import virtually

from rerank_plugins import ConfigError, TransientError, load_reranker
from rerank_plugins.backends.passthrough import Passthrough
from rerank_plugins.core import Capabilities, RerankRequest, Scores
from rerank_plugins.core.calibration_curve import Curve
from rerank_plugins.policies.cascade import Cascade
from rerank_plugins.policies.fusion import METHODS, Fusion, Method
from rerank_plugins.testing.cohere_like import CohereLike
from rerank_plugins.testing.script import Status

QUERY = "why are there tides"
DOCUMENTS = ["bananas are yellow", "tides: there are two a day", "the moon pulls the sea", "tides", "why?", "tides", ""]


class Says(Scripted):
    def __init__(self, *values: float, **options) -> None:
        super().__init__(**options)
        self.values = values

    async def ascore(self, request: RerankRequest) -> Scores:
        await super().ascore(request)
        return Scores(values=self.values, model=self.label, capabilities=self.capabilities)


def fused(fuse: Fusion, request: RerankRequest = REQUEST) -> list[float]:
    scores, _ = virtually(lambda: fuse.ascore(request))
    assert isinstance(scores, Scores), scores
    return list(scores.values)


def test_rrf_equals_the_formula():
    # Ranks 1 2 3 and 3 1 2.
    values = fused(Fusion([Says(0.9, 0.5, 0.1), Says(0.2, 0.8, 0.3)], retrieval=False))
    assert values == pytest.approx([(1 / 61 + 1 / 63) / 2, (1 / 62 + 1 / 61) / 2, (1 / 63 + 1 / 62) / 2])
    values = fused(Fusion([Says(0.9, 0.5, 0.1), Says(0.2, 0.8, 0.3)], retrieval=False, weights=[3, 1], k=10))
    assert values == pytest.approx([0.75 / 11 + 0.25 / 13, 0.75 / 12 + 0.25 / 11, 0.75 / 13 + 0.25 / 12])


def test_equal_scores_share_a_rank():
    assert fused(Fusion([Says(0.5, 0.5, 0.1), Says(0.9, 0.9, 0.9)], retrieval=False)) == pytest.approx(
        [1 / 61, 1 / 61, (1 / 63 + 1 / 61) / 2]
    )


@pytest.mark.parametrize(
    "capabilities",
    [
        Capabilities(scale="logit"),  # the sigmoid of 40 and of 50 is 1.0
        Capabilities(scale="unit"),  # a server's odd scores above 1
        Capabilities(curve=Curve(method="isotonic", points=((0.0, 0.1), (1.0, 0.1)))),  # one step for all
    ],
    ids=["logit", "unit", "calibrated"],
)
def test_ranks_come_from_raw_scores_if_all_relevances_are_one(capabilities):
    values = fused(Fusion([Says(40.0, 50.0, 45.0, capabilities=capabilities)] * 2, retrieval=False))
    assert values == pytest.approx([1 / 63, 1 / 61, 1 / 62])


def test_a_cascade_in_a_fusion_is_ranked_by_its_whole_order():
    cascade = Cascade([Says(0.1, 0.9, 0.5), Says(0.3)], [1])
    assert fused(Fusion([cascade, Says(0.7, 0.7, 0.7)], retrieval=False, weights=[1, 0])) == pytest.approx(
        [1 / 63, 1 / 61, 1 / 62]
    )


def test_the_retriever_counts_by_its_scores_else_by_its_order():
    assert fused(Fusion([Says(0.1, 0.5, 0.9)], retrieval=True)) == pytest.approx(
        [(1 / 63 + 1 / 61) / 2, 1 / 62, (1 / 61 + 1 / 63) / 2]
    )
    scored = RerankRequest(query="q", documents=REQUEST.documents, retrieval_scores=(2.0, 12.0, 7.0))
    weighted = Fusion([Says(0.1, 0.5, 0.9)], retrieval=True, method="weighted", weights=[1, 3])
    assert fused(weighted, scored) == pytest.approx([0.025, 0.125 + 0.75, 0.225 + 0.375])
    assert fused(weighted) == pytest.approx([0.025 + 0.75, 0.125 + 0.5, 0.225 + 0.25])
    assert weighted.capabilities.scale == "ordinal"


def test_weighted_equals_the_mean_of_relevances():
    logit = Says(0.0, 2.0, -2.0, capabilities=Capabilities(scale="logit"))
    both = Fusion([logit, Says(0.2, 0.8, 0.3)], retrieval=False, method="weighted")
    assert fused(both) == pytest.approx([(0.5 + 0.2) / 2, (0.880797 + 0.8) / 2, (0.119203 + 0.3) / 2], abs=1e-6)
    assert both.capabilities.scale == "unit"


def test_a_scorer_without_scores_counts_by_rank():
    backend = Passthrough()
    backend.name = "passthrough"
    assert fused(Fusion([backend, Says(0.1, 0.2, 0.3)], retrieval=False)) == pytest.approx(
        [(1 / 61 + 1 / 63) / 2, 1 / 62, (1 / 63 + 1 / 61) / 2]
    )


class Declines(Says):
    """Declines the first document."""

    reasons: tuple[str | None, ...] = ("declined", None, None)
    degraded = False

    async def ascore(self, request: RerankRequest) -> Scores:
        scores = await super().ascore(request)
        return replace(scores, values=(None, *scores.values[1:]), reasons=self.reasons, degraded=self.degraded)


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("retrieval", [True, False])
def test_a_declined_document_has_no_score_but_a_reason(method: Method, retrieval: bool):
    unit = Capabilities(scale="unit", refuses=True)
    scorers = [Declines(0.0, 0.8, 0.1, capabilities=unit), Says(0.9, 0.4, 0.3, capabilities=unit)]
    scores, _ = virtually(lambda: Fusion(scorers, retrieval=retrieval, method=method).ascore(REQUEST))
    assert scores.values[0] is None
    assert scores.reasons == ("declined", None, None)
    assert scores.best_first() == [1, 2, 0]
    whole = [Says(0.0, 0.8, 0.1, capabilities=unit), scorers[1]]
    others, _ = virtually(lambda: Fusion(whole, retrieval=retrieval, method=method).ascore(REQUEST))
    assert scores.values[1:] == others.values[1:]


def test_a_skipped_document_a_degraded_answer_and_a_list_of_weight_0_decline_nothing():
    declines = Declines(0.0, 0.8, 0.1, capabilities=Capabilities(refuses=True))
    assert None in fused(Fusion([declines, Says(0.9, 0.4, 0.3)], retrieval=False))
    assert None not in fused(Fusion([declines, Says(0.9, 0.4, 0.3)], retrieval=False, weights=[0, 1]))
    declines.degraded = True
    assert None not in fused(Fusion([declines, Says(0.9, 0.4, 0.3)], retrieval=False))
    skips = Declines(0.0, 0.8, 0.1)  # a cascade behind a server
    assert None not in fused(Fusion([skips, Says(0.9, 0.4, 0.3)], retrieval=False))


def test_scorers_run_concurrently_and_one_error_cancels_the_others():
    _, took = virtually(lambda: Fusion([Scripted(3.0), Scripted(5.0)], retrieval=False).ascore(REQUEST))
    assert took == pytest.approx(5.0)
    error, took = virtually(
        lambda: Fusion([Scripted(TransientError("no")), Scripted(5.0)], retrieval=False).ascore(REQUEST)
    )
    assert isinstance(error, TransientError)
    assert took == 0.0


def test_the_error_keeps_its_cause():
    dead = {"use": "http", "base_url": "http://127.0.0.1:9", "api_key": "key", "retry": 1}
    with load_reranker({**dead, "fuse": {"with": ["lexical"]}}) as reranker, pytest.raises(TransientError) as caught:
        reranker.rerank(QUERY, DOCUMENTS)
    assert type(caught.value.__cause__).__name__ == "ConnectError"


def test_a_spec_with_fuse():
    with CohereLike() as server:
        spec = {"use": "http", "base_url": server.url, "api_key": server.key, "retry": 1, "fuse": {"with": ["lexical"]}}
        with load_reranker(spec) as reranker:
            answer = reranker.rerank(QUERY, DOCUMENTS)
            assert (answer.model, answer.scale, answer.usage.requests) == ("http + lexical (rrf)", "ordinal", 1)
            assert sorted(result.index for result in answer) == list(range(7))
            assert {each.model for each in answer.attempts} == {"http", "lexical"}
            server.play(Status(500))
            with pytest.raises(TransientError):
                reranker.rerank(QUERY, DOCUMENTS)
    with load_reranker({"use": "embedded", "fuse": {"with": "retrieval"}}) as reranker:
        answer = reranker.rerank(QUERY, DOCUMENTS, retrieval_scores=[7, 6, 5, 4, 3, 2, 1])
        assert answer.model == "embedded [onnxruntime float32] + retrieval (rrf)"
        assert answer[0].relevance_score == 1.0


def test_a_threshold_over_ranks_raises():
    with pytest.raises(ConfigError, match="only orders documents"):
        load_reranker({"use": "embedded", "fuse": {"with": "retrieval"}, "score_threshold": 0.5})
    weighted = {"use": "embedded", "fuse": {"with": ["embedded"], "method": "weighted"}, "score_threshold": 1e-6}
    with load_reranker(weighted) as reranker:
        assert reranker.rerank(QUERY, DOCUMENTS)[0].relevance_score >= 1e-6


@pytest.mark.parametrize(
    ("fuse", "message"),
    [
        ("retrieval", "^fuse must be a mapping, got a string"),
        ({"method": "rrf"}, "^fuse.with is missing"),
        ({"with": "lexical"}, "'retrieval' or a list of specs"),
        ({"with": ["lexicl"]}, "lexical"),
        ({"with": "retrieval", "method": "borda"}, "rrf"),
        ({"with": "retrieval", "weights": [1]}, "^fuse must have 2 numbers in weights.*got 1"),
        ({"with": "retrieval", "weights": [0, 0]}, "^fuse has only 0 in weights"),
        ({"with": "retrieval", "weights": [1, -1]}, r"^fuse\.weights\[1\] must be a finite number from 0 to"),
        ({"with": "retrieval", "weights": [float("inf"), 1]}, "must be a finite number, got inf"),
        ({"with": "retrieval", "weights": [float("nan"), 1]}, "must be a finite number, got nan"),
        ({"with": "retrieval", "weights": [10**400, 1]}, "at most 64 bits"),
        ({"with": "retrieval", "weights": [2**63, 1]}, "from 0 to 1,000,000,000"),
        ({"with": "retrieval", "k": float("inf")}, "must be a finite number, got inf"),
        ({"with": "retrieval", "method": "weighted", "k": 60}, "belongs to the method 'rrf'"),
    ],
)
def test_invalid_options_raise(fuse, message: str):
    with pytest.raises(ConfigError, match=message):
        load_reranker({"use": "lexical", "fuse": fuse})


@pytest.mark.parametrize("method", ["rrf", "weighted"])
@pytest.mark.parametrize("weights", [None, [1e308, 1e308], [5e-324, 5e-324]])
def test_extreme_floats_give_finite_scores_in_the_right_order(method, weights):
    request = RerankRequest(query="q", documents=("a", "b", "c"), retrieval_scores=(-1e308, 0.0, 1e308))
    values = fused(Fusion([Says(0.1, 0.1, 0.1)], retrieval=True, method=method, weights=weights), request)
    assert all(map(math.isfinite, values))
    assert values == sorted(values)
    assert len(set(values)) == 3
    if method == "weighted":
        assert values == pytest.approx([0.05, 0.3, 0.55])


@pytest.mark.parametrize("method", ["rrf", "weighted"])
def test_a_permutation_of_equal_texts_changes_no_order(method):
    texts, scores = ["tides", "the moon", "tides", "a sea"], [0.1, 0.5, 0.9, 0.7]
    orders = set()
    with load_reranker({"use": "lexical", "fuse": {"with": "retrieval", "method": method}}) as reranker:
        for order in itertools.permutations(range(4)):
            response = reranker.rerank(
                "rivers", [texts[each] for each in order], retrieval_scores=[scores[each] for each in order]
            )
            orders.add(tuple(result.document for result in response))
    assert orders == {("tides", "tides", "a sea", "the moon")}
