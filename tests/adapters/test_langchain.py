"""RerankCompressor alone, in a ContextualCompressionRetriever, in a pipeline and in a chain."""

from __future__ import annotations

import copy
import json
import threading
from collections import deque
from inspect import signature
from typing import Any

import pytest
from langchain_classic.retrievers import ContextualCompressionRetriever
from langchain_classic.retrievers.document_compressors import DocumentCompressorPipeline
from langchain_core.documents import Document
from langchain_core.load import dumpd, dumps, load, loads
from langchain_core.retrievers import BaseRetriever
from langchain_core.runnables import RunnableLambda, RunnablePassthrough
from llama_index.core.schema import NodeWithScore, TextNode
from support import pages
from support.bees import DEGRADED, QUERY, SECRET, TEXTS

from rerank_plugins import ConfigError, InputError, Reranker, load_reranker
from rerank_plugins.core import LocalBackend
from rerank_plugins.langchain import RerankCompressor
from rerank_plugins.testing.script import Step

ITERABLES: dict[str, Any] = {
    "generator": lambda items: (each for each in items),
    "map": lambda items: map(copy.copy, items),
    "deque": deque,
    "tuple": tuple,
    "dict view": lambda items: dict(enumerate(items)).values(),
}


class Chunk(Document):
    """A document of the user's own class."""

    page: int = 0


def passages(**metadata: Any) -> list[Document]:
    return [
        Chunk(text, id=f"id-{index}", page=index, metadata={"nested": {"at": index}, **metadata})
        for index, text in enumerate(TEXTS)
    ]


class Fixed(BaseRetriever):
    """Returns the same documents for every query."""

    documents: list[Document]

    def _get_relevant_documents(self, query: str, *, run_manager: Any) -> list[Document]:
        return self.documents


class OwnBackend(LocalBackend):
    model = "own"

    def score(self, query: str, documents: Any) -> list[float]:
        return [0.5] * len(documents)


