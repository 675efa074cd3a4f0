"""LangChain's document compressors of servers."""

from typing import Any

from calling import Scored, by_text, main
from langchain_core.documents import Document


def _rank(compressor: Any, query: str, documents: list[str]) -> Scored:
    ranked = compressor.compress_documents([Document(page_content=text) for text in documents], query)
    return by_text(documents, [(document.page_content, document.metadata["relevance_score"]) for document in ranked])


def cohere(url: str, query: str, documents: list[str]) -> Scored:
    """CohereRerank."""
    from langchain_cohere import CohereRerank

    compressor = CohereRerank(model="tiny", cohere_api_key="interop", base_url=url, top_n=len(documents))
    return _rank(compressor, query, documents)


def jina(url: str, query: str, documents: list[str]) -> Scored:
    """JinaRerank, whose address is a constant of its module."""
    from langchain_community.document_compressors import jina_rerank

    jina_rerank.JINA_API_URL = f"{url}/v1/rerank"
    compressor = jina_rerank.JinaRerank(model="tiny", jina_api_key="interop", top_n=len(documents))
    return _rank(compressor, query, documents)


def infinity(url: str, query: str, documents: list[str]) -> Scored:
    """InfinityRerank."""
    from infinity_client import Client
    from langchain_community.document_compressors import InfinityRerank

    compressor = InfinityRerank(client=Client(base_url=url), model="tiny", top_n=len(documents))
    return _rank(compressor, query, documents)


if __name__ == "__main__":
    main({"cohere": cohere, "jina": jina, "infinity": infinity})
