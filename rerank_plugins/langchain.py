"""Adapters for LangChain: a document compressor, and a retriever that reranks the documents of another retriever."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
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
    from langchain_core.runnables import RunnableConfig, RunnableSerializable
    from langchain_core.runnables.config import var_child_runnable_config
    from langchain_core.runnables.utils import AnyConfigurableField
    from pydantic import Field, WithJsonSchema
except ModuleNotFoundError as error:
    raise MissingExtra("rerank_plugins.langchain", extra="langchain", package="langchain-core") from error

from ._adapter import (
    ADAPTER_CONFIG,
    Adapter,
    annotated_metadata,
    check_items,
    first_finite_number,
    serializable_spec,
    trace_metadata,
)
from ._langchain_candidates import warn_too_few_candidates, with_fetch_k
from ._langchain_chat import chat_reranker
from ._langchain_configurable import CheckedConfigurableFields
from .core._runtime.context_vars import set_context
from .documents import Expected
from .reranker import RerankResponse, check_top_n
from .telemetry import framework_span

__all__ = ["RerankCompressor", "RerankRetriever", "chat_reranker"]

EXPECTED_DOCUMENTS = Expected(
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
        "BaseRetriever": "pass its documents, retriever.invoke(query), or use RerankRetriever(retriever=…)",
    },
)


_NO_RETRIEVER = (
    "a compressor has no retriever. Use RerankRetriever(retriever=…, fetch_k=50, reranker=…), or "
    "ContextualCompressionRetriever(base_compressor=RerankCompressor(…), base_retriever=…)"
)


_TOP_N_OR_FETCH_K = "use top_n for the number of documents to return, and fetch_k for the number of candidates"


class _LangChainAdapter(Adapter, Serializable):
    """What both adapters share: conversion of documents to texts and back, and LangChain's serialisation."""

    def _rerank_documents(
        self, documents: Sequence[Document], query: str, top_n: int | None = None
    ) -> tuple[list[Document], RerankResponse]:
        texts, retrieval_scores = _texts_and_retrieval_scores(documents)
        response = self._rerank(query, texts, retrieval_scores, top_n)
        return _annotated_copies(documents, retrieval_scores, response), response

    async def _arerank_documents(
        self, documents: Sequence[Document], query: str, top_n: int | None = None
    ) -> tuple[list[Document], RerankResponse]:
        texts, retrieval_scores = _texts_and_retrieval_scores(documents)
        response = await self._arerank(query, texts, retrieval_scores, top_n)
        return _annotated_copies(documents, retrieval_scores, response), response

    @classmethod
    def is_lc_serializable(cls) -> bool:
        """Return `True`: LangChain may serialise it. Keys are left out; loading finds them in the environment again."""
        return True

    @property
    def lc_attributes(self) -> dict[str, Any]:
        """Values that LangChain serialises instead of those of the fields: the spec without keys."""
        return {"reranker": serializable_spec(self.reranker)}

    def to_json(self) -> Any:
        """Return what LangChain serialises.

        For a `Reranker` that was not made from a spec it is LangChain's `not_implemented`, which cannot be loaded.
        """
        try:
            return super().to_json()
        except ConfigError:
            return self.to_json_not_implemented()


