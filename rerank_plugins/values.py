"""Values of options, checked as they are read: each error says what belongs there."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from typing import Any

from .core.errors import ConfigError
from .registry import unknown

__all__ = ["choice", "count", "known", "number", "seconds", "text"]

_LARGEST = sys.float_info.max


def known(value: Mapping[str, Any], name: str, valid: tuple[str, ...]) -> dict[str, Any]:
    """Return the mapping of an option; every key is one of `valid`."""
    for key in value:
        if key not in valid:
            raise unknown(f"option of {name}", key, valid)
    return dict(value)


def choice(value: Any, name: str, offered: Sequence[Any]) -> Any:
    """Return one of `offered`."""
    if value not in offered:
        raise unknown(f"value of {name},", value, offered)
    return value


def count(value: Any, name: str) -> int:
    """Return a whole number of at least 1."""
    if isinstance(value, bool) or not isinstance(value, int) or value < 1:
        raise ConfigError(f"{name} is a whole number of at least 1, and {value!r} is not.")
    return value


def number(value: Any, name: str, low: float, high: float = float("inf")) -> float:
    """Return a finite number from `low` to `high`."""
    if isinstance(value, bool) or not isinstance(value, int | float) or not low <= value <= min(high, _LARGEST):
        told = f"of at least {low:g}, and finite" if high == float("inf") else f"from {low:g} to {high:g}"
        raise ConfigError(f"{name} is a number {told}, and {value!r} is not.")
    return float(value)


def seconds(value: Any, name: str, *, zero: bool = False) -> float:
    """Return a number of seconds above 0, or, with `zero`, 0."""
    if isinstance(value, bool) or not isinstance(value, int | float) or not (value > 0 or (zero and value == 0)):
        raise ConfigError(f"{name} is a number of seconds above 0, and {value!r} is not.")
    return float(value)


def text(value: Any, name: str) -> str | None:
    """Return a text, or `None`."""
    if value is not None and not isinstance(value, str):
        raise ConfigError(f"{name} has to be a text, and {value!r} is not.")
    return value
