"""One limit of time for the whole call, retries and fallbacks included."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable
from contextvars import ContextVar
from typing import TypeVar

from ..core.errors import DeadlineExceeded
from ..core.scorer import Scorer, Wrapper
from ..core.types import RerankRequest, Scores

__all__ = ["Deadline", "passed", "seconds_left", "within"]

T = TypeVar("T")

_ends: ContextVar[float | None] = ContextVar("rerank_plugins_deadline", default=None)


def seconds_left() -> float | None:
    """Return the seconds until the nearest deadline of this call, or `None` without one."""
    ends = _ends.get()
    return None if ends is None else ends - asyncio.get_running_loop().time()


def passed() -> bool:
    """Tell whether the nearest deadline of this call has passed: then it is what cancels the work."""
    left = seconds_left()
    return left is not None and left <= 0


async def within(seconds: float | None, work: Awaitable[T], what: str) -> T:
    """Await `work` for at most `seconds`; what it does inside sees the nearer deadline.

    Raises:
        DeadlineExceeded: The time ran out; `work` is cancelled.
    """
    if seconds is None:
        return await work
    until = asyncio.get_running_loop().time() + seconds
    outer = _ends.get()
    token = _ends.set(until if outer is None else min(until, outer))
    try:
        async with asyncio.timeout_at(until) as clock:
            return await work
    except TimeoutError as error:
        if not clock.expired() or isinstance(error, DeadlineExceeded):
            raise
        raise DeadlineExceeded(
            f"{what} did not answer within {seconds:.3g} s. Raise `deadline`, send fewer or shorter documents, or set "
            "`on_error` to 'degrade' to get the retriever's order instead of this error."
        ) from error
    finally:
        _ends.reset(token)


class Deadline(Wrapper):
    """Give the whole call `seconds`."""

    def __init__(self, inner: Scorer, seconds: float) -> None:
        """Bound `inner`."""
        super().__init__(inner)
        self.seconds = seconds

    async def ascore(self, request: RerankRequest) -> Scores:
        """Ask the inner scorer, for so long.

        A fallback watches the time itself: cut from outside, its last entry (the retriever's order, which takes no
        time) would lose a race that it has to win.
        """
        if not self.inner.keeps_deadline:
            return await within(self.seconds, self.inner.ascore(request), self.label)
        token = _ends.set(asyncio.get_running_loop().time() + self.seconds)
        try:
            return await self.inner.ascore(request)
        finally:
            _ends.reset(token)
