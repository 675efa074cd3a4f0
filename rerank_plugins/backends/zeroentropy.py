"""ZeroEntropy's rerankers: `POST https://api.zeroentropy.dev/v1/models/rerank`.

Sends `{"model", "query", "documents": [text, …], "latency": "fast" or "slow"}`; reads `{"results": [{"index",
"relevance_score"}], "total_tokens", "total_bytes", "actual_latency_mode", …}`
(https://docs.zeroentropy.dev/api-reference/models/rerank, and the SDK zeroentropy 0.1.0a11; read in November 2026).

Without `latency` the API answers over the rate limit all the same, ten seconds and more later; with "fast" it answers
429, which retries and fallbacks understand. So it is always sent.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import replace
from typing import Any, Literal

from ..core.hosted import HostedBackend
from ..core.types import Capabilities, RerankRequest, Usage
from ..core.wire import whole_number
from ..options import HostedOptions

__all__ = ["ZeroEntropy"]

LIMITS = Capabilities(
    scale="unit",  # "will range between 0.0 and 1.0 … dependent on only the query and the scored document" (SDK)
    # "The maximum per-request payload size is 5000000 bytes", where a document counts with the query and 150 bytes more
    # (API reference). With at most 1,000 documents (ours: none is documented) half of that leaves room for queries of
    # two thousand bytes.
    max_documents=1000,
    max_bytes=2_500_000,
    max_tokens=32_768,  # the models' context (huggingface.co/zeroentropy/zerank-2-reranker)
)


class ZeroEntropyOptions(HostedOptions):
    """Options of ZeroEntropy's API."""

    latency: Literal["fast", "slow"] = "fast"
    """`slow` has much higher rate limits and takes ten seconds and more."""


class ZeroEntropy(HostedBackend):
    """ZeroEntropy's zerank models."""

    Options = ZeroEntropyOptions
    model = "zerank-2"
    base_url = "https://api.zeroentropy.dev/v1"
    base_url_variables = ("ZEROENTROPY_BASE_URL",)
    key_variables = ("ZEROENTROPY_API_KEY", "ZERO_ENTROPY_API_KEY")
    capabilities = LIMITS
    by_model = {"zerank-2": replace(LIMITS, instructions=True)}  # noqa: RUF012

    def __init__(self, model: str | None = None, options: ZeroEntropyOptions | None = None) -> None:
        """Name a model and how long it may take."""
        options = options or ZeroEntropyOptions()
        super().__init__(model, **options.shared())
        self._latency = options.latency

    def encode(self, request: RerankRequest) -> tuple[str, Mapping[str, Any]]:
        """Return ZeroEntropy's body.

        An instruction goes into the query in tags, as zerank-2 was trained
        (https://www.zeroentropy.dev/articles/prompting-best-practices-for-instruction-following-rerankers, 2026-01-22).
        """
        query = request.query
        if request.instruction is not None:
            query = f"<query>{query}</query>\n<instructions>{request.instruction}</instructions>"
        return "models/rerank", {
            "model": self.model,
            "query": query,
            "documents": list(request.documents),
            "latency": self._latency,
        }

    def decode(self, body: Any) -> Iterable[tuple[int, float]]:
        """Return (index, score) of each result."""
        return ((each["index"], each["relevance_score"]) for each in body["results"])

    def usage(self, body: Any, headers: Mapping[str, str]) -> Usage:
        """Return the tokens, which are what it bills."""
        return Usage(input_tokens=whole_number(body.get("total_tokens")))
