"""Cohere's own SDK."""

import cohere
from calling import Scored, main


def v2(url: str, query: str, documents: list[str]) -> Scored:
    """Call `/v2/rerank`."""
    client = cohere.ClientV2(api_key="interop", base_url=url)
    reply = client.rerank(model="tiny", query=query, documents=documents)
    return [(result.index, result.relevance_score) for result in reply.results]


def v1(url: str, query: str, documents: list[str]) -> Scored:
    """Call `/v1/rerank`, with the documents sent back."""
    client = cohere.Client(api_key="interop", base_url=url)
    reply = client.rerank(model="tiny", query=query, documents=documents, return_documents=True)
    texts = [result.document.text for result in reply.results]
    assert texts == [documents[result.index] for result in reply.results]
    return [(result.index, result.relevance_score) for result in reply.results]


if __name__ == "__main__":
    main({"v1": v1, "v2": v2})
