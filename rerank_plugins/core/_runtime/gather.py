"""Run coroutines at the same time; the first error cancels the others."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine, Iterable
from typing import Any, TypeVar

__all__ = ["gather"]

T = TypeVar("T")


async def gather(work: Iterable[Coroutine[Any, Any, T]], limit: int | None = None) -> list[T]:
    """Run coroutines at the same time and return their results, in order.

    `asyncio.gather` would let the others run on after an error. `asyncio.TaskGroup` cancels them, but raises a group;
    here the first error is raised as it is, so a caller handles one kind of error, however many parts the call was sent
    in.

    Args:
        work: The coroutines. With a `limit`, a generator: it makes each one when its turn comes.
        limit: The largest number that runs at once, and the number of tasks. A task for each of hundreds of parts, most
            of which only wait, would block the event loop when a deadline cancels them all.
    """
    if limit is not None:
        return await _gather_limited(work, limit)
    try:
        async with asyncio.TaskGroup() as group:
            tasks = [group.create_task(coroutine) for coroutine in work]
    except BaseExceptionGroup as errors:
        error = errors.exceptions[0]
        raise error from error.__cause__
    return [task.result() for task in tasks]


async def _gather_limited(work: Iterable[Coroutine[Any, Any, T]], limit: int) -> list[T]:
    numbered = enumerate(work)
    results: dict[int, T] = {}

    async def run_next() -> None:
        for number, coroutine in numbered:
            results[number] = await coroutine

    await gather(run_next() for _ in range(limit))
    return [results[number] for number in range(len(results))]