class TestDocuments:
    async def test_documents_are_copied_with_metadata_added(self) -> None:
        documents = passages()
        before = copy.deepcopy(documents)
        compressor = RerankCompressor(reranker="lexical")
        expected = load_reranker("lexical").rerank(QUERY, TEXTS)
        for reranked in (
            compressor.compress_documents(documents, QUERY),
            await compressor.acompress_documents(documents, QUERY),
        ):
            assert [each.id for each in reranked] == [f"id-{result.index}" for result in expected]
            for document, result in zip(reranked, expected, strict=True):
                assert type(document) is Chunk
                assert document.page == result.index
                assert document.page_content == TEXTS[result.index]
                assert document.metadata == {
                    "nested": {"at": result.index},
                    "relevance_score": result.relevance_score,
                    "retrieval_rank": result.index,
                }
                assert type(document.metadata["relevance_score"]) is float
                assert document is not documents[result.index]
        assert documents == before

    def test_passthrough_writes_no_score(self) -> None:
        reranked = RerankCompressor(reranker="passthrough", top_n=3).compress_documents(passages(), QUERY)
        assert [each.page_content for each in reranked] == TEXTS[:3]
        assert [each.metadata["relevance_score"] for each in reranked] == [None] * 3

    def test_documented_filters_work_during_an_outage(self) -> None:
        (code,) = (block.text for block in pages.blocks("python", "docs/guides/thresholds.md") if "def " in block.text)
        names: dict[str, Any] = {}
        exec(code, names)
        for reranker, some in ((DEGRADED, 4), ("lexical", 1)):
            documents = RerankCompressor(reranker=reranker).compress_documents(passages(), QUERY)
            assert len(names["filtered"](documents, 0.3)) == some
            threshold = RerankCompressor(reranker=reranker, score_threshold=0.3)
            assert len(threshold.compress_documents(passages(), QUERY)) == some

    async def test_degraded_answer_writes_its_metadata(self) -> None:
        for reranked in (
            RerankCompressor(reranker=DEGRADED).compress_documents(passages(), QUERY),
            await RerankCompressor(reranker=DEGRADED).acompress_documents(passages(), QUERY),
        ):
            assert [each.metadata["retrieval_rank"] for each in reranked] == [0, 1, 2, 3]
            for each in reranked:
                assert each.metadata["rerank_degraded"] is True
                assert each.metadata["rerank_model"] == "passthrough"
                assert "127.0.0.1:9" in each.metadata["rerank_reason"]

    def test_second_reranker_stores_the_first_score_as_retrieval_score(self) -> None:
        first = RerankCompressor(reranker="lexical").compress_documents(passages(), QUERY)
        second = RerankCompressor(reranker=DEGRADED).compress_documents(first, QUERY)
        assert [each.metadata["retrieval_score"] for each in second] == [
            each.metadata["relevance_score"] for each in first
        ]
        third = RerankCompressor(reranker="lexical").compress_documents(second, QUERY)
        for each in third:
            assert "rerank_degraded" not in each.metadata
            assert each.metadata["retrieval_score"] == each.metadata["relevance_score"]

    @pytest.mark.parametrize(
        ("metadata", "known"),
        [
            ({"relevance_score": 0.25}, 0.25),
            ({"retrieval_score": 3}, 3.0),
            ({"relevance_score": None, "retrieval_score": 0.5}, 0.5),
            ({"relevance_score": "high"}, None),
            ({"relevance_score": float("nan")}, None),
            ({"relevance_score": True}, None),
            ({"score": 4.5}, None),  # a key of the user, such as the rating of a film
        ],
    )
    def test_retrieval_score_is_read_from_metadata(self, metadata: dict[str, Any], known: float | None) -> None:
        (reranked,) = RerankCompressor(reranker="lexical").compress_documents(
            [Document("bees", metadata=metadata)], QUERY
        )
        assert reranked.metadata.get("retrieval_score") == known
        assert reranked.metadata["relevance_score"] != known

    def test_users_own_metadata_stays_unless_it_is_replaced(self) -> None:
        own = {
            "retrieval_score": "0.83",
            "rerank_model": "my own",
            "rerank_reason": ["mine"],
            "rerank_spans": "page 3",
            "rerank_degraded": "no",
        }
        compressor = RerankCompressor(reranker="lexical")
        first = compressor.compress_documents([Document("bees", metadata=own)], QUERY)
        second = compressor.compress_documents(first, QUERY)
        assert {key: first[0].metadata[key] for key in own} == own
        # Replaced, since the first reranker's score is a number.
        assert second[0].metadata.pop("retrieval_score") == first[0].metadata["relevance_score"]
        assert {key: second[0].metadata[key] for key in own if key != "retrieval_score"} == {
            key: value for key, value in own.items() if key != "retrieval_score"
        }

    def test_metadata_of_an_earlier_reranker_is_removed(self) -> None:
        spans = {"use": "lexical", "long_documents": {"mode": "chunk", "tokens": 64}}
        text = "Bananas are yellow. " * 60 + "Bees make honey. " + "Cars have wheels. " * 60
        first = RerankCompressor(reranker=spans).compress_documents([Document(text), Document(" ")], QUERY)
        assert "rerank_spans" in first[0].metadata
        assert first[1].metadata["rerank_reason"] == "blank: there is no text to score"
        second = RerankCompressor(reranker=DEGRADED).compress_documents(first, QUERY)
        assert [("rerank_spans" in each.metadata, each.metadata["rerank_degraded"]) for each in second] == [
            (False, True)
        ] * 2
        for each in second:
            each.page_content = "bees"
        for each in RerankCompressor(reranker="lexical").compress_documents(second, QUERY):
            assert not [key for key in each.metadata if key.startswith("rerank_")]

    async def test_no_documents_send_no_request(self, server: Any) -> None:
        compressor = RerankCompressor(reranker={"use": "http", "base_url": server.url, "api_key": server.key})
        assert compressor.compress_documents([], QUERY) == []
        assert await compressor.acompress_documents([], QUERY) == []
        assert server.requests == []

    def test_blank_documents_come_last_without_a_score(self) -> None:
        documents = [Document(" "), Document("Bees.", id="a"), Document("Bees.", id="b"), Document("")]
        reranked = RerankCompressor(reranker="lexical").compress_documents(documents, QUERY)
        assert [each.id for each in reranked] == ["a", "b", None, None]
        assert [each.metadata["relevance_score"] is None for each in reranked] == [False, False, True, True]

    def test_wrong_item_is_named_by_its_index(self) -> None:
        for wrong, message in (
            (None, "Item 1 must be a Document, got None: leave it out"),
            ("a text", r"Item 1 must be a Document, got a string: wrap it in Document\(page_content=…\)"),
            ({"text": "x"}, "Item 1 must be a Document, got a mapping: make it Document"),
            ((Document("x"), 0.5), "Item 1 must be a Document, got a tuple: take the document out of it"),
            (NodeWithScore(node=TextNode(text="x")), "use rerank_plugins.llama_index.RerankPostprocessor"),
            (TextNode(text="x"), "use rerank_plugins.llama_index.RerankPostprocessor"),
        ):
            with pytest.raises(InputError, match=message):
                RerankCompressor(reranker="lexical").compress_documents([Document("x"), wrong], QUERY)

    @pytest.mark.parametrize(
        ("wrong", "got"),
        [
            (Document("x"), r"one Document: pass a list, \[item\]"),
            ("a text", r"one str: pass a list, such as \[Document\(page_content=…\)\], or give strings"),
            ({"a": Document("x")}, r"one dict: pass a list, such as \[Document\(page_content=…\)\]"),
            (None, "None: pass a list"),
            (5, "one int: pass a list"),
            (set(), r"a set: a set has no order.* Pass a list, list\(documents\)"),
            (frozenset({"x"}), "a frozenset: a set has no order"),
            (TextNode(text="x"), "one TextNode: use rerank_plugins.llama_index.RerankPostprocessor"),
            (NodeWithScore(node=TextNode(text="x")), "one NodeWithScore: use rerank_plugins.llama_index"),
            (Fixed(documents=[]), r"one Fixed: pass its documents, retriever.invoke\(query\)"),
        ],
        ids=lambda value: type(value).__name__,
    )
    async def test_argument_that_is_no_list_is_refused(self, wrong: Any, got: str) -> None:
        compressor = RerankCompressor(reranker="lexical")
        message = f"documents must be a list of Document objects, got {got}"
        with pytest.raises(InputError, match=message):
            compressor.compress_documents(wrong, QUERY)
        with pytest.raises(InputError, match=message):
            await compressor.acompress_documents(wrong, QUERY)

    async def test_async_iterable_is_refused_with_advice(self) -> None:
        async def documents() -> Any:
            yield Document("x")

        with pytest.raises(InputError, match="got one async_generator: collect it first"):
            await RerankCompressor(reranker="lexical").acompress_documents(documents(), QUERY)

    @pytest.mark.parametrize("kind", ITERABLES)
    async def test_any_iterable_is_read_once(self, kind: str) -> None:
        compressor = RerankCompressor(reranker="lexical")
        expected = compressor.compress_documents(passages(), QUERY)
        assert len(expected) == len(TEXTS)
        assert compressor.compress_documents(ITERABLES[kind](passages()), QUERY) == expected
        assert await compressor.acompress_documents(ITERABLES[kind](passages()), QUERY) == expected

    async def test_async_call_starts_no_thread(self, server: Any) -> None:
        compressor = RerankCompressor(reranker={"use": "http", "base_url": server.url, "api_key": server.key})
        seen: set[str] = set()

        def record_threads(received: Any) -> bool:
            seen.update(thread.name for thread in threading.enumerate())
            return True

        server.play(Step(), when=record_threads)
        await compressor.acompress_documents(passages(), QUERY)
        assert seen
        assert not [name for name in seen if name.startswith("asyncio_")], "the loop's default executor got work"


