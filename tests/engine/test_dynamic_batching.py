"""Calls at the same time share batches on a GPU, and never on a CPU. There is no GPU here: a network says that it is one."""

from __future__ import annotations

import asyncio
import gc
import random
import threading
import traceback
import weakref
from collections import deque
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace

import numpy as np
import pytest
from bounds import near
from checkpoints import checkpoint
from models import SENTENCES
from tokenizers import Tokenizer

from rerank_plugins import BackendError, ConfigError
from rerank_plugins.core.types import RerankRequest
from rerank_plugins.engine.scheduling import Call, batch, plan
from rerank_plugins.engine.shared_model import LoadOptions
from rerank_plugins.engine.torch.backend import TorchCrossEncoder

WORDS = " ".join(SENTENCES).split()


def request(seed, documents=10):
    chance = random.Random(seed)
    texts = tuple(" ".join(chance.choices(WORDS, k=chance.randint(1, 14))) for _ in range(documents))
    return RerankRequest(query=f"{chance.choice(WORDS)} and {chance.choice(WORDS)}", documents=texts)


REQUESTS = [request(seed) for seed in range(8)]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return checkpoint(tmp_path_factory.mktemp("sharing") / "bert", "bert")


@pytest.fixture(scope="module")
def alone(folder):
    made = TorchCrossEncoder(folder, device="cpu")
    return [asyncio.run(made.ascore(each)).values for each in REQUESTS]


class _GPU:
    """Stands in for the one part this machine has not: a network on a GPU."""

    dtype = "float32"

    def __init__(self, inner, *, on_gpu=True, before=lambda ids: None):
        self._inner, self.on_gpu, self._before, self.shapes = inner, on_gpu, before, []

    def run(self, ids, mask, types):
        self.shapes.append(ids.shape)
        self._before(ids)
        return self._inner.run(ids, mask, types)

    def exhausted(self, error):
        return self._inner.exhausted(error)

    def free(self):
        pass

    @property
    def rows(self):
        return sum(rows for rows, _ in self.shapes)


def on_gpu(made, **options):
    """Put the stand-in under each copy of a model, and return the first."""
    for model in made.shared_models:
        inner = model.network
        model._network = _GPU(getattr(inner, "_inner", inner), **options)
        model._largest = None  # the model may be that of the test before: an error may still keep it
    return made.shared_model._network


async def at_once(made, requests=REQUESTS):
    return await asyncio.gather(*(made.ascore(each) for each in requests), return_exceptions=True)


def test_nothing_to_score_is_scored_at_once(folder):
    made = TorchCrossEncoder(folder)
    network = on_gpu(made)
    nothing = RerankRequest(query="tides", documents=())
    assert asyncio.run(asyncio.wait_for(made.ascore(nothing), 30)).values == ()
    assert not network.shapes


def test_calls_at_once_share_batches_on_a_gpu(folder, alone):
    made = TorchCrossEncoder(folder, batch_tokens=512)
    network = on_gpu(made)
    for each in REQUESTS:
        asyncio.run(made.ascore(each))
    one_by_one, network.shapes = len(network.shapes), []
    found = asyncio.run(at_once(made))
    for scores, expected in zip(found, alone, strict=True):
        assert scores.values == near(expected)
    assert len(network.shapes) * 2 < one_by_one
    assert network.rows == sum(len(each.documents) for each in REQUESTS), "no row is run twice"
    assert all(rows * tokens <= 512 for rows, tokens in network.shapes)
    assert not made.shared_model.calls


def test_never_on_a_cpu(folder, alone):
    made = TorchCrossEncoder(folder, batch_tokens=512)
    network = on_gpu(made, on_gpu=False)
    asyncio.run(made.ascore(REQUESTS[0]))
    shapes, network.shapes = sorted(network.shapes), []
    found = asyncio.run(at_once(made, [REQUESTS[0]] * 5))
    assert [each.values for each in found] == [near(alone[0])] * 5
    assert sorted(network.shapes) == sorted(shapes * 5)


