"""The engine of language models by name, for checkpoints that no family knows."""

from __future__ import annotations

from functools import partial

from ..core.errors import ConfigError
from ..core.types import Capabilities
from ..engine.by_name import ByName
from ..engine.hub import torch_files
from ..engine.templates import TEMPLATES
from .causal_lm import CausalLMOptions
from .families import UNKNOWN_LENGTH, located, looked_at, run
from .recipes import CAUSAL

__all__ = ["CausalByName"]


class CausalByName(ByName):
    """`causal-lm:/folder` or `causal-lm:org/name`: a language model that answers yes or no, on torch."""

    Options = CausalLMOptions

    def __init__(self, model: str | None = None, options: CausalLMOptions | None = None) -> None:
        """Name a folder, or `org/name` on the hub.

        Raises:
            ConfigError: No model or template was named, or what is there is another family's.
        """
        options = options or CausalLMOptions()
        template = options.template
        if not model:
            raise ConfigError(f"{self.name} needs a model: write {self.name}:/path/to/folder, or {self.name}:org/name.")
        if template is None:
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
            max_tokens=options.max_tokens or UNKNOWN_LENGTH,
            instructions=True,
        )
        super().__init__(model, where, partial(run, CAUSAL, options), declared)
