"""Diversity: the first results differ from each other."""

from __future__ import annotations

import threading

import pytest

from rerank_plugins import ConfigError, load_reranker
from rerank_plugins.policies import diversify
from rerank_plugins.policies.diversify import term_overlap
from rerank_plugins.testing.cohere_like import CohereLike
from rerank_plugins.testing.script import Status

QUERY = "tides"
DOCUMENTS = ["the moon makes the tides", "the moon makes tides", "high water twice a day", "sun and sea", ""]
WORTH = dict(zip(DOCUMENTS, (0.9, 0.85, 0.6, 0.1), strict=False))


@pytest.fixture
def server():
    with CohereLike(score=lambda _, text: WORTH[text]) as running:
        yield running


def spec(server: CohereLike, **diversify) -> dict:
    return {"use": "http", "base_url": server.url, "api_key": server.key, "retry": 1, "diversify": diversify or True}


def order(options: dict, **call) -> list[int]:
    with load_reranker(options) as reranker:
        return [result.index for result in reranker.rerank(QUERY, DOCUMENTS, **call)]


def test_term_overlap_is_the_jaccard_similarity():
    assert term_overlap("The moon", "the MOON!") == 1.0
    assert term_overlap("a b c", "b c d") == 0.5
    assert term_overlap("a", "b") == 0.0
    assert term_overlap("!", "?") == 1.0


def test_similar_documents_are_moved_down(server):
    """With lambda 0.5, next is worth - overlap: 0.9375 - 1 against 0.625 - 0 and 0 - 0."""
    assert order(spec(server, **{"lambda": 0.5})) == [0, 2, 3, 1, 4]
    assert order(spec(server, **{"lambda": 1.0})) == [0, 1, 2, 3, 4]


def test_only_the_first_top_n_are_reordered(server):
    assert order(spec(server, **{"lambda": 0.5, "top_n": 2})) == [0, 2, 1, 3, 4]


def test_scores_do_not_change_and_top_n_is_applied_after(server):
    with load_reranker(spec(server, **{"lambda": 0.5})) as reranker:
        answer = reranker.rerank(QUERY, DOCUMENTS, top_n=2)
    assert [(result.index, result.raw_score) for result in answer] == [(0, 0.9), (2, 0.6)]


def test_a_similarity_function_of_the_user_is_used(server):
    # What begins alike is alike: "the" and "the", and "sun" is of no worth.
    first_word = spec(
        server, **{"lambda": 0.5, "similarity": lambda one, other: float(one.split()[0] == other.split()[0])}
    )
    assert order(first_word) == [0, 2, 3, 1, 4]


@pytest.mark.parametrize(
    ("similarity", "message"),
    [
        (lambda one, other: 1 / 0, "failed with ZeroDivisionError"),
        (lambda one, other: next(iter(())), "failed with StopIteration"),
        (lambda one, other: None, "failed with TypeError"),
        (lambda one, other: "alike", "failed with ValueError"),
        (lambda one: 1.0, "failed with TypeError"),
        (lambda one, other: float("nan"), "got nan"),
        (lambda one, other: float("inf"), "got inf"),
        (lambda one, other: 10**400, "failed with OverflowError"),
    ],
)
def test_a_failing_similarity_raises_without_the_texts(server, similarity, message: str):
    with (
        load_reranker(spec(server, similarity=similarity, **{"lambda": 0.5})) as reranker,
        pytest.raises(ConfigError, match=message) as caught,
    ):
        reranker.rerank(QUERY, DOCUMENTS)
    assert "moon" not in str(caught.value)


def test_each_text_is_split_into_words_once(server, monkeypatch):
    read = []
    words = diversify._words
    monkeypatch.setattr(diversify, "_words", lambda text: read.append(text) or words(text))
    order(spec(server, **{"lambda": 0.5}))
    assert sorted(read) == sorted(text for text in DOCUMENTS if text)


async def test_a_similarity_function_runs_off_the_callers_loop(server):
    threads = set()
    options = spec(server, similarity=lambda one, other: threads.add(threading.current_thread()) or 0.0)
    async with load_reranker(options) as reranker:
        await reranker.arerank(QUERY, DOCUMENTS)
    assert threads
    assert threading.current_thread() not in threads


def test_documents_without_scores_keep_their_order(server):
    server.always(Status(500))
    assert order({**spec(server), "on_error": "degrade"}) == [0, 1, 2, 3, 4]


def test_one_document_or_none_works(server):
    with load_reranker(spec(server)) as reranker:
        assert [result.index for result in reranker.rerank(QUERY, DOCUMENTS[:1])] == [0]
        assert reranker.rerank(QUERY, []).results == ()


@pytest.mark.parametrize(
    ("value", "message"),
    [
        (3, "^diversify must be True, False or a mapping, got 3"),
        ({"lambda": 2}, "from 0 to 1"),
        ({"top_n": 0}, "at least 1"),
        ({"similarity": 1}, "function"),
    ],
)
def test_invalid_options_raise(value, message: str):
    with pytest.raises(ConfigError, match=message):
        load_reranker({"use": "lexical", "diversify": value})


def test_a_deadline_ends_the_reordering_and_keeps_the_scores(server: CohereLike):
    """A similarity that takes longer than the deadline leaves: the answer is in order of relevance, and says so."""
    may_end = threading.Event()

    def slow(one: str, other: str) -> float:
        may_end.wait(30.0)
        return 0.0

    with load_reranker({**spec(server, similarity=slow), "deadline": 0.5}) as reranker:
        try:
            answer = reranker.rerank(QUERY, DOCUMENTS)
        finally:
            may_end.set()
    assert [result.index for result in answer] == [0, 1, 2, 3, 4]
    assert (answer.reason, answer.degraded) == ("in order of relevance: the deadline left no time for diversify", False)
