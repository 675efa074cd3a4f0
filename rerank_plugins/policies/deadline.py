"""Deadline: one time limit for the whole call, including retries and fallbacks."""

from __future__ import annotations

from ..core.deadline import deadline_passed, deadline_scope, run_with_deadline, seconds_left
from ..core.scorer import Scorer, Wrapper
from ..core.types import RerankRequest, Scores

__all__ = ["Deadline", "deadline_passed", "run_with_deadline", "score_within", "seconds_left"]


async def score_within(
    scorer: Scorer, request: RerankRequest, seconds: float | None, reported_seconds: float | None = None
) -> Scores:
    """Score within a time limit.

    A scorer with a fallback inside watches the time itself. If it were cancelled from outside, the fallback's last
    entry (the retriever's order, which takes no time) could not answer.

    Args:
        scorer: The scorer to call.
        request: The query and documents.
        seconds: The time limit; `None` for none.
        reported_seconds: Seconds that the error reports, if `seconds` is only the rest of a longer limit.

    Raises:
        DeadlineExceeded: The time ran out.
    """
    if seconds is None or not scorer.keeps_deadline:
        return await run_with_deadline(seconds, scorer.ascore(request), scorer.label, reported_seconds)
    with deadline_scope(seconds):
        return await scorer.ascore(request)


class Deadline(Wrapper):
    """Limit the whole call to `seconds`. `Reranker` starts this clock earlier, so preparing the texts counts too."""

    def __init__(self, inner: Scorer, seconds: float) -> None:
        """Limit `inner` to `seconds`, a number above 0."""
        super().__init__(inner)
        self.deadline = self.seconds = seconds

    async def ascore(self, request: RerankRequest) -> Scores:
        """Score within this deadline, or within a nearer one around it."""
        left = seconds_left()
        seconds = self.seconds if left is None else min(self.seconds, left)
        return await score_within(self.inner, request, seconds, self.seconds)
