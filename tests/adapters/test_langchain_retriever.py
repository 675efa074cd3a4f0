"""RerankRetriever around real retrievers, and LangChain's own suite for retrievers."""

from __future__ import annotations

import copy
import json
import pickle
from pathlib import Path
from typing import Any

import httpx
import pytest
from langchain_classic.retrievers import ContextualCompressionRetriever
from langchain_core.callbacks import BaseCallbackHandler
from langchain_core.documents import Document
from langchain_core.embeddings import DeterministicFakeEmbedding
from langchain_core.load import dumps, loads
from langchain_core.retrievers import BaseRetriever
from langchain_core.runnables import ConfigurableField, RunnableLambda
from langchain_core.tools.retriever import create_retriever_tool
from langchain_core.tracers.base import BaseTracer
from langchain_core.vectorstores import InMemoryVectorStore
from langchain_tests.integration_tests import RetrieversIntegrationTests
from support.bees import QUERY, SECRET, TEXTS

from rerank_plugins import ConfigError, InputError
from rerank_plugins.config import shared
from rerank_plugins.langchain import RerankCompressor, RerankRetriever

DOCUMENTS = [Document(text, id=str(index)) for index, text in enumerate([*TEXTS, *(f"Filler {n}." for n in range(8))])]


class Ranked(BaseRetriever):
    """Returns the first `k` documents, as BM25Retriever and others do; `k` is a field."""

    k: int = 4

    def _get_relevant_documents(self, query: str, *, run_manager: Any) -> list[Document]:
        return DOCUMENTS[: self.k]


class Everything(BaseRetriever):
    """Returns all documents; takes no number."""

    def _get_relevant_documents(self, query: str, *, run_manager: Any) -> list[Document]:
        return DOCUMENTS


class OnlySyncTakesK(BaseRetriever):
    """Takes `k` in a call, but its async method (LangChain's own) does not."""

    k: int = 4

    def _get_relevant_documents(self, query: str, *, run_manager: Any, k: int | None = None) -> list[Document]:
        return DOCUMENTS[: k or self.k]


@pytest.fixture
def store() -> InMemoryVectorStore:
    store = InMemoryVectorStore(DeterministicFakeEmbedding(size=16))
    store.add_documents(DOCUMENTS)
    return store


def texts(documents: list[Document]) -> list[str]:
    return [each.page_content for each in documents]


