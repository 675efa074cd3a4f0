"""Reranking language models on torch: the logit of "yes" after a prompt, with the prompt's beginning computed once a call."""

from __future__ import annotations

from functools import partial
from typing import Literal

from ..core.errors import ConfigError
from ..core.types import Capabilities, RerankRequest
from ..engine.causal_load import check, context, room
from ..engine.causal_model import CausalModel, loaded, map_prompts
from ..engine.resident import Placement
from ..engine.templates import TEMPLATES
from ..engine.torch_backend import TorchBackend
from ..options import TorchOptions

__all__ = ["CausalLM", "CausalLMOptions"]


class CausalLMOptions(TorchOptions):
    """Options of a language model that answers yes or no."""

    template: Literal["qwen3", "mxbai", "zerank", "bge-gemma"] | None = None
    """Whose prompt it was trained with; needed."""


class CausalLM(TorchBackend[CausalModel]):
    """A folder with `config.json`, `tokenizer.json` and safetensors of one family's language model.

    The raw score is the logit of the family's word for yes, minus the one for no where it has one, in float32 whatever
    the model computes in.
    """

    Options = CausalLMOptions
    capabilities = Capabilities(scale="logit", instructions=True)
    several = True

    def __init__(self, model: str | None = None, options: CausalLMOptions | None = None) -> None:
        """Point at the folder `model`; `max_tokens` and `batch_tokens` do not count what all prompts begin with.

        Raises:
            ConfigError: No folder or template was named, or it holds another family's model.
        """
        options = options or CausalLMOptions()
        template, max_tokens = options.template, options.max_tokens
        super().__init__(loaded, model, Placement(template=template), **options.engine())
        if template is None:
            raise ConfigError(
                f"{self.name} needs the template that the model was trained with: set template to one of: "
                f"{', '.join(TEMPLATES)}."
            )
        prompt = TEMPLATES[template]
        check(self.folder, prompt.architecture, f"the template {template}")
        self._context, most = context(self.folder), room(self.folder)
        if max_tokens is not None and max_tokens > most:
            raise ConfigError(
                f"max_tokens {max_tokens} is more than the {most} that {self.folder} has beside its prompt: lower it."
            )
        self._template = template
        self.capabilities = Capabilities(
            scale="logit",
            offset=prompt.offset,
            divisor=prompt.divisor,
            max_tokens=max_tokens or most,
            instructions=True,
        )

    @property
    def fingerprint(self) -> str:
        """With the template."""
        return f"{super().fingerprint} {self._template}"

    async def scored(self, models: list[CausalModel], request: RerankRequest) -> tuple[list[float], list[bool], None]:
        """Score the prompt of every document."""
        model, longest = models[0], self.capabilities.max_tokens or 512
        prompts = await model.workers.run(lambda: model.reader)
        build = partial(prompts.build, max_tokens=longest, context=self._context)
        rows = await model.workers.run(build, request.query, request.documents, request.instruction)
        values: list[float] = [0.0] * len(rows)

        def keep(positions: list[int], found: list[float]) -> None:
            for position, value in zip(positions, found, strict=True):
                values[position] = value

        await map_prompts(models, rows, self.batch_tokens, keep)
        return values, [row.truncated for row in rows], None
