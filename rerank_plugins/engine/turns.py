"""How many calls are in a model at once: the others wait before anything of theirs is tokenized, so memory stays bounded."""

from __future__ import annotations

import asyncio
import threading
from collections import deque
from concurrent.futures import Future
from types import TracebackType

__all__ = ["Turns"]

CALLS = 32
"""Enough that short calls pass long ones batch by batch; few enough that their rows (8 MB for 1,000 documents) fit."""


class Turns:
    """`async with` it: first come, first served, over all threads and event loops of the process."""

    def __init__(self, calls: int = CALLS) -> None:
        """Let `calls` in at a time."""
        self._lock = threading.Lock()
        self._free = calls
        self._waiting: deque[Future[None]] = deque()

    async def __aenter__(self) -> None:
        """Wait for a turn; the wait can be left at any time (a deadline)."""
        with self._lock:
            if self._free:
                self._free -= 1
                return
            turn = Future[None]()
            self._waiting.append(turn)
        try:
            await asyncio.wrap_future(turn)
        except BaseException:
            if not turn.cancel():  # it was given at the moment at which the caller left
                self._give()
            raise

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Give the turn to who has waited longest."""
        self._give()

    def _give(self) -> None:
        while True:
            with self._lock:
                if not self._waiting:
                    self._free += 1
                    return
                turn = self._waiting.popleft()
            if turn.set_running_or_notify_cancel():
                turn.set_result(None)
                return
