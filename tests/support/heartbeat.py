"""Measure how long an event loop is blocked: the delay of a timer that is due every two milliseconds."""

from __future__ import annotations

import asyncio
import gc
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager

INTERVAL = 0.002
LONGEST_HOLD = 0.050
"""Seconds for which a call may block the caller's event loop."""
RUNS = 3


class Heartbeat:
    """Records the longest delay of a timer on the running loop, in seconds."""

    def __init__(self) -> None:
        self.longest = 0.0
        self._handle: asyncio.TimerHandle | None = None

    def start(self) -> None:
        self._schedule(asyncio.get_running_loop())

    def stop(self) -> float:
        """Return the longest delay since `start`, including the current one."""
        assert self._handle is not None
        self._note(self._handle.when(), asyncio.get_running_loop())
        self._handle.cancel()
        return self.longest

    def _note(self, due: float, loop: asyncio.AbstractEventLoop) -> None:
        self.longest = max(self.longest, loop.time() - due)

    def _schedule(self, loop: asyncio.AbstractEventLoop) -> None:
        due = loop.time() + INTERVAL

        def beat() -> None:
            self._note(due, loop)
            self._schedule(loop)

        self._handle = loop.call_at(due, beat)


@asynccontextmanager
async def heartbeat() -> AsyncIterator[Heartbeat]:
    """Measure the running loop during the block; `longest` is the result."""
    beat = Heartbeat()
    beat.start()
    await asyncio.sleep(3 * INTERVAL)
    try:
        yield beat
    finally:
        beat.stop()


async def idle_hold(seconds: float = 0.1) -> float:
    """Return the longest delay while this process is idle, which other programs of the machine cause."""
    async with heartbeat() as beat:
        until = time.monotonic() + seconds
        while time.monotonic() < until:
            await asyncio.sleep(0.02)
    return beat.longest


@contextmanager
def frozen_heap() -> Iterator[None]:
    """Keep the objects that exist now out of the garbage collector.

    A full collection scans the whole heap, which holds all libraries of the suite, for a quarter of a second.
    """
    gc.collect()
    gc.freeze()
    try:
        yield
    finally:
        gc.unfreeze()


async def hold_above_idle(call: Callable[[], Awaitable[object]]) -> float:
    """Return the longest block of the loop during one call, in seconds, above the idle delay just before."""
    idle = await idle_hold()
    async with heartbeat() as beat:
        await call()
    return max(beat.longest - idle, 0.0)


async def smallest_hold(call: Callable[[], Awaitable[object]]) -> float:
    """Return the shortest block of at most three calls, since other programs of the machine only add to it."""
    holds = []
    with frozen_heap():
        for _ in range(RUNS):
            holds.append(await hold_above_idle(call))
            if holds[-1] < LONGEST_HOLD:
                break
    return min(holds)
