"""Chunking: a long document is scored piece by piece."""

from __future__ import annotations

import importlib
import random
import threading
from itertools import pairwise

import hypothesis
import pytest
from hypothesis import strategies as st
from support.scripted import Scripted

from rerank_plugins import BadResponse, ConfigError, load_reranker
from rerank_plugins.core import Capabilities, RerankRequest
from rerank_plugins.core.tokens import estimate_tokens
from rerank_plugins.policies.chunk import Chunk
from rerank_plugins.policies.text_splitter import split_text
from rerank_plugins.testing.cohere_like import CohereLike
from rerank_plugins.testing.script import Gap, NaN

QUERY = "what makes the tides"
ANSWER = "The pull of the moon makes the tides rise twice a day."


def prose(words: int, seed: int = 3) -> str:
    """Return sentences of 8 to 14 plain words that do not answer the query."""
    chance = random.Random(seed)
    vocabulary = [
        "yellow",
        "bananas",
        "grow",
        "in",
        "bunches",
        "cars",
        "have",
        "four",
        "wheels",
        "clocks",
        "need",
        "a",
        "spring",
        "bread",
        "takes",
        "an",
        "hour",
    ]
    sentences = []
    while words > 0:
        size = chance.randint(8, 14)
        sentences.append(" ".join(chance.choices(vocabulary, k=size)).capitalize() + ".")
        words -= size
    return " ".join(sentences)


def planted(words: int, at: float) -> str:
    """Return prose of `words` words with the answer after the share `at` of them."""
    sentences = prose(words).split(". ")
    sentences.insert(int(len(sentences) * at), ANSWER.removesuffix("."))
    return ". ".join(sentences)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("mode", "words"),
    [
        pytest.param("chunk", 20_000, marks=pytest.mark.slow),  # ten seconds
        ("chunk", 4_000),
        ({"mode": "chunk", "tokens": 64, "overlap": 16}, 2_000),
    ],
    ids=str,
)
def test_an_answer_in_the_last_tenth_of_a_document_is_in_the_spans(mode, words: int):
    text = planted(words, 0.95)
    others = [prose(300, seed) for seed in range(5)]
    with load_reranker("embedded", long_documents=mode) as reranker:
        answer = reranker.rerank(QUERY, [*others, text])
    best = answer[0]
    assert best.index == 5
    (span,) = best.spans
    assert ANSWER.removesuffix(".") in text[span.start : span.end]
    assert span.end - span.start < 2_500
    assert span.score == pytest.approx(best.relevance_score)
    assert not best.truncated
    with load_reranker("embedded", long_documents="truncate") as reranker:
        cut = {result.index: result for result in reranker.rerank(QUERY, [*others, text])}
    assert cut[5].truncated
    assert cut[5].relevance_score < best.relevance_score


@pytest.mark.thorough
def test_short_documents_are_scored_as_without_chunking():
    documents = [ANSWER, "Bananas are yellow.", "", ANSWER]
    with load_reranker("embedded", long_documents="chunk") as chunks, load_reranker("embedded") as plain:
        mine, theirs = chunks.rerank(QUERY, documents), plain.rerank(QUERY, documents)
    assert [(each.index, each.raw_score, each.spans) for each in mine] == [
        (each.index, each.raw_score, each.spans) for each in theirs
    ]


@pytest.fixture
def server():
    with CohereLike(score=lambda _, text: 0.9 if "moon" in text else 0.2 if "car" in text else 0.1) as running:
        yield running


def spec(server: CohereLike, **long_documents) -> dict:
    limits = {"max_tokens": 100, "max_documents": 10}
    options = {"use": "http", "base_url": server.url, "api_key": server.key, "http": limits}
    return {**options, "long_documents": {"mode": "chunk", **long_documents}}


