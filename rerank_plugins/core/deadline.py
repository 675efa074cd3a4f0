"""The clock of a call: when its nearest deadline ends, and work that is cut there."""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import Awaitable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import TypeVar

from .call import CALL
from .context import holding
from .errors import DeadlineExceeded

__all__ = ["counting", "passed", "seconds_left", "within"]

T = TypeVar("T")


def seconds_left() -> float | None:
    """Return the seconds until the nearest deadline of this call, or `None` without one."""
    ends = CALL.get().deadline
    return None if ends is None else ends - asyncio.get_running_loop().time()


def passed() -> bool:
    """Tell whether the nearest deadline of this call has passed: then it is what cancels the work."""
    left = seconds_left()
    return left is not None and left <= 0


@contextmanager
def counting(seconds: float | None) -> Iterator[float | None]:
    """Start a deadline in `seconds` (`None`: no deadline). Yields the loop's time when it ends, or an outer one does."""
    context = CALL.get()
    outer = context.deadline
    if seconds is None:
        yield outer
        return
    until = asyncio.get_running_loop().time() + seconds
    until = until if outer is None else min(until, outer)
    with holding(CALL, replace(context, deadline=until)):
        yield until


async def within(seconds: float | None, work: Awaitable[T], what: str, whole: float | None = None) -> T:
    """Await `work` for at most `seconds`; what it does inside sees the nearer deadline.

    Args:
        seconds: `None` is no limit. If nothing is left of them, `work` does not start.
        work: A coroutine, or another awaitable.
        what: Who did not answer, for the message.
        whole: The deadline in the message, where `seconds` is what was left of it.

    Raises:
        DeadlineExceeded: The time ran out; `work` is cancelled.
    """
    if seconds is None:
        return await work
    if seconds <= 0:
        if inspect.iscoroutine(work):
            work.close()
        raise _exceeded(what, seconds if whole is None else whole)
    with counting(seconds):
        until = asyncio.get_running_loop().time() + seconds
        try:
            async with asyncio.timeout_at(until) as clock:
                return await work
        except TimeoutError as error:
            if not clock.expired() or isinstance(error, DeadlineExceeded):
                raise
            raise _exceeded(what, seconds if whole is None else whole) from error


def _exceeded(what: str, seconds: float) -> DeadlineExceeded:
    return DeadlineExceeded(
        f"{what} did not answer within {max(seconds, 0.0):.3g} s. Raise `deadline`, send fewer or shorter documents, or set "
        "`on_error` to 'degrade' to get the retriever's order instead of this error."
    )
