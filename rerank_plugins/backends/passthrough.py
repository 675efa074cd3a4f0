"""Keeps the retriever's order: the last entry of a fallback, and the baseline for a reranker."""

from __future__ import annotations

from ..core.scorer import Backend
from ..core.types import Capabilities, RerankRequest, Scores
from ..options import Options

__all__ = ["Passthrough"]


class PassthroughOptions(Options):
    """Passthrough has no options."""


class Passthrough(Backend):
    """Scores nothing and keeps the retriever's order; cannot fail and takes no time."""

    Options = PassthroughOptions
    model = "passthrough"
    capabilities = Capabilities(scale="ordinal")
    instant = True

    def __init__(self, options: PassthroughOptions | None = None) -> None:
        """Take no options."""
        super().__init__()

    async def ascore(self, request: RerankRequest) -> Scores:
        """Return no scores."""
        return Scores(values=(None,) * len(request.documents), model=self.label, capabilities=self.capabilities)
