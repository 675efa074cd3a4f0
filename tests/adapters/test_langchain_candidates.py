"""`fetch_k` is set on all retrievers inside a RerankRetriever, or a warning is logged."""

from __future__ import annotations

import copy
import importlib
from collections import deque
from datetime import datetime
from typing import Any

import pytest
from langchain_classic.retrievers import (
    ContextualCompressionRetriever,
    EnsembleRetriever,
    MergerRetriever,
    MultiQueryRetriever,
    MultiVectorRetriever,
    ParentDocumentRetriever,
    RePhraseQueryRetriever,
    SelfQueryRetriever,
    TimeWeightedVectorStoreRetriever,
)
from langchain_classic.retrievers.document_compressors import DocumentCompressorPipeline, EmbeddingsFilter
from langchain_core.documents import Document
from langchain_core.embeddings import DeterministicFakeEmbedding
from langchain_core.language_models import FakeListLLM
from langchain_core.retrievers import BaseRetriever
from langchain_core.runnables import (
    ConfigurableField,
    Runnable,
    RunnableBranch,
    RunnableLambda,
    RunnableParallel,
    RunnablePassthrough,
)
from langchain_core.stores import InMemoryByteStore, InMemoryStore
from langchain_core.structured_query import StructuredQuery, Visitor
from langchain_core.vectorstores import InMemoryVectorStore
from langchain_text_splitters import CharacterTextSplitter
from pydantic import BaseModel, Field

from rerank_plugins import InputError
from rerank_plugins._langchain_candidates import _warned, with_fetch_k
from rerank_plugins.langchain import RerankCompressor, RerankRetriever

QUERY = "how do bees make honey"
MANY = [Document(f"Bees make honey, note {number}.", id=str(number)) for number in range(120)]


class Store(InMemoryVectorStore):
    """Records the arguments of its searches."""

    def __init__(self, documents: list[Document]) -> None:
        super().__init__(DeterministicFakeEmbedding(size=8))
        self.add_documents(documents)
        self.searches: list[dict[str, Any]] = []

    def similarity_search(self, query: str, k: int = 4, **kwargs: Any) -> list[Document]:
        self.searches.append({"k": k, **kwargs})
        return super().similarity_search(query, k, **kwargs)

    async def asimilarity_search(self, query: str, k: int = 4, **kwargs: Any) -> list[Document]:
        return self.similarity_search(query, k, **kwargs)

    def max_marginal_relevance_search(
        self, query: str, k: int = 4, fetch_k: int = 20, lambda_mult: float = 0.5, **kwargs: Any
    ) -> list[Document]:
        self.searches.append({"k": k, "fetch_k": fetch_k, "lambda_mult": lambda_mult})
        return super().max_marginal_relevance_search(query, k, fetch_k, lambda_mult, **kwargs)

    async def amax_marginal_relevance_search(self, *args: Any, **kwargs: Any) -> list[Document]:
        return self.max_marginal_relevance_search(*args, **kwargs)

    def _select_relevance_score_fn(self) -> Any:
        return lambda similarity: (similarity + 1) / 2


class Ranked(BaseRetriever):
    """Returns its first `k` documents; `k` is a field."""

    k: int = 4

    def _get_relevant_documents(self, query: str, *, run_manager: Any) -> list[Document]:
        return MANY[: self.k]


class TakesK(BaseRetriever):
    """Takes `k` as an argument of its methods."""

    def _get_relevant_documents(self, query: str, *, run_manager: Any, k: int = 4) -> list[Document]:
        return MANY[:k]

    async def _aget_relevant_documents(self, query: str, *, run_manager: Any, k: int = 4) -> list[Document]:
        return MANY[:k]


class PassesOn(BaseRetriever):
    """Passes its arguments to a store."""

    store: Any

    def _get_relevant_documents(self, query: str, *, run_manager: Any, **kwargs: Any) -> list[Document]:
        return self.store.similarity_search(query, **kwargs)

    async def _aget_relevant_documents(self, query: str, *, run_manager: Any, **kwargs: Any) -> list[Document]:
        return self.store.similarity_search(query, **kwargs)


