"""jina-reranker-v3 and its like on torch: all documents in one prompt, so a document's score depends on the others."""

from __future__ import annotations

from functools import partial

from ..core.errors import ConfigError
from ..core.types import Capabilities, RerankRequest
from ..engine.causal_load import check, context
from ..engine.limits import json_of
from ..engine.listwise_model import ARCHITECTURE, ListwiseModel, cosines, loaded
from ..engine.listwise_prompts import Block, ListPrompts, Passage, blocks
from ..engine.resident import Placement
from ..engine.torch_backend import TorchBackend

__all__ = ["Listwise"]

QUERY_TOKENS, DOCUMENT_TOKENS = 512, 2048
"""What jina-reranker-v3 reads of a query and of each document (the defaults of its `rerank`)."""


class Listwise(TorchBackend[ListwiseModel]):
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
        """See `TorchBackend`; a score depends on all documents, so one device reads them.

        Args:
            model: The folder.
            query_tokens: What is read of a query.
            document_tokens: What is read of each document.
            max_tokens: Query and one document together, where that is to be less.
            batch_tokens: Tokens of one block of documents, where that is to be less than the model's context: a
                smaller block takes less memory and compares fewer documents at once.
            device: `cpu`, `cuda`, …
            runtime: `torch`.
            dtype: `float32`, `bfloat16`, `float16`, `auto`.

        Raises:
            ConfigError: No folder was named, or it holds no such model, or a value is not offered.
        """
        placement = Placement(dtype=dtype)
        super().__init__(
            loaded, model, placement, device=device, max_tokens=max_tokens, batch_tokens=batch_tokens, runtime=runtime
        )
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
        self.capabilities = Capabilities(
            scale="cosine",
            listwise=True,
            instructions=True,
            max_tokens=max_tokens or most,
            max_query_tokens=query_tokens,
            max_document_tokens=document_tokens,
        )

    @property
    def fingerprint(self) -> str:
        """With the size of a block: it tells which documents are compared."""
        return f"{super().fingerprint} {self._room}"

    async def scored(
        self, models: list[ListwiseModel], request: RerankRequest
    ) -> tuple[list[float], list[bool], str | None]:
        """Score all documents together; what is more than a block is read in several, and the reason says so."""
        (model,) = models
        prompts = await model.workers.run(lambda: model.reader)
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
        truncated = [query.truncated or each.truncated for each in passages]
        return cosines(embedded), truncated, several if len(parts) > 1 else None

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
