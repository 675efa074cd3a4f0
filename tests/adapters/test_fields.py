"""Fields that all adapters share: errors, shared rerankers, keys, copies and pickles."""

from __future__ import annotations

import copy
import importlib
import inspect
import json
import logging
import pickle
import pydoc
import re
from pathlib import Path
from typing import Any

import pytest
from langchain_core.documents import Document
from langchain_core.embeddings import DeterministicFakeEmbedding
from langchain_core.runnables import RunnableLambda
from langchain_core.vectorstores import InMemoryVectorStore
from llama_index.core.schema import NodeWithScore, TextNode
from pydantic import ValidationError
from support.bees import DEGRADED, QUERY, SECRET, TEXTS

from rerank_plugins import ConfigError, InputError, Reranker, RerankResponse, TransientError, load_reranker
from rerank_plugins.core import Capabilities, LocalBackend
from rerank_plugins.langchain import RerankCompressor, RerankRetriever
from rerank_plugins.llama_index import RerankPostprocessor
from rerank_plugins.testing.script import Status

ADAPTERS = [RerankCompressor, RerankPostprocessor]
both = pytest.mark.parametrize("kind", ADAPTERS)


def run(adapter: Any, query: str = QUERY, texts: list[str] = TEXTS) -> list[str]:
    """Return the texts of the answer, in its order."""
    if isinstance(adapter, RerankCompressor):
        return [each.page_content for each in adapter.compress_documents([Document(text) for text in texts], query)]
    nodes = [NodeWithScore(node=TextNode(text=text)) for text in texts]
    return [each.node.get_content() for each in adapter.postprocess_nodes(nodes, query_str=query)]


async def arun(adapter: Any, query: str = QUERY, texts: list[str] = TEXTS) -> list[str]:
    if isinstance(adapter, RerankCompressor):
        documents = await adapter.acompress_documents([Document(text) for text in texts], query)
        return [each.page_content for each in documents]
    nodes = [NodeWithScore(node=TextNode(text=text)) for text in texts]
    return [each.node.get_content() for each in await adapter.apostprocess_nodes(nodes, query_str=query)]


def scorer(adapter: Any) -> Any:
    return adapter._live_reranker().scorer


def descriptions_of_arguments(docstring: str) -> dict[str, str]:
    """Return the entries of an `Args:` block on one line each, by name; `pydoc` draws a line left of them."""
    lines = docstring.replace("\n |", "\n").split("Args:")[1].split("Raises:")[0].splitlines()
    entries = re.split(r"\n +(?=\w+ \([^\n]+?\): )", "\n" + "\n".join(filter(str.strip, lines)))
    return {entry.split()[0]: " ".join(entry.split()) for entry in entries if entry.strip()}


class LengthBackend(LocalBackend):
    """Scores by length. A Reranker with it is made by hand, so that no spec describes it."""

    model = "lengths"
    capabilities = Capabilities(scale="unit")

    def score(self, query: str, documents: Any) -> list[float]:
        return [len(document) / 1000 for document in documents]


