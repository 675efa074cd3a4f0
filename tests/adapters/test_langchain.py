"""RerankCompressor in the places where LangChain takes a compressor."""

from __future__ import annotations

import copy
import json
import re
import threading
from collections import deque
from inspect import signature
from pathlib import Path
from typing import Any

import pytest
from bees import DEGRADED, QUERY, SECRET, TEXTS
from langchain_classic.retrievers import ContextualCompressionRetriever
from langchain_classic.retrievers.document_compressors import DocumentCompressorPipeline
from langchain_core.documents import Document
from langchain_core.load import dumpd, dumps, load, loads
from langchain_core.retrievers import BaseRetriever
from langchain_core.runnables import RunnableLambda, RunnablePassthrough
from llama_index.core.schema import NodeWithScore, TextNode

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
    """Gives its documents."""

    documents: list[Document]

    def _get_relevant_documents(self, query: str, *, run_manager: Any) -> list[Document]:
        return self.documents


class Own(LocalBackend):
    model = "own"

    def score(self, query: str, documents: Any) -> list[float]:
        return [0.5] * len(documents)


class TestDocuments:
    async def test_copies_with_everything_kept_and_the_notes_added(self) -> None:
        documents = passages()
        before = copy.deepcopy(documents)
        compressor = RerankCompressor(reranker="lexical")
        expected = load_reranker("lexical").rerank(QUERY, TEXTS)
        for found in (
            compressor.compress_documents(documents, QUERY),
            await compressor.acompress_documents(documents, QUERY),
        ):
            assert [each.id for each in found] == [f"id-{result.index}" for result in expected]
            for document, result in zip(found, expected, strict=True):
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

    def test_passthrough_has_the_key_and_no_score(self) -> None:
        found = RerankCompressor(reranker="passthrough", top_n=3).compress_documents(passages(), QUERY)
        assert [each.page_content for each in found] == TEXTS[:3]
        assert [each.metadata["relevance_score"] for each in found] == [None] * 3

    def test_the_documented_filters_are_safe_during_an_outage(self) -> None:
        readme = (Path(__file__).parents[2] / "README.md").read_text("utf-8")
        (expression,) = re.findall(r"`(\[d for d in documents if .*])`", readme)
        for reranker, some in ((DEGRADED, 4), ("lexical", 1)):
            documents = RerankCompressor(reranker=reranker).compress_documents(passages(), QUERY)
            left = eval(expression, {"documents": documents})
            assert len(left) == some
            threshold = RerankCompressor(reranker=reranker, score_threshold=0.3)
            assert len(threshold.compress_documents(passages(), QUERY)) == some

    async def test_a_degraded_answer_says_so(self) -> None:
        for found in (
            RerankCompressor(reranker=DEGRADED).compress_documents(passages(), QUERY),
            await RerankCompressor(reranker=DEGRADED).acompress_documents(passages(), QUERY),
        ):
            assert [each.metadata["retrieval_rank"] for each in found] == [0, 1, 2, 3]
            for each in found:
                assert each.metadata["rerank_degraded"] is True
                assert each.metadata["rerank_model"] == "passthrough"
                assert "127.0.0.1:9" in each.metadata["rerank_reason"]

    def test_a_second_reranker_keeps_the_first_ones_score_and_speaks_for_itself(self) -> None:
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
            ({"score": 4.5}, None),  # a film's rating, for all we know
        ],
    )
    def test_the_retrieval_score_where_known(self, metadata: dict[str, Any], known: float | None) -> None:
        (found,) = RerankCompressor(reranker="lexical").compress_documents([Document("bees", metadata=metadata)], QUERY)
        assert found.metadata.get("retrieval_score") == known
        assert found.metadata["relevance_score"] != known

    def test_what_you_stored_under_a_name_of_ours_stays_where_nothing_replaces_it(self) -> None:
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
        # Now there is a number to note: the first reranker's score.
        assert second[0].metadata.pop("retrieval_score") == first[0].metadata["relevance_score"]
        assert {key: second[0].metadata[key] for key in own if key != "retrieval_score"} == {
            key: value for key, value in own.items() if key != "retrieval_score"
        }

    def test_nothing_of_an_earlier_reranker_survives(self) -> None:
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

    async def test_no_documents_no_request(self, server: Any) -> None:
        compressor = RerankCompressor(reranker={"use": "http", "base_url": server.url, "api_key": server.key})
        assert compressor.compress_documents([], QUERY) == []
        assert await compressor.acompress_documents([], QUERY) == []
        assert server.requests == []

    def test_blank_and_equal_documents(self) -> None:
        documents = [Document(" "), Document("Bees.", id="a"), Document("Bees.", id="b"), Document("")]
        found = RerankCompressor(reranker="lexical").compress_documents(documents, QUERY)
        assert [each.id for each in found] == ["a", "b", None, None]
        assert [each.metadata["relevance_score"] is None for each in found] == [False, False, True, True]

    def test_what_is_no_document_is_named_by_its_place(self) -> None:
        for wrong, told in (
            (None, "Item 1 must be a Document, got None: leave it out"),
            ("a text", r"Item 1 must be a Document, got a string: wrap it in Document\(page_content=…\)"),
            ({"text": "x"}, "Item 1 must be a Document, got a mapping: make it Document"),
            ((Document("x"), 0.5), "Item 1 must be a Document, got a tuple: take the document out of it"),
            (NodeWithScore(node=TextNode(text="x")), "use rerank_plugins.llama_index.RerankPostprocessor"),
            (TextNode(text="x"), "use rerank_plugins.llama_index.RerankPostprocessor"),
        ):
            with pytest.raises(InputError, match=told):
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
            (Fixed(documents=[]), r"one Fixed: pass what it finds, retriever.invoke\(query\)"),
        ],
        ids=lambda each: type(each).__name__,
    )
    async def test_what_is_no_list_of_documents_is_refused_by_name(self, wrong: Any, got: str) -> None:
        compressor = RerankCompressor(reranker="lexical")
        told = f"documents must be a list of Document objects, got {got}"
        with pytest.raises(InputError, match=told):
            compressor.compress_documents(wrong, QUERY)
        with pytest.raises(InputError, match=told):
            await compressor.acompress_documents(wrong, QUERY)

    async def test_an_async_iterable_is_refused_with_the_way_out(self) -> None:
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

    async def test_async_starts_no_thread(self, server: Any) -> None:
        compressor = RerankCompressor(reranker={"use": "http", "base_url": server.url, "api_key": server.key})
        seen: set[str] = set()

        def look(received: Any) -> bool:
            seen.update(thread.name for thread in threading.enumerate())
            return True

        server.play(Step(), when=look)
        await compressor.acompress_documents(passages(), QUERY)
        assert seen
        assert not [name for name in seen if name.startswith("asyncio_")], "the loop's default executor got work"


