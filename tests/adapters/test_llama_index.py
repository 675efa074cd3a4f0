"""RerankPostprocessor in real query and chat engines: nodes, events and serialisation."""

from __future__ import annotations

import copy
import json
import threading
from collections import deque
from collections.abc import Iterator
from typing import Any

import pytest
from langchain_core.documents import Document as LangChainDocument
from llama_index.core.base.base_retriever import BaseRetriever
from llama_index.core.callbacks import CallbackManager, CBEventType, EventPayload
from llama_index.core.callbacks.base_handler import BaseCallbackHandler
from llama_index.core.chat_engine import ContextChatEngine
from llama_index.core.embeddings import MockEmbedding
from llama_index.core.indices.vector_store import VectorStoreIndex
from llama_index.core.instrumentation import get_dispatcher
from llama_index.core.instrumentation.event_handlers import BaseEventHandler
from llama_index.core.instrumentation.events.rerank import ReRankEndEvent, ReRankStartEvent
from llama_index.core.instrumentation.span import SimpleSpan
from llama_index.core.instrumentation.span_handlers import SimpleSpanHandler
from llama_index.core.llms import MockLLM
from llama_index.core.postprocessor import SimilarityPostprocessor
from llama_index.core.query_engine import RetrieverQueryEngine
from llama_index.core.schema import (
    Document,
    ImageNode,
    IndexNode,
    MediaResource,
    MetadataMode,
    Node,
    NodeRelationship,
    NodeWithScore,
    QueryBundle,
    RelatedNodeInfo,
    TextNode,
)
from support.bees import DEGRADED, QUERY, SECRET, TEXTS

from rerank_plugins import ConfigError, InputError, Reranker, TransientError, load_reranker
from rerank_plugins.core import Capabilities, LocalBackend
from rerank_plugins.llama_index import RerankPostprocessor
from rerank_plugins.testing.script import Status, Step

ADDED_KEYS = (
    "relevance_score",
    "retrieval_rank",
    "retrieval_score",
    "rerank_degraded",
    "rerank_reason",
    "rerank_model",
)


class Chunk(TextNode):
    """A node of the user's own class."""

    page: int = 0


def candidates() -> list[NodeWithScore]:
    return [
        NodeWithScore(
            node=Chunk(
                text=text,
                id_=f"id-{index}",
                page=index,
                metadata={"title": f"T{index}", "path": "x"},
                excluded_embed_metadata_keys=["path"],
                excluded_llm_metadata_keys=["path"],
                relationships={NodeRelationship.SOURCE: RelatedNodeInfo(node_id=f"doc-{index}")},
            ),
            score=0.9 - index / 10,
        )
        for index, text in enumerate(TEXTS)
    ]


def state(nodes: list[NodeWithScore]) -> str:
    return json.dumps([each.to_dict() for each in nodes])


async def both(postprocessor: RerankPostprocessor, nodes: list[NodeWithScore], query: str = QUERY) -> Any:
    """Return the reranked nodes of a sync call, after checking that an async call returns the same."""
    reranked = postprocessor.postprocess_nodes(nodes, query_str=query)
    awaited = await postprocessor.apostprocess_nodes(nodes, query_str=query)
    assert state(reranked) == state(awaited)
    return reranked


