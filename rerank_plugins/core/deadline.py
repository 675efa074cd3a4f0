"""The deadline of a call: how much time is left, and running work until then."""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import Awaitable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import TypeVar

from ._runtime.context_vars import set_context
from .call import CURRENT_CALL
from .errors import DeadlineExceeded

__all__ = ["deadline_passed", "deadline_scope", "run_with_deadline", "seconds_left"]

T = TypeVar("T")


def seconds_left() -> float | None:
    """Return the seconds until the nearest deadline of this call; negative after it, `None` without a deadline."""
    ends = CURRENT_CALL.get().deadline
    return None if ends is None else ends - asyncio.get_running_loop().time()


def deadline_passed() -> bool:
    """Return whether the nearest deadline of this call has passed. It tells a timeout from another cancellation."""
    left = seconds_left()
    return left is not None and left <= 0


@contextmanager
def deadline_scope(seconds: float | None) -> Iterator[float | None]:
    """Set a deadline for the code inside the block. An outer deadline that ends earlier stays in force.

    It only sets the time that `seconds_left` reports; `run_with_deadline` also cancels the work.

    Args:
        seconds: Seconds from now; `None` sets no deadline.

    Yields:
        The event loop's time at which the nearest deadline ends, or `None` without one.
    """
    context = CURRENT_CALL.get()
    outer = context.deadline
    if seconds is None:
        yield outer
        return
    until = asyncio.get_running_loop().time() + seconds
    until = until if outer is None else min(until, outer)
    with set_context(CURRENT_CALL, replace(context, deadline=until)):
        yield until


async def run_with_deadline(
    seconds: float | None, work: Awaitable[T], label: str, reported_seconds: float | None = None
) -> T:
    """Await `work`, and cancel it after `seconds`. Inside it, `seconds_left` reports the nearest deadline.

    Args:
        seconds: The time limit; `None` for none. At 0 or below, `work` is never started.
        work: A coroutine, or another awaitable.
        label: Label of the scorer, for the error.
        reported_seconds: Seconds that the error reports, if `seconds` is only the rest of a longer limit.

    Raises:
        DeadlineExceeded: The time ran out.
    """
    if seconds is None:
        return await work
    if seconds <= 0:
        if inspect.iscoroutine(work):
            work.close()
        raise _deadline_error(label, seconds if reported_seconds is None else reported_seconds)
    with deadline_scope(seconds):
        deadline = asyncio.get_running_loop().time() + seconds
        try:
            async with asyncio.timeout_at(deadline) as timeout:
                return await work
        except TimeoutError as error:
            # `work` may raise a TimeoutError of its own, or pass on the error of a nearer deadline inside it.
            if not timeout.expired() or isinstance(error, DeadlineExceeded):
                raise
            raise _deadline_error(label, seconds if reported_seconds is None else reported_seconds) from error


def _deadline_error(label: str, seconds: float) -> DeadlineExceeded:
    return DeadlineExceeded(
        f"{label} did not answer within {max(seconds, 0.0):.3g} s. Raise `deadline`, send fewer or shorter documents, "
        "or set `on_error` to 'degrade' to get the retriever's order instead of this error."
    )
