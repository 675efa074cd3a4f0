"""The context of one call, besides its arguments: deadline, attempts, observer, and the metadata of the last reply.

One context variable holds it, so it reaches everything that the call awaits and all tasks that it starts. Parts of a
call that run at the same time share the deadline and the list of attempts. Each attempt has its own response metadata.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field, replace
from typing import Any, Protocol

from ._runtime.context_vars import set_context
from .scorer import Scorer
from .types import Attempt

__all__ = [
    "CURRENT_CALL",
    "CallContext",
    "EndAttempt",
    "Observer",
    "ResponseMetadata",
    "record_attempt",
    "record_attempts",
    "record_event",
    "record_refusal",
    "record_response",
    "response_metadata",
    "response_metadata_scope",
]

EndAttempt = Callable[[Attempt], None]
"""Called with an attempt when it ends."""


class Observer(Protocol):
    """Follows one call while it runs. Telemetry implements it; the core does not depend on telemetry."""

    def attempt(self, scorer: Scorer, documents: int, *, remote: bool) -> AbstractContextManager[EndAttempt]:
        """Follow one attempt to score that many documents. Yields a callback; it is called once with the outcome."""

    def event(self, scorer: Scorer, attempt: Attempt) -> None:
        """Follow an event that needed no request: cache hit, open breaker, skipped stage."""


@dataclass(slots=True)
class ResponseMetadata:
    """Status and headers of the last reply of an attempt, which an SDK does not return, and a limit for its size."""

    status: int | None = None
    """`None` until a reply comes."""
    headers: Mapping[str, str] = field(default_factory=dict)
    """Names in lower case."""
    max_bytes: int | None = None
    """Largest size of the reply after decompression. Set before the request is sent."""
    body: bytes | None = None
    """The body of a reply that the SDK could not read."""


@dataclass(frozen=True, slots=True)
class CallContext:
    """The context of one call. To change it for a part of the call, set a copy with the field replaced."""

    deadline: float | None = None
    """When the nearest deadline ends, in the event loop's time."""
    attempts: list[Attempt] | None = None
    """The attempts, in the order in which they ended. `None` outside a call."""
    observer: Observer | None = None
    """Follows the call. `None` without telemetry."""
    response_metadata: ResponseMetadata | None = None
    """Metadata of the last reply. `None` outside an attempt."""


_NO_CALL = CallContext()
CURRENT_CALL: ContextVar[CallContext] = ContextVar("rerank_plugins_call", default=_NO_CALL)
"""The context of the current call."""


@contextmanager
def record_attempts(observer: Observer | None = None) -> Iterator[list[Attempt]]:
    """Collect the attempts of one call in a list, and report them to `observer`.

    It collects the attempts of this task and of all tasks that are started inside the block.
    """
    attempts: list[Attempt] = []
    with set_context(CURRENT_CALL, replace(CURRENT_CALL.get(), attempts=attempts, observer=observer)):
        yield attempts


@contextmanager
def record_attempt(scorer: Scorer, documents: int, *, remote: bool) -> Iterator[EndAttempt]:
    """Record one attempt. Yields a callback; call it exactly once with the outcome.

    The attempt gets response metadata of its own, unless a `response_metadata_scope` around it has some already.
    """
    context = CURRENT_CALL.get()
    attempts = [] if context.attempts is None else context.attempts
    with set_context(CURRENT_CALL, replace(context, response_metadata=context.response_metadata or ResponseMetadata())):
        if context.observer is None:
            yield attempts.append
            return
        with context.observer.attempt(scorer, documents, remote=remote) as notify_observer:

            def end_attempt(attempt: Attempt) -> None:
                attempts.append(attempt)
                notify_observer(attempt)

            yield end_attempt


def record_event(scorer: Scorer, outcome: str, detail: str) -> None:
    """Record an event that needed no request: cache hit, open breaker, skipped stage."""
    context = CURRENT_CALL.get()
    if context.attempts is None:
        return
    attempt = Attempt(scorer.label, outcome, 0.0, detail)
    context.attempts.append(attempt)
    if context.observer is not None:
        context.observer.event(scorer, attempt)


def record_refusal(label: str, milliseconds: float, detail: str, status: int | None) -> None:
    """Record a request whose key was refused, inside an attempt that goes on with a newer key."""
    if (attempts := CURRENT_CALL.get().attempts) is not None:
        attempts.append(Attempt(label, "AuthenticationFailed", milliseconds, detail, remote=True, status=status))


@contextmanager
def response_metadata_scope() -> Iterator[None]:
    """Give the code inside the block one `ResponseMetadata`. A nested scope shares that of the outer one.

    An SDK backend opens one, so that it also works without `record_attempt` around it.
    """
    context = CURRENT_CALL.get()
    if context.response_metadata is not None:
        yield
        return
    with set_context(CURRENT_CALL, replace(context, response_metadata=ResponseMetadata())):
        yield


def response_metadata() -> ResponseMetadata | None:
    """Return the metadata of the last reply of this attempt, or `None` outside an attempt."""
    return CURRENT_CALL.get().response_metadata


def record_response(status: int, headers: Iterable[tuple[Any, Any]]) -> None:
    """Store status and headers of a reply in the metadata of the current attempt, if there is one."""
    if (metadata := CURRENT_CALL.get().response_metadata) is not None:
        metadata.status = status
        metadata.headers = {str(name).lower(): str(value) for name, value in headers}
