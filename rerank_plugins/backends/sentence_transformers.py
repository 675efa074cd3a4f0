"""Any CrossEncoder checkpoint, on torch: the same scores as sentence-transformers', in less time."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from ..core.errors import ConfigError
from ..core.scorer import Backend
from ..core.types import Capabilities, RerankRequest, Scores, checked
from ..engine.digest import digest
from ..engine.logits import logits
from ..engine.options import offered, size
from ..engine.torch_load import check
from ..engine.torch_model import Placement, TorchModel, loaded

if TYPE_CHECKING:
    import numpy as np

__all__ = ["SentenceTransformers"]


class SentenceTransformers(Backend):
    """A folder with `config.json`, `tokenizer.json` and safetensors of a sequence-classification model.

    The raw score is the logit, in float32 whatever the model computes in; of two labels the difference. The activation
    that a checkpoint names is not applied: `relevance_score` comes from the declared scale.
    """

    capabilities = Capabilities(scale="logit")

    def __init__(
        self,
        model: str | None = None,
        *,
        max_tokens: int | None = None,
        batch_tokens: int | None = None,
        device: str | None = None,
        runtime: str | None = None,
        dtype: str | None = None,
        trust_remote_code: bool = False,
    ) -> None:
        """Point at a model's folder; it is loaded by the first call, or by `warmup()`.

        Args:
            model: The folder.
            max_tokens: Query, document and special tokens together; `None` is what the folder says.
            batch_tokens: Tokens of one batch, padding included; `None` is 1,024 on a CPU and 16,384 on a GPU.
            device: `cpu`, `cuda`, `cuda:1`, `mps`; `None` and `auto` are an NVIDIA GPU where there is one, else the CPU.
            runtime: `torch`.
            dtype: `None` is float32 on a CPU, bfloat16 on a GPU that has it; `auto` is bfloat16 on a CPU that has it
                too; `float32`, `bfloat16`, and `float16` on a GPU.
            trust_remote_code: Run the checkpoint's own code; whoever sets it has looked at the pinned revision.

        Raises:
            ConfigError: No folder was named, or it holds no cross-encoder, or a value is not offered.
        """
        super().__init__(model)
        if not model:
            raise ConfigError(f"{self.name} needs a model: write {self.name}:/path/to/folder.")
        offered("runtime", runtime, ("torch", "auto"))
        offered("dtype", dtype, ("float32", "bfloat16", "float16", "auto"))
        size("max_tokens", max_tokens)
        size("batch_tokens", batch_tokens)
        self.folder = Path(model).expanduser()
        check(self.folder, remote_code=trust_remote_code)
        self._batch_tokens = batch_tokens
        self._placement = Placement(device=device, dtype=dtype, remote_code=trust_remote_code)
        self._held: TorchModel | None = None
        self.capabilities = Capabilities(scale="logit", max_tokens=self.torch_model.limits.longest(max_tokens))

    @property
    def detail(self) -> str:
        """Runtime and, once it is known, dtype."""
        dtype = self.torch_model.dtype
        return f"torch {dtype}" if dtype else "torch"

    @property
    def fingerprint(self) -> str:
        """The spec's name, and size and age of the weights: another model may come to stand in the same folder.

        Not the label, which has another dtype once the model is loaded: that would be another name for the same scores.
        """
        told = [file.stat() for file in sorted(self.folder.glob("**/*.safetensors"))]
        return " ".join([self.spec_name, *(f"{each.st_size} {each.st_mtime_ns}" for each in told)])

    @property
    def revision(self) -> str:
        """A hash of the weights."""
        return digest(sorted(self.folder.glob("**/*.safetensors")))

    @property
    def torch_model(self) -> TorchModel:
        """The process's one model of this folder, device and dtype."""
        held = self._held
        if held is None or held.pid != os.getpid():
            held = self._held = loaded(self.folder, self._placement)
        return held

    def tokens(self, text: str) -> Sequence[tuple[int, int]]:
        """Return the characters of each token of `text`."""
        return self.torch_model.encoder.offsets(text)

    async def awarmup(self) -> None:
        """Load the tokenizer and the model."""
        model = self.torch_model
        await asyncio.gather(model.workers.run(lambda: model.encoder), model.workers.run(lambda: model.network))

    async def aclose(self) -> None:
        """Let the model go; it leaves memory when no other reranker holds it."""
        self._held = None

    async def ascore(self, request: RerankRequest) -> Scores:
        """Score every pair; `truncated` tells which documents were cut."""
        async with self.torch_model.turns:
            return await self._scored(request)

    async def _scored(self, request: RerankRequest) -> Scores:
        model, longest = self.torch_model, self.capabilities.max_tokens or 512
        encoder = await model.workers.run(lambda: model.encoder)
        if not encoder.joins_pairs:
            raise ConfigError(f"The tokenizer in {self.folder} joins no pair of texts: this is no cross-encoder's.")
        rows = await model.workers.run(partial(encoder.pairs, request.query, request.documents, longest))
        values: list[float] = [0.0] * len(rows)

        def keep(positions: list[int], output: np.ndarray) -> None:
            for position, value in zip(positions, logits(output, self.folder), strict=True):
                values[position] = value

        await model.map(rows, self._batch_tokens, keep)
        return Scores(
            values=checked(values, len(rows), self.label),
            model=self.label,
            capabilities=self.capabilities,
            truncated=tuple(row.truncated for row in rows),
        )