class HasBoth(BaseRetriever):
    """Passes its field `k` beside the arguments of the call, as AzureSearchVectorStoreRetriever does."""

    store: Any
    k: int = 4
    search_kwargs: dict[str, Any] = Field(default_factory=dict)

    def _get_relevant_documents(self, query: str, *, run_manager: Any, **kwargs: Any) -> list[Document]:
        return self.store.similarity_search(query, k=self.k, **self.search_kwargs, **kwargs)

    async def _aget_relevant_documents(self, query: str, *, run_manager: Any, **kwargs: Any) -> list[Document]:
        return self.store.similarity_search(query, k=self.k, **self.search_kwargs, **kwargs)


class Fixed(BaseRetriever):
    """Returns a fixed number of documents; takes no number."""

    count: int = 4

    def _get_relevant_documents(self, query: str, *, run_manager: Any) -> list[Document]:
        return MANY[: self.count]


def store() -> Store:
    return Store(MANY)


def vectors(**kwargs: Any) -> BaseRetriever:
    return store().as_retriever(**kwargs)


def parents(count: int, pieces: int, **kwargs: Any) -> ParentDocumentRetriever:
    """Return a retriever of `count` documents, each of which was split into `pieces`."""
    retriever = ParentDocumentRetriever(
        vectorstore=Store([]),
        docstore=InMemoryStore(),
        child_splitter=CharacterTextSplitter(separator="|", chunk_size=20, chunk_overlap=0),
        **kwargs,
    )
    retriever.add_documents(
        [Document("|".join(f"bees {number} {piece} honey" for piece in range(pieces))) for number in range(count)]
    )
    return retriever


def multi_vector() -> MultiVectorRetriever:
    retriever = MultiVectorRetriever(
        vectorstore=Store([Document(each.page_content, metadata={"doc_id": each.id}) for each in MANY]),
        byte_store=InMemoryByteStore(),
    )
    retriever.docstore.mset([(each.id or "", each) for each in MANY])
    return retriever


def time_weighted() -> TimeWeightedVectorStoreRetriever:
    retriever = TimeWeightedVectorStoreRetriever(vectorstore=Store([]), search_kwargs={"k": 30})
    retriever.add_documents(MANY, current_time=datetime(2026, 11, 1))
    return retriever


class Translator(Visitor):
    """A translator that returns no filter."""

    def visit_operation(self, operation: Any) -> Any: ...

    def visit_comparison(self, comparison: Any) -> Any: ...

    def visit_structured_query(self, structured_query: StructuredQuery) -> tuple[str, dict[str, Any]]:
        return structured_query.query, {}


def self_query(**kwargs: Any) -> SelfQueryRetriever:
    return SelfQueryRetriever(
        vectorstore=store(),
        query_constructor=RunnableLambda(
            lambda inputs: StructuredQuery(query=inputs["query"], filter=None, limit=None)
        ),
        structured_query_translator=Translator(),
        **kwargs,
    )


def rewriting() -> FakeListLLM:
    return FakeListLLM(responses=["honey\nbees"])


