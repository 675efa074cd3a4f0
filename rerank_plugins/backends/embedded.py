"""The model in the wheel: late interaction over all-MiniLM-L6-v2. No key, no download; English."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from ..core.errors import ConfigError
from ..core.types import Capabilities, RerankRequest, Scores, checked
from ..engine.encoder import Encoded
from ..engine.onnx_backend import OnnxBackend
from ..engine.vectors import VectorCache, key

if TYPE_CHECKING:
    import numpy as np

__all__ = ["Embedded"]

FOLDER = Path(__file__).parent / "embedded_model"
QUERY_TOKENS = 128
DOCUMENT_TOKENS = 256
CACHE_MB = 256


class Embedded(OnnxBackend):
    """Mean, over the query's tokens, of the best match among the document's tokens (MaxSim).

    raw = 1/|q| * sum over query tokens i of max over document tokens j of cos(q_i, d_j), in [-1, 1], with the last
    layer's token vectors of sentence-transformers/all-MiniLM-L6-v2 (Apache-2.0), query and document encoded apart
    (ColBERT; Khattab and Zaharia, SIGIR 2020, section 3.3; theirs is the sum). It was never trained for this and is
    no cross-encoder. Pointwise, so the vectors of a document serve every later query.
    """

    model = "embedded"

    def __init__(
        self,
        model: str | None = None,
        *,
        cache_mb: float = CACHE_MB,
        max_tokens: int | None = None,
        batch_tokens: int | None = None,
        device: str | None = None,
        runtime: str | None = None,
        dtype: str | None = None,
    ) -> None:
        """See `OnnxBackend`.

        Args:
            model: None; there is one.
            cache_mb: Megabytes of document vectors to keep for later queries (about 0.15 a passage of 200 tokens);
                0 turns it off.
            max_tokens: Tokens of a document that are read, special ones included; 256 unless given, 512 at most.
            batch_tokens: Tokens of one batch.
            device: `cpu`.
            runtime: `onnxruntime`.
            dtype: `float32`.

        Raises:
            ConfigError: A value that is not offered.
        """
        if model not in (None, "", "embedded"):
            raise ConfigError(
                f"There is one embedded model and it has no name: write 'embedded', not 'embedded:{model}'."
            )
        if isinstance(cache_mb, bool) or not isinstance(cache_mb, int | float) or cache_mb < 0:
            raise ConfigError(f"cache_mb has to be a number of megabytes, 0 for no cache, and {cache_mb!r} is not.")
        if isinstance(max_tokens, int) and max_tokens > 512:
            raise ConfigError(f"The embedded model reads at most 512 tokens of a document, not {max_tokens}.")
        super().__init__(
            FOLDER,
            "embedded",
            max_tokens=max_tokens,
            batch_tokens=batch_tokens,
            device=device,
            runtime=runtime,
            dtype=dtype,
        )
        self.document_tokens = max_tokens or DOCUMENT_TOKENS
        self.capabilities = Capabilities(scale="cosine", max_document_tokens=self.document_tokens)
        self._cache = VectorCache(int(cache_mb * 1_000_000))

    async def ascore(self, request: RerankRequest) -> Scores:
        """Compare the query with the vectors that are known, and encode and compare the other documents batch by batch."""
        model, texts = self.onnx_model, request.documents
        (query_row,) = await model.workers.run(lambda: model.encoder.singles([request.query], QUERY_TOKENS))
        query = (await self._vectors(query_row))[0]
        values: list[float] = [0.0] * len(texts)
        truncated = [query_row.truncated] * len(texts)
        unseen, rows = await model.workers.run(self._recall, query, texts, values, truncated)

        def keep(positions: list[int], output: np.ndarray) -> None:
            for line, position in enumerate(positions):
                row, index = rows[position], unseen[position]
                vectors = output[line, : len(row.ids)]
                values[index] = _on_a_worker(query, vectors)
                truncated[index] |= row.truncated
                if self._cache.max_bytes:
                    self._cache.put(key(texts[index], self.document_tokens), vectors.copy(), row.truncated)

        await model.map(rows, self.batch_tokens, keep)
        return Scores(
            values=checked(values, len(texts), self.label),
            model=self.label,
            capabilities=self.capabilities,
            truncated=tuple(truncated),
        )

    async def _vectors(self, row: Encoded) -> np.ndarray:
        found: list[np.ndarray] = []
        await self.onnx_model.map([row], self.batch_tokens, lambda _, output: found.append(output))
        return found[0]

    def _recall(
        self, query: np.ndarray, texts: Sequence[str], values: list[float], truncated: list[bool]
    ) -> tuple[list[int], list[Encoded]]:
        """Score what was seen before; return the positions and the rows of the rest."""
        known, unseen = [], []
        for index, text in enumerate(texts):
            found = self._cache.get(key(text, self.document_tokens))
            if found is None:
                unseen.append(index)
            else:
                known.append((index, found[0]))
                truncated[index] |= found[1]
        for (index, _), value in zip(known, _late_interaction(query, [vectors for _, vectors in known]), strict=True):
            values[index] = value
        return unseen, self.onnx_model.encoder.singles([texts[index] for index in unseen], self.document_tokens)

    async def aclose(self) -> None:
        """Let the model and the vectors go."""
        await super().aclose()
        self._cache = VectorCache(self._cache.max_bytes)


def _on_a_worker(query: np.ndarray, vectors: np.ndarray) -> float:
    """Return MaxSim of the query's vectors with one document's, in products too small for BLAS to take threads of its own.

    Those would wait in a spin on the cores of the other workers: 5 % of a call. With up to 2 ** 18 multiplications a
    product stays on the calling thread (measured with the OpenBLAS 0.3.31 in numpy's wheels, November 2026).
    """
    import numpy as np

    step = max(1, 2**18 // query.size)
    best = np.full(len(query), -np.inf, dtype=np.float32)
    for first in range(0, len(vectors), step):
        np.maximum(best, (vectors[first : first + step] @ query.T).max(axis=0), out=best)
    return float(best.mean(dtype=np.float64))


def _late_interaction(query: np.ndarray, documents: list[np.ndarray]) -> list[float]:
    """Return MaxSim of the query's vectors with each document's; all vectors of length one."""
    import numpy as np

    # A block of documents in one product: fast, and bounded in memory for ten thousand of them.
    scores: list[float] = []
    for first in range(0, len(documents), 64):
        block = documents[first : first + 64]
        starts = np.cumsum([0, *(len(vectors) for vectors in block[:-1])])
        best = np.maximum.reduceat(np.concatenate(block) @ query.T, starts, axis=0)
        scores += best.mean(axis=1, dtype=np.float64).tolist()
    return scores
