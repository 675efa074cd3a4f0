"""ZeroEntropy's rerankers: `POST https://api.zeroentropy.dev/v1/models/rerank`.

Sends `{"model", "query", "documents": [text, …], "latency": "fast" or "slow"}`; reads `{"results": [{"index",
"relevance_score"}], "total_tokens", "total_bytes", "actual_latency_mode", …}`
(https://docs.zeroentropy.dev/api-reference/models/rerank, and the SDK zeroentropy 0.1.0a11; read in November 2026).

`latency` is always sent. Over the rate limit, the API answers 429 if it is "fast", which retries and fallbacks handle.
Without the field it answers ten seconds later or more.

In July 2026 ZeroEntropy announced that this API ends on 2026-09-04 (quoted in
https://github.com/garrytan/gbrain/issues/3657 and /4792; the announcement itself was not read, and the API was not
called since). The same models run locally: `zerank`.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import replace
from typing import Any, Literal

from ..core.errors import RateLimited, Rejected, TransientError
from ..core.hosted import HostedBackend
from ..core.reply import token_count
from ..core.types import Capabilities, RerankRequest, Scores, Usage
from ..options import HostedOptions
from .prices import PRICES

__all__ = ["ZeroEntropy"]

NOTICE = (
    "ZeroEntropy announced that its API ends on 2026-09-04: if that is why, use the same models in this process "
    "(`zerank`), or another vendor."
)
LIMITS = Capabilities(
    scale="unit",  # "will range between 0.0 and 1.0 … dependent on only the query and the scored document" (SDK)
    # "The maximum per-request payload size is 5000000 bytes", where each document counts with the query and 150 bytes
    # (API reference). No limit of documents is documented; 1,000 is our choice. Half of the bytes for the documents
    # leaves the other half for 1,000 times the query, of up to 2,000 bytes.
    max_documents=1000,
    max_bytes=2_500_000,
    max_tokens=32_768,  # the models' context (huggingface.co/zeroentropy/zerank-2-reranker)
)


class ZeroEntropyOptions(HostedOptions):
    """Options of ZeroEntropy's API."""

    latency: Literal["fast", "slow"] = "fast"
    """`slow` has much higher rate limits, and takes ten seconds or more."""


class ZeroEntropy(HostedBackend):
    """The backend of ZeroEntropy's API."""

    Options = ZeroEntropyOptions
    model = "zerank-2"
    base_url = "https://api.zeroentropy.dev/v1"
    base_url_variables = ("ZEROENTROPY_BASE_URL",)
    key_variables = ("ZEROENTROPY_API_KEY", "ZERO_ENTROPY_API_KEY")
    list_prices = PRICES["zeroentropy"]
    capabilities = LIMITS
    by_model = {"zerank-2": replace(LIMITS, instructions=True)}  # noqa: RUF012

    def __init__(self, model: str | None = None, options: ZeroEntropyOptions | None = None) -> None:
        """Read the options."""
        options = options or ZeroEntropyOptions()
        super().__init__(model, **options.shared())
        self._latency = options.latency

    async def _ask(self, request: RerankRequest) -> Scores:
        try:
            return await super()._ask(request)
        except (Rejected, TransientError) as error:
            if not isinstance(error, RateLimited):
                error.args = (f"{error} {NOTICE}",)
            raise

    def encode(self, request: RerankRequest) -> tuple[str, Mapping[str, Any]]:
        """Return ZeroEntropy's body.

        zerank-2 was trained with the instruction in tags behind the query
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
        return ((result["index"], result["relevance_score"]) for result in body["results"])

    def usage(self, body: Any, headers: Mapping[str, str]) -> Usage:
        """Return the number of tokens, which ZeroEntropy bills."""
        return Usage(input_tokens=token_count(body.get("total_tokens")))
