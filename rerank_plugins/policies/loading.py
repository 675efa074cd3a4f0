"""Background loading of local models: a deadline cancels the call that needs a model, but not the loading."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Sequence
from concurrent.futures import Future

from ..core._runtime.background_loop import in_background
from ..core._runtime.fork_hooks import Lock, reset_after_fork
from ..core.errors import DeadlineExceeded
from ..core.scorer import Backend, Wrapper
from ..core.types import RerankRequest, Scores
from .deadline import deadline_passed, seconds_left

__all__ = ["BackgroundLoading"]

_MARGIN = 0.02
"""Share of the remaining time for which the call does not wait, so that it fails before the deadline cancels it."""


class BackgroundLoading(Wrapper):
    """Load a local model once, on the background loop, if the first call has a deadline.

    Without this policy the deadline of each call would cancel the loading. Each call would get one step further
    (tokenizer, tables, weights), and a fallback would answer many calls before the model is loaded.
    """

    remote = False

    def __init__(self, inner: Backend) -> None:
        """Wrap a local backend whose `awarmup` loads all that its `ascore` needs."""
        super().__init__(inner)
        self._loaded = False
        self._future: Future[bool] | None = None
        # Guards `_future` in `_start_loading`, so that two threads do not both start loading. `_finish_loading` only
        # assigns, so it needs no lock.
        self._lock = Lock()
        reset_after_fork(self)

    async def ascore(self, request: RerankRequest) -> Scores:
        """Score when the model is loaded.

        Raises:
            DeadlineExceeded: The model is still loading. Loading continues.
        """
        await self._wait_for_model()
        scores = await self.inner.ascore(request)
        self._loaded = True
        return scores

    async def cheap_scores(self, request: RerankRequest) -> Sequence[float]:
        """Return the backend's cheap scores when the model is loaded, as `ascore` does."""
        await self._wait_for_model()
        return await self.inner.cheap_scores(request)

    async def _wait_for_model(self) -> None:
        left = seconds_left()
        if left is None or self._loaded:
            return
        loop = asyncio.get_running_loop()
        # Cancelling `finished` wakes `asyncio.wait` below, and does nothing if it is done already.
        finished = loop.create_future()

        def wake(_: Future[bool]) -> None:
            with contextlib.suppress(RuntimeError):  # the caller's loop was closed
                loop.call_soon_threadsafe(finished.cancel)

        self._start_loading().add_done_callback(wake)
        try:
            done, _ = await asyncio.wait([finished], timeout=max(0.0, left * (1.0 - _MARGIN)))
        except asyncio.CancelledError as error:
            if not deadline_passed():
                raise
            raise self._loading_error(left) from error  # on a busy machine the deadline's own timer may fire first
        if not done:
            raise self._loading_error(left)
        # If loading failed, the caller goes on to `ascore`, which loads again and raises the error.

    def _loading_error(self, left: float) -> DeadlineExceeded:
        return DeadlineExceeded(
            f"{self.label} was still loading its model when the last {max(left, 0.0):.3g} s of its deadline had "
            "passed. Loading continues in the background for later calls. Call `warmup()` before the first call, or "
            "raise `deadline`."
        )

    def _start_loading(self) -> Future[bool]:
        with self._lock:
            future = self._future
            if future is None:
                future = self._future = in_background(self._load())
                started = True
            else:
                started = False
        if started:  # outside the lock, because a future that is already done calls back immediately
            future.add_done_callback(self._finish_loading)
        return future

    async def _load(self) -> bool:
        """Load the model, and return whether it succeeded.

        It raises no error, because asyncio prints a traceback for a task that fails while the interpreter exits.
        """
        try:
            await self.inner.awarmup()
        except Exception:
            return False
        return True

    def _finish_loading(self, future: Future[bool]) -> None:
        self._loaded = not future.cancelled() and future.exception() is None and future.result()
        self._future = None

    async def awarmup(self) -> None:
        """Load the model, and wait for it."""
        await self.inner.awarmup()
        self._loaded = True

    async def aclose(self) -> None:
        """Close the backend, which releases the model."""
        self._loaded = False
        await super().aclose()

    def _reset(self) -> None:  # the lock resets itself
        self._loaded, self._future = False, None
