"""Work on long texts: on threads, in slices, and cancelled as soon as its caller stops waiting."""

from __future__ import annotations

import asyncio
import importlib
import itertools
import statistics
import sys
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.heartbeat import LONGEST_HOLD, smallest_hold
from support.scripted import REQUEST, Scripted

from rerank_plugins import DeadlineExceeded, load_reranker
from rerank_plugins.backends.lexical import Lexical
from rerank_plugins.core import Capabilities, RerankRequest, Scorer
from rerank_plugins.core._runtime.background_loop import Workers
from rerank_plugins.core._runtime.text_work import (
    MAX_INLINE_SIZE,
    character_count,
    check_cancelled,
    run_text_work,
    slice_bounds,
    slices,
)
from rerank_plugins.policies.cache import Cache
from rerank_plugins.policies.chunk import Chunk
from rerank_plugins.policies.deadline import Deadline
from rerank_plugins.policies.diversify import Diversify
from rerank_plugins.policies.memory_store import MemoryStore
from rerank_plugins.policies.rate_limit import RateLimit
from rerank_plugins.policies.split import Split
from rerank_plugins.policies.truncate import Truncate
from rerank_plugins.serving.truncation import DocumentTruncator

LONG = "the moon and the tides " * 1_000
CAPABILITIES = Capabilities(max_tokens=512, max_total_tokens=2_000, max_bytes=20_000)


# --- slices ---


@given(st.text(alphabet="ab \n語", max_size=200), st.integers(1, 20))
def test_slices_cover_the_text_and_respect_the_size(text: str, size: int) -> None:
    pieces = list(slices(text, size))
    assert "".join(pieces) == text
    assert all(0 < len(each) <= size for each in pieces)
    assert [text[start:end] for start, end in slice_bounds(text, size)] == pieces


def test_slice_ends_before_white_space_if_possible() -> None:
    assert list(slices("one two three", 9)) == ["one two", " three"]
    assert list(slices("one\ntwo three", 5)) == ["one", "\ntwo", " thre", "e"]
    assert list(slices("abcdefgh", 3)) == ["abc", "def", "gh"]


async def test_short_work_runs_inline_and_long_work_on_a_thread() -> None:
    here = threading.current_thread()
    assert await run_text_work(MAX_INLINE_SIZE, threading.current_thread) is here
    assert await run_text_work(MAX_INLINE_SIZE + 1, threading.current_thread) is not here


def test_characters_counts_every_text_of_a_request() -> None:
    assert character_count(RerankRequest(query="ab", documents=("c", "defg"), instruction="h")) == 8


# --- off the event loop ---


class CharacterTokenizer(Scripted):
    """A scorer with a tokenizer: each character is a token."""

    def tokens(self, text: str) -> list[tuple[int, int]]:
        return [(place, place + 1) for start, end in slice_bounds(text) for place in range(start, end)]


Make = Callable[[], Scorer]
POLICIES: dict[str, tuple[Make, str]] = {
    "split": (lambda: Split(Scripted(capabilities=CAPABILITIES)), "tokens"),
    "limit": (lambda: RateLimit(Scripted(), object(), tokens_per_minute=1e9), "tokens"),
    "truncate": (lambda: Truncate(Scripted(capabilities=CAPABILITIES)), "tokens"),
    "head_tail": (lambda: Truncate(Scripted(capabilities=CAPABILITIES), "head_tail"), "tokens"),
    "chunk": (lambda: Chunk(Scripted(capabilities=CAPABILITIES)), "tokens"),
    "cache": (lambda: Cache(Scripted(), MemoryStore(100, None), "identity"), "cache"),
    "diversify": (lambda: Diversify(Scripted()), "words"),
    "lexical": (Lexical, "words"),
}


def slices_of(name: str) -> str:
    """Return the dotted name of `slices` as the module `name` imports it, for monkeypatching."""
    home = {"tokens": "core", "words": "core"}.get(name, "policies")
    return f"rerank_plugins.{home}.{name}.slices"


@pytest.fixture(params=[pytest.param("query", id="a long query"), pytest.param("documents", id="a long document")])
def request_of(request: pytest.FixtureRequest) -> RerankRequest:
    return replace(REQUEST, **({"query": LONG} if request.param == "query" else {"documents": (LONG, LONG + ".")}))


@pytest.mark.parametrize("policy", POLICIES)
async def test_policy_reads_long_texts_on_a_thread(policy: str, request_of, monkeypatch: pytest.MonkeyPatch) -> None:
    make, where = POLICIES[policy]
    read_on: list[threading.Thread] = []

    def watched(text: str, *size: int) -> Iterator[str]:
        if len(text) > MAX_INLINE_SIZE:
            read_on.append(threading.current_thread())
        return slices(text, *size)

    def watched_slice_bounds(text: str) -> Iterator[tuple[int, int]]:
        read_on.append(threading.current_thread())
        return slice_bounds(text)

    monkeypatch.setattr(slices_of(where), watched)
    monkeypatch.setattr("rerank_plugins.policies.text_splitter.slice_bounds", watched_slice_bounds)
    scorer = make()
    await scorer.ascore(request_of)
    assert threading.current_thread() not in read_on
    assert read_on or (policy in {"cache", "diversify"} and request_of.query == LONG)
    await scorer.aclose()


