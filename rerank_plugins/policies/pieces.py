"""Where to part a long text: at most so many tokens a piece, at sentence borders where there are any, overlapping."""

from __future__ import annotations

import re
from bisect import bisect_left, bisect_right
from collections.abc import Sequence
from itertools import accumulate

from ..core.tokens import bound, estimate

__all__ = ["pieces"]

_SENTENCE_END = re.compile(r"[.!?…]['\")\]]*\s+|[。！？]|\n+")
_RUN = re.compile(r"\s*\S{1,24}")


def pieces(text: str, tokens: Sequence[tuple[int, int]] | None, size: int, overlap: int) -> list[tuple[int, int]]:
    """Return (start, end) characters of consecutive pieces of `text`, each of at most `size` tokens, `overlap` of them shared.

    Args:
        text: What is parted.
        tokens: The (start, end) characters of each token; `None` where the tokenizer is not at hand: then lengths are
            estimated from above, word by word.
        size: The most tokens of a piece, at least 1.
        overlap: The most tokens that a piece repeats of the one before; below `size`.

    A piece ends after a sentence where one ends in its second half, and begins with one where one begins in the overlap.
    """
    if tokens is None and bound(text) <= size:
        return [(0, len(text))]
    units = _estimated(text) if tokens is None else [(start, end, 1) for start, end in tokens]
    total = [0, *accumulate(cost for _, _, cost in units)]
    if total[-1] <= size:
        return [(0, len(text))]
    starts = [start for start, _, _ in units]
    borders = [match.end() for match in _SENTENCE_END.finditer(text)]
    found: list[tuple[int, int]] = []
    first = 0
    while True:
        # One unit at least, or a piece would never end.
        last = max(bisect_right(total, total[first] + size) - 1, first + 1)
        if last >= len(units):
            found.append((starts[first], units[-1][1]))
            return found
        half = min(max(bisect_left(total, total[first] + size // 2), first + 1), last)
        last = _at_border(borders, starts, half, last, latest=True)
        found.append((starts[first], units[last - 1][1]))
        back = min(max(bisect_left(total, total[last] - overlap), first + 1), last)
        first = _at_border(borders, starts, back, last, latest=False)


def _at_border(borders: Sequence[int], starts: Sequence[int], low: int, high: int, *, latest: bool) -> int:
    """Return the unit from `low` to `high` with which a sentence begins; without one, the end that is asked for."""
    inside = borders[bisect_left(borders, starts[low]) : bisect_right(borders, starts[high])]
    if not inside:
        return high if latest else low
    return min(max(bisect_left(starts, inside[-1] if latest else inside[0]), low), high)


def _estimated(text: str) -> list[tuple[int, int, int]]:
    return [
        (match.start() + len(match.group()) - len(match.group().lstrip()), match.end(), estimate(match.group())[1] - 2)
        for match in _RUN.finditer(text)
    ]
