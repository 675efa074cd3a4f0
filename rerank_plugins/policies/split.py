"""Send what is too much for one call in parts, at the same time, and put the scores together again."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator
from functools import reduce
from operator import add

from ..core.errors import InputError
from ..core.scorer import Scorer, Wrapper
from ..core.text_work import characters, run_text_work, slices
from ..core.together import together
from ..core.tokens import bound, estimate
from ..core.types import Capabilities, RerankRequest, Scores

__all__ = ["Split", "parts"]

_ENVELOPE = 512
"""Bytes of a body beside its texts: names of fields, the model's name, options."""
_ESCAPED = 6
"""Bytes of one byte of text in JSON at the worst: NUL is \\u0000. A character that is wider in UTF-8 is not escaped."""
_WIDEST = 4
"""Bytes of one character in UTF-8 at the worst, and so tokens."""


def parts(request: RerankRequest, capabilities: Capabilities) -> list[range]:
    """Return consecutive ranges of documents, each within the backend's limits by a conservative estimate.

    Parts are filled to the limit rather than evened out: vendors bill in units of documents.
    """
    count = len(request.documents)
    whole = [range(count)]
    tokens, size = _budget(request, capabilities)
    if tokens is None and size is None:
        step = capabilities.max_documents or count
        return whole if count <= step else [range(first, min(first + step, count)) for first in range(0, count, step)]
    costs = list(_costs(request, capabilities))
    found: list[range] = []
    first, used_tokens, used_bytes = 0, 0, 0
    for position, (in_tokens, in_bytes) in enumerate(costs):
        full = (
            (capabilities.max_documents is not None and position - first >= capabilities.max_documents)
            or (tokens is not None and used_tokens + in_tokens > tokens)
            or (size is not None and used_bytes + in_bytes > size)
        )
        if full and position > first:
            found.append(range(first, position))
            first, used_tokens, used_bytes = position, 0, 0
        used_tokens += in_tokens
        used_bytes += in_bytes
    found.append(range(first, count))
    return found


def _surely_within(request: RerankRequest, capabilities: Capabilities) -> bool:
    """Return whether all fits into one part, by tokens and bytes, whatever the characters are; reads no text."""
    tokens, size = capabilities.max_total_tokens, capabilities.max_bytes
    if tokens is None and size is None:
        return True
    count, everything = len(request.documents), characters(request)
    repeated = (len(request.query) + len(request.instruction or "")) * (count - 1)
    marks = 2 * 3 * count  # of `bound`: two a text
    return (tokens is None or _WIDEST * (everything + repeated) + marks <= tokens) and (
        size is None or _ESCAPED * everything + 3 * (count + 2) + _ENVELOPE <= size
    )


def _budget(request: RerankRequest, capabilities: Capabilities) -> tuple[int | None, int | None]:
    """Return the tokens and the bytes that one part may hold, `None` where they cannot matter."""
    if _surely_within(request, capabilities):
        return None, None
    tokens, size = capabilities.max_total_tokens, capabilities.max_bytes
    query = bound(request.query) + bound(request.instruction or "")  # some vendors read it as part of the query
    everything = sum(map(bound, request.documents))
    if tokens is not None and query * len(request.documents) + everything <= tokens:
        tokens = None
    if size is not None:
        size -= _in_json(request.query) + _in_json(request.instruction or "") + _ENVELOPE
        if everything * _ESCAPED <= size:
            size = None
    return tokens, size


def _costs(request: RerankRequest, capabilities: Capabilities) -> Iterator[tuple[int, int]]:
    """Yield each document's share of a call, in tokens (the query counts once a document) and in bytes."""
    enough = capabilities.max_query_tokens
    query = estimate(request.query, enough)[1] + estimate(request.instruction or "", enough)[1]
    if capabilities.max_query_tokens is not None:
        query = min(query, capabilities.max_query_tokens)
    for document in request.documents:
        # The vendor cuts what is longer, so there is no need to read further.
        in_tokens = query + estimate(document, capabilities.max_tokens)[1]
        if capabilities.max_tokens is not None:
            in_tokens = min(in_tokens, capabilities.max_tokens)
        yield in_tokens, _in_json(document) if capabilities.max_bytes is not None else 0


def _in_json(text: str) -> int:
    """Return the bytes that a text takes in a body: quotes and control characters are longer there."""
    written = (json.dumps(each, ensure_ascii=False) for each in slices(text))
    return sum(len(each.encode("utf-8", "surrogatepass")) - 2 for each in written) + 3


class Split(Wrapper):
    """Keep every call within the backend's limits of documents, tokens and bytes."""

    def __init__(self, inner: Scorer, max_in_flight: int = 8) -> None:
        """Wrap `inner`; send at most `max_in_flight` parts of one call at once."""
        super().__init__(inner)
        self.max_in_flight = max_in_flight

    async def ascore(self, request: RerankRequest) -> Scores:
        """Score in one call, or in parts that are sent together.

        Raises:
            InputError: A listwise backend was given more than it takes at once: its scores only mean something
                within one call, so it is never split.
        """
        limits = self.capabilities
        size = 0 if _surely_within(request, limits) else characters(request)
        ranges = await run_text_work(size, parts, request, limits)
        if len(ranges) == 1:
            return await self.inner.ascore(request)
        if self.capabilities.listwise:
            raise InputError(
                f"{self.label} compares all documents at once and takes at most {len(ranges[0])} of these "
                f"{len(request.documents)}: retrieve fewer, or name a pointwise model."
            )
        places = asyncio.Semaphore(self.max_in_flight)

        async def score(part: range) -> Scores:
            async with places:
                return await self.inner.ascore(request.select(part))

        return merged(await together(score(part) for part in ranges), [len(part) for part in ranges])


def merged(answers: list[Scores], sizes: list[int]) -> Scores:
    """Return the answers of consecutive parts as one."""
    truncated = spans = None
    if any(answer.truncated for answer in answers):
        truncated = tuple(
            flag for answer, size in zip(answers, sizes, strict=True) for flag in answer.truncated or (False,) * size
        )
    if any(answer.spans for answer in answers):
        spans = tuple(
            each for answer, size in zip(answers, sizes, strict=True) for each in answer.spans or ((),) * size
        )
    return Scores(
        values=tuple(value for answer in answers for value in answer.values),
        model=answers[0].model,
        capabilities=answers[0].capabilities,
        usage=reduce(add, (answer.usage for answer in answers)),
        truncated=truncated,
        spans=spans,
    )
