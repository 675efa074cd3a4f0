"""Where models are fetched: never on an event loop, and on threads that nobody waits for when the process ends.

A download may take an hour. Whoever leaves it (a deadline) leaves it running, for the next call; Ctrl-C, and the end of
the program, end it.
"""

from __future__ import annotations

import asyncio
import atexit
import concurrent.futures
import ctypes
import threading
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

from ..core.fork import forgets_after_fork

__all__ = ["Fetches"]

_PATIENCE = 2.0
"""Seconds that the end of the program gives downloads to take away what they have half written."""


class Fetches:
    """Downloads under way. Who asks for one that runs waits for the same."""

    def __init__(self) -> None:
        """Begin with none."""
        self._forget()
        forgets_after_fork(self)
        atexit.register(self._stop)

    async def run(self, key: object, work: Callable[[], Path]) -> Path:
        """Return what `work()` does, done once for all who ask by the same `key` meanwhile; can be left at any time."""
        return await asyncio.wrap_future(self._begun(key, work))

    def _begun(self, key: object, work: Callable[[], Path]) -> concurrent.futures.Future[Path]:
        with self._lock:
            known = self._running.get(key)
            if known is not None:
                return known[1]
            future: concurrent.futures.Future[Path] = concurrent.futures.Future()
            future.set_running_or_notify_cancel()  # one of several who leaves does not end it for the others
            thread = threading.Thread(target=self._run, args=(key, work, future), name="rerank-fetch", daemon=True)
            thread.start()
            self._running[key] = thread, future
            return future

    def _run(self, key: object, work: Callable[[], Path], future: concurrent.futures.Future[Path]) -> None:
        try:
            settle = partial(future.set_result, work())
        except BaseException as error:  # whoever waits is told
            settle = partial(future.set_exception, error)
        with self._lock:
            self._running.pop(key, None)
        settle()

    def _stop(self) -> None:
        with self._lock:
            threads = [thread for thread, _ in self._running.values()]
        for thread in threads:
            # What Ctrl-C does in a main thread: the hub's client takes its half of a file away.
            ctypes.pythonapi.PyThreadState_SetAsyncExc(ctypes.c_ulong(thread.ident or 0), ctypes.py_object(SystemExit))
        until = time.monotonic() + _PATIENCE
        for thread in threads:  # one that waits for a silent hub hears nothing: it ends with the process
            thread.join(max(0.0, until - time.monotonic()))

    def _forget(self) -> None:
        self._lock = threading.Lock()
        self._running: dict[object, tuple[threading.Thread, concurrent.futures.Future[Path]]] = {}
