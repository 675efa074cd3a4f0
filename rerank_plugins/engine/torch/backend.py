"""Backends over a model on torch: their common options, and any CrossEncoder checkpoint, with sentence-transformers' scores in less time."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, ClassVar, TypeVar

from ...core.devices import devices
from ...core.errors import ConfigError
from ...core.types import Capabilities, RerankRequest
from ..checkpoint import check
from ..shared_model import LoadOptions, ModelBackend, check_choice, check_sizes, score_pairs
from .loading import TorchModel
from .model import CrossEncoderModel, map_rows

__all__ = ["TorchBackend", "TorchCrossEncoder"]

M = TypeVar("M", bound=TorchModel[Any, Any])


class TorchBackend(ModelBackend[M]):
    """A backend over one model in safetensors form, on a CPU or on GPUs."""

    on_several_devices: ClassVar[bool] = False
    """Whether it can hold a copy of the model on each of several devices."""

    def __init__(
        self,
        folder: Path | str,
        load_options: LoadOptions,
        *,
        device: str | Sequence[str] | None = None,
        max_tokens: int | None = None,
        batch_tokens: int | None = None,
        runtime: str | None = None,
        dtype: str | None = None,
    ) -> None:
        """Point at a model's folder; it is loaded by the first call, or by `warmup()`.

        Args:
            folder: The model's.
            load_options: What only this engine has; device and dtype are added.
            device: `cpu`, `cuda`, `cuda:1`, `mps`; `None` and `auto` are an NVIDIA GPU where there is one, else the CPU.
                A list of GPUs (`["cuda:0", "cuda:1"]`) holds a copy of the model on each, and deals out the batches of
                a call among them, where the backend is one of those that can.
            max_tokens: The longest input in tokens; `None` is what the folder says.
            batch_tokens: Tokens of one batch; `None` is 1,024 on a CPU and 16,384 on a GPU.
            runtime: `torch`.
            dtype: `None` is float32 on a CPU, bfloat16 on a GPU that has it; `auto` is bfloat16 on a CPU that has it too;
                `float32`, `bfloat16`, and `float16` on a GPU.

        Raises:
            ConfigError: A value is not offered.
        """
        names = self.check_options(
            max_tokens=max_tokens, batch_tokens=batch_tokens, device=device, runtime=runtime, dtype=dtype
        )
        load_options = replace(load_options, dtype=dtype)
        super().__init__(folder, [load_options.on(name) for name in names], batch_tokens)

    @classmethod
    def check_options(
        cls,
        *,
        max_tokens: int | None,
        batch_tokens: int | None,
        device: str | Sequence[str] | None,
        runtime: str | None,
        dtype: str | None,
    ) -> tuple[Any, ...]:
        """Check the options alone, before a model is fetched, and return the devices that they name.

        Raises:
            ConfigError: A value is not offered.
        """
        check_choice("runtime", runtime, ("torch", "auto"))
        check_choice("dtype", dtype, ("float32", "bfloat16", "float16", "auto"))
        check_sizes(max_tokens, batch_tokens)
        names = devices(device)
        if len(names) > 1 and not cls.on_several_devices:
            raise ConfigError(f"This model runs on one device, and device names {len(names)}: name one.")
        return names


class TorchCrossEncoder(TorchBackend[CrossEncoderModel]):
    """A folder with `config.json`, `tokenizer.json` and safetensors of a sequence-classification model.

    The raw score is the logit, in float32 whatever the model computes in; of two labels the difference. The activation
    that a checkpoint names is not applied: `relevance_score` comes from the declared scale.
    """

    kind = CrossEncoderModel
    capabilities = Capabilities(scale="logit")
    on_several_devices = True

    def __init__(self, folder: Path | str, *, trust_remote_code: bool = False, **options: Any) -> None:
        """Point at a folder; whoever sets `trust_remote_code` has looked at the code in it.

        Raises:
            ConfigError: It holds no cross-encoder, or an option is not offered.
        """
        super().__init__(folder, LoadOptions(remote_code=trust_remote_code), **options)
        check(self.folder, remote_code=trust_remote_code)
        longest = self.shared_model.limits.longest(options.get("max_tokens"))
        self.capabilities = Capabilities(scale="logit", max_tokens=longest)

    async def score(
        self, models: list[CrossEncoderModel], request: RerankRequest
    ) -> tuple[list[float], list[bool], None]:
        """Score every pair."""
        return await score_pairs(
            models[0],
            models[0].limits,
            request,
            self.capabilities.max_tokens or 512,
            lambda rows, keep: map_rows(models, rows, self.batch_tokens, keep),
        )