class TestHosts:
    async def test_contextual_compression_retriever_reranks(self) -> None:
        retriever = ContextualCompressionRetriever(
            base_compressor=RerankCompressor(reranker="lexical", top_n=2),
            base_retriever=Fixed(documents=passages()),
        )
        reranked = retriever.invoke(QUERY)
        assert len(reranked) == 2
        assert reranked[0].page_content == TEXTS[3]
        assert await retriever.ainvoke(QUERY) == reranked

    async def test_pipeline_reranks_twice(self) -> None:
        pipeline = DocumentCompressorPipeline(
            transformers=[
                RerankCompressor(reranker="lexical", top_n=3),
                RerankCompressor(reranker="lexical", top_n=1),
            ]
        )
        (reranked,) = pipeline.compress_documents(passages(), QUERY, callbacks=[])
        assert reranked.page_content == TEXTS[3]
        assert reranked.metadata["retrieval_rank"] == 0
        assert await pipeline.acompress_documents(passages(), QUERY) == [reranked]

    async def test_chain_reranks_sync_and_async(self) -> None:
        compressor = RerankCompressor(reranker="lexical", top_n=1)

        async def arerank(inputs: dict[str, Any]) -> Any:
            return await compressor.acompress_documents(inputs["documents"], inputs["query"])

        rerank = RunnableLambda(
            lambda inputs: compressor.compress_documents(inputs["documents"], inputs["query"]), arerank
        )
        chain = {"documents": Fixed(documents=passages()), "query": RunnablePassthrough()} | rerank
        assert [each.page_content for each in chain.invoke(QUERY)] == [TEXTS[3]]
        assert [each.page_content for each in await chain.ainvoke(QUERY)] == [TEXTS[3]]


