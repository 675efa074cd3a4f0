"""Plain data as YAML, exactly as PyYAML's `SafeDumper` writes it in block style without line folding.

PyYAML's own emitter needs 4 µs a character, and libyaml's keeps the interpreter lock for a whole document. This one is
linear, and works on long strings in slices, between which it checks whether the caller still waits.
"""

from __future__ import annotations

import datetime as dt
import math
import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from .core._runtime.text_work import SLICE_CHARACTERS, check_cancelled, slices

__all__ = ["yaml_text"]

Write = Callable[[str], object]

_SPACE = "\0 \t\r\n\x85\u2028\u2029"
_ORDINARY = re.compile(r"[A-Za-z_][A-Za-z0-9_]*(?:[ .-][A-Za-z0-9_]+)*")
"""Strings that YAML writes without quotes, unless they are a keyword such as `yes`."""
_ORDINARY_UP_TO = 120
_SPECIAL = re.compile("[^\n\x20-\x7e\x85\xa0-\ud7ff\ue000-\ufefe\uff00-\ufffd\U00010000-\U0010fffe]")
"""Characters that need double quotes."""
_BREAK = re.compile("[\n\x85\u2028\u2029]")
_BREAKS = re.compile("[\n\x85\u2028\u2029]+")
_SPACE_BREAK = re.compile(" [\n\x85\u2028\u2029]")
_BREAK_SPACE = re.compile("[\n\x85\u2028\u2029] ")
_INDICATOR = re.compile(f":[{_SPACE}]|[{_SPACE}]#")
"""Character pairs that start a value or a comment, so a string without quotes must not contain them."""
_ESCAPED = re.compile('[^\x20-\x7e\xa0-\ud7ff\ue000-\ufefe\uff00-\ufffd]|["\\\\\u2028\u2029]')
_SHORT_ESCAPES = {
    "\0": "0",
    "\x07": "a",
    "\x08": "b",
    "\t": "t",
    "\n": "n",
    "\x0b": "v",
    "\x0c": "f",
    "\r": "r",
    "\x1b": "e",
    '"': '"',
    "\\": "\\",
    "\x85": "N",
    "\xa0": "_",
    "\u2028": "L",
    "\u2029": "P",
}

_PARTS = 10_000

# What a plain scalar may be taken for, by the implicit resolvers of YAML 1.1 (https://yaml.org/type/, as PyYAML 6 has
# them).
_WORD = re.compile(
    r"(?:yes|Yes|YES|no|No|NO|true|True|TRUE|false|False|FALSE|on|On|ON|off|Off|OFF|~|null|Null|NULL|<<|=|)$"
)
_LONGEST_WORD = 5
_NUMBER = re.compile(
    r"""(?:[-+]?(?:[0-9][0-9_]*)\.[0-9_]*(?:[eE][-+][0-9]+)?
        |\.[0-9][0-9_]*(?:[eE][-+][0-9]+)?
        |[-+]?[0-9][0-9_]*(?::[0-5]?[0-9])+\.[0-9_]*
        |[-+]?\.(?:inf|Inf|INF)
        |\.(?:nan|NaN|NAN)
        |[-+]?0b[0-1_]+
        |[-+]?0[0-7_]+
        |[-+]?(?:0|[1-9][0-9_]*)
        |[-+]?0x[0-9a-fA-F_]+
        |[-+]?[1-9][0-9_]*(?::[0-5]?[0-9])+
        |[0-9][0-9][0-9][0-9]-[0-9][0-9]-[0-9][0-9]
        |[0-9][0-9][0-9][0-9]-[0-9][0-9]?-[0-9][0-9]?(?:[Tt]|[ \t]+)[0-9][0-9]?
         :[0-9][0-9]:[0-9][0-9](?:\.[0-9]*)?(?:[ \t]*(?:Z|[-+][0-9][0-9]?(?::[0-9][0-9])?))?)$""",
    re.VERBOSE,
)
_NUMBER_STARTS = frozenset("-+.0123456789")
_NOT_A_NUMBER = re.compile(r"[^0-9a-fA-FTtZxeE_:.+\- \t]")

_LONGEST_KEY = 122
"""Characters of the longest key that PyYAML writes without `?`: fewer than 128 with the five of `!!str`."""


def yaml_text(fields: Mapping[Any, Any]) -> str:
    """Return `fields` as YAML.

    Args:
        fields: At least one field; values and keys are of the exact types str, int, float, bool, None, date and
            datetime, values also lists and dictionaries of them.
    """
    text = _Text()
    _mapping(fields, 0, text.write)
    return text.whole()


class _Text:
    """Joins parts in portions: joining millions of parts in one call would hold the interpreter lock for long."""

    def __init__(self) -> None:
        self._parts: list[str] = []
        self._portions: list[str] = []

    def write(self, part: str) -> None:
        self._parts.append(part)
        if len(self._parts) >= _PARTS:
            self._portions.append("".join(self._parts))
            self._parts = []

    def whole(self) -> str:
        return "".join([*self._portions, *self._parts])


