"""A cache's entries in this process."""

from __future__ import annotations

import math
import time
from collections import OrderedDict
from collections.abc import Mapping, Sequence
from typing import Any

from ..core.fork import Lock

__all__ = ["MemoryStore"]


class MemoryStore:
    """The `max_entries` used last, each for `ttl_s` at most. Safe under threads."""

    def __init__(self, max_entries: int, ttl_s: float | None = None) -> None:
        """Begin empty."""
        self.max_entries = max_entries
        self.ttl_s = ttl_s
        self._lock = Lock()
        self._kept: OrderedDict[bytes, tuple[float, str]] = OrderedDict()

    async def get(self, names: Sequence[bytes]) -> Sequence[str | None]:
        """Return the entry of each name, `None` where there is none or it is too old."""
        now = time.monotonic()  # of the machine's start, which may be more recent than `ttl_s`
        found: list[str | None] = []
        with self._lock:
            for name in names:
                made, text = self._kept.get(name, (math.inf, None))
                if text is None:
                    found.append(None)
                elif self.ttl_s is not None and now - made > self.ttl_s:
                    del self._kept[name]
                    found.append(None)
                else:
                    self._kept.move_to_end(name)
                    found.append(text)
        return found

    def put(self, entries: Mapping[bytes, str]) -> None:
        """Keep entries; the ones not used for longest make room."""
        made = time.monotonic()
        with self._lock:
            for name, text in entries.items():
                self._kept[name] = made, text
                self._kept.move_to_end(name)
            while len(self._kept) > self.max_entries:
                self._kept.popitem(last=False)

    def state(self) -> Mapping[str, Any]:
        """Return how many there are."""
        return {"entries": len(self._kept)}

    async def aclose(self) -> None:
        """Forget everything."""
        with self._lock:
            self._kept.clear()
