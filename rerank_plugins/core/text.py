"""Which text can be sent, and which text is blank. The work is linear and in slices, for `run_text_work`."""

from __future__ import annotations

import functools
import unicodedata

from ._runtime.text_work import slices

__all__ = ["is_blank", "is_ignorable", "sendable"]

_INVISIBLE = frozenset({"Cc", "Cf", "Zs", "Zl", "Zp"})
"""General categories of control, format and separator characters."""
_IGNORABLE = (
    (0x034F, 0x034F),
    (0x115F, 0x1160),
    (0x17B4, 0x17B5),
    (0x180B, 0x180F),
    (0x3164, 0x3164),
    (0xFE00, 0xFE0F),
    (0xFFA0, 0xFFA0),
    (0xFFF0, 0xFFF8),
    (0xE0000, 0xE0FFF),
)
"""Default_Ignorable_Code_Point of Unicode 17 where the general category is another one (fillers, variation selectors,
reserved): https://www.unicode.org/Public/17.0.0/ucd/DerivedCoreProperties.txt. Other unassigned code points count as
visible, since a later Unicode version may have given them to a script."""
_FIRST = 256
"""Characters that are checked first: nearly every text has a visible character among them."""


def is_blank(text: str) -> bool:
    """Return whether `text` has no visible character: only control, format, separator and default-ignorable ones."""
    if any(map(_visible, text[:_FIRST])):
        return False
    return not any(_visible(character) for part in slices(text) for character in set(part))


@functools.lru_cache(maxsize=1024)
def _visible(character: str) -> bool:
    return unicodedata.category(character) not in _INVISIBLE and not is_ignorable(character)


def is_ignorable(character: str) -> bool:
    """Return whether a display leaves the character out: a format character or another default-ignorable code point."""
    return unicodedata.category(character) == "Cf" or any(first <= ord(character) <= last for first, last in _IGNORABLE)


def sendable(text: str) -> str:
    """Return `text` with each lone surrogate replaced by U+FFFD, since UTF-8 cannot encode surrogates.

    An instance of a subclass of `str` (of NumPy, or a `StrEnum`) becomes a plain string.
    """
    if type(text) is not str:
        text = str.__str__(text)
    if text.isascii() or all(map(_encodable, slices(text))):
        return text
    return "".join(part.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "replace") for part in slices(text))


def _encodable(part: str) -> bool:
    try:
        part.encode()
    except UnicodeEncodeError:
        return False
    return True
