"""A fair queue and a fair semaphore that work across all threads and event loops of the process: first in, first out.

`FairSemaphore` admits a fixed number of calls at a time. The rate limiter (`policies/rate_limit.py`) uses the same
queue with another rule. Calls whose event loop was closed, collected or blocked are handled here: `Caller.gone` and
`Waiter.absent`.
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

from .background_loop import now

__all__ = ["Caller", "FairQueue", "FairSemaphore", "Slot", "Waiter"]

W = TypeVar("W", bound="Waiter")

PATIENCE = 1.0
"""Seconds after which a woken waiter that did not run is skipped (it keeps its position), and after which a waiter that
was not woken checks by itself: nothing notifies it when another event loop is closed."""


class Caller:
    """The event loop of a call, and whether the call can still continue."""

    def __init__(self) -> None:
        """Take the running event loop."""
        # A weak reference: a strong one would stop the collector from freeing a closed loop and the calls on it.
        self._loop = weakref.ref(asyncio.get_running_loop())

    @property
    def gone(self) -> bool:
        """Whether the event loop was closed or collected. The call on it then neither continues nor ends."""
        loop = self._loop()
        return loop is None or loop.is_closed()


class Waiter(Caller):
    """A call that waits in a queue, or was admitted."""

    def __init__(self) -> None:
        """Take the running event loop."""
        super().__init__()
        self._signal: asyncio.Future[bool] | None = None
        self._woken_at: float | None = None

    def listen(self) -> None:
        """Start waiting: from now on, `wake` ends the next `wait`."""
        self._signal = asyncio.get_running_loop().create_future()

    def stop(self) -> None:
        """Stop waiting."""
        self._woken_at = None
        self._signal = None  # a future refers to its event loop

    def wake(self) -> None:
        """Make the waiter check whether it is its turn. It may be called on any thread."""
        if self._woken_at is None:
            self._woken_at = now()
        loop, signal = self._loop(), self._signal
        if loop is None or signal is None:
            return
        if loop is asyncio._get_running_loop():
            _resolve(signal, True)
        else:
            with contextlib.suppress(RuntimeError):  # the loop was closed in the meantime
                loop.call_soon_threadsafe(_resolve, signal, True)

    async def wait(self, seconds: float) -> bool:
        """Wait for a `wake` after `listen`, for at most `seconds`. Return whether there was one."""
        assert self._signal is not None
        timer = asyncio.get_running_loop().call_later(seconds, _resolve, self._signal, False)
        try:
            return await self._signal
        finally:
            timer.cancel()

    def absent(self, moment: float) -> bool:
        """Return whether its event loop is gone or blocked: for example by a sync call that waits in this queue too."""
        return self.gone or (self._woken_at is not None and moment - self._woken_at >= PATIENCE)


def _resolve(signal: asyncio.Future[bool], woken: bool) -> None:
    if not signal.done():
        signal.set_result(woken)


class FairQueue(ABC, Generic[W]):
    """Calls that wait for their turn, and calls that were admitted and have not left yet."""

    def __init__(self) -> None:
        """Create an empty queue."""
        # Guards all attributes, here and in subclasses. `leave` must not wait for it: when an event loop was closed
        # with a call on it, the garbage collector ends the call on any thread at any moment, and so also on the thread
        # that holds the lock. So `leave` only appends to `_left`, and the holder of the lock handles `_left` before and
        # after its work.
        self._lock = threading.Lock()
        self._left: deque[tuple[W, Any]] = deque()
        self.waiting: dict[W, None] = {}
        self.inside: dict[W, None] = {}

    @abstractmethod
    def seconds_until_turn(self, waiter: W) -> float | None:
        """Return in how many seconds `waiter` may enter, if it is the first. Called with the lock held.

        Returns:
            `None`: now. 0: as soon as another call leaves.
        """

    def refuse(self, waiter: W) -> None:
        """Raise an error if `waiter` would wait in vain. Called with the lock held."""

    def on_enter(self, waiter: W) -> None:
        """Handle that `waiter` is admitted. Called with the lock held."""

    def on_leave(self, waiter: W, outcome: Any) -> None:
        """Handle that an admitted call has left. The lock is held. `outcome`: `None` if its event loop is gone."""

    async def enter(self, waiter: W) -> None:
        """Wait until it is the turn of `waiter`. It can be cancelled at any time."""
        try:
            ahead = len(self.waiting)
            while (delay := self._try_enter(waiter)) is not None:
                # The first waiter sleeps until its time, or is woken when another call leaves. The others are woken
                # when they become the first. They also check from time to time, more often if few are ahead, in case
                # nobody wakes them.
                woken = await waiter.wait(delay + PATIENCE * ahead or PATIENCE)
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
        """Remove a call, whether it was admitted or not. The call that has waited longest is next."""
        self._left.append((waiter, outcome))
        self._remove_left_if_unlocked()

    @contextlib.contextmanager
    def locked(self) -> Iterator[None]:
        """Hold the lock. Calls that left before, or leave meanwhile, are removed."""
        with self._lock:
            self._remove_left()
            yield
        self._remove_left_if_unlocked()

    def ahead(self, waiter: W) -> list[W]:
        """Return the waiters before `waiter`, without absent ones. Call it with the lock held."""
        moment = now()
        before = itertools.takewhile(lambda other: other is not waiter, self.waiting)
        return [other for other in before if not other.absent(moment)]

    def remove_gone(self) -> None:
        """Remove calls whose event loop is gone. Call it with the lock held."""
        for waiter in [waiter for waiter in self.waiting if waiter.gone]:
            del self.waiting[waiter]
        for waiter in [waiter for waiter in self.inside if waiter.gone]:
            del self.inside[waiter]
            self.on_leave(waiter, None)

    def _try_enter(self, waiter: W) -> float | None:
        """Admit `waiter` and return `None` if it is its turn. Else make it listen, and return the seconds to wait."""
        try:
            with self._lock:
                self._remove_left()
                waiter.stop()
                self.waiting[waiter] = None  # a waiter that is in the queue already keeps its position
                first = self._first() is waiter
                delay = self.seconds_until_turn(waiter)
                if delay is not None:
                    self.remove_gone()
                    delay = self.seconds_until_turn(waiter)
                if not first or delay is not None:
                    self.refuse(waiter)
                    waiter.listen()
                    return delay or 0.0
                del self.waiting[waiter]
                self.inside[waiter] = None
                self.on_enter(waiter)
                self._wake_first()
                return None
        finally:
            self._remove_left_if_unlocked()

    def _remove_left_if_unlocked(self) -> None:
        while self._left and self._lock.acquire(blocking=False):
            try:
                self._remove_left()
            finally:
                self._lock.release()

    def _remove_left(self) -> None:
        if not self._left:
            return
        while self._left:
            waiter, outcome = self._left.popleft()
            self.waiting.pop(waiter, None)
            if waiter in self.inside:
                del self.inside[waiter]
                self.on_leave(waiter, outcome)
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
    """A semaphore for all threads and event loops of the process: `async with semaphore.acquire()`.

    `asyncio.Semaphore` belongs to one event loop, and waiting for a `threading.Semaphore` blocks the event loop.
    """

    def __init__(self, slots: int) -> None:
        """Admit `slots` calls at a time."""
        super().__init__()
        self._slots = slots

    def acquire(self) -> Slot:
        """Return an async context manager that holds one slot."""
        return Slot(self)

    def seconds_until_turn(self, waiter: Waiter) -> float | None:
        """Return `None` while a slot is free."""
        return None if len(self.inside) < self._slots else 0.0


class Slot(Waiter):
    """The slot of one call, or its position in the queue. A class: the collector cannot end an async generator."""

    def __init__(self, semaphore: FairSemaphore) -> None:
        """Take the running event loop."""
        super().__init__()
        self._semaphore = semaphore

    async def __aenter__(self) -> None:
        """Wait for the slot."""
        await self._semaphore.enter(self)

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Release the slot, and admit the next call."""
        self._semaphore.leave(self)
