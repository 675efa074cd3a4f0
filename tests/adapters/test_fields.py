"""What both adapters promise of their fields: errors, sharing, secrets, copies, pickles."""

from __future__ import annotations

import copy
import logging
import pickle
from typing import Any

import pytest
from bees import DEGRADED, QUERY, SECRET, TEXTS
from langchain_core.documents import Document
from llama_index.core.schema import NodeWithScore, TextNode
from pydantic import ValidationError

from rerank_plugins import ConfigError, InputError, Reranker, RerankResponse, TransientError, load_reranker
from rerank_plugins.core import Capabilities, LocalBackend
from rerank_plugins.langchain import RerankCompressor
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
            ({"reranker": "lexical", "score_threshold": 1.5}, ConfigError, "from 0 to 1"),
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
    def test_an_unknown_field_is_refused_and_its_value_not_shown(self, kind: Any) -> None:
        with pytest.raises(ValidationError, match="api_key") as caught:
            kind(reranker="lexical", api_key=SECRET)
        assert SECRET not in str(caught.value)

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

    @both
    def test_a_schema_can_be_made(self, kind: Any) -> None:
        assert {"reranker", "top_n", "instruction", "score_threshold"} <= set(kind.model_json_schema()["properties"])


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
