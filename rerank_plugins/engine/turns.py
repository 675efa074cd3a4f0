"""How many calls are in a model at once: the others wait before anything of theirs is tokenized, so memory stays bounded."""

from __future__ import annotations

import asyncio
import threading
import weakref
from collections import deque
from concurrent.futures import Future
from types import TracebackType

__all__ = ["Turn", "Turns"]

CALLS = 32
"""Enough that short calls pass long ones batch by batch; few enough that their rows (8 MB for 1,000 documents) fit."""
LOOK = 1.0
"""Seconds after which who waits looks whether those inside are still there: a closed event loop tells nobody."""


class Turns:
    """First come, first served, over all threads and event loops of the process: `async with turns.one()`."""

    def __init__(self, calls: int = CALLS) -> None:
        """Let `calls` in at a time."""
        self._calls = calls
        self._inside: set[Turn] = set()
        self._waiting: dict[Turn, Future[None]] = {}
        self._told: deque[tuple[Turn | None, Future[None] | None]] = deque()
        self._lock = threading.Lock()

    def one(self) -> Turn:
        """Return what a call is in the model with."""
        return Turn(self)

    def ask(self, turn: Turn) -> Future[None]:
        """Queue a call, and return what is done when it is let in."""
        given = Future[None]()
        given.set_running_or_notify_cancel()  # who leaves says so by `end`
        self._tell(turn, given)
        return given

    def end(self, turn: Turn) -> None:
        """Forget a call, whether it was let in or not; who has waited longest comes next."""
        self._tell(turn, None)

    def look(self) -> None:
        """Let in who waits for calls whose event loop was closed in the meantime."""
        self._tell(None, None)

    def _tell(self, turn: Turn | None, given: Future[None] | None) -> None:
        # Nobody waits for the lock: the collector ends calls that their event loop forgot, on any thread at any moment,
        # and so on the one that holds it. Whoever holds it does what was told in the meantime.
        self._told.append((turn, given))
        while self._told and self._lock.acquire(blocking=False):
            try:
                self._settle()
            finally:
                self._lock.release()

    def _settle(self) -> None:
        while self._told:
            turn, given = self._told.popleft()
            if turn is None:
                continue
            if given is not None:
                self._waiting[turn] = given
            else:
                self._waiting.pop(turn, None)
                self._inside.discard(turn)
        self._inside = {turn for turn in self._inside if not turn.forgotten}
        while self._waiting and len(self._inside) < self._calls:
            turn = next(iter(self._waiting))
            given = self._waiting.pop(turn)
            if not turn.forgotten:
                self._inside.add(turn)
                given.set_result(None)


class Turn:
    """One call's place in a model, or in the queue before it."""

    def __init__(self, turns: Turns) -> None:
        """Belong to the event loop that runs."""
        self._turns = turns
        self._loop = weakref.ref(asyncio.get_running_loop())  # held, it could not be collected, nor its calls

    @property
    def forgotten(self) -> bool:
        """Whether the event loop was closed with the call on it, which then never goes on nor ends."""
        loop = self._loop()
        return loop is None or loop.is_closed()

    async def __aenter__(self) -> None:
        """Wait to be let in; the wait can be left at any time (a deadline)."""
        try:
            given = self._turns.ask(self)
            if not given.done():
                let_in = asyncio.wrap_future(given)
                while not (await asyncio.wait([let_in], timeout=LOOK))[0]:
                    self._turns.look()
        except BaseException:
            self._turns.end(self)
            raise

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Let the next one in."""
        self._turns.end(self)