class TestConstruction:
    @both
    @pytest.mark.parametrize(
        ("fields", "error", "message"),
        [
            ({"reranker": "lexicl"}, ConfigError, "Did you mean 'lexical'"),
            ({"reranker": {"use": "lexical", "retri": 3}}, ConfigError, "Did you mean 'retry'"),
            ({"reranker": {"use": "http"}}, ConfigError, "base_url"),
            ({"reranker": 5}, ConfigError, "must be a string such as .*, got 5"),
            ({"reranker": "lexical", "top_n": 0}, InputError, "at least 1"),
            ({"reranker": "lexical", "top_n": -1}, InputError, "at least 1"),
            ({"reranker": "lexical", "top_n": 2.0}, InputError, "top_n must be an integer of at least 1.*got 2.0"),
            ({"reranker": "lexical", "top_n": True}, InputError, "top_n must be an integer of at least 1.*got True"),
            ({"reranker": "lexical", "top_n": "2"}, InputError, "top_n must be an integer of at least 1.*got '2'"),
            ({"reranker": "lexical", "score_threshold": 1.5}, ConfigError, "from 0 to 1"),
            ({"reranker": "lexical", "score_threshold": True}, ConfigError, "finite number from 0 to 1, got True"),
            ({"reranker": "lexical", "score_threshold": "0.5"}, ConfigError, "finite number from 0 to 1, got '0.5'"),
            ({"reranker": "passthrough", "score_threshold": 0.5}, ConfigError, "only orders documents"),
        ],
    )
    def test_wrong_value_is_refused_at_construction(self, kind: Any, fields: Any, error: Any, message: str) -> None:
        with pytest.raises(error, match=message):
            kind(**fields)

    @both
    def test_missing_key_is_refused_at_construction(self, kind: Any) -> None:
        with pytest.raises(ConfigError, match="NOT_SET is not set"):
            kind(reranker={"use": "http", "base_url": "http://127.0.0.1:9", "api_key": "env:NOT_SET"})

    @both
    @pytest.mark.parametrize(
        ("field", "advice"),
        [
            ("model", "name the model in the spec, reranker='BACKEND:MODEL'"),
            ("model_name", "name the model in the spec, reranker='BACKEND:MODEL'"),
            ("top_k", "use top_n for the number of documents to return"),
            ("threshold", "use score_threshold for the minimum relevance_score"),
            ("api_key", "reranker={'use': 'BACKEND:MODEL', 'api_key': 'env:NAME'}"),
            ("cohere_api_key", "reranker={'use': 'cohere:MODEL', 'api_key': 'env:COHERE_API_KEY'}"),
            ("device", "it is an option of the spec, reranker={'use': 'BACKEND:MODEL', 'device': …}"),
            ("fallback", "it is an option of the spec, reranker={'use': 'BACKEND:MODEL', 'fallback': …}"),
            ("topN", "Did you mean 'top_n'? Choose one of: allowed_rerankers, "),
            ("score_treshold", "Did you mean 'score_threshold'?"),
            ("instructions", "Did you mean 'instruction'?"),
            ("qwertyuiop", "Choose one of: allowed_rerankers, "),
        ],
    )
    def test_unknown_field_is_refused_with_advice_and_without_its_value(
        self, kind: Any, field: str, advice: str
    ) -> None:
        with pytest.raises(ConfigError, match=f"There is no field of {kind.__name__} {field!r}") as caught:
            kind(reranker="lexical", **{field: SECRET})
        assert advice in str(caught.value)
        assert SECRET not in str(caught.value)

    def test_retriever_fields_are_refused_with_advice(self) -> None:
        retriever = RunnableLambda(lambda query: [])
        with pytest.raises(
            ConfigError, match=r"'base_retriever': a compressor has no retriever. Use RerankRetriever\("
        ):
            RerankCompressor(base_retriever=retriever)  # type: ignore[call-arg]
        with pytest.raises(ConfigError, match="'fetch_k': a compressor has no retriever"):
            RerankCompressor(fetch_k=50)  # type: ignore[call-arg]
        with pytest.raises(ConfigError, match="'base_retriever': use retriever"):
            RerankRetriever(base_retriever=retriever)  # type: ignore[call-arg]
        with pytest.raises(ConfigError, match="'base_compressor': use reranker, which takes"):
            RerankRetriever(retriever=retriever, base_compressor="lexical")  # type: ignore[call-arg]
        with pytest.raises(
            ConfigError, match="'top_k': use top_n for the number of documents to return, and fetch_k for"
        ):
            RerankRetriever(retriever=retriever, top_k=5)  # type: ignore[call-arg]
        with pytest.raises(ConfigError, match="'base_retriever': a postprocessor has no retriever"):
            RerankPostprocessor(base_retriever=retriever)
        store = InMemoryVectorStore(DeterministicFakeEmbedding(size=8))
        with pytest.raises(ConfigError, match=r"got the vector store InMemoryVectorStore: pass store.as_retriever\(\)"):
            RerankRetriever(retriever=store)  # type: ignore[arg-type]
        for name in ("fetch_k", "similarity_top_k"):
            with pytest.raises(ConfigError, match=rf"'{name}': .* index\.as_query_engine\(similarity_top_k=50, "):
                RerankPostprocessor(**{name: 50})

    @both
    def test_coroutine_function_as_on_response_is_refused(self, kind: Any) -> None:
        async def observe(response: RerankResponse) -> None: ...

        with pytest.raises(ConfigError, match="must be a plain function, got a coroutine function"):
            kind(reranker="lexical", on_response=observe)

    @both
    def test_threshold_with_fallback_of_another_scale_is_refused(self, kind: Any) -> None:
        stand_in = {"use": "http", "base_url": "http://127.0.0.1:9", "http": {"scale": "logit"}}
        mixed = {"use": "lexical", "fallback": [stand_in]}
        for reranker in (mixed, load_reranker(mixed)):
            with pytest.raises(ConfigError, match="different things"):
                kind(reranker=reranker, score_threshold=0.5)

    @both
    def test_default_reranker_is_read_from_the_environment(self, kind: Any, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("RERANK_PLUGINS_RERANKER", "lexical")
        assert run(kind(top_n=1)) == [TEXTS[3]]

    @pytest.mark.parametrize("kind", [*ADAPTERS, RerankRetriever])
    def test_schema_and_help_describe_each_field(self, kind: Any) -> None:
        properties = kind.model_json_schema()["properties"]
        ours = {"reranker", "config", "top_n", "instruction", "score_threshold", "allowed_rerankers"}
        ours |= {"retriever", "fetch_k"} if kind is RerankRetriever else set()
        ours |= {"metadata_mode"} if kind is RerankPostprocessor else set()
        for name in ours:
            assert len(properties[name]["description"]) > 20, name
        assert properties["reranker"]["anyOf"] == [{"type": "string"}, {"type": "object"}, {"type": "null"}]
        assert properties["reranker"]["default"] is None
        parameters = set(inspect.signature(kind).parameters)
        assert parameters >= {*ours, "on_response"}
        assert set(descriptions_of_arguments(pydoc.plain(pydoc.render_doc(kind)))) == parameters - {"kwargs"}

    @pytest.mark.parametrize(
        "kind",
        [
            RerankPostprocessor,
            RerankRetriever,
            pytest.param("LanceDBReranker", marks=pytest.mark.thorough),  # LanceDB imports pandas
        ],
    )
    def test_adapters_describe_the_same_argument_with_the_same_words(self, kind: Any) -> None:
        """Fails where one adapter's docstring was changed and the others' were not."""
        if kind == "LanceDBReranker":
            pytest.importorskip("lancedb", reason="lancedb is not in this environment")
            kind = importlib.import_module("rerank_plugins.lancedb").LanceDBReranker
        expected = descriptions_of_arguments(inspect.getdoc(RerankCompressor) or "")
        descriptions = descriptions_of_arguments(inspect.getdoc(kind) or "")
        for name, description in expected.items():
            assert re.sub(r"\b(node|row)(s?)\b", r"document\2", descriptions[name]) == description
        for name, description in descriptions.items():
            assert re.search("Default:? `", description) or description.endswith("Required."), name


class TestCalls:
    @both
    async def test_sync_and_async_agree(self, kind: Any) -> None:
        adapter = kind(reranker="lexical")
        assert run(adapter) == await arun(adapter)
        assert run(adapter)[0] == TEXTS[3]
        assert sorted(run(adapter)) == sorted(TEXTS)

    @both
    def test_ready_reranker_is_used_unchanged(self, kind: Any) -> None:
        reranker = load_reranker("lexical", top_n=2)
        assert scorer(kind(reranker=reranker)) is reranker.scorer
        assert len(run(kind(reranker=reranker))) == 2
        assert len(run(kind(reranker=reranker, top_n=3))) == 3
        assert len(run(kind(reranker=reranker, top_n=30))) == 4

    @both
    def test_adapters_with_the_same_spec_share_one_reranker(self, kind: Any, spec: Any) -> None:
        first = kind(reranker=spec)
        second = kind(reranker=copy.deepcopy(spec), top_n=1, score_threshold=0.2)
        assert scorer(first) is scorer(second)

    @both
    @pytest.mark.parametrize("ready", [False, True])
    async def test_score_threshold_keeps_equal_scores(self, kind: Any, ready: bool) -> None:
        scores = [result.relevance_score for result in load_reranker("lexical").rerank(QUERY, TEXTS)]
        adapter = kind(reranker=load_reranker("lexical") if ready else "lexical", score_threshold=scores[1])
        expected = sum(score >= scores[1] for score in scores)
        assert len(run(adapter)) == len(await arun(adapter)) == expected < len(TEXTS)

    @both
    def test_assigned_score_threshold_is_checked(self, kind: Any) -> None:
        reranker = load_reranker("lexical", score_threshold=1.0)
        adapter = kind(reranker=reranker, score_threshold=0.0)
        assert len(run(adapter)) == len(TEXTS)
        live_reranker = (adapter if hasattr(adapter, "_live_reranker") else adapter._adapter)._live_reranker
        assert live_reranker() is reranker
        if hasattr(adapter, "score_threshold"):
            adapter.score_threshold = 1.5
            with pytest.raises(ConfigError, match="from 0 to 1"):
                run(adapter)

    @both
    def test_score_threshold_is_not_applied_to_degraded_answers(self, kind: Any) -> None:
        assert run(kind(reranker=DEGRADED, score_threshold=0.9)) == TEXTS

    @both
    def test_instruction_is_sent_or_refused(self, kind: Any, server: Any) -> None:
        with pytest.raises(InputError, match="cannot follow an instruction"):
            run(kind(reranker="lexical", instruction="prefer the newest"))
        follows = {"use": "http", "base_url": server.url, "api_key": server.key}
        follows["http"] = {"instruction_field": "instruction"}
        run(kind(reranker=follows, instruction="prefer the newest"))
        assert [request.body["instruction"] for request in server.requests] == ["prefer the newest"]
        assert server.refused == []

    @both
    async def test_assigned_and_copied_fields_are_used(self, kind: Any) -> None:
        adapter = kind(reranker="passthrough")
        adapter.top_n = 2
        assert run(adapter) == TEXTS[:2]
        adapter.reranker = "lexical"
        assert run(adapter)[0] == TEXTS[3]
        assert run(adapter.model_copy(update={"reranker": "passthrough"})) == TEXTS[:2]

    @both
    async def test_errors_of_the_backend_are_raised(self, kind: Any, server: Any) -> None:
        server.always(Status(500))
        adapter = kind(reranker={"use": "http", "base_url": server.url, "api_key": server.key, "retry": 1})
        with pytest.raises(TransientError, match="500"):
            run(adapter)
        with pytest.raises(TransientError, match="500"):
            await arun(adapter)

    @both
    async def test_blank_query_is_refused(self, kind: Any) -> None:
        for query in ("", "  \n"):
            with pytest.raises(InputError):
                run(kind(reranker="lexical"), query)
            with pytest.raises(InputError):
                await arun(kind(reranker="lexical"), query)


@pytest.fixture
def config(tmp_path: Path) -> Path:
    """A file in which `production` has a fallback that is looked up by its name in the same file."""
    file = tmp_path / "rerank.toml"
    file.write_text(
        '[rerankers.default]\nuse = "lexical"\ntop_n = 1\n'
        '[rerankers.production]\nuse = "lexical"\nfallback = ["spare"]\n'
        '[rerankers.spare]\nuse = "passthrough"\n'
    )
    return file


class TestConfig:
    @both
    async def test_names_are_looked_up_in_the_file(self, kind: Any, config: Path) -> None:
        for path in (config, str(config)):
            adapter = kind(reranker="production", config=path)
            assert run(adapter)[0] == TEXTS[3]
            assert await arun(adapter) == run(adapter)
            assert scorer(adapter) is scorer(kind(reranker="production", config=str(config)))
        assert run(kind(reranker={"use": "lexical", "fallback": ["spare"]}, config=config))[0] == TEXTS[3]
        assert run(kind(config=config)) == [TEXTS[3]]

    @both
    def test_config_replaces_the_environment(self, kind: Any, config: Path, tmp_path: Path, monkeypatch: Any) -> None:
        other = tmp_path / "other.toml"
        other.write_text('[rerankers.production]\nuse = "passthrough"\n')
        monkeypatch.setenv("RERANK_PLUGINS_CONFIG", str(other))
        assert run(kind(reranker="production")) == TEXTS
        assert run(kind(reranker="production", config=config))[0] == TEXTS[3]

    @both
    def test_copies_and_pickles_use_the_same_file(self, kind: Any, config: Path) -> None:
        adapter = kind(reranker="production", config=config, top_n=2)
        for each in (pickle.loads(pickle.dumps(adapter)), copy.deepcopy(adapter), adapter.model_copy()):
            assert (each.reranker, each.config) == ("production", str(config))
            assert run(each) == run(adapter)
        json.dumps(adapter.model_dump())

    @both
    def test_assigned_config_is_used(self, kind: Any, config: Path, tmp_path: Path) -> None:
        other = tmp_path / "other.toml"
        other.write_text('[rerankers.production]\nuse = "passthrough"\n')
        adapter = kind(reranker="production", config=config)
        adapter.config = str(other)
        assert run(adapter) == TEXTS

    @both
    def test_allowed_rerankers_are_looked_up_in_the_file(self, kind: Any, config: Path) -> None:
        assert run(kind(reranker="production", config=config, allowed_rerankers=["production"]))[0] == TEXTS[3]
        with pytest.raises(ConfigError, match="must be one of allowed_rerankers"):
            kind(reranker="spare", config=config, allowed_rerankers=["production"])

    @both
    @pytest.mark.parametrize("wrong", [5, b"rerank.toml", ["rerank.toml"]], ids=repr)
    def test_config_that_is_no_path_is_refused(self, kind: Any, wrong: Any) -> None:
        with pytest.raises(ValueError, match="config"):
            kind(reranker="lexical", config=wrong)

    @both
    def test_wrong_names_and_files_are_refused_at_construction(self, kind: Any, config: Path, tmp_path: Path) -> None:
        with pytest.raises(ConfigError, match="Did you mean 'production'"):
            kind(reranker="producton", config=config)
        with pytest.raises(ConfigError, match="cannot be read"):
            kind(reranker="production", config=tmp_path / "missing.toml")
        with pytest.raises(ConfigError, match=r"reranker is a ready Reranker\. Leave config out"):
            kind(reranker=load_reranker("lexical"), config=config)


class TestAllowedRerankers:
    MAPPINGS = (
        {"use": "lexical"},
        {"use": "http", "base_url": "http://127.0.0.1:9", "api_key": "env:HOME"},
        {"use": "lexical", "cache": {"kind": "disk", "path": "made-by-a-request.sqlite"}},
    )

    @both
    @pytest.mark.parametrize("refused", [*MAPPINGS, "passthrough", "lexical:x", " lexical", 5, ["lexical"]], ids=repr)
    def test_reranker_outside_the_list_is_refused(
        self, kind: Any, refused: Any, tmp_path: Any, monkeypatch: Any
    ) -> None:
        monkeypatch.chdir(tmp_path)
        allowed = ["lexical", "embedded"]
        with pytest.raises(ConfigError, match=r"must be one of allowed_rerankers \('lexical', 'embedded'\), got"):
            kind(reranker=refused, allowed_rerankers=allowed)
        adapter = kind(reranker="lexical", allowed_rerankers=allowed)
        with pytest.raises(ConfigError, match="must be one of allowed_rerankers"):
            run(adapter.model_copy(update={"reranker": refused}))
        adapter.reranker = refused
        with pytest.raises(ConfigError, match="must be one of allowed_rerankers"):
            run(adapter)
        with pytest.raises(ConfigError, match="must be one of allowed_rerankers"):
            adapter.warmup()
        assert list(tmp_path.iterdir()) == []

    @both
    def test_error_of_refused_reranker_holds_no_key(self, kind: Any) -> None:
        with pytest.raises(ConfigError) as caught:
            kind(reranker={"use": "http", "api_key": SECRET}, allowed_rerankers=["lexical"])
        assert str(caught.value).split(", got ")[1].startswith("a dict. Name one of them")

    @both
    def test_reranker_in_the_list_is_allowed(self, kind: Any) -> None:
        assert run(kind(reranker="lexical", allowed_rerankers=["lexical"]))[0] == TEXTS[3]

    @both
    def test_names_in_the_file_are_allowed_by_name(
        self, kind: Any, tmp_path: Any, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        (tmp_path / "rerank.toml").write_text(
            '[rerankers.fast]\nuse = "lexical"\n[rerankers.none]\nuse = "passthrough"\n'
        )
        monkeypatch.setenv("RERANK_PLUGINS_CONFIG", str(tmp_path / "rerank.toml"))
        assert run(kind(reranker="fast", allowed_rerankers=["fast"]))[0] == TEXTS[3]
        with pytest.raises(ConfigError, match="got 'none'"):
            kind(reranker="none", allowed_rerankers=["fast"])

    @both
    def test_default_and_ready_reranker_stay_allowed(self, kind: Any, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("RERANK_PLUGINS_RERANKER", "lexical")
        assert run(kind(allowed_rerankers=["passthrough"]))[0] == TEXTS[3]
        adapter = kind(reranker=load_reranker({"use": "lexical", "top_n": 2}), allowed_rerankers=["passthrough"])
        for each in (adapter, copy.deepcopy(adapter), pickle.loads(pickle.dumps(adapter))):
            assert len(run(each)) == 2
            assert each.allowed_rerankers == ["passthrough"]

    @both
    def test_typo_in_the_list_is_refused_at_construction(self, kind: Any) -> None:
        with pytest.raises(ConfigError, match="Did you mean 'lexical'"):
            kind(reranker="lexical", allowed_rerankers=["lexical", "lexicla"])
        with pytest.raises(ValidationError, match="allowed_rerankers"):
            kind(reranker="lexical", allowed_rerankers="lexical")


class TestWarmup:
    @both
    async def test_warmup_and_awarmup_reach_the_scorer(self, kind: Any) -> None:
        warmed: list[str] = []

        class Warmable(LengthBackend):
            async def awarmup(self) -> None:
                warmed.append(self.label)

        reranker = Reranker(Warmable())
        for adapter in (kind(reranker=reranker), kind(reranker=reranker, score_threshold=0.5)):
            adapter.warmup()
            await adapter.awarmup()
        assert len(warmed) == 4


class TestOnResponse:
    @both
    async def test_on_response_is_called_with_each_response(self, kind: Any, server: Any) -> None:
        seen: list[RerankResponse] = []
        adapter = kind(
            reranker={"use": "http", "base_url": server.url, "api_key": server.key}, top_n=1, on_response=seen.append
        )
        run(adapter)
        await arun(adapter)
        assert [(each.usage.requests, len(each), each.model) for each in seen] == [(1, 1, "http")] * 2

    @both
    async def test_exception_of_on_response_reaches_the_caller(self, kind: Any) -> None:
        def refuse(response: RerankResponse) -> None:
            if response.degraded:
                raise RuntimeError("no fallback here")

        adapter = kind(reranker=DEGRADED, on_response=refuse)
        with pytest.raises(RuntimeError, match="no fallback"):
            run(adapter)
        with pytest.raises(RuntimeError, match="no fallback"):
            await arun(adapter)


class TestSecrets:
    @both
    async def test_repr_logs_and_pickles_hold_no_key(
        self, kind: Any, spec: Any, server: Any, caplog: pytest.LogCaptureFixture
    ) -> None:
        caplog.set_level(logging.DEBUG)
        adapter = kind(reranker=spec)
        server.always(Status(429, {"retry-after": "0"}))
        run(adapter)
        await arun(adapter)
        assert server.requests[0].headers["x-api-key"] == SECRET, "the key was sent, so it could leak"
        ready = kind(reranker=load_reranker(spec))
        for each in (adapter, ready, copy.deepcopy(adapter)):
            shown = [repr(each), str(each), f"{each}", str(each.model_dump()), each.model_dump_json()]
            shown += [pickle.dumps(each).decode("latin-1")]
            assert not [text for text in shown if SECRET in text]
            assert "env:TENANT" in repr(each.model_dump()), "the name of a variable is no secret"
        assert SECRET not in caplog.text
        assert "env:TENANT" in repr(adapter)

    @both
    def test_errors_hold_no_key(self, kind: Any, spec: Any, server: Any) -> None:
        server.always(Status(500))
        del spec["fallback"]
        with pytest.raises(TransientError) as caught:
            run(kind(reranker=spec))
        assert SECRET not in f"{caught.value!r} {caught.value}"

    @both
    def test_pickle_reads_its_key_from_the_environment(
        self, kind: Any, server: Any, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setenv("MY_KEY", SECRET)
        adapter = kind(reranker={"use": "http", "base_url": server.url, "api_key": "env:MY_KEY"}, top_n=2)
        stored = pickle.dumps(adapter)
        assert run(pickle.loads(stored)) == run(adapter)
        assert server.refused == []
        monkeypatch.delenv("MY_KEY")
        with pytest.raises(ConfigError, match="MY_KEY"):
            pickle.loads(stored)


def observe(response: RerankResponse) -> None:
    """An `on_response` that can be pickled."""


class TestCopies:
    @both
    @pytest.mark.parametrize("reranker", [None, "lexical", {"use": "lexical", "top_n": 3}])
    def test_pickled_adapter_has_equal_fields(self, kind: Any, reranker: Any, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("RERANK_PLUGINS_RERANKER", "lexical")
        adapter = kind(reranker=reranker, top_n=2, score_threshold=0.1, on_response=observe)
        back = pickle.loads(pickle.dumps(adapter))
        assert type(back) is kind
        for field in ("reranker", "top_n", "instruction", "score_threshold", "on_response"):
            assert getattr(back, field) == getattr(adapter, field)
        assert run(back) == run(adapter)

    @both
    def test_loaded_reranker_is_pickled_as_its_spec(self, kind: Any) -> None:
        back = pickle.loads(pickle.dumps(kind(reranker=load_reranker("lexical", top_n=2))))
        assert back.reranker == {"use": "lexical", "top_n": 2}
        assert run(back)[0] == TEXTS[3]

    @both
    def test_reranker_made_by_hand_is_not_pickled(self, kind: Any) -> None:
        by_hand = kind(reranker=Reranker(LengthBackend()))
        assert run(by_hand)[0] == max(TEXTS, key=len)
        with pytest.raises(ConfigError, match="made by hand"):
            pickle.dumps(by_hand)
        # A client belongs to this process: an unpickled adapter without it would call the public URL.
        with_client = kind(reranker="lexical")
        with_client.reranker = {"use": "lexical", "lexical": {"client": object()}}
        with pytest.raises(ConfigError, match="client"):
            pickle.dumps(with_client)

    @both
    def test_copies_share_the_live_reranker(self, kind: Any, spec: Any, server: Any) -> None:
        for reranker in (spec, Reranker(LengthBackend())):
            adapter = kind(reranker=reranker, top_n=1, on_response=observe)
            for twin in (copy.copy(adapter), copy.deepcopy(adapter), adapter.model_copy(deep=True)):
                assert scorer(twin) is scorer(adapter)
                assert run(twin) == run(adapter)
                assert twin.on_response is observe
        assert server.refused == [], "the copy has the key"

    @both
    def test_mapping_of_the_caller_is_not_changed(self, kind: Any, spec: Any) -> None:
        before = copy.deepcopy(spec)
        adapter = kind(reranker=spec)
        assert spec == before
        spec["fallback"] = []
        assert adapter.reranker["fallback"] != []


class TestSpans:
    @both
    def test_spans_of_a_long_document_are_added_and_enter_no_text(self, kind: Any) -> None:
        text = "Bananas are yellow. " * 60 + "The moon makes the tides. " + "Cars have wheels. " * 60
        adapter = kind(reranker={"use": "lexical", "long_documents": {"mode": "chunk", "tokens": 64}})
        if kind is RerankCompressor:
            long, short = adapter.compress_documents([Document("a car"), Document(text)], "what makes the tides?")
        else:
            nodes = [NodeWithScore(node=TextNode(text=each)) for each in ("a car", text)]
            long, short = (each.node for each in adapter.postprocess_nodes(nodes, query_str="what makes the tides?"))
            assert "rerank_spans" in long.excluded_llm_metadata_keys
            assert "rerank_spans" in long.excluded_embed_metadata_keys
        (span,) = long.metadata["rerank_spans"]
        assert "The moon makes the tides." in text[span["start"] : span["end"]]
        assert span["end"] - span["start"] < len(text) / 4
        assert isinstance(span["score"], float)
        assert "rerank_spans" not in short.metadata

    @pytest.mark.parametrize("blank", ["", "\n  "])
    def test_spans_of_a_node_are_positions_in_its_own_text(self, blank: str) -> None:
        text = blank + "Bananas are yellow. " * 60 + "The moon makes the tides. " + "Cars have wheels. " * 60 + blank
        adapter = RerankPostprocessor(reranker={"use": "lexical", "long_documents": {"mode": "chunk", "tokens": 64}})

        def spans(metadata: dict[str, str]) -> list[dict[str, Any]]:
            nodes = [NodeWithScore(node=TextNode(text=text, metadata=metadata))]
            (reranked,) = adapter.postprocess_nodes(nodes, query_str="what makes the tides?")
            return reranked.node.metadata.get("rerank_spans", [])

        plain, titled = spans({}), spans({"file": "😀 of last year.txt", "topic": "sea and sky"})
        for (span,) in (plain, titled):
            piece = text[span["start"] : span["end"]].strip()
            assert "The moon makes the tides." in piece
            assert (piece[0].isupper(), piece[-1]) == (True, ".")  # whole sentences
            assert len(piece) < len(text) / 4
        # If the best passage is in the metadata, its span is cut to the text of the node.
        for span in spans({"topic": "What makes the tides? The moon makes the tides. " * 3}):
            assert 0 <= span["start"] < span["end"] <= len(text)
