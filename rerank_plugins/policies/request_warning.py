"""Adds a backend's warning about the whole request to the reason of the answer."""

from __future__ import annotations

from contextlib import suppress
from dataclasses import replace

from ..core.errors import RerankError
from ..core.scorer import Scorer, Wrapper
from ..core.types import RerankRequest, Scores

__all__ = ["RequestWarning"]


class RequestWarning(Wrapper):
    """Ask the backend for its warning about the request, after the scores are known: the model is loaded then.

    It is outside of the policies that divide a request or its documents, so that the warning counts whole documents.
    """

    def __init__(self, inner: Scorer, backend: Scorer) -> None:
        """Wrap `inner`, the backend with its policies."""
        super().__init__(inner)
        self.backend = backend

    async def ascore(self, request: RerankRequest) -> Scores:
        """Score, and add the warning."""
        scores = await self.inner.ascore(request)
        warning = None
        with suppress(RerankError):  # the scores may come from a cache, and the model's files may be gone
            warning = await self.backend.request_warning(request)
        if warning is None:
            return scores
        return replace(scores, reason=warning if scores.reason is None else f"{scores.reason}; {warning}")
