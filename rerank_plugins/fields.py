"""The one rule for documents that are mappings: which of their fields are read, and what is sent of them.

Read are all fields that hold text, numbers, dates, or lists and mappings of those, in the order given; or the fields that the
caller names, in that order. Not read are fields without a value (`None`, NaN, blank text) and, with a reason on the result,
bytes, lists of more than `LONGEST_NUMBERS` numbers and mappings of more than `LONGEST_NAMED_NUMBERS`, as values or written
as text: a vector fills a model's window and says nothing to it. If one text field is left, its value alone is sent, else the
fields as YAML.
"""

from __future__ import annotations

import datetime as dt
import itertools
import re
import sys
from collections import UserString
from collections.abc import Collection, Iterable, Iterator, Mapping, MappingView, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass, is_dataclass
from decimal import Decimal
from enum import Enum
from ipaddress import IPv4Address, IPv4Interface, IPv4Network, IPv6Address, IPv6Interface, IPv6Network
from math import isfinite, isnan
from numbers import Integral, Number, Real
from pathlib import PurePath
from typing import Any
from uuid import UUID

from .core.errors import InputError
from .core.text import is_blank, sendable
from .core.text_work import SLICE, check_cancelled, slices
from .yaml_text import yaml_text

__all__ = ["LONGEST_NAMED_NUMBERS", "LONGEST_NUMBERS", "Fields", "check_names", "read"]

LONGEST_NUMBERS = 16
"""Numbers in a list, or in lists of lists, that are still read: coordinates, a histogram, not an embedding."""
LONGEST_NAMED_NUMBERS = 64
"""Numbers in a mapping that are still read, since their names say something: nutrition facts, not a sparse vector."""
_LARGEST_INTEGER = 10_000
"""Bits of an integer that Python writes in decimal without a limit being set (`sys.set_int_max_str_digits`)."""
_SHOWN = 5
_AS_TEXT = (
    *(UserString, UUID, PurePath, dt.time, dt.timedelta),
    *(IPv4Address, IPv4Interface, IPv4Network, IPv6Address, IPv6Interface, IPv6Network),
)
"""Values whose usual form is what `str` gives."""
_DIGITS = 15
"""Decimal digits that a float keeps."""
_LARGEST_DECIMAL = 300
"""Exponent of a decimal that is written out; of larger ones the text has one."""
_NUMBER = re.compile(r"[-+]?(?:[0-9]+(?:\.[0-9]*)?|\.[0-9]+)(?:[eE][-+]?[0-9]+)?")
_NO_NUMBER = frozenset({"null", "none", "nan", "inf", "-inf", "infinity", "-infinity", "np.float32", "np.float64"})
_BETWEEN = re.compile(r"""[\s,;:"'/\[\](){}]+""")
"""What stands between the numbers of a vector as text: of JSON, NumPy, Postgres arrays, pgvector and its sparse vectors."""
_DEEPEST_VECTOR = 4
"""Levels of lists in which numbers are counted. A bound, so that deeply nested fields take linear time."""
_LONGEST_NUMBER = 64
"""Characters of one number in a vector as text."""


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
    """A value that is no plain data; the message says where, of which type, and what to do."""


