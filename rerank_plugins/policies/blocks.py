"""Blocks: asks a listwise backend about a few documents at a time, and puts the scores of all blocks on one scale."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Awaitable, Callable, Sequence
from functools import reduce
from operator import add
from typing import NamedTuple

from ..core._runtime.gather import gather
from ..core.errors import BadResponse, Rejected
from ..core.scorer import Scorer, Wrapper
from ..core.types import Blocks, RerankRequest, Scores, Usage

__all__ = ["InBlocks", "align"]

MAX_DISAGREEMENT = 0.2
"""Largest difference between a block's score of an anchor and the other blocks' scores of it. Above, the block judged
by another measure, or one of its documents talked it into one: its scores stay as they are. Two grades of ten."""
_MARGIN = 0.05
"""Distance from 0 and 1 of the points that `align` maps, so that its lines never become flat."""
MAX_SECOND_REQUESTS = 16
"""Requests for the documents of one block that the first request left without a score. One refused document of 50 is
isolated with 12."""


def align(score: float, own: float, common: float) -> float:
    """Return the score of a block on the scale of all blocks.

    Two straight lines map 0 to 0, `own` to `common`, and 1 to 1. So the order within the block stays, and no score
    leaves [0, 1]. `own` and `common` are moved to 0.05 or 0.95 if they lie outside.

    Args:
        score: A score of the block, in [0, 1].
        own: The mean of the block's scores of the anchors.
        common: The mean, over the anchors, of the median of all blocks' scores.

    >>> align(0.5, 0.5, 0.75)
    0.75
    >>> align(0.25, 0.5, 0.75), align(1.0, 0.5, 0.75)
    (0.375, 1.0)
    """
    own, common = (min(1.0 - _MARGIN, max(_MARGIN, value)) for value in (own, common))
    if own == common:
        return score
    return score * common / own if score <= own else 1.0 - (1.0 - score) * (1.0 - common) / (1.0 - own)


_Ask = Callable[[RerankRequest], Awaitable[Scores]]
"""Sends one request, as one of the `max_in_flight` requests of the call."""


class _Block(NamedTuple):
    """The answer to one block."""

    positions: tuple[int, ...]
    """Positions in the request of the documents of the block."""
    scores: Scores

    def values(self) -> dict[int, float]:
        """Return the scores by position, without the unscored documents."""
        pairs = zip(self.positions, self.scores.values, strict=True)
        return {position: value for position, value in pairs if value is not None}


class InBlocks(Wrapper):
    """Deal the documents round-robin to blocks, score the blocks concurrently, and align their scores.

    A score depends on the documents beside it, so every block holds the same few anchors: the first document of the
    request, and others at equal distances. The anchors show how strictly a block was scored; `align` corrects that. An
    anchor's own score is the median over the blocks.

    Documents without a score are asked for once more. A model may refuse a whole request because of one document, so
    a group in which none got a score is halved, until only the refused document is left. It stays unscored, with its
    reason.
    """

    def __init__(self, inner: Scorer, blocks: Blocks, max_in_flight: int = 8) -> None:
        """Wrap `inner`, whose scale is `unit`; send at most `max_in_flight` requests of one call at a time."""
        super().__init__(inner)
        self.blocks = blocks
        self.max_in_flight = max_in_flight

    async def ascore(self, request: RerankRequest) -> Scores:
        """Score in one block, or in concurrent blocks."""
        anchors, deals = self._deal(len(request.documents))
        in_flight = asyncio.Semaphore(self.max_in_flight)

        async def ask(part: RerankRequest) -> Scores:
            async with in_flight:
                return await self.inner.ascore(part)

        work = (self._score(request, anchors, deal, ask) for deal in deals)
        groups = await gather(work, min(self.max_in_flight, len(deals)))
        return _merged([block for group in groups for block in group], len(request.documents))

    def _deal(self, count: int) -> tuple[tuple[int, ...], list[range] | list[list[int]]]:
        """Return the positions of the anchors, and for each block those of its other documents."""
        size = self.blocks.size
        if count <= size:
            return (), [range(count)]
        anchors = min(self.blocks.anchors, size - 1)
        shared, others = _anchors(range(count), anchors)
        blocks = math.ceil(len(others) / (size - anchors))
        return shared, [others[number::blocks] for number in range(blocks)]

    async def _score(
        self,
        request: RerankRequest,
        anchors: Sequence[int],
        deal: Sequence[int],
        ask: _Ask,
        *,
        alignable: bool = True,
    ) -> list[_Block]:
        """Score one block; as several smaller ones, if the vendor counts too many tokens.

        Without anchors, the smaller ones share some documents of the block, if it is `alignable`.
        """
        positions = tuple(sorted((*anchors, *deal)))
        part = request.select(positions)
        try:
            scores = await ask(part)
        except Rejected as error:
            if not error.too_large or len(deal) < 2:
                raise
        else:
            return [_Block(positions, await _ask_again(part, scores, ask))]
        if not anchors and alignable and len(deal) > 3:
            shared, others = _anchors(deal, min(self.blocks.anchors, len(deal) - 2))
            try:
                return await self._score_halves(request, shared, others, ask)
            except Rejected as error:
                if not error.too_large:
                    raise
            alignable = False  # not even one document fits beside the anchors
        return await self._score_halves(request, anchors, deal, ask, alignable=alignable)

    async def _score_halves(
        self,
        request: RerankRequest,
        anchors: Sequence[int],
        deal: Sequence[int],
        ask: _Ask,
        *,
        alignable: bool = True,
    ) -> list[_Block]:
        parts = [await self._score(request, anchors, half, ask, alignable=alignable) for half in _halves(deal)]
        return [block for part in parts for block in part]


def _anchors(positions: Sequence[int], count: int) -> tuple[tuple[int, ...], list[int]]:
    """Return `count` of the positions at equal distances, and the others."""
    shared = tuple(positions[number * len(positions) // count] for number in range(count))
    return shared, [position for position in positions if position not in shared]


async def _ask_again(request: RerankRequest, scores: Scores, ask: _Ask) -> Scores:
    """Ask once more for the documents without a score, in smaller groups, and return all scores."""
    values, reasons = list(scores.values), list(scores.reasons or (None,) * len(scores.values))
    missing = [index for index, value in enumerate(values) if value is None]
    if not missing or scores.degraded:
        return scores
    groups = _halves(missing) if len(missing) == len(values) else [missing]
    answers = [scores]
    budget = MAX_SECOND_REQUESTS
    while groups := groups[:budget]:
        budget -= len(groups)
        refused = []
        replies = await gather(_or_none(ask, request.select(group)) for group in groups)
        for group, more in zip(groups, replies, strict=True):
            if more is None:
                continue
            answers.append(more)
            for index, value, reason in zip(group, more.values, more.reasons or (None,) * len(group), strict=True):
                values[index], reasons[index] = value, reason
            if len(group) > 1 and all(value is None for value in more.values):
                refused.append(group)
        groups = [half for group in refused for half in _halves(group)]
    return Scores(
        values=tuple(values),
        model=scores.model,
        capabilities=scores.capabilities,
        usage=reduce(add, (answer.usage for answer in answers)),
        reasons=tuple(reasons) if any(reasons) else None,
        degraded=any(answer.degraded for answer in answers),
        reason=next((answer.reason for answer in answers if answer.reason), None),
    )


async def _or_none(ask: _Ask, part: RerankRequest) -> Scores | None:
    """Return the answer to a second request; `None` for an unusable one, whose documents stay unscored."""
    try:
        return await ask(part)
    except BadResponse:
        return None


def _halves(group: Sequence[int]) -> list[Sequence[int]]:
    """Return both halves; a single document as it is."""
    middle = len(group) // 2
    return [half for half in (group[:middle], group[middle:]) if half]


def _merged(answers: Sequence[_Block], count: int) -> Scores:
    """Return the scores of all documents from those of the blocks. The anchors are the documents in all blocks."""
    first = answers[0].scores
    if len(answers) == 1:
        return first
    anchors = sorted(set.intersection(*(set(answer.positions) for answer in answers)))
    by_block = [answer.values() for answer in answers]
    by_anchor = {anchor: [values.get(anchor) for values in by_block] for anchor in anchors}
    medians = {anchor: _median(scores) for anchor, scores in by_anchor.items()}
    common = {anchor: median for anchor, median in medians.items() if median is not None}
    values: list[float | None] = [None] * count
    reasons: list[str | None] = [None] * count
    warnings = [] if anchors else [f"{len(answers)} blocks are not aligned: they share no document"]
    for number, (answer, own) in enumerate(zip(answers, by_block, strict=True)):
        shared = [anchor for anchor in common if anchor in own]
        problem = _disagreement(number, by_anchor, shared)
        if problem is not None and anchors:
            warnings.append(f"block {number + 1} of {len(answers)} is not aligned with the others: {problem}")
        for index, position in enumerate(answer.positions):
            score = own.get(position)
            if position in common:
                values[position] = common[position]
            elif score is None:
                reasons[position] = answer.scores.reasons[index] if answer.scores.reasons is not None else None
            elif problem is None:
                values[position] = align(score, _mean(own, shared), _mean(common, shared))
            else:
                values[position] = score
    messages = [answer.scores.reason for answer in answers if answer.scores.reason]
    return Scores(
        values=tuple(values),
        model=first.model,
        capabilities=first.capabilities,
        usage=reduce(add, (answer.scores.usage for answer in answers), Usage()),
        reasons=tuple(reasons) if any(reasons) else None,
        degraded=any(answer.scores.degraded for answer in answers),
        reason="; ".join([*dict.fromkeys(messages), *warnings]) or None,
    )


def _disagreement(number: int, by_anchor: dict[int, list[float | None]], shared: Sequence[int]) -> str | None:
    """Return why the block `number` cannot be aligned. `None` if it can."""
    if not shared:
        return "it has a score for none of the documents that all blocks share"
    for anchor in shared:
        own, others = (
            by_anchor[anchor][number],
            _median([*by_anchor[anchor][:number], *by_anchor[anchor][number + 1 :]]),
        )
        if own is not None and others is not None and abs(own - others) > MAX_DISAGREEMENT + 1e-9:
            return f"its score of a shared document is {own:.2g}, theirs is {others:.2g}"
    return None


def _median(scores: Sequence[float | None]) -> float | None:
    import statistics  # with fractions, decimal and random: milliseconds that a process without blocks saves

    known = [score for score in scores if score is not None]
    return statistics.median(known) if known else None


def _mean(scores: dict[int, float], anchors: Sequence[int]) -> float:
    return math.fsum(scores[anchor] for anchor in anchors) / len(anchors)
