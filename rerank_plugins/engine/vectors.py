"""Passages seen before, in a bounded cache, and token vectors that need no network."""

from __future__ import annotations

import functools
import hashlib
from array import array
from collections import OrderedDict
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from ..core.fork import Lock
from .load_log import LoadLog

if TYPE_CHECKING:
    import numpy as np

    from .evidence import Passage

__all__ = ["Table", "VectorCache", "key", "key_of_tokens"]

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

        load = LoadLog(file)
        table = cls(np.load(file, allow_pickle=False))
        load.finished("numpy", "float32")
        return table

    def vectors(self, ids: Sequence[int]) -> np.ndarray:
        """Return float32 vectors of length one [tokens, width]."""
        import numpy as np

        found = self._codes[np.asarray(ids)].astype(np.float32)
        lengths = np.sqrt(np.einsum("ij,ij->i", found, found))[:, None]
        made: np.ndarray = found / np.maximum(lengths, np.float32(1e-9))
        return made


class VectorCache:
    """Passages by their tokens, found by their texts too. Least recently used first out, bounded by bytes; thread-safe.

    Texts that differ only in what the tokenizer drops (case, spaces) have the same tokens, and share one passage.
    """

    def __init__(self, max_bytes: int) -> None:
        """Hold at most `max_bytes`; 0 keeps nothing."""
        self.max_bytes = max_bytes
        self.size = 0
        # Guards all that follows. An entry of `_texts` exists exactly as long as the passage that it names.
        self._lock = Lock()
        self._held: OrderedDict[bytes, tuple[Passage, list[bytes]]] = OrderedDict()
        self._texts: dict[bytes, tuple[bytes, bool]] = {}

    def get(self, text: bytes) -> tuple[bytes, Passage, bool] | None:
        """Return the tokens' key of a text, their passage, and whether the text was cut; or `None`."""
        with self._lock:
            if (known := self._texts.get(text)) is None:
                return None
            tokens, truncated = known
            if (held := self._held.get(tokens)) is None:  # a forked child may find a change half done
                return None
            self._held.move_to_end(tokens)
            return tokens, held[0], truncated

    def of_tokens(self, tokens: bytes) -> Passage | None:
        """Return the passage of these tokens, or `None`."""
        with self._lock:
            held = self._held.get(tokens)
            return None if held is None else held[0]

    def put(self, text: bytes, tokens: bytes, passage: Passage, *, truncated: bool) -> None:
        """Keep a text's passage, and drop the oldest ones past the bound."""
        if passage.size + _TEXT_BYTES > self.max_bytes:
            return
        with self._lock:
            if text in self._texts:  # another call was faster
                return
            if tokens not in self._held:
                self._held[tokens] = passage, []
                self.size += passage.size
            self._held.move_to_end(tokens)
            self._held[tokens][1].append(text)
            self._texts[text] = tokens, truncated
            self.size += _TEXT_BYTES
            while self.size > self.max_bytes:
                _, (dropped, texts) = self._held.popitem(last=False)
                for each in texts:
                    self._texts.pop(each, None)
                self.size -= dropped.size + _TEXT_BYTES * len(texts)
