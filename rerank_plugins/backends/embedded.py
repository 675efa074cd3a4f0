"""The models in the wheel: late interaction combined with lexical matching. No key, no download; English."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from ..core.errors import ConfigError
from ..core.types import Depth, RerankRequest
from ..engine.late_interaction.backend import LateInteraction
from ..engine.late_interaction.spelling import Spelling
from ..engine.onnx.cross_encoder import choose_runtime
from ..engine.shared_model import LoadOptions

if TYPE_CHECKING:
    from .embedded_options import EmbeddedOptions

__all__ = ["Embedded"]

FOLDER = Path(__file__).parent / "embedded_model"
MODELS = ("embedded", "balanced", "fast")
DOCUMENT_TOKENS = 256
CACHE_MB = 256
FOR_TOP = 10
MISS = 0.015
ROUNDS = 6
"""How often the model is called for one request at most."""
MULTILINGUAL = "bge:bge-reranker-v2-m3"
"""The model to name for text in other languages."""
_log = logging.getLogger("rerank_plugins")


class Defaults(NamedTuple):
    """What `EmbeddedOptions` has without any option; that model needs pydantic."""

    balanced: None = None
    cache_mb: float = CACHE_MB
    max_tokens: None = None
    batch_tokens: None = None
    device: None = None
    runtime: None = None
    dtype: None = None


class Embedded(LateInteraction):
    """Late interaction combined with lexical matching.

    `PreparedQuery` has the formula, and `embedded_model/CARD.md` the figures.

    `embedded` uses the token vectors of a six-layer encoder, `embedded:fast` one vector per token from a table.
    `embedded:balanced` is `embedded` over the documents that can still be among the best, by the scores of the table
    and the retriever's order; the others have no score.

    The raw score is about -1 to 2; relevance_score = sigmoid((raw - offset) / divisor), which is the probability that a
    candidate of a lexical search is relevant, on the development data.
    """

    Options = "rerank_plugins.backends.embedded_options:EmbeddedOptions"
    model = "embedded"

    def __init__(self, model: str | None = None, options: EmbeddedOptions | None = None) -> None:
        """Choose one of the models.

        Args:
            model: `None` or `embedded`, `balanced`, or `fast`.
            options: See `EmbeddedOptions`.

        Raises:
            ConfigError: There is no such model.
        """
        settings = options or Defaults()
        name = model or "embedded"
        if name not in MODELS:
            raise ConfigError(
                f"There is no embedded model {model!r}: write 'embedded', 'embedded:balanced' or 'embedded:fast'."
            )
        super().__init__(
            FOLDER,
            "fast" if name == "fast" else "embedded",
            document_tokens=settings.max_tokens or DOCUMENT_TOKENS,
            cache_bytes=int(settings.cache_mb * 1_000_000),
            from_table=name == "fast",
            max_tokens=settings.max_tokens,
            batch_tokens=settings.batch_tokens,
            device=settings.device,
            runtime=settings.runtime,
            dtype=None if name == "fast" else settings.dtype,
        )
        if name == "balanced":
            self.model = name
            balanced = settings.balanced
            for_top, miss = (FOR_TOP, MISS) if balanced is None else (balanced.for_top, balanced.miss)
            self.depth = Depth(for_top, miss, ROUNDS)
        self._spelling = Spelling()
        self._warned = False

    @classmethod
    def options_of_copies(
        cls, names: Sequence[str | None], runtime: str | None, dtype: str | None
    ) -> list[LoadOptions]:
        """Return how to load the model: onnxruntime in float32, unless bfloat16 is named and the CPU computes it."""
        if dtype == "bfloat16" and runtime == "onnxruntime":
            raise ConfigError("onnxruntime does not compute bfloat16: leave runtime out, or set dtype to 'float32'.")
        (options,) = super().options_of_copies(names, runtime, None if dtype == "bfloat16" else dtype)
        if dtype != "bfloat16" or choose_runtime(runtime, dtype, ("onnxruntime", "openvino"))[1] != dtype:
            return [options]
        return [LoadOptions("cpu", "bfloat16", "openvino")]

    async def request_warning(self, request: RerankRequest) -> str | None:
        """Name the texts that the vocabulary cannot spell."""
        texts = (request.query, *request.documents)
        # The backend may be closed by now: only such texts take its model again.
        unspelled = await self._spelling.unspelled(texts, lambda: self.shared_model.tokenizer)
        if not unspelled:
            return None
        count = len(unspelled - {0})
        # A part of the caller's documents does not tell how many there are in all.
        documents = f"{count} of {len(request.documents)} documents" if request.positions is None else "some documents"
        parts = ["the query"] * (0 in unspelled) + [documents] * bool(count)
        reason = (
            f"{self.spec_name} reads English, and its vocabulary cannot spell {' and '.join(parts)}: "
            f"name a multilingual model, such as {MULTILINGUAL}"
        )
        if not self._warned:
            self._warned = True
            _log.warning("%s (logged once)", reason)
        return reason
