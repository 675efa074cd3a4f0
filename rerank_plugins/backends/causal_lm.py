"""Reranking language models from a folder or a hub repository, for checkpoints that belong to no family."""

from __future__ import annotations

from functools import partial
from typing import Literal

from ..core.errors import ConfigError
from ..core.types import Capabilities
from ..engine.causal_lm.backend import CausalLM
from ..engine.causal_lm.templates import TEMPLATES
from ..engine.hub import folder_or_repository, is_path, require_model
from ..engine.hub_files import torch_files
from ..engine.model_backend import UNKNOWN_LENGTH, LazyBackend
from ..options import TorchOptions
from .recipes import refusal

__all__ = ["CausalLMOptions", "CausalLanguageModel"]


class CausalLMOptions(TorchOptions):
    """Options of a language model that answers yes or no."""

    template: Literal["qwen3", "mxbai", "zerank", "bge-gemma", "ctxl"] | None = None
    """The prompt template that the model was trained with. Required."""


class CausalLanguageModel(LazyBackend):
    """`causal-lm:/folder` or `causal-lm:org/name`: a language model that answers yes or no, on torch."""

    Options = CausalLMOptions

    def __init__(self, model: str | None = None, options: CausalLMOptions | None = None) -> None:
        """Take a folder, or `org/name` on the hub.

        Args:
            model: The folder or repository.
            options: See `CausalLMOptions`.

        Raises:
            ConfigError: No model or template was named, the model is known not to work, or the folder holds one of
                another family.
        """
        options = options or CausalLMOptions()
        template, model = options.template, require_model(model, self.name)
        if template is None:
            raise ConfigError(
                f"{self.name} needs the template that the model was trained with: write {self.name} = "
                f'{{template = "qwen3"}}, or another of: {", ".join(TEMPLATES)}.'
            )
        if not is_path(model) and (why := refusal(model, options.revision)):
            raise ConfigError(f"{self.name} does not offer {model!r}: {why}.")
        CausalLM.check_options(**options.engine())
        more = {"causal-lm": {"template": template}}
        spec = f"{self.name}:{model}"
        source = folder_or_repository(model, spec, torch_files, options.revision, options.local_files_only, more)
        declared = Capabilities(
            scale="logit",
            offset=TEMPLATES[template].offset,
            divisor=TEMPLATES[template].divisor,
            max_tokens=options.max_tokens or UNKNOWN_LENGTH,
            instructions=True,
        )
        make = partial(CausalLM, template=template, **options.engine())
        super().__init__(model, source, make, declared)
