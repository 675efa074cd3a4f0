"""Jina's API: https://jina.ai/reranker and the clients of LangChain and Haystack (November 2026)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ..script import Pairs
from ..server import Reply, VendorServer

__all__ = ["JinaServer"]


class JinaServer(VendorServer):
    """`POST /v1/rerank`. A limit of documents is not documented; the 2,048 here is a guess."""

    paths = ("/v1/rerank",)
    required = {"model": str, "query": str, "documents": list}  # noqa: RUF012
    optional = {"top_n": int, "return_documents": bool}  # noqa: RUF012
    max_documents = 2048
    invalid = 422

    def refuse(self, status: int, message: str) -> Reply:
        """Say it in `detail`."""
        return Reply(status, {"detail": message})

    def answer(self, body: Mapping[str, Any], pairs: Pairs) -> Any:
        """Answer with the texts unless `return_documents` is false."""
        results: list[dict[str, Any]] = [{"index": index, "relevance_score": score} for index, score in pairs]
        if body.get("return_documents", True):
            for result in results:
                result["document"] = {"text": body["documents"][result["index"]]}
        words = sum(len(text.split()) for text in (body["query"], *body["documents"]))
        return {"model": body["model"], "usage": {"total_tokens": words}, "results": results}
