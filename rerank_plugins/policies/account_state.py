"""State that all rerankers of the process share for one account, in a bounded table."""

from __future__ import annotations

import threading
from collections.abc import Callable, Hashable
from typing import Generic, TypeVar

from ..core._runtime.fork_hooks import reset_after_fork
from ..core._runtime.lru import LRU

__all__ = ["AccountStates"]

T = TypeVar("T")

_MAX_ACCOUNTS = 1024
"""The bound keeps a server that uses the keys of its users from growing without end."""


class AccountStates(Generic[T]):
    """One `T` for each of the 1,024 accounts used last. A forked child starts with an empty table and a new lock."""

    def __init__(self, make: Callable[[], T]) -> None:
        """Create an empty table; `make` creates the state of a new account."""
        self._make = make
        self._reset()
        reset_after_fork(self)

    def of(self, account: Hashable) -> T:
        """Return the state of an account, a new one for an unknown account."""
        with self._lock:
            return self._states.get_or_make(account, self._make)

    def _reset(self) -> None:
        self._lock = threading.Lock()  # guards `_states`
        self._states: LRU[Hashable, T] = LRU(_MAX_ACCOUNTS)
