"""The account's minute: never more in it than allowed, in turn, whoever asks; in virtual time."""

from __future__ import annotations

import asyncio
import bisect
import threading
import time
from collections.abc import Callable
from dataclasses import replace
from itertools import count, pairwise

import pytest
from scripted import HANG, REQUEST, Scripted
from virtual_time import virtually

from rerank_plugins import Reranker
from rerank_plugins.core import DeadlineExceeded, RateLimited, RerankRequest, Scores, TransientError
from rerank_plugins.policies.deadline import Deadline
from rerank_plugins.policies.limit import Limit
from rerank_plugins.policies.retry import Retry
from rerank_plugins.policies.split import Split

accounts = count(10_000)


class Vendor(Scripted):
    """Counts what arrives in any 60 s, after a way there that takes longer for some, and answers 429 past the limit."""

    def __init__(self, requests_per_minute: int, **options) -> None:
        super().__init__(**options)
        self.requests_per_minute = requests_per_minute
        self.arrivals: list[float] = []
        self.refused = 0

    async def ascore(self, request: RerankRequest) -> Scores:
        clock = asyncio.get_running_loop().time
        await asyncio.sleep(0.05 + 0.4 * (len(self.asked) % 7) / 7)
        moment = clock()
        bisect.insort(self.arrivals, moment)
        if len(self.arrivals) - bisect.bisect_right(self.arrivals, moment - 60.0) > self.requests_per_minute:
            self.refused += 1
            raise RateLimited("too many", status=429)
        return await super().ascore(request)


def test_two_hundred_calls_at_once_under_sixty_a_minute_see_no_429():
    vendor = Vendor(60)
    scorer = Limit(vendor, next(accounts), requests_per_minute=60)

    async def work():
        return await asyncio.gather(*(scorer.ascore(REQUEST) for _ in range(200)))

    answers, took = virtually(work)
    assert len(answers) == 200
    assert vendor.refused == 0
    # Not slower than it must be: 60 at once, three more rounds, each a minute after the answers of the one before.
    assert 180.0 <= took < 183.0


def test_without_the_limit_that_vendor_refuses():
    vendor = Vendor(60)

    async def work():
        return await asyncio.gather(*(vendor.ascore(REQUEST) for _ in range(200)), return_exceptions=True)

    virtually(work)
    assert vendor.refused == 140


def test_first_come_first_served():
    backend = Scripted()
    scorer = Limit(backend, next(accounts), requests_per_minute=3)

    async def work():
        await asyncio.gather(*(scorer.ascore(replace(REQUEST, query=str(number))) for number in range(10)))

    virtually(work)
    assert [request.query for _, request in backend.asked] == [str(number) for number in range(10)]


def test_requests_are_counted_not_calls():
    """A retry is a request, and so is each part of a call."""
    backend = Scripted(TransientError("busy"), TransientError("busy"))
    retry = Retry(Limit(backend, next(accounts), requests_per_minute=2), attempts=3, wait_initial=0.0)
    _, took = virtually(lambda: retry.ascore(REQUEST))
    assert took == pytest.approx(60.0)

    backend = Scripted()
    backend.capabilities = replace(backend.capabilities, max_documents=1)
    split = Split(Limit(backend, next(accounts), requests_per_minute=2))
    _, took = virtually(lambda: split.ascore(REQUEST))
    assert len(backend.asked) == 3
    assert took == pytest.approx(60.0)


def test_rerankers_of_one_account_share_its_minute():
    mine, other = next(accounts), next(accounts)

    async def work():
        for account in (mine, mine, other):
            await Limit(Scripted(), account, requests_per_minute=1).ascore(REQUEST)

    assert virtually(work)[1] == pytest.approx(60.0)


