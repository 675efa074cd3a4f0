"""What the policies over several scorers share."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any

from ..core.scorer import Scorer
from ..core.types import Capabilities, RerankRequest, Scores
from .deadline import bounded, seconds_left

__all__ = ["Several", "asked_of", "states"]


def asked_of(scorer: Scorer, request: RerankRequest) -> RerankRequest:
    """Return the request as this scorer can take it: without an instruction that it cannot follow."""
    if request.instruction is None or scorer.capabilities.instructions:
        return request
    return replace(request, instruction=None)


def states(scorers: Iterable[Scorer]) -> dict[str, Mapping[str, Any]]:
    """Return what each scorer's policies know; of two with one label (servers of one kind, say) the second is `label (2)`."""
    found: dict[str, Mapping[str, Any]] = {}
    for scorer in scorers:
        for label, told in scorer.state().items():
            name, place = label, 2
            while name in found:
                name, place = f"{label} ({place})", place + 1
            found[name] = told
    return found


class Several(Scorer):
    """A scorer over scorers. Each of them knows its own limits; together they are listwise."""

    def __init__(self, scorers: Sequence[Scorer], scores: Capabilities) -> None:
        """Hold `scorers`, whose answer means what `scores` says."""
        self.scorers = tuple(scorers)
        self.keeps_deadline = any(each.keeps_deadline for each in self.scorers)
        self.capabilities = Capabilities(
            scale=scores.scale,
            offset=scores.offset,
            divisor=scores.divisor,
            curve=scores.curve,
            listwise=True,
            instructions=any(each.capabilities.instructions for each in self.scorers),
        )

    async def ask(self, scorer: Scorer, request: RerankRequest) -> Scores:
        """Ask one of the scorers what it can take of the request, for as long as the deadline leaves."""
        # Without a fallback inside, the deadline cuts all of this from outside.
        return await bounded(scorer, asked_of(scorer, request), seconds_left() if self.keeps_deadline else None)

    def state(self) -> Mapping[str, Mapping[str, Any]]:
        """Return every scorer's."""
        return states(self.scorers)

    async def awarmup(self) -> None:
        """Warm up every scorer."""
        for each in self.scorers:
            await each.awarmup()

    async def aclose(self) -> None:
        """Close every scorer."""
        for each in self.scorers:
            await each.aclose()
