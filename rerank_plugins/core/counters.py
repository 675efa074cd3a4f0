"""What a reranker did since the process began, as numbers that a health endpoint can show."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Sequence
from typing import Any

from .fork import Lock
from .redaction import one_line
from .response import RerankResponse
from .types import Attempt

__all__ = ["Counters"]


class Counters:
    """Counts of calls and attempts. Safe under threads; copies and pickles of a reranker count anew."""

    def __init__(self) -> None:
        """Begin at nothing."""
        self._lock = Lock()
        self._answered: Counter[str] = Counter()
        self._errors: Counter[str] = Counter()
        self._attempts: dict[str, Counter[str]] = {}
        self._documents = self._degraded = self._requests = 0
        self._milliseconds = 0.0
        self._last_degraded: tuple[float, str | None] | None = None

    def answered(self, response: RerankResponse, documents: int) -> None:
        """Count a call over so many documents that got an answer."""
        with self._lock:
            self._answered[response.model] += 1
            self._documents += documents
            self._milliseconds += response.latency_ms
            if response.degraded:
                self._degraded += 1
                self._last_degraded = time.time(), _why(response)
            self._tried(response.attempts)

    def failed(self, error: BaseException, attempts: Sequence[Attempt]) -> None:
        """Count a call that ended in an error."""
        with self._lock:
            self._errors[type(error).__name__] += 1
            self._tried(attempts)

    def _tried(self, attempts: Sequence[Attempt]) -> None:
        for attempt in attempts:
            self._attempts.setdefault(attempt.model, Counter())[attempt.outcome] += 1
            self._requests += attempt.remote

    def told(self) -> dict[str, Any]:
        """Return them as plain data."""
        with self._lock:
            answered, failed = self._answered.total(), self._errors.total()
            when, reason = self._last_degraded or (None, None)
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
                "last_degraded_at": when,
                "last_reason": reason,
            }


_FINE = ("answered", "cached", "kept", "spared")


def _why(response: RerankResponse) -> str:
    """Return who answered for whom and why, without the vendor's words: these may quote the text that was sent."""
    failed = next((attempt for attempt in response.attempts if attempt.outcome not in _FINE), None)
    if failed is None:
        return one_line(f"{response.model} answered")
    status = "" if failed.status is None else f" (HTTP {failed.status})"
    return one_line(f"{response.model} answered in place of {failed.model}: {failed.outcome}{status}")
