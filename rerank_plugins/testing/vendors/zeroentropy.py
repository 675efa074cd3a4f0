"""ZeroEntropy's API: https://docs.zeroentropy.dev/api-reference/models/rerank (November 2026)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ..script import Pairs
from ..server import Reply, VendorServer

__all__ = ["ZeroEntropyServer"]

LARGEST = 5_000_000


class ZeroEntropyServer(VendorServer):
    """`POST /v1/models/rerank`; counts bytes as the page says."""

    paths = ("/v1/models/rerank",)
    required = {"model": str, "query": str, "documents": list}  # noqa: RUF012
    optional = {"top_n": int, "latency": str}  # noqa: RUF012
    invalid = 422

    def validate(self, body: Any, headers: Mapping[str, str]) -> Reply | None:
        """Check the model, the mode and the bytes."""
        if (refusal := super().validate(body, headers)) is not None:
            return refusal
        if body["model"] not in ("zerank-2", "zerank-1", "zerank-1-small"):
            return self.refuse(404, "unknown model")
        if body.get("latency", "fast") not in ("fast", "slow"):
            return self.refuse(422, "latency must be fast or slow")
        if self.size(body) > LARGEST:
            return self.refuse(413, "payload too large")
        return None

    @staticmethod
    def size(body: Mapping[str, Any]) -> int:
        """Return `sum(150 + query + document)` in bytes of UTF-8."""
        query = len(body["query"].encode())
        return sum(150 + query + len(text.encode()) for text in body["documents"])

    def refuse(self, status: int, message: str) -> Reply:
        """Say it in `detail`; the page does not show an error."""
        return Reply(status, {"detail": message})

    def answer(self, body: Mapping[str, Any], pairs: Pairs) -> Any:
        """Answer with what was used and how long it took."""
        return {
            "results": [{"index": index, "relevance_score": score} for index, score in pairs],
            "actual_latency_mode": body.get("latency", "fast"),
            "e2e_latency": 0.12,
            "inference_latency": 0.09,
            "total_bytes": self.size(body),
            "total_tokens": sum(len(text.split()) for text in (body["query"], *body["documents"])),
        }
