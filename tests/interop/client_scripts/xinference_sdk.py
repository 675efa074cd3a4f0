"""Xinference's client."""

from calling import Scored, main
from xinference_client.client.restful.restful_client import RESTfulRerankModelHandle


def xinference(url: str, query: str, documents: list[str]) -> Scored:
    """The handle of a running model; Xinference's own server is asked for a list of models before."""
    reply = RESTfulRerankModelHandle("tiny", url, {}).rerank(documents, query, return_documents=False, return_len=False)
    return [(result["index"], result["relevance_score"]) for result in reply["results"]]


if __name__ == "__main__":
    main({"xinference": xinference})
