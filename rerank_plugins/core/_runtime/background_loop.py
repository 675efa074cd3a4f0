"""Threads and event loops: a background event loop for sync callers, one resource per event loop, and worker threads.

All of it is created again in a forked child: threads do not survive a fork, and connections of the parent must not be
shared.
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

from ..errors import ConfigError, TransientError, clause
from .context_vars import set_context
from .fork_hooks import reset_after_fork

__all__ = [
    "PerLoop",
    "WorkCancelled",
    "Workers",
    "check_cancelled",
    "in_background",
    "is_blocked",
    "now",
    "require_asyncio",
    "run_sync",
]

T = TypeVar("T")

_PATIENCE = 0.25
"""Seconds that one event loop waits for another one to close its resource."""
_LAST_WAIT = 3.0
"""Seconds that a daemon thread holds back the error of a call that the end of the interpreter cut off."""
_blocked: set[asyncio.AbstractEventLoop] = set()
"""Event loops that are blocked now: a sync call on them, in a notebook for example, waits for the background loop."""


class _Background:
    """A daemon thread with an event loop, started on first use."""

    def __init__(self) -> None:
        self.lock = threading.Lock()  # guards `loop` and `thread`, so that two first calls do not start two threads
        self.loop: asyncio.AbstractEventLoop | None = None
        self.thread: threading.Thread | None = None
        self.stopping: asyncio.AbstractEventLoop | None = None
        """The loop that `stop` ends. Only `stop` sets it, and any thread may read it: the assignment is atomic."""

    def running(self) -> asyncio.AbstractEventLoop:
        with self.lock:
            if self.loop is None:
                ready, loop = threading.Event(), asyncio.new_event_loop()
                thread = threading.Thread(
                    target=self._run_loop, args=(loop, ready), name="rerank-plugins-loop", daemon=True
                )
                try:
                    thread.start()
                except RuntimeError as error:
                    loop.close()
                    raise _thread_error(error) from error
                except BaseException:  # Ctrl-C
                    loop.close()
                    raise
                ready.wait()
                self.loop, self.thread = (
                    loop,
                    thread,
                )  # set only once it runs: a caller would wait for ever for a loop that does not
            return self.loop

    @staticmethod
    def _run_loop(loop: asyncio.AbstractEventLoop, ready: threading.Event) -> None:
        asyncio.set_event_loop(loop)
        loop.call_soon(ready.set)
        while True:
            try:
                return loop.run_forever()
            except (SystemExit, KeyboardInterrupt):
                # If a backend raises one of these, asyncio stops the loop. Start it again: the caller gets the error
                # from the future, and later calls need the loop.
                continue

    def stop(self) -> None:
        """Cancel the calls, close the resources, then the loop, so that the interpreter exits without warnings."""
        if self.loop is None or self.thread is None or not self.thread.is_alive():
            return
        loop, thread, self.loop = self.loop, self.thread, None
        self.stopping = loop
        # Work in the background, such as loading a model, is cancelled at any point now. asyncio must not print that.
        loop.set_exception_handler(lambda *_: None)
        with contextlib.suppress(concurrent.futures.TimeoutError, RuntimeError):
            asyncio.run_coroutine_threadsafe(_end_of_loop(), loop).result(timeout=1.0)
        loop.call_soon_threadsafe(loop.stop)
        thread.join(timeout=1.0)
        if not thread.is_alive():
            loop.close()


async def _end_of_loop() -> None:
    """Cancel the calls before their connections close: a policy would send a call again that fails for that reason."""
    calls = asyncio.all_tasks() - {asyncio.current_task()}
    for call in calls:
        call.cancel()
    if calls:
        await asyncio.wait(calls, timeout=0.5)
    await asyncio.get_running_loop().shutdown_asyncgens()


_background = _Background()
atexit.register(lambda: _background.stop())  # noqa: PLW0108 (the global is remade after a fork)


def run_sync(work: Coroutine[Any, Any, T]) -> T:
    """Run `work` on the background loop, with the caller's context variables, and wait for its result.

    It also works inside a running event loop (a notebook). Ctrl-C cancels the work.

    Raises:
        RuntimeError: It was called on the background loop itself, where it would wait for ever.
        TransientError: The interpreter is shutting down, or no thread can be started. A daemon thread whose call was
            cut off gets it after three seconds.
    """
    if sys.is_finalizing():
        # Called by a `__del__` at exit. Other threads no longer run, and in Python 3.11 starting one waits for ever.
        work.close()
        raise _thread_error(RuntimeError("the interpreter is shutting down"))
    try:
        loop = _background.running()
    except BaseException:
        work.close()
        raise
    if threading.current_thread() is _background.thread:
        work.close()
        raise RuntimeError(
            "A sync method was called on the event loop of rerank_plugins. Await the async method instead."
        )
    here = asyncio._get_running_loop()
    call = _SyncCall(work)
    try:
        if here is not None:
            _blocked.add(here)
        try:
            return asyncio.run_coroutine_threadsafe(call.run(), loop).result()
        except BaseException:
            with contextlib.suppress(RuntimeError):  # the loop is closed
                loop.call_soon_threadsafe(call.cancel)
            if _background.stopping is loop:
                # `stop` has cancelled this call. Of the program's threads only daemons are left, and the interpreter
                # ends them in a moment: an error would be printed as an unhandled one. The wait has a bound, because
                # an `atexit` function may wait for this thread.
                threading.Event().wait(_LAST_WAIT)
                raise _thread_error(RuntimeError("the interpreter is shutting down")) from None
            raise
    finally:
        if here is not None:
            _blocked.discard(here)


class _SyncCall(Generic[T]):
    """A sync call's work. Ctrl-C may come before its caller has a future to cancel, so it can be cancelled itself.

    Both methods run on the background loop, so it needs no lock.
    """

    def __init__(self, work: Coroutine[Any, Any, T]) -> None:
        self._work = work
        self._task: asyncio.Task[Any] | None = None
        self._cancelled = False

    async def run(self) -> T:
        """Return the result of the work."""
        if self._cancelled:
            self._work.close()
            raise asyncio.CancelledError
        self._task = asyncio.current_task()
        return await self._work

    def cancel(self) -> None:
        """Cancel the work, whether or not it has begun."""
        self._cancelled = True
        if self._task is not None:
            self._task.cancel()


def in_background(work: Coroutine[Any, Any, T]) -> concurrent.futures.Future[T]:
    """Start `work` on the background loop. It continues even if the caller is cancelled.

    It runs in an empty context, without the deadline and the attempts of the call that starts it.

    Raises:
        TransientError: No thread can be started.
    """
    try:
        loop = _background.running()
    except BaseException:
        work.close()
        raise
    return contextvars.Context().run(asyncio.run_coroutine_threadsafe, work, loop)


def is_blocked(loop: asyncio.AbstractEventLoop) -> bool:
    """Return whether `loop` is blocked by a sync call on it, so that its tasks do not go on before that call ends."""
    return loop in _blocked


def require_asyncio(name: str) -> None:
    """Check that an asyncio event loop runs in this thread.

    Raises:
        ConfigError: None does: the caller uses trio, for example.
    """
    if asyncio._get_running_loop() is None:
        raise ConfigError(
            f"{name}() needs asyncio, and no asyncio event loop runs in this thread. Under trio or another library, "
            f"call {name.removeprefix('a')}() on a thread, as `await trio.to_thread.run_sync(...)`; under AnyIO, "
            "use the backend 'asyncio'."
        )


def now() -> float:
    """Return the time of the event loops' clock, `time.monotonic`, which all loops of a process share."""
    try:
        return asyncio.get_running_loop().time()
    except RuntimeError:  # called outside an event loop, by a health endpoint for example
        return time.monotonic()


