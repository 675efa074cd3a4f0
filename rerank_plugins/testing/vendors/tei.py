"""Text Embeddings Inference: docs/openapi.json (1.7.1) of huggingface/text-embeddings-inference (November 2026)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ..script import Pairs
from ..server import Reply, VendorServer

__all__ = ["TEIServer"]

TYPES = {
    400: "Empty",
    401: "Unauthorized",
    413: "Validation",
    422: "Tokenizer",
    424: "Backend",
    429: "Overloaded",
    503: "Unhealthy",
}


class TEIServer(VendorServer):
    """`POST /rerank`, started with `--api-key`; at most 32 texts, as by default."""

    paths = ("/rerank",)
    required = {"query": str, "texts": list}  # noqa: RUF012
    optional = {  # noqa: RUF012
        "raw_scores": bool,
        "return_text": bool,
        "truncate": (bool, type(None)),
        "truncation_direction": str,
    }
    documents_field = "texts"
    top_n_field = None
    max_documents = 32
    invalid = 422

    def refuse(self, status: int, message: str) -> Reply:
        """Say it in `error`, with a type."""
        return Reply(status, {"error": message, "error_type": TYPES.get(status, "Backend")})

    def answer(self, body: Mapping[str, Any], pairs: Pairs) -> Any:
        """Answer with a bare list."""
        return [{"index": index, "score": score} for index, score in pairs]