def read(mapping: Mapping[Any, Any], index: int, names: Sequence[str] | None = None) -> Fields:
    """Return what is read of a mapping.

    Args:
        mapping: Any number of fields; it is not changed.
        index: Of the document, for the error.
        names: The fields to read, in this order; `None` is all.

    Raises:
        InputError: A field is no plain data. The error says which and of which type it is, never what it holds.
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
        what = "a field that holds itself. Leave it out"
    else:
        return Fields({name: value for name, value in values.items() if not _is_empty(value)}, _told(left_out))
    raise InputError(f"Document {index} has {what}, or name the fields to read with the option `fields`.")


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
    if isinstance(key, Enum):
        key = key.value
    if isinstance(key, str):
        return sendable(key)
    return key if type(key) in (int, float, bool, dt.date, dt.datetime) or key is None else str(key)


def _plain(value: Any, path: str, left_out: list[str]) -> Any:
    match value:
        case str():
            text = sendable(value)
            return text if _is_readable(_numbers_in(text), path, left_out) else None
        case None | bool():
            return value
        case Enum():
            return _plain(value.value, path, left_out)
        case Integral() if type(value).__name__ == "timedelta64":  # a duration of NumPy's
            return _plain(_whole_dates(value, value.tolist), path, left_out)  # type: ignore[attr-defined]
        case Integral():
            if (number := int(value)).bit_length() > _LARGEST_INTEGER:
                raise _refused(path, "an integer of thousands of digits", "make it a string")
            return number
        case Real():
            return _float(value, path)
        case Decimal():
            return _decimal(value)
        case bytes() | bytearray() | memoryview():
            left_out.append(f"{_short(path)} ({type(value).__name__})")
            return None
        case Mapping():
            if not _is_readable(_numbers(value), path, left_out):
                return None
            return _mapping(value.items(), path, left_out)
        case range():
            return _list(value, path, left_out)
        case tuple() if callable(named := getattr(value, "_asdict", None)):  # a named tuple: the names say something
            return _plain(named(), path, left_out)
        case AbstractSet() if not isinstance(value, MappingView):
            return _list(sorted(value, key=lambda item: (type(item).__name__, str(item))), path, left_out)
        case dt.date():
            return _date(value)
    if isinstance(value, _AS_TEXT):
        return sendable(str(value))
    if type(value).__name__ == "NAType":  # pandas.NA
        return None
    for method in ("tolist", "to_pylist", "as_py"):  # an array or a number of NumPy's, a tensor, a value of pyarrow's
        if callable(listed := getattr(value, method, None)):
            return _plain(_whole_dates(value, listed), path, left_out)
    if isinstance(value, Sequence):  # lists, tuples, deques
        return _list(value, path, left_out)
    if isinstance(value, MappingView) and isinstance(value, Collection):
        return _list(list(value), path, left_out)
    raise _refused(path, f"a value of type {type(value).__name__}", _way_out(value))


def _refused(path: str, what: str, way_out: str) -> _Unreadable:
    return _Unreadable(f"a field {_short(path)!r} that is no plain data, {what}: {way_out}")


def _way_out(value: Any) -> str:
    """Return how to make plain data of an object. None is made here: that would send fields that nobody meant to send."""
    if is_dataclass(value):
        return "pass dataclasses.asdict(value)"
    for method in ("model_dump", "to_dict"):
        if callable(getattr(value, method, None)):
            return f"pass value.{method}()"
    if isinstance(value, Iterator):
        return "pass list(value)"
    return "make it a string, a number, a list or a mapping"


def _whole_dates(value: Any, listed: Any) -> Any:
    """Return an array as lists; NumPy itself gives dates of finer than microseconds as integers."""
    kind = getattr(value, "dtype", None)
    if (
        getattr(kind, "kind", "") in ("M", "m")
        and "[ns]" in str(kind)
        and callable(as_type := getattr(value, "astype", None))
    ):
        return as_type(str(kind).replace("[ns]", "[us]")).tolist()
    return listed()


def _list(value: Sequence[Any], path: str, left_out: list[str]) -> list[Any] | None:
    if not _is_readable(_numbers(value), path, left_out):
        return None
    items = []
    for item in value:
        check_cancelled()
        before = len(left_out)
        plain = _plain(item, path, left_out)
        if not _is_left_out(plain, left_out, before):
            items.append(plain)
    return None if items and all(map(_is_empty, items)) else items


def _is_readable(numbers: tuple[int, bool] | None, path: str, left_out: list[str]) -> bool:
    """Return whether a value is read; if not, it is added to `left_out`.

    Args:
        numbers: How many numbers the value consists of, and whether they have names; `None` where it holds text too.
        path: Of the value.
        left_out: What was not read.
    """
    if numbers is None or numbers[0] <= (LONGEST_NAMED_NUMBERS if numbers[1] else LONGEST_NUMBERS):
        return True
    left_out.append(f"{_short(path)} ({numbers[0]} numbers)")
    return False


def _numbers(value: Collection[Any], level: int = 1) -> tuple[int, bool] | None:
    """Return how many numbers a collection holds, those inside it included, and whether they have names.

    Missing values between them (`None`, NaN) make it no less a vector. `None` where it holds something else too.
    """
    if isinstance(value, range):
        try:
            return len(value), False
        except OverflowError:
            return sys.maxsize, False
    named = isinstance(value, Mapping)
    items: Collection[Any] = value.values() if isinstance(value, Mapping) else value
    types = _types(items)
    if types <= {int, float}:
        return len(items), named
    if any(issubclass(each, str) for each in types):
        return None
    if level > _DEEPEST_VECTOR:
        return None
    total = 0
    for item in items:
        check_cancelled()
        if isinstance(item, Number):
            total += 1
        elif isinstance(item, list | tuple | Mapping) and (inside := _numbers(item, level + 1)) is not None:
            total += inside[0]
            named = named or inside[1]
        elif callable(getattr(item, "tolist", None)) and isinstance(size := getattr(item, "size", None), int):
            total += size  # a row of NumPy's
        elif item is not None and type(item).__name__ != "NAType":
            return None
    return total, named


def _types(items: Collection[Any]) -> set[type]:
    types: set[type] = set()
    iterator = iter(items)
    for _ in range(0, len(items), SLICE):  # one call over millions would keep the interpreter lock
        check_cancelled()
        types.update(map(type, itertools.islice(iterator, SLICE)))
    return types


def _numbers_in(text: str) -> tuple[int, bool] | None:
    """Return how many numbers a list or a mapping of numbers written as text holds; `None` of any other text."""
    if len(text) <= LONGEST_NUMBERS or text[:32].lstrip()[:1] not in ("[", "{", "("):
        return None
    total, rest, named = 0, "", False
    for part in slices(text):
        *tokens, rest = _BETWEEN.split(rest + part)
        if len(rest) > _LONGEST_NUMBER:
            return None
        named = named or ":" in part
        for token in tokens:
            if _NUMBER.fullmatch(token):
                total += 1
            elif token and token.lower() not in _NO_NUMBER:
                return None
    if rest and not _NUMBER.fullmatch(rest):
        return None
    return (total // 2 if named else total), named  # of a mapping the numbers before the colons are its names


def _float(value: Any, path: str) -> float:
    try:
        return float(value)
    except OverflowError:
        raise _refused(path, "a number too large for a float", "make it a string") from None


def _decimal(value: Decimal) -> int | float | str | None:
    """Return a number where that is exact, else text."""
    if value.is_nan():
        return None
    if not value.is_finite():
        return float(value)
    digits, exponent = len(value.as_tuple().digits), value.as_tuple().exponent
    if not isinstance(exponent, int) or abs(value.adjusted()) > _LARGEST_DECIMAL:
        return str(value)
    if exponent >= 0:
        return int(value)
    return float(value) if digits <= _DIGITS else str(value)


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
