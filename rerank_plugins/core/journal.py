"""What was tried to answer one call, gathered across policies and concurrent parts."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar

from .types import Attempt

__all__ = ["gathering", "note"]

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


def note(attempt: Attempt) -> None:
    """Add an attempt to the call that it belongs to."""
    journal = _journal.get()
    if journal is not None:
        journal.append(attempt)
