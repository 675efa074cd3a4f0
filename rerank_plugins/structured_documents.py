"""Structured documents: which fields of a mapping are read, and which text is sent.

Fields that hold text, numbers, dates, or lists and mappings of those are read, in the order given. The option `fields`
narrows them, and sets the order. Fields without a value (`None`, NaN, blank text) are left out. Also left out, with a
reason on the result, are bytes, lists of more than `LONGEST_NUMBERS` numbers and mappings of more than
`LONGEST_NAMED_NUMBERS`, both as values and written as text: a vector fills the model's context window and means nothing
to it. If one text field remains, its value alone is sent, else the fields as YAML.
"""

from __future__ import annotations

import datetime as dt
import itertools
import re
import sys
from collections import UserString
from collections.abc import Collection, Iterable, Iterator, Mapping, MappingView, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import is_dataclass
from decimal import Decimal
from enum import Enum
from ipaddress import IPv4Address, IPv4Interface, IPv4Network, IPv6Address, IPv6Interface, IPv6Network
from math import isfinite, isnan
from numbers import Integral, Number, Real
from pathlib import PurePath
from typing import Any, NamedTuple
from uuid import UUID

from .core._runtime.text_work import SLICE_CHARACTERS, check_cancelled, slices
from .core.errors import InputError
from .core.text import is_blank, sendable

__all__ = ["LONGEST_NAMED_NUMBERS", "LONGEST_NUMBERS", "Fields", "check_names", "read_fields"]

LONGEST_NUMBERS = 16
"""Numbers in a list, or in nested lists, that are still read: coordinates or a histogram, but not an embedding."""
LONGEST_NAMED_NUMBERS = 64
"""Numbers in a mapping that are still read, since their names have a meaning: nutrition facts, but not a sparse
vector."""
_LARGEST_INTEGER = 10_000
"""Bits of the largest integer that is read: Python refuses to write larger ones (`sys.set_int_max_str_digits`)."""
_SHOWN = 5
"""Fields that a reason names."""
_AS_TEXT = (
    *(UserString, UUID, PurePath, dt.time, dt.timedelta),
    *(IPv4Address, IPv4Interface, IPv4Network, IPv6Address, IPv6Interface, IPv6Network),
)
"""Types whose usual text is `str(value)`."""
_DIGITS = 15
"""Decimal digits that a float holds exactly."""
_LARGEST_DECIMAL = 300
"""Largest exponent of a `Decimal` that is written out. Above it, the text has an exponent."""
_NUMBER = re.compile(r"[-+]?(?:[0-9]+(?:\.[0-9]*)?|\.[0-9]+)(?:[eE][-+]?[0-9]+)?")
_NO_NUMBER = frozenset({"null", "none", "nan", "inf", "-inf", "infinity", "-infinity", "np.float32", "np.float64"})
_BETWEEN = re.compile(r"""[\s,;:"'/\[\](){}]+""")
"""Separators in a vector as text: JSON, NumPy, Postgres arrays, pgvector and its sparse vectors."""
_DEEPEST_VECTOR = 4
"""Levels of nested lists in which numbers are counted. The limit keeps deeply nested fields linear."""
_LONGEST_NUMBER = 64
"""Largest length of one number in a vector as text."""


class Fields(NamedTuple):
    """The fields of one mapping that are read."""

    values: Mapping[Any, Any]
    """Name → value, as plain data. It may be empty."""
    left_out: str | None
    """Which fields were not read, and why. `None` if all were."""

    def text(self) -> str:
        """Return the text to send to backends whose documents are strings: the only text field, else YAML.

        Cohere advises YAML for structured documents (read in November 2026):
        https://docs.cohere.com/docs/rerank-overview#example-with-structured-data.
        """
        if (text := self.sole_text()) is not None:
            return text
        from .yaml_text import yaml_text  # compiles regular expressions: most documents are strings

        return yaml_text(self.values) if self.values else ""

    def sole_text(self) -> str | None:
        """Return the value of the only field if it is a string, else `None`."""
        value = next(iter(self.values.values())) if len(self.values) == 1 else None
        return value if isinstance(value, str) else None

    def json(self) -> dict[str, Any]:
        """Return the fields as JSON data, for backends whose documents may be objects."""
        return {str(name): _json(value) for name, value in self.values.items()}


class _Unreadable(Exception):
    """A value is not plain data. The message names the field, the type, and what to do."""


def read_fields(mapping: Mapping[Any, Any], index: int, names: Sequence[str] | None = None) -> Fields:
    """Read the fields of a mapping as plain data.

    Args:
        mapping: Any number of fields. It is not changed.
        index: Index of the document, for the error.
        names: The fields to read, in this order; `None` is all.

    Raises:
        InputError: A field is not plain data. The message names the field and its type, but does not quote it.
    """
    chosen: Iterable[tuple[Any, Any]] = (
        mapping.items() if names is None else ((name, mapping[name]) for name in names if name in mapping)
    )
    left_out: list[str] = []
    try:
        values = _mapping(chosen, "", left_out)
    except _Unreadable as error:
        problem = str(error)
    except RecursionError:
        problem = "a field that contains itself. Leave it out"
    else:
        return Fields({name: value for name, value in values.items() if not _is_empty(value)}, _reason(left_out))
    raise InputError(f"Document {index} has {problem}, or name the fields to read with the option `fields`.")


