"""jina-reranker-v3 and its like on torch: all documents in one prompt, so a document's score depends on the others."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Sequence
from functools import partial
from pathlib import Path

from ..core.errors import ConfigError
from ..core.scorer import Backend
from ..core.types import Capabilities, RerankRequest, Scores, checked
from ..engine.causal_load import check, context
from ..engine.limits import json_of
from ..engine.listwise_model import ARCHITECTURE, ListwiseModel, cosines, loaded
from ..engine.listwise_prompts import Block, ListPrompts, Passage, blocks
from ..engine.options import offered, size
from ..engine.resident import Placement

__all__ = ["Listwise"]

QUERY_TOKENS, DOCUMENT_TOKENS = 512, 2048
"""What jina-reranker-v3 reads of a query and of each document (the defaults of its `rerank`)."""


class Listwise(Backend):
    """A folder with `config.json`, `tokenizer.json` and safetensors of a JinaForRanking. The raw score is a cosine."""

    capabilities = Capabilities(scale="cosine", listwise=True, instructions=True)

    def __init__(
        self,
        model: str | None = None,
        *,
        query_tokens: int = QUERY_TOKENS,
        document_tokens: int = DOCUMENT_TOKENS,
        max_tokens: int | None = None,
        batch_tokens: int | None = None,
        device: str | None = None,
        runtime: str | None = None,
        dtype: str | None = None,
    ) -> None:
        """Point at a model's folder; it is loaded by the first call, or by `warmup()`.

        Args:
            model: The folder.
            query_tokens: What is read of a query.
            document_tokens: What is read of each document.
            max_tokens: Query and one document together, where that is to be less.
            batch_tokens: Tokens of one block of documents, where that is to be less than the model's context: a
                smaller block takes less memory and compares fewer documents at once.
            device: As for `CausalLM`.
            runtime: `torch`.
            dtype: As for `CausalLM`.

        Raises:
            ConfigError: No folder was named, or it holds no such model, or a value is not offered.
        """
        super().__init__(model)
        if not model:
            raise ConfigError(f"{self.name} needs a model: write {self.name}:/path/to/folder.")
        offered("runtime", runtime, ("torch", "auto"))
        offered("dtype", dtype, ("float32", "bfloat16", "float16", "auto"))
        size("max_tokens", max_tokens)
        size("batch_tokens", batch_tokens)
        self.folder = Path(model).expanduser()
        check(self.folder, ARCHITECTURE, "the listwise engine")
        most = context(self.folder)
        told = json_of(self.folder / "tokenizer_config.json").get("model_max_length")
        if isinstance(told, int | float) and 0 < told < most:
            most = int(told)
        if max_tokens is not None and max_tokens > most:
            raise ConfigError(
                f"max_tokens {max_tokens} is more than the {most} that {self.folder} reads at once: lower it."
            )
        self._room, self._smaller = min(most, batch_tokens or most), batch_tokens is not None
        self._placement = Placement(device=device, dtype=dtype)
        self._held: ListwiseModel | None = None
        self.capabilities = Capabilities(
            scale="cosine",
            listwise=True,
            instructions=True,
            max_tokens=max_tokens or most,
            max_query_tokens=query_tokens,
            max_document_tokens=document_tokens,
        )

    @property
    def detail(self) -> str:
        """Runtime and, once it is known, dtype."""
        dtype = self.listwise_model.dtype
        return f"torch {dtype}" if dtype else "torch"

    @property
    def fingerprint(self) -> str:
        """The spec's name, and size and age of the weights: another model may come to stand in the same folder.

        Not the label, which has another dtype once the model is loaded: that would be another name for the same scores.
        """
        told = [file.stat() for file in sorted(self.folder.glob("*.safetensors"))]
        return " ".join([self.spec_name, str(self._room), *(f"{each.st_size} {each.st_mtime_ns}" for each in told)])

    @property
    def listwise_model(self) -> ListwiseModel:
        """The process's one model of this folder, device and dtype."""
        held = self._held
        if held is None or held.pid != os.getpid():
            held = self._held = loaded(self.folder, self._placement)
        return held

    def tokens(self, text: str) -> Sequence[tuple[int, int]]:
        """Return the characters of each token of `text`."""
        return self.listwise_model.prompts.encoder.offsets(text)

    async def awarmup(self) -> None:
        """Load the tokenizer and the model."""
        model = self.listwise_model
        await asyncio.gather(model.workers.run(lambda: model.prompts), model.workers.run(lambda: model.network))

    async def aclose(self) -> None:
        """Let the model go; it leaves memory when no other reranker holds it."""
        self._held = None

    async def ascore(self, request: RerankRequest) -> Scores:
        """Score all documents together; what is more than a block is read in several, and `reason` says so."""
        async with self.listwise_model.turns:
            return await self._scored(request)

    async def _scored(self, request: RerankRequest) -> Scores:
        model = self.listwise_model
        prompts = await model.workers.run(lambda: model.prompts)
        query, passages, parts = await model.workers.run(partial(self._fitted, prompts, request))
        embedded = []
        for part in parts:
            texts = [passages[place].text for place in part]
            block: Block = await model.workers.run(prompts.block, query.text, texts, request.instruction)
            embedded.append(await model.workers.run(model.embed, block))
        several = (
            f"{len(passages)} documents are more than {self.label} reads at once: they were read in {len(parts)} blocks, "
            "compared by the query's embedding averaged over them."
        )
        return Scores(
            values=checked(cosines(embedded), len(passages), self.label),
            model=self.label,
            capabilities=self.capabilities,
            truncated=tuple(query.truncated or each.truncated for each in passages),
            reason=several if len(parts) > 1 else None,
        )

    def _fitted(self, prompts: ListPrompts, request: RerankRequest) -> tuple[Passage, list[Passage], list[range]]:
        limits = self.capabilities
        together, longest = limits.max_tokens or 0, limits.max_document_tokens or DOCUMENT_TOKENS
        query = prompts.fitted(request.query, min(limits.max_query_tokens or QUERY_TOKENS, together * 3 // 4))
        longest = min(longest, together - query.tokens)
        passages = [prompts.fitted(each, longest) for each in request.documents]
        lengths = [each.tokens for each in passages]
        if (
            self._smaller
        ):  # the maker's rule is for its own context: here a block may be smaller than the longest there can be
            longest = max(lengths)
        return query, passages, blocks(lengths, self._room - 2 * query.tokens, longest)  # the query stands there twice
