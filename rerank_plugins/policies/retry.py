"""Send again what may work the second time, and nothing else."""

from __future__ import annotations

import asyncio
import random

from ..core.errors import TransientError
from ..core.scorer import Scorer, Wrapper
from ..core.types import RerankRequest, Scores
from ..options import Count, Wait
from .deadline import seconds_left
from .stack import PolicyOptions, Stack

__all__ = ["Retry", "RetryOptions"]

LONGEST_WAIT = 60.0
"""Seconds: a vendor that asks for more than this is down for the purposes of a query."""


class RetryOptions(PolicyOptions):
    """When a request is sent again."""

    attempts: Count = 3
    """Attempts in all, the first one included."""
    wait_initial: Wait = 0.5
    """Seconds before the second attempt, at most; the bound doubles with each attempt."""
    wait_max: Wait = 8.0
    """Seconds before any attempt, at most."""

    def wrap(self, scorer: Scorer, stack: Stack) -> Scorer:
        """Return `scorer` asked again after errors that may pass."""
        if self.attempts == 1 or stack.backend.instant:  # what answers at once does not fail for a while
            return scorer
        return Retry(scorer, attempts=self.attempts, wait_initial=self.wait_initial, wait_max=self.wait_max)


class Retry(Wrapper):
    """Repeat after `TransientError`, with exponential backoff and full jitter; `Retry-After` is obeyed.

    Full jitter: the wait before try n + 1 is uniform in [0, min(wait_max, wait_initial * 2 ** (n - 1))] (Marc Brooker,
    "Exponential Backoff And Jitter", AWS Architecture Blog, 2015-03-04). A wait that the deadline cannot hold is not
    begun: the error comes at once, and a fallback has the time.
    """

    def __init__(self, inner: Scorer, *, attempts: int = 3, wait_initial: float = 0.5, wait_max: float = 8.0) -> None:
        """Try at most `attempts` times in all."""
        super().__init__(inner)
        self.attempts = attempts
        self.wait_initial = wait_initial
        self.wait_max = wait_max

    async def ascore(self, request: RerankRequest) -> Scores:
        """Ask, and ask again."""
        for attempt in range(1, self.attempts):
            try:
                return await self.inner.ascore(request)
            except TransientError as error:
                wait = self._wait(attempt, error)
                if wait is None:
                    raise
            await asyncio.sleep(wait)
        return await self.inner.ascore(request)

    def _wait(self, attempt: int, error: TransientError) -> float | None:
        if error.retry_after is not None:
            wait = error.retry_after
            if wait > max(LONGEST_WAIT, self.wait_max):
                return None
        else:
            # Not for secrets: jitter keeps clients that failed together from coming back together.
            doubled = self.wait_initial * 2.0 ** min(attempt - 1, 64)  # above 1023, a float overflows
            wait = random.uniform(0.0, min(self.wait_max, doubled))  # noqa: S311
        left = seconds_left()
        return None if left is not None and wait >= left else wait
