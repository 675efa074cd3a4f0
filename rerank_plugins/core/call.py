"""What one call of a reranker carries beside its arguments: deadline, attempts, observer, and the last reply's metadata.

It stands in one context variable, so it reaches everything that the call awaits and the tasks that it starts. Parts of one
call that run at the same time share the list of attempts and the deadline; each attempt has response metadata of its own.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field, replace
from typing import Any, Protocol

from .context import holding
from .scorer import Scorer
from .types import Attempt

__all__ = [
    "CALL",
    "CallContext",
    "Ended",
    "Observer",
    "ResponseMetadata",
    "bind_response_metadata",
    "record_attempt",
    "record_attempts",
    "record_event",
    "record_response",
    "response_metadata",
]

Ended = Callable[[Attempt], None]
"""Takes an attempt that has ended."""


class Observer(Protocol):
    """Sees one call while it happens: the seam for telemetry, which the core knows nothing of."""

    def attempt(self, scorer: Scorer, documents: int, *, remote: bool) -> AbstractContextManager[Ended]:
        """Enclose an attempt over so many documents. Yields a callback, to be called once with the outcome."""

    def event(self, scorer: Scorer, attempt: Attempt) -> None:
        """Record an event that needed no request: cache hit, open breaker, skipped stage."""


@dataclass(slots=True)
class ResponseMetadata:
    """The last reply of an attempt; no status where none came. An SDK does not give these itself."""

    status: int | None = None
    headers: Mapping[str, str] = field(default_factory=dict)
    """Names in lower case."""
    limit: int | None = None
    """Bytes that the unpacked reply may have."""
    body: bytes | None = None
    """What came, where that is all that is left of a reply that an SDK could not read."""


@dataclass(frozen=True, slots=True)
class CallContext:
    """The context of one call; a part of it that differs is a copy with that field replaced."""

    deadline: float | None = None
    """When the nearest deadline ends, by the event loop's clock."""
    attempts: list[Attempt] | None = None
    """What was tried, in the order in which it ended; `None` outside of a call."""
    observer: Observer | None = None
    last_reply: ResponseMetadata | None = None


CALL: ContextVar[CallContext] = ContextVar("rerank_plugins_call", default=CallContext())  # noqa: B039 (it is frozen)
"""The context of the call under way."""


@contextmanager
def record_attempts(observer: Observer | None = None) -> Iterator[list[Attempt]]:
    """Yield a list of the attempts made inside, by this task and the tasks it starts, and show them to `observer`."""
    attempts: list[Attempt] = []
    with holding(CALL, replace(CALL.get(), attempts=attempts, observer=observer)):
        yield attempts


@contextmanager
def record_attempt(scorer: Scorer, documents: int, *, remote: bool) -> Iterator[Ended]:
    """Record one attempt. Yields a callback; call it exactly once with the outcome.

    Response metadata inside is of this attempt, unless it was bound outside.
    """
    context = CALL.get()
    attempts = [] if context.attempts is None else context.attempts
    with holding(CALL, replace(context, last_reply=context.last_reply or ResponseMetadata())):
        if context.observer is None:
            yield attempts.append
            return
        with context.observer.attempt(scorer, documents, remote=remote) as observed:

            def ended(attempt: Attempt) -> None:
                attempts.append(attempt)
                observed(attempt)

            yield ended


def record_event(scorer: Scorer, outcome: str, detail: str) -> None:
    """Record an event that needed no request: cache hit, open breaker, skipped stage."""
    context = CALL.get()
    if context.attempts is None:
        return
    attempt = Attempt(scorer.label, outcome, 0.0, detail)
    context.attempts.append(attempt)
    if context.observer is not None:
        context.observer.event(scorer, attempt)


@contextmanager
def bind_response_metadata() -> Iterator[None]:
    """Bind response metadata to what runs inside; nested uses share it."""
    context = CALL.get()
    if context.last_reply is not None:
        yield
        return
    with holding(CALL, replace(context, last_reply=ResponseMetadata())):
        yield


def response_metadata() -> ResponseMetadata | None:
    """Return the metadata of the last reply of this attempt, or `None` outside of one."""
    return CALL.get().last_reply


def record_response(status: int, headers: Iterable[tuple[Any, Any]]) -> None:
    """Keep a reply's status and headers, if an attempt of ours is under way."""
    if (reply := CALL.get().last_reply) is not None:
        reply.status = status
        reply.headers = {str(name).lower(): str(value) for name, value in headers}