COMPLETE: dict[str, Any] = {
    "vector store": vectors,
    "vector store with k": lambda: vectors(search_kwargs={"k": 2}),
    "mmr": lambda: vectors(search_type="mmr"),
    "mmr with its own fetch_k": lambda: vectors(search_type="mmr", search_kwargs={"k": 2, "fetch_k": 30}),
    "score threshold": lambda: vectors(
        search_type="similarity_score_threshold", search_kwargs={"score_threshold": 0.0}
    ),
    "field": Ranked,
    "argument": TakesK,
    "any argument": lambda: PassesOn(store=store()),
    "field and any argument": lambda: HasBoth(store=store()),
    "with_config": lambda: vectors().with_config(tags=["a"]),
    "with_retry": lambda: vectors().with_retry(stop_after_attempt=2),
    "with_fallbacks": lambda: vectors().with_fallbacks([Ranked()]),
    "bind": lambda: vectors().bind(filter=lambda document: True),
    "bind k": lambda: vectors().bind(k=2),
    "bind fetch_k": lambda: vectors(search_type="mmr").bind(fetch_k=10),
    "with_types": lambda: vectors().with_types(input_type=str),
    "with_listeners": lambda: vectors().with_listeners(on_start=lambda run: None),
    "configurable_fields": lambda: vectors().configurable_fields(search_kwargs=ConfigurableField(id="search")),
    "configurable_fields, chosen": lambda: (
        vectors()
        .configurable_fields(search_kwargs=ConfigurableField(id="search"))
        .with_config(configurable={"search": {"k": 3}})
    ),
    "configurable_alternatives": lambda: (
        vectors()
        .configurable_alternatives(ConfigurableField(id="which"), default_key="vectors", ranked=Ranked())
        .with_config(configurable={"which": "ranked"})
    ),
    "wrappers around wrappers": lambda: (
        Ranked()
        .with_config(tags=["a"])
        .with_retry()
        .with_fallbacks([vectors().bind(k=1)])
        .with_types(input_type=str)
        .with_listeners(on_end=lambda run: None)
    ),
    "ensemble": lambda: EnsembleRetriever(retrievers=[vectors(), Ranked()], weights=[0.5, 0.5]),
    "ensemble of wrappers": lambda: EnsembleRetriever(
        retrievers=[vectors().with_retry(), Ranked().configurable_fields(k=ConfigurableField(id="k"))]
    ),
    "ensemble of ensembles": lambda: EnsembleRetriever(retrievers=[EnsembleRetriever(retrievers=[vectors()])]),
    "merger": lambda: MergerRetriever(retrievers=[vectors(), Ranked()]),
    "multi query": lambda: MultiQueryRetriever.from_llm(vectors(), rewriting(), include_original=True),
    "contextual compression": lambda: ContextualCompressionRetriever(
        base_compressor=RerankCompressor(reranker="lexical"), base_retriever=vectors()
    ),
    "multi vector": multi_vector,
    "multi vector, mmr": lambda: multi_vector().model_copy(update={"search_type": "mmr"}),
    "parents of one piece": lambda: parents(80, 1),
    "parents of several pieces, with a k for them": lambda: parents(60, 3, search_kwargs={"k": 180}),
    "self query": self_query,
    "self query, mmr": lambda: self_query(search_type="mmr"),
    "time weighted": time_weighted,
    "another RerankRetriever": lambda: RerankRetriever(retriever=vectors(), reranker="lexical"),
    "another RerankRetriever with fetch_k": lambda: RerankRetriever(retriever=vectors(), fetch_k=9, reranker="lexical"),
    "after another step": lambda: RunnableLambda(lambda query: query.upper()) | vectors(),
    "before another step": lambda: vectors() | RunnableLambda(lambda documents: documents),
    "parallel": lambda: (
        RunnableParallel(one=vectors(), two=Ranked()) | RunnableLambda(lambda both: both["one"] + both["two"])
    ),
    "branch": lambda: RunnableBranch((lambda query: len(query) < 5, Ranked()), vectors().with_retry()),
}
SYNC_ONLY = {"rephrase": lambda: RePhraseQueryRetriever.from_llm(vectors(), rewriting())}


class Counter:
    """An `on_response` that counts how many documents were reranked."""

    def __init__(self) -> None:
        self.seen: list[int] = []

    def __call__(self, response: Any) -> None:
        self.seen.append(len(response))


def make_retriever(inner: Any, **fields: Any) -> tuple[RerankRetriever, list[int]]:
    counter = Counter()
    return RerankRetriever(retriever=inner, reranker="lexical", on_response=counter, **fields), counter.seen


