"""Reranking language models on torch: the logit of "yes" after a prompt, with the prompt's beginning computed once a call."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Sequence
from functools import partial
from pathlib import Path

from ..core.errors import ConfigError
from ..core.scorer import Backend
from ..core.types import Capabilities, RerankRequest, Scores, checked
from ..engine.causal_load import check, context, room
from ..engine.causal_model import CausalModel, loaded
from ..engine.options import offered, size
from ..engine.resident import Placement
from ..engine.templates import TEMPLATES

__all__ = ["CausalLM"]


class CausalLM(Backend):
    """A folder with `config.json`, `tokenizer.json` and safetensors of one family's language model.

    The raw score is the logit of the family's word for yes, minus the one for no where it has one, in float32 whatever
    the model computes in.
    """

    capabilities = Capabilities(scale="logit", instructions=True)

    def __init__(
        self,
        model: str | None = None,
        *,
        template: str | None = None,
        max_tokens: int | None = None,
        batch_tokens: int | None = None,
        device: str | None = None,
        runtime: str | None = None,
        dtype: str | None = None,
    ) -> None:
        """Point at a model's folder; it is loaded by the first call, or by `warmup()`.

        Args:
            model: The folder.
            template: Whose prompt it was trained with: `qwen3`, `mxbai`, `zerank`, `bge-gemma`.
            max_tokens: Query and document together, the prompt not counted; `None` is what the folder says.
            batch_tokens: Tokens of one batch; `None` is 1,024 on a CPU and 16,384 on a GPU.
            device: `cpu`, `cuda`, `cuda:1`, `mps`; `None` and `auto` are an NVIDIA GPU where there is one, else the CPU.
            runtime: `torch`.
            dtype: `None` is float32 on a CPU, bfloat16 on a GPU that has it; `auto` is bfloat16 on a CPU that has it
                too; `float32`, `bfloat16`, and `float16` on a GPU.

        Raises:
            ConfigError: No folder or template was named, or it holds another family's model, or a value is not offered.
        """
        super().__init__(model)
        if not model:
            raise ConfigError(f"{self.name} needs a model: write {self.name}:/path/to/folder.")
        if template is None:
            raise ConfigError(
                f"{self.name} needs the template that the model was trained with: set template to one of: "
                f"{', '.join(TEMPLATES)}."
            )
        offered("template", template, tuple(TEMPLATES))
        offered("runtime", runtime, ("torch", "auto"))
        offered("dtype", dtype, ("float32", "bfloat16", "float16", "auto"))
        size("max_tokens", max_tokens)
        size("batch_tokens", batch_tokens)
        self.folder = Path(model).expanduser()
        prompt = TEMPLATES[template]
        check(self.folder, prompt.architecture, f"the template {template}")
        self._context, most = context(self.folder), room(self.folder)
        if max_tokens is not None and max_tokens > most:
            raise ConfigError(
                f"max_tokens {max_tokens} is more than the {most} that {self.folder} has beside its prompt: lower it."
            )
        self._template = template
        self._batch_tokens = batch_tokens
        self._placement = Placement(device=device, dtype=dtype, template=template)
        self._held: CausalModel | None = None
        self.capabilities = Capabilities(
            scale="logit",
            offset=prompt.offset,
            divisor=prompt.divisor,
            max_tokens=max_tokens or most,
            instructions=True,
        )

    @property
    def detail(self) -> str:
        """Runtime and, once it is known, dtype."""
        dtype = self.causal_model.dtype
        return f"torch {dtype}" if dtype else "torch"

    @property
    def fingerprint(self) -> str:
        """The spec's name and template, and size and age of the weights: another model may come to stand in the same folder.

        Not the label, which has another dtype once the model is loaded: that would be another name for the same scores.
        """
        told = [file.stat() for file in sorted(self.folder.glob("*.safetensors"))]
        return " ".join([self.spec_name, self._template, *(f"{each.st_size} {each.st_mtime_ns}" for each in told)])

    @property
    def causal_model(self) -> CausalModel:
        """The process's one model of this folder, template, device and dtype."""
        held = self._held
        if held is None or held.pid != os.getpid():
            held = self._held = loaded(self.folder, self._placement)
        return held

    def tokens(self, text: str) -> Sequence[tuple[int, int]]:
        """Return the characters of each token of `text`."""
        return self.causal_model.prompts.encoder.offsets(text)

    async def awarmup(self) -> None:
        """Load the tokenizer and the model."""
        model = self.causal_model
        await asyncio.gather(model.workers.run(lambda: model.prompts), model.workers.run(lambda: model.network))

    async def aclose(self) -> None:
        """Let the model go; it leaves memory when no other reranker holds it."""
        self._held = None

    async def ascore(self, request: RerankRequest) -> Scores:
        """Score every document; `truncated` tells which were cut."""
        async with self.causal_model.turns:
            return await self._scored(request)

    async def _scored(self, request: RerankRequest) -> Scores:
        model, longest = self.causal_model, self.capabilities.max_tokens or 512
        prompts = await model.workers.run(lambda: model.prompts)
        build = partial(prompts.build, max_tokens=longest, context=self._context)
        rows = await model.workers.run(build, request.query, request.documents, request.instruction)
        values: list[float] = [0.0] * len(rows)

        def keep(positions: list[int], found: list[float]) -> None:
            for position, value in zip(positions, found, strict=True):
                values[position] = value

        await model.map(rows, self._batch_tokens, keep)
        return Scores(
            values=checked(values, len(rows), self.label),
            model=self.label,
            capabilities=self.capabilities,
            truncated=tuple(row.truncated for row in rows),
        )
