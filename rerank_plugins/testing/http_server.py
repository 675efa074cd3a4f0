"""The HTTP machinery under `VendorServer`, on the standard library's server."""

from __future__ import annotations

import contextlib
import json
import socket
import socketserver
import sys
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import TYPE_CHECKING, Any

from .exchange import Exchange, Received, Reply

if TYPE_CHECKING:
    from .server import VendorServer

__all__ = ["HTTPServer"]


class HTTPServer(ThreadingHTTPServer):
    """Reads the requests to a `VendorServer`, each connection on a thread of its own."""

    daemon_threads = True
    request_queue_size = 256
    timeout = 0.0

    def __init__(self, vendor: VendorServer) -> None:
        """Bind a free port of 127.0.0.1 and listen."""
        self.vendor = vendor
        self.open: dict[socket.socket, threading.Thread] = {}
        """The open connections and the thread of each."""
        super().__init__(("127.0.0.1", 0), _Connection)

    def server_bind(self) -> None:
        """Bind without resolving this machine's name, as `HTTPServer` does: that can take seconds."""
        socketserver.TCPServer.server_bind(self)
        self.server_name, self.server_port = "127.0.0.1", self.server_address[1]

    def hang_up(self) -> None:
        """Close every connection and wait for its thread."""
        for connection, thread in list(self.open.items()):
            with contextlib.suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)
            thread.join(5.0)

    def shutdown_request(self, request: Any) -> None:
        """Close a connection and forget it."""
        super().shutdown_request(request)
        with self.vendor.changed:
            self.open.pop(request, None)
            self.vendor.changed.notify_all()

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Print the traceback of a mistake in the vendor's class, but nothing if the client disconnected."""
        if not isinstance(sys.exc_info()[1], OSError):
            super().handle_error(request, client_address)


class _Connection(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    server: HTTPServer

    def setup(self) -> None:
        super().setup()
        self.server.open[self.connection] = threading.current_thread()

    def finish(self) -> None:
        with contextlib.suppress(OSError):
            super().finish()

    def do_POST(self) -> None:
        vendor = self.server.vendor
        raw = self.rfile.read(int(self.headers.get("content-length") or 0))
        try:
            body = json.loads(raw)
        except ValueError:
            body = raw
        try:
            documents = vendor.documents(body)
        except (KeyError, TypeError, ValueError, AttributeError):  # a body of another shape, which `validate` refuses
            documents = None
        headers = {name.lower(): value for name, value in self.headers.items()}
        request = Received(
            self.path, headers, body, documents if isinstance(documents, list) else [], time.monotonic(), 0
        )
        vendor._record_start(request)
        try:
            exchange = Exchange(vendor, self.connection, request)
            self._answer(exchange)
            self.close_connection = exchange.over or self.close_connection
        finally:
            vendor._record_end()

    def do_GET(self) -> None:
        path = self.path.partition("?")[0]
        exchange = Exchange(self.server.vendor, self.connection, Received(path, {}, b"", [], time.monotonic(), 0))
        if path in self.server.vendor.information:
            exchange.send(200, self.server.vendor.information[path])
        else:
            exchange.send(404, {"message": f"nothing is at {path}"})

    def _answer(self, exchange: Exchange) -> None:
        vendor, request = self.server.vendor, exchange.request
        if vendor.delay and not exchange.wait(vendor.delay):
            return
        if request.path.partition("?")[0] not in vendor.paths:
            refusal: Reply | None = vendor.refuse(404, f"nothing is at {request.path}")
        else:
            refusal = vendor.validate(request.body, request.headers)
        if refusal is not None:
            with vendor.changed:
                vendor.refused.append(f"{refusal.status} {refusal.body}")
            exchange.send(refusal.status, refusal.body, refusal.headers)
            return
        vendor._next_step(request).play(exchange)

    def log_message(self, format: str, *arguments: Any) -> None:  # noqa: A002 (the name in http.server)
        """Print nothing."""
