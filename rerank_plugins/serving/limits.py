"""What a server bears: how long a body may be, how deep, how slow, and how many calls are inside at once."""

from __future__ import annotations

import asyncio
import contextlib
import re
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from dataclasses import dataclass, fields

from ..core.errors import ConfigError, InputError, TransientError
from ..core.loop import Workers
from ..core.memory import give_back_memory

__all__ = ["Door", "InFlight", "Limits", "Refusal", "Scan", "Share", "read_body"]


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
    request_timeout: float = 300.0
    """Seconds for a whole request: its body, its reading, its reranking. The answer has as long again to be read.

    The cohere SDK stops waiting after the same time (`timeout` of `cohere.Client`, 7.3.1).
    """
    max_in_flight_mb: float = 64.0
    """Of bodies and answers that the process holds at once, in millions of bytes; at least one body always fits.

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
"""Of any limit: what lies above is a mistake, and infinity fits into no integer."""


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


async def read_body(
    chunks: AsyncIterator[bytes], limits: Limits, declared: int | None = None, share: Share | None = None
) -> bytes:
    """Return the whole body, or refuse it as soon as that is certain.

    Args:
        chunks: The body as it arrives.
        limits: What is taken.
        declared: The length that the headers promise, where they do.
        share: Where the bytes that are held are counted.

    Raises:
        Refusal: Too long, too deep, too many members, too slow, or more than the process holds at once.
    """
    limit = limits.max_body
    if declared is not None and declared > _DRAINED * limit:
        raise _too_long(limits)
    body: list[bytes] = []
    size, scan = 0, Scan(limits)
    refusal: Refusal | None = None
    try:
        async with asyncio.timeout(limits.body_timeout):
            async for chunk in chunks:
                size += len(chunk)
                if size > _DRAINED * limit:
                    raise _too_long(limits)
                # What is refused is still read for a while, and thrown away: most clients look for the answer only
                # after they have sent everything.
                if refusal is not None:
                    continue
                try:
                    if size > limit:
                        raise _too_long(limits)
                    if share is not None:
                        share.grow(len(chunk))
                    await _scan(scan, chunk)
                except Refusal as told:
                    refusal = told
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


async def _scan(scan: Scan, chunk: bytes) -> None:
    """Feed a chunk in slices: one of nothing but marks takes a tenth of a second, and other clients do not wait for it."""
    scan.feed(chunk[:_SCANNED])
    for start in range(_SCANNED, len(chunk), _SCANNED):
        await asyncio.sleep(0)
        scan.feed(chunk[start : start + _SCANNED])


_SCANNED = 16_384
"""Bytes that are scanned without a pause."""
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

    @contextlib.contextmanager
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


class InFlight:
    """Counts the bytes of all bodies and answers that are held. Used on one event loop only, so it needs no lock."""

    def __init__(self, limits: Limits) -> None:
        """Allow `limits.max_in_flight` bytes."""
        self.limit = limits.max_in_flight
        self.limit_of_large = self.limit * 3 // 4
        """What is left to requests that hold more than `small`: a few of them must not shut all others out."""
        self.small = self.limit // 64
        self.held = 0
        self.grace = limits.body_timeout
        self.patience = limits.request_timeout
        self.readers: dict[Share, float] = {}
        """The shares whose answer is being read, in the order in which they began, with that time."""
        self._passed = 0
        self._workers = Workers(1, "rerank-plugins-memory")

    def share(self) -> Share:
        """Return the share of a new request, which holds nothing yet."""
        return Share(self)

    def drop_slow_readers(self, now: float) -> None:
        """Drop the answers that are being read for longer than `grace`: new requests need their memory."""
        for share, began in list(self.readers.items()):
            if now - began > self.grace:
                share.drop()

    def passed(self, size: int) -> None:
        """Count the bytes of a request that is over; after many of them, free memory goes back to the system."""
        before, self._passed = self._passed, self._passed + size
        if before < _MANY <= self._passed:  # a little later, so that it is done once for all that end now
            asyncio.get_running_loop().call_later(1.0, self._give_back)

    def _give_back(self) -> None:
        self._passed = 0
        with contextlib.suppress(TransientError):  # no thread can be started: another time
            self._workers.submit(give_back_memory)


_MANY = 16_000_000


class Share:
    """The bytes that one request holds: first its body, then its answer."""

    def __init__(self, all_of_them: InFlight) -> None:
        """Hold nothing yet."""
        self._all = all_of_them
        self._size = self._largest = 0
        self._drop: Callable[[], object] | None = None
        self._clock: asyncio.TimerHandle | None = None

    def grow(self, size: int) -> None:
        """Hold `size` bytes more.

        Raises:
            Refusal: All requests together would hold more than is allowed.
        """
        all_of_them = self._all
        limit = all_of_them.limit if self._size + size <= all_of_them.small else all_of_them.limit_of_large
        if all_of_them.held + size > limit:
            all_of_them.drop_slow_readers(asyncio.get_running_loop().time())
            raise Refusal(
                429,
                "The requests inside hold as many bytes as this server takes at once. Come back later.",
                {"retry-after": "1", "connection": "close"},
            )
        self.resize(self._size + size)

    def resize(self, size: int) -> None:
        """Hold `size` bytes, whatever others hold: an answer that is ready is sent."""
        self._all.held += size - self._size
        self._size, self._largest = size, max(size, self._largest)

    def sending(self, drop: Callable[[], object]) -> None:
        """Begin to send the answer; `drop` ends that, whatever the client has not read yet."""
        loop = asyncio.get_running_loop()
        self._drop = drop
        self._all.readers[self] = loop.time()
        self._clock = loop.call_later(self._all.patience, self.drop)

    def drop(self) -> None:
        """End the sending of the answer."""
        drop, self._drop = self._drop, None
        if drop is not None:
            drop()

    def close(self) -> None:
        """Hold nothing any more."""
        self.resize(0)
        self._all.passed(self._largest)
        self._largest = 0
        self._drop = None
        self._all.readers.pop(self, None)
        if self._clock is not None:
            self._clock.cancel()