class TestNodes:
    async def test_nodes_are_copied_with_metadata_added(self) -> None:
        nodes = candidates()
        before, deep_copy = state(nodes), copy.deepcopy(nodes)
        reranked = await both(RerankPostprocessor(reranker="lexical"), nodes)
        expected = load_reranker("lexical").rerank(QUERY, [f"title: T{i}\n\n{text}" for i, text in enumerate(TEXTS)])
        assert [each.node_id for each in reranked] == [f"id-{result.index}" for result in expected]
        for each, result in zip(reranked, expected, strict=True):
            original = nodes[result.index]
            assert each.score == result.relevance_score
            assert type(each.score) is float
            assert each is not original
            assert each.node is not original.node
            assert type(each.node) is Chunk
            assert (each.node.page, each.node.relationships) == (result.index, original.node.relationships)
            assert each.metadata == {
                "title": f"T{result.index}",
                "path": "x",
                "relevance_score": result.relevance_score,
                "retrieval_rank": result.index,
                "retrieval_score": original.score,
            }
            each.metadata["mine"] = 1
            each.node.excluded_llm_metadata_keys.append("mine")
            each.node.relationships.clear()
        assert state(nodes) == before, "neither the call nor work on its answer changes the input"
        assert nodes == deep_copy

    @pytest.mark.parametrize("reranker", ["lexical", DEGRADED])
    async def test_added_metadata_enters_no_text(self, reranker: Any) -> None:
        nodes = candidates()
        reranked = await both(
            RerankPostprocessor(reranker=reranker), await both(RerankPostprocessor(reranker=reranker), nodes)
        )
        texts = {each.node_id: each.node for each in nodes}
        for each in reranked:
            for mode in (MetadataMode.EMBED, MetadataMode.LLM, MetadataMode.NONE):
                assert each.get_content(mode) == texts[each.node_id].get_content(mode)
            for keys in (each.node.excluded_embed_metadata_keys, each.node.excluded_llm_metadata_keys):
                assert keys[0] == "path"
                assert len(keys) == len(set(keys))
                assert set(keys[1:]) == set(ADDED_KEYS) & set(each.metadata)

    async def test_metadata_mode_selects_the_text_that_is_read(self, server: Any) -> None:
        spec = {"use": "http", "base_url": server.url, "api_key": server.key}
        (node,) = candidates()[:1]
        expected = []
        for mode in MetadataMode:
            RerankPostprocessor(reranker=spec, metadata_mode=mode).postprocess_nodes([node], query_str=QUERY)
            expected.append([node.get_content(mode)])
        RerankPostprocessor(reranker=spec).postprocess_nodes([node], query_str=QUERY)
        expected.append([node.get_content(MetadataMode.EMBED)])
        assert [request.documents for request in server.requests] == expected
        assert len({text for (text,) in expected}) == 3

    async def test_passthrough_keeps_the_scores_of_the_input(self) -> None:
        nodes = [*candidates(), NodeWithScore(node=TextNode(text="no score"))]
        reranked = await both(RerankPostprocessor(reranker="passthrough"), nodes)
        assert [each.score for each in reranked] == [0.9, 0.8, 0.7, 0.6000000000000001, None]
        assert [each.metadata["relevance_score"] for each in reranked] == [None] * 5
        assert "retrieval_score" not in reranked[4].metadata

    async def test_degraded_metadata_is_removed_by_the_next_reranker(self) -> None:
        reranked = await both(RerankPostprocessor(reranker=DEGRADED), candidates())
        for rank, each in enumerate(reranked):
            assert each.metadata["retrieval_rank"] == rank
            assert each.metadata["rerank_degraded"] is True
            assert each.metadata["rerank_model"] == "passthrough"
            assert "127.0.0.1:9" in each.metadata["rerank_reason"]
        for each in await both(RerankPostprocessor(reranker="lexical"), reranked):
            assert not [key for key in each.metadata if key.startswith("rerank_")]

    async def test_all_node_classes_are_reranked(self) -> None:
        nodes = [
            NodeWithScore(node=ImageNode(image_url="http://example.org/x.png"), score=0.9),
            NodeWithScore(node=ImageNode(text="bees", image_url="http://example.org/y.png"), score=0.8),
            NodeWithScore(node=IndexNode(text="honey", index_id="i", obj=TextNode(text="behind it")), score=0.7),
            NodeWithScore(node=Node(text_resource=MediaResource(text="make honey")), score=0.6),
            NodeWithScore(node=Document(text="bees make honey"), score=0.5),
        ]
        reranked = await both(RerankPostprocessor(reranker="lexical"), nodes)
        assert {type(each.node) for each in reranked} == {type(each.node) for each in nodes}
        assert isinstance(reranked[0].node, Document)
        assert reranked[-1].node_id == nodes[0].node_id, "no text: last"
        assert reranked[-1].score is None
        (index_node,) = [each.node for each in reranked if isinstance(each.node, IndexNode)]
        assert index_node.obj.text == "behind it"

    async def test_retrieval_scores_reach_the_scorer_if_all_are_known(self) -> None:
        seen: list[Any] = []

        class Watching(LocalBackend):
            model = "watching"
            capabilities = Capabilities()

            async def ascore(self, request: Any) -> Any:
                seen.append(request.retrieval_scores)
                return await super().ascore(request)

            def score(self, query: str, documents: Any) -> list[float]:
                return [0.5] * len(documents)

        postprocessor = RerankPostprocessor(reranker=Reranker(Watching()))
        nodes = candidates()
        await both(postprocessor, nodes)
        nodes[2].score = None
        await both(postprocessor, nodes)
        assert seen == [tuple(0.9 - index / 10 for index in range(4))] * 2 + [None] * 2

    async def test_wrong_item_is_named_by_its_index(self) -> None:
        for wrong, message in (
            (
                TextNode(text="x"),
                r"Item 1 must be a NodeWithScore, got a value of type TextNode: wrap it, NodeWithScore\(node=…\)",
            ),
            (Document(text="x"), r"got a value of type Document: wrap it, NodeWithScore\(node=…\)"),
            ("x", r"got a string: wrap it, NodeWithScore\(node=TextNode\(text=…\)\)"),
            ({"text": "x"}, "got a mapping: make it NodeWithScore"),
            (LangChainDocument("x"), "use rerank_plugins.langchain.RerankCompressor"),
            (None, "got None: leave it out"),
        ):
            nodes: list[Any] = [*candidates()[:1], wrong]
            with pytest.raises(InputError, match=message):
                RerankPostprocessor(reranker="lexical").postprocess_nodes(nodes, query_str=QUERY)
            with pytest.raises(InputError, match=message):
                await RerankPostprocessor(reranker="lexical")._apostprocess_nodes(nodes, QueryBundle(QUERY))

    @pytest.mark.parametrize(
        ("wrong", "got"),
        [
            (NodeWithScore(node=TextNode(text="x")), r"one NodeWithScore: pass a list, \[item\]"),
            (TextNode(text="x"), r"one TextNode: wrap it, NodeWithScore\(node=…\)"),
            (LangChainDocument("x"), "one Document: use rerank_plugins.langchain.RerankCompressor"),
            ("a text", r"one str: pass a list, such as \[NodeWithScore\(node=TextNode\(text=…\)\)\], or give strings"),
            ({"text": "x"}, "one dict: pass a list"),
            (None, "None: pass a list"),
            (set(), r"a set: a set has no order.* Pass a list, list\(nodes\)"),
        ],
        ids=lambda value: type(value).__name__,
    )
    async def test_argument_that_is_no_list_is_refused(self, wrong: Any, got: str) -> None:
        postprocessor = RerankPostprocessor(reranker="lexical")
        with pytest.raises(InputError, match=f"nodes must be a list of NodeWithScore objects, got {got}"):
            postprocessor.postprocess_nodes(wrong, query_str=QUERY)
        with pytest.raises(InputError, match=f"nodes must be a list of NodeWithScore objects, got {got}"):
            await postprocessor.apostprocess_nodes(wrong, query_str=QUERY)

    @pytest.mark.parametrize(
        "kind",
        [
            lambda items: (each for each in items),
            lambda items: map(copy.copy, items),
            deque,
            tuple,
            lambda items: dict(enumerate(items)).values(),
        ],
        ids=["generator", "map", "deque", "tuple", "dict view"],
    )
    async def test_any_iterable_is_read_once(self, kind: Any, bound_arguments: list[Any]) -> None:
        postprocessor = RerankPostprocessor(reranker="lexical")
        expected = state(postprocessor.postprocess_nodes(candidates(), query_str=QUERY))
        bundle = QueryBundle(QUERY)
        assert state(postprocessor.postprocess_nodes(kind(candidates()), bundle)) == expected
        assert state(await postprocessor.apostprocess_nodes(kind(candidates()), query_str=QUERY)) == expected
        recorded = [each["nodes"] for each in bound_arguments]
        assert [len(list(each)) for each in recorded] == [4] * 3, "instrumentation sees a list, which it may read"
        assert state(postprocessor._postprocess_nodes(kind(candidates()), bundle)) == expected
        assert state(await postprocessor._apostprocess_nodes(kind(candidates()), bundle)) == expected

    async def test_users_own_metadata_stays_and_stays_in_the_text(self) -> None:
        node = TextNode(text="bees", metadata={"retrieval_score": "0.83", "rerank_model": "my own"})
        postprocessor = RerankPostprocessor(reranker="lexical")
        (reranked,) = await both(postprocessor, [NodeWithScore(node=node)])
        assert reranked.metadata["retrieval_score"] == "0.83"
        assert reranked.metadata["rerank_model"] == "my own"
        assert reranked.get_content(MetadataMode.LLM) == node.get_content(MetadataMode.LLM)

    async def test_missing_or_blank_query_is_refused(self) -> None:
        postprocessor = RerankPostprocessor(reranker="lexical")
        for bundle in (None, QueryBundle(""), QueryBundle(" ")):
            with pytest.raises(InputError, match="needs a query: pass query_str"):
                postprocessor.postprocess_nodes(candidates(), bundle)
            with pytest.raises(InputError, match="needs a query: pass query_str"):
                await postprocessor.apostprocess_nodes(candidates(), bundle)

    async def test_async_call_starts_no_thread(self, server: Any) -> None:
        postprocessor = RerankPostprocessor(reranker={"use": "http", "base_url": server.url, "api_key": server.key})
        seen: set[str] = set()

        def record_threads(received: Any) -> bool:
            seen.update(thread.name for thread in threading.enumerate())
            return True

        server.play(Step(), when=record_threads)
        await postprocessor.apostprocess_nodes(candidates(), query_str=QUERY)
        assert seen
        assert not [name for name in seen if name.startswith("asyncio_")], "the loop's default executor got work"


