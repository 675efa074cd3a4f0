"""Where work runs: one background event loop for sync callers, one resource per event loop, worker threads for engines.

All of it is remade in a forked child: threads do not survive a fork, and a parent's connections must not be shared.
"""

from __future__ import annotations

import asyncio
import atexit
import concurrent.futures
import contextlib
import contextvars
import os
import sys
import threading
import time
from collections.abc import AsyncGenerator, Awaitable, Callable, Coroutine
from typing import Any, Generic, TypeVar

from .context import holding
from .errors import ConfigError, TransientError, clause
from .fork import forgets_after_fork

__all__ = [
    "PerLoop",
    "WorkCancelled",
    "Workers",
    "check_cancelled",
    "in_background",
    "now",
    "require_asyncio",
    "run_sync",
]

T = TypeVar("T")

_PATIENCE = 0.25
"""Seconds that one loop gives another to close what is its own."""
_held: set[asyncio.AbstractEventLoop] = set()
"""Loops that cannot go on now: a sync call was made on them, in a notebook's cell say, and waits for the background loop."""


class _Background:
    """A daemon thread with an event loop, made when first needed."""

    def __init__(self) -> None:
        self.lock = threading.Lock()
        self.loop: asyncio.AbstractEventLoop | None = None
        self.thread: threading.Thread | None = None

    def running(self) -> asyncio.AbstractEventLoop:
        with self.lock:
            if self.loop is None:
                ready, loop = threading.Event(), asyncio.new_event_loop()
                thread = threading.Thread(
                    target=self._serve, args=(loop, ready), name="rerank-plugins-loop", daemon=True
                )
                try:
                    thread.start()
                except RuntimeError as error:
                    loop.close()
                    raise _no_thread(error) from error
                except BaseException:  # Ctrl-C
                    loop.close()
                    raise
                ready.wait()
                self.loop, self.thread = loop, thread  # kept only when it runs: nobody may wait for one that does not
            return self.loop

    @staticmethod
    def _serve(loop: asyncio.AbstractEventLoop, ready: threading.Event) -> None:
        asyncio.set_event_loop(loop)
        loop.call_soon(ready.set)
        while True:
            try:
                return loop.run_forever()
            except (SystemExit, KeyboardInterrupt):
                # Raised by a backend, it ends a loop. Its caller still waits for the answer, and so would everybody
                # after: go on, and the caller gets it from the future.
                continue

    def stop(self) -> None:
        """Close what lives on the loop, and the loop, so that the interpreter exits without complaints."""
        if self.loop is None or self.thread is None or not self.thread.is_alive():
            return
        loop, thread, self.loop = self.loop, self.thread, None
        # Work that goes on alone (a model that loads) may be cut anywhere now, and asyncio would print what it thinks of that.
        loop.set_exception_handler(lambda *_: None)
        with contextlib.suppress(concurrent.futures.TimeoutError, RuntimeError):
            asyncio.run_coroutine_threadsafe(loop.shutdown_asyncgens(), loop).result(timeout=1.0)
        loop.call_soon_threadsafe(loop.stop)
        thread.join(timeout=1.0)
        if not thread.is_alive():
            loop.close()


_background = _Background()
atexit.register(lambda: _background.stop())  # noqa: PLW0108 (the global is remade after a fork)


def run_sync(work: Coroutine[Any, Any, T]) -> T:
    """Run `work` on the background loop and wait for its result; context variables travel along.

    Works inside a running loop (a notebook) too. Ctrl-C cancels the work.

    Raises:
        RuntimeError: Called on the background loop itself, where waiting would never end.
        TransientError: The interpreter is ending, or no thread can be started.
    """
    if sys.is_finalizing():
        # From a `__del__` at exit. No other thread runs any more, and up to Python 3.11 starting one waits for ever.
        work.close()
        raise _no_thread(RuntimeError("the interpreter is shutting down"))
    try:
        loop = _background.running()
    except BaseException:
        work.close()
        raise
    if threading.current_thread() is _background.thread:
        work.close()
        raise RuntimeError("The sync face was called from inside rerank_plugins' own event loop; await the async one.")
    here = asyncio._get_running_loop()
    try:
        if here is not None:
            _held.add(here)
        future = asyncio.run_coroutine_threadsafe(work, loop)
        try:
            return future.result()
        except BaseException:
            future.cancel()
            raise
    finally:
        if here is not None:
            _held.discard(here)


