"""An event loop whose clock jumps to the next timer when no task can run: tests of hours take milliseconds."""

from __future__ import annotations

import asyncio
import selectors
from collections.abc import Callable, Coroutine
from typing import Any, TypeVar

T = TypeVar("T")


class _Jumping(selectors.DefaultSelector):
    def __init__(self) -> None:
        super().__init__()
        self.now = 1_000.0

    def select(self, timeout: float | None = None) -> Any:
        if timeout is None or timeout <= 0:
            return super().select(timeout)
        ready = super().select(0)
        if not ready:
            self.now += timeout
        return ready


class VirtualTimeLoop(asyncio.SelectorEventLoop):
    """An event loop whose `time()` advances only when all tasks wait for timers."""

    def __init__(self) -> None:
        self._clock = _Jumping()
        super().__init__(self._clock)

    def time(self) -> float:
        return self._clock.now


def virtually(work: Callable[[], Coroutine[Any, Any, T]]) -> tuple[T | BaseException, float]:
    """Run `work()` on a new loop; return its result or its exception, and the virtual seconds that it took."""

    async def timed() -> tuple[T | BaseException, float]:
        started = asyncio.get_running_loop().time()
        try:
            result: T | BaseException = await work()
        except Exception as error:
            result = error
        return result, asyncio.get_running_loop().time() - started

    with asyncio.Runner(loop_factory=VirtualTimeLoop) as runner:
        return runner.run(timed())
