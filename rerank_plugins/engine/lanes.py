"""Batches of one call, dealt out: whoever is free takes the next."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable
from typing import TypeVar

from ..core.together import together

__all__ = ["deal"]

B = TypeVar("B")


async def deal(batches: Iterable[B], lanes: Iterable[Callable[[B], Awaitable[None]]]) -> None:
    """Give each batch, in order, to the first lane that is free; return when all are done.

    A lane has one batch at a time, so a cancelled call leaves nothing behind but those. The first error ends the call
    and is raised as it is.
    """
    left = iter(batches)

    async def run(lane: Callable[[B], Awaitable[None]]) -> None:
        for batch in left:
            await lane(batch)

    await together(run(lane) for lane in lanes)
