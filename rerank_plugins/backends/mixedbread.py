"""Mixedbread's reranking API: `POST https://api.mixedbread.com/v1/reranking`.

Sends `{"model", "query", "input": [text or object, …], "rank_fields"?, "return_input": false}`; reads `{"data":
[{"index", "score"}], "usage": {"total_tokens"}}` (https://mixedbread.com/api-reference/endpoints/reranking, and the SDK
mixedbread 0.54.0; read in November 2026). "Documents exceeding token limit will be truncated", and no field changes
that. Neither the page nor the SDK has a field for an instruction.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from ..core.hosted import HostedBackend
from ..core.types import Capabilities, RerankRequest
from ..options import HostedOptions
from .prices import PRICES

__all__ = ["Mixedbread"]


def _limits(tokens: int) -> Capabilities:
    # The score is "relevance on a 0-1 scale" (SDK, rerank_response.py). No limit of documents is documented: 1,000 is
    # our choice, as for other vendors.
    return Capabilities(scale="unit", fields=True, max_documents=1000, max_tokens=tokens)


class MixedbreadOptions(HostedOptions):
    """Options of Mixedbread's API."""

    rank_fields: Sequence[str] | None = None
    """The fields of mappings that are read; without it, all of them."""


class Mixedbread(HostedBackend):
    """The backend of Mixedbread's API. Mappings are sent as objects."""

    Options = MixedbreadOptions
    model = "mixedbread-ai/mxbai-rerank-large-v2"
    base_url = "https://api.mixedbread.com/v1"
    base_url_variables = ("MIXEDBREAD_BASE_URL",)
    key_variables = ("MXBAI_API_KEY",)
    list_prices = PRICES["mixedbread"]
    capabilities = _limits(8192)  # https://mixedbread.com/docs/reranking/models/mxbai-rerank-large-v2
    by_model = {  # noqa: RUF012
        f"{owner}mxbai-rerank-{size}-v1": _limits(512)
        for size in ("xsmall", "base", "large")
        for owner in ("", "mixedbread-ai/")
    }

    def __init__(self, model: str | None = None, options: MixedbreadOptions | None = None) -> None:
        """Read the options."""
        options = options or MixedbreadOptions()
        super().__init__(model, **options.shared())
        self._rank_fields = list(options.rank_fields or ())

    def encode(self, request: RerankRequest) -> tuple[str, Mapping[str, Any]]:
        """Return Mixedbread's body.

        The API accepts either strings or objects. If one document is a string, all are sent as strings.
        """
        fields = [mapping for mapping in request.fields or () if mapping is not None]
        objects = len(fields) == len(request.documents)
        payload: dict[str, Any] = {
            "model": self.model,
            "query": request.query,
            "input": [dict(mapping) for mapping in fields] if objects else list(request.documents),
            "return_input": False,
        }
        if objects and self._rank_fields:
            payload["rank_fields"] = self._rank_fields
        return "reranking", payload

    def decode(self, body: Any) -> Iterable[tuple[int, float]]:
        """Return (index, score) of each result."""
        return ((result["index"], result["score"]) for result in body["data"])
