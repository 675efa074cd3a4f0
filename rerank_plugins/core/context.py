"""Context variables that hold a value for as long as a call is inside."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager, suppress
from contextvars import ContextVar
from typing import TypeVar

__all__ = ["holding"]

T = TypeVar("T")


@contextmanager
def holding(variable: ContextVar[T], value: T) -> Iterator[None]:
    """Give `variable` a value inside."""
    token = variable.set(value)
    try:
        yield
    finally:
        # The collector ends a call that its event loop forgot in whatever context it runs: nobody sees the value there.
        with suppress(ValueError):
            variable.reset(token)
