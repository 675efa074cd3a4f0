"""Adds a backend's warning about the whole request to the reason of the answer."""

from __future__ import annotations

from dataclasses import replace

from ..core.scorer import Scorer, Wrapper
from ..core.types import RerankRequest, Scores

__all__ = ["RequestWarning"]


class RequestWarning(Wrapper):
    """Ask the backend for its warning about the request, once for each call.

    It is outside of the policies that divide a request or its documents, so that the warning counts the documents of
    the caller.
    """

    def __init__(self, inner: Scorer, backend: Scorer) -> None:
        """Wrap `inner`, the backend with its policies."""
        super().__init__(inner)
        self.backend = backend

    async def ascore(self, request: RerankRequest) -> Scores:
        """Score, and add the warning."""
        warning = await self.backend.request_warning(request)
        scores = await self.inner.ascore(request)
        if warning is None:
            return scores
        return replace(scores, reason=warning if scores.reason is None else f"{scores.reason}; {warning}")
