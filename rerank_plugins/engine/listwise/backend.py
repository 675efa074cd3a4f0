"""jina-reranker-v3 and its like on torch: all documents in one prompt, so a document's score depends on the others."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Any

from ...core.errors import ConfigError
from ...core.types import Capabilities, RerankRequest
from ..causal_lm.model import context
from ..checkpoint import check_language_model
from ..files import json_of
from ..shared_model import LoadOptions
from ..torch.backend import TorchBackend
from .model import ARCHITECTURE, ListwiseModel, cosines
from .prompts import Block, ListPrompts, Passage, blocks

__all__ = ["Listwise"]

QUERY_TOKENS, DOCUMENT_TOKENS = 512, 2048
"""What jina-reranker-v3 reads of a query and of each document (the defaults of its `rerank`)."""


class Listwise(TorchBackend[ListwiseModel]):
    """A folder with `config.json`, `tokenizer.json` and safetensors of a JinaForRanking. The raw score is a cosine.

    A smaller `batch_tokens` than the model's context takes less memory and compares fewer documents with each other.
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
        """Point at a folder; a score depends on all documents, so one device reads them.

        Args:
            folder: The model's.
            query_tokens: What is read of a query; `None` is 512.
            document_tokens: What is read of each document; `None` is 2,048.
            max_tokens: Of query and document together.
            batch_tokens: Of one block of documents.
            **options: As of `TorchBackend`.

        Raises:
            ConfigError: It holds no such model, or an option is not offered.
        """
        super().__init__(folder, LoadOptions(), max_tokens=max_tokens, batch_tokens=batch_tokens, **options)
        check_language_model(self.folder, ARCHITECTURE, "the listwise engine")
        longest = context(self.folder)
        limit = json_of(self.folder / "tokenizer_config.json").get("model_max_length")
        if isinstance(limit, int | float) and 0 < limit < longest:
            longest = int(limit)
        if max_tokens is not None and max_tokens > longest:
            raise ConfigError(
                f"max_tokens {max_tokens} is more than the {longest} that {self.folder} reads at once: lower it."
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
        """With the size of a block: it decides which documents are compared."""
        return f"{super().fingerprint} {self._block_tokens}"

    async def score(
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
        truncated = [query.truncated or passage.truncated for passage in passages]
        return cosines(embedded), truncated, several if len(parts) > 1 else None

    def _fitted(self, prompts: ListPrompts, request: RerankRequest) -> tuple[Passage, list[Passage], list[range]]:
        limits = self.capabilities
        together, longest = limits.max_tokens or 0, limits.max_document_tokens or DOCUMENT_TOKENS
        query = prompts.fitted(request.query, min(limits.max_query_tokens or QUERY_TOKENS, together * 3 // 4))
        longest = min(longest, together - query.tokens)
        passages = [prompts.fitted(document, longest) for document in request.documents]
        lengths = [passage.tokens for passage in passages]
        if (
            self._smaller
        ):  # the maker's rule is for its own context: here a block may be smaller than the longest there can be
            longest = max(lengths)
        return (
            query,
            passages,
            blocks(lengths, self._block_tokens - 2 * query.tokens, longest),
        )  # the query stands there twice
