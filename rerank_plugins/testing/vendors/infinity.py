"""Infinity: libs/infinity_emb/infinity_emb/fastapi_schemas/pymodels.py of michaelfeil/infinity (November 2026)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ..script import Pairs
from ..server import Reply, VendorServer

__all__ = ["InfinityServer"]

LONGEST = 8192 * 15


class InfinityServer(VendorServer):
    """`POST /rerank`, started with `--api-key`; does not sort."""

    paths = ("/rerank",)
    optional = {"model": str, "top_n": int, "return_documents": bool, "raw_scores": bool}  # noqa: RUF012
    max_documents = 2048
    invalid = 422
    blanks_refused = False
    lengths_via_tokenize = False
    """Count tokens in `usage`, as with the switch of that name, rather than characters."""

    def validate(self, body: Any, headers: Mapping[str, str]) -> Reply | None:
        """Refuse a text of more characters than the schema takes."""
        if (refusal := super().validate(body, headers)) is not None:
            return refusal
        if any(len(text) > LONGEST for text in (body["query"], *body["documents"])):
            return self.refuse(422, f"String should have at most {LONGEST} characters")
        return None

    def refuse(self, status: int, message: str) -> Reply:
        """Say a schema's complaint as FastAPI does, anything else as OpenAI does."""
        if status == 422:
            return Reply(status, {"detail": [{"type": "value_error", "loc": ["body"], "msg": message}]})
        return Reply(status, {"error": {"message": message, "type": None, "code": status}})

    def answer(self, body: Mapping[str, Any], pairs: Pairs) -> Any:
        """Answer in the order of the documents where the indexes allow it."""
        texts = (body["query"], *body["documents"])
        length = sum(len(text.split()) if self.lengths_via_tokenize else len(text) for text in texts)
        ordered = sorted(pairs, key=lambda pair: pair[0] if isinstance(pair[0], int) else -1)
        return {
            "object": "rerank",
            "results": [{"relevance_score": score, "index": index, "document": None} for index, score in ordered],
            "model": body.get("model", "default/not-specified"),
            "usage": {"prompt_tokens": length, "total_tokens": length},
            "id": "infinity-0a1b2c3d",
            "created": 1730000000,
        }
