"""A model lets some calls in at a time; the others wait, and no turn is lost, whoever leaves when."""

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
from rerank_plugins.engine import onnx_model
from rerank_plugins.engine.onnx_backend import OnnxBackend
from rerank_plugins.engine.onnx_model import loaded
from rerank_plugins.engine.torch_backend import TorchBackend
from rerank_plugins.engine.turns import CALLS, Turn, Turns

QUERY = "how do the tides work"


async def test_first_come_first_served_and_no_more_than_there_are():
    turns, inside, most, order = Turns(2), 0, 0, []

    async def call(number):
        nonlocal inside, most
        async with turns.one():
            inside += 1
            most = max(most, inside)
            order.append(number)
            for _ in range(3):
                await asyncio.sleep(0)
            inside -= 1

    await asyncio.gather(*map(call, range(20)))
    assert most == 2
    assert order == list(range(20))


async def test_where_there_is_room_nobody_waits():
    entering = Turns(1).one().__aenter__()
    with pytest.raises(StopIteration):
        entering.send(None)


async def test_whoever_leaves_takes_no_turn_along():
    turns, chance = Turns(2), random.Random(4)

    async def call(pauses):
        async with turns.one():
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
    assert not turns._inside
    assert not turns._waiting


async def test_who_was_cancelled_and_has_not_left_yet_is_let_in_and_leaves():
    turns = Turns(1)
    first, second = turns.one(), turns.one()
    turns.ask(first)
    given = turns.ask(second)
    given.cancel()  # as asyncio does, before the call itself goes on
    turns.end(first)
    assert turns._inside == {second}
    turns.end(second)
    assert not turns._inside


def test_over_threads_with_loops_of_their_own():
    turns, inside, seen = Turns(3), set(), []

    async def call(number):
        async with turns.one():
            inside.add(number)
            seen.append(len(inside))
            await asyncio.sleep(0)
            inside.remove(number)

    with ThreadPoolExecutor(12) as pool:
        list(pool.map(lambda number: asyncio.run(call(number)), range(120)))
    assert len(seen) == 120
    assert max(seen) <= 3
    assert not turns._inside


def closed_loop(turns, calls):
    """Close an event loop with calls on it, and return them."""
    loop = asyncio.new_event_loop()

    async def stay():
        async with turns.one():
            await asyncio.Event().wait()

    async def begin():
        tasks = [asyncio.ensure_future(stay()) for _ in range(calls)]
        await asyncio.sleep(0)
        return tasks

    tasks = loop.run_until_complete(begin())
    loop.close()
    return tasks


async def called(turns):
    async with turns.one():
        return len(turns._inside)


def test_calls_on_a_closed_loop_stand_in_nobody_s_way(monkeypatch):
    monkeypatch.setattr("rerank_plugins.engine.turns.LOOK", 60.0)  # at once, and not when somebody looks again
    turns = Turns(2)
    held = closed_loop(turns, 4)  # two inside, two waiting, and none of them ever collected
    assert asyncio.run(asyncio.wait_for(called(turns), 10)) == 1
    assert not turns._waiting
    assert all(not each.done() for each in held)


def test_who_waits_is_let_in_when_the_loop_of_those_inside_is_closed_and_nobody_tells(monkeypatch):
    monkeypatch.setattr("rerank_plugins.engine.turns.LOOK", 0.01)
    turns, inside, here = Turns(1), asyncio.new_event_loop(), asyncio.new_event_loop()

    async def enter(turn):
        await turn.__aenter__()
        return turn

    async def one():
        return turns.one()

    async def begin():
        waits = asyncio.ensure_future(called(turns))
        while not turns._waiting:
            await asyncio.sleep(0)
        return waits

    held = inside.run_until_complete(enter(inside.run_until_complete(one())))
    waits = here.run_until_complete(begin())
    inside.close()
    try:
        assert here.run_until_complete(asyncio.wait_for(waits, 30)) == 1
    finally:
        here.close()
    assert held.forgotten
    assert not turns._inside


