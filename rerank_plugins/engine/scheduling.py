"""Which rows go through a model together, and when: batches by length, packed batches, and batches that calls share.

Dynamic batching (Triton's and vLLM's word): ten rows a batch, one call at a time, leave a GPU idle, so a batch takes rows of several calls.
"""

from __future__ import annotations

import threading
from bisect import bisect_left, bisect_right
from collections.abc import Awaitable, Callable, Iterable, Sequence
from concurrent.futures import Future
from itertools import groupby
from typing import TYPE_CHECKING, TypeVar

from ..core.admission import Caller
from ..core.together import together
from .tokenizer import Encoded

if TYPE_CHECKING:
    import numpy as np

__all__ = ["Call", "Row", "answer", "batch", "packs", "plan", "run_batches"]

B = TypeVar("B")

MOST_PADDING = 0.125
"""Share of the longest text by which the shortest of its batch may be shorter."""


def plan(lengths: Sequence[int], batch_tokens: int) -> list[list[int]]:
    """Return batches of positions, longest texts first, each at most `batch_tokens` once padded to its longest.

    Longest first, because the last batch decides when the call ends, and a short one ends sooner. A text longer than
    `batch_tokens` goes alone. Texts of much different lengths never share a batch: padding is computed like text (in batches of 32,
    as sentence-transformers makes them, it takes 1.28 times as long at 100 documents and 2.07 times at 30).
    """
    order = sorted(range(len(lengths)), key=lambda position: -lengths[position])
    batches: list[list[int]] = []
    for position in order:
        batch = batches[-1] if batches else None
        if batch is not None:
            longest = lengths[batch[0]]
            near = lengths[position] >= longest * (1.0 - MOST_PADDING)
            if near and longest * (len(batch) + 1) <= batch_tokens:
                batch.append(position)
                continue
        batches.append([position])
    return batches


def packs(lengths: Sequence[int], batch_tokens: int) -> list[list[int]]:
    """Return batches of positions, longest texts first, each at most `batch_tokens` in all: for engines that do not pad.

    A text longer than `batch_tokens` goes alone.
    """
    batches: list[list[int]] = []
    left = 0
    for position in sorted(range(len(lengths)), key=lambda position: -lengths[position]):
        if not batches or lengths[position] > left:
            batches.append([])
            left = batch_tokens
        batches[-1].append(position)
        left -= lengths[position]
    return batches


async def run_batches(batches: Iterable[B], lanes: Iterable[Callable[[B], Awaitable[None]]]) -> None:
    """Give each batch, in order, to the first lane that is free; return when all are done.

    A lane has one batch at a time, so a cancelled call leaves nothing behind but those. The first error ends the call
    and is raised as it is.
    """
    queue = iter(batches)

    async def run(lane: Callable[[B], Awaitable[None]]) -> None:
        for batch in queue:
            await lane(batch)

    await together(run(lane) for lane in lanes)


Row = tuple["Call", int]
"""A call, and which of its rows."""


class Call(Caller):
    """The rows of one call, longest first: they wait until a batch takes them, on whichever device."""

    def __init__(
        self, rows: Sequence[Encoded], batch_tokens: int | None, keep: Callable[[list[int], np.ndarray], None]
    ) -> None:
        """Take the rows, and what is to be called with positions and output after every batch."""
        super().__init__()
        self.rows, self.batch_tokens = rows, batch_tokens
        self.done = Future[BaseException | None]()
        """Done when every row is answered, or at the first error, which is its result: a future does not raise every error, and
        this one may be that of other calls too."""
        self.done.set_running_or_notify_cancel()
        self._keep = keep
        self._lock = threading.Lock()  # several devices take and answer at the same time
        self._waiting = sorted(range(len(rows)), key=lambda position: -len(rows[position].ids))
        self._open = len(rows)
        self._left = False
        if not rows:
            self.done.set_result(None)

    @property
    def waits(self) -> bool:
        """Whether rows of it wait for a batch."""
        return bool(self._waiting) and not self.over

    @property
    def over(self) -> bool:
        """Whether nobody waits for its rows any more."""
        return self._left or not self._open or self.gone

    def take(self, batch_tokens: int, beside: int = 0, longest: int | None = None) -> list[int]:
        """Take the longest waiting rows that fit into a batch, padding included; at least one into an empty one.

        Args:
            batch_tokens: Tokens that the batch may have.
            beside: How many rows of others it has already.
            longest: The tokens of its longest row, which is padded to; rows that are longer, or much shorter, stay.
        """
        with self._lock:
            if not self.waits:
                return []
            if longest is None:
                longest = len(self.rows[self._waiting[0]].ids)

            def shortness(position: int) -> int:
                return -len(self.rows[position].ids)

            first = bisect_left(self._waiting, -longest, key=shortness)
            last = bisect_right(self._waiting, -longest * (1.0 - MOST_PADDING), key=shortness)
            size = max(batch_tokens // longest, 1) - beside
            taken = self._waiting[first : min(last, first + size)]
            del self._waiting[first : first + len(taken)]
            return taken

    def answer(self, positions: list[int], output: np.ndarray) -> None:
        """Hand on what a batch gave for some rows."""
        try:
            self._keep(positions, output)
        except BaseException as error:
            self.fail(error)
            return
        with self._lock:
            if self._open:
                self._open -= len(positions)
                if not self._open:
                    self.done.set_result(None)

    def fail(self, error: BaseException) -> None:
        """End the call with an error; rows that wait are not run."""
        with self._lock:
            if self._open:
                self._open = 0
                self.done.set_result(error)

    def leave(self) -> None:
        """Whoever asked is gone: rows that wait are not run.

        Takes no lock: the collector ends calls that their event loop forgot, on any thread at any moment.
        """
        self._left = True


def batch(call: Call, others: Iterable[Call], batch_tokens: int) -> list[Row]:
    """Return a batch of at most `batch_tokens` tokens: the longest rows of the call whose turn it is, then of others what is as long.

    The others come in the order in which they came. None is kept waiting by that: each has turns of its own.
    """
    rows = [(call, position) for position in call.take(batch_tokens)]
    if rows:
        longest = len(call.rows[rows[0][1]].ids)
        for other in others:
            if other.batch_tokens == call.batch_tokens:
                rows += [(other, position) for position in other.take(batch_tokens, len(rows), longest)]
    return rows


def answer(rows: Sequence[Row], output: np.ndarray) -> None:
    """Hand each call what a batch gave for its rows."""
    start = 0
    for call, group in groupby(rows, key=lambda row: row[0]):
        positions = [position for _, position in group]
        call.answer(positions, output[start : start + len(positions)])
        start += len(positions)
