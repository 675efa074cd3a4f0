"""Splits a long text into overlapping pieces with a maximum number of tokens, at sentence boundaries if possible."""

from __future__ import annotations

import re
from array import array
from bisect import bisect_left, bisect_right
from collections.abc import Iterator, Sequence

from ..core._runtime.text_work import check_cancelled, slice_bounds
from ..core.text import is_blank
from ..core.tokens import SPECIAL_TOKENS, estimate_tokens, max_token_count

__all__ = ["split_text"]

# Neither pattern starts with a repetition that something must follow. On a long run of blanks such a pattern takes
# quadratic time: it is tried at every blank, and reads to the end of the run each time.
_SENTENCE_END = re.compile(r"[.!?…]['\")\]]*+\s+|[。！？]|\n+")
_UNIT = re.compile(r"\S{1,24}")
"""A word, or a part of a longer one. Without a tokenizer, a piece never ends inside a unit."""


def split_text(text: str, tokens: Sequence[tuple[int, int]] | None, size: int, overlap: int) -> list[tuple[int, int]]:
    """Split a text into consecutive, overlapping pieces.

    A piece ends after a sentence if one ends in its second half, and starts with a sentence if one starts in the
    overlap. A piece of white space alone, for which some tokenizers have tokens, is left out.

    Args:
        text: The text.
        tokens: The (start, end) characters of each token. `None` without a tokenizer: then the numbers of tokens are
            upper estimates.
        size: Maximum number of tokens in a piece, at least 1.
        overlap: Maximum number of tokens that a piece repeats from the one before; below `size`.

    Returns:
        The (start, end) characters of each piece. A text of at most `size` tokens is one piece.
    """
    one_piece = [(0, len(text))]
    if (max_token_count(text) if tokens is None else len(tokens)) <= size:
        return one_piece
    # Arrays, because 8 MB of text have millions of units, and as many tuples are slow to create and to free.
    starts, ends, prefix_sums = array("Q"), array("Q"), array("Q", [0])
    for start, end, cost in _estimated_units(text) if tokens is None else ((start, end, 1) for start, end in tokens):
        starts.append(start)
        ends.append(end)
        prefix_sums.append(prefix_sums[-1] + cost)
    # The cost of a unit includes the white space before it. The white space after the last unit counts too.
    trailing_cost = _upper_estimate(text[ends[-1] :]) if tokens is None and ends else 0
    if not ends or prefix_sums[-1] + trailing_cost <= size:
        return one_piece
    boundaries = array("Q", _sentence_ends(text))
    pieces = [
        (start, end)
        for start, end in _pieces(starts, ends, prefix_sums, boundaries, size, overlap)
        if not is_blank(text[start:end])
    ]
    return pieces or one_piece


def _pieces(
    starts: Sequence[int],
    ends: Sequence[int],
    prefix_sums: Sequence[int],
    boundaries: Sequence[int],
    size: int,
    overlap: int,
) -> Iterator[tuple[int, int]]:
    """Yield the (start, end) characters of each piece.

    Args:
        starts: The first character of each unit (a token, or a part of a word).
        ends: The character after each unit.
        prefix_sums: `prefix_sums[i]` is the number of tokens in the first i units.
        boundaries: The position after the end of each sentence, in order.
        size: Maximum number of tokens in a piece.
        overlap: Maximum number of tokens that a piece repeats.
    """
    first = 0  # a piece has the units from `first` to before `end`
    while True:
        check_cancelled()
        # A piece has at least one unit, so that the loop ends.
        end = max(bisect_right(prefix_sums, prefix_sums[first] + size) - 1, first + 1)
        if end >= len(starts):
            yield starts[first], ends[-1]
            return
        middle = min(max(bisect_left(prefix_sums, prefix_sums[first] + size // 2), first + 1), end)
        end = _unit_at_boundary(boundaries, starts, middle, end, latest=True)
        yield starts[first], ends[end - 1]
        overlap_start = min(max(bisect_left(prefix_sums, prefix_sums[end] - overlap), first + 1), end)
        first = _unit_at_boundary(boundaries, starts, overlap_start, end, latest=False)


def _unit_at_boundary(boundaries: Sequence[int], starts: Sequence[int], low: int, high: int, *, latest: bool) -> int:
    """Return the index of a unit from `low` to `high` that starts a sentence: the last one if `latest`, else the first.

    If no sentence starts there, return `high` if `latest`, else `low`.
    """
    first, end = bisect_left(boundaries, starts[low]), bisect_right(boundaries, starts[high])
    if first >= end:
        return high if latest else low
    return min(max(bisect_left(starts, boundaries[end - 1] if latest else boundaries[first]), low), high)


def _sentence_ends(text: str) -> Iterator[int]:
    for start, end in slice_bounds(text):
        # One more character: a slice ends before a blank, which the pattern needs after the end of a sentence.
        yield from (match.end() for match in _SENTENCE_END.finditer(text, start, end + 1))


def _estimated_units(text: str) -> Iterator[tuple[int, int, int]]:
    """Yield (start, end, tokens) of each unit. The estimated number of tokens includes the white space before it."""
    costs: dict[str, int] = {}  # a cache, because texts repeat their words
    previous_end = 0
    for slice_start, slice_end in slice_bounds(text):
        for match in _UNIT.finditer(text, slice_start, slice_end):
            start, end = match.span()
            unit = text[previous_end:end]
            cost = costs.get(unit)
            if cost is None:
                cost = costs[unit] = _upper_estimate(unit)
            yield start, end, cost
            previous_end = end


def _upper_estimate(text: str) -> int:
    return estimate_tokens(text)[1] - SPECIAL_TOKENS