def plain_fields(value: Any) -> Any:
    """Return the fields of a retriever and its inner retrievers as plain data, to compare them before and after.

    LangChain's caches, whose names start with an underscore, are left out.
    """
    if isinstance(value, Store):
        return id(value)
    if isinstance(value, Runnable) and not isinstance(value, FakeListLLM):  # that one counts its calls
        return type(value).__name__, {name: plain_fields(each) for name, each in vars(value).items() if name[0] != "_"}
    if isinstance(value, dict):
        return {name: plain_fields(each) for name, each in value.items()}
    if isinstance(value, list | tuple):
        return [plain_fields(each) for each in value]
    return copy.copy(value) if isinstance(value, int | str | float | None) else id(value)


def messages(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [each.getMessage() for each in caplog.records if each.name == "rerank_plugins.langchain"]


class TestWithCount:
    @pytest.mark.parametrize("name", COMPLETE)
    async def test_fetch_k_candidates_are_returned(self, name: str, caplog: pytest.LogCaptureFixture) -> None:
        inner = COMPLETE[name]()
        before = plain_fields(inner)
        retriever, seen = make_retriever(inner, fetch_k=50)
        retriever.invoke(QUERY)
        await retriever.ainvoke(QUERY)
        assert seen == [50, 50]
        assert messages(caplog) == []
        assert plain_fields(inner) == before, "the user's retriever is not changed"

    def test_sync_only_retriever_returns_fetch_k_candidates(self) -> None:
        retriever, seen = make_retriever(SYNC_ONLY["rephrase"](), fetch_k=50)
        retriever.invoke(QUERY)
        assert seen == [50]

    @pytest.mark.parametrize("name", ["vector store with k", "ensemble", "bind k", "field", "multi query"])
    def test_small_fetch_k_reduces_the_number(self, name: str, caplog: pytest.LogCaptureFixture) -> None:
        retriever, seen = make_retriever(COMPLETE[name](), fetch_k=1)
        retriever.invoke(QUERY)
        assert seen == [1]
        assert messages(caplog) == []

    @pytest.mark.parametrize("name", COMPLETE)
    def test_without_fetch_k_no_field_is_set(self, name: str) -> None:
        inner = COMPLETE[name]()
        retriever, seen = make_retriever(inner)
        retriever.invoke(QUERY)
        assert seen == [len(inner.invoke(QUERY))]

    def test_vector_store_gets_k_and_fetch_k(self) -> None:
        for kwargs, expected in (
            ({}, {"k": 50}),
            ({"search_kwargs": {"k": 2, "filter": None}}, {"k": 50, "filter": None}),
            ({"search_type": "mmr"}, {"k": 50, "fetch_k": 100, "lambda_mult": 0.5}),
            (
                {"search_type": "mmr", "search_kwargs": {"k": 2, "fetch_k": 60, "lambda_mult": 0.9}},
                {"k": 50, "fetch_k": 60, "lambda_mult": 0.9},
            ),
        ):
            inner = store()
            make_retriever(inner.as_retriever(**kwargs), fetch_k=50)[0].invoke(QUERY)
            assert inner.searches == [expected]

    async def test_k_of_the_call_replaces_fetch_k(self, caplog: pytest.LogCaptureFixture) -> None:
        for inner in (vectors(), vectors().with_retry(), TakesK()):
            retriever, seen = make_retriever(inner, fetch_k=50)
            retriever.invoke(QUERY, k=7)
            await retriever.ainvoke(QUERY, k=7)
            assert seen == [7, 7]
        assert messages(caplog) == []

    async def test_k_is_bound_only_if_the_called_method_takes_it(self, caplog: pytest.LogCaptureFixture) -> None:
        class SyncOnly(BaseRetriever):
            def _get_relevant_documents(self, query: str, *, run_manager: Any, k: int = 4) -> list[Document]:
                return MANY[:k]

        class Guessing(BaseRetriever):
            def _get_relevant_documents(self, query: str, *, run_manager: Any, **kwargs: Any) -> list[Document]:
                assert kwargs == {}
                return MANY[:4]

        for inner, counts in ((SyncOnly(), [50, 4]), (Guessing(), [4, 4])):
            caplog.clear()
            retriever, seen = make_retriever(inner, fetch_k=50)
            retriever.invoke(QUERY)
            await retriever.ainvoke(QUERY)
            assert seen == counts
            assert len(messages(caplog)) == 1

    def test_retrievers_in_pairs_and_mappings_are_copied(self) -> None:
        class Weighted(BaseRetriever):
            pairs: list[tuple[Any, float]]
            by_name: dict[str, Any] = Field(default_factory=dict)

            def _get_relevant_documents(self, query: str, *, run_manager: Any) -> list[Document]:
                parts = [*(part for part, _ in self.pairs), *self.by_name.values()]
                return [document for part in parts for document in part.invoke(query)]

        inner = Weighted(pairs=[(Ranked(), 0.5)], by_name={"store": vectors()})
        before = plain_fields(inner)
        seen: list[int] = []
        RerankRetriever(
            retriever=inner, fetch_k=50, reranker="lexical", on_response=lambda response: seen.append(len(response))
        ).invoke(QUERY)
        assert seen == [50]
        assert len(with_fetch_k(inner, 50, [], is_async=False).invoke(QUERY)) == 100
        assert plain_fields(inner) == before

    def test_documents_in_fields_are_not_searched(self) -> None:
        class Untouched(list[Any]):
            def __iter__(self) -> Any:
                raise AssertionError("read")

        inner = Ranked()
        object.__setattr__(
            inner, "__dict__", {**vars(inner), "documents": Untouched(MANY), "vectors": [[0.5] * 200] * 3}
        )
        retriever, seen = make_retriever(inner, fetch_k=50)
        retriever.invoke(QUERY)
        assert seen == [50]

    def test_step_that_writes_the_query_is_unchanged(self) -> None:
        feeding, source = store(), store()
        query = feeding.as_retriever() | RunnableLambda(lambda documents: documents[0].page_content)
        retriever, seen = make_retriever(query | source.as_retriever(), fetch_k=50)
        retriever.invoke(QUERY)
        assert [each["k"] for each in feeding.searches + source.searches] == [4, 50]
        assert seen == [50]

    def test_chain_that_writes_queries_is_unchanged(self) -> None:
        feeding = store()
        inner = MultiQueryRetriever.from_llm(vectors(), rewriting())

        def write(inputs: Any) -> list[str]:
            return [inputs["question"], "bees"]

        context = RunnablePassthrough.assign(
            context=RunnableLambda(lambda inputs: inputs["question"]) | feeding.as_retriever()
        )
        inner.llm_chain = context | RunnableLambda(write)
        retriever, seen = make_retriever(inner, fetch_k=50)
        retriever.invoke(QUERY)
        assert [each["k"] for each in feeding.searches] == [4]
        assert seen == [50]

    @pytest.mark.parametrize("kind", [tuple, deque, iter], ids=["tuple", "deque", "iterator"])
    async def test_runnable_may_return_any_iterable(self, kind: Any) -> None:
        retriever, seen = make_retriever(
            RunnableLambda(lambda query: [kind(MANY)]) | RunnableLambda(lambda iterables: iterables[0]), fetch_k=50
        )
        retriever.invoke(QUERY)
        assert seen == [50]
        with pytest.raises(InputError, match="documents must be a list of Document objects, got one str"):
            RerankRetriever(retriever=RunnableLambda(lambda query: query), reranker="lexical").invoke(QUERY)


TOO_FEW: dict[str, tuple[Any, int, str]] = {
    "no number": (Fixed, 4, "set k on Fixed"),
    "a wrapper around it": (lambda: Fixed().with_retry(), 4, "set k on Fixed"),
    "an ensemble of it": (
        lambda: EnsembleRetriever(retrievers=[Fixed(count=6), Fixed(count=2).with_config(tags=["a"])]),
        6,
        "set k on Fixed",
    ),
    "a function": (lambda: RunnableLambda(lambda query: MANY[:3]).with_config(run_name="mine"), 3, "return more from"),
    "a retriever that ignores k": (
        lambda: Ignoring(),  # noqa: PLW0108 (defined below)
        4,
        "set k on Ignoring, which seems to ignore the argument k",
    ),
    "parents of several pieces": (
        lambda: parents(60, 3),
        17,
        "set a larger k in search_kwargs of ParentDocumentRetriever",
    ),
    "a compressor that cuts": (
        lambda: ContextualCompressionRetriever(
            base_compressor=RerankCompressor(reranker="passthrough", top_n=5), base_retriever=vectors()
        ),
        5,
        "set top_n on RerankCompressor",
    ),
    "a pipeline that cuts": (
        lambda: ContextualCompressionRetriever(
            base_compressor=DocumentCompressorPipeline(
                transformers=[EmbeddingsFilter(embeddings=DeterministicFakeEmbedding(size=8))]
            ),
            base_retriever=vectors(),
        ),
        20,
        "set k on EmbeddingsFilter",
    ),
    "another reranker that cuts": (
        lambda: RerankRetriever(retriever=vectors(), reranker="passthrough", top_n=5),
        5,
        "set top_n on RerankRetriever",
    ),
}


class Ignoring(BaseRetriever):
    """Takes any argument and ignores it."""

    def _get_relevant_documents(self, query: str, *, run_manager: Any, **kwargs: Any) -> list[Document]:
        return MANY[:4]

    async def _aget_relevant_documents(self, query: str, *, run_manager: Any, **kwargs: Any) -> list[Document]:
        return MANY[:4]


class TestWarning:
    @pytest.mark.parametrize("name", TOO_FEW)
    @pytest.mark.parametrize("is_async", [False, True], ids=["sync", "async"])
    async def test_warning_has_the_number_and_advice(
        self, name: str, is_async: bool, caplog: pytest.LogCaptureFixture
    ) -> None:
        if name == "a pipeline that cuts":
            pytest.importorskip(
                "langchain_community", reason="EmbeddingsFilter needs langchain-community, not installed here"
            )
        make, count, advice = TOO_FEW[name]
        retriever, seen = make_retriever(make(), fetch_k=50)
        for _ in range(3):
            if is_async:
                await retriever.ainvoke(QUERY)
            else:
                retriever.invoke(QUERY)
        if name != "parents of several pieces":
            assert seen == [count] * 3
        (message,) = messages(caplog)
        assert message.startswith(f"fetch_k is 50, but the retriever returned {seen[0]} candidates: ")
        assert advice in message
        assert QUERY not in message

    def test_warning_is_logged_once_per_retriever(self, caplog: pytest.LogCaptureFixture) -> None:
        inner = Fixed()
        first = RerankRetriever(retriever=inner, reranker="lexical", fetch_k=50)
        switching = first.configurable_fields(top_n=ConfigurableField(id="top_n"))
        for top_n in (1, 2, 3):
            switching.invoke(QUERY, config={"configurable": {"top_n": top_n}})
        assert len(messages(caplog)) == 1
        second, _ = make_retriever(Fixed(), fetch_k=50)
        second.invoke(QUERY)
        assert len(messages(caplog)) == 2
        reference, warned_at = _warned[id(inner)]
        _warned[id(inner)] = reference, warned_at - 61.0
        first.invoke(QUERY)
        assert len(messages(caplog)) == 3

    @pytest.mark.parametrize(
        "make",
        [
            lambda: Store(MANY[:12]).as_retriever(),
            lambda: vectors(search_type="similarity_score_threshold", search_kwargs={"score_threshold": 0.99}),
            lambda: vectors().bind(filter=lambda document: document.id in {"1", "2"}),
            lambda: EnsembleRetriever(retrievers=[Store(MANY[:9]).as_retriever(), Store([]).as_retriever()]),
            lambda: RunnableLambda(lambda query: []),
        ],
        ids=["small store", "threshold", "filter", "small ensemble", "no match"],
    )
    @pytest.mark.filterwarnings("ignore:No relevant docs")
    def test_no_warning_if_there_are_no_more_documents(self, make: Any, caplog: pytest.LogCaptureFixture) -> None:
        make_retriever(make(), fetch_k=50)[0].invoke(QUERY)
        assert messages(caplog) == []


COMMUNITY: dict[str, dict[str, Any]] = {
    "bm25.BM25Retriever": {"k": 50},
    "tfidf.TFIDFRetriever": {"k": 50},
    "svm.SVMRetriever": {"k": 50},
    "knn.KNNRetriever": {"k": 50},
    "nanopq.NanoPQRetriever": {"k": 50},
    "asknews.AskNewsRetriever": {"k": 50},
    "tavily_search_api.TavilySearchAPIRetriever": {"k": 50},
    "weaviate_hybrid_search.WeaviateHybridSearchRetriever": {"k": 50},
    "pinecone_hybrid_search.PineconeHybridSearchRetriever": {"top_k": 50},
    "azure_ai_search.AzureAISearchRetriever": {"top_k": 50},
    "chaindesk.ChaindeskRetriever": {"top_k": 50},
    "databerry.DataberryRetriever": {"top_k": 50},
    "chatgpt_plugin_retriever.ChatGPTPluginRetriever": {"top_k": 50},
    "docarray.DocArrayRetriever": {"top_k": 50},
    "kendra.AmazonKendraRetriever": {"top_k": 50},
    "needle.NeedleRetriever": {"top_k": 50},
    "zep.ZepRetriever": {"top_k": 50},
    "zep_cloud.ZepCloudRetriever": {"top_k": 50},
    "kay.KayAiRetriever": {"num_contexts": 50},
    "arxiv.ArxivRetriever": {"top_k_results": 50},
    "wikipedia.WikipediaRetriever": {"top_k_results": 50},
    "pubmed.PubMedRetriever": {"top_k_results": 50},
    "outline.OutlineRetriever": {"top_k_results": 50},
    "rememberizer.RememberizerRetriever": {"top_k_results": 50},
    "you.YouRetriever": {"k": 50, "num_web_results": 50},
    "google_vertex_ai_search.GoogleVertexAISearchRetriever": {"max_documents": 50},
}


@pytest.mark.thorough  # imports langchain-community
@pytest.mark.filterwarnings("ignore")
class TestCommunity:
    """Retrievers of langchain-community need accounts and packages, so the fields that are set on them are compared."""

    @pytest.fixture(autouse=True)
    def community(self) -> None:
        pytest.importorskip("langchain_community", reason="langchain-community is not in this environment")

    def empty(self, name: str, **fields: Any) -> BaseRetriever:
        """Return a retriever without running its constructor, which would connect to a server."""
        module, kind = name.split(".")
        retriever_class: Any = getattr(importlib.import_module(f"langchain_community.retrievers.{module}"), kind)
        retriever: BaseRetriever = retriever_class.model_construct(**fields)
        return retriever

    @pytest.mark.parametrize("name", COMMUNITY)
    def test_field_is_set_on_a_copy(self, name: str) -> None:
        retriever = self.empty(name, **({"num_contexts": 6} if "kay" in name else {}))
        before = dict(vars(retriever))
        advice: list[str] = []
        copied: Any = with_fetch_k(retriever, 50, advice, is_async=False)
        assert {field: getattr(copied, field) for field in COMMUNITY[name]} == COMMUNITY[name]
        assert advice == []
        assert vars(retriever) == before

    def test_number_is_limited_to_the_bound_of_the_field(self) -> None:
        advice: list[str] = []
        copied: Any = with_fetch_k(
            self.empty("google_vertex_ai_search.GoogleVertexAISearchRetriever"), 500, advice, is_async=False
        )
        assert copied.max_documents == 100
        assert advice == ["max_documents on GoogleVertexAISearchRetriever is at most 100"]

    def test_vector_store_retrievers_are_copied(self) -> None:
        inner, advice = store(), list[str]()
        for module, kind, own, expected in (
            ("vectorstores.redis.base", "RedisVectorStoreRetriever", {"k": 4, "score_threshold": 0.9}, {"k": 50}),
            ("graph_vectorstores.base", "GraphVectorStoreRetriever", {"depth": 1}, {"k": 50}),
            ("vectorstores.vectara", "VectaraRetriever", {}, {"k": 50}),
            ("vectorstores.azuresearch", "AzureSearchVectorStoreRetriever", {"filter": "x"}, {}),
        ):
            retriever_class: Any = getattr(importlib.import_module(f"langchain_community.{module}"), kind)
            retriever = retriever_class.model_construct(vectorstore=inner, search_kwargs=own)
            copied: Any = with_fetch_k(retriever, 50, advice, is_async=False)
            assert copied.search_kwargs == {**own, **expected}
            assert getattr(copied, "k", 50) == 50
            assert copied.vectorstore is inner
        assert advice == []

    def test_nested_numbers_are_set(self) -> None:
        class Vector(BaseModel):
            numberOfResults: int = 4

        class Config(BaseModel):
            vectorSearchConfiguration: Vector = Vector()

        config, advice = Config(), list[str]()
        copied: Any = with_fetch_k(
            self.empty("bedrock.AmazonKnowledgeBasesRetriever", retrieval_config=config), 50, advice, is_async=False
        )
        assert copied.retrieval_config.vectorSearchConfiguration.numberOfResults == 50
        assert config.vectorSearchConfiguration.numberOfResults == 4
        body = {"yql": "select", "hits": 5}
        copied = with_fetch_k(self.empty("vespa_retriever.VespaRetriever", body=body), 50, advice, is_async=False)
        assert copied.body == {"yql": "select", "hits": 50}
        assert body["hits"] == 5
        copied = with_fetch_k(self.empty("metal.MetalRetriever", params={"limit": 3}), 50, advice, is_async=False)
        assert copied.params == {"limit": 50}
        assert advice == []

    @pytest.mark.parametrize("name", ["milvus.MilvusRetriever", "zilliz.ZillizRetriever"])
    async def test_retrievers_around_a_vector_store_retriever(
        self, name: str, caplog: pytest.LogCaptureFixture
    ) -> None:
        inner = self.empty(name, retriever=vectors(search_kwargs={"param": None}))
        advice: list[str] = []
        copied: Any = with_fetch_k(inner, 50, advice, is_async=False)
        assert copied.retriever.search_kwargs == {"param": None, "k": 50}
        assert advice == []

    async def test_real_retrievers_return_fetch_k_candidates(self) -> None:
        pytest.importorskip("sklearn", reason="scikit-learn, which TFIDFRetriever needs, is not in this environment")
        tfidf: Any = importlib.import_module("langchain_community.retrievers.tfidf")
        knn: Any = importlib.import_module("langchain_community.retrievers.knn")
        notes = [each.page_content for each in MANY]
        for inner in (
            tfidf.TFIDFRetriever.from_texts(notes),
            knn.KNNRetriever.from_texts(notes, DeterministicFakeEmbedding(size=8)),
        ):
            retriever, seen = make_retriever(EnsembleRetriever(retrievers=[inner, vectors()]), fetch_k=50)
            retriever.invoke(QUERY)
            await retriever.ainvoke(QUERY)
            assert seen == [50, 50]
            alone, seen = make_retriever(inner, fetch_k=50)
            alone.invoke(QUERY)
            assert seen == [50]
            assert inner.k == 4
