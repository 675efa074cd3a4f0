"""Work on long texts: on threads, in slices, and no longer than somebody waits for it."""

from __future__ import annotations

import asyncio
import importlib
import itertools
import threading
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from heartbeat import LONGEST_HOLD, smallest_hold
from hypothesis import given
from hypothesis import strategies as st
from scripted import REQUEST, Scripted

from rerank_plugins import DeadlineExceeded, load_reranker
from rerank_plugins.backends.lexical import Lexical
from rerank_plugins.core import Capabilities, RerankRequest, Scorer
from rerank_plugins.core.text_work import INLINE, characters, check_cancelled, cuts, run_text_work, slices
from rerank_plugins.policies.cache import Cache
from rerank_plugins.policies.chunk import Chunk
from rerank_plugins.policies.deadline import Deadline
from rerank_plugins.policies.diversify import Diversify
from rerank_plugins.policies.limit import Limit
from rerank_plugins.policies.memory import MemoryStore
from rerank_plugins.policies.split import Split
from rerank_plugins.policies.truncate import Truncate
from rerank_plugins.serving.cut import Cutter

LONG = "the moon and the tides " * 1_000
CAPABILITIES = Capabilities(max_tokens=512, max_total_tokens=2_000, max_bytes=20_000)


# Slices ---------------------------------------------------------------------------------------------------------------


@given(st.text(alphabet="ab \n語", max_size=200), st.integers(1, 20))
def test_slices_cover_the_text_and_are_short_enough(text: str, size: int) -> None:
    found = list(slices(text, size))
    assert "".join(found) == text
    assert all(0 < len(each) <= size for each in found)
    assert [text[start:end] for start, end in cuts(text, size)] == found


def test_a_slice_ends_before_white_space_where_it_can() -> None:
    assert list(slices("one two three", 9)) == ["one two", " three"]
    assert list(slices("one\ntwo three", 5)) == ["one", "\ntwo", " thre", "e"]
    assert list(slices("abcdefgh", 3)) == ["abc", "def", "gh"]


async def test_short_work_runs_at_once_and_long_work_on_a_thread() -> None:
    here = threading.current_thread()
    assert await run_text_work(INLINE, threading.current_thread) is here
    assert await run_text_work(INLINE + 1, threading.current_thread) is not here


def test_characters_counts_all_that_a_request_holds() -> None:
    assert characters(RerankRequest(query="ab", documents=("c", "defg"), instruction="h")) == 8


# Off the event loop -----------------------------------------------------------------------------------------------------


class Tokenizing(Scripted):
    """Has a tokenizer: each character is a token."""

    def tokens(self, text: str) -> list[tuple[int, int]]:
        return [(place, place + 1) for start, end in cuts(text) for place in range(start, end)]


Make = Callable[[], Scorer]
POLICIES: dict[str, tuple[Make, str]] = {
    "split": (lambda: Split(Scripted(capabilities=CAPABILITIES)), "tokens"),
    "limit": (lambda: Limit(Scripted(), object(), tokens_per_minute=1e9), "tokens"),
    "truncate": (lambda: Truncate(Scripted(capabilities=CAPABILITIES)), "tokens"),
    "head_tail": (lambda: Truncate(Scripted(capabilities=CAPABILITIES), "head_tail"), "tokens"),
    "chunk": (lambda: Chunk(Scripted(capabilities=CAPABILITIES)), "tokens"),
    "cache": (lambda: Cache(Scripted(), MemoryStore(100, None), "identity"), "cache"),
    "diversify": (lambda: Diversify(Scripted()), "words"),
    "lexical": (Lexical, "words"),
}


def module(name: str) -> str:
    home = {"tokens": "core", "words": "core"}.get(name, "policies")
    return f"rerank_plugins.{home}.{name}.slices"


@pytest.fixture(params=[pytest.param("query", id="a long query"), pytest.param("documents", id="a long document")])
def request_of(request: pytest.FixtureRequest) -> RerankRequest:
    return replace(REQUEST, **({"query": LONG} if request.param == "query" else {"documents": (LONG, LONG + ".")}))


@pytest.mark.parametrize("policy", POLICIES)
async def test_long_texts_are_read_on_threads(policy: str, request_of, monkeypatch: pytest.MonkeyPatch) -> None:
    make, where = POLICIES[policy]
    read_on: list[threading.Thread] = []

    def watched(text: str, *size: int) -> Iterator[str]:
        if len(text) > INLINE:
            read_on.append(threading.current_thread())
        return slices(text, *size)

    def watched_cuts(text: str) -> Iterator[tuple[int, int]]:
        read_on.append(threading.current_thread())
        return cuts(text)

    monkeypatch.setattr(module(where), watched)
    monkeypatch.setattr("rerank_plugins.policies.pieces.cuts", watched_cuts)
    scorer = make()
    await scorer.ascore(request_of)
    assert threading.current_thread() not in read_on
    assert read_on or (policy in {"cache", "diversify"} and request_of.query == LONG)
    await scorer.aclose()


