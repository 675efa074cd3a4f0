"""Equal scores keep the order of the reply if one reply covered all documents, else the retriever's order."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from rerank_plugins import load_reranker
from rerank_plugins.testing.cohere_like import CohereLike
from rerank_plugins.testing.script import Pairs, Step

QUERY = "why are there tides"
WORST_FIRST = ["bananas", "there", "are there", "why are there", "why are there tides"]


class Saturated(Step):
    """All scores are 1.0, and the documents still stand best first."""

    def scores(self, pairs: Pairs) -> Pairs:
        return [(index, 1.0) for index, _ in pairs]


@pytest.fixture
def server() -> Iterator[CohereLike]:
    with CohereLike() as running:
        running.always(Saturated())
        yield running


def order(server: CohereLike, spec: dict[str, Any], *calls: list[str]) -> list[list[int]]:
    with load_reranker({"use": "http", "base_url": server.url, "api_key": server.key, **spec}) as reranker:
        return [[result.index for result in reranker.rerank(QUERY, documents)] for documents in calls]


@pytest.mark.parametrize(
    "spec",
    [
        {},
        {"cache": True},
        {"long_documents": "chunk"},
        {"http": {"max_tokens": 1000}},
        {"http": {"max_tokens": 1000}, "long_documents": "head_tail"},
        {"http": {"max_documents": 5}},
        {"fallback": ["passthrough"], "deadline": 60, "retry": 2},
    ],
    ids=str,
)
def test_the_order_of_one_reply_decides(server, spec):
    assert order(server, spec, WORST_FIRST, WORST_FIRST) == [[4, 3, 2, 1, 0]] * 2


def test_blanks_and_repeats_keep_their_places(server):
    assert order(server, {}, ["bananas", "", "tides", "bananas", "tides"]) == [[2, 4, 0, 3, 1]]


def test_the_retrievers_order_decides_between_several_replies(server):
    assert order(server, {"http": {"max_documents": 2}}, WORST_FIRST) == [[0, 1, 2, 3, 4]]
    chunks = {"long_documents": {"mode": "chunk", "tokens": 2, "overlap": 0}}
    assert order(server, chunks, WORST_FIRST) == [[0, 1, 2, 3, 4]]


def test_a_cache_keeps_the_order_of_one_reply_only(server):
    more = [*WORST_FIRST, "tides are"]
    first, part, mixed = order(server, {"cache": True}, WORST_FIRST, WORST_FIRST[2:], more)
    assert first == [4, 3, 2, 1, 0]
    assert part == [2, 1, 0]  # one reply covered these, too
    assert mixed == [0, 1, 2, 3, 4, 5]


def test_a_cascade_keeps_the_order_of_its_first_stage(server):
    stage = {"use": "http", "base_url": server.url, "api_key": server.key}
    spec = {"cascade": {"stages": [stage, "lexical"], "keep": [2]}}
    with load_reranker(spec) as reranker:
        assert [result.index for result in reranker.rerank(QUERY, WORST_FIRST)] == [4, 3, 2, 1, 0]
