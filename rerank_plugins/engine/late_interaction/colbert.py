"""ColBERT models: the score is MaxSim over the vectors of the query's and the document's tokens."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from ...core._runtime.text_work import check_cancelled
from ...core.errors import BadResponse, ConfigError
from ...core.types import Capabilities, RerankRequest
from ..model_backend import ModelBackend
from ..onnx.cross_encoder import BATCH_TOKENS, OnnxBackend
from ..tokenizer import Encoded
from ..torch.base import TorchBackend
from ..torch.cross_encoder import run_rows
from .encoders import OnnxTokenModel, TorchTokenModel, check_weights
from .maxsim import VectorFormat, best_matches, compress, unit_vectors
from .passage_cache import PassageCache, score_cached, text_key, tokens_key
from .vector_file import VectorFile, vectors_key

if TYPE_CHECKING:
    import numpy as np

__all__ = ["OnnxColBERT", "TorchColBERT", "VectorOptions"]

_FORMAT = "1"
"""Part of the key of stored vectors. Raise it when older vectors can no longer be used."""
_GROUP_CHARACTERS = 2_000_000
"""Characters of the documents whose token rows are in memory at the same time."""

M = TypeVar("M", OnnxTokenModel, TorchTokenModel)
Store = Callable[[list[int], "np.ndarray"], None]


@dataclass(frozen=True, slots=True, kw_only=True)
class VectorOptions:
    """What is done with the vectors of documents, and how much of a query is read."""

    query_tokens: int | None = None
    """Tokens that are read of a query; `None` is what the model's settings say."""
    cache_bytes: int = 0
    """The size of the cache in memory; 0 turns it off."""
    cache_path: Path | None = None
    """The SQLite file of the cache on disk; `None` for none."""
    disk_bytes: int = 0
    """The size of the cache on disk."""
    vector_format: VectorFormat = "float32"
    """How vectors are cached. A document is scored by the vectors in this format, cached or not."""


@dataclass(frozen=True, slots=True)
class _Passage:
    """The vectors of a document, [tokens, width]."""

    vectors: np.ndarray

    @property
    def size(self) -> int:
        return int(self.vectors.nbytes)


class _Query:
    """The vectors of a query, prepared once for all documents of a call."""

    def __init__(self, vectors: np.ndarray) -> None:
        import numpy as np

        self.vectors = np.ascontiguousarray(vectors, dtype=np.float32)

    def score(self, passage: _Passage) -> float:
        """Return MaxSim divided by the number of the query's vectors, so that it is in [-1, 1] for every query."""
        import numpy as np

        if not len(self.vectors):
            return 0.0
        return float(best_matches(self.vectors, passage.vectors).mean(dtype=np.float64))


