"""A server for the `http` backend: the `/rerank` that gateways and self-hosted servers share with Cohere's v1 and v2.

The shape is that of https://docs.cohere.com/reference/rerank, as vLLM, llama.cpp and LiteLLM's proxy answer it.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from .script import Pairs
from .server import VendorServer

__all__ = ["CohereLike"]


class CohereLike(VendorServer):
    """Takes `model`, `query`, `documents`, `top_n`; answers `results` and `usage`."""

    paths = ("/rerank", "/v1/rerank", "/v2/rerank")
    optional = {"model": str, "top_n": int, "instruction": str}  # noqa: RUF012

    def answer(self, body: Mapping[str, Any], pairs: Pairs) -> Any:
        """Return the results, best first, and the number of words as tokens."""
        words = sum(len(text.split()) for text in (body["query"], *body["documents"]))
        return {
            "model": body.get("model", "served"),
            "results": [{"index": index, "relevance_score": score} for index, score in pairs],
            "usage": {"total_tokens": words},
        }
