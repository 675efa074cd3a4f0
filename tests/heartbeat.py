"""How long an event loop is held: a timer that should fire every two milliseconds, and when it did."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

INTERVAL = 0.002


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
