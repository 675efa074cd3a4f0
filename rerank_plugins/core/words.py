"""Split text into words, for lexical scores and overlap. Spellings that are equivalent in Unicode give one word.

The steps follow caseless matching of compatibility-equivalent strings (The Unicode Standard, section 3.13, D146):
NFKC, case folding, NFKC again. Then characters that a writer may leave out are dropped: default-ignorable characters (a
soft hyphen, a zero-width joiner), points and vowel signs of Hebrew, Arabic and Syriac, the Arabic tatweel, and accents
that no composed character holds (a Russian stress mark). Accents of composed letters stay: they tell words apart.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterator

from ._runtime.text_work import check_cancelled, slices
from .text import is_ignorable

__all__ = ["split_words", "word_slices"]

_ASCII_WORD = re.compile(r"[^\W_]+", re.ASCII)
_PIECE = 1_024
"""Characters that are normalized in one call: sorting a run of combining marks takes quadratic time in its length."""
_TATWEEL = "\u0640"
_OPTIONAL_MARKS = (*range(10, 37), *range(200, 241))
"""Canonical combining classes: 10 to 26 are Hebrew points, 27 to 35 Arabic ones, 36 Syriac; from 200 on, accents in
general. The classes between are vowels and tones of Thai, Lao and Tibetan, and 7 to 9 are nukta, voicing marks and
virama: they are part of the word. https://www.unicode.org/reports/tr44/#Canonical_Combining_Class_Values"""
_WITHOUT_SPACES = (
    (0x0E00, 0x0EFF),  # Thai, Lao
    (0x1000, 0x109F),  # Myanmar
    (0x1780, 0x17FF),  # Khmer
    (0x3040, 0x30FF),  # Hiragana, Katakana
    (0x31F0, 0x31FF),  # Katakana, small letters of Ainu
    (0x3400, 0x4DBF),  # ideographs
    (0x4E00, 0x9FFF),
    (0xAC00, 0xD7A3),  # Hangul: particles are written without a space
    (0xF900, 0xFAFF),
    (0x20000, 0x3FFFF),
)
"""Scripts without spaces between words, or before particles. Each of their characters counts as a word."""


class _Table(dict[int, str | None]):
    """Table for `str.translate`, filled on demand: a code point is dropped, kept, a word of its own, or a space."""

    def __missing__(self, code: int) -> str | None:
        character = chr(code)
        self[code] = result = _translated(character)
        return result


def _translated(character: str) -> str | None:
    category = unicodedata.category(character)
    if character == _TATWEEL or is_ignorable(character) or unicodedata.combining(character) in _OPTIONAL_MARKS:
        return None
    if category[0] not in "LNM":
        return " "
    if any(first <= ord(character) <= last for first, last in _WITHOUT_SPACES):
        return f" {character} "
    return character


_table = _Table()


def split_words(text: str) -> list[str]:
    """Return the words of `text` in order, without differences of case, width, ligatures and optional marks.

    In scripts without spaces between words, each character is a word. The time is linear in the length of the text.

    >>> split_words("ﬁnal Straße-2")
    ['final', 'strasse', '2']
    """
    return [word for words in word_slices(text) for word in words]


def word_slices(text: str) -> Iterator[list[str]]:
    """Yield the words of `split_words` slice by slice, so that a long text never becomes one list."""
    for part in slices(text):
        if part.isascii():
            yield _ASCII_WORD.findall(part.lower())
        else:
            folded = "".join(_folded(piece) for piece in _pieces(part))
            yield folded.translate(_table).split()


def _folded(piece: str) -> str:
    check_cancelled()
    normalized = unicodedata.normalize("NFKC", piece)
    return unicodedata.normalize("NFKC", normalized.casefold())


def _pieces(text: str) -> Iterator[str]:
    """Yield pieces of about `_PIECE` characters. They end before a space if one is near, and never before a mark."""
    start = 0
    while start < len(text):
        end = start + _PIECE
        if end < len(text):
            space = text.rfind(" ", start + _PIECE // 2, end)
            end = space if space > 0 else _last_boundary(text, start + _PIECE // 2, end)
        yield text[start:end]
        start = end


def _last_boundary(text: str, low: int, end: int) -> int:
    """Return the last index from `low` to `end` whose character cannot combine with the one before it; else `end`."""
    for index in range(end, low, -1):
        character = text[index]
        if unicodedata.combining(character) == 0 and not 0x1160 <= ord(character) <= 0x11FF:  # vowels, ends of Hangul
            return index
    return end
