"""A child forked while another thread of its parent holds a lock must not wait for that thread, which it lacks."""

from __future__ import annotations

import asyncio
import os
import signal
import threading
from collections.abc import Callable
from typing import Any

import pytest
from support.scripted import REQUEST, Scripted

from rerank_plugins.backends.embedded import FOLDER
from rerank_plugins.config.load import _table_lock, shared
from rerank_plugins.core._runtime.background_loop import Workers
from rerank_plugins.core._runtime.fork_hooks import reset_after_fork
from rerank_plugins.core.credentials import FunctionKey
from rerank_plugins.core.stats import Counters
from rerank_plugins.engine import shared_model
from rerank_plugins.engine.late_interaction.passage_cache import PassageCache
from rerank_plugins.engine.onnx.cross_encoder import OnnxModel
from rerank_plugins.engine.shared_model import LoadOptions, SharedModel
from rerank_plugins.engine.torch.cross_encoder import CrossEncoderModel
from rerank_plugins.policies.cache import Cache
from rerank_plugins.policies.memory_store import MemoryStore
from rerank_plugins.policies.rate_limit import RateLimit, _windows

pytestmark = pytest.mark.skipif(not hasattr(os, "fork"), reason="this system has no fork")


MODELS: dict[str, Callable[[], Any]] = {
    "ONNX": lambda: OnnxModel.shared(FOLDER),
    "torch": lambda: CrossEncoderModel.shared(FOLDER, LoadOptions()),
}
"""Shared models by engine. Neither loads its weights before the first use."""


def cases() -> dict[str, tuple[Any, Callable[[], object]]]:
    """Return, by name, a lock and a call that acquires it."""
    counters, store, vectors = Counters(), MemoryStore(9), PassageCache(9)
    cache = Cache(Scripted(), MemoryStore(9), "x")
    limit = RateLimit(Scripted(), "forked", requests_per_minute=9)
    workers = Workers(1, "forked")
    return {
        "counters": (counters._lock, counters.as_dict),
        "memory": (store._lock, lambda: store.put({b"a": "1"})),
        "vectors": (vectors._lock, lambda: vectors.get(b"a")),
        "cache": (cache._lock, lambda: asyncio.run(cache.ascore(REQUEST))),
        "table of rerankers": (_table_lock, lambda: shared("lexical")),
        "table of models": (SharedModel._table_lock, MODELS["ONNX"]),
        "workers": (workers._lock, lambda: workers.submit(int).result()),
        "an account's minute": (_windows.of("forked")._lock, lambda: asyncio.run(limit.ascore(REQUEST))),
    }


@pytest.mark.parametrize("name", cases())
def test_child_forked_under_a_held_lock_can_acquire_it(name: str) -> None:
    """Without a fork hook the child inherits a locked lock that no thread of its own can release."""
    lock, use = cases()[name]
    held, done = threading.Event(), threading.Event()

    def hold() -> None:
        with lock:
            held.set()
            done.wait(30.0)

    thread = threading.Thread(target=hold)
    thread.start()
    held.wait(30.0)
    child = os.fork()
    if not child:
        signal.alarm(10)  # ends a child that blocks on the lock
        use()
        os._exit(0)
    status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    done.set()
    thread.join(30.0)
    assert status == 0


@pytest.mark.parametrize("kind", MODELS)
def test_forked_child_loads_its_own_model_and_keeps_the_inherited_one(kind: str) -> None:
    """Freeing an inherited model in the child would join native threads that exist only in the parent."""
    model = MODELS[kind]()
    child = os.fork()
    if not child:
        signal.alarm(10)
        own = MODELS[kind]()
        os._exit(0 if own is not model and own.pid == os.getpid() and model in shared_model._inherited else 3)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    assert MODELS[kind]() is model


def test_each_of_several_equal_objects_is_reset() -> None:
    """Two keys of one function are equal. Each has a call under way that never ends in the child."""
    keys = [FunctionKey(os.getpid), FunctionKey(os.getpid)]  # type: ignore[arg-type]  # never called
    assert keys[0] == keys[1]
    for key in keys:
        key._fetch = object()  # type: ignore[assignment]
    child = os.fork()
    if not child:
        os._exit(sum(key._fetch is not None for key in keys))
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0


def test_object_that_cannot_be_hashed_is_reset_and_an_object_that_is_gone_is_forgotten() -> None:
    class Unhashable(list[int]):
        def _reset(self) -> None:
            self.append(1)

    held, gone = Unhashable(), Unhashable()
    reset_after_fork(held)
    reset_after_fork(gone)
    del gone
    child = os.fork()
    if not child:
        os._exit(0 if held == [1] else 3)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
