"""Statistics behind `Reranker.stats()`: what a reranker has done since it was created."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Sequence
from typing import Any

from ._runtime.fork_hooks import Lock
from .redaction import one_line
from .response import RerankResponse
from .types import Attempt

__all__ = ["Counters"]


class Counters:
    """Counts calls and attempts. Thread-safe."""

    def __init__(self) -> None:
        """Start all counts at 0."""
        self._lock = Lock()  # guards all other attributes, because calls end on several threads
        self._answered: Counter[str] = Counter()
        self._errors: Counter[str] = Counter()
        self._attempts: dict[str, Counter[str]] = {}
        self._documents = self._degraded = self._requests = 0
        self._milliseconds = 0.0
        self._last_degraded: tuple[float, str | None] | None = None

    def count_response(self, response: RerankResponse, documents: int) -> None:
        """Count a call with `documents` documents that returned a response."""
        with self._lock:
            self._answered[response.model] += 1
            self._documents += documents
            self._milliseconds += response.latency_ms
            if response.degraded:
                self._degraded += 1
                self._last_degraded = time.time(), _degraded_reason(response)
            self._count_attempts(response.attempts)

    def count_error(self, error: BaseException, attempts: Sequence[Attempt]) -> None:
        """Count a call that raised an error."""
        with self._lock:
            self._errors[type(error).__name__] += 1
            self._count_attempts(attempts)

    def _count_attempts(self, attempts: Sequence[Attempt]) -> None:
        for attempt in attempts:
            self._attempts.setdefault(attempt.model, Counter())[attempt.outcome] += 1
            self._requests += attempt.remote

    def as_dict(self) -> dict[str, Any]:
        """Return the counts as plain data; see `Reranker.stats` for the keys."""
        with self._lock:
            answered, failed = self._answered.total(), self._errors.total()
            degraded_at, reason = self._last_degraded or (None, None)
            return {
                "calls": answered + failed,
                "answered": answered,
                "degraded": self._degraded,
                "failed": failed,
                "errors": dict(self._errors),
                "answered_by": dict(self._answered),
                "attempts": {model: dict(outcomes) for model, outcomes in self._attempts.items()},
                "requests": self._requests,
                "documents": self._documents,
                "mean_latency_ms": self._milliseconds / answered if answered else None,
                "last_degraded_at": degraded_at,
                "last_reason": reason,
            }


_SUCCESSFUL_OUTCOMES = ("answered", "cached", "kept", "spared")
"""Outcomes of an attempt that are no failure; see `Attempt.outcome`."""


def _degraded_reason(response: RerankResponse) -> str:
    """Return which model answered in place of which, and why.

    The reason is the class of the error, not its message: a vendor's message may quote a document, and statistics go to
    health endpoints and logs.
    """
    failed = next((attempt for attempt in response.attempts if attempt.outcome not in _SUCCESSFUL_OUTCOMES), None)
    if failed is None:
        return one_line(f"{response.model} answered")
    status = "" if failed.status is None else f" (HTTP {failed.status})"
    return one_line(f"{response.model} answered in place of {failed.model}: {failed.outcome}{status}")
