"""Encode request bodies as JSON in slices, since one call of the C encoder holds the interpreter lock until it ends."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from typing import Any

from ._runtime.text_work import MAX_INLINE_SIZE, SLICE_CHARACTERS, check_cancelled
from .errors import ConfigError

__all__ = ["encode_json"]

_encode = json.JSONEncoder(ensure_ascii=False, separators=(",", ":"), allow_nan=False).encode


def encode_json(payload: Mapping[str, Any], size: int | None = None) -> bytes:
    """Return `payload` as JSON in UTF-8.

    Args:
        payload: The body of a request.
        size: Number of its characters and items, by `approximate_size`. A small body is encoded in one call.

    Raises:
        ConfigError: A string has a lone surrogate. Query and documents have none, so it comes from the spec.
    """
    try:
        if size is not None and size <= MAX_INLINE_SIZE:
            return _encode(payload).encode()
        return b"".join(part.encode() for part in _parts(payload))
    except UnicodeEncodeError as error:
        raise ConfigError(
            "A value of the request body has a lone surrogate, which UTF-8 cannot encode. Check `model` and `body` in "
            "the spec."
        ) from error


def _parts(value: Any) -> Iterator[str]:
    check_cancelled()
    if isinstance(value, str) and len(value) > SLICE_CHARACTERS:
        yield '"'
        for start in range(0, len(value), SLICE_CHARACTERS):
            check_cancelled()
            yield _encode(value[start : start + SLICE_CHARACTERS])[1:-1]
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
