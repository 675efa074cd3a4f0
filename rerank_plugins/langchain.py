"""Rerankers in LangChain: a compressor for its retrievers and pipelines, and a retriever that needs no other package."""

from __future__ import annotations

import inspect
from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any

from .core.errors import ConfigError, MissingExtra

try:
    from langchain_core.callbacks import (
        AsyncCallbackManagerForRetrieverRun,
        BaseCallbackManager,
        CallbackManagerForRetrieverRun,
        Callbacks,
    )
    from langchain_core.documents import BaseDocumentCompressor, Document
    from langchain_core.load.serializable import Serializable
    from langchain_core.retrievers import BaseRetriever, RetrieverLike
    from pydantic import Field
except ModuleNotFoundError as error:
    raise MissingExtra("rerank_plugins.langchain", extra="langchain", package="langchain-core") from error

from .adapting import ADAPTER, Adapter, checked, noted, retrieval_score, storable
from .reranker import RerankResponse
from .telemetry import inside

__all__ = ["RerankCompressor", "RerankRetriever"]


class _LangChainAdapter(Adapter, Serializable):
    """Documents to texts and back, and LangChain's serialisation."""

    def _reranked(self, documents: Sequence[Document], query: str, top_n: int | None = None) -> list[Document]:
        return _documents(documents, self._rerank(query, *_read(documents), top_n))

    async def _areranked(self, documents: Sequence[Document], query: str, top_n: int | None = None) -> list[Document]:
        return _documents(documents, await self._arerank(query, *_read(documents), top_n))

    @classmethod
    def is_lc_serializable(cls) -> bool:
        """Dump and load through LangChain; keys are left out and found again in the environment."""
        return True

    @property
    def lc_attributes(self) -> dict[str, Any]:
        """The spec without keys, in place of the field."""
        return {"reranker": storable(self.reranker)}

    def to_json(self) -> Any:
        """Dump; a reranker that no spec describes becomes LangChain's `not_implemented`, which refuses to be loaded."""
        try:
            return super().to_json()
        except ConfigError:
            return self.to_json_not_implemented()


class RerankCompressor(_LangChainAdapter, BaseDocumentCompressor):
    """Reranks the documents of any retriever, in `ContextualCompressionRetriever`, pipelines and LCEL.

    ```python
    ContextualCompressionRetriever(base_compressor=RerankCompressor(reranker="embedded", top_n=5), base_retriever=…)
    ```

    Documents come back best first, as copies with `id`, class and metadata kept. Their metadata gains `relevance_score`
    (in [0, 1]; `None` where nothing was scored), `retrieval_rank` (0 stood first in the input) and, where the input had
    a numeric `relevance_score` or `retrieval_score`, that as `retrieval_score`; on a degraded answer also
    `rerank_degraded`, `rerank_reason` and `rerank_model`. The fields are `Adapter`'s.
    """

    model_config = ADAPTER

    def compress_documents(
        self, documents: Sequence[Document], query: str, callbacks: Callbacks | None = None
    ) -> list[Document]:
        """Return the documents best first.

        Args:
            documents: Any number; they are not changed.
            query: What is asked; not blank.
            callbacks: LangChain's; there is no event for reranking, so nothing is sent to them. Where one of them makes
                OpenTelemetry spans, ours stand inside the span of the run.

        Raises:
            InputError: A blank query, or an instruction that the backend cannot follow.
            BackendError: The backend did not deliver, and no fallback did.
            DeadlineExceeded: The spec's deadline passed.
        """
        with _inside(callbacks):
            return self._reranked(documents, query)

    async def acompress_documents(
        self, documents: Sequence[Document], query: str, callbacks: Callbacks | None = None
    ) -> list[Document]:
        """Do what `compress_documents` does, on the running event loop, without a thread."""
        with _inside(callbacks):
            return await self._areranked(documents, query)


class RerankRetriever(_LangChainAdapter, BaseRetriever):
    """Any retriever with a reranker behind it.

    ```python
    RerankRetriever(retriever=store.as_retriever(), fetch_k=50, reranker="embedded", top_n=5)
    ```

    `invoke(query, top_n=3)` changes `top_n` for one call; other keyword arguments go to the inner retriever, where that
    takes any. To switch the reranker per call: `configurable_fields(reranker=ConfigurableField(id="reranker"))`, then
    `config={"configurable": {"reranker": "lexical"}}`. What is noted in metadata: see `RerankCompressor`.
    """

    model_config = ADAPTER

    retriever: RetrieverLike
    """Gives the candidates."""
    fetch_k: int | None = Field(default=None, ge=1)
    """How many candidates to rerank; `None` is as many as `retriever` gives. It is passed as `k` to a retriever whose
    sync and async methods take that argument (a vector store's do), else set as its field `k` on a copy (BM25 and
    others); one that has neither gives what it gives. In all cases only the first `fetch_k` are reranked."""

    def _get_relevant_documents(
        self, query: str, *, run_manager: CallbackManagerForRetrieverRun, top_n: int | None = None, **kwargs: Any
    ) -> list[Document]:
        retriever, arguments = self._asking(kwargs)
        found = retriever.invoke(query, config={"callbacks": run_manager.get_child()}, **arguments)
        with inside(run_manager.run_id, run_manager.handlers):
            return self._reranked(found[: self.fetch_k], query, top_n)

    async def _aget_relevant_documents(
        self, query: str, *, run_manager: AsyncCallbackManagerForRetrieverRun, top_n: int | None = None, **kwargs: Any
    ) -> list[Document]:
        retriever, arguments = self._asking(kwargs)
        found = await retriever.ainvoke(query, config={"callbacks": run_manager.get_child()}, **arguments)
        with inside(run_manager.run_id, run_manager.handlers):
            return await self._areranked(found[: self.fetch_k], query, top_n)

    def _asking(self, kwargs: dict[str, Any]) -> tuple[RetrieverLike, dict[str, Any]]:
        """Return whom to ask, and with which arguments, so that `fetch_k` candidates come."""
        retriever = self.retriever
        if self.fetch_k is None or not isinstance(retriever, BaseRetriever):
            return retriever, kwargs
        if _takes_k(retriever._get_relevant_documents) and _takes_k(retriever._aget_relevant_documents):
            return retriever, {"k": self.fetch_k, **kwargs}
        if "k" in type(retriever).model_fields:
            retriever = retriever.model_copy(update={"k": self.fetch_k})
        return retriever, kwargs


def _inside(callbacks: Callbacks | None) -> AbstractContextManager[object]:
    if isinstance(callbacks, BaseCallbackManager):
        return inside(callbacks.parent_run_id, callbacks.handlers)
    return nullcontext()  # a mere list of handlers belongs to no run


def _takes_k(method: Any) -> bool:
    parameters = inspect.signature(method).parameters
    return "k" in parameters or any(each.kind is each.VAR_KEYWORD for each in parameters.values())


def _read(documents: Sequence[Document]) -> tuple[list[str], list[float | None]]:
    checked(documents, Document)
    return [each.page_content for each in documents], [_retrieval_score(each) for each in documents]


def _retrieval_score(document: Document) -> float | None:
    # What an earlier stage called relevance is, for this one, how it was retrieved. A plain "score" may be anything.
    return retrieval_score(document.metadata.get("relevance_score"), document.metadata.get("retrieval_score"))


def _documents(documents: Sequence[Document], response: RerankResponse) -> list[Document]:
    answer = []
    for result in response:
        document = documents[result.index]
        metadata = noted(document.metadata, response, result, _retrieval_score(document))
        answer.append(document.model_copy(update={"metadata": metadata}))
    return answer
