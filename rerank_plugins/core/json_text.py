"""JSON of request bodies, encoded in slices: one call of the C encoder keeps the interpreter lock until it ends."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from typing import Any

from .errors import ConfigError
from .text_work import INLINE, SLICE, check_cancelled

__all__ = ["encoded"]

_encode = json.JSONEncoder(ensure_ascii=False, separators=(",", ":"), allow_nan=False).encode


def encoded(payload: Mapping[str, Any], size: int | None = None) -> bytes:
    """Return `payload` as JSON in UTF-8.

    Args:
        payload: The body of a request.
        size: Its characters and items, as `size_of` counts them, where known: little is encoded at once.

    Raises:
        ConfigError: A string holds a lone surrogate. Query and documents never do, so it comes from the spec.
    """
    try:
        if size is not None and size <= INLINE:
            return _encode(payload).encode()
        return b"".join(part.encode() for part in _parts(payload))
    except UnicodeEncodeError as error:
        raise ConfigError(
            "A value of the request body holds a lone surrogate, which UTF-8 cannot encode: check `model` and `body` in the "
            "spec."
        ) from error


def _parts(value: Any) -> Iterator[str]:
    check_cancelled()
    if isinstance(value, str) and len(value) > SLICE:
        yield '"'
        for start in range(0, len(value), SLICE):
            check_cancelled()
            yield _encode(value[start : start + SLICE])[1:-1]
        yield '"'
    elif isinstance(value, dict) and value and all(isinstance(key, str) for key in value):
        for number, (key, item) in enumerate(value.items()):
            yield ("," if number else "{") + _encode(key) + ":"
            yield from _parts(item)
        yield "}"
    elif isinstance(value, list | tuple) and value:
        for number, item in enumerate(value):
            yield "," if number else "["
            yield from _parts(item)
        yield "]"
    else:
        yield _encode(value)