class PerLoop(Generic[T]):
    """One resource per event loop. It is created on first use there, and closed when that loop shuts down."""

    def __init__(self, make: Callable[[], T], close: Callable[[T], Awaitable[None]] | None = None) -> None:
        """Set `make`, which is called on the loop, and `close`, which is awaited on the same loop."""
        self._make = make
        self._close = close
        self._slots: dict[asyncio.AbstractEventLoop, tuple[T, AsyncGenerator[None, None]]] = {}
        self._lock = threading.Lock()  # guards `_slots`: event loops run on several threads
        reset_after_fork(self)

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
            closer = self._close_with_loop(loop, resource)
            self._slots[loop] = (resource, closer)
        # When a loop shuts down (`asyncio.run` does that), it closes the async generators that were started on it. This
        # generator closes the resource, so a user need not call `aclose` before the loop ends.
        await anext(closer)
        return resource

    async def _close_with_loop(self, loop: asyncio.AbstractEventLoop, resource: T) -> AsyncGenerator[None, None]:
        try:
            yield
        finally:
            with self._lock:
                if (slot := self._slots.get(loop)) is not None and slot[0] is resource:
                    del self._slots[loop]
            if self._close is not None:
                await self._close(resource)

    async def aclose(self) -> None:
        """Close the resource of every event loop, on that loop.

        It does not wait for a loop that is blocked by the call that waits for this one: `close()` in a notebook.
        """
        with self._lock:
            slots, self._slots = self._slots, {}
        here, closing = asyncio.get_running_loop(), []
        for loop, (_, closer) in slots.items():
            if loop is here:
                await closer.aclose()
            elif loop in _blocked:
                # With a delay: if the loop ends first, it closes its generators itself. The timer keeps a reference.
                loop.call_soon_threadsafe(loop.call_later, _PATIENCE, _start_task, loop, closer.aclose)
            elif loop.is_running():
                closing.append(asyncio.wrap_future(asyncio.run_coroutine_threadsafe(closer.aclose(), loop)))
        if closing:
            await asyncio.wait(closing, timeout=_PATIENCE)

    def _reset(self) -> None:
        self._lock = threading.Lock()
        self._slots = {}


