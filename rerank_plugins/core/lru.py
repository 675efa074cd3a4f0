"""Bounded tables that drop what was used least recently."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable
from typing import Generic, TypeVar

__all__ = ["LRU"]

K = TypeVar("K")
V = TypeVar("V")


class LRU(Generic[K, V]):
    """A table of bounded weight. Not thread-safe: its owner's lock guards it, together with whatever else belongs to it."""

    def __init__(self, max_weight: int, dropped: Callable[[K, V], None] | None = None) -> None:
        """Begin empty.

        Args:
            max_weight: Of all entries together. An entry weighs 1 unless `put` says otherwise, so this is their number then.
            dropped: Called with every entry that makes room.
        """
        self.max_weight = max_weight
        self.weight = 0
        self._dropped = dropped
        self._entries: OrderedDict[K, tuple[V, int]] = OrderedDict()

    def __len__(self) -> int:
        """Return the number of entries."""
        return len(self._entries)

    def peek(self, key: K) -> V | None:
        """Return a key's value, or `None`; that is no use of it."""
        entry = self._entries.get(key)
        return None if entry is None else entry[0]

    def get(self, key: K) -> V | None:
        """Return a key's value, or `None`; it is the one that was used last then."""
        entry = self._entries.get(key)
        if entry is None:
            return None
        self._entries.move_to_end(key)
        return entry[0]

    def get_or_make(self, key: K, make: Callable[[], V]) -> V:
        """Return a key's value, which `make` makes where there is none."""
        value = self.get(key)
        if value is None:
            value = make()
            self.put(key, value)
        return value

    def put(self, key: K, value: V, weight: int = 1) -> None:
        """Set a key's value and weight, as the one that was used last, and drop the oldest entries past the bound."""
        self.pop(key)
        self._entries[key] = value, weight
        self.weight += weight
        while self.weight > self.max_weight and self._entries:  # a forked child may find a change half done
            oldest, (dropped, freed) = self._entries.popitem(last=False)
            self.weight -= freed
            if self._dropped is not None:
                self._dropped(oldest, dropped)

    def pop(self, key: K) -> V | None:
        """Take a key out and return its value, or `None`."""
        entry = self._entries.pop(key, None)
        if entry is None:
            return None
        self.weight -= entry[1]
        return entry[0]

    def clear(self) -> None:
        """Drop all entries."""
        self._entries.clear()
        self.weight = 0