class Events(BaseEventHandler):
    """Records the events of reranking."""

    seen: list[Any] = []  # noqa: RUF012 (pydantic copies it)

    @classmethod
    def class_name(cls) -> str:
        return "Events"

    def handle(self, event: Any, **kwargs: Any) -> None:
        if isinstance(event, ReRankStartEvent | ReRankEndEvent):
            self.seen.append(event)


class Spans(SimpleSpanHandler):
    """Records the names of finished spans."""

    names: list[str] = []  # noqa: RUF012 (pydantic copies it)

    def prepare_to_exit_span(self, id_: str, *args: Any, **kwargs: Any) -> SimpleSpan | None:
        self.names.append(id_.rpartition("-")[0].split("-")[0])
        return super().prepare_to_exit_span(id_, *args, **kwargs)


class Legacy(BaseCallbackHandler):
    """Records the legacy callback events."""

    def __init__(self) -> None:
        super().__init__([], [])
        self.events: list[tuple[str, CBEventType, Any]] = []

    def on_event_start(self, event_type: Any, payload: Any = None, event_id: str = "", **kwargs: Any) -> str:
        self.events.append(("start", event_type, payload))
        return event_id

    def on_event_end(self, event_type: Any, payload: Any = None, event_id: str = "", **kwargs: Any) -> None:
        self.events.append(("end", event_type, payload))

    def start_trace(self, trace_id: str | None = None) -> None: ...

    def end_trace(self, trace_id: str | None = None, trace_map: Any = None) -> None: ...