def test_tokens_are_bounded_too_and_corrected_by_what_the_vendor_says():
    texts = tuple(f"{number} " + "word " * 400 for number in range(5))
    request = RerankRequest(query="query", documents=texts)  # some 5,000 tokens, estimated from above

    async def three(scorer: Limit):
        for _ in range(3):
            await scorer.ascore(request)

    class Silent(Scripted):
        async def ascore(self, request):
            answer = await super().ascore(request)
            return replace(answer, usage=replace(answer.usage, input_tokens=None))

    # Unknown to the vendor: the estimate counts, and one fits a minute.
    assert virtually(lambda: three(Limit(Silent(), next(accounts), tokens_per_minute=8_000)))[1] == pytest.approx(120.0)
    # Scripted counts one token a document: all fit.
    assert virtually(lambda: three(Limit(Scripted(), next(accounts), tokens_per_minute=8_000)))[1] == 0.0
    # Larger than the whole limit: alone, rather than never.
    assert virtually(lambda: three(Limit(Silent(), next(accounts), tokens_per_minute=100)))[1] == pytest.approx(120.0)


def test_a_wait_that_the_deadline_cannot_hold_is_not_begun():
    backend = Scripted()
    scorer = Deadline(Limit(backend, next(accounts), requests_per_minute=2), 30.0)

    async def work():
        ends = await asyncio.gather(*(scorer.ascore(REQUEST) for _ in range(4)), return_exceptions=True)
        return [type(end) for end in ends], ends[-1]

    (kinds, error), took = virtually(work)
    assert kinds == [Scores, Scores, DeadlineExceeded, DeadlineExceeded]
    assert took == 0.0
    assert "no room for another request for 60 s, and the deadline leaves 30 s" in str(error)
    assert len(backend.asked) == 2


def test_a_wait_for_tokens_ends_at_the_deadline_as_the_limits_error():
    """What is under way may have been overestimated, so it is waited for; a breaker must not count it."""
    scorer = Limit(Scripted(HANG), next(accounts), tokens_per_minute=1)

    async def work():
        first = asyncio.create_task(scorer.ascore(REQUEST))
        await asyncio.sleep(0)
        try:
            return await Deadline(scorer, 5.0).ascore(REQUEST)
        finally:
            first.cancel()

    error, took = virtually(work)
    assert isinstance(error, DeadlineExceeded)
    assert "the spec's limit held the request back" in str(error)
    assert took == pytest.approx(5.0)


def test_who_gives_up_waiting_leaves_the_queue_to_others():
    backend = Scripted()
    scorer = Limit(backend, next(accounts), requests_per_minute=1)

    async def work():
        calls = [asyncio.create_task(scorer.ascore(replace(REQUEST, query=str(number)))) for number in range(4)]
        await asyncio.sleep(1.0)
        calls[1].cancel()
        calls[2].cancel()
        await asyncio.wait(calls)
        return scorer.state()

    state, took = virtually(work)
    assert [request.query for _, request in backend.asked] == ["0", "3"]
    assert took == pytest.approx(60.0)
    assert state["scripted"]["limit"]["waiting"] == 0


def test_when_the_vendor_asks_one_to_wait_everybody_does():
    backend = Scripted(RateLimited("slow down", status=429, retry_after=45.0))
    scorer = Limit(backend, next(accounts), requests_per_minute=100)

    async def work():
        with pytest.raises(RateLimited):
            await scorer.ascore(REQUEST)
        await scorer.ascore(REQUEST)

    assert virtually(work)[1] == pytest.approx(45.0)


def test_nobody_waits_for_a_vendor_that_wants_a_day_of_quiet():
    """As a retry does not: the error comes at once, and a fallback answers. Who waits in the queue is told too."""
    backend = Scripted(RateLimited("tomorrow", status=429, retry_after=86_400.0))
    scorer = Retry(Limit(backend, next(accounts), requests_per_minute=1))

    async def work():
        ends = await asyncio.gather(*(scorer.ascore(REQUEST) for _ in range(5)), return_exceptions=True)
        await asyncio.sleep(86_350.0)
        await scorer.ascore(REQUEST)
        return ends

    ends, took = virtually(work)
    assert [type(end) for end in ends] == [RateLimited] * 5
    assert "left alone for 8.64e+04 s more" in str(ends[-1])
    assert took == pytest.approx(86_400.0)
    assert len(backend.asked) == 2