def test_pieces_for_a_vendor_are_estimated_and_split_into_parts(server):
    text = planted(1_000, 0.5)
    with load_reranker(spec(server)) as reranker:
        answer = reranker.rerank(QUERY, ["a car", text])
    sent = [piece for request in server.requests for piece in request.documents]
    assert len(server.requests) == -(-len(sent) // 10)
    assert all(estimate_tokens(piece)[1] <= 100 for piece in sent)
    assert (answer[0].index, answer[0].raw_score) == (1, 0.9)
    assert ANSWER.removesuffix(".") in text[answer[0].spans[0].start : answer[0].spans[0].end]


def test_aggregate_combines_the_scores_of_pieces(server):
    text = " ".join([prose(60), "A car.", prose(60, 4), ANSWER, prose(60, 5)])

    def score(how: str) -> float:
        with load_reranker(spec(server, aggregate=how, tokens=40, overlap=0)) as reranker:
            return reranker.rerank(QUERY, [text])[0].raw_score

    assert score("max") == 0.9
    sent = [piece for request in server.requests for piece in request.documents]
    first = next(server.score("", piece) for piece in sent if text.startswith(piece))
    assert first < 0.9
    assert score("first_plus_max") == pytest.approx((first + 0.9) / 2)
    assert score("mean_top_k") == pytest.approx(sum(sorted(server.score("", piece) for piece in sent)[-3:]) / 3)


def test_the_number_of_pieces_grows_with_length(server):
    def sent(words: int) -> int:
        server.reset()
        with load_reranker(spec(server)) as reranker:
            reranker.rerank(QUERY, [prose(words)])
        return sum(len(request.documents) for request in server.requests)

    one, four = sent(1_000), sent(4_000)
    assert 3.8 * one <= four <= 4.2 * one


def test_an_overlap_above_the_models_limit_at_most_doubles_the_cost(server):
    def sent(**long_documents) -> int:
        server.reset()
        with load_reranker(spec(server, **long_documents)) as reranker:
            reranker.rerank(QUERY, [prose(2_000).replace(".", "")])
        return sum(len(request.documents) for request in server.requests)

    assert sent(tokens=512, overlap=256) <= 2.2 * sent(overlap=0)
    assert sent(overlap=256) <= 2.2 * sent(overlap=0)


@pytest.mark.parametrize("mode", ["chunk", "head_tail", "truncate"])
async def test_long_texts_are_tokenized_off_the_callers_loop(server, monkeypatch, mode):
    threads = []

    def watched(work):
        def watching(text, *more):
            if len(text) > 5_000:
                threads.append(threading.current_thread())
            return work(text, *more)

        return watching

    for module, name in (("chunk", "split_text"), ("truncate", "estimate_tokens")):
        home = f"rerank_plugins.policies.{module}.{name}"
        monkeypatch.setattr(home, watched(getattr(importlib.import_module(home.rpartition(".")[0]), name)))
    options = spec(server) | {"long_documents": mode}
    async with load_reranker(options) as reranker:
        await reranker.arerank(QUERY, [prose(2_000), "bananas"])
    assert threads
    assert threading.current_thread() not in threads


def test_spans_count_characters_not_bytes():
    filler = "😀 𝒴ellow bananas 🇩🇪 and 👩‍👩‍👧 e\u0301t\u00e9. "
    text = filler * 120 + ANSWER + " " + filler * 40
    with load_reranker("embedded", long_documents="chunk") as reranker:
        (span,) = reranker.rerank(QUERY, [text])[0].spans
    best = text[span.start : span.end]
    assert ANSWER in best
    assert best.startswith(("😀", ANSWER[:4]))  # whole sentences
    assert best.endswith(".")


def test_shared_boilerplate_is_scored_once(server):
    text = prose(500)
    with load_reranker(spec(server)) as reranker:
        reranker.rerank(QUERY, [text, text + " A car."])
    sent = [piece for request in server.requests for piece in request.documents]
    assert len(sent) == len(set(sent))


def test_tokens_split_documents_of_a_backend_without_a_limit():
    text = planted(2_000, 0.7)
    with load_reranker({"use": "lexical", "long_documents": {"mode": "chunk", "tokens": 100}}) as reranker:
        (span,) = reranker.rerank(QUERY, [text, "bananas"])[0].spans
    assert ANSWER.removesuffix(".") in text[span.start : span.end]
    assert span.end - span.start < 600


@pytest.mark.parametrize(
    ("value", "message"),
    [
        ({"mode": "chunk", "tokens": 0}, "at least 1"),
        (
            {"mode": "chunk", "tokens": 10, "overlap": 10},
            r"^long_documents must have an overlap \(10\) below its tokens \(10\)",
        ),
        ({"mode": "chunk", "aggregate": "median"}, "mean_top_k"),
        (
            {"mode": "head_tail", "tokens": 10},
            "^long_documents has tokens, which belongs to mode 'chunk'; the mode is 'head_tail'",
        ),
        ("chunks", "chunk"),
    ],
)
def test_invalid_options_raise(value, message: str):
    with pytest.raises(ConfigError, match=message):
        load_reranker({"use": "embedded", "long_documents": value})


words = st.lists(st.text("abc .!?\n。語é", min_size=1, max_size=40), min_size=1, max_size=80).map(" ".join)


@pytest.mark.thorough
@hypothesis.settings(max_examples=300, deadline=None)
@hypothesis.given(words, st.integers(1, 40), st.integers(0, 39), st.booleans())
def test_pieces_cover_the_text_within_their_size(text: str, size: int, overlap: int, exact: bool):
    """All characters except white space are in a piece. No piece is too long, and each starts after the one before."""
    tokens = [(place, place + 1) for place, character in enumerate(text) if not character.isspace()] if exact else None
    pieces = split_text(text, tokens, size, min(overlap, size - 1))
    if tokens == [] or not text.strip():
        return
    covered = [False] * len(text)
    for start, end in pieces:
        covered[start:end] = [True] * (end - start)
        if exact and len(pieces) > 1:
            assert sum(start <= place < end for place, _ in tokens) <= size
    assert all(covered[place] or character.isspace() for place, character in enumerate(text))
    assert all(mine[0] < next_[0] and mine[1] <= next_[1] for mine, next_ in pairwise(pieces))


def test_pieces_end_with_sentences():
    text = "One two three four. Five six seven. Eight nine ten eleven twelve. Thirteen."
    tokens = [(match, match + 1) for match in range(len(text)) if text[match] != " "]
    for start, end in split_text(text, tokens, 40, 0)[:-1]:
        assert text[start:end].endswith(".")
        assert text[start].isupper()


@pytest.mark.parametrize(
    "text", ["word" + " " * 200_000, " " * 200_000 + "word", "word." + "\n" * 200_000, ".'" * 100_000]
)
def test_long_runs_of_blanks_take_linear_time(text: str):
    """A quadratic pattern would take minutes, in one call that holds the interpreter lock."""
    (first, *_), blanks = split_text(text, None, 16, 2), len(text) - len(text.strip())
    assert blanks == 0 or text[slice(*first)] == text.strip()


@pytest.mark.parametrize("blanks", [" " * 90, "\n" * 90, " \t\n" * 30])
def test_a_piece_of_white_space_is_left_out(blanks: str):
    """Some tokenizers (Qwen's, Gemma's) have tokens for white space."""
    text = f"{blanks}one two{blanks}three four{blanks}"
    pieces = split_text(text, [(place, place + 1) for place in range(len(text))], 20, 4)
    assert all(text[start:end].strip() for start, end in pieces)
    assert {word for start, end in pieces for word in text[start:end].split()} >= {"one", "four"}


class BlankTokens(Scripted):
    """Every character is a token. The fewer letters, the higher the score."""

    def tokens(self, text: str) -> list[tuple[int, int]]:
        return [(place, place + 1) for place in range(len(text))]


async def test_a_document_of_blanks_is_one_piece():
    backend = BlankTokens(capabilities=Capabilities(max_tokens=40))
    text = "the moon" + " " * 500
    answer = await Chunk(backend).ascore(RerankRequest(query="moon", documents=(text, "the sea")))
    ((_, sent),) = backend.calls
    assert [each.strip() for each in sent.documents] == ["the moon", "the sea"]
    assert len(sent.documents[0]) <= 40
    assert answer.truncated == (False, False)
    ((span,), no_span) = answer.spans
    assert text[span.start : span.end] == sent.documents[0]
    assert no_span == ()


def test_an_error_names_the_document_of_the_caller_not_the_piece():
    chunked = {"long_documents": {"mode": "chunk", "tokens": 64}, "retry": 1}
    with (
        CohereLike() as server,
        load_reranker({"use": "http", "base_url": server.url, "api_key": server.key, **chunked}) as reranker,
    ):
        server.always(NaN())
        with pytest.raises(BadResponse, match=r"the score of document 0\."):
            reranker.rerank(QUERY, [prose(400)])
        assert len(server.requests[0].documents) > 3
        server.always(Gap())
        with pytest.raises(BadResponse, match=r"\[0\]|document 0\b"):
            reranker.rerank(QUERY, [prose(400)])