class Arguments(SimpleSpanHandler):
    """Records the arguments with which spans were opened."""

    seen: list[Any] = []  # noqa: RUF012 (pydantic copies it)

    def new_span(self, id_: str, bound_args: Any, *args: Any, **kwargs: Any) -> SimpleSpan | None:
        self.seen.append(dict(bound_args.arguments))
        return super().new_span(id_, bound_args, *args, **kwargs)


@pytest.fixture
def bound_arguments() -> Iterator[list[Any]]:
    root = get_dispatcher()
    recorder = Arguments()
    recorder.seen = []
    root.span_handlers.append(recorder)
    yield recorder.seen
    root.span_handlers.remove(recorder)


@pytest.fixture
def events() -> Iterator[list[Any]]:
    root = get_dispatcher()
    recorder = Events(seen=[])
    root.event_handlers.append(recorder)
    yield recorder.seen
    root.event_handlers.remove(recorder)


@pytest.fixture
def spans() -> Iterator[list[str]]:
    root = get_dispatcher()
    recorder = Spans()
    recorder.names = []
    root.span_handlers.append(recorder)
    yield recorder.names
    root.span_handlers.remove(recorder)


class TestEvents:
    async def test_each_call_sends_a_start_and_an_end_event(self, events: list[Any]) -> None:
        reranked = await both(RerankPostprocessor(reranker="lexical", top_n=2), candidates())
        assert [type(each) for each in events] == [ReRankStartEvent, ReRankEndEvent] * 2
        start, end = events[:2]
        assert (start.query, start.top_n, start.model_name, len(start.nodes)) == (QUERY, 2, "lexical", 4)
        assert state(end.nodes) == state(reranked)

    async def test_end_event_has_the_model_and_the_usage(self, events: list[Any], spec: Any) -> None:
        legacy = Legacy()
        postprocessor = RerankPostprocessor(
            reranker={**spec, "base_url": "http://127.0.0.1:9"}, callback_manager=CallbackManager([legacy])
        )
        await both(postprocessor, candidates())
        expected = {"rerank_model": "passthrough", "rerank_degraded": True, "rerank_usage": {"requests": 2}}
        for end in events[1::2]:
            assert end.tags == {"reranker": postprocessor._live_reranker().scorer.label, **expected}
            assert SECRET not in repr(end.tags)
        assert [payload[EventPayload.ADDITIONAL_KWARGS] for when, _, payload in legacy.events if when == "end"] == [
            expected
        ] * 2

    @pytest.mark.parametrize(
        ("reranker", "top_n"), [("lexical", 4), ({"use": "lexical", "top_n": 3}, 3)], ids=["all", "the spec's"]
    )
    async def test_start_event_has_a_number_as_top_n(self, events: list[Any], reranker: Any, top_n: int) -> None:
        await both(RerankPostprocessor(reranker=reranker), candidates())
        assert events[0].top_n == top_n

    async def test_events_are_sent_in_pairs_without_nodes(self, events: list[Any], server: Any) -> None:
        spec = {"use": "http", "base_url": server.url, "api_key": server.key}
        assert await both(RerankPostprocessor(reranker=spec), []) == []
        assert [type(each) for each in events] == [ReRankStartEvent, ReRankEndEvent] * 2
        assert server.requests == []

    async def test_events_are_sent_in_pairs_if_the_backend_fails(self, events: list[Any], server: Any) -> None:
        server.always(Status(500))
        legacy = Legacy()
        postprocessor = RerankPostprocessor(
            reranker={"use": "http", "base_url": server.url, "api_key": server.key, "retry": 1},
            callback_manager=CallbackManager([legacy]),
        )
        with pytest.raises(TransientError):
            postprocessor.postprocess_nodes(candidates(), query_str=QUERY)
        with pytest.raises(TransientError):
            await postprocessor.apostprocess_nodes(candidates(), query_str=QUERY)
        assert [type(each) for each in events] == [ReRankStartEvent, ReRankEndEvent] * 2
        assert events[1].nodes == []
        assert [when for when, *_ in legacy.events] == ["start", "end"] * 2
        assert isinstance(legacy.events[1][2][EventPayload.EXCEPTION], TransientError)

    async def test_no_event_is_sent_for_a_refused_call(self, events: list[Any]) -> None:
        with pytest.raises(InputError):
            RerankPostprocessor(reranker="lexical").postprocess_nodes(candidates())
        assert events == []

    async def test_legacy_callback_manager_gets_both_events(self) -> None:
        legacy = Legacy()
        postprocessor = RerankPostprocessor(reranker="lexical", top_n=1)
        postprocessor.callback_manager = CallbackManager([legacy])
        (reranked,) = await both(postprocessor, candidates())
        assert [(when, kind) for when, kind, _ in legacy.events] == [
            ("start", CBEventType.RERANKING),
            ("end", CBEventType.RERANKING),
        ] * 2
        start, end = legacy.events[0][2], legacy.events[1][2]
        assert (start[EventPayload.QUERY_STR], start[EventPayload.TOP_K]) == (QUERY, 1)
        assert start[EventPayload.MODEL_NAME] == "lexical"
        assert [each.node_id for each in end[EventPayload.NODES]] == [reranked.node_id]

    async def test_sync_and_async_calls_open_one_span_each(self, spans: list[str]) -> None:
        await both(RerankPostprocessor(reranker="lexical"), candidates())
        assert spans == ["RerankPostprocessor._postprocess_nodes", "RerankPostprocessor._apostprocess_nodes"]


