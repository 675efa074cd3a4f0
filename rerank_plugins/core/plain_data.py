"""Convert documents to plain data that `json.dumps` accepts, for `RerankResponse.to_dict`."""

from __future__ import annotations

import base64
import datetime as dt
import math
from collections.abc import Collection, Mapping
from enum import Enum
from typing import Any

__all__ = ["plain_data"]

_MAX_DEPTH = 100
"""Levels of nesting that are converted. The limit ends a value that contains itself, before Python's own limit does."""
_MAX_INTEGER_BITS = 10_000
"""Integers with more bits are written in hexadecimal: `sys.set_int_max_str_digits` forbids longer decimal ones."""


def plain_data(value: Any, _depth: int = 0) -> Any:
    """Return `value` as strings, integers, finite floats, booleans, `None`, lists, and dicts with string keys.

    Args:
        value: A document or a field of one. It is not changed.

    Returns:
        Dates and times as ISO 8601, bytes as Base64, arrays and sets as lists, NaN and infinity as `None`, and objects
        of any other type as `str(value)`. Values that are nested more than 100 levels deep become `None`.

    >>> plain_data({"title": "Berlin", "founded": dt.date(1237, 10, 28), "area": float("nan"), "tags": ("city",)})
    {'title': 'Berlin', 'founded': '1237-10-28', 'area': None, 'tags': ['city']}
    """
    if _depth > _MAX_DEPTH:
        return None
    match value:
        case None | bool():
            return value
        case Enum():
            return plain_data(value.value, _depth + 1)
        case str():
            return str(value)
        case int():
            return int(value) if value.bit_length() <= _MAX_INTEGER_BITS else hex(value)
        case float():
            return float(value) if math.isfinite(value) else None
        case bytes() | bytearray() | memoryview():
            return base64.b64encode(value).decode("ascii")
        case dt.date() | dt.time():
            return value.isoformat() if value == value else None  # pandas.NaT is a datetime that differs from itself
        case Mapping():
            return {_key(key): plain_data(item, _depth + 1) for key, item in value.items()}
    for name in ("tolist", "to_pylist", "as_py"):  # NumPy and torch; arrays and scalars of pyarrow
        if callable(method := getattr(value, name, None)):
            return plain_data(method(), _depth + 1)
    return [plain_data(item, _depth + 1) for item in value] if isinstance(value, Collection) else str(value)


def _key(key: Any) -> str:
    key = plain_data(key)
    return key if isinstance(key, str) else str(key)
