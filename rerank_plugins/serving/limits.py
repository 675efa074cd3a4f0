"""Limits of the server: length, depth and arrival time of a body, calls at once, and bytes in memory."""

from __future__ import annotations

import asyncio
import contextlib
import re
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from dataclasses import dataclass, fields

from ..core._runtime.background_loop import Workers
from ..core._runtime.memory import give_back_memory
from ..core.errors import ConfigError, InputError, TransientError

__all__ = ["BudgetShare", "ByteBudget", "ConcurrencyLimit", "JSONScanner", "Limits", "Refusal", "read_body"]


class Refusal(InputError):
    """A request that the server refuses; `status` is the HTTP status of the answer."""

    def __init__(self, status: int, message: str, headers: Mapping[str, str] | None = None) -> None:
        """Create the error; `message` says what to do next."""
        super().__init__(message)
        self.status = status
        self.headers = dict(headers or {})


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """Limits of one server process."""

    max_documents: int = 1_000
    """In one request: what Cohere advises (docs.cohere.com/docs/reranking-best-practices, read in November 2026)."""
    max_body_mb: float = 8.0
    """Of one request, in millions of bytes."""
    max_depth: int = 16
    """Levels of nested arrays and objects."""
    max_queue: int = 128
    """Calls at once that are being read, wait or are worked on; the next one gets status 429."""
    body_timeout: float = 10.0
    """Seconds for a request to arrive, its headers and then its body."""
    request_timeout: float = 300.0
    """Seconds for a whole request: receiving, parsing and reranking. The client has as long again to read the answer.

    The cohere SDK stops waiting after the same time (`timeout` of `cohere.Client`, 7.3.1).
    """
    max_in_flight_mb: float = 64.0
    """Bodies and answers that the process holds at once, in millions of bytes; at least one body always fits.

    A body's texts take several times its bytes while they are reranked, so this is not the memory of the process.
    """

    def __post_init__(self) -> None:
        """Check the range and the type of each limit.

        Raises:
            ConfigError: A limit is no number, is out of range, or is not an integer where only integers make sense.
        """
        for each in fields(self):
            value = getattr(self, each.name)
            integer = each.type == "int"
            if isinstance(value, bool) or not isinstance(value, int if integer else int | float):
                raise ConfigError(f"{each.name} must be {'an integer' if integer else 'a number'}, got {value!r}.")
            if not 0 < value <= _LARGEST:
                raise ConfigError(f"{each.name} must be above 0 and at most {_LARGEST:,}, got {value}.")

    @property
    def max_body(self) -> int:
        """Bytes of one body."""
        return int(self.max_body_mb * 1_000_000)

    @property
    def max_in_flight(self) -> int:
        """Bytes of all bodies and answers that are held at once."""
        return max(int(self.max_in_flight_mb * 1_000_000), self.max_body * 2)


_LARGEST = 1_000_000_000
"""The highest value of any limit: a larger one is a mistake, and infinity fits into no integer."""


_STRING = re.compile(rb'(?:[^"\\]++|\\.)*+', re.DOTALL)
_MARK = re.compile(rb'["\[\]{},]')


