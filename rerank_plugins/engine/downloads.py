"""Fetches models on daemon threads: never on an event loop, and the process does not wait for them when it ends.

A download may take an hour. If its caller gives up (a deadline), it goes on for the next call. Ctrl-C and the end of
the program stop it.
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

from ..core._runtime.fork_hooks import reset_after_fork

__all__ = ["Downloads"]

_EXIT_TIMEOUT = 2.0
"""Seconds that downloads have at the end of the program to delete files that they have half written."""


class Downloads:
    """The downloads that are running. Callers with the same key share one download."""

    def __init__(self) -> None:
        """Start with no downloads."""
        self._reset()
        reset_after_fork(self)
        atexit.register(self._stop)

    async def run(self, key: object, work: Callable[[], Path]) -> Path:
        """Return the result of `work()`, which runs on a thread. Can be cancelled at any time.

        Args:
            key: Calls with an equal key that overlap share one run of `work`.
            work: Fetches a model and returns its folder.
        """
        return await asyncio.wrap_future(self._started(key, work))

    def _started(self, key: object, work: Callable[[], Path]) -> concurrent.futures.Future[Path]:
        with self._lock:
            known = self._running.get(key)
            if known is not None:
                return known[1]
            future: concurrent.futures.Future[Path] = concurrent.futures.Future()
            # so that a caller that is cancelled does not cancel it for the others
            future.set_running_or_notify_cancel()
            thread = threading.Thread(target=self._run, args=(key, work, future), name="rerank-fetch", daemon=True)
            thread.start()
            self._running[key] = thread, future
            return future

    def _run(self, key: object, work: Callable[[], Path], future: concurrent.futures.Future[Path]) -> None:
        try:
            settle = partial(future.set_result, work())
        except BaseException as error:  # raised in every caller
            settle = partial(future.set_exception, error)
        with self._lock:
            self._running.pop(key, None)
        settle()

    def _stop(self) -> None:
        with self._lock:
            threads = [thread for thread, _ in self._running.values()]
        for thread in threads:
            # As Ctrl-C in a main thread: the hub's client then deletes its half of a file.
            ctypes.pythonapi.PyThreadState_SetAsyncExc(ctypes.c_ulong(thread.ident or 0), ctypes.py_object(SystemExit))
        until = time.monotonic() + _EXIT_TIMEOUT
        for thread in threads:  # a thread that waits for a silent hub does not react, and ends with the process
            thread.join(max(0.0, until - time.monotonic()))

    def _reset(self) -> None:
        self._lock = threading.Lock()
        self._running: dict[object, tuple[threading.Thread, concurrent.futures.Future[Path]]] = {}
