"""A deadline may cut the call that loads a model, but not the loading: it goes on in the background, once."""

from __future__ import annotations

import asyncio
import contextlib
from concurrent.futures import Future

from ..core.errors import DeadlineExceeded
from ..core.fork import Lock, forgets_after_fork
from ..core.loop import in_background
from ..core.scorer import Backend, Wrapper
from ..core.types import RerankRequest, Scores
from .deadline import passed, seconds_left

__all__ = ["Loading"]

_MARGIN = 0.02
"""Share of the remaining time that is left when this gives up, so that its error comes before the deadline's own."""


class Loading(Wrapper):
    """Load a local model on the background loop when a call with a deadline comes first.

    Without this, each call would do a part of the loading (the tokenizer, the tables, the weights) and be cut in the
    next one: many calls would get a stand-in until one of them reaches the model.
    """

    remote = False

    def __init__(self, inner: Backend) -> None:
        """Wrap a local backend whose `awarmup` loads all that its `ascore` needs."""
        super().__init__(inner)
        self._loaded = False
        self._future: Future[bool] | None = None
        # Guards the start alone, so that two threads do not both start it. `_ended` runs without it.
        self._lock = Lock()
        forgets_after_fork(self)

    async def ascore(self, request: RerankRequest) -> Scores:
        """Ask the model once it is loaded.

        Raises:
            DeadlineExceeded: It is still being loaded; loading goes on.
        """
        left = seconds_left()
        if left is not None and not self._loaded:
            await self._wait(left)
        scores = await self.inner.ascore(request)
        self._loaded = True
        return scores

    async def _wait(self, left: float) -> None:
        loop = asyncio.get_running_loop()
        ready = loop.create_future()

        def tell(_: Future[bool]) -> None:
            with contextlib.suppress(RuntimeError):  # the caller's loop was closed
                loop.call_soon_threadsafe(ready.cancel)  # a future that is done does not mind

        self._start().add_done_callback(tell)
        try:
            done, _ = await asyncio.wait([ready], timeout=max(0.0, left * (1.0 - _MARGIN)))
        except asyncio.CancelledError as error:
            if not passed():
                raise
            raise self._still_loading(left) from error  # on a busy machine the deadline's own timer may come first
        if not done:
            raise self._still_loading(left)
        # If loading failed, the call itself tries again and raises the model's own error.

    def _still_loading(self, left: float) -> DeadlineExceeded:
        return DeadlineExceeded(
            f"{self.label} was still loading its model when its {max(left, 0.0):.3g} s of the deadline had passed. It goes on "
            "loading in the background, for the calls after that. Call `warmup()` before the first call, or raise "
            "`deadline`."
        )

    def _start(self) -> Future[bool]:
        with self._lock:
            future = self._future
            if future is None:
                future = self._future = in_background(self._load())
                started = True
            else:
                started = False
        if started:  # outside the lock: a future that is already done calls back at once
            future.add_done_callback(self._ended)
        return future

    async def _load(self) -> bool:
        """Load the model and return whether that worked.

        An error is returned as False: a task that ends with one while the interpreter ends prints a traceback.
        """
        try:
            await self.inner.awarmup()
        except Exception:
            return False
        return True

    def _ended(self, future: Future[bool]) -> None:
        self._loaded = not future.cancelled() and future.exception() is None and future.result()
        self._future = None

    async def awarmup(self) -> None:
        """Load the model, and wait for it."""
        await self.inner.awarmup()
        self._loaded = True

    async def aclose(self) -> None:
        """Let the model go."""
        self._loaded = False
        await super().aclose()

    def _forget(self) -> None:  # the lock forgets by itself
        self._loaded, self._future = False, None
