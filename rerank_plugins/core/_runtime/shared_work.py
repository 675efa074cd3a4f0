"""`SharedWork`: a job on a worker thread that all callers who need it at the same time share."""

from __future__ import annotations

import asyncio
import concurrent.futures
import contextvars
import copy
from collections.abc import Callable
from typing import Generic, TypeVar

from ..errors import RerankError
from .background_loop import Workers
from .fork_hooks import Lock, reset_after_fork

__all__ = ["SharedWork"]

T = TypeVar("T")


class SharedWork(Generic[T]):
    """One job, such as a request for a token. Callers on any thread and event loop wait for the run that is under way.

    All of them get its result or its error. So where a server does not answer, a caller waits for one attempt, and not
    for those of the callers before it.
    """

    def __init__(self, workers: Workers, work: Callable[[], T]) -> None:
        """Set the job and the threads that run it. Nothing is started.

        Args:
            workers: The threads.
            work: The job. It may block.
        """
        self._workers = workers
        self._work = work
        self._lock = Lock()  # guards `latest`: callers run on several threads and event loops
        self.latest: concurrent.futures.Future[T | Exception] | None = None
        """The last run; `None` before the first. Its result is that of the job, or the error that the job raised."""
        reset_after_fork(self)

    def start(self) -> concurrent.futures.Future[T | Exception]:
        """Return the run that is under way; start one if there is none.

        Raises:
            TransientError: No thread can be started.
        """
        with self._lock:
            if self.latest is None or self.latest.done():
                # In an empty context, since the run serves all callers: not with the deadline or the log filter of one.
                self.latest = contextvars.Context().run(self._workers.submit, self._outcome)
            return self.latest

    async def run(self) -> T:
        """Return the result of the run that is under way, or of a new one. It can be cancelled at any time.

        Raises:
            Exception: What the job raised. Each caller gets a copy of an error of this package.
        """
        # Shielded: without it, cancelling this caller would cancel the future that the other callers wait for.
        outcome = await asyncio.shield(asyncio.wrap_future(self.start()))
        if not isinstance(outcome, Exception):
            return outcome
        if isinstance(outcome, RerankError):
            raise copy.copy(outcome) from outcome.__cause__
        raise outcome

    def _outcome(self) -> T | Exception:
        # Returned and not raised: of a future with an error that nobody reads, asyncio prints that.
        try:
            return self._work()
        except Exception as error:
            return error

    def _reset(self) -> None:
        self.latest = None  # its thread is not in the child