class TestFetchK:
    @pytest.mark.parametrize("kind", [Ranked, Everything, OnlySyncTakesK])
    @pytest.mark.parametrize("fetch_k", [1, 3, 7, 12])
    async def test_fetch_k_candidates_are_reranked(self, kind: type[BaseRetriever], fetch_k: int) -> None:
        seen: list[int] = []
        inner = kind()
        retriever = RerankRetriever(
            retriever=inner,
            fetch_k=fetch_k,
            reranker="lexical",
            on_response=lambda response: seen.append(len(response)),
        )
        assert retriever.invoke(QUERY) == await retriever.ainvoke(QUERY)
        assert seen == [fetch_k, fetch_k]
        assert inner == kind(), "the inner retriever is not changed"

    async def test_fetch_k_is_passed_to_a_vector_store(self, store: InMemoryVectorStore) -> None:
        inner = store.as_retriever(search_kwargs={"k": 2})
        plain = RerankRetriever(retriever=inner, reranker="passthrough")
        more = RerankRetriever(retriever=inner, reranker="passthrough", fetch_k=12, top_n=9)
        for retriever, count in ((plain, 2), (more, 9)):
            assert len(retriever.invoke(QUERY)) == len(await retriever.ainvoke(QUERY)) == count
        assert len(more.invoke(QUERY, k=5)) == 5, "the k of the call replaces fetch_k"
        assert inner.search_kwargs == {"k": 2}

    async def test_arguments_are_passed_to_the_inner_retriever(self, store: InMemoryVectorStore) -> None:
        retriever = RerankRetriever(retriever=store.as_retriever(), reranker="lexical", fetch_k=12)

        def is_about_bees(document: Document) -> bool:
            return "Bees" in document.page_content

        assert texts(retriever.invoke(QUERY, filter=is_about_bees)) == [TEXTS[3], TEXTS[2]]
        assert texts(await retriever.ainvoke(QUERY, filter=is_about_bees)) == [TEXTS[3], TEXTS[2]]

    async def test_runnable_is_accepted_as_retriever(self) -> None:
        async def afind(query: str) -> list[Document]:
            return DOCUMENTS

        retriever = RerankRetriever(
            retriever=RunnableLambda(lambda query: DOCUMENTS, afind), reranker="lexical", top_n=1
        )
        assert texts(retriever.invoke(QUERY)) == texts(await retriever.ainvoke(QUERY)) == [TEXTS[3]]

    def test_nested_retrievers_rerank_twice(self, store: InMemoryVectorStore) -> None:
        inner = RerankRetriever(retriever=store.as_retriever(), fetch_k=12, reranker="lexical")
        (best_document,) = RerankRetriever(retriever=inner, fetch_k=3, reranker="lexical", top_n=1).invoke(QUERY)
        (best, *_) = inner.invoke(QUERY)
        assert best_document.page_content == best.page_content == TEXTS[3], "the inner retriever still reranks 12"
        assert best_document.metadata["retrieval_score"] == best.metadata["relevance_score"]

    @pytest.mark.parametrize("fetch_k", [0, -1, 2.0, True, "2"], ids=repr)
    def test_fetch_k_is_an_integer_of_at_least_one(self, fetch_k: Any) -> None:
        message = f"fetch_k must be an integer of at least 1, or None for all; got {fetch_k!r}"
        with pytest.raises(InputError, match=message):
            RerankRetriever(retriever=Everything(), fetch_k=fetch_k)
        retriever = RerankRetriever(retriever=Everything(), reranker="lexical")
        retriever.fetch_k = fetch_k
        with pytest.raises(InputError, match=message):
            retriever.invoke(QUERY)

    async def test_no_candidates_return_no_documents(self) -> None:
        retriever = RerankRetriever(retriever=RunnableLambda(lambda query: []), reranker="lexical", fetch_k=5)
        assert retriever.invoke(QUERY) == await retriever.ainvoke(QUERY) == []


class TestCalls:
    async def test_top_n_may_be_set_for_one_call(self) -> None:
        retriever = RerankRetriever(retriever=Everything(), reranker="lexical", top_n=2)
        assert len(retriever.invoke(QUERY)) == 2
        assert texts(retriever.invoke(QUERY, top_n=1)) == texts(await retriever.ainvoke(QUERY, top_n=1)) == [TEXTS[3]]
        with pytest.raises(InputError):
            retriever.invoke(QUERY, top_n=0)
        with pytest.raises(InputError):
            await retriever.ainvoke(QUERY, top_n=0)

    async def test_metadata_is_added_to_copies(self) -> None:
        (best_document,) = await RerankRetriever(retriever=Everything(), reranker="lexical", top_n=1).ainvoke(QUERY)
        assert (best_document.id, best_document.metadata["retrieval_rank"]) == ("3", 3)
        assert DOCUMENTS[3].metadata == {}

    def test_unknown_backend_is_refused_at_construction(self) -> None:
        with pytest.raises(ConfigError, match="Did you mean 'lexical'"):
            RerankRetriever(retriever=Everything(), reranker="lexicla")

    def test_retriever_tool_of_an_agent_reranks(self) -> None:
        retriever = RerankRetriever(retriever=Everything(), reranker="lexical", top_n=1)
        tool = create_retriever_tool(retriever, "search_bees", "About bees.")
        assert tool.invoke({"query": QUERY}) == TEXTS[3]


class Recorder(BaseCallbackHandler):
    """Records all arguments of the callbacks of runs."""

    def __init__(self) -> None:
        self.events: list[Any] = []
        self.runs: list[tuple[Any, Any]] = []

    def on_retriever_start(self, serialized: Any, query: str, **kwargs: Any) -> None:
        self.runs.append((kwargs["run_id"], kwargs["parent_run_id"]))
        self.events.append((serialized, query, kwargs))

    def on_retriever_end(self, documents: Any, **kwargs: Any) -> None:
        self.events.append((documents, kwargs))

    def on_chain_start(self, serialized: Any, inputs: Any, **kwargs: Any) -> None:
        self.events.append((serialized, inputs, kwargs))


