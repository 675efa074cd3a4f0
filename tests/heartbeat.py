"""How long an event loop is held: a timer that should fire every two milliseconds, and when it did."""

from __future__ import annotations

import asyncio
import gc
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager

INTERVAL = 0.002
LONGEST_HOLD = 0.050
"""Seconds for which a call may hold the caller's loop."""
RUNS = 3


class Heartbeat:
    """Records the longest delay of a timer on the running loop, in seconds."""

    def __init__(self) -> None:
        self.longest = 0.0
        self._handle: asyncio.TimerHandle | None = None

    def start(self) -> None:
        self._schedule(asyncio.get_running_loop())

    def stop(self) -> float:
        """Return the longest delay since `start`, the one until now included."""
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
    """Measure the loop inside the block; `longest` holds the result afterwards."""
    beat = Heartbeat()
    beat.start()
    await asyncio.sleep(3 * INTERVAL)
    try:
        yield beat
    finally:
        beat.stop()


async def idle_hold(seconds: float = 0.1) -> float:
    """Return the longest delay while this process does nothing: what the machine itself adds."""
    async with heartbeat() as beat:
        until = time.monotonic() + seconds
        while time.monotonic() < until:
            await asyncio.sleep(0.02)
    return beat.longest


@contextmanager
def frozen_heap() -> Iterator[None]:
    """Keep the objects that exist now out of the garbage collector.

    A full collection looks through the whole heap, which here holds every library of the suite: a quarter of a second.
    """
    gc.collect()
    gc.freeze()
    try:
        yield
    finally:
        gc.unfreeze()


async def hold_above_idle(call: Callable[[], Awaitable[object]]) -> float:
    """Return the longest hold during one call, in seconds, above the idle hold measured just before."""
    idle = await idle_hold()
    async with heartbeat() as beat:
        await call()
    return max(beat.longest - idle, 0.0)


async def smallest_hold(call: Callable[[], Awaitable[object]]) -> float:
    """Return the smallest hold of at most three calls: other programs of the machine only add."""
    holds = []
    with frozen_heap():
        for _ in range(RUNS):
            holds.append(await hold_above_idle(call))
            if holds[-1] < LONGEST_HOLD:
                break
    return min(holds)
