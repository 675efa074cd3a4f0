"""Infinity's generated client."""

from calling import Scored, main
from infinity_client import Client
from infinity_client.api.default import rerank
from infinity_client.models import RerankInput


def infinity(url: str, query: str, documents: list[str]) -> Scored:
    """Call `/rerank`."""
    body = RerankInput(query=query, documents=documents, model="tiny")
    reply = rerank.sync(client=Client(base_url=url, raise_on_unexpected_status=True), body=body)
    return [(result.index, result.relevance_score) for result in reply.results]


if __name__ == "__main__":
    main({"infinity": infinity})
