"""Passages seen before, in a bounded cache, and token vectors that need no network."""

from __future__ import annotations

import functools
import hashlib
from array import array
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from ...core.fork import Lock
from ...core.lru import LRU
from ..load_log import LoadLog

if TYPE_CHECKING:
    import numpy as np

    from .scoring import Passage

__all__ = ["PassageCache", "TokenVectors", "key", "key_of_tokens"]

_TEXT_BYTES = 300
"""What the key of a text takes in memory, roughly."""


def key(text: str, max_tokens: int) -> bytes:
    """Return what a passage is filed under: its vectors depend on the text and on where it is cut."""
    return hashlib.blake2b(
        text.encode("utf-8", "surrogatepass"), digest_size=16, salt=str(max_tokens).encode()
    ).digest()


def key_of_tokens(ids: Sequence[int]) -> bytes:
    """Return what the passage of these tokens is filed under."""
    return hashlib.blake2b(array("q", ids).tobytes(), digest_size=16).digest()


class TokenVectors:
    """One vector for every token of the vocabulary, whatever stands around it."""

    def __init__(self, codes: np.ndarray) -> None:
        """Take int8 [vocabulary, width]; a row's length does not matter."""
        self._codes = codes

    @classmethod
    @functools.cache
    def read(cls, file: Path) -> TokenVectors:
        """Read a `.npy` file, once in a process."""
        import numpy as np

        load = LoadLog(file)
        table = cls(np.load(file, allow_pickle=False))
        load.finished("numpy", "float32")
        return table

    def vectors(self, ids: Sequence[int]) -> np.ndarray:
        """Return float32 vectors of length one [tokens, width]."""
        import numpy as np

        rows = self._codes[np.asarray(ids)].astype(np.float32)
        lengths = np.sqrt(np.einsum("ij,ij->i", rows, rows))[:, None]
        unit: np.ndarray = rows / np.maximum(lengths, np.float32(1e-9))
        return unit


class PassageCache:
    """Passages by their tokens, found by their texts too. Least recently used first out, bounded by bytes; thread-safe.

    Texts that differ only in what the tokenizer drops (case, spaces) have the same tokens, and share one passage.
    """

    def __init__(self, max_bytes: int) -> None:
        """Hold at most `max_bytes`; 0 keeps nothing."""
        self.max_bytes = max_bytes
        # Guards all that follows. An entry of `_texts` exists exactly as long as the passage that it names.
        self._lock = Lock()
        self._passages: LRU[bytes, tuple[Passage, list[bytes]]] = LRU(max_bytes, self._dropped)
        self._texts: dict[bytes, tuple[bytes, bool]] = {}

    @property
    def size(self) -> int:
        """Bytes that it holds."""
        return self._passages.weight

    def get(self, text: bytes) -> tuple[bytes, Passage, bool] | None:
        """Return the tokens' key of a text, their passage, and whether the text was cut; or `None`."""
        with self._lock:
            if (known := self._texts.get(text)) is None:
                return None
            tokens, truncated = known
            if (entry := self._passages.get(tokens)) is None:  # a forked child may find a change half done
                return None
            return tokens, entry[0], truncated

    def of_tokens(self, tokens: bytes) -> Passage | None:
        """Return the passage of these tokens, or `None`."""
        with self._lock:
            entry = self._passages.peek(tokens)
            return None if entry is None else entry[0]

    def put(self, text: bytes, tokens: bytes, passage: Passage, *, truncated: bool) -> None:
        """Keep a text's passage, and drop the oldest ones past the bound."""
        if passage.size + _TEXT_BYTES > self.max_bytes:
            return
        with self._lock:
            if text in self._texts:  # another call was faster
                return
            first, texts = self._passages.peek(tokens) or (passage, [])
            texts.append(text)
            self._texts[text] = tokens, truncated
            self._passages.put(tokens, (first, texts), first.size + _TEXT_BYTES * len(texts))

    def _dropped(self, _: bytes, entry: tuple[Passage, list[bytes]]) -> None:
        for text in entry[1]:
            self._texts.pop(text, None)
