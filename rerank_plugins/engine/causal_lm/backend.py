"""Reranking language models on torch: the score is the logit of "yes" after a prompt.

The common prefix is computed once per call.
"""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Any

from ...core.errors import ConfigError
from ...core.types import Capabilities, RerankRequest
from ..checkpoint import check_language_model
from ..torch.base import TorchBackend
from .model import CausalModel, context_tokens, run_prompts, text_tokens
from .templates import TEMPLATES

__all__ = ["CausalLM"]


class CausalLM(TorchBackend[CausalModel]):
    """A folder with `config.json`, `tokenizer.json` and safetensors of one family's language model.

    The raw score is the logit of the family's word for yes, minus the logit of its word for no if it has one, in
    float32 whatever the model computes in. A conversion to a classifier of one label holds that difference as its head.
    """

    kind = CausalModel
    capabilities = Capabilities(scale="logit", instructions=True)
    on_several_devices = True

    def __init__(self, folder: Path | str, *, template: str, max_tokens: int | None = None, **options: Any) -> None:
        """Take a model's folder.

        Args:
            folder: The model's folder.
            template: The name of the prompt template.
            max_tokens: Tokens of query and document together, without the rest of the prompt.
            **options: See `ModelBackend`. `batch_tokens` does not count the common prefix of the prompts.

        Raises:
            ConfigError: The folder holds a model of another family, or an option is not offered.
        """
        super().__init__(folder, template=template, max_tokens=max_tokens, **options)
        prompt = TEMPLATES[template]
        check_language_model(self.folder, prompt.architectures, f"the template {template}")
        self._context, longest = context_tokens(self.folder), text_tokens(self.folder)
        if max_tokens is not None and max_tokens > longest:
            raise ConfigError(
                f"max_tokens must be at most {longest}, the context of {self.folder} without the prompt, got "
                f"{max_tokens}: lower it."
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
        """The model's files and the template."""
        return f"{super().fingerprint} {self._template}"

    async def score(self, models: list[CausalModel], request: RerankRequest) -> tuple[list[float], list[bool], None]:
        """Score the prompt of every document."""
        model, longest = models[0], self.capabilities.max_tokens or 512
        prompts = await model.workers.run(lambda: model.preprocessor)
        build = partial(prompts.build, max_tokens=longest, context=self._context)
        rows = await model.workers.run(build, request.query, request.documents, request.instruction)
        values: list[float] = [0.0] * len(rows)

        def store(positions: list[int], logits: list[float]) -> None:
            for position, value in zip(positions, logits, strict=True):
                values[position] = value

        await run_prompts(models, rows, self.batch_tokens, store)
        return values, [row.truncated for row in rows], None
