"""Rate limit per account: the limit holds, first come, first served, over event loops and threads; in virtual time."""

from __future__ import annotations

import asyncio
import bisect
import threading
import time
from collections.abc import Callable
from dataclasses import replace
from itertools import count, pairwise

import pytest
from support.scripted import HANG, REQUEST, Scripted
from support.virtual_time import virtually

from rerank_plugins import Reranker
from rerank_plugins.core import DeadlineExceeded, RateLimited, RerankRequest, Scores, TransientError
from rerank_plugins.policies.deadline import Deadline
from rerank_plugins.policies.rate_limit import RateLimit
from rerank_plugins.policies.retry import Retry
from rerank_plugins.policies.split import Split

accounts = count(10_000)


class Vendor(Scripted):
    """Answers 429 above a limit of requests in any 60 s; requests arrive after different delays."""

    def __init__(self, requests_per_minute: int, **options) -> None:
        super().__init__(**options)
        self.requests_per_minute = requests_per_minute
        self.arrivals: list[float] = []
        self.refused = 0

    async def ascore(self, request: RerankRequest) -> Scores:
        clock = asyncio.get_running_loop().time
        await asyncio.sleep(0.05 + 0.4 * (len(self.calls) % 7) / 7)
        moment = clock()
        bisect.insort(self.arrivals, moment)
        if len(self.arrivals) - bisect.bisect_right(self.arrivals, moment - 60.0) > self.requests_per_minute:
            self.refused += 1
            raise RateLimited("too many", status=429)
        return await super().ascore(request)


def test_200_concurrent_calls_under_60_per_minute_get_no_429():
    vendor = Vendor(60)
    scorer = RateLimit(vendor, next(accounts), requests_per_minute=60)

    async def work():
        return await asyncio.gather(*(scorer.ascore(REQUEST) for _ in range(200)))

    answers, took = virtually(work)
    assert len(answers) == 200
    assert vendor.refused == 0
    # Not slower than necessary: 60 at once, then three more rounds, each one minute after the answers before.
    assert 180.0 <= took < 183.0


def test_without_the_limit_the_vendor_answers_429():
    vendor = Vendor(60)

    async def work():
        return await asyncio.gather(*(vendor.ascore(REQUEST) for _ in range(200)), return_exceptions=True)

    virtually(work)
    assert vendor.refused == 140


def test_requests_are_sent_first_come_first_served():
    backend = Scripted()
    scorer = RateLimit(backend, next(accounts), requests_per_minute=3)

    async def work():
        await asyncio.gather(*(scorer.ascore(replace(REQUEST, query=str(number))) for number in range(10)))

    virtually(work)
    assert [request.query for _, request in backend.calls] == [str(number) for number in range(10)]


def test_retries_and_parts_count_as_requests():
    """A retry is a request, and so is each part of a call."""
    backend = Scripted(TransientError("busy"), TransientError("busy"))
    retry = Retry(RateLimit(backend, next(accounts), requests_per_minute=2), attempts=3, wait_initial=0.0)
    _, took = virtually(lambda: retry.ascore(REQUEST))
    assert took == pytest.approx(60.0)

    backend = Scripted()
    backend.capabilities = replace(backend.capabilities, max_documents=1)
    split = Split(RateLimit(backend, next(accounts), requests_per_minute=2))
    _, took = virtually(lambda: split.ascore(REQUEST))
    assert len(backend.calls) == 3
    assert took == pytest.approx(60.0)


def test_scorers_of_one_account_share_the_count():
    mine, other = next(accounts), next(accounts)

    async def work():
        for account in (mine, mine, other):
            await RateLimit(Scripted(), account, requests_per_minute=1).ascore(REQUEST)

    assert virtually(work)[1] == pytest.approx(60.0)


def test_tokens_are_estimated_then_corrected_by_the_vendors_count():
    texts = tuple(f"{number} " + "word " * 400 for number in range(5))
    request = RerankRequest(query="query", documents=texts)  # some 5,000 tokens, estimated from above

    async def three(scorer: RateLimit):
        for _ in range(3):
            await scorer.ascore(request)

    class Silent(Scripted):
        async def ascore(self, request):
            answer = await super().ascore(request)
            return replace(answer, usage=replace(answer.usage, input_tokens=None))

    # The vendor reports no tokens: the estimate counts, and one request fits in a minute.
    silent = RateLimit(Silent(), next(accounts), tokens_per_minute=8_000)
    assert virtually(lambda: three(silent))[1] == pytest.approx(120.0)
    # Scripted reports one token per document: all requests fit.
    assert virtually(lambda: three(RateLimit(Scripted(), next(accounts), tokens_per_minute=8_000)))[1] == 0.0
    # A request larger than the whole limit is sent alone, not never.
    small = RateLimit(Silent(), next(accounts), tokens_per_minute=100)
    assert virtually(lambda: three(small))[1] == pytest.approx(120.0)


def test_a_wait_longer_than_the_deadline_raises_immediately():
    backend = Scripted()
    scorer = Deadline(RateLimit(backend, next(accounts), requests_per_minute=2), 30.0)

    async def work():
        ends = await asyncio.gather(*(scorer.ascore(REQUEST) for _ in range(4)), return_exceptions=True)
        return [type(end) for end in ends], ends[-1]

    (kinds, error), took = virtually(work)
    assert kinds == [Scores, Scores, DeadlineExceeded, DeadlineExceeded]
    assert took == 0.0
    assert "allows no other request for 60 s, and the deadline leaves 30 s" in str(error)
    assert len(backend.calls) == 2


