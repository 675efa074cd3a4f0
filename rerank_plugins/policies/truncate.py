"""Truncation of documents longer than the backend's limit: at the end, in the middle, or not at all (an error)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Literal, get_args

from ..core._runtime.text_work import character_count, run_on_text_thread, run_text_work
from ..core.errors import InputError
from ..core.scorer import Scorer, Wrapper
from ..core.tokens import estimate_tokens, max_token_count
from ..core.types import Capabilities, RerankRequest, Scores
from .stack import Stack

__all__ = ["MODES", "Mode", "Truncate", "count_tokens", "document_limit", "with_truncation"]

Mode = Literal["truncate", "head_tail", "error"]
MODES: tuple[Mode, ...] = get_args(Mode)

SPECIAL_TOKENS = 4
"""Maximum number of special tokens around a pair of query and document in the models in use."""
_ELLIPSIS = " … "
_ELLIPSIS_TOKENS = 3


def with_truncation(scorer: Scorer, stack: Stack, mode: Mode = "truncate") -> Scorer:
    """Return `scorer` inside truncation, or `scorer` itself if it has no limit."""
    limits = scorer.capabilities
    limited = limits.max_tokens is not None or limits.max_document_tokens is not None
    return Truncate(scorer, mode) if limited or stack.backend.learns_limits else scorer


class Truncate(Wrapper):
    """Truncate long documents and mark them as `truncated`, or refuse them.

    - `truncate`: the backend cuts off the end, at a token of its own tokenizer. For a backend that refuses long
      documents, the end is cut off here.
    - `head_tail`: the middle is removed, so that a beginning and an end remain.
    - `error`: a long document raises an `InputError` that names it.

    Lengths are exact if the backend has its tokenizer in this process. Otherwise they are estimated as a range, and a
    document is marked as `truncated` only if the lower estimate is above the limit.
    """

    def __init__(self, inner: Scorer, mode: Mode = "truncate") -> None:
        """Wrap `inner`.

        Args:
            inner: The scorer whose limits apply.
            mode: `truncate`, `head_tail` or `error`.
        """
        super().__init__(inner)
        self.mode = mode

    async def ascore(self, request: RerankRequest) -> Scores:
        """Score the documents, and mark those that were truncated.

        Raises:
            InputError: In mode `error`, a document is too long.
        """
        if self.capabilities.max_tokens is None and self.capabilities.max_document_tokens is None:
            return await self.inner.ascore(request)
        if self.mode == "truncate" and self.capabilities.cuts:
            scores = await self.inner.ascore(request)
            if scores.truncated is not None or _is_surely_short(request, self.capabilities):
                return scores
            flags = await run_text_work(character_count(request), _cut_by_vendor, request, self.capabilities)
            return replace(scores, truncated=flags) if any(flags) else scores
        shortened = await run_on_text_thread(self._shorten_all, request)
        changed = tuple(short is not text for short, text in zip(shortened, request.documents, strict=True))
        if not any(changed):
            return await self.inner.ascore(request)
        scores = await self.inner.ascore(replace(request, documents=tuple(shortened), fields=None))
        cut_by_backend = scores.truncated or (False,) * len(shortened)
        return replace(scores, truncated=tuple(a or b for a, b in zip(changed, cut_by_backend, strict=True)))

    def _shorten_all(self, request: RerankRequest) -> list[str]:
        limit = document_limit(self.capabilities, count_tokens(self, request.query))
        return [self._shorten(text, limit, request.position(index)) for index, text in enumerate(request.documents)]

    def _shorten(self, text: str, limit: int, index: int) -> str:
        """Return a text of at most `limit` tokens; `index` is the document's position in the caller's list."""
        if max_token_count(text) <= limit:
            return text
        offsets = self.tokens(text)
        length = len(offsets) if offsets is not None else estimate_tokens(text)[self.mode != "error"]
        if length <= limit:
            return text
        if self.mode == "error":
            raise InputError(
                f"Document {index} has {'about ' if offsets is None else ''}{length} tokens and {self.label} reads "
                f"{max(limit, 0)} beside this query. Split it, or set `long_documents` to 'truncate' or 'head_tail'."
            )
        if self.mode == "truncate":
            return _head(text, offsets, max(limit, 1), length)
        return _head_and_tail(text, offsets, max(limit - _ELLIPSIS_TOKENS, 2), length)


def _is_surely_short(request: RerankRequest, capabilities: Capabilities) -> bool:
    """Return whether no document is truncated, by the numbers of characters alone. Reads no text.

    `_cut_by_vendor` would find nothing: a token has at least one byte, a character at most four, and the lower estimate
    of the query counts at most one token for each character.
    """
    query, query_limit = len(request.query), capabilities.max_query_tokens
    longest = max(map(len, request.documents))
    return (query_limit is None or query <= query_limit) and 4 * longest + 2 <= document_limit(
        capabilities, query - SPECIAL_TOKENS
    )


def _cut_by_vendor(request: RerankRequest, capabilities: Capabilities) -> tuple[bool, ...]:
    """Return for each document whether it is longer than the vendor's limit by the lower estimate."""
    query, query_limit = estimate_tokens(request.query)[0], capabilities.max_query_tokens
    if query_limit is not None and query > query_limit:
        # The vendor truncates the query, so no document was compared with the whole query.
        return (True,) * len(request.documents)
    limit = document_limit(capabilities, query - SPECIAL_TOKENS)
    return tuple(
        max_token_count(text) > limit and estimate_tokens(text, max(limit, 0))[0] > limit for text in request.documents
    )


def document_limit(capabilities: Capabilities, query_tokens: int) -> int:
    """Return the maximum number of tokens of a document beside a query, without the model's special tokens."""
    pair_limit, own_limit = capabilities.max_tokens, capabilities.max_document_tokens
    beside_query = pair_limit - query_tokens - SPECIAL_TOKENS if pair_limit is not None else None
    return min(each for each in (beside_query, own_limit) if each is not None)


def count_tokens(scorer: Scorer, text: str) -> int:
    """Return the number of tokens of a text: exact if the scorer has its tokenizer, else the upper estimate."""
    exact = scorer.tokens(text)
    return len(exact) if exact is not None else estimate_tokens(text)[1]


def _head(text: str, offsets: Sequence[tuple[int, int]] | None, limit: int, length: int) -> str:
    """Return the first `limit` tokens; without `offsets`, a beginning whose upper estimate is within the limit.

    Args:
        text: The text.
        offsets: (start, end) characters of its tokens; `None` if they are estimated.
        limit: Maximum number of tokens.
        length: Number of tokens of the text, exact or estimated.
    """
    if offsets is not None:
        return text[: offsets[limit - 1][1]]
    size = int(len(text) * limit / length)
    # The beginning may have more tokens per character than the whole text. Each round removes the excess by the
    # beginning's own estimate.
    while size > 1 and (tokens := estimate_tokens(text[:size])[1]) > limit:
        size = min(size - 1, int(0.98 * size * limit / tokens))
    return text[: max(size, 1)]


def _head_and_tail(text: str, offsets: Sequence[tuple[int, int]] | None, limit: int, length: int) -> str:
    """Return the first two thirds of `limit` tokens and the last third, joined by an ellipsis; see `_head`."""
    head = limit - limit // 3
    if offsets is None:
        # The same share of the text's characters as of its estimated tokens.
        characters_left = int(len(text) * limit / length)
        start, end = characters_left - characters_left // 3, characters_left // 3
        return text[:start] + _ELLIPSIS + text[len(text) - end :]
    return text[: offsets[head - 1][1]] + _ELLIPSIS + text[offsets[len(offsets) - (limit - head)][0] :]
