"""Any cross-encoder in ONNX form, from a local folder, on onnxruntime (exact) or OpenVINO; without torch."""

from __future__ import annotations

import logging
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from ..core.errors import ConfigError
from ..core.types import Capabilities, RerankRequest, Scores, checked
from ..engine.logits import logits
from ..engine.onnx_backend import OnnxBackend
from ..options import CPU, LocalOptions

if TYPE_CHECKING:
    import numpy as np

    from ..engine.onnx_model import OnnxModel

__all__ = ["Onnx", "OnnxOptions"]

_LEAST = 16
"""Tokens that a pair of texts needs."""
_log = logging.getLogger("rerank_plugins")


class OnnxOptions(LocalOptions):
    """Options of a cross-encoder in ONNX form."""

    device: CPU | None = None
    """`cpu`."""
    runtime: Literal["auto", "onnxruntime", "openvino"] | None = None
    """`onnxruntime`, or `openvino`; without it onnxruntime, unless `dtype` calls for OpenVINO."""
    dtype: Literal["float32", "auto", "bfloat16", "int8"] | None = None
    """`float32`, exact; `auto` for the fastest that keeps the order; on OpenVINO `bfloat16` and `int8`."""


class Onnx(OnnxBackend):
    """A folder with `model.onnx` (or `onnx/model.onnx`) and `tokenizer.json`; `config.json` tells its limits.

    The raw score is the model's logit; of a model with two labels it is the second's logit minus the first's, whose
    sigmoid is the softmax of the second.
    """

    Options = OnnxOptions
    capabilities = Capabilities(scale="logit")
    runtimes = ("onnxruntime", "openvino")

    def __init__(self, model: str | None = None, options: OnnxOptions | None = None) -> None:
        """Point at the folder `model`; `max_tokens` counts query, document and special tokens together.

        Raises:
            ConfigError: No folder was named, or it is no model's.
        """
        options = options or OnnxOptions()
        if not model:
            raise ConfigError("onnx needs a folder: write onnx:/path/to/folder (with an ONNX file and tokenizer.json).")
        super().__init__(Path(model).expanduser(), model, **options.engine())
        self._warned = False
        self.capabilities = Capabilities(scale="logit", max_tokens=self.onnx_model.limits.longest(options.max_tokens))

    def _warn_of_length(self, length: int) -> None:
        if length < _LEAST:
            raise ConfigError(
                f"{self.folder} takes exactly {length} tokens, which hold no pair of texts: export it for any length."
            )
        if not self._warned:
            self._warned = True
            _log.warning(
                "%s takes exactly %s tokens, and its settings say %s: longer texts are cut there. Set max_tokens to %s.",
                self.folder,
                length,
                self.capabilities.max_tokens,
                length,
            )

    async def ascore(self, request: RerankRequest) -> Scores:
        """Score every pair; `truncated` tells which documents were cut."""
        model = self.onnx_model
        async with model.turns.one():
            return await self._scored(model, request)

    async def _scored(self, model: OnnxModel, request: RerankRequest) -> Scores:
        longest = self.capabilities.max_tokens or 512
        encoder = await model.workers.run(lambda: model.encoder)
        if not encoder.joins_pairs:
            raise ConfigError(f"The tokenizer in {self.folder} joins no pair of texts: this is no cross-encoder's.")
        session = await model.workers.run(lambda: model.session)
        if session.length is not None and session.length < longest:
            longest = session.length
            self._warn_of_length(longest)
        query = model.limits.prompt + request.query
        rows = await model.workers.run(partial(encoder.pairs, query, request.documents, longest))
        values: list[float] = [0.0] * len(rows)

        def keep(positions: list[int], output: np.ndarray) -> None:
            for position, value in zip(positions, logits(output, self.folder), strict=True):
                values[position] = value

        await model.map(rows, self.batch_tokens, keep)
        truncated = tuple(row.truncated for row in rows)
        label = self.label
        return Scores(
            values=checked(values, request, label),
            model=label,
            capabilities=self.capabilities,
            truncated=truncated,
        )
