"""Listwise rerankers on torch (jina-reranker-v3): all documents in one prompt, so scores depend on each other."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Any

from ...core.errors import ConfigError
from ...core.types import Capabilities, RerankRequest
from ..causal_lm.model import context_tokens
from ..checkpoint import check_language_model
from ..files import json_of
from ..torch.base import TorchBackend
from .model import ARCHITECTURE, ListwiseModel, cosines
from .prompts import Block, ListPrompts, Passage, split_into_blocks

__all__ = ["Listwise"]

QUERY_TOKENS, DOCUMENT_TOKENS = 512, 2048
"""The tokens that jina-reranker-v3 reads of a query and of each document (the defaults of its `rerank`)."""


class Listwise(TorchBackend[ListwiseModel]):
    """A folder with `config.json`, `tokenizer.json` and safetensors of a JinaForRanking. The raw score is a cosine.

    With a `batch_tokens` below the model's context it needs less memory, and fewer documents are compared with each
    other.
    """

    kind = ListwiseModel
    capabilities = Capabilities(scale="cosine", listwise=True, instructions=True)

    def __init__(
        self,
        folder: Path | str,
        *,
        query_tokens: int | None = None,
        document_tokens: int | None = None,
        max_tokens: int | None = None,
        batch_tokens: int | None = None,
        **options: Any,
    ) -> None:
        """Take a model's folder. One device reads all documents, because a score depends on all of them.

        Args:
            folder: The model's folder.
            query_tokens: The tokens that are read of a query; `None` is 512.
            document_tokens: The tokens that are read of each document; `None` is 2,048.
            max_tokens: The tokens of query and document together.
            batch_tokens: The tokens of one block of documents.
            **options: See `ModelBackend`.

        Raises:
            ConfigError: The folder holds no such model, or an option is not offered.
        """
        super().__init__(folder, max_tokens=max_tokens, batch_tokens=batch_tokens, **options)
        check_language_model(self.folder, (ARCHITECTURE,), "the listwise engine")
        longest = context_tokens(self.folder)
        limit = json_of(self.folder / "tokenizer_config.json").get("model_max_length")
        if isinstance(limit, int | float) and 0 < limit < longest:
            longest = int(limit)
        if max_tokens is not None and max_tokens > longest:
            raise ConfigError(
                f"max_tokens must be at most {longest}, the context of {self.folder}, got {max_tokens}: lower it."
            )
        self._block_tokens, self._smaller = min(longest, batch_tokens or longest), batch_tokens is not None
        self.capabilities = Capabilities(
            scale="cosine",
            listwise=True,
            instructions=True,
            max_tokens=max_tokens or longest,
            max_query_tokens=query_tokens or QUERY_TOKENS,
            max_document_tokens=document_tokens or DOCUMENT_TOKENS,
        )

    @property
    def fingerprint(self) -> str:
        """The model's files and the size of a block, which decides which documents are compared."""
        return f"{super().fingerprint} {self._block_tokens}"

    async def score(
        self, models: list[ListwiseModel], request: RerankRequest
    ) -> tuple[list[float], list[bool], str | None]:
        """Score all documents together.

        If they do not fit in one block, they are read in several, and the reason says so.
        """
        (model,) = models
        prompts = await model.workers.run(lambda: model.preprocessor)
        query, passages, parts = await model.workers.run(partial(self._truncate, prompts, request))
        embedded = []
        for part in parts:
            texts = [passages[place].text for place in part]
            block: Block = await model.workers.run(prompts.block, query.text, texts, request.instruction)
            embedded.append(await model.workers.run(model.embed, block))
        several = (
            f"{len(passages)} documents do not fit in the context of {self.label}: they were read in {len(parts)} "
            f"blocks, and "
            "compared with the average of the query's embeddings."
        )
        truncated = [query.truncated or passage.truncated for passage in passages]
        return cosines(embedded), truncated, several if len(parts) > 1 else None

    def _truncate(self, prompts: ListPrompts, request: RerankRequest) -> tuple[Passage, list[Passage], list[range]]:
        limits = self.capabilities
        together, longest = limits.max_tokens or 0, limits.max_document_tokens or DOCUMENT_TOKENS
        query = prompts.truncate(request.query, min(limits.max_query_tokens or QUERY_TOKENS, together * 3 // 4))
        longest = min(longest, together - query.tokens)
        passages = [prompts.truncate(document, longest) for document in request.documents]
        lengths = [passage.tokens for passage in passages]
        if (
            self._smaller
        ):  # the maker's rule is for its own context: here a block may be smaller than the longest there can be
            longest = max(lengths)
        return (
            query,
            passages,
            split_into_blocks(lengths, self._block_tokens - 2 * query.tokens, longest),
        )  # the query stands there twice