class _ColBERT(ModelBackend[M]):
    """A late-interaction model in a folder. Subclasses run the encoder.

    The raw score is the mean, over the vectors of the query, of the largest cosine with a vector of the document:
    MaxSim divided by the number of the query's vectors. So it is in [-1, 1], and queries of different lengths share
    one scale. It is pointwise.
    """

    def __init__(self, folder: Path | str, *, vectors: VectorOptions | None = None, **options: Any) -> None:
        """Take a model's folder.

        Args:
            folder: The model's folder.
            vectors: See `VectorOptions`.
            **options: See `ModelBackend`. `max_tokens` counts the tokens of a document, with marker and special tokens.

        Raises:
            ConfigError: The folder holds no late-interaction model, or an option is not offered.
        """
        super().__init__(folder, **options)
        self.vectors = vectors or VectorOptions()
        layout = self.shared_model.layout
        self.document_tokens = options.get("max_tokens") or layout.max_document_tokens
        self.query_tokens = self.vectors.query_tokens or layout.max_query_tokens
        for name, value in (("max_tokens", self.document_tokens), ("query_tokens", self.query_tokens)):
            if layout.positions is not None and value > layout.positions:
                raise ConfigError(
                    f"{name} must be at most {layout.positions}, the positions of the model, got {value}: lower it."
                )
        self.capabilities = Capabilities(scale="cosine", max_document_tokens=self.document_tokens)
        self._cache: PassageCache[_Passage] = PassageCache(self.vectors.cache_bytes)
        path = self.vectors.cache_path
        self._file = None if path is None else VectorFile(path, self.vectors.disk_bytes)

    @abstractmethod
    async def _run(self, models: list[M], rows: Sequence[Encoded], store: Store) -> None:
        """Run every row through the encoder; `store` gets positions and output after every batch, on a worker."""

    @property
    def fingerprint(self) -> str:
        """What the scores depend on: the model's files, how it is run, and what is read and stored of a text."""
        cached = f"{self.vectors.vector_format} {self.query_tokens} {self.document_tokens}"
        return f"{super().fingerprint} {self.shared_model.layout} {cached}"

    async def score(self, models: list[M], request: RerankRequest) -> tuple[list[float], list[bool], None]:
        """Return the scores and which documents were truncated. The third value, a reason, is always `None`."""
        model = models[0]
        tokenizer = await model.workers.run(lambda: model.rows_tokenizer)
        await model.loaded_network()
        longest = model.fixed_length or max(self.query_tokens, self.document_tokens)
        query_row = await model.workers.run(tokenizer.query, request.query, min(self.query_tokens, longest))
        query = await self._encode_query(models, tokenizer.counted(query_row, is_query=True), query_row)
        values: list[float] = [0.0] * len(request.documents)
        truncated = [query_row.truncated] * len(request.documents)
        for first, last in _groups(request.documents):
            part = await self._score_group(
                models, query, request.documents[first:last], min(self.document_tokens, longest)
            )
            values[first:last] = part[0]
            if not query_row.truncated:
                truncated[first:last] = part[1]
        return values, truncated, None

    async def _encode_query(self, models: list[M], counted: np.ndarray, row: Encoded) -> _Query:
        queries: list[_Query] = []  # `store`, a callback, appends the only one

        def store(_: list[int], output: np.ndarray) -> None:
            vectors = models[0].project(output)[0][: len(row.ids)]
            queries.append(_Query(unit_vectors(vectors[counted])))

        await self._run(models, [row], store)
        return queries[0]

    async def _score_group(
        self, models: list[M], query: _Query, texts: Sequence[str], max_tokens: int
    ) -> tuple[list[float], list[bool]]:
        """Score cached documents first, those of the file next, then the others batch by batch."""
        model = models[0]
        tokenizer = model.rows_tokenizer
        values: list[float] = [0.0] * len(texts)
        truncated = [False] * len(texts)
        indexes_by_row, rows = await model.workers.run(
            score_cached,
            self._cache,
            texts,
            max_tokens,
            partial(tokenizer.documents, max_tokens=max_tokens),
            query.score,
            values,
            truncated,
        )

        def keep(position: int, passage: _Passage) -> None:
            value, row_key = query.score(passage), tokens_key(rows[position].ids)
            for index in indexes_by_row[position]:
                values[index] = value
                # If the backend was closed during this call, its new cache must not get passages of the old model.
                if self._cache.max_bytes and self._models and self._models[0] is model:
                    self._cache.put(text_key(texts[index], max_tokens), row_key, passage, truncated=truncated[index])

        remaining = list(range(len(rows)))
        names: list[bytes] = []
        file = self._file
        if file is not None and rows:
            names, counts = await model.workers.run(self._names, model, rows)
            data = await file.get(names)
            stored = [data.get(name) for name in names]
            remaining = await model.workers.run(self._read_stored, counts, query.vectors.shape[1], stored, keep)

        def store(positions: list[int], output: np.ndarray) -> None:
            new: dict[bytes, bytes] = {}
            for vectors, place in zip(model.project(output), positions, strict=True):
                position = remaining[place]
                row = rows[position]
                counted = unit_vectors(vectors[: len(row.ids)][tokenizer.counted(row, is_query=False)])
                self._check_finite(counted)
                passage = _Passage(compress(counted, self.vectors.vector_format))
                keep(position, passage)
                if file is not None:
                    new[names[position]] = passage.vectors.tobytes()
            if file is not None:
                file.put(new)

        await self._run(models, [rows[position] for position in remaining], store)
        return values, truncated

    def _check_finite(self, vectors: np.ndarray) -> None:
        """Check the vectors of a document before they are cached: int8 codes of NaN would give a finite score.

        Raises:
            BadResponse: A number among them is NaN or infinite.
        """
        import numpy as np

        if not np.isfinite(vectors).all():
            raise BadResponse(
                f"{self.label} returned token vectors that are not finite numbers. Set dtype to 'float32', or name "
                "another model.",
                backend=self.label,
            )

    def _names(self, model: M, rows: Sequence[Encoded]) -> tuple[list[bytes], list[int]]:
        """Return the name of each row in the file, and how many vectors it has.

        What the vectors depend on beside the tokens is part of the name.
        """
        tokenizer = model.rows_tokenizer
        runtime, dtype, device = model.describe_network(model.network)
        place = device.partition(":")[0]  # the GPUs of one machine compute the same
        identity = (
            f"{_FORMAT} {model.fingerprint} {runtime} {dtype} {place} {self.vectors.vector_format} {model.layout}"
        )
        counts = [int(tokenizer.counted(row, is_query=False).sum()) for row in rows]
        return [vectors_key(identity, row.ids) for row in rows], counts

    def _read_stored(
        self,
        counts: Sequence[int],
        width: int,
        stored: Sequence[bytes | None],
        keep: Callable[[int, _Passage], None],
    ) -> list[int]:
        """Score the rows whose vectors the file holds, and return the positions of the others.

        Args:
            counts: How many vectors each row has.
            width: The width of a vector.
            stored: What the file holds for each row.
            keep: Called with the position of a row and its passage.
        """
        import numpy as np

        dtype = np.dtype(self.vectors.vector_format)
        remaining = []
        for position, (count, data) in enumerate(zip(counts, stored, strict=True)):
            check_cancelled()
            # A damaged entry is encoded again.
            if data is not None and len(data) == count * width * dtype.itemsize:
                vectors = np.frombuffer(data, dtype).reshape(count, width)
                if dtype == np.int8 or np.isfinite(vectors).all():
                    keep(position, _Passage(vectors))
                    continue
            remaining.append(position)
        return remaining

    async def aclose(self) -> None:
        """Drop the model and the cached vectors, and close the file."""
        await super().aclose()
        self._cache = PassageCache(self._cache.max_bytes)
        if self._file is not None:
            await self._file.aclose()