def test_rerankers_of_one_model_and_threads_share_too(folder, alone):
    made, other = TorchCrossEncoder(folder), TorchCrossEncoder(folder)
    on_gpu(made)
    with ThreadPoolExecutor(8) as pool:  # each with an event loop of its own
        work = [(seed, (made, other)[seed % 2]) for seed in range(8)] * 4
        answers = list(pool.map(lambda each: asyncio.run(each[1].ascore(REQUESTS[each[0]])).values, work))
    for (seed, _), values in zip(work, answers, strict=True):
        assert values == near(alone[seed])
    assert not made.shared_model.calls


def test_several_gpus_share_too(folder, alone):
    made = TorchCrossEncoder(folder, batch_tokens=128)
    made._copies, made._held = [LoadOptions(device="cpu:0"), LoadOptions(device="cpu:1")], []
    on_gpu(made)
    found = asyncio.run(at_once(made))
    for scores, expected in zip(found, alone, strict=True):
        assert scores.values == near(expected)
    assert sum(model._network.rows for model in made.shared_models) == sum(len(each.documents) for each in REQUESTS)


def test_on_each_of_several_gpus(folder):
    made = TorchCrossEncoder(folder)
    made._copies, made._held = [LoadOptions(device="cpu:0"), LoadOptions(device="cpu:1")], []
    both = threading.Barrier(2, timeout=30)
    on_gpu(made, before=lambda _ids: both.wait())  # one has the long rows while the other has the short ones
    same = RerankRequest(query="tides", documents=("the moon", " ".join(WORDS[:17])))
    asyncio.run(at_once(made, [same] * 8))
    assert [[rows for rows, _ in model._network.shapes] for model in made.shared_models] == [[8], [8]]


def test_a_cancelled_call_s_rows_are_dropped_and_the_others_go_on(folder, alone):
    made = TorchCrossEncoder(folder, batch_tokens=64)
    reached, go = threading.Event(), threading.Event()

    def hold(_ids):
        reached.set()
        go.wait(30)

    network = on_gpu(made, before=hold)

    async def call():
        calls = [asyncio.ensure_future(made.ascore(each)) for each in REQUESTS[:3]]
        while not reached.is_set():
            await asyncio.sleep(0)
        calls[0].cancel()  # whose batch is running, perhaps with rows of others
        calls[1].cancel()
        await asyncio.wait(calls[:2])
        go.set()
        return await calls[2]

    assert asyncio.run(call()).values == near(alone[2])
    first = network.shapes[0][0]
    assert network.rows <= first + 10, "after the batch that was running, only the third call's"
    assert not made.shared_model.calls


def test_who_leaves_while_its_batch_runs_takes_nobody_along(folder):
    made = TorchCrossEncoder(folder)
    reached, go = threading.Event(), threading.Event()

    def hold(_ids):
        reached.set()
        go.wait(30)

    network = on_gpu(made, before=hold)
    same = RerankRequest(query="tides", documents=("the moon",))

    async def calls():
        first, second = (asyncio.ensure_future(made.ascore(same)) for _ in range(2))
        while not reached.is_set():
            await asyncio.sleep(0)
        first.cancel()
        await asyncio.wait([first])
        go.set()
        return await second

    assert asyncio.run(calls()).values
    assert [rows for rows, _ in network.shapes] == [2]


def test_the_halves_of_a_call_that_left_are_not_run(folder):
    made = TorchCrossEncoder(folder)
    reached, go = threading.Event(), threading.Event()

    def full(_ids):
        import torch

        reached.set()
        go.wait(30)
        raise torch.OutOfMemoryError("CUDA out of memory.")

    network = on_gpu(made, before=full)
    same = RerankRequest(query="tides", documents=tuple(f"{word} moon" for word in "abcdefgh"))

    async def call():
        running = asyncio.ensure_future(made.ascore(same))
        while not reached.is_set():
            await asyncio.sleep(0)
        running.cancel()
        await asyncio.wait([running])
        go.set()
        await made.shared_model.workers.run(lambda: None)

    asyncio.run(call())
    assert len(network.shapes) == 1
    assert network.shapes[0][0] > 1


