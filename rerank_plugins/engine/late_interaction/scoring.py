"""Scores a passage for a query: late interaction (MaxSim), the cosine of mean vectors, and BM25 of shared terms.

Pointwise: the inverse document frequency (IDF) of a term comes from a fixed table and not from the other candidates, so
a score does not depend on them.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from ..files import json_of
from .maxsim import best_matches

if TYPE_CHECKING:
    import numpy as np

__all__ = ["Passage", "PreparedQuery", "ScoreWeights", "TermIDF", "combine_cheap_scores"]

_STEPS = 16.0

_LEXICAL, _RANK = 0.2, 0.1
"""Weights of BM25, and of the logarithm of the retriever's rank, against a score in standard deviations: chosen with
`training/depth.py` on the development split."""


def combine_cheap_scores(
    scores: Sequence[float], lexical: Sequence[float], retrieval_scores: Sequence[float] | None
) -> list[float]:
    """Return scores in standard deviations, plus those of BM25, minus the logarithm of the retriever's rank.

    Args:
        scores: A score of each document.
        lexical: Its score by BM25 over the candidates.
        retrieval_scores: The retriever's score of each document; `None` if they are in the retriever's order.
    """
    count = len(scores)
    retrieved = [-float(position) for position in range(count)] if retrieval_scores is None else retrieval_scores
    ranks = {score: rank for rank, score in enumerate(sorted(set(retrieved), reverse=True), start=1)}
    return [
        score + _LEXICAL * word_score - _RANK * math.log(ranks[own])
        for score, word_score, own in zip(_standardized(scores), _standardized(lexical), retrieved, strict=True)
    ]


def _standardized(scores: Sequence[float]) -> list[float]:
    mean = sum(scores) / len(scores)
    spread = math.sqrt(sum((score - mean) ** 2 for score in scores) / len(scores)) or 1.0
    return [(score - mean) / spread for score in scores]


class ScoreWeights(NamedTuple):
    """The weights of the parts of the score, fitted by `training/fit.py` and read from a model's `score.json`."""

    power: float
    """In late interaction the weight of a query token is its IDF to this power."""
    cosine: float
    """The weight of the cosine of mean token vectors."""
    lexical: float
    """The weight of the share of the query's terms that the passage holds."""
    floor: float
    """The IDF below which a term does not count."""
    saturation: float
    """BM25's k1."""
    by_length: float
    """BM25's b."""
    length: float
    """The tokens of a passage of average length."""
    offset: float
    """The score at which a candidate of a lexical search is relevant with probability 0.5."""
    divisor: float
    """The difference of scores that equals one logit."""

    @classmethod
    def read(cls, folder: Path, name: str) -> ScoreWeights:
        """Return the entry `name` of a folder's `score.json`.

        Raises:
            ConfigError: The file cannot be read.
        """
        return cls(**json_of(folder / "score.json")[name])


class TermIDF(NamedTuple):
    """For each token of the vocabulary, its term and the inverse document frequency (IDF) of that term.

    The frequencies come from general English text (`training/background.py`), not from the candidates.
    """

    terms: np.ndarray
    """The id of the term; inflections of a word share one."""
    values: np.ndarray
    """The IDF of the term, a natural logarithm; 0 for special tokens."""

    @classmethod
    @functools.cache
    def read(cls, folder: Path) -> TermIDF:
        """Read `background.npy`: uint16 [2, vocabulary], terms and 16 x IDF."""
        import numpy as np

        terms, scaled_idf = np.load(folder / "background.npy", allow_pickle=False)
        return cls(terms, scaled_idf.astype(np.float32) / np.float32(_STEPS))


class Passage(NamedTuple):
    """A prepared passage: unit vectors of its tokens, float32 [tokens, width], and the terms of its tokens."""

    vectors: np.ndarray
    terms: np.ndarray
    mean: np.ndarray
    """The mean of the vectors, scaled to length one."""

    @classmethod
    def of(cls, ids: Sequence[int], vectors: np.ndarray, term_idf: TermIDF) -> Passage:
        """Create the passage from token ids and their vectors."""
        import numpy as np

        return cls(vectors, term_idf.terms[np.asarray(ids)], _unit_mean(vectors))

    @property
    def size(self) -> int:
        """The size of the arrays in bytes."""
        return int(self.vectors.nbytes + self.terms.nbytes + self.mean.nbytes)


class PreparedQuery:
    """A query, prepared once for all passages.

    score = late + cosine x c + lexical x l, where

    - late: the weighted mean, over the query's tokens, of the best match among the passage's tokens (MaxSim: ColBERT,
      Khattab and Zaharia, SIGIR 2020, section 3.3); the weight is IDF ** power, and 0 for special tokens;
    - c: the cosine of the mean token vectors;
    - l: BM25's saturated count (Robertson and Zaragoza, 2009, section 3.4) of each token's term, weighted by IDF -
      floor, as a share of the maximum for the query: in [0, 1).
    """

    def __init__(self, ids: Sequence[int], vectors: np.ndarray, term_idf: TermIDF, score_weights: ScoreWeights) -> None:
        """Take the query's token ids and vectors."""
        import numpy as np

        self._score_weights = score_weights
        idf = term_idf.values[np.asarray(ids)]
        weights = np.where(idf > 0, np.maximum(idf, 1e-3) ** score_weights.power, 0.0)
        if not weights.any():  # only unknown characters
            weights = np.ones_like(idf)
        counted = weights > 0
        self._vectors = np.ascontiguousarray(vectors[counted], dtype=np.float32)
        self._weights = weights[counted].astype(np.float64) / weights[counted].sum(dtype=np.float64)
        self._mean = _unit_mean(vectors)
        # A term that occurs twice in the query counts twice: long queries repeat their topic.
        terms, place = np.unique(term_idf.terms[np.asarray(ids)], return_inverse=True)
        shares = np.bincount(place, np.maximum(idf - score_weights.floor, 0.0), len(terms))
        whole = shares.sum()
        self._terms = terms[shares > 0]
        self._shares = shares[shares > 0] / whole if whole > 0 else shares[:0]

    def score(self, passage: Passage) -> float:
        """Return the score of one passage.

        Passages are scored one by one. In a product over many passages the rounding of a row depends on the other rows,
        so texts with the same tokens would not tie; it is no faster either.
        """
        best = best_matches(self._vectors, passage.vectors)
        counts = (passage.terms[:, None] == self._terms).sum(axis=0)
        return self._combine(best, passage, counts)

    def _combine(self, best: np.ndarray, passage: Passage, counts: np.ndarray) -> float:
        """Combine the best matches [query tokens] and the term counts [terms] to the score, in float64."""
        weights = self._score_weights
        half_count = weights.saturation * (
            1.0 - weights.by_length + weights.by_length * len(passage.terms) / weights.length
        )
        lexical = float((counts / (counts + half_count)) @ self._shares)
        cosine = float(passage.mean @ self._mean)
        return float(best @ self._weights) + weights.cosine * cosine + weights.lexical * lexical


def _unit_mean(vectors: np.ndarray) -> np.ndarray:
    import numpy as np

    mean: np.ndarray = vectors.mean(axis=0, dtype=np.float32)
    return mean / np.float32(max(math.sqrt(float(mean @ mean)), 1e-9))
