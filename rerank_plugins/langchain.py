"""Rerankers in LangChain: a compressor for its retrievers and pipelines, and a retriever that needs no other package."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Annotated, Any, ClassVar, cast

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
    from langchain_core.retrievers import BaseRetriever, LangSmithRetrieverParams, RetrieverLike
    from pydantic import Field, WithJsonSchema
except ModuleNotFoundError as error:
    raise MissingExtra("rerank_plugins.langchain", extra="langchain", package="langchain-core") from error

from ._langchain_candidates import warn_few, with_count
from .adapting import ADAPTER, Adapter, checked, noted, retrieval_score, run_metadata, storable
from .documents import Expected
from .reranker import RerankResponse, check_top_n
from .telemetry import inside

__all__ = ["RerankCompressor", "RerankRetriever"]

EXPECTED = Expected(
    name="documents",
    items="Document objects",
    rows='make Documents of its rows, [Document(page_content=row["text"], metadata=row) for row in {rows}]',
    one="pass a list, such as [Document(page_content=…)], or give strings and mappings to Reranker.rerank",
    instead={
        "str": "wrap it in Document(page_content=…), or give texts to Reranker.rerank",
        "Mapping": "make it Document(page_content=…, metadata=…), or give mappings to Reranker.rerank",
        "dict": "make it Document(page_content=…, metadata=…), or give mappings to Reranker.rerank",
        "NodeWithScore": "use rerank_plugins.llama_index.RerankPostprocessor for LlamaIndex nodes",
        "BaseNode": "use rerank_plugins.llama_index.RerankPostprocessor for LlamaIndex nodes",
        "tuple": "take the document out of it, such as document for document, score in pairs",
        "BaseRetriever": "pass what it finds, retriever.invoke(query), or use RerankRetriever(retriever=…)",
    },
)


_NO_RETRIEVER = (
    "a compressor holds no retriever. Use RerankRetriever(retriever=…, fetch_k=50, reranker=…), or "
    "ContextualCompressionRetriever(base_compressor=RerankCompressor(…), base_retriever=…)"
)


class _LangChainAdapter(Adapter, Serializable):
    """Documents to texts and back, and LangChain's serialisation."""

    def _reranked(
        self, documents: Sequence[Document], query: str, top_n: int | None = None
    ) -> tuple[list[Document], RerankResponse]:
        texts, scores = _read(documents)
        response = self._rerank(query, texts, scores, top_n)
        return _documents(documents, scores, response), response

    async def _areranked(
        self, documents: Sequence[Document], query: str, top_n: int | None = None
    ) -> tuple[list[Document], RerankResponse]:
        texts, scores = _read(documents)
        response = await self._arerank(query, texts, scores, top_n)
        return _documents(documents, scores, response), response

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
    (in [0, 1]), `retrieval_rank` (0 stood first in the input) and, where the input had a numeric `relevance_score` or
    `retrieval_score`, that as `retrieval_score`; on a degraded answer also `rerank_degraded`, `rerank_reason` and
    `rerank_model`. What you stored under another of these names stays.

    `relevance_score` is `None` where nothing was scored: for a blank document (`rerank_reason` says so) and on an answer
    of `passthrough`, which is what a fallback may give while a vendor is down. Let `score_threshold` filter, which leaves
    a degraded answer whole; a filter of your own has to expect `None`.

    `rerank_spans`, where passages are known, are characters of this `page_content`. Text splitters copy metadata to every
    piece: remove the key before a later step splits the document.

    Args:
        reranker: A spec (`"backend:model"` or a mapping), the name of a reranker in the configuration file, or a ready
            `Reranker`; `None` is `load_reranker()`'s default.
        config: Path of the TOML file with the names; `None` is the one that RERANK_PLUGINS_CONFIG names.
        top_n: How many come back, at least 1; `None` is the spec's own, and without one all.
        instruction: What relevant means here, for models that follow such a text.
        score_threshold: From 0 to 1: leave out what has a lower `relevance_score`; never applied to a degraded answer.
        allowed_rerankers: The strings that `reranker` may be, where requests choose it.
        on_response: A plain function that is called with each `RerankResponse`; what it raises is raised to the caller.

    Raises:
        ConfigError: An unknown field, backend or option, a missing key, a threshold that cannot mean anything.
        InputError: A count is no integer of at least 1.
    """

    _instead: ClassVar[Mapping[str, str]] = {
        **Adapter._instead,
        **dict.fromkeys(("base_retriever", "retriever", "fetch_k"), _NO_RETRIEVER),
    }

    model_config = ADAPTER

    def compress_documents(
        self, documents: Iterable[Document], query: str, callbacks: Callbacks | None = None
    ) -> list[Document]:
        """Return the documents best first.

        Args:
            documents: Any iterable; it is read once and the documents are not changed.
            query: What is asked; not blank.
            callbacks: LangChain's; there is no event for reranking, so nothing is sent to them. The metadata of the run
                that they belong to gains `reranker`, `rerank_model`, `rerank_degraded` and `rerank_usage`. Where one of
                them makes OpenTelemetry spans, ours stand inside the span of the run.

        Raises:
            InputError: A blank query, an item that is no Document, or an instruction that the backend cannot follow.
            BackendError: The backend did not deliver, and no fallback did.
            DeadlineExceeded: The spec's deadline passed.
        """
        documents = checked(documents, Document, EXPECTED)
        with _inside(callbacks):
            answer, response = self._reranked(documents, query)
        self._describe(callbacks, response)
        return answer

    async def acompress_documents(
        self, documents: Iterable[Document], query: str, callbacks: Callbacks | None = None
    ) -> list[Document]:
        """Do what `compress_documents` does, on the running event loop, without a thread."""
        documents = checked(documents, Document, EXPECTED)
        with _inside(callbacks):
            answer, response = await self._areranked(documents, query)
        self._describe(callbacks, response)
        return answer

    def _describe(self, callbacks: Callbacks | None, response: RerankResponse) -> None:
        """Add to the metadata of the run around this call, in those tracers that are writing it."""
        if not isinstance(callbacks, BaseCallbackManager):
            return  # a mere list of handlers belongs to no run
        for handler in callbacks.handlers:
            runs = getattr(handler, "run_map", None)  # langchain-core's BaseTracer has it
            run = runs.get(str(callbacks.parent_run_id)) if isinstance(runs, dict) else None
            if isinstance(extra := getattr(run, "extra", None), dict):
                described = {"reranker": self._resolved().scorer.label, **run_metadata(response)}
                extra["metadata"] = {**(extra.get("metadata") or {}), **described}


class RerankRetriever(_LangChainAdapter, BaseRetriever):
    """Any retriever with a reranker behind it.

    ```python
    RerankRetriever(retriever=store.as_retriever(), fetch_k=50, reranker="embedded", top_n=5)
    ```

    `invoke(query, top_n=3)` changes `top_n` for one call; other keyword arguments go to the inner retriever, where that
    takes any. What is noted in metadata: see `RerankCompressor`. The run's own metadata, for tracers, gains `reranker` at
    its start, and `rerank_model`, `rerank_degraded` and `rerank_usage` at its end.

    To switch the reranker per call, give the choice names:

    ```python
    retriever = RerankRetriever(retriever=inner, reranker="embedded").configurable_alternatives(
        ConfigurableField(id="reranker"),
        default_key="embedded",
        lexical=RerankRetriever(retriever=inner, reranker="lexical"),
    )
    retriever.invoke(query, config={"configurable": {"reranker": "lexical"}})
    ```

    `configurable_fields(reranker=…)` passes on whatever a request sends, and a mapping may name any URL, file and
    environment variable: where requests come from others, use it only with `allowed_rerankers`.

    Args:
        retriever: Gives the candidates.
        fetch_k: How many candidates to rerank; `None` is as many as `retriever` gives.
        reranker: A spec (`"backend:model"` or a mapping), the name of a reranker in the configuration file, or a ready
            `Reranker`; `None` is `load_reranker()`'s default.
        config: Path of the TOML file with the names; `None` is the one that RERANK_PLUGINS_CONFIG names.
        top_n: How many come back, at least 1; `None` is the spec's own, and without one all.
        instruction: What relevant means here, for models that follow such a text.
        score_threshold: From 0 to 1: leave out what has a lower `relevance_score`; never applied to a degraded answer.
        allowed_rerankers: The strings that `reranker` may be, where requests choose it.
        on_response: A plain function that is called with each `RerankResponse`; what it raises is raised to the caller.

    Raises:
        ConfigError: An unknown field, backend or option, a missing key, a threshold that cannot mean anything.
        InputError: A count is no integer of at least 1.
    """

    _instead: ClassVar[Mapping[str, str]] = {
        **Adapter._instead,
        "base_retriever": "it is called retriever here",
        "base_compressor": "it is called reranker here, and takes a spec or a Reranker",
        "top_k": "how many come back is top_n, and how many candidates are asked for is fetch_k",
        "k": "how many come back is top_n, and how many candidates are asked for is fetch_k",
    }

    model_config = ADAPTER

    _counts: ClassVar[tuple[str, ...]] = ("top_n", "fetch_k")

    retriever: Annotated[RetrieverLike, WithJsonSchema({"type": "object"})]
    """Gives the candidates."""
    fetch_k: int | None = Field(default=None, ge=1)
    """How many candidates to rerank; `None` is as many as `retriever` gives. Every retriever inside `retriever` is asked
    for so many, through wrappers (`with_config`, `with_retry`, `with_fallbacks`, `bind`, `configurable_fields`) and
    compositions (an ensemble, parent documents, several queries): on copies, by `search_kwargs`, by a field such as `k`
    or `top_k`, or by the argument `k`. Where one cannot be asked, and fewer came, one warning says how many. Only the
    first `fetch_k` are reranked."""

    def _get_relevant_documents(
        self, query: str, *, run_manager: CallbackManagerForRetrieverRun, top_n: int | None = None, **kwargs: Any
    ) -> list[Document]:
        retriever, few = self._inner(kwargs, is_async=False)
        candidates = retriever.invoke(query, config={"callbacks": _child(run_manager)}, **kwargs)
        documents = self._candidates(candidates, few, kwargs)
        with inside(run_manager.run_id, run_manager.handlers):
            answer, response = self._reranked(documents, query, top_n)
        run_manager.metadata.update(run_metadata(response))  # the dictionary that tracers hold for this run
        return answer

    async def _aget_relevant_documents(
        self, query: str, *, run_manager: AsyncCallbackManagerForRetrieverRun, top_n: int | None = None, **kwargs: Any
    ) -> list[Document]:
        retriever, few = self._inner(kwargs, is_async=True)
        candidates = await retriever.ainvoke(query, config={"callbacks": _child(run_manager)}, **kwargs)
        documents = self._candidates(candidates, few, kwargs)
        with inside(run_manager.run_id, run_manager.handlers):
            answer, response = await self._areranked(documents, query, top_n)
        run_manager.metadata.update(run_metadata(response))
        return answer

    def _inner(self, kwargs: dict[str, Any], *, is_async: bool) -> tuple[RetrieverLike, list[str]]:
        """Return the retriever to call, and a list of what may keep it below `fetch_k`.

        Raises:
            ConfigError: The call names a reranker, which the inner retriever would ignore.
        """
        if "reranker" in kwargs:
            raise ConfigError(
                "A call takes no reranker argument. To switch per call, use configurable_alternatives, or "
                "configurable_fields together with allowed_rerankers."
            )
        few: list[str] = []
        count = check_top_n(
            self.fetch_k, "fetch_k"
        )  # here too, since fields may be assigned and copies made with others
        if count is None:
            return self.retriever, few
        return with_count(self.retriever, count, few, is_async=is_async), few

    def _candidates(self, candidates: Any, few: list[str], kwargs: dict[str, Any]) -> list[Document]:
        documents = checked(candidates, Document, EXPECTED)
        # None at all is no match rather than a limit, and a call that brings its own k wants no more.
        if self.fetch_k is not None and few and 0 < len(documents) < self.fetch_k and "k" not in kwargs:
            warn_few(self.retriever, self.fetch_k, len(documents), few)
        return documents[: self.fetch_k]

    def _get_ls_params(self, **kwargs: Any) -> LangSmithRetrieverParams:
        """Return what tracers see in the run's metadata when it starts."""
        parameters = {**super()._get_ls_params(**kwargs), "reranker": self._resolved().scorer.label}
        return cast(LangSmithRetrieverParams, parameters)


def _child(run_manager: Any) -> Any:
    """Return the callbacks of the inner run, which has no reranker of its own."""
    child = run_manager.get_child()
    child.remove_metadata(["reranker"])
    return child


def _inside(callbacks: Callbacks | None) -> AbstractContextManager[object]:
    if isinstance(callbacks, BaseCallbackManager):
        return inside(callbacks.parent_run_id, callbacks.handlers)
    return nullcontext()  # a mere list of handlers belongs to no run


def _read(documents: Sequence[Document]) -> tuple[list[str], list[float | None]]:
    """Return each document's text and retrieval score.

    What an earlier stage called relevance is, for this one, how it was retrieved. A plain "score" may be anything.
    """
    texts = [document.page_content for document in documents]
    metadata = [document.metadata for document in documents]
    return texts, [retrieval_score(each.get("relevance_score"), each.get("retrieval_score")) for each in metadata]


def _documents(
    documents: Sequence[Document], scores: Sequence[float | None], response: RerankResponse
) -> list[Document]:
    answer = []
    for result in response:
        document = documents[result.index]
        metadata, _ = noted(document.metadata, response, result, scores[result.index])
        answer.append(document.model_copy(update={"metadata": metadata}))
    return answer
