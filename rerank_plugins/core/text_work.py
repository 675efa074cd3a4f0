"""Run work on user text without holding the event loop: short texts at once, long ones on a worker thread.

A worker thread only helps while no single C call keeps the interpreter lock for long. So work on long texts goes in
slices: it handles at most `SLICE` characters per call into a regular expression, a tokenizer or a serializer, and calls
`check_cancelled` between slices, so that a deadline also stops the work itself.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

from .loop import Workers, check_cancelled

__all__ = ["INLINE", "SLICE", "check_cancelled", "run_text_work"]

T = TypeVar("T")

INLINE = 8_192
"""Characters (or items) up to which work runs on the event loop itself: about a millisecond of pure Python."""
SLICE = 65_536
"""Characters that one C call may handle: about a millisecond with the interpreter lock held."""

# Python work is bound by the interpreter lock, so more threads would not be faster. Several are there so that one very
# long text does not make all other calls of the process wait for it.
_workers = Workers(4, "rerank-plugins-text")


async def run_text_work(size: int, work: Callable[..., T], *arguments: object) -> T:
    """Return `work(*arguments)`, computed at once if `size` is small, else on a worker thread.

    Args:
        size: Characters that `work` reads, or the number of items if that is larger.
        work: A plain function, linear in `size`; it calls `check_cancelled` between slices.
        *arguments: What `work` is called with.

    Raises:
        TransientError: No thread can be started.
    """
    if size <= INLINE:
        return work(*arguments)
    return await _workers.run(work, *arguments)
