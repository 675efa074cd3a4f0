"""Infinity (michaelfeil/infinity), a server of your own: `POST {base_url}/rerank`.

Sends `{"model"?, "query", "documents": [text, …], "return_documents": false, "raw_scores": false}`; reads `{"results":
[{"index", "relevance_score"}], "usage": {"total_tokens"}}`
(https://github.com/michaelfeil/infinity, libs/infinity_emb/infinity_emb/fastapi_schemas/pymodels.py; read in November
2026). Infinity cuts a pair to the model's length at the longer side, which may be the query; no field changes that. Its
`usage` counts characters unless the server runs with `--lengths-via-tokenize` (observed with 0.0.78).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import replace
from typing import Any

from ..core.types import Capabilities, RerankRequest, Scores, Usage
from ..options import Count, HostedOptions
from .server_info import InformedBackend

__all__ = ["Infinity"]

MAX_CHARACTERS = 8192 * 15  # of one text (INPUT_STRING in pymodels.py)


class InfinityOptions(HostedOptions):
    """Options of an Infinity server. `base_url` is required; so is `api_key` if the server was started with one."""

    raw_scores: bool = False
    """Request the model's logits instead of their sigmoid."""
    max_tokens: Count | None = None
    """The model's length in tokens, query and document together. Without it, `truncated` is not reported."""
    lengths_via_tokenize: bool = False
    """The server was started with `--lengths-via-tokenize`: its `usage` counts tokens. Otherwise it counts characters,
    and the answer's `usage.input_tokens` is `None`."""


class Infinity(InformedBackend):
    """The backend of an Infinity server, at `base_url`, which includes the server's `--url-prefix`."""

    Options = InfinityOptions
    key_required = False
    key_variables = ("INFINITY_API_KEY",)
    info = "infinity"

    def __init__(self, model: str | None = None, options: InfinityOptions | None = None) -> None:
        """Read the options. `model` is the name under which the server serves the model; without it, none is sent."""
        options = options or InfinityOptions()
        super().__init__(model, **options.shared())
        self._raw_scores = options.raw_scores
        self._counts_tokens = options.lengths_via_tokenize
        self.capabilities = Capabilities(
            scale="logit" if options.raw_scores else "unit",
            scale_option="raw_scores = true",
            max_documents=2048,  # ITEMS_LIMIT
            max_tokens=options.max_tokens,
        )

    async def ascore(self, request: RerankRequest) -> Scores:
        """Send one request. The server refuses texts above 122,880 characters: they are cut and marked `truncated`."""
        if all(len(text) <= MAX_CHARACTERS for text in request.documents):
            return await super().ascore(request)
        cut = tuple(text[:MAX_CHARACTERS] for text in request.documents)
        scores = await super().ascore(replace(request, documents=cut))
        flags = scores.truncated or (False,) * len(cut)
        return replace(
            scores,
            truncated=tuple(
                flag or len(text) > MAX_CHARACTERS for flag, text in zip(flags, request.documents, strict=True)
            ),
        )

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
        return ((result["index"], result["relevance_score"]) for result in body["results"])

    def usage(self, body: Any, headers: Mapping[str, str]) -> Usage:
        """Return the number of tokens if the server counts tokens, else an empty usage."""
        return super().usage(body, headers) if self._counts_tokens else Usage()
