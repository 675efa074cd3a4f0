"""What an engine offers of the common options of local models."""

from __future__ import annotations

from typing import Any

from ..core.errors import ConfigError
from ..core.numeric import integer

__all__ = ["offered", "size"]


def offered(name: str, value: Any, choices: tuple[str, ...]) -> None:
    """Refuse a value that is not among `choices`; `None` is always fine.

    Raises:
        ConfigError: It is not among them.
    """
    if value is not None and value not in choices:
        raise ConfigError(f"{name} {value!r} is not offered here; choose one of: {', '.join(choices)}.")


def size(name: str, value: Any, least: int = 16) -> None:
    """Refuse a number of tokens that is no whole number of at least `least`; `None` is always fine.

    Raises:
        ConfigError: It is none.
    """
    if value is not None:
        integer(value, name, least)
