"""Values of options, checked as they are read: each error says what belongs there."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from ..core.errors import ConfigError
from ..core.numeric import finite, integer, seconds, shown
from .registry import unknown

__all__ = ["choice", "count", "known", "number", "seconds", "text"]


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
    """Return an integer of at least 1."""
    return integer(value, name)


def number(value: Any, name: str, low: float, high: float | None = None) -> float:
    """Return a finite number from `low` to `high`."""
    return finite(value, name, low, high)


def text(value: Any, name: str) -> str | None:
    """Return a text, or `None`."""
    if value is not None and not isinstance(value, str):
        raise ConfigError(f"{name} has to be a text, and {shown(value)} is not.")
    return value
