"""What was tried to answer one call, gathered across policies and concurrent parts."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar

from .errors import BackendError, DeadlineExceeded
from .types import Attempt

__all__ = ["attempted", "gathering", "note"]

_journal: ContextVar[list[Attempt] | None] = ContextVar("rerank_plugins_journal", default=None)


@contextmanager
def gathering() -> Iterator[list[Attempt]]:
    """Collect the attempts made inside, by this task and the tasks it starts."""
    attempts: list[Attempt] = []
    token = _journal.set(attempts)
    try:
        yield attempts
    finally:
        _journal.reset(token)


@contextmanager
def attempted(model: str, *, remote: bool) -> Iterator[None]:
    """Note one attempt: `model`, how it ended, how long it took."""
    started = time.perf_counter()
    outcome, detail = "answered", None
    try:
        yield
    except BaseException as error:
        outcome = type(error).__name__
        if isinstance(error, BackendError | DeadlineExceeded):
            detail = str(error)
        raise
    finally:
        elapsed = (time.perf_counter() - started) * 1000.0
        note(Attempt(model, outcome, elapsed, detail, remote))


def note(attempt: Attempt) -> None:
    """Add an attempt that a policy knows of to the call it belongs to."""
    journal = _journal.get()
    if journal is not None:
        journal.append(attempt)
