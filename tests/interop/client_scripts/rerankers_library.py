"""The `rerankers` library's API rankers."""

from calling import Scored, main
from rerankers.models.api_rankers import APIRanker


def _rank(api: str, url: str, query: str, documents: list[str]) -> Scored:
    ranker = APIRanker("tiny", "interop", api, verbose=0, url=url)
    results = ranker.rank(query=query, docs=documents, doc_ids=list(range(len(documents))))
    return [(result.doc_id, result.score) for result in results.results]


def cohere(url: str, query: str, documents: list[str]) -> Scored:
    """Cohere's shape."""
    return _rank("cohere", f"{url}/v1/rerank", query, documents)


def jina(url: str, query: str, documents: list[str]) -> Scored:
    """Jina's shape."""
    return _rank("jina", f"{url}/v1/rerank", query, documents)


def tei(url: str, query: str, documents: list[str]) -> Scored:
    """Text Embeddings Inference's shape."""
    return _rank("text-embeddings-inference", f"{url}/rerank", query, documents)


if __name__ == "__main__":
    main({"cohere": cohere, "jina": jina, "tei": tei})
