"""What all rerankers of the process know together about one account: a table that forgets who was not asked for long."""

from __future__ import annotations

import asyncio
import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Hashable
from typing import Generic, TypeVar

from ..core.fork import forgets_after_fork

__all__ = ["Shared", "now"]

T = TypeVar("T")

_MOST = 1024
"""Accounts kept: a server that asks with its users' keys must not grow without end."""


def now() -> float:
    """Return the time on the event loops' clock, which is one clock in a process (`time.monotonic`)."""
    try:
        return asyncio.get_running_loop().time()
    except RuntimeError:  # asked from outside: a health endpoint, say
        return time.monotonic()


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
            found = self._known.get(account)
            if found is None:
                found = self._known[account] = self._make()
                if len(self._known) > _MOST:
                    self._known.popitem(last=False)
            self._known.move_to_end(account)
            return found

    def _forget(self) -> None:
        self._lock = threading.Lock()
        self._known: OrderedDict[Hashable, T] = OrderedDict()
