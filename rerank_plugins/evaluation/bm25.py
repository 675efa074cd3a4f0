"""BM25 over a whole collection: the first stage of a data set that comes without one."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from ..core.errors import MissingExtra

__all__ = ["BM25"]


class BM25:
    """bm25s with its defaults (Lucene's BM25, k1 1.5, b 0.75) and English stop words."""

    def __init__(self, texts: Sequence[str]) -> None:
        """Index `texts`.

        Raises:
            MissingExtra: bm25s is not installed.
        """
        try:
            import bm25s
        except ModuleNotFoundError as error:
            raise MissingExtra("BM25 as the first stage", extra="evaluation", package="bm25s") from error
        self._tokenize = bm25s.tokenize
        self._count = len(texts)
        self._index = bm25s.BM25()
        self._index.index(self._tokens(texts), show_progress=False)

    def _tokens(self, texts: Sequence[str]) -> Any:
        return self._tokenize(list(texts), stopwords="en", show_progress=False)

    def search(self, query: str, k: int) -> list[tuple[int, float]]:
        """Return the positions and scores of the k best texts, the best first."""
        found, scores = self._index.retrieve(self._tokens([query]), k=min(k, self._count), show_progress=False)
        return [(int(position), float(score)) for position, score in zip(found[0], scores[0], strict=True)]
