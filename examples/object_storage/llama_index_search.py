"""LlamaIndex: a query engine with a reranker between the passages and the LLM."""

from llama_index.core.llms import LLM, MockLLM
from llama_index.core.query_engine import RetrieverQueryEngine
from llama_index.core.retrievers import BaseRetriever
from llama_index.core.schema import NodeWithScore, QueryBundle, TextNode
from passages import Passages

from rerank_plugins.llama_index import RerankPostprocessor


class LanceRetriever(BaseRetriever):
    def __init__(self, passages: Passages, k: int = 100, how: str = "hybrid") -> None:
        self.passages, self.k, self.how = passages, k, how
        super().__init__()

    def _retrieve(self, query_bundle: QueryBundle) -> list[NodeWithScore]:
        rows = self.passages.candidates(query_bundle.query_str, self.k, self.how)
        return [NodeWithScore(node=TextNode(id_=row["id"], text=row["text"])) for row in rows]


def two_stages(
    passages: Passages, reranker="embedded", how="hybrid", top_n=5, llm: LLM | None = None, **options
) -> RetrieverQueryEngine:
    """Return an engine that reranks 100 candidates and passes `top_n` of them to the LLM."""
    return RetrieverQueryEngine.from_args(
        LanceRetriever(passages, how=how),
        llm=llm or MockLLM(max_tokens=32),
        node_postprocessors=[RerankPostprocessor(reranker=reranker, top_n=top_n, **options)],
    )
