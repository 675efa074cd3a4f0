"""BM25 over a whole collection: the first stage of a data set that has none."""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import Any

from ..core.errors import InputError, MissingExtra

__all__ = ["BM25"]


class BM25:
    """A BM25 index by bm25s, with its defaults (Lucene's BM25, k1 1.5, b 0.75) and English stop words.

    Args:
        texts: The documents to index, at least one.
        source: What holds the documents, such as a file, for the error.

    Raises:
        InputError: No text has a word that is no stop word.
        MissingExtra: bm25s is not installed.

    >>> from rerank_plugins.evaluation import BM25
    >>> index = BM25(["Bees make honey.", "A bank raised its rates."])
    >>> [position for position, score in index.search("honey", k=1)]
    [0]
    """

    def __init__(self, texts: Sequence[str], source: str | os.PathLike[str] = "The corpus") -> None:
        """Index `texts`. See the class."""
        try:
            import bm25s
        except ModuleNotFoundError as error:
            raise MissingExtra("BM25 as the first stage", extra="evaluation", package="bm25s") from error
        self._tokenize = bm25s.tokenize
        self._count = len(texts)
        self._index = bm25s.BM25()
        tokens = self._tokens(texts)
        if not any(tokens.ids):
            raise InputError(
                f"{source} has no word that BM25 can find among its {len(texts):,} documents: it leaves out stop words "
                "and words of one letter. Add documents, or name a run with your retriever's candidates."
            )
        self._index.index(tokens, show_progress=False)

    def _tokens(self, texts: Sequence[str]) -> Any:
        return self._tokenize(list(texts), stopwords="en", show_progress=False)

    def search(self, query: str, k: int) -> list[tuple[int, float]]:
        """Return (position, score) of the `k` texts that match `query` best, best first; fewer if there are fewer."""
        positions, scores = self._index.retrieve(self._tokens([query]), k=min(k, self._count), show_progress=False)
        return [(int(position), float(score)) for position, score in zip(positions[0], scores[0], strict=True)]