def test_its_state_can_be_read():
    scorer = Limit(Scripted(), next(accounts), requests_per_minute=9, tokens_per_minute=10**6)

    async def work():
        for _ in range(4):
            await scorer.ascore(REQUEST)
        found = [scorer.state()["scripted"]["limit"]]
        await asyncio.sleep(60.0)
        return [*found, scorer.state()["scripted"]["limit"]]

    full, empty = virtually(work)[0]
    assert full == {"requests": 4, "tokens": 12, "waiting": 0}
    assert empty == {"requests": 0, "tokens": 0, "waiting": 0}


def test_loops_in_threads_share_one_minute(monkeypatch):
    """Real loops and threads: 8 threads of 25 calls each; a minute of half a second, so that the queue moves."""
    monkeypatch.setattr("rerank_plugins.policies.limit.MINUTE", 0.5)
    sent: list[float] = []
    lock = threading.Lock()

    class Noting(Scripted):
        async def ascore(self, request):
            with lock:
                sent.append(time.monotonic())
            return await super().ascore(request)

    scorer = Limit(Noting(), next(accounts), requests_per_minute=50)

    async def calls():
        await asyncio.gather(*(scorer.ascore(REQUEST) for _ in range(25)))

    threads = [threading.Thread(target=lambda: asyncio.run(calls())) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60.0)
    assert len(sent) == 200
    assert all(later - earlier >= 0.5 for earlier, later in zip(sent, sent[50:], strict=False))
    assert all(earlier <= later for earlier, later in pairwise(sent))


# Event loops that do not come when they are called --------------------------------------------------------------------


@pytest.fixture
def quick(monkeypatch) -> None:
    monkeypatch.setattr("rerank_plugins.policies.limit.MINUTE", 0.3)
    monkeypatch.setattr("rerank_plugins.core.admission.PATIENCE", 0.1)


def in_thread(work: Callable[[], object]) -> object:
    """Return what `work` does, in a thread that a failing test leaves behind."""
    found: list[object] = []
    thread = threading.Thread(target=lambda: found.append(work()), daemon=True)
    thread.start()
    thread.join(30.0)
    assert found, "it waits for ever"
    return found[0]


@pytest.mark.parametrize("ahead", [1, 3])
def test_a_sync_call_does_not_wait_for_the_loop_that_it_holds_up(quick: None, ahead: int):
    """In a notebook: tasks of the cell's loop wait before it in the queue, and cannot take their turn."""
    backend = Scripted()
    reranker = Reranker(Limit(backend, next(accounts), requests_per_minute=1))

    async def cell() -> list[str]:
        await reranker.arerank("first", ["one"])
        waiting = [asyncio.create_task(reranker.arerank(f"waits {number}", ["one"])) for number in range(ahead)]
        await asyncio.sleep(0)
        reranker.rerank("sync", ["one"])
        await asyncio.gather(*waiting)
        return [request.query for _, request in backend.asked]

    # Who was passed over kept its place.
    assert in_thread(lambda: asyncio.run(cell())) == ["first", "sync", *(f"waits {number}" for number in range(ahead))]
    assert reranker.stats()["backends"]["scripted"]["limit"]["waiting"] == 0


@pytest.mark.parametrize("lost", [1, 2])
@pytest.mark.parametrize("limit", ["requests_per_minute", "tokens_per_minute"])
@pytest.mark.parametrize("others", [False, True], ids=["closed before others come", "closed while others wait"])
def test_a_loop_that_is_closed_holds_up_nobody(quick: None, others: bool, limit: str, lost: int):
    """Its tasks were not cancelled: one has a place, a second one waits for it."""
    backend = Scripted(HANG)
    scorer = Limit(backend, next(accounts), **{limit: 1})
    tasks, loop, begun = [], asyncio.new_event_loop(), threading.Event()

    async def begin() -> None:
        tasks.extend(asyncio.create_task(scorer.ascore(REQUEST)) for _ in range(lost))
        await asyncio.sleep(0)

    async def later() -> Scores:
        call = asyncio.create_task(scorer.ascore(REQUEST))
        await asyncio.sleep(0)
        begun.set()
        return await call

    loop.run_until_complete(begin())
    if others:
        threading.Timer(0.0, lambda: (begun.wait(30.0), loop.close())).start()
    else:
        loop.close()
    assert isinstance(in_thread(lambda: asyncio.run(later())), Scores)
    assert scorer.state()["scripted"]["limit"]["waiting"] == 0
    tasks.clear()
