"""A backend with scripted behaviour: raise an error, answer after a delay, or hang."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Sequence

from rerank_plugins.core import Backend, Capabilities, RerankRequest, Scores, Usage

HANG = float("inf")


class Scripted(Backend):
    """Plays one step per call: raises an exception, or answers after a number of seconds."""

    remote = True

    def __init__(
        self,
        *steps: Exception | float,
        name: str = "scripted",
        capabilities: Capabilities | None = None,
        truncated: Sequence[bool] | None = None,
    ) -> None:
        self.name = name
        super().__init__(None)
        self.capabilities = capabilities or Capabilities()
        self.steps = list(steps)
        self.calls: list[tuple[float, RerankRequest]] = []
        self.truncated = truncated

    @property
    def times(self) -> list[float]:
        """Virtual seconds from one call to the next."""
        moments = [moment for moment, _ in self.calls]
        return [after - before for before, after in itertools.pairwise(moments)]

    async def ascore(self, request: RerankRequest) -> Scores:
        self.calls.append((asyncio.get_running_loop().time(), request))
        step = self.steps.pop(0) if self.steps else 0.0
        if isinstance(step, Exception):
            raise step
        if step == HANG:
            await asyncio.Event().wait()
        await asyncio.sleep(step)
        return Scores(
            values=tuple(1.0 / (1.0 + len(text)) for text in request.documents),
            model=self.label,
            capabilities=self.capabilities,
            usage=Usage(input_tokens=len(request.documents)),
            truncated=None if self.truncated is None else tuple(self.truncated),
        )


REQUEST = RerankRequest(query="query", documents=("one", "three", "seventeen"))
