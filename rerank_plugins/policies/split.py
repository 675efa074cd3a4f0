"""Splitting: sends a call above the backend's limits in concurrent parts, and merges their scores."""

from __future__ import annotations

import json
from collections.abc import Iterator
from functools import reduce
from operator import add

from ..core._runtime.gather import gather
from ..core._runtime.text_work import character_count, run_text_work, slices
from ..core.errors import InputError, Rejected
from ..core.scorer import Scorer, Wrapper
from ..core.tokens import estimate_tokens, max_token_count
from ..core.types import Capabilities, RerankRequest, Scores

__all__ = ["Split", "split_documents"]

_ENVELOPE_BYTES = 512
"""Bytes of a request body beside its texts: field names, the model's name, options."""
_MAX_ESCAPED_BYTES = 6
"""Maximum number of bytes in JSON for one byte of text: NUL is \\u0000. Characters of several bytes are not escaped."""
_MAX_UTF8_BYTES = 4
"""Maximum number of bytes of one character in UTF-8, and so of its tokens."""


def split_documents(request: RerankRequest, capabilities: Capabilities) -> list[range]:
    """Return consecutive ranges of documents, each within the backend's limits by a conservative estimate.

    Parts are filled up to the limit, not balanced, because vendors bill in units of documents.
    """
    count = len(request.documents)
    tokens, size = _limits_of_a_part(request, capabilities)
    if tokens is None and size is None:
        step = capabilities.max_documents or count
        if count <= step:
            return [range(count)]
        return [range(first, min(first + step, count)) for first in range(0, count, step)]
    parts: list[range] = []
    first, used_tokens, used_bytes = 0, 0, 0
    for position, (document_tokens, document_bytes) in enumerate(list(_sizes(request, capabilities))):
        full = (
            (capabilities.max_documents is not None and position - first >= capabilities.max_documents)
            or (tokens is not None and used_tokens + document_tokens > tokens)
            or (size is not None and used_bytes + document_bytes > size)
        )
        if full and position > first:
            parts.append(range(first, position))
            first, used_tokens, used_bytes = position, 0, 0
        used_tokens += document_tokens
        used_bytes += document_bytes
    parts.append(range(first, count))
    return parts


def _surely_fits(request: RerankRequest, capabilities: Capabilities) -> bool:
    """Return whether one part fits the limits of tokens and bytes by the number of characters alone. Reads no text."""
    tokens, size = capabilities.max_total_tokens, capabilities.max_bytes
    if tokens is None and size is None:
        return True
    count, text_length = len(request.documents), character_count(request)
    repeated = (len(request.query) + len(request.instruction or "")) * (count - 1)
    special_tokens = 2 * 3 * count  # as in `bound`: two per text
    return (tokens is None or _MAX_UTF8_BYTES * (text_length + repeated) + special_tokens <= tokens) and (
        size is None or _MAX_ESCAPED_BYTES * text_length + 3 * (count + 2) + _ENVELOPE_BYTES <= size
    )


def _limits_of_a_part(request: RerankRequest, capabilities: Capabilities) -> tuple[int | None, int | None]:
    """Return the maximum numbers of tokens and bytes of the documents in one part, `None` if all documents fit."""
    if _surely_fits(request, capabilities):
        return None, None
    tokens, size = capabilities.max_total_tokens, capabilities.max_bytes
    # Some vendors count the instruction as part of the query.
    query = max_token_count(request.query) + max_token_count(request.instruction or "")
    documents = sum(map(max_token_count, request.documents))
    if tokens is not None and query * (1 if capabilities.joint else len(request.documents)) + documents <= tokens:
        tokens = None
    elif tokens is not None and capabilities.joint:  # one prompt holds the query once, and all documents of the part
        tokens -= sum(estimate_tokens(text)[1] for text in (request.query, request.instruction or ""))
    if size is not None:
        size -= _bytes_in_json(request.query) + _bytes_in_json(request.instruction or "") + _ENVELOPE_BYTES
        if documents * _MAX_ESCAPED_BYTES <= size:
            size = None
    return tokens, size