class TestPlaces:
    async def test_contextual_compression_retriever(self) -> None:
        retriever = ContextualCompressionRetriever(
            base_compressor=RerankCompressor(reranker="lexical", top_n=2),
            base_retriever=Fixed(documents=passages()),
        )
        found = retriever.invoke(QUERY)
        assert len(found) == 2
        assert found[0].page_content == TEXTS[3]
        assert await retriever.ainvoke(QUERY) == found

    async def test_pipeline(self) -> None:
        pipeline = DocumentCompressorPipeline(
            transformers=[
                RerankCompressor(reranker="lexical", top_n=3),
                RerankCompressor(reranker="lexical", top_n=1),
            ]
        )
        (found,) = pipeline.compress_documents(passages(), QUERY, callbacks=[])
        assert found.page_content == TEXTS[3]
        assert found.metadata["retrieval_rank"] == 0
        assert await pipeline.acompress_documents(passages(), QUERY) == [found]

    async def test_in_a_chain(self) -> None:
        compressor = RerankCompressor(reranker="lexical", top_n=1)

        async def arerank(given: dict[str, Any]) -> Any:
            return await compressor.acompress_documents(given["documents"], given["query"])

        rerank = RunnableLambda(
            lambda given: compressor.compress_documents(given["documents"], given["query"]), arerank
        )
        chain = {"documents": Fixed(documents=passages()), "query": RunnablePassthrough()} | rerank
        assert [each.page_content for each in chain.invoke(QUERY)] == [TEXTS[3]]
        assert [each.page_content for each in await chain.ainvoke(QUERY)] == [TEXTS[3]]


# langchain-core 1.0 trusts whole namespaces; later ones want the classes too.
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
    def test_round_trip(self, fields: dict[str, Any]) -> None:
        compressor = RerankCompressor(**fields)
        back = self.revive(dumps(compressor))
        assert back == compressor
        assert back.compress_documents(passages(), QUERY) == compressor.compress_documents(passages(), QUERY)
        dumped = dumpd(compressor)
        assert load(dumped, valid_namespaces=["rerank_plugins"], **ALLOWED) == compressor

    def test_the_default_stays_the_default(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("RERANK_PLUGINS_RERANKER", "lexical")
        stored = dumps(RerankCompressor())
        monkeypatch.setenv("RERANK_PLUGINS_RERANKER", "passthrough")
        assert self.revive(stored).compress_documents(passages(), QUERY)[0].page_content == TEXTS[0]

    def test_no_secret_in_it_wherever_it_was(self, spec: dict[str, Any]) -> None:
        for reranker in (spec, load_reranker(spec)):
            stored = dumps(RerankCompressor(reranker=reranker), pretty=True)
            assert SECRET not in stored
            assert "env:TENANT" in stored
            back = self.revive(stored)
            assert back.reranker["fallback"][1] == "passthrough"

    def test_a_key_named_by_its_variable_is_found_again(self, server: Any, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("MY_KEY", SECRET)
        stored = dumps(RerankCompressor(reranker={"use": "http", "base_url": server.url, "api_key": "env:MY_KEY"}))
        assert SECRET not in stored
        self.revive(stored).compress_documents(passages(), QUERY)
        assert (len(server.requests), server.refused) == (1, [])
        monkeypatch.delenv("MY_KEY")
        with pytest.raises(ConfigError, match="MY_KEY"):
            self.revive(stored)

    def test_what_no_spec_describes_is_not_loaded_as_something_else(self) -> None:
        stored = dumps(RerankCompressor(reranker=Reranker(Own())))
        assert json.loads(stored)["type"] == "not_implemented"
        with pytest.raises(NotImplementedError):
            self.revive(stored)