async def test_inner_run_is_a_child_run() -> None:
    retriever = RerankRetriever(retriever=Everything(), reranker="lexical")
    sync, awaited = Recorder(), Recorder()
    retriever.invoke(QUERY, config={"callbacks": [sync]})
    await retriever.ainvoke(QUERY, config={"callbacks": [awaited]})
    for recorder in (sync, awaited):
        (outer, none), (_, parent) = recorder.runs
        assert (none, parent) == (None, outer)


class Tracer(BaseTracer):
    """Records finished runs, as LangSmith's and OpenTelemetry's tracers do."""

    def __init__(self) -> None:
        super().__init__()
        self.roots: list[Any] = []

    def _persist_run(self, run: Any) -> None:
        self.roots.append(run)


class TestRunMetadata:
    async def test_run_metadata_has_the_model_and_the_usage(self, spec: Any) -> None:
        retriever = RerankRetriever(retriever=Everything(), reranker={**spec, "base_url": "http://127.0.0.1:9"})
        expected = {"rerank_model": "passthrough", "rerank_degraded": True, "rerank_usage": {"requests": 2}}
        recorder, tracer, own = Recorder(), Tracer(), {"mine": 1}
        config: Any = {"callbacks": [recorder, tracer], "metadata": own}
        retriever.invoke(QUERY, config=config)
        await retriever.ainvoke(QUERY, config=config)
        label = retriever._live_reranker().scorer.label
        starts = [event[2]["metadata"] for event in recorder.events if len(event) == 3]
        assert [start.get("reranker") for start in starts] == [label, None] * 2, "the inner run has no reranker"
        for run in tracer.roots:
            metadata = run.extra["metadata"]
            assert metadata == {"mine": 1, "ls_retriever_name": "rerank", "reranker": label, **expected}
            assert SECRET not in repr(metadata)
            (inner,) = run.child_runs
            assert inner.extra["metadata"] == {"mine": 1, "ls_retriever_name": "everything"}
        assert len(tracer.roots) == 2
        assert own == {"mine": 1}

    async def test_compressor_adds_metadata_to_the_run_around_it(self) -> None:
        compressor = RerankCompressor(reranker="lexical")
        retriever = ContextualCompressionRetriever(base_compressor=compressor, base_retriever=Everything())
        tracer = Tracer()
        retriever.invoke(QUERY, config={"callbacks": [tracer]})
        await retriever.ainvoke(QUERY, config={"callbacks": [tracer]})
        for run in tracer.roots:
            metadata = run.extra["metadata"]
            assert (metadata["reranker"], metadata["rerank_model"]) == ("lexical", "lexical")
            assert (metadata["rerank_degraded"], metadata["rerank_usage"]) == (False, {"requests": 0})
            (inner,) = run.child_runs
            assert "reranker" not in inner.extra["metadata"]
        assert len(tracer.roots) == 2


