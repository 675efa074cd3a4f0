"""Chunking: scores a long document in overlapping pieces and combines their scores."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from dataclasses import replace
from typing import Annotated, Literal, NamedTuple, Self, get_args

from pydantic import ConfigDict, model_validator

from ..core._runtime.text_work import check_cancelled, run_on_text_thread, run_text_work
from ..core.errors import ConfigError
from ..core.numeric import MAX_INTEGER, integer
from ..core.scorer import Scorer, Wrapper
from ..core.types import RerankRequest, Scores, Span
from ..options import Count, number, refused
from .policy_options import PolicyOptions
from .stack import Stack
from .text_splitter import split_text
from .truncate import SPECIAL_TOKENS, count_tokens, document_limit, with_truncation

__all__ = ["AGGREGATES", "Aggregate", "Chunk", "LongDocumentsOptions"]

Aggregate = Literal["max", "mean_top_k", "first_plus_max"]
AGGREGATES: tuple[Aggregate, ...] = get_args(Aggregate)
TOP_K = 3
_MIN_PIECE_TOKENS = 16


_CHUNK_ONLY = ("tokens", "overlap", "aggregate")


class LongDocumentsOptions(PolicyOptions):
    """How documents longer than the backend's limit are handled."""

    mode: Literal["truncate", "head_tail", "error", "chunk"] = "chunk"
    """`truncate` cuts off the end, `head_tail` removes the middle, `error` refuses the call. `chunk` scores the whole
    document in overlapping pieces and combines their scores."""
    tokens: Count | None = None
    """Size of one piece in tokens; only with `chunk`. By default as many as the model reads beside the query."""
    overlap: Annotated[int, *number(int, functools.partial(integer, low=0), 0, MAX_INTEGER)] | None = None
    """Number of tokens that a piece repeats from the one before, below `tokens`; only with `chunk`. By default an
    eighth of a piece."""
    aggregate: Aggregate = "max"
    """How the scores of the pieces are combined: the highest one, the mean of the three highest, or the mean of the
    first and the highest one; only with `chunk`."""

    model_config = ConfigDict(
        json_schema_extra={
            "if": {
                "properties": {"mode": {"enum": ["truncate", "head_tail", "error"]}},
                "required": ["mode"],
            },
            "then": {"not": {"anyOf": [{"required": [option]} for option in _CHUNK_ONLY]}},
        }
    )

    @model_validator(mode="after")
    def _check_combination(self) -> Self:
        others = self.model_fields_set - {"mode"}
        if self.mode != "chunk" and others:
            raise refused(f"has {', '.join(sorted(others))}, which belongs to mode 'chunk'; the mode is {self.mode!r}")
        if self.tokens is not None and self.overlap is not None and self.overlap >= self.tokens:
            raise refused(f"must have an overlap ({self.overlap}) below its tokens ({self.tokens})")
        return self

    def wrap(self, scorer: Scorer, stack: Stack) -> Scorer:
        """Return `scorer` inside truncation or chunking, or `scorer` itself if it has no limit."""
        limits = scorer.capabilities
        limited = limits.max_tokens is not None or limits.max_document_tokens is not None
        if self.mode != "chunk":
            return with_truncation(scorer, stack, self.mode)
        if scorer.instant or not (limited or self.tokens):
            return scorer
        if stack.backend.depth is not None and self.aggregate != "max":
            raise ConfigError(
                f"long_documents.aggregate must be 'max' for {stack.backend.spec_name}, which does not read every "
                f"piece of a document, got {self.aggregate!r}. Leave it out, or name a model that reads everything."
            )
        return Chunk(scorer, tokens=self.tokens, overlap=self.overlap, aggregate=self.aggregate)


class _Pieces(NamedTuple):
    """The documents of one call in pieces."""

    request: RerankRequest
    """The request for the different pieces of all documents."""
    borders: Sequence[Sequence[tuple[int, int]]]
    """For each document, the (start, end) characters of its pieces."""
    places: Sequence[Sequence[int]]
    """For each document, the positions of its pieces in `request`."""