class RerankCompressor(_LangChainAdapter, BaseDocumentCompressor):
    """Reranks the documents of any retriever, in `ContextualCompressionRetriever`, pipelines and LCEL.

    To put it behind a retriever, pass both to LangChain's retriever:
    `ContextualCompressionRetriever(base_compressor=RerankCompressor(reranker="embedded", top_n=5), base_retriever=…)`.
    `RerankRetriever` does the same, and also sets the number of candidates.

    Documents come back best first, as copies with the same `id`, class and metadata. These keys are added to the
    metadata:

    - `relevance_score`: from 0 to 1, or `None` if the document was not scored;
    - `retrieval_rank`: position in the input, from 0;
    - `retrieval_score`: the numeric `relevance_score`, else `retrieval_score`, that the metadata had in the input;
    - `rerank_degraded` (`True`), `rerank_reason` and `rerank_model`: only in a degraded answer;
    - `rerank_reason`: also why a document was not scored;
    - `rerank_spans`: the best passages of a document that was split in chunks, in characters of its `page_content`.

    A value of your own under one of these names stays unless the answer writes that key.

    A document is not scored if it is blank, or if `passthrough` answers, which may be the fallback while a vendor is
    down. To filter by relevance, prefer `score_threshold`, which returns all documents of a degraded answer; a filter
    of your own must handle `None`. Text splitters copy metadata to every piece: remove `rerank_spans` before a later
    step splits the document.

    Args:
        reranker (str | Mapping | Reranker | None): A spec (`"backend:model"` or a mapping), the name of a reranker in
            the configuration file, or a ready `Reranker`. Default `None`: what `load_reranker()` loads without
            arguments, the spec in the environment variable RERANK_PLUGINS_RERANKER, else the embedded model.
        config (str | PathLike | None): Path of the TOML configuration file, in which names are looked up. Default
            `None`: the file that the environment variable RERANK_PLUGINS_CONFIG names.
        top_n (int | None): Maximum number of documents to return, at least 1. Default `None`: the `top_n` of the spec,
            else all.
        instruction (str | None): What relevant means, for models that follow an instruction; for others a call raises
            `InputError`. Default `None`: the instruction of the spec.
        score_threshold (float | None): Minimum `relevance_score` of a returned document, from 0 to 1. It is not applied
            to a degraded answer. Default `None`: the threshold of the spec, else no minimum.
        allowed_rerankers (list[str] | None): The strings that `reranker` may be: specs, or names in the configuration
            file. Set it where requests choose the reranker. Default `None`: any reranker is allowed.
        on_response (Callable[[RerankResponse], object] | None): Plain function that is called with each
            `RerankResponse` before the documents are returned. An exception that it raises reaches the caller. Default
            `None`.

    Raises:
        ConfigError: An unknown field, backend or option, a missing key, or a threshold that the scores do not support.
        InputError: `top_n` is not an integer of at least 1.

    Example:
        >>> from langchain_core.documents import Document
        >>> from rerank_plugins.langchain import RerankCompressor
        >>> compressor = RerankCompressor(reranker="lexical", top_n=1)
        >>> documents = [Document("Bananas are yellow."), Document("Bees make honey from nectar.")]
        >>> best = compressor.compress_documents(documents, query="How do bees make honey?")[0]
        >>> best.page_content, best.metadata["retrieval_rank"]
        ('Bees make honey from nectar.', 1)
    """

    _field_advice: ClassVar[Mapping[str, str]] = {
        **Adapter._field_advice,
        **dict.fromkeys(("base_retriever", "retriever", "fetch_k"), _NO_RETRIEVER),
    }

    model_config = ADAPTER_CONFIG

    def compress_documents(
        self, documents: Iterable[Document], query: str, callbacks: Callbacks | None = None
    ) -> list[Document]:
        """Return the documents, best first.

        Args:
            documents (Iterable[Document]): Any iterable; it is read once, and the documents are not changed.
            query (str): The search query; not blank.
            callbacks (Callbacks | None): LangChain's callbacks. LangChain has no event for reranking, so none is sent.
                `reranker`, `rerank_model`, `rerank_degraded` and `rerank_usage` are added to the metadata of the run
                that the callbacks belong to. If one of them makes OpenTelemetry spans, this package's spans are
                children of the span of the run. Default `None`.

        Returns:
            Copies of the documents, at most `top_n`, with the metadata that the docstring of the class lists.

        Raises:
            InputError: A blank query, an item that is not a `Document`, or an instruction that the model cannot follow.
            BackendError: The backend failed, and so did its fallbacks.
            DeadlineExceeded: The deadline of the spec passed.
        """
        documents = check_items(documents, Document, EXPECTED_DOCUMENTS)
        with _span_of_run(callbacks):
            reranked, response = self._rerank_documents(documents, query)
        self._add_trace_metadata(callbacks, response)
        return reranked

    async def acompress_documents(
        self, documents: Iterable[Document], query: str, callbacks: Callbacks | None = None
    ) -> list[Document]:
        """Return the documents, best first, as `compress_documents` does, without blocking the event loop."""
        documents = check_items(documents, Document, EXPECTED_DOCUMENTS)
        with _span_of_run(callbacks):
            reranked, response = await self._arerank_documents(documents, query)
        self._add_trace_metadata(callbacks, response)
        return reranked

    def _add_trace_metadata(self, callbacks: Callbacks | None, response: RerankResponse) -> None:
        """Add the model that answered to the metadata of the run around this call, in each tracer that records it."""
        if not isinstance(callbacks, BaseCallbackManager):
            return  # a plain list of callbacks belongs to no run
        for tracer in callbacks.handlers:
            runs = getattr(tracer, "run_map", None)  # the runs of a tracer (BaseTracer of langchain-core), by id
            run = runs.get(str(callbacks.parent_run_id)) if isinstance(runs, dict) else None
            if isinstance(extra := getattr(run, "extra", None), dict):
                added = {"reranker": self._live_reranker().scorer.label, **trace_metadata(response)}
                extra["metadata"] = {**(extra.get("metadata") or {}), **added}