def in_background(work: Coroutine[Any, Any, T]) -> concurrent.futures.Future[T]:
    """Start `work` on the background loop, where it goes on whatever becomes of the caller.

    It gets an empty context: neither the deadline nor the record of the call that started it are its own.

    Raises:
        TransientError: No thread can be started.
    """
    try:
        loop = _background.running()
    except BaseException:
        work.close()
        raise
    return contextvars.Context().run(asyncio.run_coroutine_threadsafe, work, loop)


def require_asyncio(name: str) -> None:
    """Refuse an async call outside of asyncio.

    Raises:
        ConfigError: No asyncio event loop runs in this thread (but trio's, say).
    """
    if asyncio._get_running_loop() is None:
        raise ConfigError(
            f"{name}() needs asyncio, and no asyncio event loop runs in this thread. Under trio or another library, call "
            f"{name.removeprefix('a')}() on a thread, as `await trio.to_thread.run_sync(...)`; under AnyIO, use the backend 'asyncio'."
        )


def now() -> float:
    """Return the time on the event loops' clock, which is one clock in a process (`time.monotonic`)."""
    try:
        return asyncio.get_running_loop().time()
    except RuntimeError:  # asked from outside: a health endpoint, say
        return time.monotonic()


class PerLoop(Generic[T]):
    """One resource per event loop: made on first use there, closed when that loop shuts down."""

    def __init__(self, make: Callable[[], T], close: Callable[[T], Awaitable[None]] | None = None) -> None:
        """Keep how to make the resource (called on the loop) and how to close it (awaited on the same loop)."""
        self._make = make
        self._close = close
        self._slots: dict[asyncio.AbstractEventLoop, tuple[T, AsyncGenerator[None, None]]] = {}
        self._lock = threading.Lock()
        forgets_after_fork(self)

    async def get(self) -> T:
        """Return this loop's resource."""
        loop = asyncio.get_running_loop()
        with self._lock:
            slot = self._slots.get(loop)
            if slot is not None:
                return slot[0]
            for gone in [known for known in self._slots if known.is_closed()]:
                del self._slots[gone]
            resource = self._make()
            keeper = self._keep(loop, resource)
            self._slots[loop] = (resource, keeper)
        # A loop that shuts down (asyncio.run does) closes the async generators that were started on it: this one
        # closes the resource. So nobody has to say goodbye to a loop.
        await anext(keeper)
        return resource

    async def _keep(self, loop: asyncio.AbstractEventLoop, resource: T) -> AsyncGenerator[None, None]:
        try:
            yield
        finally:
            with self._lock:
                if (slot := self._slots.get(loop)) is not None and slot[0] is resource:
                    del self._slots[loop]
            if self._close is not None:
                await self._close(resource)

    async def aclose(self) -> None:
        """Close the resource of every loop, each on its own.

        A loop that is held up (by the very call that waits for this: `close()` in a notebook) is not waited for.
        """
        with self._lock:
            slots, self._slots = self._slots, {}
        here, closing = asyncio.get_running_loop(), []
        for loop, (_, keeper) in slots.items():
            if loop is here:
                await keeper.aclose()
            elif loop in _held:
                # Not at once, and held by its timer: a loop that ends first closes its generators itself, in peace.
                loop.call_soon_threadsafe(loop.call_later, _PATIENCE, _begin, loop, keeper.aclose)
            elif loop.is_running():
                closing.append(asyncio.wrap_future(asyncio.run_coroutine_threadsafe(keeper.aclose(), loop)))
        if closing:
            await asyncio.wait(closing, timeout=_PATIENCE)

    def _forget(self) -> None:
        self._lock = threading.Lock()
        self._slots = {}


