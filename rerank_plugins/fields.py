"""The one rule for documents that are mappings: which of their fields are read, and what is sent of them.

Read are all fields that hold text, numbers, dates, or lists and mappings of those, in the order given; or the fields that the
caller names, in that order. Not read are fields without a value (`None`, NaN, blank text) and, with a reason on the result,
bytes and lists of more than `LONGEST_NUMBERS` numbers: an embedding fills a model's window and says nothing to it. If one
text field is left, its value alone is sent, else the fields as YAML.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Iterable, Mapping, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass
from math import isfinite, isnan
from numbers import Integral, Real
from typing import Any

from .core.errors import InputError
from .core.text import is_blank, sendable
from .core.text_work import check_cancelled
from .yaml_text import yaml_text

__all__ = ["LONGEST_NUMBERS", "Fields", "check_names", "read"]

LONGEST_NUMBERS = 16
"""Numbers in a list, or in lists of lists, that are still read: coordinates, a histogram, not an embedding."""
_LARGEST_INTEGER = 10_000
"""Bits of an integer that Python writes in decimal without a limit being set (`sys.set_int_max_str_digits`)."""
_SHOWN = 5


@dataclass(frozen=True, slots=True)
class Fields:
    """What is read of one mapping."""

    values: Mapping[Any, Any]
    """Name → value, as plain data; perhaps none."""
    left_out: str | None
    """What was not read and why, in words."""

    def text(self) -> str:
        """Return what is sent where documents are text.

        https://docs.cohere.com/docs/rerank-overview#example-with-structured-data (read in November 2026) advises YAML for
        structured documents.
        """
        if (text := self.sole_text()) is not None:
            return text
        return yaml_text(self.values) if self.values else ""

    def sole_text(self) -> str | None:
        """Return the value of the only field, if it is a text."""
        value = next(iter(self.values.values())) if len(self.values) == 1 else None
        return value if isinstance(value, str) else None

    def json(self) -> dict[str, Any]:
        """Return the fields as JSON can hold them, for the backends that take objects."""
        return {str(name): _json(value) for name, value in self.values.items()}


class _Unreadable(Exception):
    """A value that is no plain data; it says of which type."""


def read(mapping: Mapping[Any, Any], index: int, names: Sequence[str] | None = None) -> Fields:
    """Return what is read of a mapping.

    Args:
        mapping: Any number of fields; it is not changed.
        index: Of the document, for the error.
        names: The fields to read, in this order; `None` is all.

    Raises:
        InputError: A field is no plain data. The error says of which type it is, never what it holds.
    """
    chosen: Iterable[tuple[Any, Any]] = (
        mapping.items() if names is None else ((name, mapping[name]) for name in names if name in mapping)
    )
    left_out: list[str] = []
    try:
        values = _mapping(chosen, "", left_out)
    except _Unreadable as error:
        what = str(error)
    except RecursionError:
        what = "it holds itself"
    else:
        return Fields({name: value for name, value in values.items() if not _is_empty(value)}, _told(left_out))
    raise InputError(
        f"Document {index} has a field that is no plain data ({what}): use texts, numbers, lists and mappings, or name the "
        "fields to read with the option `fields`."
    )


def check_names(names: Any) -> tuple[str, ...] | None:
    """Return the option `fields` as a tuple, or `None`.

    Raises:
        ValueError: It is no list of different names.
    """
    if names is None:
        return None
    valid = isinstance(names, list | tuple) and names and all(isinstance(name, str) and name for name in names)
    if not valid or len(set(names)) < len(names):
        raise ValueError(f"fields must be a list of different field names, such as ['title', 'body']; got {names!r}.")
    return tuple(names)


def _told(left_out: Sequence[str]) -> str | None:
    if not left_out:
        return None
    more = f" and {len(left_out) - _SHOWN} more" if len(left_out) > _SHOWN else ""
    return f"fields not read: {', '.join(left_out[:_SHOWN])}{more}"


def _is_empty(value: Any) -> bool:
    return (isinstance(value, str) and is_blank(value)) or (isinstance(value, float) and isnan(value)) or value is None


def _mapping(items: Iterable[tuple[Any, Any]], path: str, left_out: list[str]) -> dict[Any, Any]:
    """Return fields as plain data: exact built-in types, without what is left out."""
    values: dict[Any, Any] = {}
    for key, value in items:
        check_cancelled()
        name = _key(key)
        label = f"{path}.{name}" if path else str(name)
        before = len(left_out)
        plain = _plain(value, label, left_out)
        if not _is_left_out(plain, left_out, before):
            values[name] = plain
    return values


def _is_left_out(plain: Any, left_out: Sequence[str], before: int) -> bool:
    """Return whether nothing remains of a value, because it, or all that is in it, was left out."""
    return len(left_out) > before and (plain is None or (isinstance(plain, dict | list) and not plain))


def _key(key: Any) -> Any:
    if isinstance(key, str):
        return sendable(key)
    return key if type(key) in (int, float, bool, dt.date, dt.datetime) or key is None else str(key)


def _plain(value: Any, path: str, left_out: list[str]) -> Any:
    match value:
        case str():
            return sendable(value)
        case None | bool():
            return value
        case Integral():
            if (number := int(value)).bit_length() > _LARGEST_INTEGER:
                raise _Unreadable("an integer of thousands of digits")
            return number
        case Real():
            return _float(value)
        case bytes() | bytearray() | memoryview():
            left_out.append(f"{_short(path)} ({type(value).__name__})")
            return None
        case Mapping():
            return _mapping(value.items(), path, left_out)
        case AbstractSet():
            return _list(sorted(value, key=lambda item: (type(item).__name__, str(item))), path, left_out)
        case list() | tuple():
            return _list(value, path, left_out)
        case dt.date():
            return _date(value)
    if type(value).__name__ == "NAType":  # pandas.NA
        return None
    if callable(listed := getattr(value, "tolist", None)):  # an array or a number of NumPy's, a tensor
        return _plain(listed(), path, left_out)
    raise _Unreadable(f"of type {type(value).__name__}")


def _list(value: Sequence[Any], path: str, left_out: list[str]) -> list[Any] | None:
    if (count := _numbers(value)) is not None and count > LONGEST_NUMBERS:
        left_out.append(f"{_short(path)} ({count} numbers)")
        return None
    items = []
    for item in value:
        check_cancelled()
        before = len(left_out)
        plain = _plain(item, path, left_out)
        if not _is_left_out(plain, left_out, before):
            items.append(plain)
    return items


def _numbers(value: Sequence[Any]) -> int | None:
    """Return how many numbers a list holds, lists inside it included; `None` where it holds something else too."""
    types = set(map(type, value))
    if types <= {int, float}:
        return len(value)
    if any(issubclass(each, str | Mapping) for each in types):
        return None
    total = 0
    for item in value:
        check_cancelled()
        if isinstance(item, Real):
            total += 1
        elif isinstance(item, list | tuple) and (count := _numbers(item)) is not None:
            total += count
        elif callable(getattr(item, "tolist", None)) and isinstance(size := getattr(item, "size", None), int):
            total += size  # a row of NumPy's
        else:
            return None
    return total


def _float(value: Any) -> float:
    try:
        return float(value)
    except OverflowError:
        raise _Unreadable("a number too large for a float") from None


def _date(value: dt.date) -> dt.date | None:
    if value != value:  # pandas.NaT
        return None
    if type(value) in (dt.date, dt.datetime):
        return value
    kind = dt.datetime if isinstance(value, dt.datetime) else dt.date
    return kind.fromisoformat(value.isoformat())


def _short(path: str) -> str:
    return path if len(path) <= 60 else path[:59] + "…"


def _json(value: Any) -> Any:
    match value:
        case float() if not isfinite(value):
            return None
        case dict():
            return {str(key): _json(item) for key, item in value.items()}
        case list():
            return [_json(item) for item in value]
        case dt.date():
            return str(value)
    return value
