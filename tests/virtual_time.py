"""An event loop whose clock jumps to the next timer when nothing else is to be done: hours in milliseconds, exactly."""

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
    """`time()` moves only when every task waits for a timer."""

    def __init__(self) -> None:
        self._clock = _Jumping()
        super().__init__(self._clock)

    def time(self) -> float:
        return self._clock.now


def virtually(work: Callable[[], Coroutine[Any, Any, T]]) -> tuple[T | BaseException, float]:
    """Run `work()` on a loop of its own; return its result, or what it raised, and the virtual seconds it took."""

    async def timed() -> tuple[T | BaseException, float]:
        began = asyncio.get_running_loop().time()
        try:
            result: T | BaseException = await work()
        except Exception as error:
            result = error
        return result, asyncio.get_running_loop().time() - began

    with asyncio.Runner(loop_factory=VirtualTimeLoop) as runner:
        return runner.run(timed())
