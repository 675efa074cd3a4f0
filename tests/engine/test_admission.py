"""FairSemaphore: a limited number of slots, admission in order, and no slot lost when calls are cancelled.

Models use one.
"""

from __future__ import annotations

import asyncio
import gc
import random
import threading
import time
import weakref
from concurrent.futures import ThreadPoolExecutor

import pytest
from support.bounds import near
from support.checkpoints import checkpoint
from support.models import SENTENCES

from rerank_plugins import load_reranker
from rerank_plugins.core._runtime.admission import FairSemaphore, Slot
from rerank_plugins.engine.model_backend import ModelBackend
from rerank_plugins.engine.onnx.cross_encoder import OnnxModel
from rerank_plugins.engine.shared_model import MAX_CONCURRENT_CALLS, SharedModel

QUERY = "how do the tides work"


async def test_semaphore_admits_in_order_and_up_to_its_limit():
    semaphore, inside, peak, order = FairSemaphore(2), 0, 0, []

    async def call(number):
        nonlocal inside, peak
        async with semaphore.acquire():
            inside += 1
            peak = max(peak, inside)
            order.append(number)
            for _ in range(3):
                await asyncio.sleep(0)
            inside -= 1

    await asyncio.gather(*map(call, range(20)))
    assert peak == 2
    assert order == list(range(20))


async def test_free_slot_is_acquired_without_waiting():
    entering = FairSemaphore(1).acquire().__aenter__()
    with pytest.raises(StopIteration):
        entering.send(None)


async def test_cancelled_waiter_keeps_no_slot():
    """A slot lost on cancellation would lower the limit for the rest of the process."""
    semaphore, chance = FairSemaphore(2), random.Random(4)

    async def call(pauses):
        async with semaphore.acquire():
            for _ in range(pauses):
                await asyncio.sleep(0)

    for _ in range(200):
        calls = [asyncio.ensure_future(call(chance.randrange(3))) for _ in range(6)]
        for each in calls:
            for _ in range(chance.randrange(4)):
                await asyncio.sleep(0)
            if chance.random() < 0.6:
                each.cancel()
        await asyncio.gather(*calls, return_exceptions=True)
    assert not semaphore.inside
    assert not semaphore.waiting


async def test_waiter_cancelled_after_wake_up_wakes_the_next(monkeypatch):
    """A wake-up lost with a cancelled waiter would leave the free slot unused."""
    # So long that the waiter is admitted by the release, not by its periodic check.
    monkeypatch.setattr("rerank_plugins.core._runtime.admission.PATIENCE", 60.0)
    semaphore = FairSemaphore(1)
    first = semaphore.acquire()
    await first.__aenter__()
    second, third = (asyncio.ensure_future(acquire_and_count(semaphore)) for _ in range(2))
    while len(semaphore.waiting) < 2:
        await asyncio.sleep(0)
    await first.__aexit__(None, None, None)  # wakes the second
    second.cancel()
    assert await asyncio.wait_for(third, 10) == 1
    assert not semaphore.inside


def test_semaphore_works_across_threads_and_loops():
    """A count changed without the lock would admit a fourth caller or lose a slot."""
    semaphore, inside, seen = FairSemaphore(3), set(), []

    async def call(number):
        async with semaphore.acquire():
            inside.add(number)
            seen.append(len(inside))
            await asyncio.sleep(0)
            inside.remove(number)

    with ThreadPoolExecutor(12) as pool:
        list(pool.map(lambda number: asyncio.run(call(number)), range(120)))
    assert len(seen) == 120
    assert max(seen) <= 3
    assert not semaphore.inside


def closed_loop(semaphore, calls):
    """Start `calls` tasks that acquire `semaphore`, close their event loop, and return the unfinished tasks."""
    loop = asyncio.new_event_loop()

    async def stay():
        async with semaphore.acquire():
            await asyncio.Event().wait()

    async def begin():
        tasks = [asyncio.ensure_future(stay()) for _ in range(calls)]
        await asyncio.sleep(0)
        return tasks

    tasks = loop.run_until_complete(begin())
    loop.close()
    return tasks


