"""Reranking language models on torch: the logit of "yes" after a prompt, with the prompt's beginning computed once a call."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Any

from ...core.errors import ConfigError
from ...core.types import Capabilities, RerankRequest
from ..checkpoint import check_language_model
from ..shared_model import LoadOptions
from ..torch.backend import TorchBackend
from .model import CausalModel, context, map_prompts, text_tokens
from .templates import TEMPLATES

__all__ = ["CausalLM"]


class CausalLM(TorchBackend[CausalModel]):
    """A folder with `config.json`, `tokenizer.json` and safetensors of one family's language model.

    The raw score is the logit of the family's word for yes, minus the one for no where it has one, in float32 whatever
    the model computes in.
    """

    kind = CausalModel
    capabilities = Capabilities(scale="logit", instructions=True)
    on_several_devices = True

    def __init__(self, folder: Path | str, *, template: str, max_tokens: int | None = None, **options: Any) -> None:
        """Point at a folder; `max_tokens` and `batch_tokens` do not count what all prompts begin with.

        Raises:
            ConfigError: It holds another family's model, or an option is not offered.
        """
        super().__init__(folder, LoadOptions(template=template), max_tokens=max_tokens, **options)
        prompt = TEMPLATES[template]
        check_language_model(self.folder, prompt.architecture, f"the template {template}")
        self._context, longest = context(self.folder), text_tokens(self.folder)
        if max_tokens is not None and max_tokens > longest:
            raise ConfigError(
                f"max_tokens {max_tokens} is more than the {longest} that {self.folder} has beside its prompt: lower it."
            )
        self._template = template
        self.capabilities = Capabilities(
            scale="logit",
            offset=prompt.offset,
            divisor=prompt.divisor,
            max_tokens=max_tokens or longest,
            instructions=True,
        )

    @property
    def fingerprint(self) -> str:
        """With the template."""
        return f"{super().fingerprint} {self._template}"

    async def score(self, models: list[CausalModel], request: RerankRequest) -> tuple[list[float], list[bool], None]:
        """Score the prompt of every document."""
        model, longest = models[0], self.capabilities.max_tokens or 512
        prompts = await model.workers.run(lambda: model.reader)
        build = partial(prompts.build, max_tokens=longest, context=self._context)
        rows = await model.workers.run(build, request.query, request.documents, request.instruction)
        values: list[float] = [0.0] * len(rows)

        def keep(positions: list[int], logits: list[float]) -> None:
            for position, value in zip(positions, logits, strict=True):
                values[position] = value

        await map_prompts(models, rows, self.batch_tokens, keep)
        return values, [row.truncated for row in rows], None
