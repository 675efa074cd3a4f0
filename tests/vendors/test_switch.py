"""One LangChain chain and one LlamaIndex query engine work with every vendor, which is a line of a TOML file."""

from __future__ import annotations

import contextlib
import json
from pathlib import Path
from typing import Any

import pytest
from langchain_classic.retrievers import ContextualCompressionRetriever
from langchain_core.documents import Document
from langchain_core.retrievers import BaseRetriever as LangChainRetriever
from langchain_core.runnables import RunnableLambda, RunnablePassthrough
from llama_index.core.base.base_retriever import BaseRetriever as LlamaIndexRetriever
from llama_index.core.llms import MockLLM
from llama_index.core.query_engine import RetrieverQueryEngine
from llama_index.core.schema import NodeWithScore, TextNode
from support.token_server import token_server

from rerank_plugins.backends.presets import PRESETS
from rerank_plugins.langchain import RerankCompressor
from rerank_plugins.llama_index import RerankPostprocessor
from rerank_plugins.testing.cohere_like import CohereLike
from rerank_plugins.testing.documented import documented_server
from rerank_plugins.testing.vendors import VENDORS

QUERY = "how do bees make honey"
TEXTS = ["The bank raised its rates.", "A honey badger digs.", "Bees make honey from nectar.", "Paris is in France."]

EXCHANGES = {
    file.stem: json.loads(file.read_text("utf-8")) for file in Path(__file__).with_name("exchanges").glob("*.json")
}
SERVERS = VENDORS | {"http": CohereLike} | {name: documented_server(each) for name, each in EXCHANGES.items()}
USE = {name: each["spec"]["use"] for name, each in EXCHANGES.items()} | {
    "cohere": "cohere:rerank-v4.0-fast",
    "voyage": "voyage:rerank-2.5",
    "jina-api": "jina-api:jina-reranker-v3.5",
    "mixedbread": "mixedbread",
    "zeroentropy": "zeroentropy:zerank-2",
    "openai": "openai:gpt-6-luna",
    "typesafe": "typesafe:jev-latest",
    "tei": "tei",
    "vllm": "vllm:BAAI/bge-reranker-base",
    "infinity": "infinity:BAAI/bge-reranker-base",
    "http": "http:any-model",
    "embedded": "embedded",
    "lexical": "lexical",
}


class FixedRetriever(LangChainRetriever):
    """A LangChain retriever that returns the same documents for every query."""

    def _get_relevant_documents(self, query: str, *, run_manager: Any) -> list[Document]:
        return [Document(text, id=str(number), metadata={"n": number}) for number, text in enumerate(TEXTS)]


class FixedNodeRetriever(LlamaIndexRetriever):
    """A LlamaIndex retriever that returns the same nodes for every query."""

    def _retrieve(self, query_bundle: Any) -> list[NodeWithScore]:
        return [NodeWithScore(node=TextNode(text=text, id_=str(n)), score=0.1) for n, text in enumerate(TEXTS)]


def langchain_chain(reranker: str) -> Any:
    retriever = ContextualCompressionRetriever(
        base_compressor=RerankCompressor(reranker=reranker, top_n=2), base_retriever=FixedRetriever()
    )
    return {"context": retriever, "question": RunnablePassthrough()} | RunnableLambda(lambda values: values["context"])


def query_engine(reranker: str) -> Any:
    return RetrieverQueryEngine.from_args(
        FixedNodeRetriever(), llm=MockLLM(), node_postprocessors=[RerankPostprocessor(reranker=reranker, top_n=2)]
    )


@pytest.mark.thorough  # one call of each framework for each vendor
async def test_same_chain_and_engine_work_with_every_vendor(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "an-access-key-id")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "a-secret-access-key-0123456789")
    with contextlib.ExitStack() as stack:
        servers = {name: stack.enter_context(SERVERS[name](key=f"key-of-{name}")) for name in USE if name in SERVERS}
        tokens = stack.enter_context(token_server("key-of-watsonx"))
        tokens.any_key = True
        monkeypatch.setenv("WATSONX_IAM_URL", tokens.url)
        lines = []
        for name, use in USE.items():
            lines += [f"[rerankers.use-{name}]", f'use = "{use}"']
            if name in servers:
                monkeypatch.setenv(f"KEY_OF_{name}".upper().replace("-", "_"), f"key-of-{name}")
                lines += [f'base_url = "{servers[name].url}"']
                if PRESETS.get(name) is None or PRESETS[name].authentication != "aws":
                    lines += [f'api_key = "env:KEY_OF_{name.upper().replace("-", "_")}"']
                for option, value in EXCHANGES.get(name, {"spec": {}})["spec"].get(name, {}).items():
                    lines += [f'{name}.{option} = "{value}"']
        (tmp_path / "rerank.toml").write_text("\n".join(lines))
        monkeypatch.setenv("RERANK_PLUGINS_CONFIG", str(tmp_path / "rerank.toml"))

        seen = []
        for name in USE:
            chain, engine = langchain_chain(f"use-{name}"), query_engine(f"use-{name}")
            for documents in (chain.invoke(QUERY), await chain.ainvoke(QUERY)):
                assert documents[0].id == "2", name
                assert len(documents) == 2
                assert documents[0].metadata["n"] == 2
                assert isinstance(documents[0].metadata["relevance_score"], float)
            for response in (engine.query(QUERY), await engine.aquery(QUERY)):
                assert response.source_nodes[0].node_id == "2", name
                assert len(response.source_nodes) == 2
                assert TEXTS[2] in str(response)
            seen.append(name)
        assert len(seen) >= 9 + len(PRESETS)
        for name, server in servers.items():
            assert server.refused == [], name
            assert len(server.requests) == 4, name