def _start_task(loop: asyncio.AbstractEventLoop, work: Callable[[], Coroutine[Any, Any, None]]) -> None:
    loop.create_task(work())


class WorkCancelled(BaseException):
    """Raised by `check_cancelled` in a worker thread, if the caller no longer waits for the result.

    It derives from `BaseException`, as `asyncio.CancelledError` does, so that no `except Exception` swallows it.
    """


_cancelled: contextvars.ContextVar[threading.Event | None] = contextvars.ContextVar(
    "rerank_plugins_work_cancelled", default=None
)
"""Has a value while a job of `Workers.run` runs. The event is set when the caller stops waiting."""


_YIELD_SECONDS = 0.001
_yielded_at = 0.0
"""When a worker last gave up the GIL. No lock guards it: a race only makes one worker yield once more or less."""


def check_cancelled() -> None:
    """Stop this job if its caller no longer waits for it, and let other threads run.

    Long work on a worker thread calls this between slices of a few milliseconds. Outside `Workers.run` it does nothing.

    Raises:
        WorkCancelled: The caller has stopped waiting, after a deadline or a cancellation.
    """
    global _yielded_at
    event = _cancelled.get()
    if event is None:
        return
    if event.is_set():
        raise WorkCancelled
    # A thread keeps the GIL for 5 ms once another one waits for it. An event loop that waits beside several workers
    # would get it after several times that, so workers give it up every millisecond.
    now = time.perf_counter()
    if now - _yielded_at > _YIELD_SECONDS:
        time.sleep(0)
        _yielded_at = time.perf_counter()


class Workers:
    """Worker threads of one engine. The default executor of the event loop stays free for the host program."""

    def __init__(self, threads: int, name: str) -> None:
        """Allow up to `threads` threads with the prefix `name`. The first job starts the first thread."""
        self.threads = threads
        self._name = name
        self._lock = threading.Lock()  # guards `_pool`: jobs come from all threads
        self._pool: concurrent.futures.ThreadPoolExecutor | None = None
        reset_after_fork(self)

    async def run(self, work: Callable[..., T], *arguments: Any) -> T:
        """Run `work(*arguments)` on a worker thread, in the caller's context, and return its result.

        It can be cancelled at any time. A job that has not started by then never runs. A job that has started stops at
        its next `check_cancelled`.
        """
        cancelled = threading.Event()
        with set_context(_cancelled, cancelled):
            future = self.submit(work, *arguments)
        try:
            return await asyncio.wrap_future(future)
        except asyncio.CancelledError:
            cancelled.set()
            raise

    def submit(self, work: Callable[..., T], *arguments: Any) -> concurrent.futures.Future[T]:
        """Queue `work(*arguments)` and return its future.

        Raises:
            TransientError: No thread can be started: there are too many, or the interpreter is shutting down.
        """
        with self._lock:
            if self._pool is None:
                self._pool = concurrent.futures.ThreadPoolExecutor(self.threads, thread_name_prefix=self._name)
            try:
                return self._pool.submit(contextvars.copy_context().run, _without_stop_iteration, work, *arguments)
            except RuntimeError as error:
                raise _thread_error(error) from error

    def close(self) -> None:
        """Let the threads end after their current jobs. The next job starts new ones."""
        with self._lock:
            pool, self._pool = self._pool, None
        if pool is not None:
            pool.shutdown(wait=False)

    def _reset(self) -> None:
        self._lock = threading.Lock()
        self._pool = None


def _thread_error(error: RuntimeError) -> TransientError:
    return TransientError(
        f"No thread can be started ({clause(error)}). Allow the process more threads; if it is shutting down, wait for "
        "every call before the main thread ends."
    )


def _without_stop_iteration(work: Callable[..., T], *arguments: Any) -> T:
    try:
        return work(*arguments)
    except StopIteration as error:  # a future cannot hold one: its caller would wait for ever
        raise RuntimeError(f"{getattr(work, '__qualname__', work)} raised StopIteration") from error


_inherited: list[_Background] = []
"""The parent's loops. The reference stops the garbage collector of a child from closing them with a warning."""


def _after_fork() -> None:
    global _background
    _inherited.append(_background)
    _background = _Background()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)