def test_a_wait_for_tokens_ends_at_the_deadline_with_the_limits_error():
    """The request under way may use fewer tokens than estimated, so the call waits. A breaker must not count it."""
    scorer = RateLimit(Scripted(HANG), next(accounts), tokens_per_minute=1)

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


def test_cancelled_waiters_leave_the_queue():
    backend = Scripted()
    scorer = RateLimit(backend, next(accounts), requests_per_minute=1)

    async def work():
        calls = [asyncio.create_task(scorer.ascore(replace(REQUEST, query=str(number)))) for number in range(4)]
        await asyncio.sleep(1.0)
        calls[1].cancel()
        calls[2].cancel()
        await asyncio.wait(calls)
        return scorer.state()

    state, took = virtually(work)
    assert [request.query for _, request in backend.calls] == ["0", "3"]
    assert took == pytest.approx(60.0)
    assert state["scripted"]["limit"]["waiting"] == 0


def test_retry_after_pauses_all_requests_of_the_account():
    backend = Scripted(RateLimited("slow down", status=429, retry_after=45.0))
    scorer = RateLimit(backend, next(accounts), requests_per_minute=100)

    async def work():
        with pytest.raises(RateLimited):
            await scorer.ascore(REQUEST)
        await scorer.ascore(REQUEST)

    assert virtually(work)[1] == pytest.approx(45.0)


def test_a_retry_after_of_a_day_raises_immediately():
    """Like a retry: the error is raised immediately, so that a fallback answers. Waiting requests get it too."""
    backend = Scripted(RateLimited("tomorrow", status=429, retry_after=86_400.0))
    scorer = Retry(RateLimit(backend, next(accounts), requests_per_minute=1))

    async def work():
        ends = await asyncio.gather(*(scorer.ascore(REQUEST) for _ in range(5)), return_exceptions=True)
        await asyncio.sleep(86_350.0)
        await scorer.ascore(REQUEST)
        return ends

    ends, took = virtually(work)
    assert [type(end) for end in ends] == [RateLimited] * 5
    assert "a pause of 8.64e+04 s more" in str(ends[-1])
    assert took == pytest.approx(86_400.0)
    assert len(backend.calls) == 2


def test_state_counts_requests_and_tokens_of_the_last_minute():
    scorer = RateLimit(Scripted(), next(accounts), requests_per_minute=9, tokens_per_minute=10**6)

    async def work():
        for _ in range(4):
            await scorer.ascore(REQUEST)
        before = scorer.state()["scripted"]["limit"]
        await asyncio.sleep(60.0)
        return [before, scorer.state()["scripted"]["limit"]]

    full, empty = virtually(work)[0]
    assert full == {"requests": 4, "tokens": 12, "waiting": 0}
    assert empty == {"requests": 0, "tokens": 0, "waiting": 0}


@pytest.mark.thorough
def test_event_loops_in_threads_share_one_count(monkeypatch):
    """Real loops and threads: 8 threads of 25 calls each; a minute of half a second, so that the queue moves."""
    monkeypatch.setattr("rerank_plugins.policies.rate_limit.MINUTE", 0.5)
    sent: list[float] = []
    lock = threading.Lock()

    class Recorder(Scripted):
        async def ascore(self, request):
            with lock:
                sent.append(time.monotonic())
            return await super().ascore(request)

    scorer = RateLimit(Recorder(), next(accounts), requests_per_minute=50)

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


# Event loops that are closed or blocked --------------------------------------------------------------------


@pytest.fixture
def quick(monkeypatch) -> None:
    monkeypatch.setattr("rerank_plugins.policies.rate_limit.MINUTE", 0.3)
    monkeypatch.setattr("rerank_plugins.core._runtime.admission.PATIENCE", 0.1)


def in_thread(work: Callable[[], object]) -> object:
    """Return the result of `work`, run in a daemon thread that a failing test leaves behind."""
    results: list[object] = []
    thread = threading.Thread(target=lambda: results.append(work()), daemon=True)
    thread.start()
    thread.join(30.0)
    assert results, "it waits forever"
    return results[0]


@pytest.mark.thorough
@pytest.mark.parametrize("ahead", [1, 3])
def test_a_sync_call_passes_waiters_of_the_loop_that_it_blocks(quick: None, ahead: int):
    """In a notebook a sync call blocks the cell's loop, whose tasks are ahead in the queue and cannot run.

    The sync call must pass them; otherwise it waits for tasks that wait for it.
    """
    backend = Scripted()
    reranker = Reranker(RateLimit(backend, next(accounts), requests_per_minute=1))

    async def cell() -> list[str]:
        await reranker.arerank("first", ["one"])
        waiting = [asyncio.create_task(reranker.arerank(f"waits {number}", ["one"])) for number in range(ahead)]
        await asyncio.sleep(0)
        reranker.rerank("sync", ["one"])
        await asyncio.gather(*waiting)
        return [request.query for _, request in backend.calls]

    # The tasks that were passed kept their places.
    assert in_thread(lambda: asyncio.run(cell())) == ["first", "sync", *(f"waits {number}" for number in range(ahead))]
    assert reranker.stats()["backends"]["scripted"]["limit"]["waiting"] == 0


@pytest.mark.thorough
@pytest.mark.parametrize("lost", [1, 2])
@pytest.mark.parametrize("limit", ["requests_per_minute", "tokens_per_minute"])
@pytest.mark.parametrize("others", [False, True], ids=["closed before others come", "closed while others wait"])
def test_requests_of_a_closed_loop_do_not_block_others(quick: None, others: bool, limit: str, lost: int):
    """The tasks of a closed loop are never cancelled: one is under way, a second one waits.

    Requests on other loops must not wait for them.
    """
    backend = Scripted(HANG)
    scorer = RateLimit(backend, next(accounts), **{limit: 1})
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