class Fixed(BaseRetriever):
    """Returns the same candidates for every query."""

    def _retrieve(self, query_bundle: QueryBundle) -> list[NodeWithScore]:
        return candidates()


class TestEngines:
    async def test_query_engine_reranks_its_nodes(self, events: list[Any]) -> None:
        engine = RetrieverQueryEngine.from_args(
            Fixed(),
            llm=MockLLM(),
            node_postprocessors=[RerankPostprocessor(reranker="lexical", top_n=2)],
        )
        for response in (engine.query(QUERY), await engine.aquery(QUERY)):
            assert response.source_nodes[0].node_id == "id-3"
            assert len(response.source_nodes) == 2
            assert TEXTS[3] in str(response), "the mock LLM answers with its prompt"
            assert "relevance_score" not in str(response)
        assert len(events) == 4

    async def test_default_engine_of_an_index_reranks(self) -> None:
        index = VectorStoreIndex.from_documents(
            [Document(text=text, id_=f"doc-{position}") for position, text in enumerate(TEXTS)],
            embed_model=MockEmbedding(embed_dim=4),
        )
        engine = index.as_query_engine(
            llm=MockLLM(),
            similarity_top_k=4,
            node_postprocessors=[
                RerankPostprocessor(reranker="lexical", top_n=3),
                SimilarityPostprocessor(similarity_cutoff=0.01),
            ],
        )
        (first, *_) = (await engine.aquery(QUERY)).source_nodes
        assert first.get_content() == TEXTS[3]
        assert first.node.ref_doc_id == "doc-3"

    async def test_chat_engine_reranks_its_nodes(self) -> None:
        engine = ContextChatEngine.from_defaults(
            retriever=Fixed(), llm=MockLLM(), node_postprocessors=[RerankPostprocessor(reranker="lexical", top_n=1)]
        )
        for response in (engine.chat(QUERY), await engine.achat(QUERY)):
            assert [each.node_id for each in response.source_nodes] == ["id-3"]