def test_what_a_full_gpu_cannot_hold_fails_its_own_call_only(folder, alone):
    long = RerankRequest(query=REQUESTS[0].query, documents=(" ".join(WORDS[:17]), REQUESTS[0].documents[0]))
    made = TorchCrossEncoder(folder, batch_tokens=512)
    longest = 0

    def small(ids):
        import torch

        nonlocal longest
        longest = longest or ids.shape[1]  # the longest text of all, which is run first
        if ids.size > 60 or ids.shape[1] == longest:
            raise torch.OutOfMemoryError("CUDA out of memory.")

    on_gpu(made, before=small)
    failed, *others = asyncio.run(at_once(made, [long, *REQUESTS]))
    assert isinstance(failed, BackendError)
    assert "out of memory" in str(failed)
    for scores, expected in zip(others, alone, strict=True):
        assert scores.values == near(expected)


def test_shorter_rows_are_padded_with_the_model_s_own_token(folder):
    made, seen = TorchCrossEncoder(folder), []
    on_gpu(made, before=lambda ids: seen.append(ids.copy()))
    model = made.shared_model
    mask = Tokenizer.from_file(str(folder / "tokenizer.json")).token_to_id("[MASK]")  # stands in no text
    text = "the moon and the sun pull the sea " * 3
    model.limits, own = replace(model.limits, pad=mask), model.limits
    try:
        asyncio.run(made.ascore(RerankRequest(query="how do the tides work", documents=(text, f"{text} sea"))))
    finally:
        model.limits = own
    (ids,) = seen
    assert (ids == mask).sum(axis=1).tolist() == [0, 1], "the longest first"
    assert ids[1, -1] == mask


def test_on_a_cpu_nothing_is_run_in_halves(folder):
    made = TorchCrossEncoder(folder)

    def full(_ids):
        import torch

        raise torch.OutOfMemoryError("out of memory")

    network = on_gpu(made, on_gpu=False, before=full)
    same = RerankRequest(query="tides", documents=("the moon", "the star", "the tree", "the lake"))
    with pytest.raises(BackendError, match="out of memory"):
        asyncio.run(made.ascore(same))
    assert len(network.shapes) == 1
    assert network.shapes[0][0] > 1
    assert made.shared_model._largest is None


def test_the_least_that_was_found_to_fit_is_remembered(folder):
    made = TorchCrossEncoder(folder)
    network, model, safe = on_gpu(made), made.shared_model, []

    def full():
        import torch

        raise torch.OutOfMemoryError("CUDA out of memory.")

    for size in (100, 40, 100, 1):
        assert model.attempt(network, full, size=size, halves=True) is None
        safe.append(model.batch_limit(network, None))
    assert safe == [50, 20, 20, 1]
    assert model.batch_limit(network, 16) == 1


def test_another_error_fails_every_call_of_its_batch_and_no_other(folder, alone):
    made = TorchCrossEncoder(folder, batch_tokens=512)
    short = RerankRequest(query="tides", documents=("the moon",))
    long = RerankRequest(query="tides", documents=(" ".join(WORDS[:17]),))
    expected = asyncio.run(made.ascore(long)).values

    def broken(ids):
        if len(ids) == 2:
            raise ValueError("broken")

    on_gpu(made, before=broken)
    first, second, third = asyncio.run(at_once(made, [short, short, long]))
    assert third.values == near(expected)
    assert isinstance(first, BackendError)
    assert isinstance(second, BackendError)
    assert first is not second, "each caller gets an error of its own"
    assert isinstance(first.__cause__, ValueError)
    on_gpu(made)
    assert asyncio.run(made.ascore(REQUESTS[0])).values == near(alone[0])


