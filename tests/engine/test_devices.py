"""A model on several devices: copies share the batches of a call.

This machine has no GPU, so the copies stand on the CPU.
"""

from __future__ import annotations

import asyncio
import gc
import shutil
import threading
import weakref

import pytest
from support.bounds import near
from support.checkpoints import checkpoint
from support.language_models import language_model, listwise
from support.models import SENTENCES

from rerank_plugins import BackendError, ConfigError, load_reranker
from rerank_plugins.core.devices import devices
from rerank_plugins.core.types import RerankRequest
from rerank_plugins.engine.causal_lm.backend import CausalLM
from rerank_plugins.engine.listwise.backend import Listwise
from rerank_plugins.engine.shared_model import LoadOptions, length_batches
from rerank_plugins.engine.torch.cross_encoder import TorchCrossEncoder

WORDS = " ".join(SENTENCES).split()
DOCUMENTS = tuple(" ".join(WORDS[start : start + 1 + start % 13]) for start in range(40))
REQUEST = RerankRequest(query="how do the tides work", documents=DOCUMENTS)
TWO = ("cpu:0", "cpu:1")
"""Two names of the CPU: one device for torch, two for this package. A spec refuses them, as they gain no speed."""


@pytest.fixture(scope="module")
def checkpoint_folder(tmp_path_factory):
    return checkpoint(tmp_path_factory.mktemp("devices") / "bert", "bert")


@pytest.fixture
def folder(checkpoint_folder, tmp_path):
    """Return a folder for one test: the process shares models by folder, and these tests replace parts of the model."""
    return shutil.copytree(checkpoint_folder, tmp_path / "bert")


def on_two_devices(backend, **options):
    backend._copies = [LoadOptions(device=each, **options) for each in TWO]
    backend._models = []
    return backend


class _LoggingNetwork:
    """A network that logs its batches. It can be made to wait, to fail or to run out of memory."""

    on_gpu, dtype, limit = False, "float32", 10**9

    def __init__(self, inner, log, before=lambda: None):
        self._inner, self._log, self._before = inner, log, before

    def run(self, ids, mask, types):
        import torch

        self._log.append((self, ids.size, ids.shape))
        self._before()
        if ids.size > self.limit:
            raise torch.OutOfMemoryError("CUDA out of memory.")
        return self._inner.run(ids, mask, types)

    def is_out_of_memory(self, error):
        return self._inner.is_out_of_memory(error)

    def free(self):
        pass


def log_batches(backend, *before):
    log = []
    for model, each in zip(backend.shared_models, before, strict=True):
        model._network = _LoggingNetwork(model.network, log, each)
    return log, [model._network for model in backend.shared_models]


def do_nothing():
    pass


def test_two_copies_give_the_scores_of_one_copy(folder):
    alone = asyncio.run(TorchCrossEncoder(folder, device="cpu").ascore(REQUEST))
    backend = on_two_devices(TorchCrossEncoder(folder, batch_tokens=64))
    first, second = backend.shared_models
    assert first is not second
    met = threading.Barrier(2, timeout=30)
    once = [threading.Event(), threading.Event()]

    def meet(own):
        if not own.is_set():  # each device holds its first batch until the other has one
            own.set()
            met.wait()

    log, networks = log_batches(backend, *(lambda own=own: meet(own) for own in once))
    scores = asyncio.run(backend.ascore(REQUEST))
    assert scores.values == near(alone.values)
    assert scores.truncated == alone.truncated
    assert {each for each, *_ in log} == set(networks)
    assert sum(rows for *_, (rows, _) in log) == len(DOCUMENTS), "no document is computed twice"


def test_free_device_takes_the_next_longest_batch(folder):
    backend = on_two_devices(TorchCrossEncoder(folder, batch_tokens=64))
    done = threading.Event()
    log, (slow, fast) = log_batches(backend, lambda: done.wait(30), do_nothing)
    rows = backend.shared_model.tokenizer.pairs(REQUEST.query, DOCUMENTS, backend.capabilities.max_tokens)
    batches = len(length_batches([len(row.ids) for row in rows], 64))

    async def call():
        running = asyncio.ensure_future(backend.ascore(REQUEST))
        while len(log) < batches and not running.done():
            await asyncio.sleep(0)
        done.set()
        return await running

    asyncio.run(call())
    assert [each for each, *_ in log].count(slow) == 1
    assert [each for each, *_ in log].count(fast) == batches - 1 > 3
    lengths = [length for *_, (_, length) in log]
    assert lengths[1:] == sorted(lengths[1:], reverse=True)


