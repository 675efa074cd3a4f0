"""Text Embeddings Inference (TEI), Hugging Face's self-hosted server: `POST {base_url}/rerank`.

Sends `{"query", "texts": [text, …], "truncate": true, "raw_scores": false}`; reads a bare list `[{"index", "score"}]`
(https://github.com/huggingface/text-embeddings-inference, docs/openapi.json of 1.7.1 and router/src/http of 1.9; read
in November 2026). A server has one model, so the body names none. The header `x-compute-tokens` counts the tokens.
A warm-up reads the limits from `GET /info`.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from ..core.reply import token_count
from ..core.types import Capabilities, RerankRequest, Usage
from ..options import Count, HostedOptions
from .server_info import InformedBackend

__all__ = ["TEI"]


class TEIOptions(HostedOptions):
    """Options of a TEI server. `base_url` is required; so is `api_key` if the server was started with one."""

    raw_scores: bool = False
    """Request the model's logits instead of their sigmoid."""
    max_documents: Count = 32
    """The server's `--max-client-batch-size`, which is 32 by default. Without it, a warm-up takes what the server
    says."""
    max_tokens: Count | None = None
    """The model's length in tokens, query and document together. Without it, `truncated` is reported after a warm-up
    only, which asks the server."""


class TEI(InformedBackend):
    """The backend of a TEI server, at `base_url`."""

    Options = TEIOptions
    key_required = False
    info = "tei"
    transient_statuses = frozenset({424})  # "Inference failed": an error of the model's process behind the router

    def __init__(self, options: TEIOptions | None = None) -> None:
        """Read the options. There is no `model`: a server has one."""
        options = options or TEIOptions()
        super().__init__(**options.shared())
        self._raw_scores = options.raw_scores
        self._set_by_user = frozenset(options.model_fields_set)
        self.capabilities = Capabilities(
            scale="logit" if options.raw_scores else "unit",
            scale_option="raw_scores = true",
            max_documents=options.max_documents,
            max_tokens=options.max_tokens,
            max_bytes=2_000_000,  # the default of --payload-limit
        )

    def encode(self, request: RerankRequest) -> tuple[str, Mapping[str, Any]]:
        """Return TEI's body. Without `truncate`, servers before 1.9 refuse a request if one text is too long."""
        return "rerank", {
            "query": request.query,
            "texts": list(request.documents),
            "truncate": True,
            "raw_scores": self._raw_scores,
        }

    def decode(self, body: Any) -> Iterable[tuple[int, float]]:
        """Return (index, score) of each entry of the list."""
        return ((result["index"], result["score"]) for result in body)

    def usage(self, body: Any, headers: Mapping[str, str]) -> Usage:
        """Return the number of tokens in the header."""
        return Usage(input_tokens=token_count(headers.get("x-compute-tokens")))
