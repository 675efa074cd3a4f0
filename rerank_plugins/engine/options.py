"""The common options of local models, checked."""

from __future__ import annotations

from typing import Any

from ..core.errors import ConfigError

__all__ = ["offered", "size"]


def offered(name: str, value: Any, choices: tuple[str, ...]) -> None:
    """Refuse a value that is not among `choices`; `None` is always fine.

    Raises:
        ConfigError: It is not among them.
    """
    if value is not None and value not in choices:
        raise ConfigError(f"{name} {value!r} is not offered here; choose one of: {', '.join(choices)}.")


def size(name: str, value: Any) -> None:
    """Refuse a number of tokens that is no whole number of at least 16; `None` is always fine.

    Raises:
        ConfigError: It is none.
    """
    if value is not None and (isinstance(value, bool) or not isinstance(value, int) or value < 16):
        raise ConfigError(f"{name} has to be a whole number of at least 16, and {value!r} is not.")
