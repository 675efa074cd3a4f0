"""What a server bears: how long a body may be, how deep, how slow, and how many calls are inside at once."""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, fields

from ..core.errors import ConfigError, InputError

__all__ = ["Door", "Limits", "Refusal", "Scan", "read_body"]


class Refusal(InputError):
    """A request that the server does not take; `status` is HTTP's word for why."""

    def __init__(self, status: int, message: str, headers: Mapping[str, str] | None = None) -> None:
        """Say what to do next in `message`."""
        super().__init__(message)
        self.status = status
        self.headers = dict(headers or {})


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """What one server process takes."""

    max_documents: int = 1_000
    """In one request: what Cohere advises (docs.cohere.com/docs/reranking-best-practices, read in November 2026)."""
    max_body_mb: float = 8.0
    """Of one request, in millions of bytes."""
    max_depth: int = 16
    """Of arrays and objects inside each other."""
    max_queue: int = 128
    """Calls inside at once, being read, waiting or worked on; the next one is asked to come back."""
    body_timeout: float = 10.0
    """Seconds for a request to arrive, its headers and then its body."""

    def __post_init__(self) -> None:
        """Refuse what can never be met."""
        for each in fields(self):
            value = getattr(self, each.name)
            if isinstance(value, bool) or not isinstance(value, int | float) or not value > 0:
                raise ConfigError(f"{each.name} has to be a number above 0, and {value!r} is not.")


_STRING = re.compile(rb'(?:[^"\\]++|\\.)*+', re.DOTALL)
_MARK = re.compile(rb'["\[\]{},]')


class Scan:
    """Looks at JSON as it arrives, so that nobody holds in memory what is refused anyway.

    It counts; whether it is JSON at all is the parser's affair. Strings pass at the speed of a regular expression, and
    the number of marks between them is bounded, so that no body keeps the event loop for long.
    """

    def __init__(self, limits: Limits) -> None:
        """Begin outside of everything."""
        self._limits = limits
        self._most_marks = 64 * limits.max_documents + 10_000
        self._depth = self._marks = self._items = 0
        self._in_string = self._escaped = False

    def feed(self, chunk: bytes) -> None:
        """Look at the next bytes.

        Raises:
            Refusal: Nested too deep, or a list inside the body has more members than documents are taken.
        """
        at = int(self._escaped and bool(chunk))
        self._escaped = self._escaped and not chunk
        while at < len(chunk):
            if self._in_string:
                at = self._rest_of_string(chunk, at)
                continue
            found = _MARK.search(chunk, at)
            if found is None:
                return
            at = found.end()
            self._mark(found[0])

    def _rest_of_string(self, chunk: bytes, at: int) -> int:
        found = _STRING.match(chunk, at)
        end = found.end() if found else at
        if end == len(chunk):
            return end
        if chunk[end] == ord('"'):
            self._in_string = False
        else:  # a backslash that what it escapes has not followed yet
            self._escaped = True
        return end + 1

    def _mark(self, mark: bytes) -> None:
        self._marks += 1
        if self._marks > self._most_marks:
            raise Refusal(413, "The body has too many fields. Send documents as texts, or fewer of them.")
        if mark == b'"':
            self._in_string = True
        elif mark in b"[{":
            self._depth += 1
            if self._depth > self._limits.max_depth:
                raise Refusal(
                    400, f"The body is nested deeper than {self._limits.max_depth} levels. Send documents as texts."
                )
            if self._depth == 2:
                self._items = 1
        elif mark in b"]}":
            self._depth -= 1
        elif self._depth == 2:  # a comma in a list that is a field of the body
            self._items += 1
            if self._items > self._limits.max_documents:
                raise Refusal(
                    413, f"This server takes at most {self._limits.max_documents:,} documents in a request. Send fewer."
                )


async def read_body(chunks: AsyncIterator[bytes], limits: Limits, declared: int | None = None) -> bytes:
    """Return the whole body, or refuse it as soon as that is certain.

    Args:
        chunks: The body as it arrives.
        limits: What is taken.
        declared: The length that the headers promise, where they do.

    Raises:
        Refusal: Too long, too deep, too many members, or too slow.
    """
    most = int(limits.max_body_mb * 1_000_000)
    if declared is not None and declared > _DRAINED * most:
        raise _too_long(limits)
    body: list[bytes] = []
    size, scan = 0, Scan(limits)
    refusal: Refusal | None = None
    try:
        async with asyncio.timeout(limits.body_timeout):
            async for chunk in chunks:
                size += len(chunk)
                if size > _DRAINED * most:
                    raise _too_long(limits)
                # What is refused is still read for a while, and thrown away: most clients look for the answer only
                # after they have sent everything.
                if refusal is not None:
                    continue
                try:
                    if size > most:
                        raise _too_long(limits)
                    scan.feed(chunk)
                except Refusal as told:
                    refusal = told
                    body.clear()
                    continue
                body.append(chunk)
    except TimeoutError:
        raise refusal or Refusal(
            408,
            f"The body did not arrive within {limits.body_timeout:g} s. Send it faster, or in smaller parts.",
            {"connection": "close"},
        ) from None
    if refusal is not None:
        raise refusal
    return b"".join(body)


_DRAINED = 4
"""How many times `max_body_mb` of a refused body is read."""


def _too_long(limits: Limits) -> Refusal:
    return Refusal(
        413,
        f"The body is longer than {limits.max_body_mb:g} MB. Send fewer or shorter documents.",
        {"connection": "close"},
    )


class Door:
    """Counts who is inside; asks the next one to come back when it is full."""

    def __init__(self, places: int) -> None:
        """Let in at most `places` calls at once."""
        self.places = places
        self.inside = 0

    @contextmanager
    def entered(self, wait: float) -> Iterator[None]:
        """Hold a place.

        Args:
            wait: Seconds after which a place is likely, told to whom is sent away.

        Raises:
            Refusal: No place is free.
        """
        if self.inside >= self.places:
            raise Refusal(
                429,
                f"{self.inside} calls are inside, as many as this server takes at once. Come back later.",
                {"retry-after": str(max(1, round(wait)))},
            )
        self.inside += 1
        try:
            yield
        finally:
            self.inside -= 1
