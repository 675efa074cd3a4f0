"""The order given: the last entry of a fallback, and the baseline that a reranker has to beat."""

from __future__ import annotations

from ..core.scorer import Backend
from ..core.types import Capabilities, RerankRequest, Scores
from ..options import Options

__all__ = ["Passthrough"]


class PassthroughOptions(Options):
    """The order given has no options."""


class Passthrough(Backend):
    """Scores nothing and keeps the retriever's order; cannot fail and takes no time."""

    Options = PassthroughOptions
    model = "passthrough"
    capabilities = Capabilities(scale="ordinal")
    instant = True

    def __init__(self, options: PassthroughOptions | None = None) -> None:
        """There is nothing to choose."""
        super().__init__()

    async def ascore(self, request: RerankRequest) -> Scores:
        """Return no scores."""
        return Scores(values=(None,) * len(request.documents), model=self.label, capabilities=self.capabilities)
