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

from ..core.hosted import HostedBackend
from ..core.types import Capabilities, RerankRequest, Scores
from ..options import Count, HostedOptions

__all__ = ["Infinity"]

LONGEST = 8192 * 15  # characters of one text (INPUT_STRING in pymodels.py)


class InfinityOptions(HostedOptions):
    """Options of an Infinity server; `base_url` is needed, `api_key` where it was started with one."""

    raw_scores: bool = False
    """Ask for the model's logits instead of their sigmoid."""
    max_tokens: Count | None = None
    """What the model reads of query and document together; without it, cuts are not reported."""


class Infinity(HostedBackend):
    """An Infinity server, at `base_url`; one started with `--url-prefix` has it there too."""

    Options = InfinityOptions
    key_required = False
    key_variables = ("INFINITY_API_KEY",)

    def __init__(self, model: str | None = None, options: InfinityOptions | None = None) -> None:
        """Describe the server; `model` is the name it serves the model under. Without one, none is sent."""
        options = options or InfinityOptions()
        super().__init__(model, **options.shared())
        self._raw_scores = options.raw_scores
        self.capabilities = Capabilities(
            scale="logit" if options.raw_scores else "unit",
            scale_option="raw_scores = true",
            max_documents=2048,  # ITEMS_LIMIT
            max_tokens=options.max_tokens,
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
