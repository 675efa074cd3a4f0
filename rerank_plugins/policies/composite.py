"""The base of policies over several scorers: cascade, fusion and fallback."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from ..core.model_id import ModelId
from ..core.scorer import Scorer
from ..core.types import Capabilities, RerankRequest, Scores
from .deadline import score_within, seconds_left

__all__ = ["Composite", "joint_capabilities", "with_tail", "without_unsupported_instruction"]


def without_unsupported_instruction(scorer: Scorer, request: RerankRequest) -> RerankRequest:
    """Return the request, without its instruction if `scorer` cannot follow one."""
    if request.instruction is None or scorer.capabilities.instructions:
        return request
    return replace(request, instruction=None)


def joint_capabilities(children: Sequence[Scorer], scores: Capabilities) -> Capabilities:
    """Return the capabilities of scorers that answer together: listwise, with the scale of `scores`.

    They have no limits together, because each child handles its own limits.
    """
    return Capabilities(
        scale=scores.scale,
        offset=scores.offset,
        divisor=scores.divisor,
        curve=scores.curve,
        listwise=True,
        instructions=any(child.capabilities.instructions for child in children),
    )


def with_tail(scores: Scores, positions: Sequence[int], tail: Sequence[int], reason: str) -> Scores:
    """Extend scores of some documents to all documents of a request.

    Args:
        scores: The scores of some documents.
        positions: Their positions in the request.
        tail: The positions of the other documents, in the order in which they follow.
        reason: Why those have no score.
    """
    count = len(positions) + len(tail)
    place = {position: index for index, position in enumerate(positions)}

    def over(values: Sequence[Any] | None, missing: Any) -> tuple[Any, ...] | None:
        if values is None:
            return None
        return tuple(values[place[each]] if each in place else missing for each in range(count))

    return replace(
        scores,
        values=over(scores.values, None) or (),
        truncated=over(scores.truncated, False),
        spans=over(scores.spans, ()),
        reasons=over(scores.reasons or (None,) * len(positions), reason),
        order=(*(positions[each] for each in scores.best_first()), *tail),
        reply_order=None,
    )


class Composite(Scorer):
    """A scorer over several scorers."""

    def __init__(self, children: Sequence[Scorer], capabilities: Capabilities) -> None:
        """Set the children, in the order in which they are called, and their joint capabilities."""
        self.children = tuple(children)
        self.capabilities = capabilities
        self.keeps_deadline = any(child.keeps_deadline for child in self.children)

    @property
    def model_id(self) -> ModelId | None:
        """`None`: several models answer together."""
        return None

    async def ask(self, child: Scorer, request: RerankRequest) -> Scores:
        """Score with one child, without an instruction that it cannot follow, within the deadline."""
        # Without a fallback inside, the outer deadline cancels the whole composite.
        seconds = seconds_left() if self.keeps_deadline else None
        return await score_within(child, without_unsupported_instruction(child, request), seconds)
