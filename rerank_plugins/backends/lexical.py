"""BM25 over the candidates: no model and no download. A good fallback for a model."""

from __future__ import annotations

from collections.abc import Sequence

from ..core.bm25 import bm25_scores
from ..core.scorer import LocalBackend
from ..core.types import Capabilities
from ..options import Options

__all__ = ["Lexical"]


class LexicalOptions(Options):
    """BM25 over the candidates has no options."""


class Lexical(LocalBackend):
    """BM25 with the candidates as the collection: listwise. `core.bm25` has the formula.

    A score is the share of the query's words that the document holds, weighted by rarity: it lies in [0, 1).
    """

    Options = LexicalOptions
    model = "lexical"
    capabilities = Capabilities(scale="unit", listwise=True)
    quick = True

    def __init__(self, options: LexicalOptions | None = None) -> None:
        """Take no options."""
        super().__init__()

    @property
    def revision(self) -> str:
        """The version of the formula. A calibration is valid for one version."""
        return "3"

    @property
    def fingerprint(self) -> str:
        """The name and the revision, so that cached scores of another version are not used."""
        return f"{super().fingerprint} {self.revision}"

    def score(self, query: str, documents: Sequence[str]) -> list[float]:
        """Return one score in [0, 1) per document; 0 for a document without a word of the query."""
        return bm25_scores(query, documents)
