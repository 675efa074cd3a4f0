"""A server with the `/rerank` route of Cohere's v1 and v2, which many gateways share, for the `http` backend.

Its format is that of https://docs.cohere.com/reference/rerank, which vLLM, llama.cpp and LiteLLM's proxy follow.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from .script import Pairs
from .server import VendorServer

__all__ = ["CohereLike"]


class CohereLike(VendorServer):
    """A server that reads `model`, `query`, `documents` and `top_n`, and answers with `results` and `usage`.

    ```python
    from rerank_plugins import load_reranker
    from rerank_plugins.testing.cohere_like import CohereLike

    with CohereLike() as server:
        with load_reranker({"use": "http", "base_url": server.url, "api_key": server.key}) as reranker:
            assert reranker.rerank("red apple", ["a car", "a red apple"])[0].index == 1
    ```
    """

    paths = ("/rerank", "/v1/rerank", "/v2/rerank")
    optional = {"model": str, "top_n": int, "instruction": str}  # noqa: RUF012

    def answer(self, body: Mapping[str, Any], pairs: Pairs) -> Any:
        """Return the results, best first, and a usage that counts each word as a token."""
        words = sum(len(text.split()) for text in (body["query"], *body["documents"]))
        return {
            "model": body.get("model", "served"),
            "results": [{"index": index, "relevance_score": score} for index, score in pairs],
            "usage": {"total_tokens": words},
        }