class Chunk(Wrapper):
    """Split long documents into overlapping pieces, at sentence borders where possible, measured in the model's tokens.

    A document's score combines the raw scores of its pieces: `max` is the highest one, `mean_top_k` the mean of the
    three highest, `first_plus_max` the mean of the first one and the highest one. The result's `spans` name the best
    piece with its relevance (for an `ordinal` backend, its raw score). Spans count characters of the document's text;
    for a mapping that is the YAML that is sent. The whole document is read, so it is not `truncated`.
    """

    def __init__(
        self, inner: Scorer, *, tokens: int | None = None, overlap: int | None = None, aggregate: Aggregate = "max"
    ) -> None:
        """Wrap `inner`.

        Args:
            inner: The scorer whose limits define a long document.
            tokens: Size of a piece in tokens, at least 1. It is at most what the model reads beside the query, which is
                also the default.
            overlap: Number of tokens that a piece repeats from the one before; the default is an eighth of a piece. If
                the model reads less than `tokens`, the overlap is at most half a piece.
            aggregate: How scores are combined: `max`, `mean_top_k` or `first_plus_max`.
        """
        super().__init__(inner)
        self.piece_tokens = tokens
        self.overlap = overlap
        self.aggregate = aggregate

    async def ascore(self, request: RerankRequest) -> Scores:
        """Score all pieces in one call to the inner scorer, and combine their scores."""
        pieces = await run_on_text_thread(self._split, request)
        if pieces is None:
            return await self.inner.ascore(request)
        scores = await self.inner.ascore(pieces.request)
        return await run_text_work(sum(map(len, pieces.places)), self._combined, scores, request.documents, pieces)

    def _split(self, request: RerankRequest) -> _Pieces | None:
        """Split the documents; `None` if none of them is too long."""
        borders = self._borders(request)
        if borders is None or all(
            own == [(0, len(text))] for text, own in zip(request.documents, borders, strict=True)
        ):
            return None
        # Equal pieces, such as boilerplate, are scored once.
        texts: dict[str, int] = {}
        places = [
            [texts.setdefault(text[start:end], len(texts)) for start, end in own]
            for text, own in zip(request.documents, borders, strict=True)
        ]
        pieces_request = replace(
            request,
            documents=tuple(texts),
            fields=None,
            retrieval_scores=_retrieval_scores(request, places),
            positions=_positions(request, places),
        )
        return _Pieces(pieces_request, borders, places)

    def _borders(self, request: RerankRequest) -> list[list[tuple[int, int]]] | None:
        size = self._piece_size(request)
        if size is None:
            return None
        # An overlap chosen for longer pieces than this model reads could leave a step of one token, at hundreds of
        # times the cost.
        limit = size - 1 if size == self.piece_tokens else size // 2
        overlap = min(size // 8 if self.overlap is None else self.overlap, limit)
        return [split_text(text, self.tokens(text), size, overlap) for text in request.documents]

    def _piece_size(self, request: RerankRequest) -> int | None:
        limits = self.capabilities
        if limits.max_tokens is None and limits.max_document_tokens is None:
            return self.piece_tokens
        query_tokens = count_tokens(self, request.query)
        size = max(document_limit(limits, query_tokens) - SPECIAL_TOKENS, _MIN_PIECE_TOKENS)
        return size if self.piece_tokens is None else min(size, self.piece_tokens)

    def _combined(self, scores: Scores, documents: Sequence[str], pieces: _Pieces) -> Scores:
        values: list[float | None] = []
        reasons: list[str | None] = []
        spans: list[tuple[Span, ...]] = []
        truncated: list[bool] = []
        ranks = scores.ranks()
        relevances = scores.relevances()
        for text, borders, places in zip(documents, pieces.borders, pieces.places, strict=True):
            check_cancelled()
            truncated.append(scores.truncated is not None and any(scores.truncated[place] for place in places))
            scored = [
                (border, place, value)
                for border, place in zip(borders, places, strict=True)
                if (value := scores.values[place]) is not None
            ]
            if not scored:  # the answer of a fallback behind the server
                values.append(None)
                spans.append(())
                reasons.append(scores.reasons[places[0]] if scores.reasons is not None else None)
                continue
            reasons.append(None)
            raw = [value for _, _, value in scored]
            best = max(range(len(raw)), key=raw.__getitem__)
            values.append(_aggregate(raw, self.aggregate))
            (start, end), place, _ = scored[best]
            inner = scores.spans[place] if scores.spans is not None else ()
            if inner or (start, end) == (0, len(text)):
                # The backend's own spans are finer. They count characters of the piece.
                spans.append(tuple(Span(start + each.start, start + each.end, each.score) for each in inner))
            else:
                relevance = None if scores.capabilities.scale == "ordinal" else relevances[place]
                spans.append((Span(start, end, raw[best] if relevance is None else relevance),))
        return replace(
            scores,
            values=tuple(values),
            truncated=tuple(truncated),
            spans=tuple(spans),
            order=_order(values, ranks, pieces.places) if scores.order is not None else None,
            reply_order=None,  # the reply ordered pieces, not documents
            reasons=tuple(reasons) if any(reasons) else None,
        )


def _positions(request: RerankRequest, places: Sequence[Sequence[int]]) -> tuple[int, ...]:
    """Return for each piece the index in the caller's list of the first document that has it."""
    positions: dict[int, int] = {}
    for index, own in enumerate(places):
        for place in own:
            positions.setdefault(place, request.position(index))
    return tuple(positions[place] for place in range(len(positions)))


def _retrieval_scores(request: RerankRequest, places: Sequence[Sequence[int]]) -> tuple[float, ...]:
    """Return for each piece the retriever's score of the first document that has it, else minus its position."""
    scores: dict[int, float] = {}
    for position, own in enumerate(places):
        score = -float(position) if request.retrieval_scores is None else request.retrieval_scores[position]
        for place in own:
            scores.setdefault(place, score)
    return tuple(scores[place] for place in range(len(scores)))


def _order(values: Sequence[float | None], ranks: Sequence[float], places: Sequence[Sequence[int]]) -> tuple[int, ...]:
    """Return all documents, best first: those with a score by it, then the others by their best piece.

    Args:
        values: The score of each document.
        ranks: The sort key of each piece.
        places: The pieces of each document.
    """

    def key(position: int) -> tuple[bool, float]:
        value = values[position]
        return (True, min(ranks[place] for place in places[position])) if value is None else (False, -value)

    return tuple(sorted(range(len(values)), key=key))


def _aggregate(raw: Sequence[float], how: Aggregate) -> float:
    if how == "mean_top_k":
        best = sorted(raw, reverse=True)[:TOP_K]
        return sum(best) / len(best)
    return max(raw) if how == "max" else (raw[0] + max(raw)) / 2.0
