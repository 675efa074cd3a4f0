"""Lower and upper bounds for the number of tokens of a text, if the vendor's tokenizer is not available.

No tokenizer in use makes more than one token of one UTF-8 byte, so the length in bytes is an upper bound that costs
nothing to compute. `estimate_tokens` is closer, and is only needed if that bound does not decide.
"""

from __future__ import annotations

import re
from collections import Counter
from itertools import repeat

from ._runtime.text_work import SLICE_CHARACTERS, slices

__all__ = ["SPECIAL_TOKENS", "beginning", "estimate_tokens", "max_token_count"]

SPECIAL_TOKENS = 2
"""Special tokens around a text, such as [CLS] and [SEP], which both upper bounds include."""

# Runs of characters that tokenizers treat alike, without single blanks. A run that mixes digits and letters (base64,
# hex, hashes) is near one token a character; ordinary words are not. Every repetition is possessive, or nothing has to
# match after it, so no run is read more than twice: the time is linear.
_RUNS = (
    r"[A-Za-z]++(?![0-9])"  # a word
    r"|[A-Za-z0-9]++(?:[+/=_-][A-Za-z0-9]++)*+"  # with a digit in it
    r"|\s\s+|[^\S ]"
    r"|[!-/:-@\[-`{-~]+"
    r"|[\u00a0-\u1fff]+"
    r"|[\u2e80-\u33ff\u4dc0-\uabff\uf900-\ufaff]+"
    r"|[\uac00-\ud7ff]+"
    r"|[^ ]"
)
_LONGEST_WORD = 20
_FEW = 64
"""Number of runs up to which `Counter` costs more time than it saves."""


def max_token_count(text: str) -> int:
    """Return an upper bound for any tokenizer: the bytes of the text in UTF-8, plus `SPECIAL_TOKENS`."""
    if text.isascii():
        return len(text) + SPECIAL_TOKENS
    if len(text) <= SLICE_CHARACTERS:
        return len(text.encode("utf-8", "surrogatepass")) + SPECIAL_TOKENS
    return sum(len(part.encode("utf-8", "surrogatepass")) for part in slices(text)) + SPECIAL_TOKENS


def estimate_tokens(text: str, enough: int | None = None) -> tuple[int, int]:
    """Return the smallest and the largest number of tokens that `text` may have.

    It covers vocabularies of 30,000 to 260,000 entries. It is an estimate on the safe side, not a guarantee:
    `tests/core/test_tokens.py` compares it with real tokenizers on prose, code, CJK and base64. The time is linear;
    between slices it calls `check_cancelled`.

    Args:
        text: A text of any length.
        enough: For callers that only compare the number with this one. Reading stops once the lower estimate is above
            it. Both numbers are then above it, and count only the part that was read.
    """
    low, high, words, in_word = 0.0, float(SPECIAL_TOKENS), 0, False
    for part in slices(text):
        runs = re.findall(_RUNS, part, re.DOTALL)  # compiled at the first call
        # Long texts repeat words. Counting equal runs moves most of the work into C code.
        for run, times in Counter(runs).items() if len(runs) > _FEW else zip(runs, repeat(1), strict=False):
            least, upper = _cost(run)
            low += times * least
            high += times * upper
        high += part.count(" ") / 16
        # No tokenizer in use joins words across white space. A word that a slice boundary divides counts once.
        words += len(part.split()) - (in_word and not part[0].isspace())
        in_word = not part[-1].isspace()
        if enough is not None and max(int(low), words) > enough:
            return max(int(low), words), int(high) + 1
    return max(int(low), words), min(int(high) + 1, max_token_count(text))


def _cost(run: str) -> tuple[float, float]:
    """Return the smallest and largest number of tokens of one run of `_RUNS`, without the blanks in it."""
    size, first = len(run), run[0]
    if first.isascii() and first.isalnum():
        if not run.isalpha():
            return size / 10, size
        # Common words are one token. Rare words break at every third letter, random letters sooner.
        ordinary = size <= _LONGEST_WORD and run[1:].islower() and len(set(run)) > size // 4  # not "aaaaaaaa"
        return size / 12, 1 + size * (0.34 if ordinary else 0.7)
    if first.isspace():
        blanks, lines = run.count(" "), run.count("\n")
        other = size - blanks - lines - run.count("\t") - run.count("\r")  # U+2003, for example: one token per byte
        return 0.0, lines + (size > 1) + (size - blanks) / 16 + 3 * other
    if first.isascii() and first.isprintable():  # punctuation: a line of a hundred "=" can be one token
        return 0.0, size
    if "\u00a0" <= first <= "\u1fff":
        return size / 10, size * 1.5
    if "\uac00" <= first <= "\ud7ff":  # hangul: BERT's tokenizers take the syllables apart
        return size / 3, size * 3
    if "\u2e80" <= first <= "\u33ff" or "\u4dc0" <= first <= "\uabff" or "\uf900" <= first <= "\ufaff":
        return size / 3, size * 2
    return 0.0, size * 4


def beginning(text: str, tokens: int) -> str:
    """Return a prefix of `text` with at least `tokens` tokens by the lower estimate, or all of it if it has fewer."""
    if len(text) <= tokens:  # the lower estimate counts at most one token for each character
        return text
    length = lower = 0
    for part in slices(text):
        length += len(part)
        lower += estimate_tokens(part)[0]
        if lower >= tokens:
            return text[:length]
    return text