class _Large:
    """What a batch holds on to while it is computed."""


@pytest.mark.parametrize("kind", [ValueError, StopIteration, TimeoutError, IndexError])
def test_whatever_is_raised_each_call_of_the_batch_ends_with_an_error_of_its_own(kind, folder):
    made = TorchCrossEncoder(folder)
    held = []

    def broken(_ids):
        large = _Large()
        held.append(weakref.ref(large))
        if kind is not IndexError:
            raise kind("broken")

    network = on_gpu(made, before=broken)
    if kind is IndexError:
        network.run = lambda *_: network._before(_) or np.float32(0.0)  # no row to be had from it
    same = RerankRequest(query="tides", documents=("the moon", "a clock"))

    async def calls():
        running = [asyncio.ensure_future(made.ascore(same)) for _ in range(4)]
        _, hanging = await asyncio.wait(running, timeout=30)
        assert not hanging
        return [each.exception() for each in running]

    gc.disable()
    try:
        found = asyncio.run(calls())
        assert held
        assert not any(large() for large in held), "who keeps the error keeps nothing that a full GPU lacks"
    finally:
        gc.enable()
    assert len({id(each) for each in found}) == 4
    for each in found:
        assert isinstance(each, BackendError)
        assert isinstance(each.__cause__, kind)
        assert each.__context__ is None
    raised_by = {frame.name for each in found for frame in traceback.extract_tb(each.__cause__.__traceback__)}
    assert "map_rows" not in raised_by, "no caller adds to what another sees"
    assert not made.shared_model.calls


def test_what_is_no_score_is_told_each_call_of_the_batch(folder):
    made = TorchCrossEncoder(folder)
    network = on_gpu(made)
    network.run = lambda ids, *_: np.zeros((len(ids), 3), np.float32)
    same = RerankRequest(query="tides", documents=("the moon",))
    found = asyncio.run(at_once(made, [same] * 3))
    assert all(isinstance(each, ConfigError) for each in found)
    assert len({id(each) for each in found}) == 3


def test_a_call_that_cannot_queue_again_ends(folder, monkeypatch):
    """The interpreter ends, say: no executor takes work then."""
    made = TorchCrossEncoder(folder, batch_tokens=16)
    on_gpu(made)
    workers = made.shared_model.workers
    through, main = workers.submit, threading.current_thread()

    def submit(*arguments):
        if threading.current_thread() is not main:
            raise RuntimeError("cannot schedule new futures after shutdown")
        return through(*arguments)

    monkeypatch.setattr(workers, "submit", submit)
    with pytest.raises(BackendError, match="after shutdown"):
        asyncio.run(asyncio.wait_for(made.ascore(REQUESTS[0]), 30))


def test_a_call_whose_rows_another_took_along_is_answered_before_its_turn(folder):
    made = TorchCrossEncoder(folder)
    first, last = (RerankRequest(query="tides", documents=("the moon",)) for _ in range(2))
    long = RerankRequest(query="tides", documents=(" ".join(WORDS[:17]),))
    answered = threading.Event()

    def until_the_last_is_answered(ids):
        if ids.shape[1] > 10:
            answered.wait(30)

    network = on_gpu(made, before=until_the_last_is_answered)

    async def calls():
        running = [asyncio.ensure_future(made.ascore(each)) for each in (first, long, last)]
        await asyncio.wait([running[2]], timeout=10)
        before = running[2].done() and not running[1].done()
        answered.set()
        await asyncio.gather(*running)
        return before

    assert asyncio.run(calls())
    assert [rows for rows, _ in network.shapes] == [2, 1]


