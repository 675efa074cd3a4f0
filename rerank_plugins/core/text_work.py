"""Run work on user text without holding the event loop: short texts at once, long ones on a worker thread.

A worker thread only helps while no single C call keeps the interpreter lock for long. So work on long texts goes in
slices: it handles at most `SLICE` characters per call into a regular expression, a tokenizer or a serializer, and calls
`check_cancelled` between slices, so that a deadline also stops the work itself.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator, Mapping
from collections.abc import Set as AbstractSet
from typing import TypeVar

from .loop import Workers, check_cancelled
from .types import RerankRequest

__all__ = [
    "INLINE",
    "SLICE",
    "characters",
    "check_cancelled",
    "cuts",
    "run_on_text_thread",
    "run_text_work",
    "size_of",
    "slices",
]

T = TypeVar("T")

INLINE = 8_192
"""Characters (or items) up to which work runs on the event loop itself: about a millisecond of pure Python."""
SLICE = 65_536
"""Characters that one C call may handle: about a millisecond with the interpreter lock held."""

# Python work is bound by the interpreter lock, so more threads would not be faster. Several are there so that one very
# long text does not make all other calls of the process wait for it.
_workers = Workers(4, "rerank-plugins-text")


def size_of(value: object, enough: int) -> int:
    """Return about how many characters and items `value` holds: strings, lists and mappings of them, however deep.

    It stops at `enough`, which it may exceed, so that it costs little for any input.
    """
    pending, size = [value], 0
    while pending and size <= enough:
        part = pending.pop()
        if isinstance(part, str):
            size += len(part) + 1
        elif isinstance(part, Mapping):
            size += len(part) + 1
            pending.extend(itertools.islice(part.items(), enough))
        elif isinstance(part, list | tuple | AbstractSet):
            size += len(part) + 1
            pending.extend(itertools.islice(part, enough))
        else:
            items = getattr(part, "size", 1)  # of an array of NumPy's
            size += items if isinstance(items, int) else 1
    return size


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
    return await run_on_text_thread(work, *arguments)


async def run_on_text_thread(work: Callable[..., T], *arguments: object) -> T:
    """Return `work(*arguments)`, computed on a worker thread whatever its size: it may have to load a tokenizer first.

    Raises:
        TransientError: No thread can be started.
    """
    return await _workers.run(work, *arguments)


def characters(request: RerankRequest) -> int:
    """Return how many characters the query, the instruction and the documents of `request` have together."""
    return len(request.query) + len(request.instruction or "") + sum(map(len, request.documents))


def cuts(text: str, size: int = SLICE) -> Iterator[tuple[int, int]]:
    """Yield (start, end) of consecutive slices that cover `text`; call `check_cancelled` before each.

    A slice has at most `size` characters, one more where a pair of surrogates would be torn apart. It ends before a
    blank or a line break where its second half has one, so that words, and the tokens of a tokenizer, stay whole. An
    empty text has no slice.
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


def slices(text: str, size: int = SLICE) -> Iterator[str]:
    """Yield the texts between `cuts`."""
    for start, end in cuts(text, size):
        yield text[start:end]
