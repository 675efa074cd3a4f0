"""Deadline: one limit for the whole call, in virtual time and with a server that does not answer."""

from __future__ import annotations

import asyncio
import contextvars
import time
from collections.abc import Iterator

import pytest
from support.scripted import HANG, REQUEST, Scripted
from support.virtual_time import virtually

from rerank_plugins import DeadlineExceeded, Reranker, RerankResponse, load_reranker
from rerank_plugins.core import Scores
from rerank_plugins.policies.deadline import Deadline, run_with_deadline, seconds_left
from rerank_plugins.testing.cohere_like import CohereLike
from rerank_plugins.testing.script import Drip, Hang, SlowHeaders, Status, Step


def test_a_hanging_backend_is_cancelled_at_the_deadline() -> None:
    error, took = virtually(lambda: Deadline(Scripted(HANG), 5.0).ascore(REQUEST))
    assert isinstance(error, DeadlineExceeded)
    assert took == pytest.approx(5.0)
    assert "within 5 s" in str(error)
    assert "Raise `deadline`" in str(error)


def test_an_answer_within_the_deadline_is_returned() -> None:
    answer, took = virtually(lambda: Deadline(Scripted(4.0), 5.0).ascore(REQUEST))
    assert isinstance(answer, Scores)
    assert took == pytest.approx(4.0)


def test_a_timeout_error_of_the_backend_is_not_the_deadline() -> None:
    own = TimeoutError("the backend's")
    error, _ = virtually(lambda: Deadline(Scripted(own), 5.0).ascore(REQUEST))
    assert error is own


def test_the_nearer_of_two_deadlines_counts() -> None:
    outer, took = virtually(lambda: Deadline(Deadline(Scripted(HANG), 9.0), 2.0).ascore(REQUEST))
    assert isinstance(outer, DeadlineExceeded)
    assert took == pytest.approx(2.0)
    inner, took = virtually(lambda: Deadline(Deadline(Scripted(HANG), 2.0), 9.0).ascore(REQUEST))
    assert isinstance(inner, DeadlineExceeded)
    assert took == pytest.approx(2.0)


def test_seconds_left_are_known_inside_the_deadline_only() -> None:
    seen = []

    class Looks(Scripted):
        async def ascore(self, request):
            seen.append(seconds_left())
            return await super().ascore(request)

    async def work() -> None:
        await Deadline(Looks(), 3.0).ascore(REQUEST)
        seen.append(seconds_left())

    virtually(work)
    assert seen == [pytest.approx(3.0), None]


@pytest.fixture
def server() -> Iterator[CohereLike]:
    with CohereLike() as running:
        yield running


def _sync(reranker: Reranker) -> RerankResponse:
    return reranker.rerank("tides", ["the moon", "bananas"])


def _async(reranker: Reranker) -> RerankResponse:
    return asyncio.run(reranker.arerank("tides", ["the moon", "bananas"]))


def _in_a_notebook(reranker: Reranker) -> RerankResponse:
    async def cell() -> RerankResponse:
        return reranker.rerank("tides", ["the moon", "bananas"])

    return asyncio.run(cell())


SLOW = {"hanging": Hang(), "dripping": Drip(), "slow headers": SlowHeaders(), "7 s": Status(429, {"retry-after": "7"})}


@pytest.mark.alone
@pytest.mark.parametrize("face", [_sync, _async, _in_a_notebook])
@pytest.mark.parametrize("step", SLOW.values(), ids=SLOW.keys())
def test_passthrough_answers_when_the_deadline_has_passed(server: CohereLike, step: Step, face) -> None:
    spec = {
        "use": "http",
        "base_url": server.url,
        "api_key": server.key,
        "retry": 3,
        "deadline": 0.5,
        "fallback": ["passthrough"],
    }
    with load_reranker(spec) as reranker:
        assert not face(reranker).degraded
        server.always(step)
        began = time.monotonic()
        answer = face(reranker)
        took = time.monotonic() - began
    assert took < 1.5  # a request that hangs until 0.5 s, and a busy machine
    assert [result.index for result in answer] == [0, 1]
    assert answer.degraded
    assert answer.model == "passthrough"
    assert answer.reason.startswith("passthrough answered in place of http")


@pytest.mark.alone
@pytest.mark.parametrize("face", [_sync, _async, _in_a_notebook])
@pytest.mark.parametrize("step", [Hang(), Drip(), SlowHeaders()], ids=["hanging", "dripping", "slow headers"])
def test_without_a_fallback_the_deadline_raises(server: CohereLike, step: Step, face) -> None:
    server.always(step)
    spec = {"use": "http", "base_url": server.url, "api_key": server.key, "deadline": 0.3}
    began = time.monotonic()
    with load_reranker(spec) as reranker, pytest.raises(DeadlineExceeded):
        face(reranker)
    assert time.monotonic() - began < 1.3
    assert server.wait_until(lambda: server.requests[0].disconnected)


async def test_the_garbage_collector_may_end_a_call_in_another_context():
    work = run_with_deadline(30.0, asyncio.sleep(0), "a model")
    contextvars.copy_context().run(work.send, None)
    work.close()
