"""Limits that uvicorn lacks: time to send a request, time to read a response, and the number of connections.

A `Connection` is an asyncio protocol between a transport and uvicorn's own protocol. It sees incoming bytes and the
size of the transport's write buffer. `ConnectionMiddleware`, around the application, reports to it when a request
begins and when its response is written.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from typing import Any, cast

from ..core.errors import MissingExtra
from .app import error_response
from .response_writer import ABORT_KEY

try:
    import h11
    from starlette.types import ASGIApp, Message, Receive, Scope, Send
except ModuleNotFoundError as error:
    raise MissingExtra("The server", extra="serve", package="uvicorn") from error

__all__ = ["Connection", "ConnectionMiddleware", "ProtocolFactory"]

_CONNECTION_KEY = "rerank_plugins.connection"
"""The key of the request's `Connection` in `scope["state"]`."""
_MIN_READ_BYTES = 64 * 1024
"""Bytes of a response that a client must read within each timeout. One that reads less is disconnected."""


class ProtocolFactory:
    """Creates the protocol of each connection, and counts the open connections.

    Only one event loop uses it, so the count needs no lock.
    """

    def __init__(self, protocol: Callable[..., asyncio.Protocol], *, timeout: float, max_connections: int) -> None:
        """Put a `Connection` in front of each protocol.

        Args:
            protocol: Creates uvicorn's protocol for one connection.
            timeout: Seconds until a request must begin, until the body of a refused request must end, and until the
                client must have read the next 64 KB of a response.
            max_connections: A connection gets status 503 if this many are open, itself included.
        """
        self._protocol = protocol
        self.timeout = timeout
        self.max_connections = max_connections
        self.open_connections = 0

    def __call__(self, *, app_state: Mapping[str, Any], **options: Any) -> Connection:
        """Return the protocol of one connection; uvicorn passes the arguments."""
        connection = Connection(self)
        state = {**app_state, _CONNECTION_KEY: connection, ABORT_KEY: connection.abort}
        connection.protocol = self._protocol(app_state=state, **options)
        return connection


