"""The facts about one backend that the policies around it use."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from typing import Any, NamedTuple

from ..core.scorer import Backend

__all__ = ["Stack"]


class Stack(NamedTuple):
    """One backend and the identity of its scores."""

    backend: Backend
    cache_identity: Callable[[], Awaitable[str]]
    """Returns a string of everything except the texts that a score depends on."""
    score_identity: Callable[[], Mapping[str, Any]]
    """Returns the identity of the scores as plain data, as a calibration file holds it."""