def _begin(loop: asyncio.AbstractEventLoop, work: Callable[[], Coroutine[Any, Any, None]]) -> None:
    loop.create_task(work())


class WorkCancelled(BaseException):
    """Raised in a worker thread by `check_cancelled`: nobody waits for the result any more.

    It derives from `BaseException`, as `asyncio.CancelledError` does, so that no `except Exception` swallows it.
    """


_cancelled: contextvars.ContextVar[threading.Event | None] = contextvars.ContextVar(
    "rerank_plugins_work_cancelled", default=None
)
"""Set while a job of `Workers.run` runs: its event is set when the caller stops waiting."""


def check_cancelled() -> None:
    """Stop this job if its caller no longer waits for it (a deadline, a cancelled task).

    Long work on a worker thread calls this between slices of a few milliseconds. Outside of `Workers.run` it does nothing.

    Raises:
        WorkCancelled: The caller has stopped waiting.
    """
    event = _cancelled.get()
    if event is not None and event.is_set():
        raise WorkCancelled


class Workers:
    """Worker threads of one engine. The host loop's default executor gets nothing."""

    def __init__(self, threads: int, name: str) -> None:
        """Prepare up to `threads` threads named after `name`; none starts before the first job."""
        self.threads = threads
        self._name = name
        self._lock = threading.Lock()
        self._pool: concurrent.futures.ThreadPoolExecutor | None = None
        forgets_after_fork(self)

    async def run(self, work: Callable[..., T], *arguments: Any) -> T:
        """Run `work(*arguments)` on a worker, in the caller's context, and await it.

        The await can be cancelled at any time (a deadline). A job that has not begun by then never runs; one that has
        begun stops at its next `check_cancelled`.
        """
        cancelled = threading.Event()
        with holding(_cancelled, cancelled):
            future = self.submit(work, *arguments)
        try:
            return await asyncio.wrap_future(future)
        except asyncio.CancelledError:
            cancelled.set()
            raise

    def submit(self, work: Callable[..., T], *arguments: Any) -> concurrent.futures.Future[T]:
        """Queue `work(*arguments)` and return its future.

        Raises:
            TransientError: No thread can be had for it: there are too many, or the interpreter ends.
        """
        with self._lock:
            if self._pool is None:
                self._pool = concurrent.futures.ThreadPoolExecutor(self.threads, thread_name_prefix=self._name)
            try:
                return self._pool.submit(contextvars.copy_context().run, _finished, work, *arguments)
            except RuntimeError as error:
                raise _no_thread(error) from error

    def close(self) -> None:
        """Let the threads end after what they are doing; the next job starts new ones."""
        with self._lock:
            pool, self._pool = self._pool, None
        if pool is not None:
            pool.shutdown(wait=False)

    def _forget(self) -> None:
        self._lock = threading.Lock()
        self._pool = None


def _no_thread(error: RuntimeError) -> TransientError:
    return TransientError(
        f"There is no thread to work on ({clause(error)}): let the process have more of them, or, where it is ending, wait for "
        "every answer before the main thread ends."
    )


def _finished(work: Callable[..., T], *arguments: Any) -> T:
    try:
        return work(*arguments)
    except StopIteration as error:  # a future refuses to hold one: whoever awaits it would wait for ever
        raise RuntimeError(f"{getattr(work, '__qualname__', work)} raised StopIteration") from error


_abandoned: list[
    _Background
] = []  # the parent's loop, kept so that the child's collector does not close it with a warning


def _after_fork() -> None:
    global _background
    _abandoned.append(_background)
    _background = _Background()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)
