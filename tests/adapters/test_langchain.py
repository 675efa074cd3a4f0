"""RerankCompressor in the places where LangChain takes a compressor."""

from __future__ import annotations

import copy
import json
import threading
from inspect import signature
from typing import Any

import pytest
from bees import DEGRADED, QUERY, SECRET, TEXTS
from langchain_classic.retrievers import ContextualCompressionRetriever
from langchain_classic.retrievers.document_compressors import DocumentCompressorPipeline
from langchain_core.documents import Document
from langchain_core.load import dumpd, dumps, load, loads
from langchain_core.retrievers import BaseRetriever
from langchain_core.runnables import RunnableLambda, RunnablePassthrough

from rerank_plugins import ConfigError, InputError, Reranker, load_reranker
from rerank_plugins.core import LocalBackend
from rerank_plugins.langchain import RerankCompressor
from rerank_plugins.testing.script import Step


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
        for wrong in (None, "a text"):
            with pytest.raises(InputError, match="Item 1 is a"):
                RerankCompressor(reranker="lexical").compress_documents([Document("x"), wrong], QUERY)

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
            assert "acme" in stored
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
