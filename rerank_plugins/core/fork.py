"""What a forked child must find in order: it has one thread, and none of those that held its parent's locks."""

from __future__ import annotations

import os
import threading
import weakref
from typing import Protocol

__all__ = ["Lock", "forgets_after_fork"]


class Forgets(Protocol):
    """Something whose threads, connections or counts belong to the process that made them."""

    def _forget(self) -> None: ...


_known: weakref.WeakSet[Forgets] = weakref.WeakSet()


def forgets_after_fork(each: Forgets) -> None:
    """Call `each._forget()` in every forked child, for as long as `each` lives."""
    _known.add(each)


class Lock:
    """A `threading.Lock` that a forked child finds open, whoever held it in the parent at that moment."""

    def __init__(self) -> None:
        """Begin open."""
        self._forget()
        forgets_after_fork(self)

    def __enter__(self) -> None:
        """Wait for it, and hold it."""
        self._lock.acquire()

    def __exit__(self, *exception: object) -> None:
        """Let it go."""
        self._lock.release()

    def _forget(self) -> None:
        self._lock = threading.Lock()


def _after_fork() -> None:
    for each in list(_known):
        each._forget()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)
