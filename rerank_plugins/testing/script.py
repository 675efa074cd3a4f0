"""What a vendor server can play instead of an ordinary answer: `server.play(Status(429), Hang(), Shuffled())`."""

from __future__ import annotations

import json
import socket
import struct
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .server import Exchange

__all__ = [
    "HTML",
    "JSON",
    "CutBody",
    "CutJSON",
    "Drip",
    "Duplicate",
    "Empty",
    "Gap",
    "Hang",
    "Infinite",
    "NaN",
    "NullScores",
    "Reset",
    "Shuffled",
    "SlowHeaders",
    "Status",
    "Step",
    "Stranger",
    "StringScores",
    "TopN",
]

Pairs = Sequence[tuple[Any, Any]]
"""(index, score) of each document, best first."""


class Step:
    """An ordinary answer; subclasses change its scores, or the way it is sent."""

    def scores(self, pairs: Pairs) -> Pairs:
        """Return the pairs to answer with."""
        return pairs

    def play(self, exchange: Exchange) -> None:
        """Answer the request."""
        exchange.send(200, exchange.answer(self.scores(exchange.pairs())))


# Wrong and unusual scores ---------------------------------------------------------------------------------------------


class Shuffled(Step):
    """Right scores in no order at all."""

    def scores(self, pairs: Pairs) -> Pairs:
        """Interleave the second half, backwards, with the first."""
        back = list(reversed(pairs))
        return [*back[::2], *back[1::2]]


@dataclass(frozen=True)
class TopN(Step):
    """Only the best `n`, as if the vendor cut the answer by a top_n of its own."""

    n: int

    def scores(self, pairs: Pairs) -> Pairs:
        """Cut."""
        return pairs[: self.n]


class Gap(Step):
    """One document in the middle has no score."""

    def scores(self, pairs: Pairs) -> Pairs:
        """Leave it out."""
        middle = len(pairs) // 2
        return [*pairs[:middle], *pairs[middle + 1 :]]


class Duplicate(Step):
    """The best document is there twice, in the place of the worst."""

    def scores(self, pairs: Pairs) -> Pairs:
        """Repeat it."""
        return [*pairs[:-1], pairs[0]] if len(pairs) > 1 else [*pairs, *pairs]


@dataclass(frozen=True)
class Stranger(Step):
    """The worst document has an index that was never sent."""

    index: Any = None
    """`None` is the first one past the end."""

    def scores(self, pairs: Pairs) -> Pairs:
        """Rename it."""
        return [*pairs[:-1], (len(pairs) if self.index is None else self.index, pairs[-1][1])]


class NaN(Step):
    """The worst document's score is not a number."""

    def scores(self, pairs: Pairs) -> Pairs:
        """Spoil it."""
        return [*pairs[:-1], (pairs[-1][0], float("nan"))]


class Infinite(Step):
    """The best document's score is infinite."""

    def scores(self, pairs: Pairs) -> Pairs:
        """Spoil it."""
        return [(pairs[0][0], float("inf")), *pairs[1:]]


class StringScores(Step):
    """The scores are texts."""

    def scores(self, pairs: Pairs) -> Pairs:
        """Quote them."""
        return [(index, str(score)) for index, score in pairs]


class NullScores(Step):
    """The scores are null."""

    def scores(self, pairs: Pairs) -> Pairs:
        """Drop them."""
        return [(index, None) for index, _ in pairs]


# Other replies --------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Status(Step):
    """Refuse with `code`, in the vendor's form of an error."""

    code: int
    headers: Mapping[str, str] = field(default_factory=dict)
    message: str = "played by the test"

    def play(self, exchange: Exchange) -> None:
        """Refuse."""
        reply = exchange.server.refuse(self.code, self.message)
        exchange.send(reply.status, reply.body, {**reply.headers, **self.headers})


@dataclass(frozen=True)
class HTML(Step):
    """A web page, as a proxy or a wrong address answers."""

    code: int = 200

    def play(self, exchange: Exchange) -> None:
        """Send the page."""
        exchange.send_raw(self.code, b"<!doctype html><html><body>Welcome</body></html>", {"content-type": "text/html"})


@dataclass(frozen=True)
class JSON(Step):
    """Any JSON at all."""

    value: Any
    code: int = 200

    def play(self, exchange: Exchange) -> None:
        """Send it."""
        exchange.send(self.code, self.value)


class Empty(Step):
    """Status 200 and no body."""

    def play(self, exchange: Exchange) -> None:
        """Send nothing."""
        exchange.send_raw(200, b"", {"content-type": "application/json"})


class CutJSON(Step):
    """A whole reply whose JSON ends in the middle."""

    def play(self, exchange: Exchange) -> None:
        """Send the first half."""
        body = json.dumps(exchange.answer(exchange.pairs())).encode()
        exchange.send_raw(200, body[: len(body) // 2], {"content-type": "application/json"})


class CutBody(Step):
    """The connection ends before the body does."""

    def play(self, exchange: Exchange) -> None:
        """Promise the whole body, send half of it, hang up."""
        body = json.dumps(exchange.answer(exchange.pairs())).encode()
        exchange.write(exchange.head(200, len(body), {"content-type": "application/json"}) + body[: len(body) // 2])
        exchange.hang_up()


class Reset(Step):
    """The connection is reset without an answer."""

    def play(self, exchange: Exchange) -> None:
        """Close with a linger of zero: the kernel sends RST."""
        exchange.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        exchange.hang_up(reset=True)


# Slow ones: until the client or the server goes -----------------------------------------------------------------------


class Hang(Step):
    """Accept the request and never answer."""

    def play(self, exchange: Exchange) -> None:
        """Wait for somebody to go."""
        exchange.wait(None)
        exchange.hang_up()


@dataclass(frozen=True)
class Drip(Step):
    """Headers at once, then one byte of the body after another, without an end."""

    every: float = 0.02

    def play(self, exchange: Exchange) -> None:
        """Drip white space, which JSON may begin with."""
        exchange.write(exchange.head(200, 10**6, {"content-type": "application/json"}))
        while exchange.wait(self.every):
            exchange.write(b" ")
        exchange.hang_up()


@dataclass(frozen=True)
class SlowHeaders(Step):
    """The status line at once, then one byte of a header after another, without an end."""

    every: float = 0.02

    def play(self, exchange: Exchange) -> None:
        """Drip."""
        exchange.write(b"HTTP/1.1 200 OK\r\nx-slow: ")
        while exchange.wait(self.every):
            exchange.write(b"a")
        exchange.hang_up()