class Connection(asyncio.Protocol):
    """The connection of one client. It disconnects clients that send or read too slowly, as in the Slowloris attack.

    uvicorn alone waits for them forever.
    """

    protocol: asyncio.Protocol
    """The HTTP protocol of uvicorn."""
    over_limit = False
    """Whether too many connections were open when this one was made."""
    _transport: asyncio.Transport
    _lost = False
    _requests = 0
    """Requests that the application has not answered yet; more than one while the client pipelines them."""

    def __init__(self, factory: ProtocolFactory) -> None:
        """Use the timeout and the counter of `factory`."""
        self._factory = factory
        # Three timers: until a request begins, until the client has read part of a response, and until it reads again
        # after the transport's write buffer was full.
        self._request_timer, self._read_timer, self._pause_timer = (_Timer(factory.timeout) for _ in range(3))

    @property
    def closing(self) -> bool:
        """Whether nothing more can be sent."""
        return self._transport.is_closing()

    def abort(self) -> None:
        """Close the connection immediately, and discard what the client has not read yet."""
        self._transport.abort()

    def begin_request(self) -> None:
        """Stop the timer that waits for a request. The application limits the time of the body."""
        self._requests += 1
        self._request_timer.stop()

    def end_request(self) -> None:
        """Start the timer that waits for the client to read the response."""
        self._requests -= 1
        if not (self._read_timer.running or self._lost):
            self._start_read_timer(self._transport.get_write_buffer_size())

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Count the connection, and start the timer that waits for a request."""
        self._transport = cast(asyncio.Transport, transport)
        self._factory.open_connections += 1
        self.over_limit = self._factory.open_connections >= self._factory.max_connections
        self.protocol.connection_made(transport)
        self._start_request_timer()

    def data_received(self, data: bytes) -> None:
        """Pass bytes to uvicorn. Outside of a request they begin one, or belong to the body of a refused request."""
        try:
            self.protocol.data_received(data)
        except h11.LocalProtocolError:
            # uvicorn sends status 400 for invalid HTTP. If a response has begun, h11 refuses that with this error.
            if self._requests:
                self._transport.abort()  # `close` would let uvicorn continue the first response
            else:
                self._transport.close()
        self._start_request_timer()

    def eof_received(self) -> bool | None:
        """Pass the end of the client's data to uvicorn."""
        return self.protocol.eof_received()

    def connection_lost(self, exc: Exception | None) -> None:
        """Stop the timers, and count the connection as closed."""
        self._lost = True
        self._factory.open_connections -= 1
        for timer in (self._request_timer, self._read_timer, self._pause_timer):
            timer.stop()
        self.protocol.connection_lost(exc)

    def pause_writing(self) -> None:
        """Pause uvicorn, and start the timer after which a client that reads nothing is disconnected.

        The rest of its response takes memory until then.
        """
        self.protocol.pause_writing()
        if not self._pause_timer.running:
            self._pause_timer.start(self._transport.abort)

    def resume_writing(self) -> None:
        """Resume uvicorn, and stop the timer; the next pause starts it again."""
        self.protocol.resume_writing()
        self._pause_timer.stop()

    def _start_request_timer(self) -> None:
        # More bytes do not restart the timer. Otherwise a client could hold the connection by sending single bytes.
        if not (self._requests or self._request_timer.running or self.closing):
            self._request_timer.start(self._transport.close)

    def _start_read_timer(self, unread: int) -> None:
        if unread:
            self._read_timer.start(self._abort_if_unread, unread)

    def _abort_if_unread(self, unread_before: int) -> None:
        """Abort if the client read too little since the timer started, else start it again.

        `close` would keep the response in memory until the client reads it.
        """
        unread = self._transport.get_write_buffer_size()
        if unread > max(0, unread_before - _MIN_READ_BYTES):
            self._transport.abort()
        else:
            self._start_read_timer(unread)


class _Timer:
    """Calls a function after a number of seconds, unless it is stopped before."""

    def __init__(self, seconds: float) -> None:
        self._seconds = seconds
        self._handle: asyncio.TimerHandle | None = None

    @property
    def running(self) -> bool:
        return self._handle is not None

    def start(self, action: Callable[..., object], *arguments: object) -> None:
        self._handle = asyncio.get_running_loop().call_later(self._seconds, self._fire, action, *arguments)

    def stop(self) -> None:
        if self._handle is not None:
            self._handle.cancel()
            self._handle = None

    def _fire(self, action: Callable[..., object], *arguments: object) -> None:
        self._handle = None
        action(*arguments)


class ConnectionMiddleware:
    """ASGI middleware that reports to the connection when a request begins and when its response is written."""

    def __init__(self, app: ASGIApp) -> None:
        """Wrap `app`."""
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Process one request, or the lifespan events."""
        connection: Connection | None = scope["state"].get(_CONNECTION_KEY) if scope["type"] == "http" else None
        if connection is None:
            await self._app(scope, receive, send)
            return
        is_answered = False

        async def send_and_observe(message: Message) -> None:
            nonlocal is_answered
            if connection.closing:  # uvicorn has answered with 400 already, because the body was not valid HTTP
                return
            await send(message)
            if message["type"] == "http.response.body" and not message.get("more_body", False):
                is_answered = True
                connection.end_request()

        connection.begin_request()
        try:
            await (_too_many_connections if connection.over_limit else self._app)(scope, receive, send_and_observe)
        finally:
            if not is_answered:
                connection.end_request()
        while connection.closing and (await receive())["type"] != "http.disconnect":
            pass  # uvicorn logs an error if the application returns without a response before the disconnect


async def _too_many_connections(scope: Scope, receive: Receive, send: Send) -> None:
    response = error_response(
        503,
        "More clients are connected than this server takes. Try again later.",
        {"retry-after": "1", "connection": "close"},
    )
    await response(scope, receive, send)