# langchain-core 1.0 trusts whole namespaces; later versions also need the classes.
ALLOWED = {"allowed_objects": [RerankCompressor]} if "allowed_objects" in signature(loads).parameters else {}


class TestSerialisation:
    def revive(self, text: str) -> RerankCompressor:
        return loads(text, valid_namespaces=["rerank_plugins"], **ALLOWED)

    @pytest.mark.parametrize(
        "fields",
        [
            {"reranker": "lexical"},
            {"reranker": {"use": "lexical", "top_n": 3}, "top_n": 2, "score_threshold": 0.1},
            {"reranker": DEGRADED, "top_n": 3},
        ],
    )
    def test_dumps_and_loads_round_trip(self, fields: dict[str, Any]) -> None:
        compressor = RerankCompressor(**fields)
        back = self.revive(dumps(compressor))
        assert back == compressor
        assert back.compress_documents(passages(), QUERY) == compressor.compress_documents(passages(), QUERY)
        dumped = dumpd(compressor)
        assert load(dumped, valid_namespaces=["rerank_plugins"], **ALLOWED) == compressor

    def test_default_reranker_is_looked_up_again_after_loading(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("RERANK_PLUGINS_RERANKER", "lexical")
        stored = dumps(RerankCompressor())
        monkeypatch.setenv("RERANK_PLUGINS_RERANKER", "passthrough")
        assert self.revive(stored).compress_documents(passages(), QUERY)[0].page_content == TEXTS[0]

    def test_serialised_form_holds_no_key(self, spec: dict[str, Any]) -> None:
        for reranker in (spec, load_reranker(spec)):
            stored = dumps(RerankCompressor(reranker=reranker), pretty=True)
            assert SECRET not in stored
            assert "env:TENANT" in stored
            back = self.revive(stored)
            assert back.reranker["fallback"][1] == "passthrough"

    def test_key_is_read_from_the_environment_after_loading(self, server: Any, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("MY_KEY", SECRET)
        stored = dumps(RerankCompressor(reranker={"use": "http", "base_url": server.url, "api_key": "env:MY_KEY"}))
        assert SECRET not in stored
        self.revive(stored).compress_documents(passages(), QUERY)
        assert (len(server.requests), server.refused) == (1, [])
        monkeypatch.delenv("MY_KEY")
        with pytest.raises(ConfigError, match="MY_KEY"):
            self.revive(stored)

    def test_reranker_made_by_hand_is_not_loaded(self) -> None:
        stored = dumps(RerankCompressor(reranker=Reranker(OwnBackend())))
        assert json.loads(stored)["type"] == "not_implemented"
        with pytest.raises(NotImplementedError):
            self.revive(stored)
