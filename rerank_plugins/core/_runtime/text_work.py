"""Run work on user text without blocking the event loop: short texts immediately, long ones on a worker thread.

A worker thread only helps while no single C call holds the global interpreter lock (GIL) for long. So work on long
texts is done in slices: it passes at most `SLICE_CHARACTERS` characters per call to a regular expression, a tokenizer
or a serializer, and calls `check_cancelled` between slices, so that a deadline also stops the work itself.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator, Mapping
from collections.abc import Set as AbstractSet
from typing import TypeVar

from ..types import RerankRequest
from .background_loop import Workers, check_cancelled

__all__ = [
    "MAX_INLINE_SIZE",
    "SLICE_CHARACTERS",
    "approximate_size",
    "character_count",
    "check_cancelled",
    "run_on_text_thread",
    "run_text_work",
    "slice_bounds",
    "slices",
]

T = TypeVar("T")

MAX_INLINE_SIZE = 8_192
"""Largest text, in characters or items, that is processed on the event loop: about a millisecond of pure Python."""
SLICE_CHARACTERS = 65_536
"""Most characters that one C call may process: about a millisecond with the GIL held."""

# Python code holds the GIL, so several threads are not faster than one. There are several so that other calls do not
# wait for one very long text.
_workers = Workers(4, "rerank-plugins-text")


def approximate_size(value: object, limit: int) -> int:
    """Return roughly how many characters and items `value` holds, nested ones included.

    Counting stops once the size exceeds `limit`, so the cost is bounded for any input.
    """
    pending, size = [value], 0
    while pending and size <= limit:
        part = pending.pop()
        if isinstance(part, str):
            size += len(part) + 1
        elif isinstance(part, Mapping):
            size += len(part) + 1
            pending.extend(itertools.islice(part.items(), limit))
        elif isinstance(part, list | tuple | AbstractSet):
            size += len(part) + 1
            pending.extend(itertools.islice(part, limit))
        else:
            items = getattr(part, "size", 1)  # of a NumPy array
            size += items if isinstance(items, int) else 1
    return size


async def run_text_work(size: int, work: Callable[..., T], *arguments: object) -> T:
    """Return `work(*arguments)`, computed immediately if `size` is small, else on a worker thread.

    Args:
        size: Characters that `work` reads, or the number of items if that is larger.
        work: A plain function, linear in `size`; it calls `check_cancelled` between slices.
        *arguments: The arguments of `work`.

    Raises:
        TransientError: No thread can be started.
    """
    if size <= MAX_INLINE_SIZE:
        return work(*arguments)
    return await run_on_text_thread(work, *arguments)


async def run_on_text_thread(work: Callable[..., T], *arguments: object) -> T:
    """Return `work(*arguments)`, computed on a worker thread even for short text: it may have to load a tokenizer.

    Raises:
        TransientError: No thread can be started.
    """
    return await _workers.run(work, *arguments)


def character_count(request: RerankRequest) -> int:
    """Return the number of characters of `request`: query, instruction and documents together."""
    return len(request.query) + len(request.instruction or "") + sum(map(len, request.documents))


def slice_bounds(text: str, size: int = SLICE_CHARACTERS) -> Iterator[tuple[int, int]]:
    """Yield (start, end) of consecutive slices that cover `text`; call `check_cancelled` before each.

    A slice has at most `size` characters, or one more to keep a pair of surrogates together. It ends before a space or
    a line break if its second half has one, so that words and tokens stay whole. An empty text has no slice.
    """
    start, length = 0, len(text)
    while start < length:
        check_cancelled()
        end = start + size
        if end < length:
            half = start + size // 2
            end = max(text.rfind(" ", half, end), text.rfind("\n", half, end))
            if end <= start:
                end = start + size
                if "\ud800" <= text[end - 1] <= "\udbff":  # two surrogates of one character stay together
                    end += 1
        else:
            end = length
        yield start, end
        start = end


def slices(text: str, size: int = SLICE_CHARACTERS) -> Iterator[str]:
    """Yield the texts between `slice_bounds`."""
    for start, end in slice_bounds(text, size):
        yield text[start:end]
