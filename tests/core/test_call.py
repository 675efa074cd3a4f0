"""Concurrent parts of one call share its context; each part has its own response metadata."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager

from support.scripted import Scripted

from rerank_plugins.core import Attempt, RerankRequest, Scorer, Scores, Wrapper
from rerank_plugins.core.call import (
    CURRENT_CALL,
    CallContext,
    EndAttempt,
    record_attempt,
    record_attempts,
    record_event,
    record_response,
    response_metadata,
    response_metadata_scope,
)
from rerank_plugins.core.deadline import deadline_scope, seconds_left

SCORER = Scripted(name="scripted")


class Recorder:
    """An observer that records attempts and events in order."""

    def __init__(self) -> None:
        self.seen: list[tuple[str, str]] = []

    @contextmanager
    def attempt(self, scorer: Scorer, documents: int, *, remote: bool) -> Iterator[EndAttempt]:
        self.seen.append(("began", f"{scorer.label} {documents} {remote}"))
        yield lambda attempt: self.seen.append(("ended", f"{attempt.outcome} {attempt.status}"))

    def event(self, scorer: Scorer, attempt: Attempt) -> None:
        self.seen.append(("event", f"{scorer.label} {attempt.outcome}"))


async def test_concurrent_parts_share_attempts_but_not_response_metadata() -> None:
    statuses: dict[int, int | None] = {}
    left: list[float | None] = []
    both = asyncio.Barrier(2)

    async def part(status: int) -> None:
        with record_attempt(SCORER, 1, remote=True) as ended:
            record_response(status, [("Retry-After", 1)])
            await both.wait()  # both parts have recorded their response now
            metadata = response_metadata()
            assert metadata is not None
            statuses[status] = metadata.status
            left.append(seconds_left())
            ended(Attempt(SCORER.label, "answered", 0.0, status=status))

    with record_attempts() as attempts, deadline_scope(60.0):
        await asyncio.gather(part(200), part(429))
    assert statuses == {200: 200, 429: 429}
    assert sorted(attempt.status or 0 for attempt in attempts) == [200, 429]
    assert all(seconds is not None and 0 < seconds <= 60.0 for seconds in left)
    assert CURRENT_CALL.get() == CallContext()


async def test_observer_sees_each_attempt_and_event_once() -> None:
    recorder = Recorder()
    with record_attempts(recorder) as attempts:
        record_event(SCORER, "cached", "1 of 2 documents")
        with record_attempt(SCORER, 2, remote=True) as ended:
            ended(Attempt("scripted", "RateLimited", 1.0, status=429))
    assert recorder.seen == [
        ("event", "scripted cached"),
        ("began", "scripted 2 True"),
        ("ended", "RateLimited 429"),
    ]
    assert [attempt.outcome for attempt in attempts] == ["cached", "RateLimited"]


def test_records_outside_a_call_are_dropped() -> None:
    record_event(SCORER, "cached", "1 of 1 documents")
    record_response(200, [])
    assert response_metadata() is None
    with record_attempt(SCORER, 1, remote=False) as ended:
        ended(Attempt("scripted", "answered", 0.0))
    assert CURRENT_CALL.get() == CallContext()


def test_nested_binding_shares_the_response_metadata() -> None:
    with response_metadata_scope():
        outer = response_metadata()
        with response_metadata_scope(), record_attempt(SCORER, 1, remote=True):
            assert response_metadata() is outer
        record_response(503, [("X-Request-Id", "a")])
    assert outer is not None
    assert (outer.status, outer.headers) == (503, {"x-request-id": "a"})


class Renamed(Wrapper):
    """A wrapper that overrides the label of its inner scorer."""

    @property
    def label(self) -> str:
        return f"renamed {self.inner.label}"

    async def ascore(self, request: RerankRequest) -> Scores:
        return await self.inner.ascore(request)


def test_wrapper_has_the_label_of_its_inner_scorer() -> None:
    assert Wrapper(Wrapper(SCORER)).label == "scripted"
    assert Wrapper(Wrapper(Renamed(Wrapper(SCORER)))).label == "renamed scripted"
