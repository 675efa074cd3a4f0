"""A bounded cache of passages in memory, and a table of token vectors that needs no network."""

from __future__ import annotations

import functools
import hashlib
from array import array
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Generic, Protocol, TypeVar

from ...core._runtime.fork_hooks import Lock
from ...core._runtime.lru import LRU
from ...core._runtime.text_work import check_cancelled
from ..load_log import LoadLog

if TYPE_CHECKING:
    import numpy as np

    from ..tokenizer import Encoded

__all__ = ["PassageCache", "TokenVectors", "score_cached", "text_key", "tokens_key"]

_TEXT_BYTES = 300
"""The approximate memory of an entry for a text."""


class _Sized(Protocol):
    """A passage: what a model has made of a document."""

    @property
    def size(self) -> int:
        """The size in bytes."""


P = TypeVar("P", bound=_Sized)


def text_key(text: str, max_tokens: int) -> bytes:
    """Return the cache key of a text. The vectors of its passage depend on the text and on where it is cut."""
    return hashlib.blake2b(
        text.encode("utf-8", "surrogatepass"), digest_size=16, salt=str(max_tokens).encode()
    ).digest()


def tokens_key(ids: Sequence[int]) -> bytes:
    """Return the cache key of a passage with these tokens."""
    return hashlib.blake2b(array("q", ids).tobytes(), digest_size=16).digest()


class TokenVectors:
    """A table with one vector for every token of the vocabulary, independent of context."""

    def __init__(self, codes: np.ndarray) -> None:
        """Take an int8 array [vocabulary, width]. Only the direction of a row matters."""
        self._codes = codes

    @classmethod
    @functools.cache
    def read(cls, file: Path) -> TokenVectors:
        """Read a `.npy` file, once per process."""
        import numpy as np

        load = LoadLog(file)
        table = cls(np.load(file, allow_pickle=False))
        load.finished("numpy", "float32")
        return table

    def vectors(self, ids: Sequence[int]) -> np.ndarray:
        """Return unit vectors, float32 [tokens, width]."""
        import numpy as np

        rows = self._codes[np.asarray(ids)].astype(np.float32)
        lengths = np.sqrt(np.einsum("ij,ij->i", rows, rows))[:, None]
        unit: np.ndarray = rows / np.maximum(lengths, np.float32(1e-9))
        return unit


class PassageCache(Generic[P]):
    """An LRU cache of passages, by their tokens and by their texts; bounded in bytes and thread-safe.

    Texts that differ only in what the tokenizer ignores (case, spaces) have the same tokens and share one passage.
    """

    def __init__(self, max_bytes: int) -> None:
        """Hold at most `max_bytes`; 0 turns the cache off."""
        self.max_bytes = max_bytes
        # Guards `_passages` and `_texts`. An entry of `_texts` exists exactly as long as its passage.
        self._lock = Lock()
        self._passages: LRU[bytes, tuple[P, list[bytes]]] = LRU(max_bytes, self._on_evict)
        self._texts: dict[bytes, tuple[bytes, bool]] = {}

    @property
    def size(self) -> int:
        """The size in bytes."""
        return self._passages.weight

    def get(self, text: bytes) -> tuple[bytes, P, bool] | None:
        """Return the key of a text's tokens, its passage, and whether it was cut; `None` if it is not cached."""
        with self._lock:
            if (entry := self._texts.get(text)) is None:
                return None
            tokens, truncated = entry
            if (cached := self._passages.get(tokens)) is None:  # in a forked child: the parent was about to add it
                return None
            return tokens, cached[0], truncated

    def get_by_tokens(self, tokens: bytes) -> P | None:
        """Return the passage with this key of `tokens_key`, or `None`."""
        with self._lock:
            entry = self._passages.peek(tokens)
            return None if entry is None else entry[0]

    def put(self, text: bytes, tokens: bytes, passage: P, *, truncated: bool) -> None:
        """Add the passage of a text. Evicts the least recently used passages above the limit.

        Args:
            text: The key of the text.
            tokens: The key of its tokens.
            passage: The passage.
            truncated: Whether the text was cut.
        """
        if passage.size + _TEXT_BYTES > self.max_bytes:
            return
        with self._lock:
            if text in self._texts:  # another call has added it meanwhile
                return
            first, texts = self._passages.peek(tokens) or (passage, [])
            texts.append(text)
            self._texts[text] = tokens, truncated
            self._passages.put(tokens, (first, texts), first.size + _TEXT_BYTES * len(texts))

    def _on_evict(self, _: bytes, entry: tuple[P, list[bytes]]) -> None:
        for text in entry[1]:
            self._texts.pop(text, None)


def score_cached(
    cache: PassageCache[P],
    texts: Sequence[str],
    max_tokens: int,
    tokenize: Callable[[Sequence[str]], list[Encoded]],
    score: Callable[[P], float],
    values: list[float],
    truncated: list[bool],
) -> tuple[list[list[int]], list[Encoded]]:
    """Score the texts whose passage is cached, and fill in `values` and `truncated`.

    Texts with the same tokens share one passage and one row, within a call and across calls. So they get the same
    score, whatever the cache holds.

    Args:
        cache: The cached passages.
        texts: The documents.
        max_tokens: Where a document is cut.
        tokenize: Returns the row of each document.
        score: Scores one passage.
        values: The scores, by the position of the text.
        truncated: Whether each text was cut.

    Returns:
        The rows that the encoder must read, and before them, for each row, the indexes of its texts.
    """
    scored: dict[bytes, float] = {}
    uncached: list[int] = []
    for index, text in enumerate(texts):
        check_cancelled()
        cached = cache.get(text_key(text, max_tokens))
        if cached is None:
            uncached.append(index)
            continue
        row_key, cached_passage, truncated[index] = cached
        if row_key not in scored:
            scored[row_key] = score(cached_passage)
        values[index] = scored[row_key]
    remaining: dict[bytes, tuple[list[int], Encoded]] = {}
    rows = tokenize([texts[index] for index in uncached])
    for index, row in zip(uncached, rows, strict=True):
        truncated[index] = row.truncated
        row_key = tokens_key(row.ids)
        passage = None if row_key in scored else cache.get_by_tokens(row_key)
        if passage is not None:
            scored[row_key] = score(passage)
            cache.put(text_key(texts[index], max_tokens), row_key, passage, truncated=row.truncated)
        if row_key in scored:
            values[index] = scored[row_key]
        else:
            remaining.setdefault(row_key, ([], row))[0].append(index)
    return [indexes for indexes, _ in remaining.values()], [row for _, row in remaining.values()]
