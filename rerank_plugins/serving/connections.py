"""What uvicorn does not bound on a connection: the time to send a request, the time to read an answer, and how many there are.

A `Connection` stands between a transport and uvicorn's own protocol. It sees bytes and the transport's buffer, as asyncio shows
them to every protocol; `Watched`, around the application, tells it when a request begins and when its answer is written.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from typing import Any, cast

from ..core.errors import MissingExtra
from .app import refused
from .sending import DROP

try:
    import h11
    from starlette.types import ASGIApp, Message, Receive, Scope, Send
except ModuleNotFoundError as error:
    raise MissingExtra("The server", extra="serve", package="uvicorn") from error

__all__ = ["Connection", "Connections", "Watched"]

_CONNECTION = "rerank_plugins.connection"
"""The key of `scope["state"]` under which the application finds the connection of a request."""
_READ = 64 * 1024
"""Bytes of an answer that a client has to read within the patience."""


class Connections:
    """Makes the protocol of each connection, and counts those that are open. One event loop uses it, so it needs no lock."""

    def __init__(self, protocol: Callable[..., asyncio.Protocol], *, patience: float, maximum: int) -> None:
        """Put a `Connection` before each protocol.

        Args:
            protocol: Makes uvicorn's protocol of one connection.
            patience: Seconds for a request to begin, for a refused body to end, and for the next 64 KB of an answer to be read.
            maximum: Connections at once; clients above it are asked to come back.
        """
        self._protocol = protocol
        self.patience = patience
        self.maximum = maximum
        self.open = 0

    def __call__(self, *, app_state: Mapping[str, Any], **options: Any) -> Connection:
        """Return the protocol of one connection; the arguments are what uvicorn gives to its own."""
        connection = Connection(self)
        state = {**app_state, _CONNECTION: connection, DROP: connection.abort}
        connection.protocol = self._protocol(app_state=state, **options)
        return connection


class Connection(asyncio.Protocol):
    """One client's connection. By itself, uvicorn waits forever for a client that sends, or reads, a byte now and then."""

    protocol: asyncio.Protocol
    """uvicorn's own, which speaks HTTP."""
    crowded = False
    """Whether there are more connections than are taken."""
    _transport: asyncio.Transport
    _lost = False
    _requests = 0
    """Requests that the application has not answered yet; more than one while pipelined ones follow each other."""

    def __init__(self, connections: Connections) -> None:
        """Belong to `connections`."""
        self._connections = connections
        self._arriving, self._reading, self._stalled = (_Timer(connections.patience) for _ in range(3))

    @property
    def closing(self) -> bool:
        """Whether nothing more can be sent."""
        return self._transport.is_closing()

    def abort(self) -> None:
        """End the connection at once; what was not read yet is dropped."""
        self._transport.abort()

    def begin_request(self) -> None:
        """Stop waiting: a request has arrived. The application itself bounds the time of its body."""
        self._requests += 1
        self._arriving.stop()

    def end_request(self) -> None:
        """Wait for the client to read the answer."""
        self._requests -= 1
        if not (self._reading.running or self._lost):
            self._wait_for_reader(self._transport.get_write_buffer_size())

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Begin to wait for a request."""
        self._transport = cast(asyncio.Transport, transport)
        self._connections.open += 1
        self.crowded = self._connections.open >= self._connections.maximum
        self.protocol.connection_made(transport)
        self._wait_for_request()

    def data_received(self, data: bytes) -> None:
        """Pass bytes on. Outside of a request they are the start of one, or the rest of a body that was refused."""
        try:
            self.protocol.data_received(data)
        except h11.LocalProtocolError:
            # What is not HTTP is answered with 400 by uvicorn. Here an answer has begun already, and h11 allows no second one.
            if self._requests:
                self._transport.abort()  # `close` would let uvicorn go on with the first answer, which h11 does not allow either
            else:
                self._transport.close()
        self._wait_for_request()

    def eof_received(self) -> bool | None:
        """Pass it on."""
        return self.protocol.eof_received()

    def connection_lost(self, exc: Exception | None) -> None:
        """Stop waiting."""
        self._lost = True
        self._connections.open -= 1
        for timer in (self._arriving, self._reading, self._stalled):
            timer.stop()
        self.protocol.connection_lost(exc)

    def pause_writing(self) -> None:
        """Drop the client if it does not read on within the patience: the rest of its answer is held for it."""
        self.protocol.pause_writing()
        if not self._stalled.running:
            self._stalled.start(self._transport.abort)

    def resume_writing(self) -> None:
        """Give the client its whole patience for the next part."""
        self.protocol.resume_writing()
        self._stalled.stop()

    def _wait_for_request(self) -> None:
        # More bytes do not start the time anew: a client that sends one now and then would never be late.
        if not (self._requests or self._arriving.running or self.closing):
            self._arriving.start(self._transport.close)

    def _wait_for_reader(self, left: int) -> None:
        if left:
            self._reading.start(self._look_at_reader, left)

    def _look_at_reader(self, before: int) -> None:
        """Go on while the client reads; else drop the answer and the connection, which `close` would keep until it is read."""
        left = self._transport.get_write_buffer_size()
        if left > max(0, before - _READ):
            self._transport.abort()
        else:
            self._wait_for_reader(left)


class _Timer:
    """Calls something after a time, unless it is stopped before."""

    def __init__(self, seconds: float) -> None:
        self._seconds = seconds
        self._handle: asyncio.TimerHandle | None = None

    @property
    def running(self) -> bool:
        return self._handle is not None

    def start(self, action: Callable[..., object], *arguments: object) -> None:
        self._handle = asyncio.get_running_loop().call_later(self._seconds, self._end, action, *arguments)

    def stop(self) -> None:
        if self._handle is not None:
            self._handle.cancel()
            self._handle = None

    def _end(self, action: Callable[..., object], *arguments: object) -> None:
        self._handle = None
        action(*arguments)


class Watched:
    """An application that tells the connection of each request when it begins and when its answer is written."""

    def __init__(self, app: ASGIApp) -> None:
        """Watch `app`."""
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request, or live through the lifespan."""
        connection: Connection | None = scope["state"].get(_CONNECTION) if scope["type"] == "http" else None
        if connection is None:
            await self._app(scope, receive, send)
            return
        answered = False

        async def send_watched(message: Message) -> None:
            nonlocal answered
            if connection.closing:  # uvicorn has answered in our place: the body was not HTTP
                return
            await send(message)
            if message["type"] == "http.response.body" and not message.get("more_body", False):
                answered = True
                connection.end_request()

        connection.begin_request()
        try:
            await (_crowded if connection.crowded else self._app)(scope, receive, send_watched)
        finally:
            if not answered:
                connection.end_request()
        while connection.closing and (await receive())["type"] != "http.disconnect":
            pass  # only then uvicorn expects no answer


async def _crowded(scope: Scope, receive: Receive, send: Send) -> None:
    answer = refused(
        503,
        "More clients are connected than this server takes. Come back later.",
        {"retry-after": "1", "connection": "close"},
    )
    await answer(scope, receive, send)
