"""Token vectors of texts seen before, in a bounded cache."""

from __future__ import annotations

import hashlib
from collections import OrderedDict
from typing import TYPE_CHECKING

from ..core.fork import Lock

if TYPE_CHECKING:
    import numpy as np

__all__ = ["VectorCache", "key"]


def key(text: str, max_tokens: int) -> bytes:
    """Return what a text's vectors are filed under: they depend on the text and on where it is cut."""
    return hashlib.blake2b(
        text.encode("utf-8", "surrogatepass"), digest_size=16, salt=str(max_tokens).encode()
    ).digest()


class VectorCache:
    """Least recently used first out, bounded by bytes; safe under threads."""

    def __init__(self, max_bytes: int) -> None:
        """Hold at most `max_bytes`; 0 keeps nothing."""
        self.max_bytes = max_bytes
        self.size = 0
        self._lock = Lock()
        self._held: OrderedDict[bytes, tuple[np.ndarray, bool]] = OrderedDict()

    def get(self, name: bytes) -> tuple[np.ndarray, bool] | None:
        """Return the vectors and whether their text was cut, or `None`."""
        with self._lock:
            found = self._held.get(name)
            if found is not None:
                self._held.move_to_end(name)
            return found

    def put(self, name: bytes, vectors: np.ndarray, truncated: bool) -> None:
        """Keep the vectors of a text, and drop the oldest ones past the bound."""
        if vectors.nbytes > self.max_bytes:
            return
        with self._lock:
            old = self._held.pop(name, None)
            self._held[name] = (vectors, truncated)
            self.size += vectors.nbytes - (old[0].nbytes if old else 0)
            while self.size > self.max_bytes:
                _, (dropped, _) = self._held.popitem(last=False)
                self.size -= dropped.nbytes
