"""What the options of a policy know of the backend that they are for, when they make their policy around it."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from typing import Any

from ..core.scorer import Backend, Scorer
from ..options import Options

__all__ = ["PolicyOptions", "Stack"]


@dataclass(frozen=True, slots=True)
class Stack:
    """One backend, and whose scores the policies around it see."""

    backend: Backend
    cache_identity: Callable[[], Awaitable[str]]
    """Returns what, beside the texts, a score depends on."""
    scored: Callable[[], Mapping[str, Any]]
    """Returns whose scores these are, as a calibration's file names them."""


class PolicyOptions(Options):
    """Base of the options of a policy around one backend."""

    def wrap(self, scorer: Scorer, stack: Stack) -> Scorer:
        """Return `scorer` inside the policy; or itself, where the policy would do nothing."""
        raise NotImplementedError