async def acquire_and_count(semaphore):
    async with semaphore.acquire():
        return len(semaphore.inside)


def test_waiters_on_a_closed_loop_do_not_block_other_calls(monkeypatch):
    """Tasks of a closed loop never run again, so their slots and places in the queue must be reclaimed."""
    # So long that the waiter is admitted by the release, not by its periodic check.
    monkeypatch.setattr("rerank_plugins.core._runtime.admission.PATIENCE", 60.0)
    semaphore = FairSemaphore(2)
    held = closed_loop(semaphore, 4)  # two hold slots, two wait, and none is garbage-collected
    assert asyncio.run(asyncio.wait_for(acquire_and_count(semaphore), 10)) == 1
    assert not semaphore.waiting
    assert all(not each.done() for each in held)


def test_waiter_is_admitted_after_the_holders_loop_was_closed(monkeypatch):
    monkeypatch.setattr("rerank_plugins.core._runtime.admission.PATIENCE", 0.01)
    semaphore, inside, here = FairSemaphore(1), asyncio.new_event_loop(), asyncio.new_event_loop()

    async def enter():
        slot = semaphore.acquire()
        await slot.__aenter__()
        return slot

    async def begin():
        waits = asyncio.ensure_future(acquire_and_count(semaphore))
        while not semaphore.waiting:
            await asyncio.sleep(0)
        return waits

    held = inside.run_until_complete(enter())
    waits = here.run_until_complete(begin())
    inside.close()
    try:
        assert here.run_until_complete(asyncio.wait_for(waits, 30)) == 1
    finally:
        here.close()
    assert held.gone
    assert not semaphore.inside


def test_woken_waiter_on_a_blocked_loop_is_passed_over_and_admitted_later(monkeypatch):
    """A sync call blocks an event loop on which earlier calls wait, and waits behind them: it must not deadlock."""
    monkeypatch.setattr("rerank_plugins.core._runtime.admission.PATIENCE", 0.05)
    semaphore, order = FairSemaphore(1), []

    async def call(name):
        async with semaphore.acquire():
            order.append(name)

    async def work():
        slot = semaphore.acquire()
        await slot.__aenter__()
        first = asyncio.ensure_future(call("before"))
        while not semaphore.waiting:
            await asyncio.sleep(0)
        thread = threading.Thread(target=lambda: asyncio.run(call("sync")), daemon=True)
        thread.start()
        while len(semaphore.waiting) < 2:
            await asyncio.sleep(0)
        await slot.__aexit__(None, None, None)
        thread.join(30)  # blocks this loop
        await first

    asyncio.run(work())
    assert order == ["sync", "before"]
    assert not semaphore.inside


class _LockWithLateCall:
    """A lock that makes a given call just before its release, as another thread could."""

    def __init__(self, late):
        self._inner, self._late = threading.Lock(), late

    def acquire(self, blocking=True):
        return self._inner.acquire(blocking)

    def release(self):
        if self._late:
            self._late.pop()()
        self._inner.release()

    def __enter__(self):
        self.acquire()

    def __exit__(self, *_):
        self.release()


async def test_release_during_a_locked_step_is_not_lost(monkeypatch):
    """`leave` cannot wait for the lock; a release deferred to its holder must still be processed."""
    monkeypatch.setattr("rerank_plugins.core._runtime.admission.PATIENCE", 60.0)
    semaphore, late = FairSemaphore(1), []
    first = semaphore.acquire()
    await first.__aenter__()
    semaphore._lock = _LockWithLateCall(late)
    late.append(lambda: semaphore.leave(first))
    assert await asyncio.wait_for(acquire_and_count(semaphore), 10) == 1
    assert not late