class RerankRetriever(_LangChainAdapter, BaseRetriever):
    """Retrieves candidates with another retriever and reranks them.

    With a vector store: `RerankRetriever(retriever=store.as_retriever(), fetch_k=50, reranker="embedded", top_n=5)`.

    `invoke(query, top_n=3)` changes `top_n` for one call; other keyword arguments are passed to the inner retriever, if
    it takes any. The metadata of the documents gains the keys that the docstring of `RerankCompressor` lists. The
    metadata of the run, for tracers, gains `reranker` when the run starts, and `rerank_model`, `rerank_degraded` and
    `rerank_usage` when it ends.

    To choose the reranker per call, name the alternatives with `configurable_alternatives`, as the second example
    shows. `configurable_fields(reranker=…)` accepts any value that a request sends, and a mapping may name any URL,
    file and environment variable. Use it only with `allowed_rerankers` if you do not trust the requests.

    Args:
        retriever (BaseRetriever | Runnable): Retrieves the candidates: any retriever, or any runnable that takes a
            query and returns documents. Required.
        fetch_k (int | None): Number of candidates to retrieve and rerank, at least 1. Default `None`: as many as
            `retriever` returns.
        reranker (str | Mapping | Reranker | None): A spec (`"backend:model"` or a mapping), the name of a reranker in
            the configuration file, or a ready `Reranker`. Default `None`: what `load_reranker()` loads without
            arguments, the spec in the environment variable RERANK_PLUGINS_RERANKER, else the embedded model.
        config (str | PathLike | None): Path of the TOML configuration file, in which names are looked up. Default
            `None`: the file that the environment variable RERANK_PLUGINS_CONFIG names.
        top_n (int | None): Maximum number of documents to return, at least 1. Default `None`: the `top_n` of the spec,
            else all.
        instruction (str | None): What relevant means, for models that follow an instruction; for others a call raises
            `InputError`. Default `None`: the instruction of the spec.
        score_threshold (float | None): Minimum `relevance_score` of a returned document, from 0 to 1. It is not applied
            to a degraded answer. Default `None`: the threshold of the spec, else no minimum.
        allowed_rerankers (list[str] | None): The strings that `reranker` may be: specs, or names in the configuration
            file. Set it where requests choose the reranker. Default `None`: any reranker is allowed.
        on_response (Callable[[RerankResponse], object] | None): Plain function that is called with each
            `RerankResponse` before the documents are returned. An exception that it raises reaches the caller. Default
            `None`.
        name (str | None): Name of the retriever's runs in traces. Default `None`: the name of the class.
        tags (list[str] | None): Tags that LangChain adds to the run of each call, for callbacks and tracers. Default
            `None`.
        metadata (dict[str, Any] | None): Metadata that LangChain adds to the run of each call, for callbacks and
            tracers. Default `None`.

    Raises:
        ConfigError: An unknown field, backend or option, a missing key, or a threshold that the scores do not support.
        InputError: `top_n` or `fetch_k` is not an integer of at least 1.

    Example:
        >>> from langchain_core.documents import Document
        >>> from langchain_core.runnables import RunnableLambda
        >>> from rerank_plugins.langchain import RerankRetriever
        >>> documents = [Document("Bananas are yellow."), Document("Bees make honey from nectar.")]
        >>> candidates = RunnableLambda(lambda query: documents)
        >>> retriever = RerankRetriever(retriever=candidates, reranker="lexical", top_n=1)
        >>> [document.page_content for document in retriever.invoke("How do bees make honey?")]
        ['Bees make honey from nectar.']

        >>> from langchain_core.runnables import ConfigurableField
        >>> retriever = retriever.configurable_alternatives(
        ...     ConfigurableField(id="reranker"),
        ...     default_key="lexical",
        ...     none=RerankRetriever(retriever=candidates, reranker="passthrough", top_n=1),
        ... )
        >>> config = {"configurable": {"reranker": "none"}}
        >>> [document.page_content for document in retriever.invoke("How do bees make honey?", config=config)]
        ['Bananas are yellow.']
    """

    _field_advice: ClassVar[Mapping[str, str]] = {
        **Adapter._field_advice,
        "base_retriever": "use retriever",
        "base_compressor": "use reranker, which takes a spec or a Reranker",
        "top_k": _TOP_N_OR_FETCH_K,
        "k": _TOP_N_OR_FETCH_K,
    }

    model_config = ADAPTER_CONFIG

    _count_fields: ClassVar[tuple[str, ...]] = ("top_n", "fetch_k")

    @classmethod
    def _check_field_names(cls, fields: Mapping[str, Any]) -> None:
        super()._check_field_names(fields)
        if callable(getattr(fields.get("retriever"), "as_retriever", None)):
            raise ConfigError(
                f"retriever must be a retriever, got the vector store {type(fields['retriever']).__name__}: pass "
                "store.as_retriever()."
            )

    retriever: Annotated[RetrieverLike, WithJsonSchema({"type": "object"})]
    """Retrieves the candidates: any retriever, or any runnable that takes a query and returns documents."""
    fetch_k: int | None = Field(default=None, ge=1)
    """Number of candidates to retrieve and rerank, at least 1. `None`: as many as `retriever` returns. The number is
    set on copies of all retrievers in `retriever`, also inside wrappers (`with_config`, `with_retry`, `with_fallbacks`,
    `bind`, `configurable_fields`) and compositions (an ensemble, parent documents, several queries): in
    `search_kwargs`, in a field such as `k` or `top_k`, or as the argument `k` of the call. If a retriever takes no
    number and fewer candidates come, a warning is logged. Candidates beyond the first `fetch_k` are dropped."""

    def configurable_fields(self, **kwargs: AnyConfigurableField) -> RunnableSerializable[str, list[Document]]:
        """Return a retriever some of whose fields a call may set; see LangChain's documentation.

        A `reranker` that a call names must hold no `"env:NAME"` and no `"file:PATH"`, and with a `base_url` it needs an
        `api_key`: otherwise the call raises `ConfigError`, since it could send keys of the program anywhere.

        Args:
            **kwargs: The fields that a call may set, by name.
        """
        configurable = super().configurable_fields(**kwargs)
        if "reranker" not in kwargs:
            return configurable
        return CheckedConfigurableFields(default=self, fields=kwargs)

    def _get_relevant_documents(
        self, query: str, *, run_manager: CallbackManagerForRetrieverRun, top_n: int | None = None, **kwargs: Any
    ) -> list[Document]:
        retriever, advice = self._retriever_with_fetch_k(kwargs, is_async=False)
        candidates = retriever.invoke(query, config={"callbacks": _child_callbacks(run_manager)}, **kwargs)
        documents = self._check_candidates(candidates, advice, kwargs)
        span = framework_span(run_manager.run_id, run_manager.handlers)
        with span, _as_parent(_child_callbacks(run_manager)):
            reranked, response = self._rerank_documents(documents, query, top_n)
        run_manager.metadata.update(trace_metadata(response))  # the tracers of this run share this dictionary
        return reranked

    async def _aget_relevant_documents(
        self, query: str, *, run_manager: AsyncCallbackManagerForRetrieverRun, top_n: int | None = None, **kwargs: Any
    ) -> list[Document]:
        retriever, advice = self._retriever_with_fetch_k(kwargs, is_async=True)
        candidates = await retriever.ainvoke(query, config={"callbacks": _child_callbacks(run_manager)}, **kwargs)
        documents = self._check_candidates(candidates, advice, kwargs)
        span = framework_span(run_manager.run_id, run_manager.handlers)
        with span, _as_parent(_child_callbacks(run_manager)):
            reranked, response = await self._arerank_documents(documents, query, top_n)
        run_manager.metadata.update(trace_metadata(response))
        return reranked

    def _retriever_with_fetch_k(self, kwargs: dict[str, Any], *, is_async: bool) -> tuple[RetrieverLike, list[str]]:
        """Return the retriever to call, and advice for a warning if it returns fewer than `fetch_k` documents.

        The advice is a list that may grow while the retriever runs.

        Raises:
            ConfigError: The call has an argument `reranker`, which the inner retriever would ignore.
            InputError: `fetch_k` is not an integer of at least 1.
        """
        if "reranker" in kwargs:
            raise ConfigError(
                "A call takes no reranker argument. To choose the reranker per call, use configurable_alternatives, or "
                "configurable_fields together with allowed_rerankers."
            )
        advice: list[str] = []
        # Checked again, because pydantic checks neither an assignment to the field nor model_copy(update=…).
        fetch_k = check_top_n(self.fetch_k, "fetch_k")
        if fetch_k is None:
            return self.retriever, advice
        return with_fetch_k(self.retriever, fetch_k, advice, is_async=is_async), advice

    def _check_candidates(self, candidates: Any, advice: list[str], kwargs: dict[str, Any]) -> list[Document]:
        """Return the first `fetch_k` candidates as a list. Log a warning if the retriever returned too few of them."""
        documents = check_items(candidates, Document, EXPECTED_DOCUMENTS)
        # No warning without any document, since nothing matched, nor with an argument `k`, which replaces fetch_k.
        if self.fetch_k is not None and advice and 0 < len(documents) < self.fetch_k and "k" not in kwargs:
            warn_too_few_candidates(self.retriever, self.fetch_k, len(documents), advice)
        return documents[: self.fetch_k]

    def _get_ls_params(self, **kwargs: Any) -> LangSmithRetrieverParams:
        """Return the metadata that tracers record when the run starts."""
        parameters = {**super()._get_ls_params(**kwargs), "reranker": self._live_reranker().scorer.label}
        return cast(LangSmithRetrieverParams, parameters)


