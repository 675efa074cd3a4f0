"""Dynamic batching: concurrent calls share batches on a GPU, and never on a CPU.

There is no GPU here: a network says that it is one.
"""

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
from support.bounds import near
from support.checkpoints import checkpoint
from support.models import SENTENCES
from tokenizers import Tokenizer

from rerank_plugins import BackendError, ConfigError
from rerank_plugins.core.types import RerankRequest
from rerank_plugins.engine.shared_model import LoadOptions, length_batches
from rerank_plugins.engine.torch.cross_encoder import RowQueue, TorchCrossEncoder, next_batch

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
    backend = TorchCrossEncoder(folder, device="cpu")
    return [asyncio.run(backend.ascore(each)).values for each in REQUESTS]


class _FakeGPU:
    """A fake network on a GPU, which this machine does not have."""

    dtype = "float32"

    def __init__(self, inner, *, on_gpu=True, before=lambda ids: None):
        self._inner, self.on_gpu, self._before, self.shapes = inner, on_gpu, before, []

    def run(self, ids, mask, types):
        self.shapes.append(ids.shape)
        self._before(ids)
        return self._inner.run(ids, mask, types)

    def is_out_of_memory(self, error):
        return self._inner.is_out_of_memory(error)

    def free(self):
        pass

    @property
    def rows(self):
        return sum(rows for rows, _ in self.shapes)


def on_gpu(backend, **options):
    """Replace the network of each copy of a model by the fake, and return the first fake."""
    for model in backend.shared_models:
        inner = model.network
        model._network = _FakeGPU(getattr(inner, "_inner", inner), **options)
        model._fitting_tokens = None  # the model may be that of the previous test, if a traceback keeps it alive
    return backend.shared_model._network


async def call_concurrently(backend, requests=REQUESTS):
    return await asyncio.gather(*(backend.ascore(each) for each in requests), return_exceptions=True)


def test_call_without_rows_ends_at_once(folder):
    backend = TorchCrossEncoder(folder)
    network = on_gpu(backend)
    without_documents = RerankRequest(query="tides", documents=())
    assert asyncio.run(asyncio.wait_for(backend.ascore(without_documents), 30)).values == ()
    assert not network.shapes


def test_concurrent_calls_share_batches_on_a_gpu(folder, alone):
    backend = TorchCrossEncoder(folder, batch_tokens=512)
    network = on_gpu(backend)
    for each in REQUESTS:
        asyncio.run(backend.ascore(each))
    one_by_one, network.shapes = len(network.shapes), []
    values = asyncio.run(call_concurrently(backend))
    for scores, expected in zip(values, alone, strict=True):
        assert scores.values == near(expected)
    assert len(network.shapes) * 2 < one_by_one
    assert network.rows == sum(len(each.documents) for each in REQUESTS), "no row is run twice"
    assert all(rows * tokens <= 512 for rows, tokens in network.shapes)
    assert not backend.shared_model.queues


def test_calls_share_no_batches_on_a_cpu(folder, alone):
    backend = TorchCrossEncoder(folder, batch_tokens=512)
    network = on_gpu(backend, on_gpu=False)
    asyncio.run(backend.ascore(REQUESTS[0]))
    shapes, network.shapes = sorted(network.shapes), []
    values = asyncio.run(call_concurrently(backend, [REQUESTS[0]] * 5))
    assert [each.values for each in values] == [near(alone[0])] * 5
    assert sorted(network.shapes) == sorted(shapes * 5)


def test_rerankers_of_one_model_share_batches_across_threads(folder, alone):
    backend, other = TorchCrossEncoder(folder), TorchCrossEncoder(folder)
    on_gpu(backend)
    with ThreadPoolExecutor(8) as pool:  # each thread has its own event loop
        work = [(seed, (backend, other)[seed % 2]) for seed in range(8)] * 4
        answers = list(pool.map(lambda item: asyncio.run(item[1].ascore(REQUESTS[item[0]])).values, work))
    for (seed, _), values in zip(work, answers, strict=True):
        assert values == near(alone[seed])
    assert not backend.shared_model.queues


