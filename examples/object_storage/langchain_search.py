"""LangChain: a retriever of the passages with a reranker behind it."""

from langchain_core.documents import Document
from langchain_core.retrievers import BaseRetriever
from passages import Passages

from rerank_plugins.langchain import RerankRetriever


class LanceRetriever(BaseRetriever):
    passages: Passages
    k: int = 100
    how: str = "hybrid"

    model_config = {"arbitrary_types_allowed": True}

    def _get_relevant_documents(self, query, *, run_manager):
        rows = self.passages.candidates(query, self.k, self.how)
        return [Document(row["text"], id=row["id"]) for row in rows]


def two_stages(passages: Passages, reranker="embedded", how="hybrid", top_n=5, **options) -> RerankRetriever:
    """Return a retriever that reranks 100 candidates and returns `top_n` of them."""
    return RerankRetriever(
        retriever=LanceRetriever(passages=passages, how=how), reranker=reranker, top_n=top_n, **options
    )