class TestSwitching:
    async def test_switching_makes_no_new_clients(self, server: Any, monkeypatch: pytest.MonkeyPatch) -> None:
        clients: list[Any] = []
        make = httpx.AsyncClient.__init__

        def counted(self: Any, **options: Any) -> None:
            clients.append(self)
            make(self, **options)

        monkeypatch.setattr(httpx.AsyncClient, "__init__", counted)
        hosted = {"use": "http", "base_url": server.url, "api_key": server.key, "deadline": 7}
        live: list[Any] = []
        retriever = RerankRetriever(
            retriever=Everything(),
            reranker="passthrough",
            top_n=1,
            on_response=lambda response: live.append(response.model),
        ).configurable_fields(reranker=ConfigurableField(id="reranker"), top_n=ConfigurableField(id="top_n"))
        before = shared(hosted).scorer, shared("lexical").scorer
        for chosen, best in ((hosted, TEXTS[3]), ("lexical", TEXTS[3]), ("passthrough", TEXTS[0])) * 2:
            config = {"configurable": {"reranker": chosen}}
            assert texts(retriever.invoke(QUERY, config=config)) == [best]
            assert texts(await retriever.ainvoke(QUERY, config=config)) == [best]
        assert texts(retriever.invoke(QUERY)) == [TEXTS[0]]
        assert live == ["http", "http", "lexical", "lexical", "passthrough", "passthrough"] * 2 + ["passthrough"]
        assert (shared(hosted).scorer, shared("lexical").scorer) == before
        assert len(clients) == 2, "one on each of the two event loops"
        assert len(retriever.with_config(configurable={"top_n": 3}).invoke(QUERY)) == 3
        assert retriever.config_schema(include=["configurable"]).model_json_schema()

    async def test_calls_can_choose_only_allowed_rerankers(self, server: Any) -> None:
        """If requests could send a mapping, they could choose the URL to which documents and variables are sent."""
        attack = {"use": "http", "base_url": server.url, "api_key": "env:HOME", "cache": {"kind": "disk", "path": "x"}}
        inner = Everything()
        plain = RerankRetriever(
            retriever=inner, reranker="lexical", top_n=1, allowed_rerankers=["lexical", "passthrough"]
        )
        configurable = plain.configurable_fields(reranker=ConfigurableField(id="reranker"))
        for chosen, best in (("lexical", TEXTS[3]), ("passthrough", TEXTS[0])):
            assert texts(configurable.invoke(QUERY, config={"configurable": {"reranker": chosen}})) == [best]
        for refused in (attack, "embedded", {"use": "lexical"}):
            chosen = {"configurable": {"reranker": refused}}
            calls = [
                (configurable, {"config": chosen}),
                (configurable.with_config(chosen), {}),
                (RunnableLambda(lambda text: text) | configurable, {"config": chosen}),
                (plain.bind(reranker=refused), {}),
                (plain, {"reranker": refused}),
                (RerankRetriever(retriever=configurable.with_config(chosen), reranker="lexical"), {}),
            ]
            for retriever, arguments in calls:
                with pytest.raises(ConfigError, match="allowed_rerankers"):
                    retriever.invoke(QUERY, **arguments)
                with pytest.raises(ConfigError, match="allowed_rerankers"):
                    await retriever.ainvoke(QUERY, **arguments)
        assert server.requests == []

    async def test_a_spec_that_a_call_names_reads_no_key_of_the_program(
        self, server: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """Otherwise a call could have any variable and file of the program sent to a server of its own."""
        monkeypatch.setenv("PROGRAM_SECRET", "the-program's-secret-1")
        key = tmp_path / "key"
        key.write_text(server.key, "utf-8")
        hosted = {"use": "http", "base_url": server.url}
        config_file = tmp_path / "rerank.toml"
        config_file.write_text(
            f'[rerankers.hosted]\nuse = "http"\nbase_url = "{server.url}"\napi_key = "file:key"\n', "utf-8"
        )
        own = {**hosted, "api_key": f"file:{key}"}
        retriever = RerankRetriever(
            retriever=Everything(), reranker=own, config=config_file, top_n=1
        ).configurable_fields(reranker=ConfigurableField(id="reranker"), top_n=ConfigurableField(id="top_n"))
        refused = [
            {**hosted, "api_key": "env:PROGRAM_SECRET"},
            {**hosted, "api_key": f"file:{key}"},
            {**hosted, "http": {"headers": {"x-a": "env:PROGRAM_SECRET"}}},
            {**hosted, "http": {"body": {"deep": ["env:PROGRAM_SECRET"]}}},
            {"use": "http", "base_url": f"{server.url}?key=env:PROGRAM_SECRET"},
            {"use": "http", "base_url": f"{server.url}/%65nv%3APROGRAM_SECRET"},
            {"use": "http", "base_url": server.url.replace("://", "://me:env:PROGRAM_SECRET@")},
            {"use": "lexical", "fallback": [{**hosted, "api_key": f"file:{key}"}]},
            {"cascade": {"stages": ["lexical", {**hosted, "api_key": "env:PROGRAM_SECRET"}], "keep": 2}},
        ]
        monkeypatch.setenv("VLLM_API_KEY", "the-program's-secret-1")
        for chosen in (
            {"use": "vllm:m", "base_url": server.url},
            {"use": "lexical", "fallback": [{"use": "vllm:m", "vllm": {"base_url": server.url}}]},
        ):
            with pytest.raises(ConfigError, match="the program's own key would be sent"):
                retriever.invoke(QUERY, config={"configurable": {"reranker": chosen}})
        for chosen in refused:
            config = {"configurable": {"reranker": chosen}}
            for call in (retriever, retriever.with_config(config)):
                with pytest.raises(ConfigError, match="must not read keys of the program"):
                    call.invoke(QUERY, config=config if call is retriever else {})
            with pytest.raises(ConfigError, match="must not read keys of the program"):
                await retriever.ainvoke(QUERY, config=config)
        assert server.requests == []
        allowed = [{**hosted, "api_key": server.key}, "hosted", {"use": "lexical", "fallback": ["hosted"]}]
        for chosen in allowed:
            assert texts(retriever.invoke(QUERY, config={"configurable": {"reranker": chosen}})) == [TEXTS[3]]
        assert texts(retriever.invoke(QUERY)) == [TEXTS[3]], "the program's own spec"
        assert len(retriever.invoke(QUERY, config={"configurable": {"top_n": 2}})) == 2

    async def test_configurable_alternatives_switch_by_name(self) -> None:
        def reranking(spec: Any) -> RerankRetriever:
            return RerankRetriever(retriever=Everything(), reranker=spec, top_n=1)

        retriever = reranking("lexical").configurable_alternatives(
            ConfigurableField(id="reranker"), default_key="words", none=reranking("passthrough")
        )
        assert texts(retriever.invoke(QUERY)) == [TEXTS[3]]
        for name, best in (("words", TEXTS[3]), ("none", TEXTS[0])):
            config = {"configurable": {"reranker": name}}
            assert texts(retriever.invoke(QUERY, config=config)) == [best]
            assert texts(await retriever.ainvoke(QUERY, config=config)) == [best]
        with pytest.raises(ValueError, match="Unknown alternative"):
            retriever.invoke(QUERY, config={"configurable": {"reranker": "embedded"}})

    async def test_tracers_see_no_key(self, spec: Any, server: Any) -> None:
        retriever = RerankRetriever(retriever=Everything(), reranker=spec).configurable_fields(
            reranker=ConfigurableField(id="reranker")
        )
        chain = RunnableLambda(lambda text: text) | retriever
        recorder = Recorder()
        chosen = {**spec, "http": {"headers": {"x-api-key": SECRET}}}  # without "env:", which a call must not name
        for config in ({}, {"configurable": {"reranker": chosen}}):
            chain.invoke(QUERY, config={**config, "callbacks": [recorder]})
            await chain.ainvoke(QUERY, config={**config, "callbacks": [recorder]})
        assert len(recorder.events) > 16
        assert server.refused == []
        assert SECRET not in repr(recorder.events)


class TestSerialisation:
    def test_dumps_and_loads_round_trip_with_inner_retriever(self, spec: dict[str, Any]) -> None:
        compressing = RerankRetriever(retriever=Storable(), fetch_k=3, reranker=spec, top_n=2)
        stored = dumps(compressing)
        assert SECRET not in stored
        back = loads(
            stored,
            allowed_objects=[RerankRetriever, Storable],
            valid_namespaces=["rerank_plugins", Storable.__module__],
        )
        assert (back.retriever, back.fetch_k, back.top_n) == (Storable(), 3, 2)
        assert json.loads(stored)["kwargs"]["reranker"]["use"] == "http"

    def test_pickles_and_copies_are_equal(self) -> None:
        retriever = RerankRetriever(retriever=Everything(), fetch_k=4, reranker="lexical", top_n=2, tags=["bees"])
        for twin in (pickle.loads(pickle.dumps(retriever)), copy.deepcopy(retriever)):
            assert twin == retriever
            assert twin.invoke(QUERY) == retriever.invoke(QUERY)


class Storable(Everything):
    """A retriever that LangChain can dump."""

    @classmethod
    def is_lc_serializable(cls) -> bool:
        return True


class TestLangChainsOwnSuite(RetrieversIntegrationTests):
    """https://reference.langchain.com/python/langchain_tests: the suite for all retrievers."""

    @property
    def retriever_constructor(self) -> type[RerankRetriever]:
        return RerankRetriever

    @property
    def retriever_constructor_params(self) -> dict[str, Any]:
        return {"retriever": Ranked(), "fetch_k": 10, "reranker": "lexical"}

    @property
    def retriever_query_example(self) -> str:
        return QUERY

    @property
    def num_results_arg_name(self) -> str:
        return "top_n"