def test_a_call_whose_loop_was_closed_goes_no_further_and_is_not_kept(folder):
    made = TorchCrossEncoder(folder, batch_tokens=16)
    reached, go = threading.Event(), threading.Event()

    def hold(_ids):
        reached.set()
        go.wait(30)

    network = on_gpu(made, before=hold)
    loop = asyncio.new_event_loop()

    async def begin():
        call = asyncio.ensure_future(made.ascore(REQUESTS[0]))
        while not reached.is_set():
            await asyncio.sleep(0)
        assert not call.done()

    loop.run_until_complete(begin())
    (held,) = map(weakref.ref, made.shared_model.calls)
    loop.close()
    go.set()
    for _ in range(2):  # what was queued is done
        made.shared_model.workers.submit(lambda: None).result(30)
    assert len(network.shapes) == 1
    gc.collect()
    assert held() is None
    assert not made.shared_model.admission.inside


async def test_a_call_may_be_ended_by_the_collector_while_a_batch_is_taken_from_it():
    class _Ending:
        @property
        def ids(self):
            call.leave()
            return range(20)

    call = asked(20, 20)
    call.rows = [_Ending(), _Ending()]
    other = asked(20)
    found = []
    thread = threading.Thread(target=lambda: found.extend(batch(other, [call], 100)), daemon=True)
    thread.start()
    thread.join(30)
    assert [each for each, _ in found if not each.over] == [other]
    assert not call.waits


@dataclass
class _Row:
    ids: range


def asked(*lengths, batch_tokens=None):
    return Call([_Row(range(length)) for length in lengths], batch_tokens, lambda positions, output: None)


async def test_who_shares_with_whom():
    first, second, third = asked(10, 20, 19), asked(30, 20, 18, 5), asked(20, 20)
    other = asked(20, batch_tokens=64)
    calls = [first, second, third, other]
    # 20, 19 of the first; of the second what is no longer and hardly shorter; of the third what there is room for.
    assert batch(first, calls, 100) == [(first, 1), (first, 2), (second, 1), (second, 2), (third, 0)]
    assert batch(third, calls, 100) == [(third, 1)]
    assert batch(third, calls, 100) == []
    assert batch(second, calls, 100) == [(second, 0)]
    assert batch(first, calls, 100) == [(first, 0)]
    assert batch(other, calls, 8) == [(other, 0)], "what is too long goes alone"
    second.leave()
    assert batch(second, calls, 100) == []


async def test_of_a_call_that_failed_nothing_more_is_run():
    call, other = asked(20, 20, 20), asked(20)
    assert batch(call, [], 20) == [(call, 0)]
    call.fail(ValueError("first"))
    call.fail(ValueError("second"))
    call.answer([0], np.zeros(1))
    assert str(call.done.result()) == "first"
    assert call.over
    assert not call.waits
    assert batch(other, [call], 100) == [(other, 0)]


async def test_a_call_alone_gets_the_batches_of_the_plan():
    chance = random.Random(7)
    for _ in range(200):
        lengths = [chance.randint(1, 60) for _ in range(chance.randint(1, 40))]
        most = chance.randint(16, 300)
        call, found = asked(*lengths), []
        while call.waits:
            found.append([position for _, position in batch(call, [], most)])
        assert found == plan(lengths, most)


async def test_a_long_call_does_not_starve_a_short_one_nor_the_other_way():
    long, short, again = asked(*[20] * 1000), asked(40, 8), asked(*[20] * 10)
    calls = [long, short, again]
    ran, queue = [], deque(calls)  # the worker's queue: each call is in it once
    while queue:
        ran.append(batch(queue[0], calls, 100))
        queue.rotate(-1)
        if not queue[-1].waits:
            queue.pop()
    ran = [rows for rows in ran if rows]
    ends = {
        call: max(place for place, rows in enumerate(ran) if any(each is call for each, _ in rows)) for call in calls
    }
    assert ends[short] < 6
    assert ends[again] < 8
    assert ran[0][0][0] is long, "who came first is served first"
    assert sum(map(len, ran)) == 1012
