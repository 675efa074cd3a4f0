"""What came back of a request: its status and headers, noted where they are seen. An SDK does not tell them itself."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field
from typing import Any

from .context import holding

__all__ = ["Noted", "note", "noted", "noting"]


@dataclass(slots=True)
class Noted:
    """The last reply of the call under way; no status where none came."""

    status: int | None = None
    headers: Mapping[str, str] = field(default_factory=dict)
    """Names in lower case."""
    limit: int | None = None
    """Bytes that the unpacked reply may have."""
    body: bytes | None = None
    """What came, where that is all that is left of a reply that an SDK could not read."""


_noted: ContextVar[Noted | None] = ContextVar("rerank_plugins_noted", default=None)


@contextmanager
def noting() -> Iterator[None]:
    """Let `note` and `noted` inside speak of this call; inside another `noting`, of the same one."""
    if _noted.get() is not None:
        yield
        return
    with holding(_noted, Noted()):
        yield


def note(status: int, headers: Iterable[tuple[Any, Any]]) -> None:
    """Keep a reply's status and headers, if a call of ours is under way."""
    if (found := _noted.get()) is not None:
        found.status = status
        found.headers = {str(name).lower(): str(value) for name, value in headers}


def noted() -> Noted | None:
    """Return what was noted of the call under way, or `None` where none is."""
    return _noted.get()
