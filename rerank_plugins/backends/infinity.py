"""Infinity (michaelfeil/infinity), a server of your own: `POST {base_url}/rerank`.

Sends `{"model"?, "query", "documents": [text, …], "return_documents": false, "raw_scores": false}`; reads `{"results":
[{"index", "relevance_score"}], "usage": {"total_tokens"}}`
(github.com/michaelfeil/infinity, libs/infinity_emb/infinity_emb/fastapi_schemas/pymodels.py; read in November 2026).
Infinity cuts a pair at the model's length from the longer side, which may be the query; it has no switch for that.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import replace
from typing import Any

from ..core.hosted import TIMEOUT, HostedBackend
from ..core.scorer import MAX_IN_FLIGHT
from ..core.secret import Secret
from ..core.types import Capabilities, RerankRequest, Scores

__all__ = ["Infinity"]

LONGEST = 8192 * 15  # characters of one text (INPUT_STRING in pymodels.py)


class Infinity(HostedBackend):
    """An Infinity server, at `base_url`; one started with `--url-prefix` has it there too."""

    key_required = False
    key_variables = ("INFINITY_API_KEY",)

    def __init__(
        self,
        model: str | None = None,
        *,
        api_key: str | Secret | None = None,
        base_url: str | None = None,
        timeout: float = TIMEOUT,
        max_in_flight: int = MAX_IN_FLIGHT,
        price: Mapping[str, float] | None = None,
        raw_scores: bool = False,
        max_tokens: int | None = None,
    ) -> None:
        """Describe the server.

        Args:
            model: The name it serves the model under; without one, none is sent.
            api_key: For a server started with `--api-key`.
            base_url: The address; needed.
            timeout: Seconds for one attempt.
            max_in_flight: Parts of one call that are sent at once.
            price: US dollars per million tokens.
            raw_scores: Ask for the model's logits instead of their sigmoid.
            max_tokens: What the model reads of query and document together; without it, cuts are not reported.
        """
        super().__init__(
            model, api_key=api_key, base_url=base_url, timeout=timeout, max_in_flight=max_in_flight, price=price
        )
        self._raw_scores = raw_scores
        self.capabilities = Capabilities(
            scale="logit" if raw_scores else "unit",
            scale_option="raw_scores = true",
            max_documents=2048,  # ITEMS_LIMIT
            max_tokens=max_tokens,
        )

    async def ascore(self, request: RerankRequest) -> Scores:
        """Send one request; a longer text would fail all of them, so it is cut, and the answer says so."""
        cut = tuple(text[:LONGEST] for text in request.documents)
        scores = await super().ascore(replace(request, documents=cut))
        if cut == request.documents:
            return scores
        return replace(scores, truncated=tuple(len(text) > LONGEST for text in request.documents))

    def encode(self, request: RerankRequest) -> tuple[str, Mapping[str, Any]]:
        """Return Infinity's body."""
        payload: dict[str, Any] = {"model": self.model} if self.model else {}
        return "rerank", payload | {
            "query": request.query,
            "documents": list(request.documents),
            "return_documents": False,
            "raw_scores": self._raw_scores,
        }

    def decode(self, body: Any) -> Iterable[tuple[int, float]]:
        """Return (index, score) of each result."""
        return ((each["index"], each["relevance_score"]) for each in body["results"])
