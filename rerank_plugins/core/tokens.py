"""How many tokens a text may have, from both sides, where the vendor's tokenizer is not at hand.

No tokenizer in use makes more than one token of one UTF-8 byte, so the byte length is a bound that costs nothing to
compute; `estimate` is finer, and is computed only where that bound does not settle the matter.
"""

from __future__ import annotations

import re
from collections import Counter
from itertools import repeat

from .text_work import SLICE, slices

__all__ = ["beginning", "bound", "estimate"]

# Runs of text that tokenizers treat alike, single blanks left out. A run that mixes digits and letters (base64, hex,
# hashes) is near one token a character; ordinary words are not. Every repetition is possessive, or nothing has to match
# after it, so no run is read more than twice: the time is linear.
_RUNS = re.compile(
    r"[A-Za-z]++(?![0-9])"  # a word
    r"|[A-Za-z0-9]++(?:[+/=_-][A-Za-z0-9]++)*+"  # with a digit in it
    r"|\s\s+|[^\S ]"
    r"|[!-/:-@\[-`{-~]+"
    r"|[\u00a0-\u1fff]+"
    r"|[\u2e80-\u33ff\u4dc0-\uabff\uf900-\ufaff]+"
    r"|[\uac00-\ud7ff]+"
    r"|[^ ]",
    re.DOTALL,
)
_LONGEST_WORD = 20
_FEW = 64
"""Runs up to which counting the equal ones takes longer than it saves."""


def bound(text: str) -> int:
    """Return a number of tokens that no tokenizer exceeds: the bytes of the text in UTF-8, and two marks around it."""
    if text.isascii():
        return len(text) + 2
    if len(text) <= SLICE:
        return len(text.encode("utf-8", "surrogatepass")) + 2
    return sum(len(each.encode("utf-8", "surrogatepass")) for each in slices(text)) + 2


def estimate(text: str, enough: int | None = None) -> tuple[int, int]:
    """Return how many tokens `text` has at least and at most, for the vocabularies in use (30,000 to 260,000 entries).

    A guess on the safe side, not a promise: `tests/test_tokens.py` holds it against real tokenizers on prose, code,
    CJK and base64. Linear in the text; it reads it slice by slice and calls `check_cancelled`.

    Args:
        text: Of any length.
        enough: For callers that only ask whether the number is above this one: reading stops where the lower estimate
            is. Both numbers are then above it, and count only what was read.
    """
    low, high, words, within = 0.0, 2.0, 0, False
    for each in slices(text):
        runs = _RUNS.findall(each)
        # Long texts repeat their words: then most of the time is spent in C, in `findall` and `Counter`.
        for run, times in Counter(runs).items() if len(runs) > _FEW else zip(runs, repeat(1), strict=False):
            least, upper = _cost(run)
            low += times * least
            high += times * upper
        high += each.count(" ") / 16
        # No tokenizer in use joins what white space separates. A word that the slices part counts once.
        words += len(each.split()) - (within and not each[0].isspace())
        within = not each[-1].isspace()
        if enough is not None and max(int(low), words) > enough:
            return max(int(low), words), int(high) + 1
    return max(int(low), words), min(int(high) + 1, bound(text))


def _cost(run: str) -> tuple[float, float]:
    """Return the tokens of one run of `_RUNS`, at least and at most; the blanks in it are not counted."""
    size, first = len(run), run[0]
    if first.isascii() and first.isalnum():
        if not run.isalpha():
            return size / 10, size
        # Common words are one token each, rare ones break every third letter, what is no word at all sooner.
        ordinary = size <= _LONGEST_WORD and run[1:].islower()
        return size / 12, 1 + size * (0.34 if ordinary else 0.7)
    if first.isspace():
        blanks, lines = run.count(" "), run.count("\n")
        unusual = size - blanks - lines - run.count("\t") - run.count("\r")  # such as U+2003: as many as its bytes
        return 0.0, lines + (size > 1) + (size - blanks) / 16 + 3 * unusual
    if first.isascii() and first.isprintable():  # marks: a rule of a hundred "=" can be one token
        return 0.0, size
    if "\u00a0" <= first <= "\u1fff":
        return size / 10, size * 1.5
    if "\uac00" <= first <= "\ud7ff":  # hangul: BERT's tokenizers take the syllables apart
        return size / 3, size * 3
    if "\u2e80" <= first <= "\u33ff" or "\u4dc0" <= first <= "\uabff" or "\uf900" <= first <= "\ufaff":
        return size / 3, size * 2
    return 0.0, size * 4


def beginning(text: str, tokens: int) -> str:
    """Return a beginning of `text` that has at least `tokens` tokens by the lower estimate; the whole where it has fewer."""
    if len(text) <= tokens:  # the lower estimate counts at most one token for each character
        return text
    length = lower = 0
    for part in slices(text):
        length += len(part)
        lower += estimate(part)[0]
        if lower >= tokens:
            return text[:length]
    return text