def _sizes(request: RerankRequest, capabilities: Capabilities) -> Iterator[tuple[int, int]]:
    """Yield the tokens of each document, with those of the query, and its bytes in the request body."""
    query_limit = capabilities.max_query_tokens
    query = estimate_tokens(request.query, query_limit)[1] + estimate_tokens(request.instruction or "", query_limit)[1]
    if query_limit is not None:
        query = min(query, query_limit)
    if capabilities.joint:
        query = 0
    for document in request.documents:
        # The vendor truncates longer documents, so the estimate stops at the limit.
        least, upper = estimate_tokens(document, capabilities.max_tokens)
        # The upper estimate is often twice the number. Where a part above the limit is only sent again in halves, the
        # mean saves more requests than it costs.
        tokens = query + ((least + upper) // 2 if capabilities.joint else upper)
        if capabilities.max_tokens is not None:
            tokens = min(tokens, capabilities.max_tokens)
        yield tokens, _bytes_in_json(document) if capabilities.max_bytes is not None else 0


def _bytes_in_json(text: str) -> int:
    """Return the number of bytes of a text in a JSON body, where quotes and control characters are escaped."""
    written = (json.dumps(each, ensure_ascii=False) for each in slices(text))
    return sum(len(each.encode("utf-8", "surrogatepass")) - 2 for each in written) + 3


class Split(Wrapper):
    """Keep every call within the backend's limits of documents, tokens and bytes."""

    def __init__(self, inner: Scorer, max_in_flight: int = 8) -> None:
        """Wrap `inner`; send at most `max_in_flight` parts of one call concurrently."""
        super().__init__(inner)
        self.max_in_flight = max_in_flight

    async def ascore(self, request: RerankRequest) -> Scores:
        """Score in one call, or in concurrent parts.

        Raises:
            InputError: There are more documents than a listwise backend takes at once. Its scores are only comparable
                within one call, so its calls are never split.
        """
        limits = self.capabilities
        size = 0 if _surely_fits(request, limits) else character_count(request)
        ranges = await run_text_work(size, split_documents, request, limits)
        if len(ranges) == 1:
            return await self._score(request)
        if self.capabilities.listwise:
            raise InputError(
                f"{self.label} compares all documents at once and takes at most {len(ranges[0])} of these "
                f"{len(request.documents)}: retrieve fewer, or name a pointwise model."
            )
        parts = (self._score(request.select(part)) for part in ranges)
        return _merge(await gather(parts, min(self.max_in_flight, len(ranges))), [len(part) for part in ranges])

    async def _score(self, request: RerankRequest) -> Scores:
        """Score one part. If the vendor counts more tokens than the estimate, score its halves one after the other."""
        try:
            return await self.inner.ascore(request)
        except Rejected as error:
            count = len(request.documents)
            if not error.too_large or count == 1 or self.capabilities.listwise:
                raise
        halves = range(count // 2), range(count // 2, count)
        return _merge([await self._score(request.select(half)) for half in halves], [len(half) for half in halves])


def _merge(answers: list[Scores], sizes: list[int]) -> Scores:
    """Concatenate the scores of consecutive parts with `sizes` documents."""
    truncated = spans = None
    if any(answer.truncated for answer in answers):
        truncated = tuple(
            flag for answer, size in zip(answers, sizes, strict=True) for flag in answer.truncated or (False,) * size
        )
    if any(answer.spans for answer in answers):
        spans = tuple(
            each for answer, size in zip(answers, sizes, strict=True) for each in answer.spans or ((),) * size
        )
    reasons = None
    if any(answer.reasons for answer in answers):
        reasons = tuple(
            reason for answer, size in zip(answers, sizes, strict=True) for reason in answer.reasons or (None,) * size
        )
    degraded = next((answer for answer in answers if answer.degraded), None)
    return Scores(
        values=tuple(value for answer in answers for value in answer.values),
        model=answers[0].model,
        capabilities=answers[0].capabilities,
        usage=reduce(add, (answer.usage for answer in answers)),
        truncated=truncated,
        spans=spans,
        reasons=reasons,
        degraded=degraded is not None,
        reason=degraded.reason if degraded else next((answer.reason for answer in answers if answer.reason), None),
    )
