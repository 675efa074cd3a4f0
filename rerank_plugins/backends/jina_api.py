"""Jina's hosted rerankers: `POST https://api.jina.ai/v1/rerank`.

Sends `{"model", "query", "documents": [text, …], "return_documents": false}`; reads `{"results": [{"index",
"relevance_score"}], "usage": {"total_tokens"}}` (https://jina.ai/reranker, and langchain-community's and Haystack's
clients; read in November 2026). Errors are `{"detail": …}`. No field for an instruction is documented.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from ..core.hosted import HostedBackend
from ..core.types import Capabilities, RerankRequest
from ..options import HostedOptions
from .prices import PRICES

__all__ = ["JinaAPI"]

# The query and all documents share one context window of 131,072 tokens (https://jina.ai/models/jina-reranker-v3, and
# v3.5), so a score depends on the other documents. Scores are cosines. The model's own code cuts a document at 2,048
# tokens (https://huggingface.co/jinaai/jina-reranker-v3, modeling.py). What the API does with longer ones is not
# documented, and neither is a limit of documents. Read in November 2026.
LISTWISE = Capabilities(scale="cosine", listwise=True, max_query_tokens=512, max_document_tokens=2048)


class JinaOptions(HostedOptions):
    """Options of Jina's API."""


class JinaAPI(HostedBackend):
    """The backend of Jina's API. Requests to the listwise models (v3, v3.5) are never split."""

    Options = JinaOptions
    model = "jina-reranker-v3.5"
    base_url = "https://api.jina.ai/v1"
    key_variables = ("JINA_API_KEY", "JINAAI_API_KEY", "JINA_AI_API_KEY")
    list_prices = PRICES["jina-api"]
    # No limit of documents is documented: 1,000 is our choice, as for other vendors.
    capabilities = Capabilities(scale="unit", max_documents=1000)
    by_model = {  # noqa: RUF012
        "jina-reranker-v3.5": LISTWISE,
        "jina-reranker-v3": LISTWISE,
        # https://jina.ai/models/jina-reranker-m0: a window of 10,240 tokens.
        "jina-reranker-m0": Capabilities(scale="unit", max_documents=1000, max_tokens=10_240),
        # Documents of more than 1,024 tokens are read in overlapping windows, so nothing is cut
        # (https://jina.ai/models/jina-reranker-v2-base-multilingual).
        "jina-reranker-v2-base-multilingual": Capabilities(scale="unit", max_documents=1000),
    }

    # Elastic's service moves to v3.5 (https://github.com/elastic/docs-content/pull/7584, 2026-07-27).
    retired = {"jina-reranker-v3": "jina-reranker-v3.5 replaces it"}  # noqa: RUF012

    def __init__(self, model: str | None = None, options: JinaOptions | None = None) -> None:
        """Read the options."""
        super().__init__(model, **(options or JinaOptions()).shared())

    def encode(self, request: RerankRequest) -> tuple[str, Mapping[str, Any]]:
        """Return Jina's body."""
        return "rerank", {
            "model": self.model,
            "query": request.query,
            "documents": list(request.documents),
            "return_documents": False,
        }

    def decode(self, body: Any) -> Iterable[tuple[int, float]]:
        """Return (index, score) of each result."""
        return ((result["index"], result["relevance_score"]) for result in body["results"])
