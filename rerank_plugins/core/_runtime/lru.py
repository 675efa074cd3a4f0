"""A cache of bounded size that drops the least recently used entries."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable
from typing import Generic, TypeVar

__all__ = ["LRU"]

K = TypeVar("K")
V = TypeVar("V")


class LRU(Generic[K, V]):
    """A least-recently-used cache, bounded by weight. It is not thread-safe: its owner guards it with a lock."""

    def __init__(self, max_weight: int, dropped: Callable[[K, V], None] | None = None) -> None:
        """Create an empty cache.

        Args:
            max_weight: Largest total weight. An entry weighs 1 by default, so by default this is the number of entries.
            dropped: Called with each entry that is dropped to make room.
        """
        self.max_weight = max_weight
        self.weight = 0
        self._dropped = dropped
        self._entries: OrderedDict[K, tuple[V, int]] = OrderedDict()

    def __len__(self) -> int:
        """Return the number of entries."""
        return len(self._entries)

    def peek(self, key: K) -> V | None:
        """Return the value of a key, or `None`, without marking it as used."""
        entry = self._entries.get(key)
        return None if entry is None else entry[0]

    def get(self, key: K) -> V | None:
        """Return the value of a key, or `None`, and mark it as most recently used."""
        entry = self._entries.get(key)
        if entry is None:
            return None
        self._entries.move_to_end(key)
        return entry[0]

    def get_or_make(self, key: K, make: Callable[[], V]) -> V:
        """Return the value of a key. If there is none, store and return `make()`."""
        value = self.get(key)
        if value is None:
            value = make()
            self.put(key, value)
        return value

    def put(self, key: K, value: V, weight: int = 1) -> None:
        """Store a value as most recently used, and drop the least recently used entries until the weight fits."""
        self.pop(key)
        self._entries[key] = value, weight
        self.weight += weight
        while (
            self.weight > self.max_weight and self._entries
        ):  # `and`: a fork in the middle of a change may leave a wrong weight
            oldest, (dropped, freed) = self._entries.popitem(last=False)
            self.weight -= freed
            if self._dropped is not None:
                self._dropped(oldest, dropped)

    def pop(self, key: K) -> V | None:
        """Remove a key and return its value, or `None`."""
        entry = self._entries.pop(key, None)
        if entry is None:
            return None
        self.weight -= entry[1]
        return entry[0]

    def clear(self) -> None:
        """Drop all entries."""
        self._entries.clear()
        self.weight = 0
