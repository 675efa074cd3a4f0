"""What both adapters promise of their fields: errors, sharing, secrets, copies, pickles."""

from __future__ import annotations

import copy
import inspect
import json
import logging
import pickle
import pydoc
from pathlib import Path
from typing import Any

import pytest
from bees import DEGRADED, QUERY, SECRET, TEXTS
from langchain_core.documents import Document
from langchain_core.runnables import RunnableLambda
from llama_index.core.schema import NodeWithScore, TextNode
from pydantic import ValidationError

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
        found = await adapter.acompress_documents([Document(text) for text in texts], query)
        return [each.page_content for each in found]
    nodes = [NodeWithScore(node=TextNode(text=text)) for text in texts]
    return [each.node.get_content() for each in await adapter.apostprocess_nodes(nodes, query_str=query)]


def scorer(adapter: Any) -> Any:
    return adapter._resolved().scorer


class Lengths(LocalBackend):
    """Longer is better; by hand, so that no spec describes it."""

    model = "lengths"
    capabilities = Capabilities(scale="unit")

    def score(self, query: str, documents: Any) -> list[float]:
        return [len(document) / 1000 for document in documents]


class TestConstruction:
    @both
    @pytest.mark.parametrize(
        ("fields", "error", "told"),
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
    def test_a_wrong_value_is_our_own_error_at_once(self, kind: Any, fields: Any, error: Any, told: str) -> None:
        with pytest.raises(error, match=told):
            kind(**fields)

    @both
    def test_a_missing_key_is_told_at_once(self, kind: Any) -> None:
        with pytest.raises(ConfigError, match="NOT_SET is not set"):
            kind(reranker={"use": "http", "base_url": "http://127.0.0.1:9", "api_key": "env:NOT_SET"})

    @both
    @pytest.mark.parametrize(
        ("field", "told"),
        [
            ("model", "name the model in the spec, reranker='BACKEND:MODEL'"),
            ("model_name", "name the model in the spec, reranker='BACKEND:MODEL'"),
            ("top_k", "how many come back is top_n"),
            ("threshold", "the least relevance is score_threshold"),
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
    def test_an_unknown_field_is_refused_with_the_right_name_and_its_value_not_shown(
        self, kind: Any, field: str, told: str
    ) -> None:
        with pytest.raises(ConfigError, match=f"There is no field of {kind.__name__} {field!r}") as caught:
            kind(reranker="lexical", **{field: SECRET})
        assert told in str(caught.value)
        assert SECRET not in str(caught.value)

    def test_a_retriever_belongs_elsewhere(self) -> None:
        retriever = RunnableLambda(lambda query: [])
        with pytest.raises(
            ConfigError, match=r"'base_retriever': a compressor holds no retriever. Use RerankRetriever\("
        ):
            RerankCompressor(base_retriever=retriever)  # type: ignore[call-arg]
        with pytest.raises(ConfigError, match="'fetch_k': a compressor holds no retriever"):
            RerankCompressor(fetch_k=50)  # type: ignore[call-arg]
        with pytest.raises(ConfigError, match="'base_retriever': it is called retriever here"):
            RerankRetriever(base_retriever=retriever)  # type: ignore[call-arg]
        with pytest.raises(ConfigError, match="'base_compressor': it is called reranker here"):
            RerankRetriever(retriever=retriever, base_compressor="lexical")  # type: ignore[call-arg]
        with pytest.raises(
            ConfigError, match=r"'top_k': how many come back is top_n, .* candidates are asked for is fetch_k"
        ):
            RerankRetriever(retriever=retriever, top_k=5)  # type: ignore[call-arg]
        with pytest.raises(ConfigError, match="'base_retriever': a postprocessor holds no retriever"):
            RerankPostprocessor(base_retriever=retriever)

    @both
    def test_a_coroutine_function_cannot_observe(self, kind: Any) -> None:
        async def observe(response: RerankResponse) -> None: ...

        with pytest.raises(ConfigError, match="plain function"):
            kind(reranker="lexical", on_response=observe)

    @both
    def test_thresholds_over_stand_ins_of_another_scale_are_refused(self, kind: Any) -> None:
        stand_in = {"use": "http", "base_url": "http://127.0.0.1:9", "http": {"scale": "logit"}}
        mixed = {"use": "lexical", "fallback": [stand_in]}
        for reranker in (mixed, load_reranker(mixed)):
            with pytest.raises(ConfigError, match="different things"):
                kind(reranker=reranker, score_threshold=0.5)

    @both
    def test_the_environment_names_the_default(self, kind: Any, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("RERANK_PLUGINS_RERANKER", "lexical")
        assert run(kind(top_n=1)) == [TEXTS[3]]

    @pytest.mark.parametrize("kind", [*ADAPTERS, RerankRetriever])
    def test_each_field_is_described_in_the_schema_and_in_the_help(self, kind: Any) -> None:
        properties = kind.model_json_schema()["properties"]
        ours = {"reranker", "config", "top_n", "instruction", "score_threshold", "allowed_rerankers"}
        ours |= {"retriever", "fetch_k"} if kind is RerankRetriever else set()
        ours |= {"metadata_mode"} if kind is RerankPostprocessor else set()
        for name in ours:
            assert len(properties[name]["description"]) > 20, name
        assert properties["reranker"]["anyOf"] == [{"type": "string"}, {"type": "object"}, {"type": "null"}]
        assert properties["reranker"]["default"] is None
        shown = pydoc.plain(pydoc.render_doc(kind))
        arguments = shown.split("Args:")[1].split("Raises:")[0]
        for name in (*ours, "on_response"):
            assert f"{name}: " in arguments
        assert set(inspect.signature(kind).parameters) >= {*ours, "on_response"}


class TestCalls:
    @both
    async def test_sync_and_async_agree(self, kind: Any) -> None:
        adapter = kind(reranker="lexical")
        assert run(adapter) == await arun(adapter)
        assert run(adapter)[0] == TEXTS[3]
        assert sorted(run(adapter)) == sorted(TEXTS)

    @both
    def test_a_ready_reranker_is_used_as_it_is(self, kind: Any) -> None:
        reranker = load_reranker("lexical", top_n=2)
        assert scorer(kind(reranker=reranker)) is reranker.scorer
        assert len(run(kind(reranker=reranker))) == 2
        assert len(run(kind(reranker=reranker, top_n=3))) == 3
        assert len(run(kind(reranker=reranker, top_n=30))) == 4

    @both
    def test_the_same_spec_is_one_live_reranker_whatever_the_rest(self, kind: Any, spec: Any) -> None:
        first = kind(reranker=spec)
        second = kind(reranker=copy.deepcopy(spec), top_n=1, score_threshold=0.2)
        assert scorer(first) is scorer(second)

    @both
    @pytest.mark.parametrize("ready", [False, True])
    async def test_the_threshold_compares_relevance_with_at_least(self, kind: Any, ready: bool) -> None:
        scores = [result.relevance_score for result in load_reranker("lexical").rerank(QUERY, TEXTS)]
        adapter = kind(reranker=load_reranker("lexical") if ready else "lexical", score_threshold=scores[1])
        expected = sum(score >= scores[1] for score in scores)
        assert len(run(adapter)) == len(await arun(adapter)) == expected < len(TEXTS)

    @both
    def test_a_threshold_makes_no_other_reranker_and_is_checked_when_assigned(self, kind: Any) -> None:
        reranker = load_reranker("lexical", score_threshold=1.0)
        adapter = kind(reranker=reranker, score_threshold=0.0)
        assert len(run(adapter)) == len(TEXTS)
        resolved = (adapter if hasattr(adapter, "_resolved") else adapter._adapter)._resolved
        assert resolved() is reranker
        if hasattr(adapter, "score_threshold"):
            adapter.score_threshold = 1.5
            with pytest.raises(ConfigError, match="from 0 to 1"):
                run(adapter)

    @both
    def test_a_degraded_answer_is_not_cut_by_the_threshold(self, kind: Any) -> None:
        assert run(kind(reranker=DEGRADED, score_threshold=0.9)) == TEXTS

    @both
    def test_instructions(self, kind: Any, server: Any) -> None:
        with pytest.raises(InputError, match="cannot follow an instruction"):
            run(kind(reranker="lexical", instruction="prefer the newest"))
        follows = {"use": "http", "base_url": server.url, "api_key": server.key}
        follows["http"] = {"instruction_field": "instruction"}
        run(kind(reranker=follows, instruction="prefer the newest"))
        assert [request.body["instruction"] for request in server.requests] == ["prefer the newest"]
        assert server.refused == []

    @both
    async def test_fields_may_be_assigned_and_copied_with_others(self, kind: Any) -> None:
        adapter = kind(reranker="passthrough")
        adapter.top_n = 2
        assert run(adapter) == TEXTS[:2]
        adapter.reranker = "lexical"
        assert run(adapter)[0] == TEXTS[3]
        assert run(adapter.model_copy(update={"reranker": "passthrough"})) == TEXTS[:2]

    @both
    async def test_errors_of_the_backend_come_through(self, kind: Any, server: Any) -> None:
        server.always(Status(500))
        adapter = kind(reranker={"use": "http", "base_url": server.url, "api_key": server.key, "retry": 1})
        with pytest.raises(TransientError, match="500"):
            run(adapter)
        with pytest.raises(TransientError, match="500"):
            await arun(adapter)

    @both
    async def test_a_blank_query_is_an_input_error(self, kind: Any) -> None:
        for query in ("", "  \n"):
            with pytest.raises(InputError):
                run(kind(reranker="lexical"), query)
            with pytest.raises(InputError):
                await arun(kind(reranker="lexical"), query)


@pytest.fixture
def config(tmp_path: Path) -> Path:
    """A file whose `production` keeps the order given until its stand-in's name is looked up in the same file."""
    file = tmp_path / "rerank.toml"
    file.write_text(
        '[rerankers.default]\nuse = "lexical"\ntop_n = 1\n[rerankers.production]\nuse = "lexical"\nfallback = ["spare"]\n'
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
    def test_it_wins_over_the_environment(self, kind: Any, config: Path, tmp_path: Path, monkeypatch: Any) -> None:
        other = tmp_path / "other.toml"
        other.write_text('[rerankers.production]\nuse = "passthrough"\n')
        monkeypatch.setenv("RERANK_PLUGINS_CONFIG", str(other))
        assert run(kind(reranker="production")) == TEXTS
        assert run(kind(reranker="production", config=config))[0] == TEXTS[3]

    @both
    def test_copies_and_pickles_look_there_too(self, kind: Any, config: Path) -> None:
        adapter = kind(reranker="production", config=config, top_n=2)
        for each in (pickle.loads(pickle.dumps(adapter)), copy.deepcopy(adapter), adapter.model_copy()):
            assert (each.reranker, each.config) == ("production", str(config))
            assert run(each) == run(adapter)
        json.dumps(adapter.model_dump())

    @both
    def test_another_file_may_be_assigned(self, kind: Any, config: Path, tmp_path: Path) -> None:
        other = tmp_path / "other.toml"
        other.write_text('[rerankers.production]\nuse = "passthrough"\n')
        adapter = kind(reranker="production", config=config)
        adapter.config = str(other)
        assert run(adapter) == TEXTS

    @both
    def test_what_is_allowed_is_looked_up_there_too(self, kind: Any, config: Path) -> None:
        assert run(kind(reranker="production", config=config, allowed_rerankers=["production"]))[0] == TEXTS[3]
        with pytest.raises(ConfigError, match="must be one of allowed_rerankers"):
            kind(reranker="spare", config=config, allowed_rerankers=["production"])

    @both
    @pytest.mark.parametrize("wrong", [5, b"rerank.toml", ["rerank.toml"]], ids=repr)
    def test_a_path_is_text(self, kind: Any, wrong: Any) -> None:
        with pytest.raises(ValueError, match="config"):
            kind(reranker="lexical", config=wrong)

    @both
    def test_wrong_names_and_files_are_told_at_once(self, kind: Any, config: Path, tmp_path: Path) -> None:
        with pytest.raises(ConfigError, match="Did you mean 'production'"):
            kind(reranker="producton", config=config)
        with pytest.raises(ConfigError, match="cannot be read"):
            kind(reranker="production", config=tmp_path / "missing.toml")
        with pytest.raises(ConfigError, match=r"a ready Reranker has none\. Leave it out"):
            kind(reranker=load_reranker("lexical"), config=config)


class TestAllowedRerankers:
    MAPPINGS = (
        {"use": "lexical"},
        {"use": "http", "base_url": "http://127.0.0.1:9", "api_key": "env:HOME"},
        {"use": "lexical", "cache": {"kind": "disk", "path": "made-by-a-request.sqlite"}},
    )

    @both
    @pytest.mark.parametrize("refused", [*MAPPINGS, "passthrough", "lexical:x", " lexical", 5, ["lexical"]], ids=repr)
    def test_what_is_not_in_the_list_is_refused(self, kind: Any, refused: Any, tmp_path: Any, monkeypatch: Any) -> None:
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
    def test_the_error_shows_no_key(self, kind: Any) -> None:
        with pytest.raises(ConfigError) as caught:
            kind(reranker={"use": "http", "api_key": SECRET}, allowed_rerankers=["lexical"])
        assert str(caught.value).split(", got ")[1].startswith("a dict. Name one of them")

    @both
    def test_what_is_in_the_list_answers(self, kind: Any) -> None:
        assert run(kind(reranker="lexical", allowed_rerankers=["lexical"]))[0] == TEXTS[3]

    @both
    def test_names_of_the_configuration_file_are_allowed_by_name(
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
    def test_the_programs_own_default_and_a_ready_reranker_stay_possible(
        self, kind: Any, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setenv("RERANK_PLUGINS_RERANKER", "lexical")
        assert run(kind(allowed_rerankers=["passthrough"]))[0] == TEXTS[3]
        adapter = kind(reranker=load_reranker({"use": "lexical", "top_n": 2}), allowed_rerankers=["passthrough"])
        for each in (adapter, copy.deepcopy(adapter), pickle.loads(pickle.dumps(adapter))):
            assert len(run(each)) == 2
            assert each.allowed_rerankers == ["passthrough"]

    @both
    def test_a_typo_in_the_list_is_an_error_at_once(self, kind: Any) -> None:
        with pytest.raises(ConfigError, match="Did you mean 'lexical'"):
            kind(reranker="lexical", allowed_rerankers=["lexical", "lexicla"])
        with pytest.raises(ValidationError, match="allowed_rerankers"):
            kind(reranker="lexical", allowed_rerankers="lexical")


class TestWarmup:
    @both
    async def test_it_reaches_the_scorer_sync_and_async(self, kind: Any) -> None:
        warmed: list[str] = []

        class Warmable(Lengths):
            async def awarmup(self) -> None:
                warmed.append(self.label)

        reranker = Reranker(Warmable())
        for adapter in (kind(reranker=reranker), kind(reranker=reranker, score_threshold=0.5)):
            adapter.warmup()
            await adapter.awarmup()
        assert len(warmed) == 4


class TestOnResponse:
    @both
    async def test_it_sees_each_answer(self, kind: Any, server: Any) -> None:
        seen: list[RerankResponse] = []
        adapter = kind(
            reranker={"use": "http", "base_url": server.url, "api_key": server.key}, top_n=1, on_response=seen.append
        )
        run(adapter)
        await arun(adapter)
        assert [(each.usage.requests, len(each), each.model) for each in seen] == [(1, 1, "http")] * 2

    @both
    async def test_what_it_raises_reaches_the_caller(self, kind: Any) -> None:
        def refuse(response: RerankResponse) -> None:
            if response.degraded:
                raise RuntimeError("no stand-ins here")

        adapter = kind(reranker=DEGRADED, on_response=refuse)
        with pytest.raises(RuntimeError, match="no stand-ins"):
            run(adapter)
        with pytest.raises(RuntimeError, match="no stand-ins"):
            await arun(adapter)


class TestSecrets:
    @both
    async def test_no_key_in_anything_that_shows_or_stores(
        self, kind: Any, spec: Any, server: Any, caplog: pytest.LogCaptureFixture
    ) -> None:
        caplog.set_level(logging.DEBUG)
        adapter = kind(reranker=spec)
        server.always(Status(429, {"retry-after": "0"}))
        run(adapter)
        await arun(adapter)
        assert server.requests[0].headers["x-api-key"] == SECRET, "the key was sent, so it is there to leak"
        ready = kind(reranker=load_reranker(spec))
        for each in (adapter, ready, copy.deepcopy(adapter)):
            shown = [repr(each), str(each), f"{each}", str(each.model_dump()), each.model_dump_json()]
            shown += [pickle.dumps(each).decode("latin-1")]
            assert not [text for text in shown if SECRET in text]
            assert "env:TENANT" in repr(each.model_dump()), "the name of a variable is no secret"
        assert SECRET not in caplog.text
        assert "env:TENANT" in repr(adapter)

    @both
    def test_no_key_in_errors(self, kind: Any, spec: Any, server: Any) -> None:
        server.always(Status(500))
        del spec["fallback"]
        with pytest.raises(TransientError) as caught:
            run(kind(reranker=spec))
        assert SECRET not in f"{caught.value!r} {caught.value}"

    @both
    def test_a_pickle_finds_its_key_in_the_environment(
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
    """Something that pickles."""


class TestCopies:
    @both
    @pytest.mark.parametrize("reranker", [None, "lexical", {"use": "lexical", "top_n": 3}])
    def test_pickles_come_back_equal(self, kind: Any, reranker: Any, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("RERANK_PLUGINS_RERANKER", "lexical")
        adapter = kind(reranker=reranker, top_n=2, score_threshold=0.1, on_response=observe)
        back = pickle.loads(pickle.dumps(adapter))
        assert type(back) is kind
        for field in ("reranker", "top_n", "instruction", "score_threshold", "on_response"):
            assert getattr(back, field) == getattr(adapter, field)
        assert run(back) == run(adapter)

    @both
    def test_a_loaded_reranker_pickles_as_its_spec(self, kind: Any) -> None:
        back = pickle.loads(pickle.dumps(kind(reranker=load_reranker("lexical", top_n=2))))
        assert back.reranker == {"use": "lexical", "top_n": 2}
        assert run(back)[0] == TEXTS[3]

    @both
    def test_what_no_spec_describes_is_not_pickled_as_something_else(self, kind: Any) -> None:
        by_hand = kind(reranker=Reranker(Lengths()))
        assert run(by_hand)[0] == max(TEXTS, key=len)
        with pytest.raises(ConfigError, match="made by hand"):
            pickle.dumps(by_hand)
        # A client is an object of this process: what is read back would quietly ask the public address.
        with_client = kind(reranker="lexical")
        with_client.reranker = {"use": "lexical", "lexical": {"client": object()}}
        with pytest.raises(ConfigError, match="client"):
            pickle.dumps(with_client)

    @both
    def test_copies_within_the_process_share_the_live_reranker(self, kind: Any, spec: Any, server: Any) -> None:
        for reranker in (spec, Reranker(Lengths())):
            adapter = kind(reranker=reranker, top_n=1, on_response=observe)
            for twin in (copy.copy(adapter), copy.deepcopy(adapter), adapter.model_copy(deep=True)):
                assert scorer(twin) is scorer(adapter)
                assert run(twin) == run(adapter)
                assert twin.on_response is observe
        assert server.refused == [], "the copy has the key"

    @both
    def test_the_callers_mapping_is_left_alone(self, kind: Any, spec: Any) -> None:
        before = copy.deepcopy(spec)
        adapter = kind(reranker=spec)
        assert spec == before
        spec["fallback"] = []
        assert adapter.reranker["fallback"] != []


class TestSpans:
    @both
    def test_the_best_passage_of_a_long_document_is_noted_and_enters_no_text(self, kind: Any) -> None:
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
    def test_the_passage_of_a_node_is_of_its_own_text_whatever_metadata_stands_before_it(self, blank: str) -> None:
        text = blank + "Bananas are yellow. " * 60 + "The moon makes the tides. " + "Cars have wheels. " * 60 + blank
        adapter = RerankPostprocessor(reranker={"use": "lexical", "long_documents": {"mode": "chunk", "tokens": 64}})

        def spans(metadata: dict[str, str]) -> list[dict[str, Any]]:
            nodes = [NodeWithScore(node=TextNode(text=text, metadata=metadata))]
            (found,) = adapter.postprocess_nodes(nodes, query_str="what makes the tides?")
            return found.node.metadata.get("rerank_spans", [])

        plain, titled = spans({}), spans({"file": "😀 of last year.txt", "topic": "sea and sky"})
        for (span,) in (plain, titled):
            piece = text[span["start"] : span["end"]].strip()
            assert "The moon makes the tides." in piece
            assert (piece[0].isupper(), piece[-1]) == (True, ".")  # whole sentences
            assert len(piece) < len(text) / 4
        # Where the best piece is the metadata's, what of it is the node's text is left.
        for span in spans({"topic": "What makes the tides? The moon makes the tides. " * 3}):
            assert 0 <= span["start"] < span["end"] <= len(text)
