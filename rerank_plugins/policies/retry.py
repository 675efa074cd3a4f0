"""Retry: sends a request again after an error that may be transient."""

from __future__ import annotations

import asyncio
import random

from ..core.errors import TransientError
from ..core.scorer import Scorer, Wrapper
from ..core.types import RerankRequest, Scores
from ..options import Count, Wait
from .deadline import seconds_left
from .policy_options import PolicyOptions
from .stack import Stack

__all__ = ["Retry", "RetryOptions"]

LONGEST_WAIT = 60.0
"""Seconds. If a vendor asks for a longer wait, the query fails without it."""


class RetryOptions(PolicyOptions):
    """How often a request is sent, and how long the waits between attempts are."""

    attempts: Count = 3
    """Maximum number of attempts, including the first one."""
    wait_initial: Wait = 0.5
    """Maximum wait before the second attempt in seconds. It doubles with each further attempt."""
    wait_max: Wait = 8.0
    """Maximum wait before any attempt in seconds, unless the vendor asks for a longer one."""

    def wrap(self, scorer: Scorer, stack: Stack) -> Scorer:
        """Return `scorer` inside a retry, or `scorer` itself with one attempt or an instant backend."""
        if self.attempts == 1 or stack.backend.instant:  # an instant backend has no transient errors
            return scorer
        return Retry(scorer, attempts=self.attempts, wait_initial=self.wait_initial, wait_max=self.wait_max)


class Retry(Wrapper):
    """Repeat after `TransientError`, with exponential backoff and full jitter. `Retry-After` is obeyed.

    Full jitter: the wait before attempt n + 1 is uniform in [0, min(wait_max, wait_initial * 2 ** (n - 1))] (Marc
    Brooker, "Exponential Backoff And Jitter", AWS Architecture Blog, 2015-03-04,
    https://aws.amazon.com/blogs/architecture/exponential-backoff-and-jitter/). If the deadline ends before the wait,
    the error is raised immediately, so that a fallback has the remaining time.
    """

    def __init__(self, inner: Scorer, *, attempts: int = 3, wait_initial: float = 0.5, wait_max: float = 8.0) -> None:
        """Wrap `inner`.

        Args:
            inner: The scorer to call.
            attempts: Maximum number of attempts, at least 1, including the first one.
            wait_initial: Maximum wait before the second attempt in seconds, at least 0.
            wait_max: Maximum wait before any attempt in seconds, at least 0.
        """
        super().__init__(inner)
        self.attempts = attempts
        self.wait_initial = wait_initial
        self.wait_max = wait_max

    async def ascore(self, request: RerankRequest) -> Scores:
        """Score, and repeat after a `TransientError`."""
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
            # Jitter keeps clients that failed at the same time from retrying at the same time.
            doubled = self.wait_initial * 2.0 ** min(attempt - 1, 64)  # an exponent above 1023 overflows
            wait = random.uniform(0.0, min(self.wait_max, doubled))  # noqa: S311 (not for cryptography)
        left = seconds_left()
        return None if left is not None and wait >= left else wait
