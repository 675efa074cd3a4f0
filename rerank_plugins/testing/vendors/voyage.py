"""Voyage's API: https://docs.voyageai.com/reference/reranker-api and /docs/error-codes (November 2026)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ..script import Pairs
from ..server import Reply, VendorServer

__all__ = ["VoyageServer"]


class VoyageServer(VendorServer):
    """`POST /v1/rerank`; a blank document fails the request."""

    paths = ("/v1/rerank",)
    required = {"model": str, "query": str, "documents": list}  # noqa: RUF012
    optional = {"top_k": (int, type(None)), "truncation": bool, "return_documents": bool}  # noqa: RUF012
    top_n_field = "top_k"
    max_documents = 1000

    def refuse(self, status: int, message: str) -> Reply:
        """Say it in `detail`."""
        return Reply(status, {"detail": message})

    def answer(self, body: Mapping[str, Any], pairs: Pairs) -> Any:
        """Answer with `data` and the tokens as they are counted: the query's once a document."""
        query = len(body["query"].split())
        return {
            "object": "list",
            "data": [{"index": index, "relevance_score": score} for index, score in pairs],
            "model": body["model"],
            "usage": {"total_tokens": sum(query + len(text.split()) for text in body["documents"])},
        }
