"""What the policies over several scorers share."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from ..core.model_id import ModelId
from ..core.scorer import Scorer
from ..core.types import Capabilities, RerankRequest, Scores
from .deadline import bounded, seconds_left

__all__ = ["Composite", "followable", "joint"]


def followable(scorer: Scorer, request: RerankRequest) -> RerankRequest:
    """Return the request as `scorer` can take it: without an instruction that it cannot follow."""
    if request.instruction is None or scorer.capabilities.instructions:
        return request
    return replace(request, instruction=None)


def joint(children: Sequence[Scorer], scores: Capabilities) -> Capabilities:
    """Return the capabilities of scorers that answer together: listwise, and their scores mean what `scores` says.

    Each of them knows its own limits, so together they have none.
    """
    return Capabilities(
        scale=scores.scale,
        offset=scores.offset,
        divisor=scores.divisor,
        curve=scores.curve,
        listwise=True,
        instructions=any(child.capabilities.instructions for child in children),
    )


class Composite(Scorer):
    """A scorer over several scorers."""

    def __init__(self, children: Sequence[Scorer], capabilities: Capabilities) -> None:
        """Hold `children`, in the order in which they are asked."""
        self.children = tuple(children)
        self.capabilities = capabilities
        self.keeps_deadline = any(child.keeps_deadline for child in self.children)

    @property
    def model_id(self) -> ModelId | None:
        """None: several answer together."""
        return None

    async def ask(self, child: Scorer, request: RerankRequest) -> Scores:
        """Ask one child what it can take of the request, for as long as the deadline leaves."""
        # Without a fallback inside, the deadline cuts all of this from outside.
        return await bounded(child, followable(child, request), seconds_left() if self.keeps_deadline else None)
