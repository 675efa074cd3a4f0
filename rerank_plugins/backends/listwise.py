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
from ..options import Count, TorchOptions

__all__ = ["Listwise", "ListwiseOptions"]

QUERY_TOKENS, DOCUMENT_TOKENS = 512, 2048
"""What jina-reranker-v3 reads of a query and of each document (the defaults of its `rerank`)."""


class ListwiseOptions(TorchOptions):
    """Options of a model that reads all documents at once.

    A smaller `batch_tokens` than the model's context takes less memory and compares fewer documents with each other.
    """

    query_tokens: Count = QUERY_TOKENS
    """What is read of a query."""
    document_tokens: Count = DOCUMENT_TOKENS
    """What is read of each document."""


class Listwise(TorchBackend[ListwiseModel]):
    """A folder with `config.json`, `tokenizer.json` and safetensors of a JinaForRanking. The raw score is a cosine."""

    Options = ListwiseOptions
    capabilities = Capabilities(scale="cosine", listwise=True, instructions=True)

    def __init__(self, model: str | None = None, options: ListwiseOptions | None = None) -> None:
        """Point at the folder `model`; a score depends on all documents, so one device reads them.

        Raises:
            ConfigError: No folder was named, or it holds no such model.
        """
        options = options or ListwiseOptions()
        max_tokens, batch_tokens = options.max_tokens, options.batch_tokens
        super().__init__(loaded, model, Placement(), **options.engine())
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
            max_query_tokens=options.query_tokens,
            max_document_tokens=options.document_tokens,
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
