"""A model on several devices: copies share the batches of a call. This machine has no GPU, so the copies stand on the CPU."""

from __future__ import annotations

import asyncio
import gc
import shutil
import threading
import weakref

import pytest
from bounds import near
from checkpoints import checkpoint
from language_models import language_model, listwise
from models import SENTENCES

from rerank_plugins import BackendError, ConfigError, load_reranker
from rerank_plugins.core.devices import devices
from rerank_plugins.core.types import RerankRequest
from rerank_plugins.engine.causal_lm.backend import CausalLM
from rerank_plugins.engine.listwise.backend import Listwise
from rerank_plugins.engine.scheduling import plan
from rerank_plugins.engine.shared_model import LoadOptions
from rerank_plugins.engine.torch.backend import TorchCrossEncoder

WORDS = " ".join(SENTENCES).split()
DOCUMENTS = tuple(" ".join(WORDS[start : start + 1 + start % 13]) for start in range(40))
REQUEST = RerankRequest(query="how do the tides work", documents=DOCUMENTS)
TWO = ("cpu:0", "cpu:1")
"""To torch both are the CPU, to us two devices; a spec may not say so, because it wins nothing."""


@pytest.fixture(scope="module")
def made_once(tmp_path_factory):
    return checkpoint(tmp_path_factory.mktemp("devices") / "bert", "bert")


@pytest.fixture
def folder(made_once, tmp_path):
    """Return a folder of each test's own: the process shares models by folder, and tests replace parts of theirs."""
    return shutil.copytree(made_once, tmp_path / "bert")


def on_two(made, **options):
    made._copies = [LoadOptions(device=each, **options) for each in TWO]
    made._held = []
    return made


class _Watched:
    """A network that tells what it is given, and can be made to wait, to fail or to be small."""

    on_gpu, dtype, most = False, "float32", 10**9

    def __init__(self, inner, log, before=lambda: None):
        self._inner, self._log, self._before = inner, log, before

    def run(self, ids, mask, types):
        import torch

        self._log.append((self, ids.size, ids.shape))
        self._before()
        if ids.size > self.most:
            raise torch.OutOfMemoryError("CUDA out of memory.")
        return self._inner.run(ids, mask, types)

    def exhausted(self, error):
        return self._inner.exhausted(error)

    def free(self):
        pass


def watched(made, *before):
    log = []
    for model, each in zip(made.shared_models, before, strict=True):
        model._network = _Watched(model.network, log, each)
    return log, [model._network for model in made.shared_models]


def nothing():
    pass


def test_two_copies_give_the_scores_of_one(folder):
    alone = asyncio.run(TorchCrossEncoder(folder, device="cpu").ascore(REQUEST))
    made = on_two(TorchCrossEncoder(folder, batch_tokens=64))
    first, second = made.shared_models
    assert first is not second
    met = threading.Barrier(2, timeout=30)
    once = [threading.Event(), threading.Event()]

    def meet(own):
        if not own.is_set():  # each holds its first batch until the other has one
            own.set()
            met.wait()

    log, networks = watched(made, *(lambda own=own: meet(own) for own in once))
    scores = asyncio.run(made.ascore(REQUEST))
    assert scores.values == near(alone.values)
    assert scores.truncated == alone.truncated
    assert {each for each, *_ in log} == set(networks)
    assert sum(rows for *_, (rows, _) in log) == len(DOCUMENTS), "no document is run twice"


def test_whoever_is_free_takes_the_next_batch_longest_first(folder):
    made = on_two(TorchCrossEncoder(folder, batch_tokens=64))
    done = threading.Event()
    log, (slow, fast) = watched(made, lambda: done.wait(30), nothing)
    rows = made.shared_model.tokenizer.pairs(REQUEST.query, DOCUMENTS, made.capabilities.max_tokens)
    batches = len(plan([len(row.ids) for row in rows], 64))

    async def call():
        running = asyncio.ensure_future(made.ascore(REQUEST))
        while len(log) < batches and not running.done():
            await asyncio.sleep(0)
        done.set()
        return await running

    asyncio.run(call())
    assert [each for each, *_ in log].count(slow) == 1
    assert [each for each, *_ in log].count(fast) == batches - 1 > 3
    lengths = [length for *_, (_, length) in log]
    assert lengths[1:] == sorted(lengths[1:], reverse=True)


