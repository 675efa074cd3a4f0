"""A child forked while another thread of its parent held a lock: it has no such thread, and must not wait for it."""

from __future__ import annotations

import asyncio
import os
import signal
import threading
from collections.abc import Callable
from typing import Any

import pytest
from scripted import REQUEST, Scripted

from rerank_plugins.backends.embedded import FOLDER
from rerank_plugins.config.load import _table_lock, shared
from rerank_plugins.core.counters import Counters
from rerank_plugins.core.loop import Workers
from rerank_plugins.engine import shared_model
from rerank_plugins.engine.late_interaction.passage_cache import PassageCache
from rerank_plugins.engine.onnx.model import OnnxModel
from rerank_plugins.engine.shared_model import LoadOptions, SharedModel
from rerank_plugins.engine.torch.model import CrossEncoderModel
from rerank_plugins.policies.cache import Cache
from rerank_plugins.policies.limit import Limit, _windows
from rerank_plugins.policies.memory import MemoryStore

pytestmark = pytest.mark.skipif(not hasattr(os, "fork"), reason="this system has no fork")


MODELS: dict[str, Callable[[], Any]] = {
    "ONNX": lambda: OnnxModel.shared(FOLDER),
    "torch": lambda: CrossEncoderModel.shared(FOLDER, LoadOptions()),
}
"""Neither loads anything before it is used."""


def cases() -> dict[str, tuple[Any, Callable[[], object]]]:
    counters, store, vectors = Counters(), MemoryStore(9), PassageCache(9)
    cache = Cache(Scripted(), MemoryStore(9), "x")
    limit = Limit(Scripted(), "forked", requests_per_minute=9)
    workers = Workers(1, "forked")
    return {
        "counters": (counters._lock, counters.told),
        "memory": (store._lock, lambda: store.put({b"a": "1"})),
        "vectors": (vectors._lock, lambda: vectors.get(b"a")),
        "cache": (cache._lock, lambda: asyncio.run(cache.ascore(REQUEST))),
        "table of rerankers": (_table_lock, lambda: shared("lexical")),
        "table of models": (SharedModel._table_lock, MODELS["ONNX"]),
        "workers": (workers._lock, lambda: workers.submit(int).result()),
        "an account's minute": (_windows.of("forked")._lock, lambda: asyncio.run(limit.ascore(REQUEST))),
    }


@pytest.mark.parametrize("name", cases())
def test_a_child_finds_every_lock_open(name: str) -> None:
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
        signal.alarm(10)  # ends a child that waits
        use()
        os._exit(0)
    status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    done.set()
    thread.join(30.0)
    assert status == 0


@pytest.mark.parametrize("kind", MODELS)
def test_a_child_gets_a_model_of_its_own_and_never_frees_its_parent_s(kind: str) -> None:
    model = MODELS[kind]()
    child = os.fork()
    if not child:
        signal.alarm(10)
        own = MODELS[kind]()
        os._exit(0 if own is not model and own.pid == os.getpid() and model in shared_model._abandoned else 3)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    assert MODELS[kind]() is model
