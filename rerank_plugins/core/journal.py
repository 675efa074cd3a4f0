"""What was tried to answer one call, gathered across policies and concurrent parts, and shown to whoever watches."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field
from typing import Protocol

from .context import holding
from .types import Attempt, Usage

__all__ = ["Ended", "Watcher", "attempting", "gathering", "note"]

Ended = Callable[[Attempt, Usage | None, int | None], None]
"""Takes an attempt that has ended, what it used and the HTTP status of its reply, each where known."""


class Watcher(Protocol):
    """Is shown one call while it happens: the seam for telemetry, which the core knows nothing of."""

    def attempt(self, model: str, documents: int, *, remote: bool) -> AbstractContextManager[Ended]:
        """Enclose an attempt over so many documents; what it gives is told the end."""

    def noted(self, attempt: Attempt) -> None:
        """Take what was no attempt: a cache that knew, a breaker that was open, a stage that was spared."""


@dataclass(slots=True)
class _Journal:
    watcher: Watcher | None
    attempts: list[Attempt] = field(default_factory=list)


_journal: ContextVar[_Journal | None] = ContextVar("rerank_plugins_journal", default=None)


@contextmanager
def gathering(watcher: Watcher | None = None) -> Iterator[list[Attempt]]:
    """Collect the attempts made inside, by this task and the tasks it starts, and show them to `watcher`."""
    journal = _Journal(watcher)
    with holding(_journal, journal):
        yield journal.attempts


def note(attempt: Attempt) -> None:
    """Add what needed no asking to the call that it belongs to."""
    journal = _journal.get()
    if journal is not None:
        journal.attempts.append(attempt)
        if journal.watcher is not None:
            journal.watcher.noted(attempt)


@contextmanager
def attempting(model: str, documents: int, *, remote: bool) -> Iterator[Ended]:
    """Enclose one attempt; what this gives has to be told its end, whatever that is."""
    journal = _journal.get()
    if journal is None:
        yield lambda *_: None
    elif journal.watcher is None:
        yield lambda attempt, *_: journal.attempts.append(attempt)
    else:
        with journal.watcher.attempt(model, documents, remote=remote) as ended:

            def both(attempt: Attempt, usage: Usage | None, status: int | None) -> None:
                journal.attempts.append(attempt)
                ended(attempt, usage, status)

            yield both
