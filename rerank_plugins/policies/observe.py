"""Note every attempt, so that the response can tell what was tried."""

from __future__ import annotations

import asyncio
import time

from ..core.errors import BackendError, DeadlineExceeded
from ..core.journal import note
from ..core.scorer import Backend, Wrapper
from ..core.types import Attempt, RerankRequest, Scores
from .deadline import passed

__all__ = ["Observe"]


class Observe(Wrapper):
    """The innermost policy: writes each call of its backend into the journal of the rerank it belongs to."""

    def __init__(self, inner: Backend) -> None:
        """Watch `inner`."""
        super().__init__(inner)
        self._remote = inner.remote

    async def ascore(self, request: RerankRequest) -> Scores:
        """Ask the backend and note how it went, and how long it took."""
        started = time.perf_counter()
        outcome, detail = "answered", None
        try:
            return await self.inner.ascore(request)
        except asyncio.CancelledError:
            outcome = DeadlineExceeded.__name__ if passed() else "cancelled"
            raise
        except BaseException as error:
            outcome = type(error).__name__
            detail = str(error) if isinstance(error, BackendError) else None
            raise
        finally:
            milliseconds = (time.perf_counter() - started) * 1000.0
            note(Attempt(self.label, outcome, milliseconds, detail, self._remote))
