"""A cache's entries in this process."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from typing import Any

from ..core.fork import Lock
from ..core.lru import LRU

__all__ = ["MemoryStore"]


class MemoryStore:
    """The `max_entries` used last, each for `ttl_s` at most. Safe under threads."""

    def __init__(self, max_entries: int, ttl_s: float | None = None) -> None:
        """Begin empty."""
        self.max_entries = max_entries
        self.ttl_s = ttl_s
        self._lock = Lock()
        self._entries: LRU[bytes, tuple[float, str]] = LRU(max_entries)

    async def get(self, names: Sequence[bytes]) -> Sequence[str | None]:
        """Return the entry of each name, `None` where there is none or it is too old."""
        now = time.monotonic()  # of the machine's start, which may be more recent than `ttl_s`
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
        """Keep entries; the ones not used for longest make room."""
        made = time.monotonic()
        with self._lock:
            for name, text in entries.items():
                self._entries.put(name, (made, text))

    def state(self) -> Mapping[str, Any]:
        """Return how many there are."""
        return {"entries": len(self._entries)}

    async def aclose(self) -> None:
        """Forget everything."""
        with self._lock:
            self._entries.clear()