def test_error_on_one_device_ends_the_call(folder):
    """The other device must not go on with batches of a call that has failed or was cancelled."""
    backend = on_two_devices(TorchCrossEncoder(folder, batch_tokens=16))

    def broken():
        raise ValueError("broken")

    log, _ = log_batches(backend, broken, do_nothing)
    with pytest.raises(BackendError, match="broken"):
        asyncio.run(backend.ascore(REQUEST))
    assert len(log) < len(DOCUMENTS)

    backend = on_two_devices(TorchCrossEncoder(folder, batch_tokens=16))
    release = threading.Event()
    log, _ = log_batches(backend, lambda: release.wait(30), lambda: release.wait(30))

    async def call():
        running = asyncio.ensure_future(backend.ascore(REQUEST))
        while len(log) < 2:
            await asyncio.sleep(0)
        running.cancel()
        with pytest.raises(asyncio.CancelledError):
            await running
        release.set()
        for model in backend.shared_models:
            await model.workers.run(do_nothing)

    asyncio.run(call())
    assert len(log) == 2


def test_full_device_gets_half_batches_while_the_other_continues(folder):
    alone = asyncio.run(TorchCrossEncoder(folder, device="cpu").ascore(REQUEST))
    backend = on_two_devices(TorchCrossEncoder(folder, batch_tokens=200))
    both = threading.Barrier(2, timeout=30)
    once = [threading.Event(), threading.Event()]

    def meet(own):
        if not own.is_set():
            own.set()
            both.wait()

    _, (small, large) = log_batches(backend, *(lambda own=own: meet(own) for own in once))
    small.on_gpu = large.on_gpu = True
    small.limit = 60
    assert asyncio.run(backend.ascore(REQUEST)).values == near(alone.values)
    first, second = backend.shared_models
    assert first._fitting_tokens is not None
    assert second._fitting_tokens is None


def test_copies_are_shared_and_freed_with_their_last_reranker(folder):
    backend, other = on_two_devices(TorchCrossEncoder(folder)), on_two_devices(TorchCrossEncoder(folder))
    asyncio.run(backend.ascore(REQUEST))
    networks = [weakref.ref(each.network) for each in backend.shared_models]
    assert backend.shared_models == other.shared_models
    asyncio.run(backend.aclose())
    gc.collect()
    assert all(each() is not None for each in networks)
    asyncio.run(other.aclose())
    gc.collect()
    assert all(each() is None for each in networks)


def test_warmup_loads_every_copy(folder):
    backend = on_two_devices(TorchCrossEncoder(folder, dtype="bfloat16"), dtype="bfloat16")
    asyncio.run(backend.awarmup())
    assert [model._network is not None for model in backend.shared_models] == [True, True]
    assert backend.shared_models[1]._preprocessor is None, "one tokenizer is enough"


def test_language_model_runs_on_two_devices(tmp_path):
    model = language_model(tmp_path / "qwen3", "qwen3")
    alone = CausalLM(model, template="qwen3", device="cpu")
    backend = on_two_devices(CausalLM(model, template="qwen3", batch_tokens=40), template="qwen3")
    expected = asyncio.run(alone.ascore(REQUEST)).values
    assert asyncio.run(backend.ascore(REQUEST)).values == near(expected)
    assert all(each._network is not None for each in backend.shared_models)


def test_list_of_one_device_equals_that_device(folder, cross_encoder_folder):
    one, same = (TorchCrossEncoder(folder, device=each) for each in ("cpu", ["cpu"]))
    assert one.shared_models == same.shared_models
    with (
        load_reranker(f"onnx:{cross_encoder_folder}", device=["cpu"]) as reranker,
        load_reranker(f"ms-marco:{cross_encoder_folder}", device=["cpu"]) as family,
    ):
        for each in (reranker, family):
            assert "onnxruntime" in each.rerank("tides", SENTENCES).model
    assert devices(["cuda:0", "cuda:1"]) == ("cuda:0", "cuda:1")


@pytest.mark.parametrize(
    ("device", "message"),
    [
        ([], "must not be an empty list. Name a device"),
        (["cuda:0", "cuda:0"], "'cuda:0' twice.*once"),
        (["cuda", "cuda:1"], "'cuda' beside others.*by its number"),
        (["auto", "cuda:1"], "'auto' beside others.*by its number"),
        (["cpu:0", "cpu:1"], "'cpu:0' beside others: several devices are GPUs"),
        (["cuda:0", "xpu:0"], "cuda and xpu.*one kind"),
        (["cuda:0", 1], "1 beside others"),
        ({"cuda": 0}, "must be a name"),
        (["abacus:0", "abacus:1"], "device 'abacus:[01]' cannot be used here.*try 'cpu'"),
        (["abacus"], "device 'abacus' cannot be used here"),
    ],
)
def test_unavailable_devices_are_refused_with_their_names(device, message, folder):
    with (
        pytest.raises(ConfigError, match=message),
        load_reranker(f"sentence-transformers:{folder}", device=device) as reranker,
    ):
        reranker.warmup()


def test_model_for_one_device_refuses_a_list(tmp_path, cross_encoder_folder):
    model = listwise(tmp_path / "jina")
    with pytest.raises(ConfigError, match=r"runs on one device.*name one"):
        Listwise(model, device=["cuda:0", "cuda:1"])
    with pytest.raises(ConfigError, match=r"^device must be one of auto or cpu"):
        load_reranker(f"onnx:{cross_encoder_folder}", device=["cuda:0", "cuda:1"])
