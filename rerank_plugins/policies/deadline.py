"""One limit of time for the whole call, retries and fallbacks included."""

from __future__ import annotations

from ..core.deadline import counting, passed, seconds_left, within
from ..core.scorer import Scorer, Wrapper
from ..core.types import RerankRequest, Scores

__all__ = ["Deadline", "bounded", "passed", "seconds_left", "within"]


async def bounded(scorer: Scorer, request: RerankRequest, seconds: float | None, whole: float | None = None) -> Scores:
    """Ask `scorer` for at most `seconds`, which are left of `whole`.

    A fallback, and what has one inside, watches the time itself: cut from outside, its last entry (the retriever's
    order, which takes no time) would lose a race that it has to win.

    Raises:
        DeadlineExceeded: The time ran out.
    """
    if seconds is None or not scorer.keeps_deadline:
        return await within(seconds, scorer.ascore(request), scorer.label, whole)
    with counting(seconds):
        return await scorer.ascore(request)


class Deadline(Wrapper):
    """Give the whole call `seconds`. `Reranker` starts this clock earlier: what it prepares counts too."""

    def __init__(self, inner: Scorer, seconds: float) -> None:
        """Bound `inner`."""
        super().__init__(inner)
        self.deadline = self.seconds = seconds

    async def ascore(self, request: RerankRequest) -> Scores:
        """Ask the inner scorer for as long as this deadline leaves, or a nearer one around it."""
        left = seconds_left()
        seconds = self.seconds if left is None else min(self.seconds, left)
        return await bounded(self.inner, request, seconds, self.seconds)
