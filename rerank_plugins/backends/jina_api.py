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

__all__ = ["JinaAPI"]

# One context window for the query and all documents (https://jina.ai/models/jina-reranker-v3, and v3.5: 131,072 tokens),
# so a score depends on the other documents; it is a cosine. What the API does above the 2,048 tokens a document of the
# model's own code (huggingface.co/jinaai/jina-reranker-v3, modeling.py) is not documented; neither is a number of
# documents. Read in November 2026.
LISTWISE = Capabilities(scale="cosine", listwise=True, max_query_tokens=512, max_document_tokens=2048)


class JinaOptions(HostedOptions):
    """Options of Jina's API."""


class JinaAPI(HostedBackend):
    """Jina; the listwise models (v3, v3.5) are never split."""

    Options = JinaOptions
    model = "jina-reranker-v3.5"
    base_url = "https://api.jina.ai/v1"
    key_variables = ("JINA_API_KEY", "JINAAI_API_KEY", "JINA_AI_API_KEY")
    # No limit of documents is documented; 1,000 is ours, as at the other vendors.
    capabilities = Capabilities(scale="unit", max_documents=1000)
    by_model = {  # noqa: RUF012
        "jina-reranker-v3.5": LISTWISE,
        "jina-reranker-v3": LISTWISE,
        # https://jina.ai/models/jina-reranker-m0: a window of 10,240 tokens.
        "jina-reranker-m0": Capabilities(scale="unit", max_documents=1000, max_tokens=10_240),
        # 1,024 tokens a window; longer documents are read in overlapping windows
        # (https://jina.ai/models/jina-reranker-v2-base-multilingual), so nothing is cut.
        "jina-reranker-v2-base-multilingual": Capabilities(scale="unit", max_documents=1000),
    }

    def __init__(self, model: str | None = None, options: JinaOptions | None = None) -> None:
        """Name a model."""
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
        return ((each["index"], each["relevance_score"]) for each in body["results"])
