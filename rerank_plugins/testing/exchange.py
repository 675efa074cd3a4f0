"""One request to a vendor server, and the ways to answer it. `server` exports these names."""

from __future__ import annotations

import contextlib
import json
import os
import select
import socket
from collections.abc import Mapping
from dataclasses import dataclass, field
from http import HTTPStatus
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .script import Pairs
    from .server import VendorServer

__all__ = ["Exchange", "Received", "Reply"]

_JSON_TYPE = {"content-type": "application/json"}


@dataclass(frozen=True, slots=True)
class Reply:
    """A reply with a JSON body, such as `VendorServer.refuse` returns.

    >>> Reply(429, {"message": "too many requests"}, {"retry-after": "1"}).status
    429
    """

    status: int
    """The HTTP status."""
    body: Any
    """The value that is sent as JSON."""
    headers: Mapping[str, str] = field(default_factory=dict)
    """More headers, beside `content-type` and `content-length`."""


@dataclass(slots=True)
class Received:
    """One request as the server received it; `VendorServer.requests` holds them.

    ```python
    import httpx

    from rerank_plugins.testing.cohere_like import CohereLike

    with CohereLike() as server:
        headers = {"authorization": f"Bearer {server.key}"}
        body = {"query": "tides", "documents": ["the moon"]}
        httpx.post(f"{server.url}/v2/rerank", json=body, headers=headers, trust_env=False)
        (request,) = server.requests
        assert (request.path, request.documents) == ("/v2/rerank", ["the moon"])
    ```
    """

    path: str
    """The path of the URL, with its query string."""
    headers: Mapping[str, str]
    """Names in lower case."""
    body: Any
    """The parsed JSON; the raw bytes if they are not JSON."""
    documents: list[Any]
    """The documents in the body; empty if it has no list of them."""
    at: float
    """`time.monotonic()` when the request was complete."""
    concurrent: int
    """The number of requests in progress at that moment, this one included."""
    disconnected: bool = False
    """Whether the client disconnected before the reply was complete."""


class Exchange:
    """A request that is being answered: the argument of `Step.play`.

    ```python
    from rerank_plugins.testing.script import Step


    class WithRequestId(Step):
        def play(self, exchange):
            exchange.send(200, exchange.answer(exchange.pairs()), {"x-request-id": "r-1"})
    ```

    Args:
        server: The server that received the request.
        connection: The open socket to the client.
        request: The request.
    """

    def __init__(self, server: VendorServer, connection: socket.socket, request: Received) -> None:
        """Store the request and its connection."""
        self.server = server
        self.connection = connection
        self.request = request
        self.over = False
        """Whether the connection is closed."""

    def pairs(self) -> Pairs:
        """Return the correct (index, score) pairs, best first, cut at the request's top_n if it has one."""
        server, body = self.server, self.request.body
        query = server.query(body)
        scored = [(index, server.score(query, text)) for index, text in enumerate(server.texts(body))]
        scored.sort(key=lambda pair: -pair[1])
        top_n = body.get(server.top_n_field) if server.top_n_field else None
        return scored[:top_n] if top_n else scored

    def answer(self, pairs: Pairs) -> Any:
        """Return the JSON of an answer in the vendor's form.

        Args:
            pairs: (index, score) of each result, best first.
        """
        return self.server.answer(self.request.body, pairs)

    def send(self, status: int, body: Any, headers: Mapping[str, str] | None = None) -> None:
        """Send a JSON reply.

        Args:
            status: The HTTP status.
            body: The value to send as JSON.
            headers: More headers.
        """
        self.send_raw(status, json.dumps(body).encode(), {**_JSON_TYPE, **(headers or {})})

    def send_raw(self, status: int, body: bytes, headers: Mapping[str, str]) -> None:
        """Send a complete reply.

        Args:
            status: The HTTP status.
            body: The bytes of the body.
            headers: All headers but `content-length`.
        """
        self.write(self.head(status, len(body), headers) + body)

    @staticmethod
    def head(status: int, size: int, headers: Mapping[str, str]) -> bytes:
        """Return the status line and the headers.

        Args:
            status: The HTTP status.
            size: The value of `content-length`.
            headers: All other headers.
        """
        reason = HTTPStatus(status).phrase if status in set(HTTPStatus) else "Unnamed"
        lines = [f"HTTP/1.1 {status} {reason}", f"content-length: {size}"]
        lines += [f"{name}: {value}" for name, value in headers.items()]
        return ("\r\n".join(lines) + "\r\n\r\n").encode("latin-1")

    def write(self, content: bytes) -> None:
        """Send bytes as they are. If the client has disconnected, record that.

        Args:
            content: A reply or a part of one.
        """
        if self.over:
            return
        try:
            self.connection.sendall(content)
        except OSError:
            self._record_disconnect()

    def wait(self, seconds: float | None) -> bool:
        """Wait while the client stays connected and the server runs.

        Args:
            seconds: How long to wait; `None` waits until one of them is gone.

        Returns:
            Whether the connection is still open.
        """
        if self.over:
            return False
        ready, _, _ = select.select([self.connection, self.server.closing], [], [], seconds)
        if not ready:
            return True
        if self.server.closing in ready:
            self.hang_up()
            return False
        try:
            peeked = self.connection.recv(1, socket.MSG_PEEK)
        except OSError:
            peeked = b""
        if not peeked:
            self._record_disconnect()
            return False
        return True  # the client has sent its next request already

    def hang_up(self, *, reset: bool = False) -> None:
        """Close the connection.

        Args:
            reset: Close the socket at once, so that the kernel sends RST where SO_LINGER is 0 seconds.
        """
        self.over = True
        with contextlib.suppress(OSError):
            if reset:
                os.close(self.connection.detach())
            else:
                self.connection.shutdown(socket.SHUT_RDWR)

    def _record_disconnect(self) -> None:
        self.over = True
        with self.server.changed:
            self.request.disconnected = True
            self.server.changed.notify_all()