def _child_callbacks(run_manager: Any) -> Any:
    """Return the callbacks for the inner retriever, whose run must not inherit `reranker` in its metadata."""
    child = run_manager.get_child()
    child.remove_metadata(["reranker"])
    return child


@contextmanager
def _span_of_run(callbacks: Callbacks | None) -> Iterator[None]:
    """Make spans, and runs of chat models, inside the block children of the run of `callbacks`."""
    span: AbstractContextManager[object] = nullcontext()  # a plain list of callbacks belongs to no run
    if isinstance(callbacks, BaseCallbackManager):
        span = framework_span(callbacks.parent_run_id, callbacks.handlers)
    with span, nullcontext() if callbacks is None else _as_parent(callbacks):
        yield


def _as_parent(callbacks: Callbacks) -> AbstractContextManager[None]:
    """Return a context manager. Inside it, a chat model uses `callbacks`, and its run is a child of their run."""
    config: RunnableConfig = {**(var_child_runnable_config.get() or {}), "callbacks": callbacks}
    return set_context(var_child_runnable_config, config)


def _texts_and_retrieval_scores(documents: Sequence[Document]) -> tuple[list[str], list[float | None]]:
    """Return the text and the retrieval score of each document.

    The retrieval score is the `relevance_score` of an earlier reranker, if there was one. A key `score` is not read:
    it may be the user's own.
    """
    texts = [document.page_content for document in documents]
    metadata = [document.metadata for document in documents]
    return texts, [
        first_finite_number(entry.get("relevance_score"), entry.get("retrieval_score")) for entry in metadata
    ]


def _annotated_copies(
    documents: Sequence[Document], retrieval_scores: Sequence[float | None], response: RerankResponse
) -> list[Document]:
    copies = []
    for result in response:
        document = documents[result.index]
        metadata, _ = annotated_metadata(document.metadata, response, result, retrieval_scores[result.index])
        copies.append(document.model_copy(update={"metadata": metadata}))
    return copies