def test_slot_does_not_keep_its_loop_alive():
    """A strong reference from the slot would prevent the detection of a closed loop."""
    semaphore, loop = FairSemaphore(1), asyncio.new_event_loop()

    async def enter():
        slot = semaphore.acquire()
        await slot.__aenter__()
        return weakref.ref(asyncio.get_running_loop())

    slot = loop.run_until_complete(enter())
    loop.close()
    del loop
    gc.collect()
    assert slot() is None
    assert asyncio.run(asyncio.wait_for(acquire_and_count(semaphore), 10)) == 1


def test_garbage_collector_may_end_calls_at_any_moment(monkeypatch):
    """A collection while the lock is held closes calls on the same thread, which must not wait for the lock."""
    semaphore, inside = FairSemaphore(2), []
    monkeypatch.setattr(Slot, "gone", property(lambda _: bool(gc.collect()) and False))
    gc.disable()
    gc.freeze()  # exclude the objects of earlier tests from each collection
    try:
        closed_loop(semaphore, 4)
        thread = threading.Thread(target=lambda: inside.append(asyncio.run(acquire_and_count(semaphore))), daemon=True)
        thread.start()
        thread.join(30)
    finally:
        gc.unfreeze()
        gc.enable()
    assert inside
    assert not semaphore.inside


async def test_waiting_calls_are_not_tokenized(cross_encoder_folder):
    """Back-pressure: at most `MAX_CONCURRENT_CALLS` of 200 calls hold token rows; all get the right scores."""
    async with load_reranker(f"onnx:{cross_encoder_folder}") as reranker:
        alone = [each.raw_score for each in await reranker.arerank(QUERY, SENTENCES)]
        model = OnnxModel.shared(cross_encoder_folder)
        held, peak, tokenize, through = 0, 0, model.tokenizer.pairs, model.run_rows

        def pairs(*arguments):
            nonlocal held, peak
            held += 1
            peak = max(peak, held)
            return tokenize(*arguments)

        async def run(*arguments):
            nonlocal held
            await through(*arguments)
            held -= 1

        model.tokenizer.pairs, model.run_rows = pairs, run
        answers = await asyncio.gather(*(reranker.arerank(QUERY, SENTENCES) for _ in range(200)))
    assert all([each.raw_score for each in answer] == alone for answer in answers)
    assert peak <= MAX_CONCURRENT_CALLS


@pytest.mark.thorough
@pytest.mark.parametrize(
    "spec", ["onnx:{onnx}", "sentence-transformers:{torch}", "embedded", "embedded:balanced", "embedded:fast"]
)
async def test_closed_model_is_freed_after_its_last_call(spec, cross_encoder_folder, tmp_path, monkeypatch):
    # Other tests of this process may hold the shared model of the folder.
    monkeypatch.setattr(SharedModel, "_table", weakref.WeakValueDictionary())
    if "{torch}" in spec:
        checkpoint(tmp_path / "bert", "bert")
    reranker = load_reranker(spec.format(onnx=cross_encoder_folder, torch=tmp_path / "bert"))
    alone = [each.raw_score for each in await reranker.arerank(QUERY, SENTENCES)]
    backend = reranker.scorer
    while not isinstance(backend, ModelBackend):
        backend = backend.inner
    model = weakref.ref(backend.shared_model)
    calls = [asyncio.ensure_future(reranker.arerank(QUERY, SENTENCES)) for _ in range(MAX_CONCURRENT_CALLS + 8)]
    while not (admission := model().admission).waiting:
        await asyncio.sleep(0)
    await reranker.aclose()
    assert admission.waiting
    del admission
    for answer in await asyncio.gather(*calls):
        assert [each.raw_score for each in answer] == near(alone)
    assert backend.label
    del calls, answer
    until = time.monotonic() + 10.0
    while model() is not None and time.monotonic() < until:  # a worker may still be about to drop its last batch
        await asyncio.sleep(0)
        gc.collect()
    assert model() is None
    if spec == "embedded":
        assert not backend._cache._texts
