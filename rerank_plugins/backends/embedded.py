"""The models in the wheel: token vectors compared with late interaction and lexical evidence. No key, no download; English."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

from pydantic import PlainValidator, WithJsonSchema

from ..core.errors import ConfigError
from ..core.model_id import ModelId
from ..core.numeric import integer
from ..core.text_work import check_cancelled
from ..core.types import Capabilities, RerankRequest, Scores, checked
from ..engine.encoder import Encoded
from ..engine.evidence import Asked, Background, Mix, Passage
from ..engine.onnx_backend import OnnxBackend
from ..engine.vectors import Table, VectorCache, key, key_of_tokens
from ..options import CPU, Count, Number, Options
from ..options import checked as validator

if TYPE_CHECKING:
    import numpy as np

    from ..engine.onnx_model import OnnxModel

__all__ = ["Embedded"]

FOLDER = Path(__file__).parent / "embedded_model"
MODELS = ("embedded", "fast")
QUERY_TOKENS = 128
DOCUMENT_TOKENS = 256
CACHE_MB = 256


LONGEST = 512
"""Tokens that the encoder has positions for."""
DocumentTokens = Annotated[
    int,
    PlainValidator(validator(lambda value, name: integer(value, name, 16, LONGEST))),
    WithJsonSchema({"type": "integer", "minimum": 16, "maximum": LONGEST}),
]


class EmbeddedOptions(Options):
    """Options of the models in the wheel."""

    cache_mb: Number = CACHE_MB
    """Megabytes of document vectors to keep for later queries (about 0.3 a passage of 200 tokens); 0 turns it off. `fast`
    needs none."""
    max_tokens: DocumentTokens | None = None
    """Tokens of a document that are read, special ones included; 256 unless given, 512 at most."""
    batch_tokens: Count | None = None
    """Tokens of one batch."""
    device: CPU | None = None
    """`cpu`."""
    runtime: Literal["onnxruntime", "auto"] | None = None
    """`onnxruntime`; `fast` takes none."""
    dtype: Literal["float32", "auto"] | None = None
    """`float32`."""


class Embedded(OnnxBackend):
    """Late interaction joined with lexical evidence; `Asked` has the formula, `embedded_model/CARD.md` the figures.

    `embedded` takes the token vectors of a six-layer encoder; query and document are encoded apart, so the vectors of a
    document serve every later query. `embedded:fast` takes one vector a token from a table: no network is run. Both are
    pointwise and no cross-encoder. raw is about -1 to 2; relevance_score = sigmoid((raw - offset) / divisor), which is the
    probability that a candidate of a lexical search is relevant, on the development data.
    """

    Options = EmbeddedOptions
    model = "embedded"

    def __init__(self, model: str | None = None, options: EmbeddedOptions | None = None) -> None:
        """Choose one of the two models: `None`, or `fast`.

        Raises:
            ConfigError: There is no such model.
        """
        options = options or EmbeddedOptions()
        name = model or "embedded"
        if name not in MODELS:
            raise ConfigError(f"There is no embedded model {model!r}: write 'embedded' or 'embedded:fast'.")
        super().__init__(
            FOLDER,
            name,
            max_tokens=options.max_tokens,
            batch_tokens=options.batch_tokens,
            device=options.device,
            runtime=options.runtime,
            dtype=options.dtype,
        )
        self.document_tokens = options.max_tokens or DOCUMENT_TOKENS
        self.mix = Mix.read(FOLDER, name)
        self.capabilities = Capabilities(
            scale="logit",
            offset=self.mix.offset,
            divisor=self.mix.divisor,
            max_document_tokens=self.document_tokens,
        )
        self._cache = VectorCache(int(options.cache_mb * 1_000_000))

    @property
    def model_id(self) -> ModelId:
        """With runtime and dtype."""
        model_id = super().model_id
        return replace(model_id, runtime="numpy", dtype="float32") if self.model == "fast" else model_id

    @property
    def fingerprint(self) -> str:
        """With the weights of the score: a later release may keep the model's file and change them."""
        return f"{super().fingerprint} {self.mix}"

    async def ascore(self, request: RerankRequest) -> Scores:
        """Compare the query with the passages that are known, and encode and compare the others batch by batch."""
        model = self.onnx_model
        async with model.turns.one():
            return await self._scored(model, request)

    async def _scored(self, model: OnnxModel, request: RerankRequest) -> Scores:
        texts = request.documents
        (query_row,) = await model.workers.run(lambda: model.encoder.singles([request.query], QUERY_TOKENS))
        values: list[float] = [0.0] * len(texts)
        truncated = [False] * len(texts)
        if self.model == "fast":
            await model.workers.run(self._look_up, model, query_row, texts, values, truncated)
        else:
            await self._encode(model, query_row, texts, values, truncated)
        label = self.label
        return Scores(
            values=checked(values, request, label),
            model=label,
            capabilities=self.capabilities,
            truncated=tuple(query_row.truncated or each for each in truncated),
        )

    def _look_up(
        self, model: OnnxModel, query: Encoded, texts: Sequence[str], values: list[float], truncated: list[bool]
    ) -> None:
        """Score every text from the table: what takes time is to cut texts into tokens."""
        table, background = Table.read(FOLDER / "fast.npy"), Background.read(FOLDER)
        asked = Asked(query.ids, table.vectors(query.ids), background, self.mix)
        rows = model.encoder.singles(texts, self.document_tokens)
        for index, row in enumerate(rows):
            check_cancelled()
            values[index] = asked.score(Passage.of(row.ids, table.vectors(row.ids), background))
            truncated[index] = row.truncated

    async def _encode(
        self, model: OnnxModel, query: Encoded, texts: Sequence[str], values: list[float], truncated: list[bool]
    ) -> None:
        found = list[Asked]()
        background = await model.workers.run(Background.read, FOLDER)

        def ask(_: list[int], output: np.ndarray) -> None:
            found.append(Asked(query.ids, output[0], background, self.mix))

        await model.map([query], self.batch_tokens, ask)
        (asked,) = found
        unseen, rows = await model.workers.run(self._recall, model, asked, texts, values, truncated)

        def keep(positions: list[int], output: np.ndarray) -> None:
            for line, position in enumerate(positions):
                row, indexes = rows[position], unseen[position]
                passage = Passage.of(row.ids, output[line, : len(row.ids)].copy(), background)
                value, tokens = asked.score(passage), key_of_tokens(row.ids)
                for index in indexes:
                    values[index] = value
                    if self._cache.max_bytes and self._held is model:  # not after it was closed
                        name = key(texts[index], self.document_tokens)
                        self._cache.put(name, tokens, passage, truncated=truncated[index])

        await model.map(rows, self.batch_tokens, keep)

    def _recall(
        self, model: OnnxModel, asked: Asked, texts: Sequence[str], values: list[float], truncated: list[bool]
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
                scored[tokens] = asked.score(passage)
            values[index] = scored[tokens]
        alike: dict[bytes, tuple[list[int], Encoded]] = {}
        rows = model.encoder.singles([texts[index] for index in unseen], self.document_tokens)
        for index, row in zip(unseen, rows, strict=True):
            truncated[index] = row.truncated
            tokens = key_of_tokens(row.ids)
            held = None if tokens in scored else self._cache.of_tokens(tokens)
            if held is not None:
                scored[tokens] = asked.score(held)
                self._cache.put(key(texts[index], self.document_tokens), tokens, held, truncated=row.truncated)
            if tokens in scored:
                values[index] = scored[tokens]
            else:
                alike.setdefault(tokens, ([], row))[0].append(index)
        return [indexes for indexes, _ in alike.values()], [row for _, row in alike.values()]

    async def awarmup(self) -> None:
        """Load the tokenizer, the table of rarity and the model."""
        model = self.onnx_model
        await model.workers.run(Background.read, FOLDER)
        if self.model == "fast":
            await model.workers.run(Table.read, FOLDER / "fast.npy")
            await model.workers.run(lambda: model.encoder)
        else:
            await super().awarmup()

    async def aclose(self) -> None:
        """Let the model and the vectors go."""
        await super().aclose()
        self._cache = VectorCache(self._cache.max_bytes)
