"""What a query and a passage have in common, as one number: late interaction, mean vectors, and words of the same term.

Pointwise: how rare a term is comes from a fixed table, not from the other candidates, so a passage's score is its own.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from ..files import json_of

if TYPE_CHECKING:
    import numpy as np

__all__ = ["Passage", "PreparedQuery", "ScoreWeights", "TermRarity"]

_STEPS = 16.0
_FEW = 2**18


@dataclass(frozen=True, slots=True)
class ScoreWeights:
    """How the parts are joined; fitted by `training/fit.py`, and read from a model's `score.json`."""

    power: float
    """A query token weighs its rarity to this power in late interaction."""
    cosine: float
    """Weight of the cosine of mean token vectors."""
    lexical: float
    """Weight of the share of the query's words that the passage holds."""
    floor: float
    """Rarity below which a word is no evidence (in natural logarithms)."""
    saturation: float
    """BM25's k1."""
    by_length: float
    """BM25's b."""
    length: float
    """Tokens of a passage of usual length."""
    offset: float
    """The score at which a candidate of a lexical search is as likely relevant as not."""
    divisor: float
    """How much of the score is one logit."""

    @classmethod
    def read(cls, folder: Path, name: str) -> ScoreWeights:
        """Return the entry `name` of a folder's `score.json`.

        Raises:
            ConfigError: It cannot be read.
        """
        return cls(**json_of(folder / "score.json")[name])


@dataclass(frozen=True, slots=True)
class TermRarity:
    """For each token of the vocabulary, the term it counts as and how rare that is in general English text."""

    terms: np.ndarray
    rarity: np.ndarray

    @classmethod
    @functools.cache
    def read(cls, folder: Path) -> TermRarity:
        """Read `background.npy`: uint16 [2, vocabulary], terms and 16 x rarity; special tokens have none."""
        import numpy as np

        terms, rarity = np.load(folder / "background.npy", allow_pickle=False)
        return cls(terms, rarity.astype(np.float32) / np.float32(_STEPS))


@dataclass(frozen=True, slots=True)
class Passage:
    """A passage as it is compared: float32 vectors of length one [tokens, width], and the terms of its tokens."""

    vectors: np.ndarray
    terms: np.ndarray
    middle: np.ndarray
    """The mean of the vectors, at length one."""

    @classmethod
    def of(cls, ids: Sequence[int], vectors: np.ndarray, background: TermRarity) -> Passage:
        """Put together what is known of a text."""
        import numpy as np

        return cls(vectors, background.terms[np.asarray(ids)], _middle(vectors))

    @property
    def size(self) -> int:
        """Bytes of its arrays."""
        return int(self.vectors.nbytes + self.terms.nbytes + self.middle.nbytes)


class PreparedQuery:
    """A query, prepared once for all passages.

    score = late + cosine x c + lexical x l, where

    - late: the mean, over the query's tokens, of the best match among the passage's (MaxSim: ColBERT, Khattab and Zaharia,
      SIGIR 2020, section 3.3), each token weighted by rarity ** power: special tokens not at all;
    - c: the cosine of the mean token vectors;
    - l: BM25's saturated count (Robertson and Zaragoza, 2009, section 3.4) of each token's term, weighted by rarity - floor, as
      a share of what the query could have: in [0, 1).
    """

    def __init__(self, ids: Sequence[int], vectors: np.ndarray, background: TermRarity, mix: ScoreWeights) -> None:
        """Take the query's token ids and vectors."""
        import numpy as np

        self._mix = mix
        rarity = background.rarity[np.asarray(ids)]
        weights = np.where(rarity > 0, np.maximum(rarity, 1e-3) ** mix.power, 0.0)
        if not weights.any():  # nothing but unknown characters
            weights = np.ones_like(rarity)
        counted = weights > 0
        self._vectors = np.ascontiguousarray(vectors[counted], dtype=np.float32)
        self._weights = weights[counted].astype(np.float64) / weights[counted].sum(dtype=np.float64)
        self._middle = _middle(vectors)
        # A word that is asked for twice counts twice: long queries repeat what they are about.
        terms, place = np.unique(background.terms[np.asarray(ids)], return_inverse=True)
        shares = np.bincount(place, np.maximum(rarity - mix.floor, 0.0), len(terms))
        whole = shares.sum()
        self._terms = terms[shares > 0]
        self._shares = shares[shares > 0] / whole if whole > 0 else shares[:0]

    def score(self, passage: Passage) -> float:
        """Return one passage's score, in products too small for BLAS to take threads of its own.

        Passages are scored one by one: in a product of many, the rounding of a row depends on the rows beside it, and texts
        of the same tokens would not tie. A product of many is no faster either.

        Threads of BLAS would wait in a spin on the cores of the other workers: 5 % of a call. With up to 2 ** 18 multiplications a
        product stays on the calling thread (measured with the OpenBLAS 0.3.31 in numpy's wheels, November 2026).
        """
        import numpy as np

        vectors, step = passage.vectors, max(1, _FEW // self._vectors.size)
        best = np.full(len(self._vectors), -np.inf, dtype=np.float32)
        for first in range(0, len(vectors), step):
            np.maximum(best, (vectors[first : first + step] @ self._vectors.T).max(axis=0), out=best)
        counts = (passage.terms[:, None] == self._terms).sum(axis=0)
        return self._joined(best, passage, counts)

    def _joined(self, best: np.ndarray, passage: Passage, counts: np.ndarray) -> float:
        """Return the score in float64 of best matches [query tokens] and counts [terms]."""
        mix = self._mix
        full = mix.saturation * (1.0 - mix.by_length + mix.by_length * len(passage.terms) / mix.length)
        lexical = float((counts / (counts + full)) @ self._shares)
        cosine = float(passage.middle @ self._middle)
        return float(best @ self._weights) + mix.cosine * cosine + mix.lexical * lexical


def _middle(vectors: np.ndarray) -> np.ndarray:
    import numpy as np

    mean: np.ndarray = vectors.mean(axis=0, dtype=np.float32)
    return mean / np.float32(max(math.sqrt(float(mean @ mean)), 1e-9))
