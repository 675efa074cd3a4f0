"""Note every attempt, so that the response can tell what was tried."""

from __future__ import annotations

from ..core.journal import attempted
from ..core.scorer import Backend, Wrapper
from ..core.types import RerankRequest, Scores

__all__ = ["Observe"]


class Observe(Wrapper):
    """The innermost policy: writes each call of its backend into the journal of the rerank it belongs to."""

    def __init__(self, inner: Backend) -> None:
        """Watch `inner`."""
        super().__init__(inner)
        self._remote = inner.remote

    async def ascore(self, request: RerankRequest) -> Scores:
        """Ask the backend and note how it went."""
        with attempted(self.label, remote=self._remote):
            return await self.inner.ascore(request)
