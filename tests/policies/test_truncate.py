"""Truncation of long documents: at the end, in the middle, or refused; never silently."""

from __future__ import annotations

from dataclasses import replace

import pytest
from support.bounds import near
from support.scripted import REQUEST, Scripted
from support.virtual_time import virtually

from rerank_plugins import InputError, load_reranker
from rerank_plugins.core import Capabilities, RerankRequest
from rerank_plugins.policies.truncate import Truncate, _cut_by_vendor, _is_surely_short

SHORT = "a short one"
LONG = " ".join(f"word{number}" for number in range(1_000))
SIZES = Capabilities(max_tokens=100)


def ask(mode: str, *documents: str, capabilities: Capabilities = SIZES, **options):
    backend = Scripted(capabilities=capabilities, **options)
    request = replace(REQUEST, documents=documents)
    answer, _ = virtually(lambda: Truncate(backend, mode).ascore(request))
    return answer, backend


def test_truncate_sends_whole_texts_and_marks_those_above_the_limit() -> None:
    answer, backend = ask("truncate", SHORT, LONG)
    assert backend.calls[0][1].documents == (SHORT, LONG)
    assert answer.truncated == (False, True)


def test_truncated_is_false_if_the_estimate_is_not_sure() -> None:
    """Between the two estimates nobody knows: the lower one has to be above the limit."""
    between = " ".join(["information"] * 99)  # 100 tokens or twice as many
    answer, _ = ask("truncate", between)
    assert answer.truncated is None


def test_truncated_of_the_backend_has_precedence() -> None:
    answer, _ = ask("truncate", SHORT, LONG, truncated=[True, False])
    assert answer.truncated == (True, False)


@pytest.mark.parametrize("mode", ["truncate", "head_tail", "error"])
def test_short_documents_are_not_changed(mode: str) -> None:
    answer, backend = ask(mode, SHORT, "another")
    assert backend.calls[0][1].documents == (SHORT, "another")
    assert answer.truncated is None


def test_head_tail_keeps_a_beginning_and_an_end() -> None:
    answer, backend = ask("head_tail", SHORT, LONG)
    first, second = backend.calls[0][1].documents
    assert first is SHORT
    head, tail = second.split(" … ")
    assert LONG.startswith(head)
    assert LONG.endswith(tail)
    assert len(head) == pytest.approx(2 * len(tail), rel=0.05)
    assert answer.truncated == (False, True)


def test_head_tail_drops_the_fields_of_shortened_documents() -> None:
    backend = Scripted(capabilities=replace(SIZES, fields=True))
    request = RerankRequest(query="query", documents=(LONG,), fields=({"body": LONG},))
    virtually(lambda: Truncate(backend, "head_tail").ascore(request))
    assert backend.calls[0][1].fields is None


def test_error_names_the_document_by_the_callers_index() -> None:
    with (
        load_reranker(
            {"use": "http", "base_url": "http://127.0.0.1:9", "http": {"max_tokens": 100}, "long_documents": "error"}
        ) as reranker,
        pytest.raises(InputError, match=r"Document 4 has about \d+ tokens and http reads \d+") as raised,
    ):
        reranker.rerank("query", ["", SHORT, SHORT, " ", LONG])
    assert "long_documents" in str(raised.value)


@pytest.mark.parametrize("name", ["max_tokens", "max_document_tokens"])
def test_each_of_both_limits_applies(name: str) -> None:
    answer, _ = ask("truncate", SHORT, LONG, capabilities=Capabilities(**{name: 100}))
    assert answer.truncated == (False, True)


def test_the_smaller_of_both_limits_applies() -> None:
    hundred_words = " ".join(["information"] * 100)
    both = Capabilities(max_tokens=10_000, max_document_tokens=50)
    answer, _ = ask("truncate", hundred_words, capabilities=both)
    assert answer.truncated == (True,)


# With the tokenizer at hand -------------------------------------------------------------------------------------------


@pytest.fixture
def words() -> list[str]:
    return [f"the moon and the tides {number}" for number in range(60)]


def exact_tokens(reranker, text: str) -> int:
    return len(reranker.scorer.tokens(text))


@pytest.mark.thorough  # builds a model with torch first
def test_head_tail_is_exact_with_a_tokenizer(cross_encoder_folder, words: list[str]) -> None:
    spec = {"use": f"onnx:{cross_encoder_folder}", "long_documents": "head_tail"}
    query, long = "the moon", " ".join(words)
    with load_reranker(spec) as reranker:
        answer = reranker.rerank(query, [SHORT, long])
        assert {result.index: result.truncated for result in answer} == {0: False, 1: True}
        plain = load_reranker(f"onnx:{cross_encoder_folder}").rerank(query, [SHORT, long])
        # Another end was read: another score; the short one is as before.
        assert by_index(answer)[1] != near(by_index(plain)[1])
        assert by_index(answer)[0] == near(by_index(plain)[0])


@pytest.mark.thorough  # builds a model with torch first
def test_error_counts_exactly_with_a_tokenizer(cross_encoder_folder, words: list[str]) -> None:
    spec = {"use": f"onnx:{cross_encoder_folder}", "long_documents": "error"}
    long = " ".join(words)
    with load_reranker(spec) as reranker:
        count = exact_tokens(reranker, long)
        with pytest.raises(InputError, match=rf"Document 1 has {count} tokens"):
            reranker.rerank("the moon", [SHORT, long])


@pytest.mark.thorough  # builds a model with torch first
def test_a_document_is_truncated_from_one_token_above_the_limit(cross_encoder_folder) -> None:
    """128 tokens: [CLS] query [SEP] document [SEP]."""
    with load_reranker(f"onnx:{cross_encoder_folder}") as reranker:
        query = "the moon"
        limit = 128 - 3 - exact_tokens(reranker, query)
        fits, over = " ".join(["the"] * limit), " ".join(["the"] * (limit + 1))
        assert exact_tokens(reranker, fits) == limit
        assert {result.index: result.truncated for result in reranker.rerank(query, [fits, over])} == {
            0: False,
            1: True,
        }


def by_index(answer) -> dict[int, float]:
    return {result.index: result.raw_score for result in answer}


@pytest.mark.parametrize("length", [1, 20, 30, 250, 251, 1_000, 5_000])
@pytest.mark.parametrize("character", ["a", "é", "漢", "😀", " "])
def test_lengths_alone_never_hide_a_truncated_document(character, length):
    """The shortcut by numbers of characters and the estimate by tokens must agree whenever the shortcut decides."""
    for capabilities in (
        Capabilities(max_tokens=1_000),
        Capabilities(max_document_tokens=120, max_query_tokens=10),
        Capabilities(max_tokens=300, max_document_tokens=1_000),
    ):
        for query in ("q", "two words", character * 40):
            request = RerankRequest(query=query, documents=("short", character * length + "x"))
            if _is_surely_short(request, capabilities):
                assert _cut_by_vendor(request, capabilities) == (False, False)
