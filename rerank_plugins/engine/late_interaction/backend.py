"""Late interaction joined with lexical evidence, over an encoder of token vectors or a table of them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ...core.model_id import ModelId
from ...core.text_work import check_cancelled
from ...core.types import Capabilities, RerankRequest
from ..onnx.backend import OnnxBackend
from ..onnx.model import BATCH_TOKENS, OnnxModel
from ..tokenizer import Encoded
from .passage_cache import PassageCache, TokenVectors, key, key_of_tokens
from .scoring import Passage, PreparedQuery, ScoreWeights, TermRarity

if TYPE_CHECKING:
    import numpy as np

__all__ = ["LateInteraction"]

QUERY_TOKENS = 128


class LateInteraction(OnnxBackend):
    """Late interaction joined with lexical evidence; `PreparedQuery` has the formula.

    The token vectors come of an encoder, for query and document apart, so that the vectors of a document serve every later
    query; or from a table, one a token, where no network is run. Both are pointwise and no cross-encoder.
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
        """Point at a folder with an ONNX file, `tokenizer.json`, `background.npy`, `score.json` and, for a table, `fast.npy`.

        Args:
            folder: The model's.
            name: Of its entry in `score.json`, and in specs.
            document_tokens: What is read of a document, special tokens included.
            cache_bytes: Of the vectors of passages that are kept for later queries.
            from_table: Whether the vectors come from the table.
            **options: As of `OnnxBackend`.

        Raises:
            ConfigError: A file is missing, or an option is not offered.
        """
        super().__init__(folder, **options)
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
        self._cache = PassageCache(cache_bytes)

    @property
    def model_id(self) -> ModelId:
        """With runtime and dtype."""
        model_id = super().model_id
        return replace(model_id, runtime="numpy", dtype="float32") if self.from_table else model_id

    @property
    def fingerprint(self) -> str:
        """With the weights of the score: a later release may keep the model's file and change them."""
        return f"{super().fingerprint} {self.score_weights}"

    async def score(self, models: list[OnnxModel], request: RerankRequest) -> tuple[list[float], list[bool], None]:
        """Compare the query with the passages that are known, and encode and compare the others batch by batch."""
        (model,) = models
        texts = request.documents
        (query_row,) = await model.workers.run(lambda: model.tokenizer.singles([request.query], QUERY_TOKENS))
        values: list[float] = [0.0] * len(texts)
        truncated = [False] * len(texts)
        if self.from_table:
            await model.workers.run(self._look_up, model, query_row, texts, values, truncated)
        else:
            await self._encode(model, query_row, texts, values, truncated)
        return values, [query_row.truncated or cut for cut in truncated], None

    def _look_up(
        self, model: OnnxModel, query: Encoded, texts: Sequence[str], values: list[float], truncated: list[bool]
    ) -> None:
        """Score every text from the table: what takes time is to cut texts into tokens."""
        table, background = TokenVectors.read(self.folder / "fast.npy"), TermRarity.read(self.folder)
        prepared = PreparedQuery(query.ids, table.vectors(query.ids), background, self.score_weights)
        rows = model.tokenizer.singles(texts, self.document_tokens)
        for index, row in enumerate(rows):
            check_cancelled()
            values[index] = prepared.score(Passage.of(row.ids, table.vectors(row.ids), background))
            truncated[index] = row.truncated

    async def _encode(
        self, model: OnnxModel, query: Encoded, texts: Sequence[str], values: list[float], truncated: list[bool]
    ) -> None:
        ready = list[PreparedQuery]()
        background = await model.workers.run(TermRarity.read, self.folder)

        def prepare(_: list[int], output: np.ndarray) -> None:
            ready.append(PreparedQuery(query.ids, output[0], background, self.score_weights))

        batch_tokens = self.batch_tokens or BATCH_TOKENS
        await model.map([query], batch_tokens, prepare)
        (prepared,) = ready
        unseen, rows = await model.workers.run(self._recall, model, prepared, texts, values, truncated)

        def keep(positions: list[int], output: np.ndarray) -> None:
            for line, position in enumerate(positions):
                row, indexes = rows[position], unseen[position]
                passage = Passage.of(row.ids, output[line, : len(row.ids)].copy(), background)
                value, tokens = prepared.score(passage), key_of_tokens(row.ids)
                for index in indexes:
                    values[index] = value
                    if self._cache.max_bytes and self._held and self._held[0] is model:  # not after it was closed
                        name = key(texts[index], self.document_tokens)
                        self._cache.put(name, tokens, passage, truncated=truncated[index])

        await model.map(rows, batch_tokens, keep)

    def _recall(
        self,
        model: OnnxModel,
        prepared: PreparedQuery,
        texts: Sequence[str],
        values: list[float],
        truncated: list[bool],
    ) -> tuple[list[list[int]], list[Encoded]]:
        """Score what was seen before; return the rows of the rest, and for each row the texts that have these tokens.

        Texts of the same tokens are compared once, in one call and over calls, so that they tie whatever the cache holds.
        """
        scored: dict[bytes, float] = {}
        unseen: list[int] = []
        for index, text in enumerate(texts):
            check_cancelled()
            known = self._cache.get(key(text, self.document_tokens))
            if known is None:
                unseen.append(index)
                continue
            tokens, passage, truncated[index] = known
            if tokens not in scored:
                scored[tokens] = prepared.score(passage)
            values[index] = scored[tokens]
        alike: dict[bytes, tuple[list[int], Encoded]] = {}
        rows = model.tokenizer.singles([texts[index] for index in unseen], self.document_tokens)
        for index, row in zip(unseen, rows, strict=True):
            truncated[index] = row.truncated
            tokens = key_of_tokens(row.ids)
            held = None if tokens in scored else self._cache.of_tokens(tokens)
            if held is not None:
                scored[tokens] = prepared.score(held)
                self._cache.put(key(texts[index], self.document_tokens), tokens, held, truncated=row.truncated)
            if tokens in scored:
                values[index] = scored[tokens]
            else:
                alike.setdefault(tokens, ([], row))[0].append(index)
        return [indexes for indexes, _ in alike.values()], [row for _, row in alike.values()]

    async def awarmup(self) -> None:
        """Load the tokenizer, the table of rarity and the model."""
        model = self.shared_model
        await model.workers.run(TermRarity.read, self.folder)
        if self.from_table:
            await model.workers.run(TokenVectors.read, self.folder / "fast.npy")
            await model.workers.run(lambda: model.tokenizer)
        else:
            await super().awarmup()

    async def aclose(self) -> None:
        """Let the model and the vectors go."""
        await super().aclose()
        self._cache = PassageCache(self._cache.max_bytes)
