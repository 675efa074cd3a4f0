"""LiteLLM's `rerank` with the routes that take an address of one's own."""

import litellm
from calling import Scored, main


def _rank(model: str, address: str, query: str, documents: list[str], **options: bool) -> Scored:
    call = {"model": model, "query": query, "documents": documents, **options}
    reply = litellm.rerank(**call, api_base=address, api_key="interop")
    return [(result["index"], result["relevance_score"]) for result in reply.results]


def cohere(url: str, query: str, documents: list[str]) -> Scored:
    """Cohere's shape."""
    return _rank("cohere/tiny", url, query, documents)


def infinity(url: str, query: str, documents: list[str]) -> Scored:
    """Infinity's shape."""
    return _rank("infinity/tiny", url, query, documents)


def infinity_scores(url: str, query: str, documents: list[str]) -> Scored:
    """Infinity's shape, without the documents."""
    return _rank("infinity/tiny", url, query, documents, return_documents=False)


def jina(url: str, query: str, documents: list[str]) -> Scored:
    """Jina's shape."""
    return _rank("jina_ai/tiny", url, query, documents)


def vllm(url: str, query: str, documents: list[str]) -> Scored:
    """vLLM's shape."""
    return _rank("hosted_vllm/tiny", url, query, documents)


def tei(url: str, query: str, documents: list[str]) -> Scored:
    """Text Embeddings Inference's shape."""
    return _rank("huggingface/tiny", url, query, documents)


if __name__ == "__main__":
    functions = (cohere, infinity, infinity_scores, jina, vllm, tei)
    main({function.__name__: function for function in functions})