def test_an_error_on_one_ends_the_call_and_a_cancelled_call_leaves_a_batch_a_device(folder):
    made = on_two(TorchCrossEncoder(folder, batch_tokens=16))

    def broken():
        raise ValueError("broken")

    log, _ = watched(made, broken, nothing)
    with pytest.raises(BackendError, match="broken"):
        asyncio.run(made.ascore(REQUEST))
    assert len(log) < len(DOCUMENTS)

    made = on_two(TorchCrossEncoder(folder, batch_tokens=16))
    held = threading.Event()
    log, _ = watched(made, lambda: held.wait(30), lambda: held.wait(30))

    async def call():
        running = asyncio.ensure_future(made.ascore(REQUEST))
        while len(log) < 2:
            await asyncio.sleep(0)
        running.cancel()
        with pytest.raises(asyncio.CancelledError):
            await running
        held.set()
        for model in made.shared_models:
            await model.workers.run(nothing)

    asyncio.run(call())
    assert len(log) == 2


def test_a_device_that_is_full_gets_halves_and_the_other_goes_on(folder):
    alone = asyncio.run(TorchCrossEncoder(folder, device="cpu").ascore(REQUEST))
    made = on_two(TorchCrossEncoder(folder, batch_tokens=200))
    both = threading.Barrier(2, timeout=30)
    once = [threading.Event(), threading.Event()]

    def meet(own):
        if not own.is_set():
            own.set()
            both.wait()

    _, (small, large) = watched(made, *(lambda own=own: meet(own) for own in once))
    small.on_gpu = large.on_gpu = True
    small.most = 60
    assert asyncio.run(made.ascore(REQUEST)).values == near(alone.values)
    first, second = made.shared_models
    assert first._largest is not None
    assert second._largest is None


def test_copies_are_shared_and_leave_with_who_holds_them(folder):
    made, other = on_two(TorchCrossEncoder(folder)), on_two(TorchCrossEncoder(folder))
    asyncio.run(made.ascore(REQUEST))
    networks = [weakref.ref(each.network) for each in made.shared_models]
    assert made.shared_models == other.shared_models
    asyncio.run(made.aclose())
    gc.collect()
    assert all(each() is not None for each in networks)
    asyncio.run(other.aclose())
    gc.collect()
    assert all(each() is None for each in networks)


def test_warmup_loads_every_copy(folder):
    made = on_two(TorchCrossEncoder(folder, dtype="bfloat16"), dtype="bfloat16")
    asyncio.run(made.awarmup())
    assert [model._network is not None for model in made.shared_models] == [True, True]
    assert made.shared_models[1]._reader is None, "one tokenizer is enough"


def test_language_models_too(tmp_path):
    model = language_model(tmp_path / "qwen3", "qwen3")
    alone = CausalLM(model, template="qwen3", device="cpu")
    made = on_two(CausalLM(model, template="qwen3", batch_tokens=40), template="qwen3")
    expected = asyncio.run(alone.ascore(REQUEST)).values
    assert asyncio.run(made.ascore(REQUEST)).values == near(expected)
    assert all(each._network is not None for each in made.shared_models)


def test_one_device_in_a_list_is_that_device(folder, cross_encoder_folder):
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
    ("device", "told"),
    [
        ([], "names nothing: name a device"),
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
def test_devices_that_cannot_be_had_are_said(device, told, folder):
    with (
        pytest.raises(ConfigError, match=told),
        load_reranker(f"sentence-transformers:{folder}", device=device) as reranker,
    ):
        reranker.warmup()


def test_what_runs_on_one_device_says_so(tmp_path, cross_encoder_folder):
    model = listwise(tmp_path / "jina")
    with pytest.raises(ConfigError, match=r"runs on one device.*name one"):
        Listwise(model, device=["cuda:0", "cuda:1"])
    with pytest.raises(ConfigError, match=r"^device must be one of auto or cpu"):
        load_reranker(f"onnx:{cross_encoder_folder}", device=["cuda:0", "cuda:1"])
