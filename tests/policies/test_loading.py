"""A cold model under a deadline: it loads once in the background, and a fallback answers in the meantime."""

from __future__ import annotations

import asyncio
import re
import subprocess
import sys
import textwrap
import threading
from collections.abc import Iterator

import pytest

from rerank_plugins import DeadlineExceeded, Reranker, load_reranker
from rerank_plugins.config import registry
from rerank_plugins.core import Capabilities, LocalBackend
from rerank_plugins.core._runtime.background_loop import Workers

pytestmark = pytest.mark.thorough


class Slow(LocalBackend):
    """Its model takes as long to load as the test wants, in two steps, as a tokenizer and weights do."""

    model = "slow"
    capabilities = Capabilities(scale="unit")
    steps = 0
    begun = threading.Event()
    may_end = threading.Event()
    errors: list[Exception] = []  # noqa: RUF012 (of the one model in memory)

    def __init__(self) -> None:
        super().__init__()
        self.loader = Workers(1, "slow-loader")

    @classmethod
    def load(cls) -> None:
        cls.begun.set()
        assert cls.may_end.wait(60.0)
        if cls.errors:
            raise cls.errors.pop()
        cls.steps += 1

    async def awarmup(self) -> None:
        await self.loader.run(self.load)
        await self.loader.run(self.load)

    async def ascore(self, request):
        if not self.steps:
            await self.awarmup()
        return await super().ascore(request)

    def score(self, query, documents):
        return [float(query in document) for document in documents]


@pytest.fixture(autouse=True)
def _slow(monkeypatch) -> Iterator[None]:
    monkeypatch.setitem(registry.BUILTIN, "slow", registry.BackendEntry(f"{__name__}:Slow", "a test's", "local"))
    Slow.steps = 0
    Slow.errors.clear()
    Slow.begun.clear()
    Slow.may_end.clear()
    yield
    Slow.may_end.set()


SPEC = {"use": "slow", "deadline": 0.3, "fallback": ["lexical", "passthrough"]}
DOCUMENTS = ["bananas", "the moon"]


def loaded(reranker: Reranker) -> None:
    """Let it load to its end, and wait for that without asking the reranker anything."""
    inner = reranker.scorer
    while not hasattr(inner, "_loaded"):
        inner = inner.children[0]
    future = inner._future
    Slow.may_end.set()
    if future is not None:
        future.exception(60.0)


def sync(reranker: Reranker):
    return reranker.rerank("moon", DOCUMENTS)


def on_a_loop_that_ends(reranker: Reranker):
    return asyncio.run(reranker.arerank("moon", DOCUMENTS))


@pytest.mark.parametrize("face", [sync, on_a_loop_that_ends])
def test_the_fallback_answers_only_while_the_model_loads_once(face) -> None:
    with load_reranker(SPEC) as reranker:
        for _ in range(3):
            answer = face(reranker)
            # A machine that is very busy may not even answer with lexical in time.
            assert answer.degraded
            assert answer.model in ("lexical", "passthrough")
            assert re.match(
                rf"{answer.model} answered in place of slow: slow was still loading its model when the last 0\.\d+ s "
                r"of its deadline had passed\. Loading continues in the background",
                answer.reason,
            )
            assert (answer.attempts[0].model, answer.attempts[0].outcome) == ("slow", "DeadlineExceeded")
        loaded(reranker)
        patient = Reranker(reranker.scorer.inner)  # without the deadline, which a busy machine may not keep
        answer = face(patient)
        assert (answer.model, answer.degraded, Slow.steps) == ("slow", False, 2)
        assert face(patient).model == "slow"
        assert Slow.steps == 2


def test_without_a_fallback_the_error_names_the_loading() -> None:
    with load_reranker({"use": "slow", "deadline": 0.2}) as reranker:
        with pytest.raises(DeadlineExceeded, match=r"still loading its model .* `warmup\(\)`"):
            sync(reranker)
        loaded(reranker)
        assert sync(Reranker(reranker.scorer.inner)).model == "slow"


def test_a_cancelled_caller_does_not_stop_the_loading() -> None:
    with load_reranker(SPEC | {"deadline": 60.0}) as reranker:

        async def work() -> None:
            call = asyncio.create_task(reranker.arerank("moon", DOCUMENTS))
            await asyncio.to_thread(Slow.begun.wait, 60.0)
            call.cancel()
            with pytest.raises(asyncio.CancelledError):
                await call

        asyncio.run(work())
        loaded(reranker)
        assert Slow.steps == 2
        assert sync(reranker).model == "slow"


def test_the_next_call_loads_again_after_a_failure() -> None:
    Slow.may_end.set()
    Slow.errors[:] = [OSError("the disk"), OSError("the disk")]
    with load_reranker({"use": "slow", "deadline": 60.0}) as reranker:
        with pytest.raises(OSError, match="the disk"):
            sync(reranker)
        assert sync(reranker).model == "slow"


def test_after_warmup_nothing_is_loaded_again() -> None:
    Slow.may_end.set()
    with load_reranker(SPEC | {"deadline": 60.0}) as reranker:
        reranker.warmup()
        assert Slow.steps == 2
        assert sync(reranker).model == "slow"
        assert Slow.steps == 2


@pytest.mark.parametrize("spec", ["embedded", "embedded:balanced", "embedded:fast"])
def test_the_interpreter_exits_without_a_traceback_while_loading(spec: str) -> None:
    script = f"""
        from rerank_plugins import load_reranker
        import logging; logging.disable(logging.WARNING)
        reranker = load_reranker({{"use": {spec!r}, "deadline": 0.001, "fallback": ["passthrough"]}})
        print(reranker.rerank("moon", ["bananas", "the moon"]).degraded, flush=True)
        """
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(script)], capture_output=True, text=True, timeout=120, check=False
    )
    assert (done.stdout, done.stderr, done.returncode) == ("True\n", "", 0)


def test_the_embedded_model_answers_when_it_is_loaded() -> None:
    spec = {"use": "embedded", "deadline": 0.05, "fallback": ["lexical", "passthrough"]}
    with load_reranker(spec) as reranker:
        sync(reranker)
        loaded(reranker)
        # A deadline that any machine keeps: what is tested is that it is this reranker's model, and loaded.
        answer = Reranker(reranker.scorer.inner).rerank("moon", DOCUMENTS)
        assert answer.model.startswith("embedded")
        assert not answer.degraded