class TestSerialisation:
    @pytest.mark.parametrize(
        "fields",
        [
            {"reranker": "lexical"},
            {"reranker": {"use": "lexical", "top_n": 3}, "top_n": 2, "score_threshold": 0.1, "metadata_mode": "none"},
            {"reranker": DEGRADED, "top_n": 3},
        ],
    )
    async def test_to_dict_and_from_dict_round_trip(self, fields: dict[str, Any]) -> None:
        postprocessor = RerankPostprocessor(**fields)
        expected = state(await both(postprocessor, candidates()))
        for back in (
            RerankPostprocessor.from_dict(postprocessor.to_dict()),
            RerankPostprocessor.from_json(postprocessor.to_json()),
        ):
            assert back.to_dict() == postprocessor.to_dict()
            assert state(await both(back, candidates())) == expected
        assert postprocessor.to_dict()["class_name"] == "RerankPostprocessor" == RerankPostprocessor.class_name()

    async def test_serialised_form_holds_no_key(self, spec: dict[str, Any]) -> None:
        for reranker in (spec, load_reranker(spec)):
            postprocessor = RerankPostprocessor(reranker=reranker)
            for stored in (json.dumps(postprocessor.to_dict()), postprocessor.to_json(), str(postprocessor.dict())):
                assert SECRET not in stored
                assert "env:TENANT" in stored
            assert RerankPostprocessor.from_dict(postprocessor.to_dict()).reranker["use"] == "http"

    async def test_loaded_reranker_is_serialised_as_its_spec(self) -> None:
        stored = RerankPostprocessor(reranker=load_reranker("lexical", top_n=2)).to_dict()
        assert stored["reranker"] == {"use": "lexical", "top_n": 2}

    async def test_reranker_made_by_hand_is_not_serialised(self) -> None:
        class Own(LocalBackend):
            model = "own"

            def score(self, query: str, documents: Any) -> list[float]:
                return [0.5] * len(documents)

        postprocessor = RerankPostprocessor(reranker=Reranker(Own()))
        with pytest.raises(ConfigError, match="made by hand"):
            postprocessor.to_dict()
        with pytest.raises(ConfigError, match="made by hand"):
            postprocessor.to_json()