def test_calls_share_batches_on_several_gpus(folder, alone):
    backend = TorchCrossEncoder(folder, batch_tokens=128)
    backend._copies, backend._models = [LoadOptions(device="cpu:0"), LoadOptions(device="cpu:1")], []
    on_gpu(backend)
    values = asyncio.run(call_concurrently(backend))
    for scores, expected in zip(values, alone, strict=True):
        assert scores.values == near(expected)
    assert sum(model._network.rows for model in backend.shared_models) == sum(len(each.documents) for each in REQUESTS)


def test_each_of_several_gpus_shares_batches(folder):
    backend = TorchCrossEncoder(folder)
    backend._copies, backend._models = [LoadOptions(device="cpu:0"), LoadOptions(device="cpu:1")], []
    both = threading.Barrier(2, timeout=30)
    on_gpu(backend, before=lambda _ids: both.wait())  # one runs the long rows while the other runs the short ones
    same = RerankRequest(query="tides", documents=("the moon", " ".join(WORDS[:17])))
    asyncio.run(call_concurrently(backend, [same] * 8))
    assert [[rows for rows, _ in model._network.shapes] for model in backend.shared_models] == [[8], [8]]


def test_rows_of_a_cancelled_call_are_dropped(folder, alone):
    """Rows left in a queue would be computed for a caller that is gone."""
    backend = TorchCrossEncoder(folder, batch_tokens=64)
    reached, go = threading.Event(), threading.Event()

    def hold(_ids):
        reached.set()
        go.wait(30)

    network = on_gpu(backend, before=hold)

    async def call():
        calls = [asyncio.ensure_future(backend.ascore(each)) for each in REQUESTS[:3]]
        while not reached.is_set():
            await asyncio.sleep(0)
        calls[0].cancel()  # its batch is running, perhaps with rows of other calls
        calls[1].cancel()
        await asyncio.wait(calls[:2])
        go.set()
        return await calls[2]

    assert asyncio.run(call()).values == near(alone[2])
    first = network.shapes[0][0]
    assert network.rows <= first + 10, "after the running batch only rows of the third call"
    assert not backend.shared_model.queues


def test_call_cancelled_during_its_batch_does_not_end_others(folder):
    """Cancelling one caller of a shared batch must not cancel the batch."""
    backend = TorchCrossEncoder(folder)
    reached, go = threading.Event(), threading.Event()

    def hold(_ids):
        reached.set()
        go.wait(30)

    network = on_gpu(backend, before=hold)
    same = RerankRequest(query="tides", documents=("the moon",))

    async def calls():
        first, second = (asyncio.ensure_future(backend.ascore(same)) for _ in range(2))
        while not reached.is_set():
            await asyncio.sleep(0)
        first.cancel()
        await asyncio.wait([first])
        go.set()
        return await second

    assert asyncio.run(calls()).values
    assert [rows for rows, _ in network.shapes] == [2]


def test_halves_of_a_cancelled_call_are_not_run(folder):
    """The halves of a batch that ran out of memory must be dropped if its call was cancelled meanwhile."""
    backend = TorchCrossEncoder(folder)
    reached, go = threading.Event(), threading.Event()

    def full(_ids):
        import torch

        reached.set()
        go.wait(30)
        raise torch.OutOfMemoryError("CUDA out of memory.")

    network = on_gpu(backend, before=full)
    same = RerankRequest(query="tides", documents=tuple(f"{word} moon" for word in "abcdefgh"))

    async def call():
        running = asyncio.ensure_future(backend.ascore(same))
        while not reached.is_set():
            await asyncio.sleep(0)
        running.cancel()
        await asyncio.wait([running])
        go.set()
        await backend.shared_model.workers.run(lambda: None)

    asyncio.run(call())
    assert len(network.shapes) == 1
    assert network.shapes[0][0] > 1