def _groups(texts: Sequence[str]) -> Iterator[tuple[int, int]]:
    """Yield start and end of groups of consecutive texts with at most `_GROUP_CHARACTERS`; a longer text is alone."""
    first = size = 0
    for index, text in enumerate(texts):
        if index > first and size + len(text) > _GROUP_CHARACTERS:
            yield first, index
            first, size = index, 0
        size += len(text)
    yield first, len(texts)


class OnnxColBERT(_ColBERT[OnnxTokenModel], OnnxBackend):
    """A late-interaction model in ONNX form on this machine's CPU; without torch."""

    kind = OnnxTokenModel

    async def _run(self, models: list[OnnxTokenModel], rows: Sequence[Encoded], store: Store) -> None:
        await models[0].run_rows(rows, self.batch_tokens or BATCH_TOKENS, store)


class TorchColBERT(_ColBERT[TorchTokenModel], TorchBackend[TorchTokenModel]):
    """A late-interaction model in safetensors, on a CPU or on GPUs."""

    kind = TorchTokenModel
    on_several_devices = True

    def __init__(self, folder: Path | str, **options: Any) -> None:
        """Take a model's folder; see `_ColBERT`."""
        check_weights(Path(folder).expanduser())
        super().__init__(folder, **options)

    async def _run(self, models: list[TorchTokenModel], rows: Sequence[Encoded], store: Store) -> None:
        await run_rows(models, rows, self.batch_tokens, store)
