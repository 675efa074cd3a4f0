"""In-memory store of a cache."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from typing import Any

from ..core._runtime.fork_hooks import Lock
from ..core._runtime.lru import LRU

__all__ = ["MemoryStore"]


class MemoryStore:
    """A thread-safe LRU table of at most `max_entries` entries, each of which expires after `ttl_s` seconds."""

    def __init__(self, max_entries: int, ttl_s: float | None = None) -> None:
        """Create an empty table; `ttl_s=None` means that entries do not expire."""
        self.max_entries = max_entries
        self.ttl_s = ttl_s
        self._lock = Lock()  # guards `_entries`
        self._entries: LRU[bytes, tuple[float, str]] = LRU(max_entries)

    async def get(self, names: Sequence[bytes]) -> Sequence[str | None]:
        """Return the entry of each name, `None` for a missing or expired one."""
        # A missing entry gets the time `now`: zero could count as recent, because the clock starts with the machine.
        now = time.monotonic()
        texts: list[str | None] = []
        with self._lock:
            for name in names:
                made, text = self._entries.get(name) or (now, None)
                if self.ttl_s is not None and now - made > self.ttl_s:
                    self._entries.pop(name)
                    text = None
                texts.append(text)
        return texts

    def put(self, entries: Mapping[bytes, str]) -> None:
        """Store entries. If the table is full, the entries unused for longest are dropped."""
        made = time.monotonic()
        with self._lock:
            for name, text in entries.items():
                self._entries.put(name, (made, text))

    def state(self) -> Mapping[str, Any]:
        """Return the number of entries."""
        return {"entries": len(self._entries)}

    async def aclose(self) -> None:
        """Drop all entries."""
        with self._lock:
            self._entries.clear()
