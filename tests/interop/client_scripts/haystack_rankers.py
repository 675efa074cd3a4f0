"""Haystack's rankers of servers."""

from typing import Any

from calling import Scored, by_text, main
from haystack import Document
from haystack.utils import Secret

KEY = Secret.from_token("interop")


def _rank(ranker: Any, query: str, documents: list[str]) -> Scored:
    reply = ranker.run(query=query, documents=[Document(content=text) for text in documents], top_k=len(documents))
    return by_text(documents, [(document.content, document.score) for document in reply["documents"]])


def cohere(url: str, query: str, documents: list[str]) -> Scored:
    """CohereRanker."""
    from haystack_integrations.components.rankers.cohere import CohereRanker

    return _rank(CohereRanker(model="tiny", api_key=KEY, api_base_url=url), query, documents)


def jina(url: str, query: str, documents: list[str]) -> Scored:
    """JinaRanker."""
    from haystack_integrations.components.rankers.jina import JinaRanker

    return _rank(JinaRanker(model="tiny", api_key=KEY, base_url=f"{url}/v1/rerank"), query, documents)


def tei(url: str, query: str, documents: list[str]) -> Scored:
    """HuggingFaceTEIRanker."""
    from haystack_integrations.components.rankers.huggingface_api import HuggingFaceTEIRanker

    return _rank(HuggingFaceTEIRanker(url=url, token=KEY), query, documents)


if __name__ == "__main__":
    main({"cohere": cohere, "jina": jina, "tei": tei})
