"""Instrumentation: records every attempt for `response.attempts`, telemetry and the log."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Iterator
from dataclasses import replace

from ..core.call import record_attempt, response_metadata
from ..core.errors import BackendError, DeadlineExceeded
from ..core.redaction import one_line
from ..core.scorer import Backend, Scorer, Wrapper
from ..core.types import Attempt, RerankRequest, Scores
from .deadline import deadline_passed
from .loading import BackgroundLoading

__all__ = ["Instrumented"]

_log = logging.getLogger("rerank_plugins")


class Instrumented(Wrapper):
    """The innermost policy: records each call of the backend as an attempt in the call context."""

    inner: Backend | BackgroundLoading

    def probes(self) -> Iterator[Scorer]:
        """Yield this scorer: a check calls the backend as the innermost policies do, and sees its attempts."""
        yield self

    async def ascore(self, request: RerankRequest) -> Scores:
        """Score, and record the outcome, duration, usage and HTTP status."""
        with record_attempt(self, len(request.documents), remote=self.inner.remote) as ended:
            started = time.perf_counter()
            outcome, detail, usage, status = "answered", None, None, None
            try:
                scores = await self.inner.ascore(request)
                usage = replace(scores.usage, requests=int(self.inner.remote))
                return scores
            except asyncio.CancelledError:
                outcome = DeadlineExceeded.__name__ if deadline_passed() else "cancelled"
                raise
            except BaseException as error:
                outcome = type(error).__name__
                if isinstance(error, BackendError):
                    detail, status = str(error), error.status
                raise
            finally:
                milliseconds = (time.perf_counter() - started) * 1000.0
                if status is None and (reply := response_metadata()) is not None:
                    status = reply.status
                label = self.inner.label
                if _log.isEnabledFor(logging.DEBUG):
                    _log.debug(
                        "%s: %s%s, %d documents, %.0f ms",
                        one_line(label),
                        outcome,
                        "" if status is None else f" (HTTP {status})",
                        len(request.documents),
                        milliseconds,
                    )
                ended(Attempt(label, outcome, milliseconds, detail, self.inner.remote, usage, status))