class _Late:
    """A lock, just before whose release somebody on another thread tells something, and cannot have it."""

    def __init__(self, late):
        self._inner, self._late = threading.Lock(), late

    def acquire(self, blocking=True):
        return self._inner.acquire(blocking)

    def release(self):
        if self._late:
            self._late.pop()()
        self._inner.release()


async def test_what_is_told_when_the_lock_is_about_to_be_released_is_not_lost():
    turns, late = Turns(1), []
    turns._lock = _Late(late)
    first, second = turns.one(), turns.one()
    turns.ask(first)
    late.append(lambda: turns.end(first))
    assert turns.ask(second).done()
    assert not late


def test_a_turn_keeps_no_loop_and_goes_with_it():
    turns, loop = Turns(1), asyncio.new_event_loop()

    async def ask():
        turn = turns.one()
        turns.ask(turn)
        return weakref.ref(asyncio.get_running_loop())

    kept = loop.run_until_complete(ask())
    loop.close()
    del loop
    gc.collect()
    assert kept() is None
    assert asyncio.run(asyncio.wait_for(called(turns), 10)) == 1


def test_the_collector_may_end_calls_at_any_moment(monkeypatch):
    """Here while another is let in, on the same thread; and only so do the turns come back."""
    turns, found = Turns(2), []
    monkeypatch.setattr(Turn, "forgotten", property(lambda _: bool(gc.collect()) and False))
    gc.disable()
    gc.freeze()  # what the rest of the suite has left in memory is not looked through each time
    try:
        closed_loop(turns, 4)
        thread = threading.Thread(target=lambda: found.append(asyncio.run(called(turns))), daemon=True)
        thread.start()
        thread.join(30)
    finally:
        gc.unfreeze()
        gc.enable()
    assert found
    assert not turns._inside


async def test_what_waits_for_a_model_is_not_tokenized(cross_encoder_folder):
    """Back-pressure: of 200 calls at once only `CALLS` hold rows of tokens; all are answered, as one alone is."""
    async with load_reranker(f"onnx:{cross_encoder_folder}") as reranker:
        alone = [each.raw_score for each in await reranker.arerank(QUERY, SENTENCES)]
        model = loaded(cross_encoder_folder)
        held, most, encoder, through = 0, 0, model.encoder.pairs, model.map

        def pairs(*arguments):
            nonlocal held, most
            held += 1
            most = max(most, held)
            return encoder(*arguments)

        async def run(*arguments):
            nonlocal held
            await through(*arguments)
            held -= 1

        model.encoder.pairs, model.map = pairs, run
        answers = await asyncio.gather(*(reranker.arerank(QUERY, SENTENCES) for _ in range(200)))
    assert all([each.raw_score for each in answer] == alone for answer in answers)
    assert most <= CALLS


@pytest.mark.parametrize("spec", ["onnx:{onnx}", "sentence-transformers:{torch}", "embedded", "embedded:fast"])
async def test_a_model_closed_while_calls_are_in_it_and_wait_goes_with_the_last(
    spec, cross_encoder_folder, tmp_path, monkeypatch
):
    # Other tests of this process may hold the one model of a folder.
    monkeypatch.setattr(onnx_model, "_table", weakref.WeakValueDictionary())
    if "{torch}" in spec:
        checkpoint(tmp_path / "bert", "bert")
    reranker = load_reranker(spec.format(onnx=cross_encoder_folder, torch=tmp_path / "bert"))
    alone = [each.raw_score for each in await reranker.arerank(QUERY, SENTENCES)]
    backend = reranker.scorer
    while not isinstance(backend, TorchBackend | OnnxBackend):
        backend = backend.inner
    model = weakref.ref(backend.onnx_model if isinstance(backend, OnnxBackend) else backend.torch_model)
    calls = [asyncio.ensure_future(reranker.arerank(QUERY, SENTENCES)) for _ in range(CALLS + 8)]
    while not (turns := model().turns)._waiting:
        await asyncio.sleep(0)
    await reranker.aclose()
    assert turns._waiting
    del turns
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
        assert not backend._cache._held
