"""What happens to a document that is longer than the backend reads: cut at the end, cut in the middle, or refused."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Literal, get_args

from ..core.errors import InputError
from ..core.scorer import Scorer, Wrapper
from ..core.text_work import characters, run_on_text_thread, run_text_work
from ..core.tokens import bound, estimate
from ..core.types import Capabilities, RerankRequest, Scores

__all__ = ["MODES", "Mode", "Truncate", "length", "room_beside"]

Mode = Literal["truncate", "head_tail", "error"]
MODES: tuple[Mode, ...] = get_args(Mode)

MARKS = 4  # special tokens around a pair, at most, in the models in use
_JOINT = " … "


class Truncate(Wrapper):
    """Never cut silently.

    `truncate`: the backend cuts (its own tokenizer knows where), and the result says so; for a backend that refuses what
    is too long, the end is cut here. `head_tail`: the middle is
    taken out, so that a beginning and an end remain. `error`: an over-long document is an `InputError` that names it.

    Lengths are exact where the backend has its tokenizer at hand; for a vendor they are estimates, and `truncated` is
    said only where even the lower one is above the limit.
    """

    def __init__(self, inner: Scorer, mode: Mode = "truncate") -> None:
        """Wrap `inner`."""
        super().__init__(inner)
        self.mode = mode

    async def ascore(self, request: RerankRequest) -> Scores:
        """Score what fits, and mark what did not."""
        if self.capabilities.max_tokens is None and self.capabilities.max_document_tokens is None:
            return await self.inner.ascore(request)
        if self.mode == "truncate" and self.capabilities.cuts:
            scores = await self.inner.ascore(request)
            if scores.truncated is not None:
                return scores
            flags = await run_text_work(characters(request), _cut_by_vendor, request, self.capabilities)
            return replace(scores, truncated=flags) if any(flags) else scores
        cut = await run_on_text_thread(self._all_fitted, request)
        changed = tuple(short is not text for short, text in zip(cut, request.documents, strict=True))
        if not any(changed):
            return await self.inner.ascore(request)
        scores = await self.inner.ascore(replace(request, documents=tuple(cut), fields=None))
        flags = tuple(a or b for a, b in zip(changed, scores.truncated or (False,) * len(cut), strict=True))
        return replace(scores, truncated=flags)

    def _all_fitted(self, request: RerankRequest) -> list[str]:
        room = room_beside(self.capabilities, length(self, request.query))
        return [self._fitted(text, room, request.position(index)) for index, text in enumerate(request.documents)]

    def _fitted(self, text: str, room: int, index: int) -> str:
        if bound(text) <= room:
            return text
        offsets = self.tokens(text)
        length = len(offsets) if offsets is not None else estimate(text)[self.mode != "error"]
        if length <= room:
            return text
        if self.mode == "error":
            raise InputError(
                f"Document {index} has {'about ' if offsets is None else ''}{length} tokens and {self.label} reads "
                f"{max(room, 0)} beside this query. Split it, or set `long_documents` to 'truncate' or 'head_tail'."
            )
        if self.mode == "truncate":
            return _beginning(text, offsets, max(room, 1), length)
        return _ends(text, offsets, max(room - 3, 2), length)


def _cut_by_vendor(request: RerankRequest, capabilities: Capabilities) -> tuple[bool, ...]:
    """Return which documents have more tokens than the vendor reads, even by the lower estimate."""
    query, limit = estimate(request.query)[0], capabilities.max_query_tokens
    if limit is not None and query > limit:
        # The vendor cuts the query: no document was compared with all of it.
        return (True,) * len(request.documents)
    room = room_beside(capabilities, query - MARKS)
    return tuple(bound(text) > room and estimate(text, max(room, 0))[0] > room for text in request.documents)


def room_beside(capabilities: Capabilities, query: int) -> int:
    """Return the tokens that a document may have beside a query of so many, the model's own marks taken off."""
    together, alone = capabilities.max_tokens, capabilities.max_document_tokens
    beside = together - query - MARKS if together is not None else None
    return min(each for each in (beside, alone) if each is not None)


def length(scorer: Scorer, text: str) -> int:
    """Return the tokens of a text: counted where the scorer has its tokenizer, else estimated from above."""
    exact = scorer.tokens(text)
    return len(exact) if exact is not None else estimate(text)[1]


def _beginning(text: str, offsets: Sequence[tuple[int, int]] | None, room: int, length: int) -> str:
    """Return the first `room` tokens; where they are estimated, of the whole text from above, a beginning that fits."""
    if offsets is not None:
        return text[: offsets[room - 1][1]]
    size = int(len(text) * room / length)
    # A beginning may be denser than the whole text. Each round takes off what is too much by its own estimate.
    while size > 1 and (now := estimate(text[:size])[1]) > room:
        size = min(size - 1, int(0.98 * size * room / now))
    return text[: max(size, 1)]


def _ends(text: str, offsets: Sequence[tuple[int, int]] | None, room: int, length: int) -> str:
    """Return the first two thirds of `room` tokens and the last third, joined by an ellipsis."""
    head = room - room // 3
    if offsets is None:
        # The estimate is of the whole text: take the same share of its characters.
        kept = int(len(text) * room / length)
        at, back = kept - kept // 3, kept // 3
        return text[:at] + _JOINT + text[len(text) - back :]
    return text[: offsets[head - 1][1]] + _JOINT + text[offsets[len(offsets) - (room - head)][0] :]
