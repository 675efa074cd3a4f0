"""Adaptive depth: an expensive scorer reads documents in a cheap order, until the others can hardly be in the top."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import replace
from functools import reduce
from operator import add
from typing import Any, NamedTuple

from ..core._runtime.text_work import run_text_work
from ..core.call import record_event
from ..core.scorer import Scorer, Wrapper
from ..core.types import Depth, RerankRequest, Scores
from .composite import with_tail
from .depth_model import FIRST, next_depth

__all__ = ["ITEMS_PER_DOCUMENT", "AdaptiveDepth", "PartialScores", "score_to_depth"]

ITEMS_PER_DOCUMENT = 50
"""Cost of selecting, ordering or joining one document, in items of `run_text_work`."""


class PartialScores(NamedTuple):
    """The scores of some documents of a request."""

    scores: Scores
    """One value for each document that was read."""
    read: list[int]
    """Their positions in the request, ascending."""
    unread: list[int]
    """The positions of the other documents, in the cheap order."""
    counts: str
    """How many were read, such as `5 of 30 documents`."""
    reason: str
    """Why the others have no score."""


async def score_to_depth(
    ask: Callable[[RerankRequest], Awaitable[Scores]],
    request: RerankRequest,
    order: Sequence[int],
    cheap: Sequence[float],
    depth: Depth,
) -> PartialScores:
    """Score documents in the order of a cheap score, in a few rounds, until the depth is reached.

    A later round that is degraded is left out, because the scores of a fallback are on another scale.

    Args:
        ask: Scores a part of the request.
        request: The query and all documents.
        order: The positions of all documents, the best by the cheap score first.
        cheap: The cheap scores in that order, which never rise; all equal if only the order is known.
        depth: Which top is protected, and how well.
    """
    parts: list[tuple[list[int], Scores]] = []
    gains: list[float] = []
    read, target = 0, min(FIRST, len(order))
    degraded: Scores | None = None
    size = len(order) * ITEMS_PER_DOCUMENT
    while read < target:
        positions = sorted(order[read:target])
        part = request
        if len(positions) < len(order):
            part = await run_text_work(len(positions) * ITEMS_PER_DOCUMENT, request.select, positions)
        scores = await ask(part)
        if parts and scores.degraded:
            degraded = scores
            break
        parts.append((positions, scores))
        read = target
        left = depth.rounds - len(parts)
        if scores.degraded or left < 1:
            break
        newly_read = order[read - len(positions) : read]
        gains += await run_text_work(len(positions) * ITEMS_PER_DOCUMENT, _gains, scores, positions, newly_read)
        target = await run_text_work(size, next_depth, cheap, gains, depth, left)
    joined, done = await run_text_work(size, _joined, parts)
    counts = f"{_document_count(request, done)} of {_document_count(request, order)} documents"
    reason = f"not read: {joined.model} read {counts}, "
    reason += "then the fallback answered" if degraded or joined.degraded else f"enough for the first {depth.for_top}"
    if degraded is not None:
        why = degraded.reason or f"{degraded.model} answered in place of {joined.model}"
        joined = replace(joined, degraded=True, reason=why, usage=joined.usage + degraded.usage)
    return PartialScores(joined, done, list(order[read:]), counts, reason)


def _document_count(request: RerankRequest, positions: Sequence[int]) -> int:
    """Return how many of the caller's documents the texts at `positions` belong to: a text may be a piece of one."""
    if request.positions is None:
        return len(positions)
    return len({request.positions[position] for position in positions})


def _gains(scores: Scores, positions: Sequence[int], order: Sequence[int]) -> list[float]:
    """Return the relevance of the documents at `positions`, in another `order`; 0 for a document that was declined."""
    relevance = dict(zip(positions, scores.relevances(), strict=True))
    return [relevance[position] or 0.0 for position in order]


def _joined(parts: Sequence[tuple[list[int], Scores]]) -> tuple[Scores, list[int]]:
    """Return the scores of all parts as one answer, and the positions that it covers, ascending."""
    if len(parts) == 1:
        return parts[0][1], parts[0][0]
    rows = sorted((position, part, index) for part, (own, _) in enumerate(parts) for index, position in enumerate(own))
    answers = [scores for _, scores in parts]

    def over(values: Sequence[Sequence[Any] | None], missing: Any) -> tuple[Any, ...] | None:
        if all(each is None for each in values):
            return None
        return tuple(missing if (own := values[part]) is None else own[index] for _, part, index in rows)

    joined = replace(
        answers[-1],
        values=over([each.values for each in answers], None) or (),
        usage=reduce(add, (each.usage for each in answers)),
        truncated=over([each.truncated for each in answers], False),
        spans=over([each.spans for each in answers], ()),
        reasons=over([each.reasons for each in answers], None),
        order=None,
        reply_order=None,  # no reply covered all of them
        reason=next((each.reason for each in answers if each.reason), None),
    )
    return joined, [position for position, _, _ in rows]


class AdaptiveDepth(Wrapper):
    """Read as many documents as the `depth` needs, in the order of the backend's `cheap_scores`.

    Scores are those that the backend gives without this policy. Documents that it did not read come after the others,
    in the cheap order, with a reason and without a score.
    """

    def __init__(self, inner: Scorer, depth: Depth) -> None:
        """Wrap `inner`.

        Args:
            inner: A backend with cheap scores, and the policies around it.
            depth: Which top is protected, and how well.
        """
        super().__init__(inner)
        self.depth = depth
        # Which documents have a score depends on the others.
        self.capabilities = replace(inner.capabilities, listwise=True)

    async def ascore(self, request: RerankRequest) -> Scores:
        """Score to the depth."""
        count = len(request.documents)
        if count <= FIRST:
            return await self.inner.ascore(request)
        cheap = await self.inner.cheap_scores(request)
        size = count * ITEMS_PER_DOCUMENT
        order = await run_text_work(size, _descending, cheap)
        part = await score_to_depth(self.inner.ascore, request, order, [cheap[each] for each in order], self.depth)
        if not part.unread:
            return part.scores
        record_event(self, "kept", part.counts)
        return await run_text_work(size, with_tail, part.scores, part.read, part.unread, part.reason)


def _descending(values: Sequence[float]) -> list[int]:
    return sorted(range(len(values)), key=lambda position: -values[position])
