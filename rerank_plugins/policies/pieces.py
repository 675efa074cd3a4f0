"""Where to part a long text: at most so many tokens a piece, at sentence borders where there are any, overlapping."""

from __future__ import annotations

import re
from array import array
from bisect import bisect_left, bisect_right
from collections.abc import Iterator, Sequence

from ..core.text import is_blank
from ..core.text_work import check_cancelled, cuts
from ..core.tokens import bound, estimate

__all__ = ["pieces"]

# No pattern here begins with a repetition that something else has to follow: tried from every blank of a long row of
# them, such a one takes quadratic time.
_SENTENCE_END = re.compile(r"[.!?…]['\")\]]*+\s+|[。！？]|\n+")
_UNIT = re.compile(r"\S{1,24}")


def pieces(text: str, tokens: Sequence[tuple[int, int]] | None, size: int, overlap: int) -> list[tuple[int, int]]:
    """Return (start, end) characters of consecutive pieces of `text`, each of at most `size` tokens, `overlap` of them shared.

    Args:
        text: What is parted.
        tokens: The (start, end) characters of each token; `None` where the tokenizer is not at hand: then lengths are
            estimated from above, word by word.
        size: The most tokens of a piece, at least 1.
        overlap: The most tokens that a piece repeats of the one before; below `size`.

    A piece ends after a sentence where one ends in its second half, and begins with one where one begins in the overlap.
    A piece of nothing but white space, which some tokenizers cover with tokens, is left out. A text that needs no parting
    comes back whole, as (0, its length).
    """
    whole = [(0, len(text))]
    if (bound(text) if tokens is None else len(tokens)) <= size:
        return whole
    # Arrays: of 8 MB of text there are millions of units, and as many tuples would take long to make and to free.
    starts, ends, total = array("Q"), array("Q"), array("Q", [0])
    for start, end, cost in _estimated(text) if tokens is None else ((start, end, 1) for start, end in tokens):
        starts.append(start)
        ends.append(end)
        total.append(total[-1] + cost)
    # The cost of a unit holds the white space before it; what stands after the last one counts too.
    after = estimate(text[ends[-1] :])[1] - 2 if tokens is None and ends else 0
    if not ends or total[-1] + after <= size:
        return whole
    borders = array("Q", _sentence_ends(text))
    chunks = [
        (start, end)
        for start, end in _parted(starts, ends, total, borders, size, overlap)
        if not is_blank(text[start:end])
    ]
    return chunks or whole


def _parted(
    starts: Sequence[int], ends: Sequence[int], total: Sequence[int], borders: Sequence[int], size: int, overlap: int
) -> Iterator[tuple[int, int]]:
    first = 0
    while True:
        check_cancelled()
        # One unit at least, or a piece would never end.
        last = max(bisect_right(total, total[first] + size) - 1, first + 1)
        if last >= len(starts):
            yield starts[first], ends[-1]
            return
        half = min(max(bisect_left(total, total[first] + size // 2), first + 1), last)
        last = _at_border(borders, starts, half, last, latest=True)
        yield starts[first], ends[last - 1]
        back = min(max(bisect_left(total, total[last] - overlap), first + 1), last)
        first = _at_border(borders, starts, back, last, latest=False)


def _at_border(borders: Sequence[int], starts: Sequence[int], low: int, high: int, *, latest: bool) -> int:
    """Return the unit from `low` to `high` with which a sentence begins; without one, the end that `latest` names."""
    first, past = bisect_left(borders, starts[low]), bisect_right(borders, starts[high])
    if first >= past:
        return high if latest else low
    return min(max(bisect_left(starts, borders[past - 1] if latest else borders[first]), low), high)


def _sentence_ends(text: str) -> Iterator[int]:
    for start, end in cuts(text):
        # One character more: a slice ends before the blank that ends a sentence.
        yield from (match.end() for match in _SENTENCE_END.finditer(text, start, end + 1))


def _estimated(text: str) -> Iterator[tuple[int, int, int]]:
    """Yield parts of words, and what each costs with the white space before it."""
    costs: dict[str, int] = {}  # texts repeat their words
    before = 0
    for first, past in cuts(text):
        for match in _UNIT.finditer(text, first, past):
            start, end = match.span()
            unit = text[before:end]
            cost = costs.get(unit)
            if cost is None:
                cost = costs[unit] = estimate(unit)[1] - 2
            yield start, end, cost
            before = end
