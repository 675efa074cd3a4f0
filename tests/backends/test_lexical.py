"""BM25 over the candidates, compared with the formula computed by hand."""

from __future__ import annotations

import math

import hypothesis
import pytest
from hypothesis import strategies as st

from rerank_plugins import ConfigError, load_reranker
from rerank_plugins.backends.lexical import Lexical
from rerank_plugins.core._runtime.text_work import SLICE_CHARACTERS
from rerank_plugins.core.bm25 import query_words, words

K1, B = 1.2, 0.75


def scores(query: str, *documents: str) -> list[float]:
    return Lexical().score(query, documents)


def test_the_formula_by_hand():
    """Query "red tea"; three documents of 4, 2 and 6 words; "red" is in two of them, "tea" twice in one."""
    values = scores("red tea", "red tea tea cup", "red car", "a dog ran off by night")
    red = math.log(1 + (2 * 3 - 2 + 0.5) / (2 + 0.5))
    tea = math.log(1 + (2 * 3 - 1 + 0.5) / (1 + 0.5))

    def part(weight: float, tf: int, length: int) -> float:
        return weight * tf * (K1 + 1) / (tf + K1 * (1 - B + B * length / 4))

    largest = (K1 + 1) * (red + tea)
    assert values == pytest.approx(
        [(part(red, 1, 4) + part(tea, 2, 4)) / largest, part(red, 1, 2) / largest, 0.0], abs=1e-12
    )


def test_a_word_asked_twice_counts_twice():
    once, twice = scores("tea red", "tea", "red"), scores("tea tea red", "tea", "red")
    assert once[0] == once[1]
    assert twice[0] == pytest.approx(2 * twice[1])


def test_no_common_word_is_zero():
    assert scores("green tea", "black coffee", "") == [0.0, 0.0]
    assert scores("?!", "black coffee", "?!") == [0.0, 0.0]


@hypothesis.given(st.text(max_size=40), st.lists(st.text(max_size=60), min_size=1, max_size=8))
def test_every_score_lies_in_0_1(query, documents):
    values = scores(query, *documents)
    assert len(values) == len(documents)
    assert all(0.0 <= score < 1.0 for score in values)


def test_the_bound_is_not_reached_even_by_repetition():
    assert 0.9 < max(scores("tea", "tea " * 10_000, "coffee " * 10_000)) < 1.0


def test_rare_words_count_more_and_longer_documents_less():
    common, rare = scores("grey heron", "grey pond", "heron pond", "grey dog", "grey cat")[:2]
    assert rare > common
    short, long = scores("heron", "heron pond", "heron pond and a lot of other words that follow")
    assert short > long


def test_listwise_a_score_depends_on_the_other_candidates():
    alone = scores("red tea", "red car")
    beside = scores("red tea", "red car", "red tea")
    assert alone[0] != beside[0]
    assert load_reranker("lexical").scorer.capabilities.listwise


@pytest.mark.parametrize(
    ("query", "documents"),
    [
        ("月亮潮汐", ["香蕉是黄色的", "潮汐是由月亮的引力引起的"]),
        ("潮の満ち引き", ["バナナは黄色い", "月が潮の満ち引きを起こす"]),
        ("น้ำขึ้นน้ำลง", ["กล้วยสีเหลือง", "ดวงจันทร์ทำให้น้ำขึ้นน้ำลง"]),
        ("приливы луна", ["Бананы жёлтые", "Луна вызывает приливы"]),
        ("المد القمر", ["الموز أصفر", "القمر يسبب المد والجزر"]),
    ],
)
def test_other_scripts(query, documents):
    low, high = scores(query, *documents)
    assert low < high


@pytest.mark.parametrize(
    "forms", ["tide tides", "query queries", "score scores scored scoring", "document documents", "box boxes"]
)
def test_forms_of_a_word_are_one(forms):
    assert len({words(form)[0] for form in forms.split()}) == 1


def test_words():
    assert words("Bananas, and the TIDE\u2014walked") == ["banana", "and", "the", "tid", "walk"]
    assert words("is was use one") == ["is", "was", "use", "one"]  # too short to lose a letter
    assert words("潮汐 tide-pool_x") == ["潮", "汐", "tid", "pool", "x"]


def test_question_words_do_not_count():
    assert query_words("What is the height of the Tides?") == ["height", "tid"]
    assert query_words("The Who") == ["the", "who"]
    useful, chatty = scores("what is the tide?", "tide", "what is the, what is the")
    assert useful > chatty == 0.0


def test_a_word_that_all_candidates_hold_still_counts():
    short, long = scores("tide", "tide", "tide and a long text about something else")
    assert short > long > 0.1


def test_it_has_no_models_and_no_options():
    with pytest.raises(ConfigError, match="has no models"):
        load_reranker("lexical:bm25")
    with pytest.raises(ConfigError, match=r"no option of lexical 'k1'\. There is none: leave it out"):
        load_reranker({"use": "lexical", "lexical": {"k1": 2.0}})


def test_a_very_long_document_has_the_words_of_its_slices():
    long = "the red tea and a cup of it, " * 10_000
    assert len(long) > 4 * SLICE_CHARACTERS
    query = "red tea"
    mine, other = scores(query, long, "a dog ran")
    counts = {"red": 10_000, "tea": 10_000}
    length, mean = 8 * 10_000, (8 * 10_000 + 3) / 2
    weight = math.log(1 + (2 * 2 - 1 + 0.5) / (1 + 0.5))
    parts = (weight * tf * (K1 + 1) / (tf + K1 * (1 - B + B * length / mean)) for tf in counts.values())
    assert mine == pytest.approx(sum(parts) / ((K1 + 1) * 2 * weight), abs=1e-12)
    assert other == 0.0
    assert query_words(long) == query_words(long[:29]) * 10_000
