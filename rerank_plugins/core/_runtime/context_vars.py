"""Set a context variable for the duration of a `with` block."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager, suppress
from contextvars import ContextVar
from typing import TypeVar

__all__ = ["set_context"]

T = TypeVar("T")


@contextmanager
def set_context(variable: ContextVar[T], value: T) -> Iterator[None]:
    """Set `variable` to `value` inside the block."""
    token = variable.set(value)
    try:
        yield
    finally:
        # If an event loop was closed with a call on it, the garbage collector ends that call in another context, where
        # the token is not valid. Nobody sees the value there.
        with suppress(ValueError):
            variable.reset(token)