@pytest.mark.parametrize("policy", POLICIES)
async def test_deadline_ends_the_reading_of_a_text(policy: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """The text is endless: the thread is released only if the deadline cancels the work as well as the wait."""
    make, where = POLICIES[policy]
    ended = threading.Event()

    def endless(text: str) -> Iterator[str]:
        if len(text) <= MAX_INLINE_SIZE:
            yield from slices(text)
            return
        try:
            while True:
                check_cancelled()
                yield "="
        finally:
            ended.set()

    monkeypatch.setattr(slices_of(where), endless)
    scorer = Deadline(make(), 0.05)
    with pytest.raises(DeadlineExceeded):
        await scorer.ascore(
            replace(REQUEST, query=LONG) if policy == "chunk" else replace(REQUEST, documents=(LONG, LONG + "é"))
        )
    assert await asyncio.to_thread(ended.wait, 10)
    await scorer.aclose()


async def test_deadline_ends_the_splitting_into_tokens(monkeypatch: pytest.MonkeyPatch) -> None:
    """The splitter is endless: its thread is released only if it checks for cancellation."""
    ended = threading.Event()

    def endless(text: str) -> Iterator[tuple[int, int]]:
        try:
            for _ in itertools.count():
                check_cancelled()
                yield 0, 1
        finally:
            ended.set()

    monkeypatch.setattr("rerank_plugins.policies.text_splitter.slice_bounds", endless)
    scorer = Deadline(Chunk(CharacterTokenizer(capabilities=CAPABILITIES)), 0.05)
    with pytest.raises(DeadlineExceeded):
        await scorer.ascore(replace(REQUEST, documents=(LONG,)))
    assert await asyncio.to_thread(ended.wait, 10)


async def test_token_estimate_stops_at_the_first_slice_above_the_limit(monkeypatch) -> None:
    """One slice of a megabyte shows that it exceeds the 512 tokens that the vendor reads."""
    count = 0

    def counting_slices(text: str) -> Iterator[str]:
        nonlocal count
        for each in slices(text):
            count += 1
            yield each

    monkeypatch.setattr(importlib.import_module("rerank_plugins.core.tokens"), "slices", counting_slices)
    scores = await Truncate(Scripted(capabilities=Capabilities(max_tokens=512))).ascore(
        replace(REQUEST, documents=(LONG * 50,))
    )
    assert scores.truncated == (True,)
    assert count == 2  # the query, and the first slice of the document


# --- max_tokens_per_doc ---


@pytest.mark.parametrize("make", [Scripted, CharacterTokenizer])
@pytest.mark.parametrize("text", ["a" * 2_000_000 + "1", "a1" * 500_000, LONG * 40, "x" + " " * 1_000_000 + LONG])
async def test_truncation_keeps_the_head_of_a_very_long_document(make: type[Scripted], text: str) -> None:
    cutter = DocumentTruncator(make())
    documents = [{"text": text}, "short", text]
    heads, cut = await cutter.cut(documents, 5)
    assert cut == {2}
    assert heads[:2] == documents[:2]
    assert text.startswith(heads[2])
    assert 0 < len(heads[2]) < 250_000
    whole, cut = await cutter.cut(documents, 10**9)
    assert (whole, cut) == (documents, frozenset())


async def test_truncation_stops_when_its_task_is_cancelled(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without a check for cancellation the worker thread would read the endless text forever."""
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
    task = asyncio.create_task(DocumentTruncator(Scripted()).cut([LONG], 5))
    assert await asyncio.to_thread(started.wait, 10)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert await asyncio.to_thread(ended.wait, 10)


# --- event loop latency ---

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
async def test_very_long_document_does_not_block_the_event_loop(
    name: str, shape: str, megabytes: int, cross_encoder_folder: Path
) -> None:
    spec = {"use": f"onnx:{cross_encoder_folder}" if name == "onnx" else name, "deadline": 3.0}
    spec["long_documents"] = {"mode": "chunk", "tokens": 256} if name == "lexical" else "chunk"
    if name == "tei":  # no server listens there: the only work is splitting the text
        spec |= {"base_url": "http://127.0.0.1:9", "retry": 1}
    text = SHAPES[shape] * megabytes
    async with load_reranker({**spec, "on_error": "degrade"}) as reranker:
        await reranker.arerank("what makes the tides", ["the moon", "the sea " * 400])
        assert await smallest_hold(lambda: reranker.arerank("what makes the tides", [text, "the moon"])) < LONGEST_HOLD


@pytest.mark.alone
async def test_busy_workers_give_up_the_gil_long_before_the_switch_interval() -> None:
    """Without that, an event loop waits for a whole switch interval, or several, each time that a timer is due."""
    stop = threading.Event()

    def spin() -> None:
        while not stop.is_set():
            check_cancelled()

    interval = sys.getswitchinterval()
    delays = []
    sys.setswitchinterval(0.2)
    workers = Workers(4, "spinning")
    try:
        jobs = [asyncio.ensure_future(workers.run(spin)) for _ in range(4)]
        for _ in range(20):
            due = time.perf_counter() + 0.002
            await asyncio.sleep(0.002)
            delays.append(time.perf_counter() - due)
    finally:
        stop.set()
        sys.setswitchinterval(interval)
    await asyncio.gather(*jobs)
    workers.close()
    assert statistics.median(delays) < 0.05
