"""Read the whole of a long document: score it piece by piece, and join the pieces' scores."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Annotated, Literal, Self, get_args

from pydantic import model_validator

from ..core.numeric import MOST, integer
from ..core.scorer import Scorer, Wrapper
from ..core.text_work import check_cancelled, run_on_text_thread, run_text_work
from ..core.types import RerankRequest, Scores, Span
from ..options import Count, number, refused
from .pieces import pieces
from .stack import PolicyOptions, Stack
from .truncate import MARKS, Truncate, length, room_beside

__all__ = ["AGGREGATES", "Aggregate", "Chunk", "LongDocumentsOptions"]

Aggregate = Literal["max", "mean_top_k", "first_plus_max"]
AGGREGATES: tuple[Aggregate, ...] = get_args(Aggregate)
TOP_K = 3
_LEAST = 16


class LongDocumentsOptions(PolicyOptions):
    """What happens to a document that is longer than the backend reads."""

    mode: Literal["truncate", "head_tail", "error", "chunk"] = "chunk"
    """`truncate`: the end is cut. `head_tail`: the middle is taken out. `error`: the call is refused. `chunk`: all of it is
    read, in pieces whose scores are joined."""
    tokens: Count | None = None
    """Of `chunk`: tokens of one piece; `None` is what the model reads beside the query."""
    overlap: Annotated[int, *number(int, functools.partial(integer, low=0), 0, MOST)] | None = None
    """Of `chunk`: tokens that a piece repeats of the one before; `None` is an eighth of a piece."""
    aggregate: Aggregate = "max"
    """Of `chunk`: how the scores of the pieces are joined."""

    @model_validator(mode="after")
    def _of_one_mode(self) -> Self:
        others = self.model_fields_set - {"mode"}
        if self.mode != "chunk" and others:
            raise refused(f"has {', '.join(sorted(others))}, which belongs to mode 'chunk'; the mode is {self.mode!r}")
        if self.tokens is not None and self.overlap is not None and self.overlap >= self.tokens:
            raise refused(f"must have an overlap ({self.overlap}) below its tokens ({self.tokens})")
        return self

    def wrap(self, scorer: Scorer, stack: Stack) -> Scorer:
        """Return `scorer` with long documents cut or parted, where it has a limit at all."""
        limits = scorer.capabilities
        limited = limits.max_tokens is not None or limits.max_document_tokens is not None
        if self.mode != "chunk":
            return Truncate(scorer, self.mode) if limited else scorer
        if scorer.instant or not (limited or self.tokens):
            return scorer
        return Chunk(scorer, tokens=self.tokens, overlap=self.overlap, aggregate=self.aggregate)


@dataclass(frozen=True, slots=True)
class _Parted:
    """The documents of one call in pieces."""

    pieces: tuple[str, ...]
    """What is scored, nothing twice."""
    borders: Sequence[Sequence[tuple[int, int]]]
    """For each document the (start, end) characters of its pieces."""
    places: Sequence[Sequence[int]]
    """For each document where its pieces stand in `pieces`."""


class Chunk(Wrapper):
    """Part what is too long into pieces that overlap, at sentence borders where there are any, by the model's own tokens.

    A document's score joins the raw scores of its pieces: `max`; `mean_top_k`, the mean of its three best; or
    `first_plus_max`, the mean of the first piece's and the best one's. Its best piece stands in the result's `spans`, with
    the piece's relevance (of an `ordinal` backend, its raw score): characters of the document's text, which of a mapping is
    the YAML that is sent. All of the document is read, so it is not `truncated`.
    """

    def __init__(
        self, inner: Scorer, *, tokens: int | None = None, overlap: int | None = None, aggregate: Aggregate = "max"
    ) -> None:
        """Wrap `inner`.

        Args:
            inner: Whose limits say what is too long.
            tokens: Of one piece; `None` is what the model reads beside the query, and never more than that.
            overlap: Tokens that a piece repeats of the one before; `None` is an eighth of a piece. Where the model reads less
                than `tokens`, at most half of what it reads.
            aggregate: How scores are joined.
        """
        super().__init__(inner)
        self.piece_tokens = tokens
        self.overlap = overlap
        self.aggregate = aggregate

    async def ascore(self, request: RerankRequest) -> Scores:
        """Score every piece in one call to the inner scorer, which splits it where it has to, and join."""
        parted = await run_on_text_thread(self._parted, request)
        if parted is None:
            return await self.inner.ascore(request)
        pieces_request = replace(request, documents=parted.pieces, fields=None, retrieval_scores=None, positions=None)
        scores = await self.inner.ascore(pieces_request)
        return await run_text_work(sum(map(len, parted.places)), self._joined, scores, request.documents, parted)

    def _parted(self, request: RerankRequest) -> _Parted | None:
        """Part the documents; `None` where none of them is too long."""
        borders = self._borders(request)
        if borders is None or all(
            mine == [(0, len(text))] for text, mine in zip(request.documents, borders, strict=True)
        ):
            return None
        # Documents share boilerplate: what is the same is scored once, here as everywhere.
        known: dict[str, int] = {}
        places = [
            [known.setdefault(text[start:end], len(known)) for start, end in mine]
            for text, mine in zip(request.documents, borders, strict=True)
        ]
        return _Parted(tuple(known), borders, places)

    def _borders(self, request: RerankRequest) -> list[list[tuple[int, int]]] | None:
        size = self._size(request)
        if size is None:
            return None
        # Meant for longer pieces than this model reads, an overlap would make a step of a token, and hundreds of times the cost.
        most = size - 1 if size == self.piece_tokens else size // 2
        overlap = min(size // 8 if self.overlap is None else self.overlap, most)
        return [pieces(text, self.tokens(text), size, overlap) for text in request.documents]

    def _size(self, request: RerankRequest) -> int | None:
        limits = self.capabilities
        if limits.max_tokens is None and limits.max_document_tokens is None:
            return self.piece_tokens
        room = max(room_beside(limits, length(self, request.query)) - MARKS, _LEAST)
        return room if self.piece_tokens is None else min(room, self.piece_tokens)

    def _joined(self, scores: Scores, documents: Sequence[str], parted: _Parted) -> Scores:
        values: list[float] = []
        spans: list[tuple[Span, ...]] = []
        truncated: list[bool] = []
        relevances = scores.relevances()
        for text, borders, at in zip(documents, parted.borders, parted.places, strict=True):
            check_cancelled()
            raw = [value for each in at if (value := scores.values[each]) is not None]
            best = max(range(len(raw)), key=raw.__getitem__)
            values.append(_aggregate(raw, self.aggregate))
            truncated.append(scores.truncated is not None and any(scores.truncated[each] for each in at))
            inner = scores.spans[at[best]] if scores.spans is not None else ()
            start, end = borders[best]
            if inner or (start, end) == (0, len(text)):
                # The backend's own spans are finer; they are of the piece.
                spans.append(tuple(Span(start + each.start, start + each.end, each.score) for each in inner))
            else:
                told = raw[best] if scores.capabilities.scale == "ordinal" else relevances[at[best]]
                spans.append((Span(start, end, told if told is not None else raw[best]),))
        return replace(
            scores,
            values=tuple(values),
            truncated=tuple(truncated),
            spans=tuple(spans),
            order=None,
            reply_order=None,  # it was of the pieces
            reasons=None,
        )


def _aggregate(raw: Sequence[float], how: Aggregate) -> float:
    if how == "mean_top_k":
        best = sorted(raw, reverse=True)[:TOP_K]
        return sum(best) / len(best)
    return max(raw) if how == "max" else (raw[0] + max(raw)) / 2.0
