"""One limit of time for the whole call, retries and fallbacks included."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import TypeVar

from ..core.context import holding
from ..core.errors import DeadlineExceeded
from ..core.scorer import Scorer, Wrapper
from ..core.types import RerankRequest, Scores

__all__ = ["Deadline", "bounded", "passed", "seconds_left", "within"]

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
    with _told(seconds) as until:
        try:
            async with asyncio.timeout_at(until) as clock:
                return await work
        except TimeoutError as error:
            if not clock.expired() or isinstance(error, DeadlineExceeded):
                raise
            raise DeadlineExceeded(
                f"{what} did not answer within {max(seconds, 0.0):.3g} s. Raise `deadline`, send fewer or shorter documents, or set "
                "`on_error` to 'degrade' to get the retriever's order instead of this error."
            ) from error


@contextmanager
def _told(seconds: float) -> Iterator[float]:
    """Give the moment in `seconds`; inside, `seconds_left` counts to it, or to a nearer one."""
    until = asyncio.get_running_loop().time() + seconds
    outer = _ends.get()
    with holding(_ends, until if outer is None else min(until, outer)):
        yield until


async def bounded(scorer: Scorer, request: RerankRequest, seconds: float | None) -> Scores:
    """Ask `scorer` for at most `seconds`.

    A fallback, and what has one inside, watches the time itself: cut from outside, its last entry (the retriever's
    order, which takes no time) would lose a race that it has to win.

    Raises:
        DeadlineExceeded: The time ran out.
    """
    if seconds is None or not scorer.keeps_deadline:
        return await within(seconds, scorer.ascore(request), scorer.label)
    with _told(seconds):
        return await scorer.ascore(request)


class Deadline(Wrapper):
    """Give the whole call `seconds`."""

    def __init__(self, inner: Scorer, seconds: float) -> None:
        """Bound `inner`."""
        super().__init__(inner)
        self.seconds = seconds

    async def ascore(self, request: RerankRequest) -> Scores:
        """Ask the inner scorer, for so long."""
        return await bounded(self.inner, request, self.seconds)
