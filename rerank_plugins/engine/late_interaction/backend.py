"""Late interaction combined with lexical matching. The token vectors come from an encoder, or from a table."""

from __future__ import annotations

import weakref
from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ...core._runtime.text_work import check_cancelled
from ...core.bm25 import bm25_scores
from ...core.model_id import ModelId
from ...core.types import Capabilities, RerankRequest
from ..onnx.cross_encoder import BATCH_TOKENS, OnnxBackend, OnnxModel
from ..tokenizer import Encoded
from .passage_cache import PassageCache, TokenVectors, score_cached, text_key, tokens_key
from .scoring import Passage, PreparedQuery, ScoreWeights, TermIDF, combine_cheap_scores

if TYPE_CHECKING:
    import numpy as np

__all__ = ["LateInteraction"]

QUERY_TOKENS = 128
"""Maximum tokens of a query. The rest is cut off."""


class LateInteraction(OnnxBackend):
    """Late interaction combined with lexical matching; `PreparedQuery` has the formula.

    The token vectors come from an encoder, which reads query and document separately, so that the vectors of a document
    serve every later query. Or they come from a table with one vector per token, without a network. Both are pointwise.
    """

    def __init__(
        self,
        folder: Path,
        name: str,
        *,
        document_tokens: int,
        cache_bytes: int,
        from_table: bool = False,
        **options: Any,
    ) -> None:
        """Take a folder with an ONNX file, `tokenizer.json`, `background.npy`, `score.json` and maybe `fast.npy`.

        Args:
            folder: The model's folder.
            name: The model's name in specs, and its entry in `score.json`.
            document_tokens: Maximum tokens of a document, special tokens included. The rest is cut off.
            cache_bytes: Maximum size of the cache of passages; 0 turns it off.
            from_table: Whether the token vectors come from the table.
            **options: See `OnnxBackend`.

        Raises:
            ConfigError: A file is missing, or an option has a value that is not supported.
        """
        super().__init__(folder, cached_graph=True, **options)
        self.model = name
        self.document_tokens = document_tokens
        self.from_table = from_table
        self.score_weights = ScoreWeights.read(self.folder, name)
        self.capabilities = Capabilities(
            scale="logit",
            offset=self.score_weights.offset,
            divisor=self.score_weights.divisor,
            max_document_tokens=document_tokens,
        )
        self._cache: PassageCache[Passage] = PassageCache(cache_bytes)
        self._last_query: tuple[weakref.ref[OnnxModel], list[int], PreparedQuery] | None = None
        """The model that encoded the last query, its tokens, and the prepared query."""

    @property
    def model_id(self) -> ModelId:
        """The model with its runtime and dtype."""
        model_id = super().model_id
        return replace(model_id, runtime="numpy", dtype="float32") if self.from_table else model_id

    @property
    def fingerprint(self) -> str:
        """The model's files and the weights of the score, which a later release may change without the files."""
        return f"{super().fingerprint} {self.score_weights}"

    async def score(self, models: list[OnnxModel], request: RerankRequest) -> tuple[list[float], list[bool], None]:
        """Return the scores and which documents were truncated. The third value, a reason, is always `None`."""
        (model,) = models
        texts = request.documents
        if not self.from_table and not model.is_loaded:
            await self.awarmup()  # tokenizer and network at the same time, on different threads
        (query_row,) = await model.workers.run(lambda: model.tokenizer.singles([request.query], QUERY_TOKENS))
        values: list[float] = [0.0] * len(texts)
        truncated = [False] * len(texts)
        if self.from_table:
            await model.workers.run(
                self._score_from_table, model, self.score_weights, query_row, texts, values, truncated
            )
        else:
            await self._score_with_encoder(model, query_row, texts, values, truncated)
        return values, [query_row.truncated or is_truncated for is_truncated in truncated], None

    async def cheap_scores(self, request: RerankRequest) -> list[float]:
        """Return scores with vectors from the table, combined with BM25 and the retriever's order."""
        model = self.shared_model
        if not model.is_loaded:
            await self.awarmup()  # as `score` does: it is called next
        return await model.workers.run(self._cheap_scores, model, request)

    def _cheap_scores(self, model: OnnxModel, request: RerankRequest) -> list[float]:
        texts = request.documents
        (query_row,) = model.tokenizer.singles([request.query], QUERY_TOKENS)
        values = [0.0] * len(texts)
        weights = ScoreWeights.read(self.folder, "fast")
        self._score_from_table(model, weights, query_row, texts, values, [False] * len(texts))
        return combine_cheap_scores(values, bm25_scores(request.query, texts), request.retrieval_scores)

    def _score_from_table(
        self,
        model: OnnxModel,
        weights: ScoreWeights,
        query: Encoded,
        texts: Sequence[str],
        values: list[float],
        truncated: list[bool],
    ) -> None:
        """Score every text with vectors from the table, and fill in `values` and `truncated`."""
        table, term_idf = TokenVectors.read(self.folder / "fast.npy"), TermIDF.read(self.folder)
        prepared_query = PreparedQuery(query.ids, table.vectors(query.ids), term_idf, weights)
        rows = model.tokenizer.singles(texts, self.document_tokens)
        for index, row in enumerate(rows):
            check_cancelled()
            values[index] = prepared_query.score(Passage.of(row.ids, table.vectors(row.ids), term_idf))
            truncated[index] = row.truncated

    async def _score_with_encoder(
        self, model: OnnxModel, query: Encoded, texts: Sequence[str], values: list[float], truncated: list[bool]
    ) -> None:
        """Score cached passages first, then the other documents batch by batch. Fill in `values` and `truncated`."""
        prepared_query = await self._prepare_query(model, query)
        term_idf, batch_tokens = TermIDF.read(self.folder), self.batch_tokens or BATCH_TOKENS
        indexes_by_row, rows = await model.workers.run(
            score_cached,
            self._cache,
            texts,
            self.document_tokens,
            partial(model.tokenizer.singles, max_tokens=self.document_tokens),
            prepared_query.score,
            values,
            truncated,
        )

        def store(positions: list[int], output: np.ndarray) -> None:
            for vectors, position in zip(output, positions, strict=True):
                row, indexes = rows[position], indexes_by_row[position]
                passage = Passage.of(row.ids, vectors[: len(row.ids)].copy(), term_idf)
                value, row_key = prepared_query.score(passage), tokens_key(row.ids)
                for index in indexes:
                    values[index] = value
                    # If the backend was closed during this call, its new cache must not get passages of the old model.
                    if self._cache.max_bytes and self._models and self._models[0] is model:
                        document_key = text_key(texts[index], self.document_tokens)
                        self._cache.put(document_key, row_key, passage, truncated=truncated[index])

        await model.run_rows(rows, batch_tokens, store)

    async def _prepare_query(self, model: OnnxModel, query: Encoded) -> PreparedQuery:
        """Encode the query, unless it is the last one: with a depth, one call comes here several times."""
        last = self._last_query
        # After `aclose` the files may be other ones, and with them the model.
        if last is not None and last[0]() is model and last[1] == query.ids:
            return last[2]
        prepared_queries: list[PreparedQuery] = []  # `prepare`, a callback, appends the only one
        term_idf = await model.workers.run(TermIDF.read, self.folder)

        def prepare(_: list[int], output: np.ndarray) -> None:
            prepared_queries.append(PreparedQuery(query.ids, output[0], term_idf, self.score_weights))

        await model.run_rows([query], self.batch_tokens or BATCH_TOKENS, prepare)
        if self.depth is not None:
            # One assignment, so it needs no lock.
            self._last_query = weakref.ref(model), query.ids, prepared_queries[0]
        return prepared_queries[0]

    async def awarmup(self) -> None:
        """Load the tokenizer, the IDF of the terms, and the model or the table."""
        model = self.shared_model
        if self.from_table or self.depth is not None:
            await model.workers.run(TokenVectors.read, self.folder / "fast.npy")
        if self.from_table:
            await model.workers.run(lambda: model.tokenizer)
        else:
            await super().awarmup()
        await model.workers.run(TermIDF.read, self.folder)

    async def aclose(self) -> None:
        """Drop the model, the cached passages and the last query."""
        await super().aclose()
        self._last_query = None
        self._cache = PassageCache(self._cache.max_bytes)
