"""Backends over an ONNX model, without torch: their common options, and any cross-encoder, on onnxruntime (exact) or OpenVINO."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Any, ClassVar

from ...core.devices import devices
from ...core.errors import ConfigError
from ...core.types import Capabilities, RerankRequest
from ..files import only_regular
from ..shared_model import LoadOptions, ModelBackend, check_choice, check_sizes, score_pairs
from .model import BATCH_TOKENS, OnnxModel, model_file
from .runtimes import choose

__all__ = ["OnnxBackend", "OnnxCrossEncoder"]

_LEAST = 16
"""Tokens that a pair of texts needs."""
_log = logging.getLogger("rerank_plugins")


class OnnxBackend(ModelBackend[OnnxModel]):
    """A backend over one ONNX model on this machine's CPU."""

    kind = OnnxModel
    runtimes: ClassVar[tuple[str, ...]] = ("onnxruntime",)

    def __init__(
        self,
        folder: Path | str,
        *,
        max_tokens: int | None = None,
        batch_tokens: int | None = None,
        device: str | Sequence[str] | None = None,
        runtime: str | None = None,
        dtype: str | None = None,
    ) -> None:
        """Point at a model's folder; it is loaded by the first call, or by `warmup()`.

        Args:
            folder: Holds the ONNX file and `tokenizer.json`.
            max_tokens: The longest input in tokens; `None` is what the folder says.
            batch_tokens: Tokens of one batch, padding included; `None` is 512.
            device: `cpu`.
            runtime: One of `runtimes`, or `auto`.
            dtype: `float32`; `auto` for the fastest that keeps the order; on OpenVINO `bfloat16` and `int8`. See
                `runtimes.choose`.

        Raises:
            ConfigError: A missing file, or a value that is not offered.
            MissingExtra: The runtime is not installed.
        """
        runtime, dtype = self.check_options(
            max_tokens=max_tokens, batch_tokens=batch_tokens, device=device, runtime=runtime, dtype=dtype
        )
        super().__init__(folder, [LoadOptions("cpu", dtype, runtime)], batch_tokens)
        if self.folder.is_dir():
            only_regular(self.folder)
        model_file(self.folder)
        if not (self.folder / "tokenizer.json").is_file():
            raise ConfigError(
                f"{self.folder} holds no tokenizer.json: a model needs its own tokenizer beside the ONNX file."
            )

    @classmethod
    def check_options(
        cls,
        *,
        max_tokens: int | None,
        batch_tokens: int | None,
        device: str | Sequence[str] | None,
        runtime: str | None,
        dtype: str | None,
    ) -> tuple[str, str]:
        """Check the options alone, before a model is fetched, and return the runtime and the dtype that they give.

        Raises:
            ConfigError: A value is not offered.
            MissingExtra: The runtime is not installed.
        """
        for name in devices(device):
            check_choice("device", name, ("cpu", "auto"))
        check_sizes(max_tokens, batch_tokens)
        return choose(runtime, dtype, cls.runtimes)

    @property
    def fingerprint(self) -> str:
        """The label, whose runtime and dtype are known from the start, and a hash of the model's files."""
        return f"{self.label} {self.shared_model.fingerprint}"


class OnnxCrossEncoder(OnnxBackend):
    """A folder with `model.onnx` (or `onnx/model.onnx`) and `tokenizer.json`; `config.json` tells its limits.

    The raw score is the model's logit; of a model with two labels it is the second's logit minus the first's, whose
    sigmoid is the softmax of the second.
    """

    capabilities = Capabilities(scale="logit")
    runtimes = ("onnxruntime", "openvino")

    def __init__(self, folder: Path | str, *, max_tokens: int | None = None, **options: Any) -> None:
        """Point at a folder; `max_tokens` counts query, document and special tokens together. For the others see `OnnxBackend`.

        Raises:
            ConfigError: It is no model's, or a value is not offered.
            MissingExtra: The runtime is not installed.
        """
        super().__init__(folder, max_tokens=max_tokens, **options)
        self._warned = False
        self.capabilities = Capabilities(scale="logit", max_tokens=self.shared_model.limits.longest(max_tokens))

    async def score(self, models: list[OnnxModel], request: RerankRequest) -> tuple[list[float], list[bool], None]:
        """Score every pair."""
        (model,) = models
        longest = self.capabilities.max_tokens or 512
        session = await model.ready()
        if session.length is not None and session.length < longest:
            longest = session.length
            self._warn_of_length(longest)
        batch_tokens = self.batch_tokens or BATCH_TOKENS
        return await score_pairs(
            model, model.limits, request, longest, lambda rows, keep: model.map(rows, batch_tokens, keep)
        )

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
