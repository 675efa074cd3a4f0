"""MaxSim, the score of late interaction, over token vectors in float32, float16 or int8."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    import numpy as np

__all__ = ["VectorFormat", "best_matches", "compress", "unit_vectors"]

VectorFormat = Literal["float32", "float16", "int8"]
"""How token vectors are stored. MaxSim is computed in float32 in any case."""
_MAX_PRODUCT = 2**18
"""Multiplications of a matrix product that OpenBLAS runs on the calling thread; see `best_matches`."""


def unit_vectors(vectors: np.ndarray) -> np.ndarray:
    """Return the vectors scaled to length one, in float32; a vector of zeros stays as it is.

    Args:
        vectors: Any float or integer dtype, [tokens, width].
    """
    import numpy as np

    rows = vectors.astype(np.float32, copy=False)
    lengths = np.sqrt(np.einsum("ij,ij->i", rows, rows))[:, None]
    unit: np.ndarray = rows / np.maximum(lengths, np.float32(1e-12))
    return unit


def compress(vectors: np.ndarray, vector_format: VectorFormat) -> np.ndarray:
    """Return unit vectors in a format. Of int8 vectors only the direction matters: each has a scale of its own.

    Args:
        vectors: float32 [tokens, width], each of length one.
        vector_format: The dtype of the result.
    """
    import numpy as np

    if vector_format == "int8":
        largest = np.maximum(np.abs(vectors).max(axis=1, keepdims=True), np.float32(1e-12))
        codes: np.ndarray = np.rint(vectors * (np.float32(127.0) / largest)).astype(np.int8)
        return codes
    return np.ascontiguousarray(vectors, dtype=vector_format)


def best_matches(query: np.ndarray, vectors: np.ndarray) -> np.ndarray:
    """Return, for each vector of the query, its largest dot product with a vector of the passage: float32 [tokens].

    MaxSim is the sum of these (ColBERT: Khattab and Zaharia, SIGIR 2020, section 3.3).

    The passage is read block by block, so that a long one needs no memory for all of its products. The products of a
    block are small enough for BLAS to use no threads of its own, which would spin on the cores of the other workers: 5
    % of a call. OpenBLAS runs up to 2 ** 18 multiplications on the calling thread (measured with 0.3.31 in numpy's
    wheels, November 2026).

    Args:
        query: float32 [tokens, width].
        vectors: The passage's, [tokens, width], in any `VectorFormat`.
    """
    import numpy as np

    if not len(vectors):
        return np.zeros(len(query), dtype=np.float32)  # minus infinity would be no score
    step = max(1, _MAX_PRODUCT // max(1, query.size))
    best = np.full(len(query), -np.inf, dtype=np.float32)
    transposed = query.T
    for first in range(0, len(vectors), step):
        block = vectors[first : first + step]
        if block.dtype == np.int8:
            block = unit_vectors(block)
        elif block.dtype != np.float32:
            block = block.astype(np.float32)
        np.maximum(best, (block @ transposed).max(axis=0), out=best)
    return best
