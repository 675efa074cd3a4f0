"""The engine of language models by name, for checkpoints that no family knows."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

from ..core.errors import ConfigError
from ..core.types import Capabilities
from ..engine.by_name import ByName
from ..engine.hub import torch_files
from ..engine.templates import TEMPLATES
from .families import UNKNOWN_LENGTH, located, looked_at, run
from .recipes import CAUSAL

__all__ = ["CausalByName"]


class CausalByName(ByName):
    """`causal-lm:/folder` or `causal-lm:org/name`: a language model that answers yes or no, on torch."""

    def __init__(
        self,
        model: str | None = None,
        *,
        template: str | None = None,
        max_tokens: int | None = None,
        batch_tokens: int | None = None,
        device: str | Sequence[str] | None = None,
        runtime: str | None = None,
        dtype: str | None = None,
        revision: str | None = None,
        local_files_only: bool = False,
    ) -> None:
        """See `CausalLM` for the options of the engine, `OnnxByName` for those of the hub.

        Args:
            model: A folder, or `org/name` on the hub.
            template: Whose prompt it was trained with: `qwen3`, `mxbai`, `zerank`, `bge-gemma`.
            max_tokens: Of query and document together.
            batch_tokens: Of one batch.
            device: `cpu`, `cuda`, …, or a list of GPUs.
            runtime: `torch`.
            dtype: `float32`, `bfloat16`, `float16`, `auto`.
            revision: Branch, tag or commit on the hub.
            local_files_only: Ask no network.

        Raises:
            ConfigError: No model or template was named, or what is there is another family's.
        """
        options = {key: each for key, each in locals().items() if key not in ("self", "model", "__class__")}
        if not model:
            raise ConfigError(f"{self.name} needs a model: write {self.name}:/path/to/folder, or {self.name}:org/name.")
        if template not in TEMPLATES:
            raise ConfigError(
                f"{self.name} needs the template that the model was trained with: write {self.name} = "
                f'{{template = "qwen3"}}, or another of: {", ".join(TEMPLATES)}.'
            )
        looked_at(CAUSAL, options)
        more = {"causal-lm": {"template": template}}
        where = located(model, f"{self.name}:{model}", torch_files, options, more)
        declared = Capabilities(
            scale="logit",
            offset=TEMPLATES[template].offset,
            divisor=TEMPLATES[template].divisor,
            max_tokens=max_tokens or UNKNOWN_LENGTH,
            instructions=True,
        )
        super().__init__(model, where, partial(run, CAUSAL, options), declared)
