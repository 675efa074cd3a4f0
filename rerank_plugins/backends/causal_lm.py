"""Reranking language models by name, for checkpoints that no family knows."""

from __future__ import annotations

from functools import partial
from typing import Literal

from ..core.errors import ConfigError
from ..core.types import Capabilities
from ..engine.causal_lm.backend import CausalLM
from ..engine.causal_lm.templates import TEMPLATES
from ..engine.hub import torch_files
from ..engine.lazy import UNKNOWN_LENGTH, LazyBackend, located, needed
from ..options import TorchOptions

__all__ = ["CausalByName", "CausalLMOptions"]


class CausalLMOptions(TorchOptions):
    """Options of a language model that answers yes or no."""

    template: Literal["qwen3", "mxbai", "zerank", "bge-gemma"] | None = None
    """Whose prompt it was trained with; needed."""


class CausalByName(LazyBackend):
    """`causal-lm:/folder` or `causal-lm:org/name`: a language model that answers yes or no, on torch."""

    Options = CausalLMOptions

    def __init__(self, model: str | None = None, options: CausalLMOptions | None = None) -> None:
        """Name a folder, or `org/name` on the hub.

        Raises:
            ConfigError: No model or template was named, or what is there is another family's.
        """
        options = options or CausalLMOptions()
        template, model = options.template, needed(model, self.name)
        if template is None:
            raise ConfigError(
                f"{self.name} needs the template that the model was trained with: write {self.name} = "
                f'{{template = "qwen3"}}, or another of: {", ".join(TEMPLATES)}.'
            )
        CausalLM.check_options(**options.engine())
        more = {"causal-lm": {"template": template}}
        spec = f"{self.name}:{model}"
        where = located(model, spec, torch_files, options.revision, options.local_files_only, more)
        declared = Capabilities(
            scale="logit",
            offset=TEMPLATES[template].offset,
            divisor=TEMPLATES[template].divisor,
            max_tokens=options.max_tokens or UNKNOWN_LENGTH,
            instructions=True,
        )
        make = partial(CausalLM, template=template, **options.engine())
        super().__init__(model, where, make, declared)
