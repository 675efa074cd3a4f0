"""A semaphore lets some calls in at a time; the others wait, and no slot is lost, whoever leaves when. Models use one."""

from __future__ import annotations

import asyncio
import gc
import random
import threading
import time
import weakref
from concurrent.futures import ThreadPoolExecutor

import pytest
from bounds import near
from checkpoints import checkpoint
from models import SENTENCES

from rerank_plugins import load_reranker
from rerank_plugins.core.admission import FairSemaphore, Slot
from rerank_plugins.engine.onnx.model import OnnxModel
from rerank_plugins.engine.shared_model import CALLS, ModelBackend, SharedModel

QUERY = "how do the tides work"


async def test_first_come_first_served_and_no_more_than_there_are():
    semaphore, inside, most, order = FairSemaphore(2), 0, 0, []

    async def call(number):
        nonlocal inside, most
        async with semaphore.acquire():
            inside += 1
            most = max(most, inside)
            order.append(number)
            for _ in range(3):
                await asyncio.sleep(0)
            inside -= 1

    await asyncio.gather(*map(call, range(20)))
    assert most == 2
    assert order == list(range(20))


async def test_where_a_slot_is_free_nobody_waits():
    entering = FairSemaphore(1).acquire().__aenter__()
    with pytest.raises(StopIteration):
        entering.send(None)


async def test_whoever_leaves_takes_no_slot_along():
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


async def test_who_was_woken_and_is_cancelled_before_it_runs_wakes_the_next(monkeypatch):
    monkeypatch.setattr(
        "rerank_plugins.core.admission.PATIENCE", 60.0
    )  # at once, and not when somebody looks by itself
    semaphore = FairSemaphore(1)
    first = semaphore.acquire()
    await first.__aenter__()
    second, third = (asyncio.ensure_future(called(semaphore)) for _ in range(2))
    while len(semaphore.waiting) < 2:
        await asyncio.sleep(0)
    await first.__aexit__(None, None, None)  # wakes the second
    second.cancel()
    assert await asyncio.wait_for(third, 10) == 1
    assert not semaphore.inside


def test_over_threads_with_loops_of_their_own():
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
    """Close an event loop with calls on it, and return them."""
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


async def called(semaphore):
    async with semaphore.acquire():
        return len(semaphore.inside)


def test_calls_on_a_closed_loop_stand_in_nobody_s_way(monkeypatch):
    monkeypatch.setattr(
        "rerank_plugins.core.admission.PATIENCE", 60.0
    )  # at once, and not when somebody looks by itself
    semaphore = FairSemaphore(2)
    held = closed_loop(semaphore, 4)  # two inside, two waiting, and none of them ever collected
    assert asyncio.run(asyncio.wait_for(called(semaphore), 10)) == 1
    assert not semaphore.waiting
    assert all(not each.done() for each in held)


def test_who_waits_is_let_in_when_the_loop_of_those_inside_is_closed_and_nobody_wakes_it(monkeypatch):
    monkeypatch.setattr("rerank_plugins.core.admission.PATIENCE", 0.01)
    semaphore, inside, here = FairSemaphore(1), asyncio.new_event_loop(), asyncio.new_event_loop()

    async def enter():
        slot = semaphore.acquire()
        await slot.__aenter__()
        return slot

    async def begin():
        waits = asyncio.ensure_future(called(semaphore))
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


def test_who_was_woken_on_a_loop_that_is_held_up_is_passed_over_and_comes_later(monkeypatch):
    """A sync call blocks its thread's event loop, on which others wait before it, and waits in the same queue itself."""
    monkeypatch.setattr("rerank_plugins.core.admission.PATIENCE", 0.05)
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
        thread.join(30)  # which holds up this loop
        await first

    asyncio.run(work())
    assert order == ["sync", "before"]
    assert not semaphore.inside


class _Late:
    """A lock, just before whose release somebody on another thread leaves, and cannot have it."""

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


async def test_who_leaves_when_the_lock_is_about_to_be_released_is_not_lost(monkeypatch):
    monkeypatch.setattr("rerank_plugins.core.admission.PATIENCE", 60.0)
    semaphore, late = FairSemaphore(1), []
    first = semaphore.acquire()
    await first.__aenter__()
    semaphore._lock = _Late(late)
    late.append(lambda: semaphore.leave(first))
    assert await asyncio.wait_for(called(semaphore), 10) == 1
    assert not late


def test_a_slot_keeps_no_loop_and_goes_with_it():
    semaphore, loop = FairSemaphore(1), asyncio.new_event_loop()

    async def enter():
        slot = semaphore.acquire()
        await slot.__aenter__()
        return weakref.ref(asyncio.get_running_loop())

    kept = loop.run_until_complete(enter())
    loop.close()
    del loop
    gc.collect()
    assert kept() is None
    assert asyncio.run(asyncio.wait_for(called(semaphore), 10)) == 1


def test_the_collector_may_end_calls_at_any_moment(monkeypatch):
    """Here while another is let in, on the thread that holds the lock; and only so do the slots come back."""
    semaphore, inside = FairSemaphore(2), []
    monkeypatch.setattr(Slot, "gone", property(lambda _: bool(gc.collect()) and False))
    gc.disable()
    gc.freeze()  # what the rest of the suite has left in memory is not looked through each time
    try:
        closed_loop(semaphore, 4)
        thread = threading.Thread(target=lambda: inside.append(asyncio.run(called(semaphore))), daemon=True)
        thread.start()
        thread.join(30)
    finally:
        gc.unfreeze()
        gc.enable()
    assert inside
    assert not semaphore.inside


async def test_what_waits_for_a_model_is_not_tokenized(cross_encoder_folder):
    """Back-pressure: of 200 calls at once only `CALLS` hold rows of tokens; all are answered, as one alone is."""
    async with load_reranker(f"onnx:{cross_encoder_folder}") as reranker:
        alone = [each.raw_score for each in await reranker.arerank(QUERY, SENTENCES)]
        model = OnnxModel.shared(cross_encoder_folder)
        held, most, tokenize, through = 0, 0, model.tokenizer.pairs, model.map

        def pairs(*arguments):
            nonlocal held, most
            held += 1
            most = max(most, held)
            return tokenize(*arguments)

        async def run(*arguments):
            nonlocal held
            await through(*arguments)
            held -= 1

        model.tokenizer.pairs, model.map = pairs, run
        answers = await asyncio.gather(*(reranker.arerank(QUERY, SENTENCES) for _ in range(200)))
    assert all([each.raw_score for each in answer] == alone for answer in answers)
    assert most <= CALLS


@pytest.mark.parametrize("spec", ["onnx:{onnx}", "sentence-transformers:{torch}", "embedded", "embedded:fast"])
async def test_a_model_closed_while_calls_are_in_it_and_wait_goes_with_the_last(
    spec, cross_encoder_folder, tmp_path, monkeypatch
):
    # Other tests of this process may hold the one model of a folder.
    monkeypatch.setattr(SharedModel, "_table", weakref.WeakValueDictionary())
    if "{torch}" in spec:
        checkpoint(tmp_path / "bert", "bert")
    reranker = load_reranker(spec.format(onnx=cross_encoder_folder, torch=tmp_path / "bert"))
    alone = [each.raw_score for each in await reranker.arerank(QUERY, SENTENCES)]
    backend = reranker.scorer
    while not isinstance(backend, ModelBackend):
        backend = backend.inner
    model = weakref.ref(backend.shared_model)
    calls = [asyncio.ensure_future(reranker.arerank(QUERY, SENTENCES)) for _ in range(CALLS + 8)]
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