def test_row_too_large_for_the_gpu_fails_only_its_own_call(folder, alone):
    """Other calls in the same batch must be run again without the row that does not fit."""
    long = RerankRequest(query=REQUESTS[0].query, documents=(" ".join(WORDS[:17]), REQUESTS[0].documents[0]))
    backend = TorchCrossEncoder(folder, batch_tokens=512)
    longest = 0

    def small(ids):
        import torch

        nonlocal longest
        longest = longest or ids.shape[1]  # the longest row, which is run first
        if ids.size > 60 or ids.shape[1] == longest:
            raise torch.OutOfMemoryError("CUDA out of memory.")

    on_gpu(backend, before=small)
    failed, *others = asyncio.run(call_concurrently(backend, [long, *REQUESTS]))
    assert isinstance(failed, BackendError)
    assert "out of memory" in str(failed)
    for scores, expected in zip(others, alone, strict=True):
        assert scores.values == near(expected)


def test_shorter_rows_are_padded_with_the_models_padding_token(folder):
    backend, seen = TorchCrossEncoder(folder), []
    on_gpu(backend, before=lambda ids: seen.append(ids.copy()))
    model = backend.shared_model
    mask = Tokenizer.from_file(str(folder / "tokenizer.json")).token_to_id("[MASK]")  # occurs in no text
    text = "the moon and the sun pull the sea " * 3
    model.limits, own = replace(model.limits, pad=mask), model.limits
    try:
        asyncio.run(backend.ascore(RerankRequest(query="how do the tides work", documents=(text, f"{text} sea"))))
    finally:
        model.limits = own
    (ids,) = seen
    assert (ids == mask).sum(axis=1).tolist() == [0, 1], "the longest first"
    assert ids[1, -1] == mask


def test_batches_are_not_halved_on_a_cpu(folder):
    backend = TorchCrossEncoder(folder)

    def full(_ids):
        import torch

        raise torch.OutOfMemoryError("out of memory")

    network = on_gpu(backend, on_gpu=False, before=full)
    same = RerankRequest(query="tides", documents=("the moon", "the star", "the tree", "the lake"))
    with pytest.raises(BackendError, match="out of memory"):
        asyncio.run(backend.ascore(same))
    assert len(network.shapes) == 1
    assert network.shapes[0][0] > 1
    assert backend.shared_model._fitting_tokens is None


def test_smallest_fitting_batch_size_is_remembered(folder):
    backend = TorchCrossEncoder(folder)
    network, model, safe = on_gpu(backend), backend.shared_model, []

    def full():
        import torch

        raise torch.OutOfMemoryError("CUDA out of memory.")

    for size in (100, 40, 100, 1):
        assert model.run_batch(network, full, size=size, divisible=True) is None
        safe.append(model.batch_limit(network, None))
    assert safe == [50, 20, 20, 1]
    assert model.batch_limit(network, 16) == 1


def test_other_error_fails_exactly_the_calls_of_its_batch(folder, alone):
    """An error kept in the shared queue would fail later calls too."""
    backend = TorchCrossEncoder(folder, batch_tokens=512)
    short = RerankRequest(query="tides", documents=("the moon",))
    long = RerankRequest(query="tides", documents=(" ".join(WORDS[:17]),))
    expected = asyncio.run(backend.ascore(long)).values

    def broken(ids):
        if len(ids) == 2:
            raise ValueError("broken")

    on_gpu(backend, before=broken)
    first, second, third = asyncio.run(call_concurrently(backend, [short, short, long]))
    assert third.values == near(expected)
    assert isinstance(first, BackendError)
    assert isinstance(second, BackendError)
    assert first is not second, "each caller gets its own error"
    assert isinstance(first.__cause__, ValueError)
    on_gpu(backend)
    assert asyncio.run(backend.ascore(REQUESTS[0])).values == near(alone[0])


class _LargeTensor:
    """A tensor that a batch holds while it is computed."""