def check_names(names: Any) -> tuple[str, ...] | None:
    """Return the option `fields` as a tuple, or `None`.

    Raises:
        ValueError: It is not a list of different names.
    """
    if names is None:
        return None
    valid = isinstance(names, list | tuple) and names and all(isinstance(name, str) and name for name in names)
    if not valid or len(set(names)) < len(names):
        raise ValueError(f"fields must be a list of different field names, such as ['title', 'body']; got {names!r}.")
    return tuple(names)


def _reason(left_out: Sequence[str]) -> str | None:
    if not left_out:
        return None
    more = f" and {len(left_out) - _SHOWN} more" if len(left_out) > _SHOWN else ""
    return f"fields not read: {', '.join(left_out[:_SHOWN])}{more}"


def _is_empty(value: Any) -> bool:
    return (isinstance(value, str) and is_blank(value)) or (isinstance(value, float) and isnan(value)) or value is None


def _mapping(items: Iterable[tuple[Any, Any]], path: str, left_out: list[str]) -> dict[Any, Any]:
    """Return fields as plain data, of exact built-in types, and add the names of others to `left_out`."""
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
    """Return whether a value, or everything inside it, was left out."""
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
        case Integral() if type(value).__name__ == "timedelta64":  # a duration of NumPy
            return _plain(_tolist(value, value.tolist), path, left_out)  # type: ignore[attr-defined]
        case Integral():
            if (number := int(value)).bit_length() > _LARGEST_INTEGER:
                raise _unreadable(path, "an integer of thousands of digits", "make it a string")
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
        case tuple() if callable(
            named := getattr(value, "_asdict", None)
        ):  # a named tuple: its field names have a meaning
            return _plain(named(), path, left_out)
        case AbstractSet() if not isinstance(value, MappingView):
            return _list(sorted(value, key=lambda item: (type(item).__name__, str(item))), path, left_out)
        case dt.date():
            return _date(value)
    if isinstance(value, _AS_TEXT):
        return sendable(str(value))
    if type(value).__name__ == "NAType":  # pandas.NA
        return None
    for method in ("tolist", "to_pylist", "as_py"):  # NumPy, torch, pyarrow
        if callable(listed := getattr(value, method, None)):
            return _plain(_tolist(value, listed), path, left_out)
    if isinstance(value, Sequence):  # lists, tuples, deques
        return _list(value, path, left_out)
    if isinstance(value, MappingView) and isinstance(value, Collection):
        return _list(list(value), path, left_out)
    raise _unreadable(path, f"a value of type {type(value).__name__}", _conversion(value))


def _unreadable(path: str, kind: str, advice: str) -> _Unreadable:
    return _Unreadable(f"a field {_short(path)!r} that is not plain data, {kind}: {advice}")


def _conversion(value: Any) -> str:
    """Return the advice how to convert an object to plain data.

    Objects are not converted automatically: that would send fields that the user did not mean to send.
    """
    if is_dataclass(value):
        return "pass dataclasses.asdict(value)"
    for method in ("model_dump", "to_dict"):
        if callable(getattr(value, method, None)):
            return f"pass value.{method}()"
    if isinstance(value, Iterator):
        return "pass list(value)"
    return "make it a string, a number, a list or a mapping"


def _tolist(value: Any, listed: Any) -> Any:
    """Return an array as lists. Dates become microseconds first: NumPy returns finer ones as integers."""
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
    """Return whether a value is read. If not, add it to `left_out`.

    Args:
        numbers: How many numbers the value consists of, and whether they have names; `None` if it holds text too.
        path: Path of the value, such as `meta.vector`.
        left_out: Descriptions of the values that are not read.
    """
    if numbers is None or numbers[0] <= (LONGEST_NAMED_NUMBERS if numbers[1] else LONGEST_NUMBERS):
        return True
    left_out.append(f"{_short(path)} ({numbers[0]} numbers)")
    return False


def _numbers(value: Collection[Any], level: int = 1) -> tuple[int, bool] | None:
    """Return how many numbers a collection holds, nested ones included, and whether they have names.

    Missing values (`None`, NaN) among them are allowed. Returns `None` if it holds anything else.
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
    if any(issubclass(kind, str) for kind in types):
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
            total += size  # a row of a NumPy array
        elif item is not None and type(item).__name__ != "NAType":
            return None
    return total, named


def _types(items: Collection[Any]) -> set[type]:
    types: set[type] = set()
    iterator = iter(items)
    for _ in range(0, len(items), SLICE_CHARACTERS):  # one call over millions of items would hold the interpreter lock
        check_cancelled()
        types.update(map(type, itertools.islice(iterator, SLICE_CHARACTERS)))
    return types


def _numbers_in(text: str) -> tuple[int, bool] | None:
    """Return how many numbers a list or mapping of numbers, written as text, holds. `None` for any other text."""
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
    return (total // 2 if named else total), named  # in a mapping, each value has a number as its key


def _float(value: Any, path: str) -> float:
    try:
        return float(value)
    except OverflowError:
        raise _unreadable(path, "a number too large for a float", "make it a string") from None


def _decimal(value: Decimal) -> int | float | str | None:
    """Return a number if it is exact, else text."""
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
