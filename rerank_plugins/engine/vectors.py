"""Passages seen before, in a bounded cache, and token vectors that need no network."""

from __future__ import annotations

import functools
import hashlib
from collections import OrderedDict
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from ..core.fork import Lock

if TYPE_CHECKING:
    import numpy as np

    from .evidence import Passage

__all__ = ["Table", "VectorCache", "key"]


def key(text: str, max_tokens: int) -> bytes:
    """Return what a passage is filed under: its vectors depend on the text and on where it is cut."""
    return hashlib.blake2b(
        text.encode("utf-8", "surrogatepass"), digest_size=16, salt=str(max_tokens).encode()
    ).digest()


class Table:
    """One vector for every token of the vocabulary, whatever stands around it."""

    def __init__(self, codes: np.ndarray) -> None:
        """Take int8 [vocabulary, width]; a row's length does not matter."""
        self._codes = codes

    @classmethod
    @functools.cache
    def read(cls, file: Path) -> Table:
        """Read a `.npy` file, once in a process."""
        import numpy as np

        return cls(np.load(file, allow_pickle=False))

    def vectors(self, ids: Sequence[int]) -> np.ndarray:
        """Return float32 vectors of length one [tokens, width]."""
        import numpy as np

        found = self._codes[np.asarray(ids)].astype(np.float32)
        lengths = np.sqrt(np.einsum("ij,ij->i", found, found))[:, None]
        made: np.ndarray = found / np.maximum(lengths, np.float32(1e-9))
        return made


class VectorCache:
    """Least recently used first out, bounded by bytes; safe under threads."""

    def __init__(self, max_bytes: int) -> None:
        """Hold at most `max_bytes`; 0 keeps nothing."""
        self.max_bytes = max_bytes
        self.size = 0
        self._lock = Lock()
        self._held: OrderedDict[bytes, Passage] = OrderedDict()

    def get(self, name: bytes) -> Passage | None:
        """Return the passage, or `None`."""
        with self._lock:
            found = self._held.get(name)
            if found is not None:
                self._held.move_to_end(name)
            return found

    def put(self, name: bytes, passage: Passage) -> None:
        """Keep a passage, and drop the oldest ones past the bound."""
        if passage.size > self.max_bytes:
            return
        with self._lock:
            old = self._held.pop(name, None)
            self._held[name] = passage
            self.size += passage.size - (old.size if old else 0)
            while self.size > self.max_bytes:
                _, dropped = self._held.popitem(last=False)
                self.size -= dropped.size
