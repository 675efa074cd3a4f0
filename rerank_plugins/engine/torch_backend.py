"""What the backends over a model on torch share: the common options of local models, one model held, and let go."""

from __future__ import annotations

import asyncio
import os
from abc import abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, ClassVar, Generic, TypeVar

from ..core.devices import devices
from ..core.errors import ConfigError
from ..core.model_id import ModelId
from ..core.scorer import Backend
from ..core.types import RerankRequest, Scores, checked
from .digest import digest, reading
from .options import offered, size
from .resident import Placement, Resident

__all__ = ["TorchBackend"]

M = TypeVar("M", bound=Resident[Any, Any])


class TorchBackend(Backend, Generic[M]):
    """A backend over one model in safetensors form, on a CPU or on GPUs."""

    several: ClassVar[bool] = False
    """Whether it runs on more than one device."""

    def __init__(
        self,
        loaded: Callable[[Path, Placement], M],
        model: str | None,
        placement: Placement,
        *,
        device: str | Sequence[str] | None = None,
        max_tokens: int | None = None,
        batch_tokens: int | None = None,
        runtime: str | None = None,
        dtype: str | None = None,
    ) -> None:
        """Point at a model's folder; it is loaded by the first call, or by `warmup()`.

        Args:
            loaded: Gives the process's one model of a folder and a placement.
            model: The folder.
            placement: What only this engine has; device and dtype are added.
            device: `cpu`, `cuda`, `cuda:1`, `mps`; `None` and `auto` are an NVIDIA GPU where there is one, else the CPU.
                A list of GPUs (`["cuda:0", "cuda:1"]`) holds a copy of the model on each, and deals out the batches of
                a call among them, where the backend is one of those that can.
            max_tokens: The longest input in tokens; `None` is what the folder says.
            batch_tokens: Tokens of one batch; `None` is 1,024 on a CPU and 16,384 on a GPU.
            runtime: `torch`.
            dtype: `None` is float32 on a CPU, bfloat16 on a GPU that has it; `auto` is bfloat16 on a CPU that has it too;
                `float32`, `bfloat16`, and `float16` on a GPU.

        Raises:
            ConfigError: No folder was named, or a value is not offered.
        """
        super().__init__(model)
        if not model:
            raise ConfigError(f"{self.name} needs a model: write {self.name}:/path/to/folder.")
        each_device = self.asked(
            max_tokens=max_tokens, batch_tokens=batch_tokens, device=device, runtime=runtime, dtype=dtype
        )
        self.folder = Path(model).expanduser()
        self.batch_tokens = batch_tokens
        self._loaded = loaded
        placement = replace(placement, dtype=dtype)
        self._placements = [placement.on(each) for each in each_device]
        self._held: list[M] = []

    @classmethod
    def asked(
        cls,
        *,
        max_tokens: int | None,
        batch_tokens: int | None,
        device: str | Sequence[str] | None,
        runtime: str | None,
        dtype: str | None,
    ) -> tuple[Any, ...]:
        """Look at the options alone, before a model is fetched, and return the devices that they name.

        Raises:
            ConfigError: A value is not offered.
        """
        offered("runtime", runtime, ("torch", "auto"))
        offered("dtype", dtype, ("float32", "bfloat16", "float16", "auto"))
        size("max_tokens", max_tokens)
        size("batch_tokens", batch_tokens, 1)  # a text that is longer goes alone
        found = devices(device)
        if len(found) > 1 and not cls.several:
            raise ConfigError(f"This model runs on one device, and device names {len(found)}: name one.")
        return found

    @property
    def model_id(self) -> ModelId:
        """With the runtime and, once it is known, the dtype."""
        # Who closed it and asks for its name does not take hold of a model that others still use.
        dtype = self._held[0].dtype if self._held else self._placements[0].told
        return replace(super().model_id, runtime="torch", dtype=dtype)

    @property
    def fingerprint(self) -> str:
        """The spec's name, and a hash of the model's files: another model may come to stand in the same folder.

        Not the label, which has another dtype once the model is loaded: that would be another name for the same scores.
        """
        return f"{self.spec_name} {self.torch_model.fingerprint}"

    async def afingerprint(self) -> str:
        """Read the files on a thread."""
        return await reading.run(lambda: self.fingerprint)

    @property
    def revision(self) -> str:
        """A hash of the weights."""
        return digest(self.torch_model.weights)

    @property
    def torch_models(self) -> list[M]:
        """The process's one model of this folder and placement, on each device."""
        held = self._held
        if not held or held[0].pid != os.getpid():
            held = self._held = [self._loaded(self.folder, each) for each in self._placements]
        return held

    @property
    def torch_model(self) -> M:
        """The first of them, which also reads the texts and lets the calls in."""
        return self.torch_models[0]

    def tokens(self, text: str) -> Sequence[tuple[int, int]]:
        """Return the characters of each token of `text`."""
        return self.torch_model.encoder.offsets(text)

    async def awarmup(self) -> None:
        """Load the tokenizer and the model."""
        models = self.torch_models
        await asyncio.gather(models[0].workers.run(lambda: models[0].reader), *(each.ready() for each in models))

    async def aclose(self) -> None:
        """Let the model go; it leaves memory when no other reranker holds it."""
        self._held = []

    async def ascore(self, request: RerankRequest) -> Scores:
        """Score every document; `truncated` tells which were cut, `reason` whatever else there is to say."""
        models = self.torch_models
        async with models[0].turns.one():
            values, truncated, reason = await self.scored(models, request)
        label = self.label
        return Scores(
            values=checked(values, request, label),
            model=label,
            capabilities=self.capabilities,
            truncated=tuple(truncated),
            reason=reason,
        )

    @abstractmethod
    async def scored(
        self, models: list[M], request: RerankRequest
    ) -> tuple[Sequence[float], Sequence[bool], str | None]:
        """Return raw scores, what was cut, and a reason, where there is one."""
