"""Steps that a vendor server can play instead of an ordinary answer: wrong scores, errors, broken and slow replies.

```python
from rerank_plugins.testing.cohere_like import CohereLike

with CohereLike() as server:
    server.play(Status(429), Hang(), Shuffled())  # for the next three requests
```
"""

from __future__ import annotations

import json
import socket
import struct
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from ..core.types import Unscored

if TYPE_CHECKING:
    from .server import Exchange

__all__ = [
    "HTML",
    "JSON",
    "CutBody",
    "CutJSON",
    "Declined",
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
"""(index, score) of each document, best first. The types are open because steps may send wrong ones."""


class Step:
    """An ordinary answer. Subclasses override `scores` to change its scores, or `play` to change the reply."""

    def scores(self, pairs: Pairs) -> Pairs:
        """Return the (index, score) pairs to answer with, from the correct ones."""
        return pairs

    def play(self, exchange: Exchange) -> None:
        """Send the reply."""
        exchange.send(200, exchange.answer(self.scores(exchange.pairs())))


# Wrong and unusual scores ---------------------------------------------------------------------------------------------


class Shuffled(Step):
    """Correct scores that are not sorted."""

    def scores(self, pairs: Pairs) -> Pairs:
        """Return every second pair from the end, then the pairs between them."""
        backwards = list(reversed(pairs))
        return [*backwards[::2], *backwards[1::2]]


@dataclass(frozen=True)
class TopN(Step):
    """Only the best `n` results, as if the vendor applied a top_n of its own."""

    n: int

    def scores(self, pairs: Pairs) -> Pairs:
        """Return the first `n` pairs."""
        return pairs[: self.n]


class Gap(Step):
    """A document in the middle of the ranking is missing from the answer."""

    def scores(self, pairs: Pairs) -> Pairs:
        """Return the pairs without the one in the middle."""
        middle = len(pairs) // 2
        return [*pairs[:middle], *pairs[middle + 1 :]]


class Duplicate(Step):
    """The best document is in the answer twice, and the worst is missing."""

    def scores(self, pairs: Pairs) -> Pairs:
        """Replace the last pair by the first."""
        return [*pairs[:-1], pairs[0]] if len(pairs) > 1 else [*pairs, *pairs]


@dataclass(frozen=True)
class Stranger(Step):
    """The worst document has an index that was never sent."""

    index: Any = None
    """The index to send; `None` is the number of documents, which is one past the last index."""

    def scores(self, pairs: Pairs) -> Pairs:
        """Replace the index of the last pair."""
        return [*pairs[:-1], (len(pairs) if self.index is None else self.index, pairs[-1][1])]


class NaN(Step):
    """The worst document's score is NaN."""

    def scores(self, pairs: Pairs) -> Pairs:
        """Replace the last score."""
        return [*pairs[:-1], (pairs[-1][0], float("nan"))]


class Infinite(Step):
    """The best document's score is infinite."""

    def scores(self, pairs: Pairs) -> Pairs:
        """Replace the first score."""
        return [(pairs[0][0], float("inf")), *pairs[1:]]


class StringScores(Step):
    """The scores are strings."""

    def scores(self, pairs: Pairs) -> Pairs:
        """Return the scores as strings."""
        return [(index, str(score)) for index, score in pairs]


class NullScores(Step):
    """The scores are null."""

    def scores(self, pairs: Pairs) -> Pairs:
        """Replace every score by `None`."""
        return [(index, None) for index, _ in pairs]


@dataclass(frozen=True)
class Declined(Step):
    """The model declines to score the best `n` documents; for a vendor whose format can say so."""

    n: int | None = 1
    """How many documents; `None` is all."""

    def scores(self, pairs: Pairs) -> Pairs:
        """Replace the first scores by `Unscored`."""
        count = len(pairs) if self.n is None else self.n
        return [*((index, Unscored("declined by the test")) for index, _ in pairs[:count]), *pairs[count:]]


# Other replies --------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Status(Step):
    """An error with the status `code`, in the vendor's form."""

    code: int
    headers: Mapping[str, str] = field(default_factory=dict)
    message: str = "played by the test"

    def play(self, exchange: Exchange) -> None:
        """Send the error."""
        reply = exchange.server.refuse(self.code, self.message)
        exchange.send(reply.status, reply.body, {**reply.headers, **self.headers})


@dataclass(frozen=True)
class HTML(Step):
    """A web page, such as a proxy or a wrong address sends."""

    code: int = 200

    def play(self, exchange: Exchange) -> None:
        """Send the page."""
        exchange.send_raw(self.code, b"<!doctype html><html><body>Welcome</body></html>", {"content-type": "text/html"})


@dataclass(frozen=True)
class JSON(Step):
    """Any JSON value."""

    value: Any
    code: int = 200

    def play(self, exchange: Exchange) -> None:
        """Send the value."""
        exchange.send(self.code, self.value)


class Empty(Step):
    """Status 200 and no body."""

    def play(self, exchange: Exchange) -> None:
        """Send the headers only."""
        exchange.send_raw(200, b"", {"content-type": "application/json"})


class CutJSON(Step):
    """A complete HTTP reply whose JSON is cut in the middle."""

    def play(self, exchange: Exchange) -> None:
        """Send the first half of the JSON, with its length."""
        body = json.dumps(exchange.answer(exchange.pairs())).encode()
        exchange.send_raw(200, body[: len(body) // 2], {"content-type": "application/json"})


class CutBody(Step):
    """The connection closes in the middle of the body."""

    def play(self, exchange: Exchange) -> None:
        """Announce the length of the whole body, send half of it, close the connection."""
        body = json.dumps(exchange.answer(exchange.pairs())).encode()
        exchange.write(exchange.head(200, len(body), {"content-type": "application/json"}) + body[: len(body) // 2])
        exchange.hang_up()


class Reset(Step):
    """The connection is reset without an answer."""

    def play(self, exchange: Exchange) -> None:
        """Close with SO_LINGER of 0 seconds, so that the kernel sends RST."""
        exchange.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        exchange.hang_up(reset=True)


# Slow replies: they last until the client disconnects or the server stops --------------------------------------------


class Hang(Step):
    """Accept the request and never answer."""

    def play(self, exchange: Exchange) -> None:
        """Wait until the client disconnects or the server stops."""
        exchange.wait(None)
        exchange.hang_up()


@dataclass(frozen=True)
class Drip(Step):
    """The headers at once, then the body byte by byte, without an end."""

    every: float = 0.02
    """Seconds between two bytes."""

    def play(self, exchange: Exchange) -> None:
        """Send spaces, which JSON may begin with."""
        exchange.write(exchange.head(200, 10**6, {"content-type": "application/json"}))
        while exchange.wait(self.every):
            exchange.write(b" ")
        exchange.hang_up()


@dataclass(frozen=True)
class SlowHeaders(Step):
    """The status line at once, then a header byte by byte, without an end."""

    every: float = 0.02
    """Seconds between two bytes."""

    def play(self, exchange: Exchange) -> None:
        """Send one letter after another."""
        exchange.write(b"HTTP/1.1 200 OK\r\nx-slow: ")
        while exchange.wait(self.every):
            exchange.write(b"a")
        exchange.hang_up()