class JSONScanner:
    """Count the depth and the list items of JSON while it arrives, so that a refused body takes no memory.

    It does not check that the text is JSON: the parser does. Strings are skipped by a regular expression, and the
    number of marks between them is limited, so that no body holds the event loop for long.
    """

    def __init__(self, limits: Limits) -> None:
        """Start before the first byte."""
        self._limits = limits
        self._max_marks = 64 * limits.max_documents + 10_000
        self._depth = self._marks = self._items = 0
        self._in_string = self._escaped = False

    def feed(self, chunk: bytes) -> None:
        """Scan the next bytes.

        Raises:
            Refusal: The nesting is too deep, or a list of the body has more items than `max_documents`.
        """
        at = int(self._escaped and bool(chunk))
        self._escaped = self._escaped and not chunk
        while at < len(chunk):
            if self._in_string:
                at = self._rest_of_string(chunk, at)
                continue
            mark = _MARK.search(chunk, at)
            if mark is None:
                return
            at = mark.end()
            self._count(mark[0])

    def _rest_of_string(self, chunk: bytes, at: int) -> int:
        match = _STRING.match(chunk, at)
        end = match.end() if match else at
        if end == len(chunk):
            return end
        if chunk[end] == ord('"'):
            self._in_string = False
        else:  # a backslash; the byte that it escapes is in the next chunk
            self._escaped = True
        return end + 1

    def _count(self, mark: bytes) -> None:
        self._marks += 1
        if self._marks > self._max_marks:
            raise Refusal(413, "The body has too many fields. Send documents as strings, or fewer of them.")
        if mark == b'"':
            self._in_string = True
        elif mark in b"[{":
            self._depth += 1
            if self._depth > self._limits.max_depth:
                raise Refusal(
                    400, f"The body is nested deeper than {self._limits.max_depth} levels. Send documents as strings."
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


async def read_body(
    chunks: AsyncIterator[bytes], limits: Limits, declared: int | None = None, share: BudgetShare | None = None
) -> bytes:
    """Return the whole body, or refuse it as early as possible.

    Args:
        chunks: The body as it arrives.
        limits: The limits of the server.
        declared: The value of Content-Length, if there is one.
        share: Counts the bytes that are held.

    Raises:
        Refusal: The body is too long, too deep or too slow, has too many items, or the process holds too many bytes.
    """
    limit = limits.max_body
    if declared is not None and declared > _DRAINED * limit:
        raise _too_long(limits)
    body: list[bytes] = []
    size, scan = 0, JSONScanner(limits)
    refusal: Refusal | None = None
    try:
        async with asyncio.timeout(limits.body_timeout):
            async for chunk in chunks:
                size += len(chunk)
                if size > _DRAINED * limit:
                    raise _too_long(limits)
                # A refused body is still read for a while and thrown away: most clients read the answer only after they
                # have sent everything.
                if refusal is not None:
                    continue
                try:
                    if size > limit:
                        raise _too_long(limits)
                    if share is not None:
                        share.grow(len(chunk))
                    await _scan(scan, chunk)
                except Refusal as error:
                    refusal = error
                    body.clear()
                    if share is not None:
                        share.close()
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


async def _scan(scan: JSONScanner, chunk: bytes) -> None:
    """Scan a chunk in slices, with a pause for other clients: a chunk of marks alone takes a tenth of a second."""
    scan.feed(chunk[:_SCANNED])
    for start in range(_SCANNED, len(chunk), _SCANNED):
        await asyncio.sleep(0)
        scan.feed(chunk[start : start + _SCANNED])


_SCANNED = 16_384
"""Bytes scanned without a pause."""
_DRAINED = 4
"""A refused body is read up to this many times `max_body_mb`."""


def _too_long(limits: Limits) -> Refusal:
    return Refusal(
        413,
        f"The body is longer than {limits.max_body_mb:g} MB. Send fewer or shorter documents.",
        {"connection": "close"},
    )


class ConcurrencyLimit:
    """Limit the calls at once; a call above the limit gets status 429. One event loop uses it, so it needs no lock."""

    def __init__(self, places: int) -> None:
        """Allow at most `places` calls at once."""
        self.places = places
        self.inside = 0

    @contextlib.contextmanager
    def slot(self, wait: float) -> Iterator[None]:
        """Hold one slot.

        Args:
            wait: Seconds for Retry-After where no slot is free.

        Raises:
            Refusal: No slot is free.
        """
        if self.inside >= self.places:
            raise Refusal(
                429,
                f"This server works on {self.inside} calls, the most that it takes at once. Try again later.",
                {"retry-after": str(max(1, round(wait)))},
            )
        self.inside += 1
        try:
            yield
        finally:
            self.inside -= 1


class ByteBudget:
    """Limit the bytes of all bodies and answers in memory. One event loop uses it, so it needs no lock."""

    def __init__(self, limits: Limits) -> None:
        """Allow `limits.max_in_flight` bytes."""
        self.limit = limits.max_in_flight
        self.limit_of_large = self.limit * 3 // 4
        """The limit for requests that hold more than `small`: a few large ones must not block all others."""
        self.small = self.limit // 64
        self.held = 0
        self.grace = limits.body_timeout
        self.timeout = limits.request_timeout
        self.readers: dict[BudgetShare, float] = {}
        """The shares whose answer is being sent, with the time of the start, oldest first."""
        self._finished = 0
        self._workers = Workers(1, "rerank-plugins-memory")

    def share(self) -> BudgetShare:
        """Return the share of a new request; it holds no bytes yet."""
        return BudgetShare(self)

    def drop_slow_readers(self, now: float) -> None:
        """Drop the answers that have been sent for longer than `grace` seconds: new requests need their memory."""
        for share, began in list(self.readers.items()):
            if now - began > self.grace:
                share.drop()

    def record_finished(self, size: int) -> None:
        """Count the bytes of a finished request; after many of them, return free memory to the system."""
        before, self._finished = self._finished, self._finished + size
        if before < _MANY <= self._finished:  # a second later, so that one run covers all requests that end now
            asyncio.get_running_loop().call_later(1.0, self._give_back)

    def _give_back(self) -> None:
        self._finished = 0
        with contextlib.suppress(TransientError):  # no thread can be started now; a later request tries again
            self._workers.submit(give_back_memory)


_MANY = 16_000_000


class BudgetShare:
    """The bytes of one request: first of its body, then of its answer."""

    def __init__(self, budget: ByteBudget) -> None:
        """Start with no bytes."""
        self._budget = budget
        self._size = self._largest = 0
        self._drop: Callable[[], object] | None = None
        self._clock: asyncio.TimerHandle | None = None

    def grow(self, size: int) -> None:
        """Add `size` bytes.

        Raises:
            Refusal: All requests together would hold more than the limit.
        """
        budget = self._budget
        limit = budget.limit if self._size + size <= budget.small else budget.limit_of_large
        if budget.held + size > limit:
            budget.drop_slow_readers(asyncio.get_running_loop().time())
            raise Refusal(
                429,
                "The running requests hold the most bytes that this server takes at once. Try again later.",
                {"retry-after": "1", "connection": "close"},
            )
        self.resize(self._size + size)

    def resize(self, size: int) -> None:
        """Set the bytes to `size`, whatever other requests hold: a finished answer is always sent."""
        self._budget.held += size - self._size
        self._size, self._largest = size, max(size, self._largest)

    def start_sending(self, drop: Callable[[], object]) -> None:
        """Record that the answer is being sent; `drop` stops that, whatever the client has not read yet."""
        loop = asyncio.get_running_loop()
        self._drop = drop
        self._budget.readers[self] = loop.time()
        self._clock = loop.call_later(self._budget.timeout, self.drop)

    def drop(self) -> None:
        """Stop sending the answer."""
        drop, self._drop = self._drop, None
        if drop is not None:
            drop()

    def close(self) -> None:
        """Return all bytes to the budget."""
        self.resize(0)
        self._budget.record_finished(self._largest)
        self._largest = 0
        self._drop = None
        self._budget.readers.pop(self, None)
        if self._clock is not None:
            self._clock.cancel()
