"""Several pieces of work at the same time, of which either all end well or none goes on."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine, Iterable
from typing import Any, TypeVar

__all__ = ["together"]

T = TypeVar("T")


async def together(work: Iterable[Coroutine[Any, Any, T]]) -> list[T]:
    """Return what each gives, in order.

    The first error cancels the others, and is raised as it is, not in a group: a caller catches one kind of error,
    however many parts his call was sent in.
    """
    try:
        async with asyncio.TaskGroup() as group:
            tasks = [group.create_task(each) for each in work]
    except BaseExceptionGroup as several:
        error = several.exceptions[0]
        raise error from error.__cause__
    return [task.result() for task in tasks]
