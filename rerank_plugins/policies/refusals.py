"""Refusals: a call in which the model declined every document is an error, so that a fallback answers."""

from __future__ import annotations

from ..core.errors import BadResponse, clause
from ..core.scorer import Wrapper
from ..core.types import RerankRequest, Scores

__all__ = ["RequireScore"]


class RequireScore(Wrapper):
    """Raise an error if no document of a call has a score. It is around all parts of a call, and inside a fallback.

    If some documents have a score, the others come after them, with the reason and without a score.
    """

    async def ascore(self, request: RerankRequest) -> Scores:
        """Return the inner scorer's scores.

        Raises:
            BadResponse: The backend declined to score every document.
        """
        scores = await self.inner.ascore(request)
        if scores.degraded or any(value is not None for value in scores.values):
            return scores
        reason = next((reason for reason in scores.reasons or () if reason), "it gave no reason")
        raise BadResponse(
            f"{self.label} gave no score to any of {len(scores.values)} documents: {clause(reason)}. Name a `fallback` "
            "in the spec, or ask another model.",
            backend=self.label,
        )