@pytest.mark.parametrize("kind", [ValueError, StopIteration, TimeoutError, IndexError])
def test_any_exception_ends_each_call_of_a_batch_with_its_own_error(kind, folder):
    backend = TorchCrossEncoder(folder)
    references = []

    def broken(_ids):
        large = _LargeTensor()
        references.append(weakref.ref(large))
        if kind is not IndexError:
            raise kind("broken")

    network = on_gpu(backend, before=broken)
    if kind is IndexError:
        network.run = lambda *_: network._before(_) or np.float32(0.0)  # an array without rows
    same = RerankRequest(query="tides", documents=("the moon", "a clock"))

    async def calls():
        running = [asyncio.ensure_future(backend.ascore(same)) for _ in range(4)]
        _, hanging = await asyncio.wait(running, timeout=30)
        assert not hanging
        return [each.exception() for each in running]

    gc.disable()
    try:
        outcomes = asyncio.run(calls())
        assert references
        assert not any(large() for large in references), "an error must not keep the tensors of its batch alive"
    finally:
        gc.enable()
    assert len({id(each) for each in outcomes}) == 4
    for each in outcomes:
        assert isinstance(each, BackendError)
        assert isinstance(each.__cause__, kind)
        assert each.__context__ is None
    raised_by = {frame.name for each in outcomes for frame in traceback.extract_tb(each.__cause__.__traceback__)}
    assert "map_rows" not in raised_by, "the tracebacks of callers must not grow into each other"
    assert not backend.shared_model.queues


def test_output_without_scores_fails_each_call_of_the_batch(folder):
    backend = TorchCrossEncoder(folder)
    network = on_gpu(backend)
    network.run = lambda ids, *_: np.zeros((len(ids), 3), np.float32)
    same = RerankRequest(query="tides", documents=("the moon",))
    values = asyncio.run(call_concurrently(backend, [same] * 3))
    assert all(isinstance(each, ConfigError) for each in values)
    assert len({id(each) for each in values}) == 3


def test_call_that_cannot_be_queued_again_ends(folder, monkeypatch):
    """As at the end of the interpreter, when executors refuse work: the caller would wait forever."""
    backend = TorchCrossEncoder(folder, batch_tokens=16)
    on_gpu(backend)
    workers = backend.shared_model.workers
    through, main = workers.submit, threading.current_thread()

    def submit(*arguments):
        if threading.current_thread() is not main:
            raise RuntimeError("cannot schedule new futures after shutdown")
        return through(*arguments)

    monkeypatch.setattr(workers, "submit", submit)
    with pytest.raises(BackendError, match="after shutdown"):
        asyncio.run(asyncio.wait_for(backend.ascore(REQUESTS[0]), 30))


def test_call_whose_rows_ran_in_another_batch_ends_before_its_turn(folder):
    """A call must not wait for its place in the queue if another batch has computed all its rows."""
    backend = TorchCrossEncoder(folder)
    first, last = (RerankRequest(query="tides", documents=("the moon",)) for _ in range(2))
    long = RerankRequest(query="tides", documents=(" ".join(WORDS[:17]),))
    answered = threading.Event()

    def wait_for_the_last_call(ids):
        if ids.shape[1] > 10:
            answered.wait(30)

    network = on_gpu(backend, before=wait_for_the_last_call)

    async def calls():
        running = [asyncio.ensure_future(backend.ascore(each)) for each in (first, long, last)]
        await asyncio.wait([running[2]], timeout=10)
        before = running[2].done() and not running[1].done()
        answered.set()
        await asyncio.gather(*running)
        return before

    assert asyncio.run(calls())
    assert [rows for rows, _ in network.shapes] == [2, 1]


