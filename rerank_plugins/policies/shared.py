"""What all rerankers of the process know together about one account: a table that forgets who was not asked for long."""

from __future__ import annotations

import threading
from collections.abc import Callable, Hashable
from typing import Generic, TypeVar

from ..core.fork import forgets_after_fork
from ..core.lru import LRU

__all__ = ["Shared"]

T = TypeVar("T")

_MOST = 1024
"""Accounts kept: a server that asks with its users' keys must not grow without end."""


class Shared(Generic[T]):
    """One `T` per account; the 1,024 used last. A forked child starts with none: it shares no locks with its parent."""

    def __init__(self, make: Callable[[], T]) -> None:
        """Keep how to make one."""
        self._make = make
        self._forget()
        forgets_after_fork(self)

    def of(self, account: Hashable) -> T:
        """Return the account's."""
        with self._lock:
            return self._known.get_or_make(account, self._make)

    def _forget(self) -> None:
        self._lock = threading.Lock()
        self._known: LRU[Hashable, T] = LRU(_MOST)
