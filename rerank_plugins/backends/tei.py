"""Hugging Face Text Embeddings Inference, a server of your own: `POST {base_url}/rerank`.

Sends `{"query", "texts": [text, …], "truncate": true, "raw_scores": false}`; reads a bare list `[{"index", "score"}]`
(https://github.com/huggingface/text-embeddings-inference, docs/openapi.json of 1.7.1 and router/src/http of 1.9; read in
November 2026). A server holds one model, so none is sent. Tokens come in the header `x-compute-tokens`.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from ..core.hosted import TIMEOUT, HostedBackend
from ..core.scorer import MAX_IN_FLIGHT
from ..core.secret import Secret
from ..core.types import Capabilities, RerankRequest, Usage
from ..core.wire import whole_number

__all__ = ["TEI"]


class TEI(HostedBackend):
    """A TEI server, at `base_url`."""

    key_required = False
    transient_statuses = frozenset({424})  # "Inference failed": the model's process behind the router

    def __init__(
        self,
        *,
        api_key: str | Secret | None = None,
        base_url: str | None = None,
        timeout: float = TIMEOUT,
        max_in_flight: int = MAX_IN_FLIGHT,
        price: Mapping[str, float] | None = None,
        raw_scores: bool = False,
        max_documents: int = 32,
        max_tokens: int | None = None,
    ) -> None:
        """Describe the server.

        Args:
            api_key: For a server started with `--api-key`.
            base_url: The address; needed.
            timeout: Seconds for one attempt.
            max_in_flight: Parts of one call that are sent at once.
            price: US dollars per million tokens.
            raw_scores: Ask for the model's logits instead of their sigmoid.
            max_documents: The server's `--max-client-batch-size`; 32 unless it was started with another.
            max_tokens: What the model reads of query and document together; without it, cuts are not reported.
        """
        super().__init__(api_key=api_key, base_url=base_url, timeout=timeout, max_in_flight=max_in_flight, price=price)
        self._raw_scores = raw_scores
        self.capabilities = Capabilities(
            scale="logit" if raw_scores else "unit",
            scale_option="raw_scores = true",
            max_documents=max_documents,
            max_tokens=max_tokens,
            max_bytes=2_000_000,  # --payload-limit, by default
        )

    def encode(self, request: RerankRequest) -> tuple[str, Mapping[str, Any]]:
        """Return TEI's body; without `truncate` one long text fails all of them on servers before 1.9."""
        return "rerank", {
            "query": request.query,
            "texts": list(request.documents),
            "truncate": True,
            "raw_scores": self._raw_scores,
        }

    def decode(self, body: Any) -> Iterable[tuple[int, float]]:
        """Return (index, score) of each entry of the list."""
        return ((each["index"], each["score"]) for each in body)

    def usage(self, body: Any, headers: Mapping[str, str]) -> Usage:
        """Return the tokens of the header."""
        return Usage(input_tokens=whole_number(headers.get("x-compute-tokens")))
