"""Who goes next: a queue over all threads and event loops of the process, first come, first served.

`FairSemaphore` lets a number of calls in at a time. The rate limiter (`policies/limit.py`) is the same queue with another rule. What becomes
of a call whose event loop was closed, collected or held up is decided here, once: `Caller.gone` and `Waiter.absent`.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import threading
import weakref
from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Iterator
from types import TracebackType
from typing import Any, Generic, TypeVar

from .loop import now

__all__ = ["Caller", "FairQueue", "FairSemaphore", "Slot", "Waiter"]

W = TypeVar("W", bound="Waiter")

PATIENCE = 1.0
"""Seconds after which a waiter that was woken and did not come is passed over (it keeps its place), and after which one that was not woken
looks by itself: an event loop that is closed tells nobody."""


class Caller:
    """The event loop that a call runs on, and whether the call can still go on."""

    def __init__(self) -> None:
        """Belong to the running event loop."""
        self._loop = weakref.ref(asyncio.get_running_loop())  # held, it could not be collected, nor its calls

    @property
    def gone(self) -> bool:
        """Whether the event loop was closed or collected with the call on it, which then never goes on nor ends."""
        loop = self._loop()
        return loop is None or loop.is_closed()


class Waiter(Caller):
    """A call that waits in a queue, or was let in."""

    def __init__(self) -> None:
        """Belong to the running event loop."""
        super().__init__()
        self._signal: asyncio.Future[bool] | None = None
        self._woken_at: float | None = None

    def listen(self) -> None:
        """Begin to wait: a `wake` from now on ends the next `wait`."""
        self._signal = asyncio.get_running_loop().create_future()

    def stop(self) -> None:
        """Wait no longer."""
        self._woken_at = None
        self._signal = None  # which holds the event loop

    def wake(self) -> None:
        """Let it look whether it is its turn; from any thread."""
        if self._woken_at is None:
            self._woken_at = now()
        loop, signal = self._loop(), self._signal
        if loop is None or signal is None:
            return
        if loop is asyncio._get_running_loop():
            _resolve(signal, True)
        else:
            with contextlib.suppress(RuntimeError):  # closed in the meantime
                loop.call_soon_threadsafe(_resolve, signal, True)

    async def wait(self, seconds: float) -> bool:
        """Wait to be woken since `listen`, for some seconds at most; return whether it was."""
        assert self._signal is not None
        timer = asyncio.get_running_loop().call_later(seconds, _resolve, self._signal, False)
        try:
            return await self._signal
        finally:
            timer.cancel()

    def absent(self, moment: float) -> bool:
        """Tell whether its event loop is gone, or held up: by a sync call that itself waits in this queue, perhaps."""
        return self.gone or (self._woken_at is not None and moment - self._woken_at >= PATIENCE)


def _resolve(signal: asyncio.Future[bool], woken: bool) -> None:
    if not signal.done():
        signal.set_result(woken)


class FairQueue(ABC, Generic[W]):
    """Calls that wait for their turn, and those that had it and have not left yet."""

    def __init__(self) -> None:
        """Begin empty."""
        # Guards all attributes, here and in subclasses. `leave` never waits for it: the collector ends calls that their event
        # loop forgot, on any thread at any moment, and so on the one that holds the lock. Whoever holds it settles `_left`
        # before and after.
        self._lock = threading.Lock()
        self._left: deque[tuple[W, Any]] = deque()
        self.waiting: dict[W, None] = {}
        self.inside: dict[W, None] = {}

    @abstractmethod
    def opens(self, waiter: W) -> float | None:
        """Return in how many seconds `waiter` may go in if it is the first: `None` is now, 0 when another one leaves.

        Called with the lock held, as all methods that a subclass has.
        """

    def refuse(self, waiter: W) -> None:
        """Raise if it is of no use for `waiter` to wait."""

    def entered(self, waiter: W) -> None:
        """Count one that is let in."""

    def left(self, waiter: W, outcome: Any) -> None:
        """Count one that was let in and has left; `outcome` is None if its event loop is gone."""

    async def enter(self, waiter: W) -> None:
        """Wait for a turn; the wait can be cancelled at any time (a deadline)."""
        try:
            ahead = len(self.waiting)
            while (opens := self._look(waiter)) is not None:
                # The first knows when its time comes, or is woken when another one leaves. The others are woken when they are
                # first; until then they look, the next ones more often, whether it comes.
                woken = await waiter.wait(opens + PATIENCE * ahead or PATIENCE)
                if woken:
                    ahead = 0
                    continue
                with self.locked():
                    ahead = len(self.ahead(waiter))
                    if ahead:
                        self._wake_first()
        except BaseException:
            self.leave(waiter)
            raise

    def leave(self, waiter: W, outcome: Any = None) -> None:
        """Take a call out, whether it was let in or not; who has waited longest comes next."""
        self._left.append((waiter, outcome))
        self._settle_if_free()

    @contextlib.contextmanager
    def locked(self) -> Iterator[None]:
        """Hold the lock; whoever left until then, or meanwhile, is out."""
        with self._lock:
            self._settle()
            yield
        self._settle_if_free()

    def ahead(self, waiter: W) -> list[W]:
        """Return who is before `waiter`, but for those that are absent. With the lock held."""
        moment = now()
        before = itertools.takewhile(lambda other: other is not waiter, self.waiting)
        return [other for other in before if not other.absent(moment)]

    def forget_gone(self) -> None:
        """Take out calls whose event loop is gone. With the lock held."""
        for waiter in [waiter for waiter in self.waiting if waiter.gone]:
            del self.waiting[waiter]
        for waiter in [waiter for waiter in self.inside if waiter.gone]:
            del self.inside[waiter]
            self.left(waiter, None)

    def _look(self, waiter: W) -> float | None:
        """Let it in and return `None` if it is its turn, else let it listen and return when that may be for the first."""
        try:
            with self._lock:
                self._settle()
                waiter.stop()
                self.waiting[waiter] = None  # where it was, if it was there
                first = self._first() is waiter
                opens = self.opens(waiter)
                if opens is not None:
                    self.forget_gone()
                    opens = self.opens(waiter)
                if not first or opens is not None:
                    self.refuse(waiter)
                    waiter.listen()
                    return opens or 0.0
                del self.waiting[waiter]
                self.inside[waiter] = None
                self.entered(waiter)
                self._wake_first()
                return None
        finally:
            self._settle_if_free()

    def _settle_if_free(self) -> None:
        while self._left and self._lock.acquire(blocking=False):
            try:
                self._settle()
            finally:
                self._lock.release()

    def _settle(self) -> None:
        if not self._left:
            return
        while self._left:
            waiter, outcome = self._left.popleft()
            self.waiting.pop(waiter, None)
            if waiter in self.inside:
                del self.inside[waiter]
                self.left(waiter, outcome)
            waiter.stop()
        self._wake_first()

    def _first(self) -> W | None:
        moment, first, gone = now(), None, []
        for waiter in self.waiting:
            if waiter.gone:
                gone.append(waiter)
            elif not waiter.absent(moment):
                first = waiter
                break
        for waiter in gone:
            del self.waiting[waiter]
        return first

    def _wake_first(self) -> None:
        if self.waiting and (first := self._first()) is not None:
            first.wake()


class FairSemaphore(FairQueue[Waiter]):
    """At most `slots` calls at a time, over all threads and event loops of the process: `async with semaphore.acquire()`.

    `asyncio.Semaphore` belongs to one event loop, and `threading.Semaphore` blocks one.
    """

    def __init__(self, slots: int) -> None:
        """Let `slots` calls in at a time."""
        super().__init__()
        self._slots = slots

    def acquire(self) -> Slot:
        """Return an async context manager that holds one slot."""
        return Slot(self)

    def opens(self, waiter: Waiter) -> float | None:
        """Return `None` while a slot is free."""
        return None if len(self.inside) < self._slots else 0.0


class Slot(Waiter):
    """One call's slot, or its place in the queue before it. A class, since the collector cannot end an async generator by itself."""

    def __init__(self, semaphore: FairSemaphore) -> None:
        """Belong to the running event loop."""
        super().__init__()
        self._semaphore = semaphore

    async def __aenter__(self) -> None:
        """Wait for the slot."""
        await self._semaphore.enter(self)

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Let the next call in."""
        self._semaphore.leave(self)