def test_call_of_a_closed_loop_is_dropped_and_freed(folder):
    """The result of a call whose loop is closed cannot be delivered; its rows must not be computed."""
    backend = TorchCrossEncoder(folder, batch_tokens=16)
    reached, go = threading.Event(), threading.Event()

    def hold(_ids):
        reached.set()
        go.wait(30)

    network = on_gpu(backend, before=hold)
    loop = asyncio.new_event_loop()

    async def begin():
        call = asyncio.ensure_future(backend.ascore(REQUESTS[0]))
        while not reached.is_set():
            await asyncio.sleep(0)
        assert not call.done()

    loop.run_until_complete(begin())
    (reference,) = map(weakref.ref, backend.shared_model.queues)
    loop.close()
    go.set()
    for _ in range(2):  # all queued batches are finished
        backend.shared_model.workers.submit(lambda: None).result(30)
    assert len(network.shapes) == 1
    gc.collect()
    assert reference() is None
    assert not backend.shared_model.admission.inside


async def test_garbage_collector_may_end_a_call_during_take():
    """A collection while rows are taken may close the call that owns them, on the same thread."""

    class _Ending:
        @property
        def ids(self):
            call.leave()
            return range(20)

    call = row_queue(20, 20)
    call.rows = [_Ending(), _Ending()]
    other = row_queue(20)
    rows = []
    thread = threading.Thread(target=lambda: rows.extend(next_batch(other, [call], 100)), daemon=True)
    thread.start()
    thread.join(30)
    assert [each for each, _ in rows if not each.over] == [other]
    assert not call.has_waiting_rows


@dataclass
class _Row:
    ids: range


def row_queue(*lengths, batch_tokens=None):
    return RowQueue([_Row(range(length)) for length in lengths], batch_tokens, lambda positions, output: None)


async def test_next_batch_takes_rows_of_similar_length_from_other_calls():
    first, second, third = row_queue(10, 20, 19), row_queue(30, 20, 18, 5), row_queue(20, 20)
    other = row_queue(20, batch_tokens=64)
    calls = [first, second, third, other]
    # 20 and 19 of the first call; rows of similar length of the second; of the third as many as fit.
    assert next_batch(first, calls, 100) == [(first, 1), (first, 2), (second, 1), (second, 2), (third, 0)]
    assert next_batch(third, calls, 100) == [(third, 1)]
    assert next_batch(third, calls, 100) == []
    assert next_batch(second, calls, 100) == [(second, 0)]
    assert next_batch(first, calls, 100) == [(first, 0)]
    assert next_batch(other, calls, 8) == [(other, 0)], "a row above the limit runs alone"
    second.leave()
    assert next_batch(second, calls, 100) == []


async def test_failed_call_gets_no_more_batches():
    call, other = row_queue(20, 20, 20), row_queue(20)
    assert next_batch(call, [], 20) == [(call, 0)]
    call.fail(ValueError("first"))
    call.fail(ValueError("second"))
    call.store([0], np.zeros(1))
    assert str(call.done.result()) == "first"
    assert call.over
    assert not call.has_waiting_rows
    assert next_batch(other, [call], 100) == [(other, 0)]


async def test_single_call_gets_the_batches_of_length_batches():
    chance = random.Random(7)
    for _ in range(200):
        lengths = [chance.randint(1, 60) for _ in range(chance.randint(1, 40))]
        batch_tokens = chance.randint(16, 300)
        call, batches = row_queue(*lengths), []
        while call.has_waiting_rows:
            batches.append([position for _, position in next_batch(call, [], batch_tokens)])
        assert batches == length_batches(lengths, batch_tokens)


async def test_long_and_short_calls_do_not_starve_each_other():
    """Served strictly in order, a long call would delay every short one behind it."""
    long, short, again = row_queue(*[20] * 1000), row_queue(40, 8), row_queue(*[20] * 10)
    calls = [long, short, again]
    ran, queue = [], deque(calls)  # the worker's queue: each call is in it once
    while queue:
        ran.append(next_batch(queue[0], calls, 100))
        queue.rotate(-1)
        if not queue[-1].has_waiting_rows:
            queue.pop()
    ran = [rows for rows in ran if rows]
    ends = {
        call: max(place for place, rows in enumerate(ran) if any(each is call for each, _ in rows)) for call in calls
    }
    assert ends[short] < 6
    assert ends[again] < 8
    assert ran[0][0][0] is long, "the first call is served first"
    assert sum(map(len, ran)) == 1012