@pytest.mark.parametrize("policy", POLICIES)
async def test_a_deadline_ends_the_reading_of_a_text(policy: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A text without end is read: only a deadline that also stops the work lets the thread go."""
    make, where = POLICIES[policy]
    ended = threading.Event()

    def endless(text: str) -> Iterator[str]:
        if len(text) <= INLINE:
            yield from slices(text)
            return
        try:
            while True:
                check_cancelled()
                yield "="
        finally:
            ended.set()

    monkeypatch.setattr(module(where), endless)
    scorer = Deadline(make(), 0.05)
    with pytest.raises(DeadlineExceeded):
        await scorer.ascore(
            replace(REQUEST, query=LONG) if policy == "chunk" else replace(REQUEST, documents=(LONG, LONG + "é"))
        )
    assert await asyncio.to_thread(ended.wait, 10)
    await scorer.aclose()


async def test_a_deadline_ends_the_parting_of_tokens(monkeypatch: pytest.MonkeyPatch) -> None:
    ended = threading.Event()

    def endless(text: str) -> Iterator[tuple[int, int]]:
        try:
            for _ in itertools.count():
                check_cancelled()
                yield 0, 1
        finally:
            ended.set()

    monkeypatch.setattr("rerank_plugins.policies.pieces.cuts", endless)
    scorer = Deadline(Chunk(Tokenizing(capabilities=CAPABILITIES)), 0.05)
    with pytest.raises(DeadlineExceeded):
        await scorer.ascore(replace(REQUEST, documents=(LONG,)))
    assert await asyncio.to_thread(ended.wait, 10)


async def test_of_two_questions_one_text_is_estimated_no_further_than_it_matters(monkeypatch) -> None:
    """A vendor reads 512 tokens: of a megabyte, one slice answers whether that is cut."""
    count = 0

    def counted(text: str) -> Iterator[str]:
        nonlocal count
        for each in slices(text):
            count += 1
            yield each

    monkeypatch.setattr(importlib.import_module("rerank_plugins.core.tokens"), "slices", counted)
    answer = await Truncate(Scripted(capabilities=Capabilities(max_tokens=512))).ascore(
        replace(REQUEST, documents=(LONG * 50,))
    )
    assert answer.truncated == (True,)
    assert count == 2  # the query, and the first slice of the document


# max_tokens_per_doc -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("make", [Scripted, Tokenizing])
@pytest.mark.parametrize("text", ["a" * 2_000_000 + "1", "a1" * 500_000, LONG * 40, "x" + " " * 1_000_000 + LONG])
async def test_a_head_is_cut_in_time_for_the_tokens_that_stay(make: type[Scripted], text: str) -> None:
    cutter = Cutter(make())
    documents = [{"text": text}, "short", text]
    heads, cut = await cutter.cut(documents, 5)
    assert cut == {2}
    assert heads[:2] == documents[:2]
    assert text.startswith(heads[2])
    assert 0 < len(heads[2]) < 250_000
    whole, cut = await cutter.cut(documents, 10**9)
    assert (whole, cut) == (documents, frozenset())


async def test_a_cut_stops_when_nobody_waits_for_it(monkeypatch: pytest.MonkeyPatch) -> None:
    started, ended = threading.Event(), threading.Event()

    def endless(text: str) -> Iterator[str]:
        started.set()
        try:
            while True:
                check_cancelled()
                yield "="
        finally:
            ended.set()

    monkeypatch.setattr("rerank_plugins.core.tokens.slices", endless)
    task = asyncio.create_task(Cutter(Scripted()).cut([LONG], 5))
    assert await asyncio.to_thread(started.wait, 10)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert await asyncio.to_thread(ended.wait, 10)


# The event loop ---------------------------------------------------------------------------------------------------------

MEGABYTE = 1_000_000
SHAPES = {
    "prose": "The tides rise. Water falls, 1924 times. " * (MEGABYTE // 41),
    "letters": "a" * MEGABYTE + "1",
    "blanks": "word" + " " * MEGABYTE,
    "Chinese": "潮汐是由月球和太阳的引力引起的。" * (MEGABYTE // 16),
}


@pytest.mark.alone
@pytest.mark.slow
@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize(
    ("name", "megabytes"),
    [*((name, size) for name in ("embedded", "onnx", "lexical") for size in (1, 8)), ("tei", 1)],
)
async def test_a_very_long_document_does_not_hold_the_event_loop(
    name: str, shape: str, megabytes: int, cross_encoder_folder: Path
) -> None:
    spec = {"use": f"onnx:{cross_encoder_folder}" if name == "onnx" else name, "deadline": 3.0}
    spec["long_documents"] = {"mode": "chunk", "tokens": 256} if name == "lexical" else "chunk"
    if name == "tei":  # nobody listens there: all that is done is to part the text
        spec |= {"base_url": "http://127.0.0.1:9", "retry": 1}
    text = SHAPES[shape] * megabytes
    async with load_reranker({**spec, "on_error": "degrade"}) as reranker:
        await reranker.arerank("what makes the tides", ["the moon", "the sea " * 400])
        assert await smallest_hold(lambda: reranker.arerank("what makes the tides", [text, "the moon"])) < LONGEST_HOLD