def _mapping(fields: Mapping[Any, Any], indent: int, write: Write) -> None:
    pad = " " * indent
    for number, (key, value) in enumerate(fields.items()):
        check_cancelled()
        if number:
            write(pad)
        if _is_simple(key):
            _scalar(key, indent, write)
            write(":")
            if isinstance(value, dict) and value:
                write(f"\n{pad}  ")
                _mapping(value, indent + 2, write)
            elif isinstance(value, list) and value:
                write(f"\n{pad}")
                _sequence(value, indent, write)
            else:
                write(" ")
                _scalar(value, indent, write)
                write("\n")
        else:
            write("? ")
            _scalar(key, indent, write)
            write(f"\n{pad}: ")
            _nested(value, indent, write)


def _sequence(items: Sequence[Any], indent: int, write: Write) -> None:
    pad = " " * indent
    for number, item in enumerate(items):
        check_cancelled()
        write(f"{pad}- " if number else "- ")
        _nested(item, indent, write)


def _nested(value: Any, indent: int, write: Write) -> None:
    """Write the value after `- `, `? ` or `: `."""
    if isinstance(value, dict) and value:
        _mapping(value, indent + 2, write)
    elif isinstance(value, list) and value:
        _sequence(value, indent + 2, write)
    else:
        _scalar(value, indent, write)
        write("\n")


def _is_simple(key: Any) -> bool:
    if not isinstance(key, str):
        return True
    return 0 < len(key) <= _LONGEST_KEY and not _BREAK.search(key)


def _scalar(value: Any, indent: int, write: Write) -> None:
    if isinstance(value, str):
        _string(value, indent, write)
    elif isinstance(value, float):
        write(_float(value))
    elif value is None:
        write("null")
    elif isinstance(value, bool):
        write("true" if value else "false")
    elif isinstance(value, dt.datetime):
        write(value.isoformat(" "))
    elif isinstance(value, dt.date):
        write(value.isoformat())
    elif isinstance(value, int):
        write(str(value))
    else:
        write("{}" if isinstance(value, dict) else "[]")


def _float(value: float) -> str:
    if math.isnan(value):
        return ".nan"
    if math.isinf(value):
        return ".inf" if value > 0 else "-.inf"
    text = repr(value)
    return text.replace("e", ".0e", 1) if "." not in text and "e" in text else text


def _string(text: str, indent: int, write: Write) -> None:
    if len(text) <= _ORDINARY_UP_TO and _ORDINARY.fullmatch(text):
        write(f"'{text}'" if _is_word(text) else text)
        return
    if _contains(_SPECIAL, text) or _contains(_SPACE_BREAK, text) or _contains(_BREAK_SPACE, text):
        _double_quoted(text, write)
    elif _is_plain(text):
        for part in slices(text):
            write(part)
    else:
        _single_quoted(text, indent, write)


def _contains(pattern: re.Pattern[str], text: str) -> bool:
    """Return whether a pattern of one or two characters is in `text`."""
    if len(text) <= SLICE_CHARACTERS:
        return pattern.search(text) is not None
    for start in range(0, len(text), SLICE_CHARACTERS):
        check_cancelled()
        if pattern.search(text, start, start + SLICE_CHARACTERS + 1):
            return True
    return False


def _is_plain(text: str) -> bool:
    """Return whether a string without special characters needs no quotes, since YAML reads it as the same string."""
    first, following = text[:1], text[1:2] or " "
    return not (
        _is_word(text)
        or first in "#,[]{}&*!|>'\"%@`"
        or (first in "?:-" and following in _SPACE)
        or text.startswith(("---", "...", " "))
        or text.endswith((" ", ":"))
        or _contains(_BREAK, text)
        or _contains(_INDICATOR, text)
        or _is_number(text)
    )


def _is_word(text: str) -> bool:
    return len(text) <= _LONGEST_WORD and _WORD.match(text) is not None


def _is_number(text: str) -> bool:
    if text[0] not in _NUMBER_STARTS:
        return False
    if len(text) <= SLICE_CHARACTERS:
        return _NUMBER.match(text) is not None
    # A slice does not show whether the whole text is a number. So a text of digits and signs only is quoted.
    return not _contains(_NOT_A_NUMBER, text)


def _single_quoted(text: str, indent: int, write: Write) -> None:
    pad = " " * (indent + 2)
    write("'")
    before = ""
    parts = list(slices(text))
    for number, part in enumerate(parts):
        check_cancelled()
        after = parts[number + 1][0] if number + 1 < len(parts) else ""
        continues = bool(before and _BREAK.match(before))
        is_last = not (after and _BREAK.match(after))

        def lines(match: re.Match[str], continues: bool = continues, is_last: bool = is_last) -> str:
            # YAML folds a single line feed into a space, so a run that starts with a line feed gets one more.
            run = match.group()
            more = "\n" if run[0] == "\n" and not (continues and match.start() == 0) else ""
            return more + run + (pad if is_last or match.end() < len(match.string) else "")

        write(_BREAKS.sub(lines, part.replace("'", "''")))
        before = part[-1]
    write("'")


def _double_quoted(text: str, write: Write) -> None:
    write('"')
    for part in slices(text):
        write(_ESCAPED.sub(_escape, part))
    write('"')


def _escape(match: re.Match[str]) -> str:
    character = match.group()
    if (short := _SHORT_ESCAPES.get(character)) is not None:
        return "\\" + short
    code = ord(character)
    return f"\\x{code:02X}" if code <= 0xFF else f"\\u{code:04X}" if code <= 0xFFFF else f"\\U{code:08X}"
