"""What the backends over an ONNX model share: the common options of local models, one model held, and let go."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import ClassVar

from ..core.devices import devices
from ..core.errors import ConfigError
from ..core.model_id import ModelId
from ..core.scorer import Backend
from .digest import digest, reading
from .files import only_regular
from .onnx_model import BATCH_TOKENS, OnnxModel, loaded, model_file
from .options import offered, size
from .runtimes import choose

__all__ = ["OnnxBackend"]


class OnnxBackend(Backend):
    """A backend over one ONNX model on this machine's CPU."""

    runtimes: ClassVar[tuple[str, ...]] = ("onnxruntime",)

    def __init__(
        self,
        folder: Path,
        model: str,
        *,
        max_tokens: int | None = None,
        batch_tokens: int | None = None,
        device: str | None = None,
        runtime: str | None = None,
        dtype: str | None = None,
    ) -> None:
        """Point at a model's folder; it is loaded by the first call, or by `warmup()`.

        Args:
            folder: Holds the ONNX file and `tokenizer.json`.
            model: Its name in specs.
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
        super().__init__(model)
        self._runtime, self._dtype = self.asked(
            max_tokens=max_tokens, batch_tokens=batch_tokens, device=device, runtime=runtime, dtype=dtype
        )
        if folder.is_dir():
            only_regular(folder)
        model_file(folder)
        if not (folder / "tokenizer.json").is_file():
            raise ConfigError(
                f"{folder} holds no tokenizer.json: a model needs its own tokenizer beside the ONNX file."
            )
        self.folder = folder
        self._max_tokens = max_tokens
        self.batch_tokens = batch_tokens or BATCH_TOKENS
        self._held: OnnxModel | None = None

    @classmethod
    def asked(
        cls,
        *,
        max_tokens: int | None,
        batch_tokens: int | None,
        device: str | Sequence[str] | None,
        runtime: str | None,
        dtype: str | None,
    ) -> tuple[str, str]:
        """Look at the options alone, before a model is fetched, and return the runtime and the dtype that they give.

        Raises:
            ConfigError: A value is not offered.
            MissingExtra: The runtime is not installed.
        """
        for each in devices(device):
            offered("device", each, ("cpu", "auto"))
        size("max_tokens", max_tokens)
        size("batch_tokens", batch_tokens, 1)  # a text that is longer goes alone
        return choose(runtime, dtype, cls.runtimes)

    @property
    def model_id(self) -> ModelId:
        """With runtime and dtype."""
        return replace(super().model_id, runtime=self._runtime, dtype=self._dtype)

    @property
    def fingerprint(self) -> str:
        """The label, and a hash of the model's files: another model may come to stand in the same folder."""
        return f"{self.label} {self.onnx_model.fingerprint}"

    async def afingerprint(self) -> str:
        """Read the files on a thread."""
        return await reading.run(lambda: self.fingerprint)

    @property
    def revision(self) -> str:
        """A hash of the model's file, and of weights that it keeps beside it."""
        return digest(self.onnx_model.weights)

    @property
    def onnx_model(self) -> OnnxModel:
        """The process's one model of this folder."""
        held = self._held
        if held is None or held.pid != os.getpid():
            held = self._held = loaded(self.folder, self._runtime, self._dtype)
        return held

    def tokens(self, text: str) -> Sequence[tuple[int, int]]:
        """Return the characters of each token of `text`."""
        return self.onnx_model.encoder.offsets(text)

    async def awarmup(self) -> None:
        """Load the tokenizer and the model."""
        model = self.onnx_model
        await asyncio.gather(model.workers.run(lambda: model.encoder), model.workers.run(lambda: model.session))

    async def aclose(self) -> None:
        """Let the model go; it leaves memory when no other reranker holds it."""
        self._held = None
