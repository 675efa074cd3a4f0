"""A local HTTP server that speaks one vendor's format strictly, plays scripts of failures, and records what it got.

A vendor is a subclass of `VendorServer`: which fields it takes, what an answer and an error look like.

```python
with CohereLike() as server:
    server.play(Status(429, {"retry-after": "0.1"}), Shuffled())
    reranker = load_reranker({"use": "http", "base_url": server.url, "api_key": server.key})
    reranker.rerank("query", ["one", "two"])
    assert [request.documents for request in server.requests] == [["one", "two"]] * 2
    assert server.refused == []
```

It never imports a backend: what it expects comes from the vendor's own pages.
"""

from __future__ import annotations

import contextlib
import json
import os
import select
import socket
import socketserver
import threading
import time
import zlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, ClassVar, Self

from .script import Pairs, Step

__all__ = ["Exchange", "Received", "Reply", "VendorServer", "share_of_words"]

JSON_TYPE = {"content-type": "application/json"}


def share_of_words(query: str, document: str) -> float:
    """Return the share of the query's words that stand in the document, in (0, 1), ties broken by a hash of both.

    Deterministic, pointwise, and different for different documents, so that a score on the wrong document shows.
    """
    asked = set(query.lower().split())
    share = len(asked & set(document.lower().split())) / (len(asked) or 1)
    grain = zlib.crc32(f"{query}\0{document}".encode("utf-8", "replace")) / 2**32
    return 0.05 + 0.85 * share + 0.05 * grain


@dataclass(frozen=True, slots=True)
class Reply:
    """A status and a JSON body."""

    status: int
    body: Any
    headers: Mapping[str, str] = field(default_factory=dict)


@dataclass(slots=True)
class Received:
    """One request, as it came."""

    path: str
    headers: Mapping[str, str]
    """Names in lower case."""
    body: Any
    """The JSON, or the bytes where it was none."""
    documents: list[Any]
    """The documents in it."""
    at: float
    """`time.monotonic()` when it had been read."""
    concurrent: int
    """Requests under way at that moment, this one included."""
    disconnected: bool = False
    """The client hung up before it had an answer."""


class VendorServer:
    """A server on 127.0.0.1; a context manager. Subclasses describe a vendor by these attributes and three methods."""

    paths: ClassVar[tuple[str, ...]] = ("/rerank",)
    """Where it answers POST."""
    required: ClassVar[Mapping[str, type | tuple[type, ...]]] = {"query": str, "documents": list}
    """The fields that a body must have, and their types."""
    optional: ClassVar[Mapping[str, type | tuple[type, ...]]] = {}
    """The fields that it may have; all others are refused."""
    query_field: ClassVar[str] = "query"
    documents_field: ClassVar[str] = "documents"
    top_n_field: ClassVar[str | None] = "top_n"
    max_documents: int | None = None
    """More of them are refused."""
    blanks_refused: ClassVar[bool] = True
    """Whether one blank document fails the request (it does at most vendors)."""
    key_required: ClassVar[bool] = True
    invalid: ClassVar[int] = 400
    """The status of a refused body."""
    unauthorized: ClassVar[int] = 401

    def __init__(
        self,
        *,
        key: str = "test-key-0123456789",
        delay: float = 0.0,
        max_documents: int | None = None,
        score: Callable[[str, str], float] = share_of_words,
    ) -> None:
        """Prepare; it listens once entered.

        Args:
            key: The only key it takes.
            delay: Seconds before every answer.
            max_documents: More of them are refused; the vendor's own number unless given.
            score: What it answers: (query, document) → a number.
        """
        self.key = key
        self.delay = delay
        self.score = score
        if max_documents is not None:
            self.max_documents = max_documents
        self.requests: list[Received] = []
        """What came, in order, refused ones included."""
        self.refused: list[str] = []
        """Why requests were refused by `validate`; a backend that speaks the format leaves it empty."""
        self.most_concurrent = 0
        """The largest number of requests under way at once."""
        self.changed = threading.Condition()
        """Held while the above change."""
        self._script: list[tuple[Callable[[Received], bool], Step]] = []
        self._always: list[tuple[Callable[[Received], bool], Step]] = []
        self._under_way = 0

    # What a vendor says -----------------------------------------------------------------------------------------------

    def validate(self, body: Any, headers: Mapping[str, str]) -> Reply | None:
        """Return `None` for a body that the vendor takes, else its refusal. Extend for what only one vendor checks."""
        if self.key_required and not self.authorized(headers):
            return self.refuse(self.unauthorized, "invalid api key")
        if not isinstance(body, dict):
            return self.refuse(self.invalid, "the body is no JSON object")
        known = {**self.required, **self.optional}
        for name in self.required:
            if name not in body:
                return self.refuse(self.invalid, f"{name} is required")
        for name, value in body.items():
            if name not in known:
                return self.refuse(self.invalid, f"unknown field {name}")
            kinds = known[name]
            allowed = kinds if isinstance(kinds, tuple) else (kinds,)
            if not isinstance(value, kinds) or (isinstance(value, bool) and bool not in allowed):
                return self.refuse(self.invalid, f"{name} has the wrong type {type(value).__name__}")
        return self._check_texts(body)

    def _check_texts(self, body: Mapping[str, Any]) -> Reply | None:
        if not body[self.query_field].strip():
            return self.refuse(self.invalid, f"{self.query_field} must not be empty")
        documents = body[self.documents_field]
        if not documents:
            return self.refuse(self.invalid, f"{self.documents_field} must not be empty")
        if self.max_documents is not None and len(documents) > self.max_documents:
            return self.refuse(self.invalid, f"at most {self.max_documents} {self.documents_field}")
        for text in self.texts(body):
            if not isinstance(text, str):
                return self.refuse(self.invalid, f"{self.documents_field} must be texts")
            if self.blanks_refused and not text.strip():
                return self.refuse(self.invalid, f"{self.documents_field} must not contain empty strings")
        return None

    def authorized(self, headers: Mapping[str, str]) -> bool:
        """Return whether the headers carry the key; a bearer token unless overridden."""
        return headers.get("authorization") == f"Bearer {self.key}"

    def texts(self, body: Mapping[str, Any]) -> Sequence[Any]:
        """Return the texts that are scored; override where documents may be objects."""
        found: Sequence[Any] = body[self.documents_field]
        return found

    def answer(self, body: Mapping[str, Any], pairs: Pairs) -> Any:
        """Return the JSON of an answer with these (index, score) pairs; Cohere's unless overridden."""
        return {"results": [{"index": index, "relevance_score": score} for index, score in pairs]}

    def refuse(self, status: int, message: str) -> Reply:
        """Return an error in the vendor's form; Cohere's unless overridden."""
        return Reply(status, {"message": message})

    # What a test says -------------------------------------------------------------------------------------------------

    def play(self, *steps: Step, when: Callable[[Received], bool] = lambda _: True) -> None:
        """Queue one step a valid request; `when` chooses the requests (a part that holds a document, say)."""
        with self.changed:
            self._script += [(when, step) for step in steps]

    def always(self, step: Step, when: Callable[[Received], bool] = lambda _: True) -> None:
        """Play `step` whenever the queue has nothing for a request."""
        with self.changed:
            self._always.append((when, step))

    def reset(self) -> None:
        """Forget scripts, records and delay."""
        with self.changed:
            self.requests, self.refused, self._script, self._always = [], [], [], []
            self.most_concurrent, self.delay = 0, 0.0

    def wait_until(self, condition: Callable[[], bool], seconds: float = 5.0) -> bool:
        """Wait until something that it records is true; return whether it became so."""
        with self.changed:
            return self.changed.wait_for(condition, seconds)

    # Life -------------------------------------------------------------------------------------------------------------

    @property
    def url(self) -> str:
        """`http://127.0.0.1:PORT`."""
        return f"http://127.0.0.1:{self.port}"

    @property
    def connections(self) -> int:
        """Connections open now."""
        return len(self._http.open)

    def __enter__(self) -> Self:
        """Listen."""
        self.closing, self._closer = socket.socketpair()
        self._http = _HTTPServer(("127.0.0.1", 0), _Connection)
        self._http.vendor = self
        self.port: int = self._http.server_address[1]
        self._thread = threading.Thread(target=self._accept, name="vendor-server", daemon=True)
        self._thread.start()
        return self

    def __exit__(self, *exception: object) -> None:
        """Hang up on everybody."""
        self._closer.close()  # wakes whoever hangs
        self._thread.join(5.0)
        self._http.server_close()
        self._http.hang_up()
        self.closing.close()

    def _accept(self) -> None:
        # Unlike serve_forever, which looks every so often whether to stop: thousands of servers are closed in a suite.
        waited: list[Any] = [self._http, self.closing]
        while self.closing not in select.select(waited, [], [])[0]:
            self._http.handle_request()

    def _next(self, request: Received) -> Step:
        with self.changed:
            for position, (when, step) in enumerate(self._script):
                if when(request):
                    del self._script[position]
                    return step
            return next((step for when, step in self._always if when(request)), Step())

    def _arrived(self, request: Received) -> None:
        with self.changed:
            self._under_way += 1
            request.concurrent = self._under_way
            self.most_concurrent = max(self.most_concurrent, self._under_way)
            self.requests.append(request)
            self.changed.notify_all()

    def _left(self) -> None:
        with self.changed:
            self._under_way -= 1
            self.changed.notify_all()


class Exchange:
    """One request being answered: what a step of a script works with."""

    def __init__(self, server: VendorServer, connection: socket.socket, request: Received) -> None:
        """Hold the request and its connection."""
        self.server = server
        self.connection = connection
        self.request = request
        self.over = False
        """The connection cannot be used again."""

    def pairs(self) -> Pairs:
        """Return the right scores, best first, cut where the request asks for a top_n."""
        server, body = self.server, self.request.body
        query = body[server.query_field]
        scored = [(index, server.score(query, text)) for index, text in enumerate(server.texts(body))]
        scored.sort(key=lambda pair: -pair[1])
        asked = body.get(server.top_n_field) if server.top_n_field else None
        return scored[:asked] if asked else scored

    def answer(self, pairs: Pairs) -> Any:
        """Return the vendor's JSON for these scores."""
        return self.server.answer(self.request.body, pairs)

    def send(self, status: int, body: Any, headers: Mapping[str, str] | None = None) -> None:
        """Send a JSON reply."""
        self.send_raw(status, json.dumps(body).encode(), {**JSON_TYPE, **(headers or {})})

    def send_raw(self, status: int, body: bytes, headers: Mapping[str, str]) -> None:
        """Send a whole reply."""
        self.write(self.head(status, len(body), headers) + body)

    @staticmethod
    def head(status: int, size: int, headers: Mapping[str, str]) -> bytes:
        """Return status line and headers."""
        reason = HTTPStatus(status).phrase if status in {each.value for each in HTTPStatus} else "Unnamed"
        lines = [f"HTTP/1.1 {status} {reason}", f"content-length: {size}"]
        lines += [f"{name}: {value}" for name, value in headers.items()]
        return ("\r\n".join(lines) + "\r\n\r\n").encode("latin-1")

    def write(self, content: bytes) -> None:
        """Send bytes; a client that has gone is noted."""
        if self.over:
            return
        try:
            self.connection.sendall(content)
        except OSError:
            self._gone()

    def wait(self, seconds: float | None) -> bool:
        """Wait so long (`None`: without end); return whether client and server are still there."""
        if self.over:
            return False
        until = None if seconds is None else time.monotonic() + seconds
        while True:
            left = None if until is None else max(0.0, until - time.monotonic())
            ready, _, _ = select.select([self.connection, self.server.closing], [], [], left)
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
                self._gone()
                return False
            return True  # the next request is waiting already

    def hang_up(self, *, reset: bool = False) -> None:
        """End the connection; with `reset`, so that the kernel sends RST where the socket is set to linger for no time."""
        self.over = True
        with contextlib.suppress(OSError):
            if reset:
                os.close(self.connection.detach())
            else:
                self.connection.shutdown(socket.SHUT_RDWR)

    def _gone(self) -> None:
        self.over = True
        with self.server.changed:
            self.request.disconnected = True
            self.server.changed.notify_all()


class _HTTPServer(ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 256
    timeout = 0.0
    vendor: VendorServer

    def __init__(self, *arguments: Any) -> None:
        self.open: dict[socket.socket, threading.Thread] = {}
        super().__init__(*arguments)

    def server_bind(self) -> None:
        # HTTPServer's asks the resolver for this machine's name, which can take seconds.
        socketserver.TCPServer.server_bind(self)
        self.server_name, self.server_port = "127.0.0.1", self.server_address[1]

    def hang_up(self) -> None:
        """End every connection, and wait for the threads behind them."""
        for connection, thread in list(self.open.items()):
            with contextlib.suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)
            thread.join(5.0)

    def shutdown_request(self, request: Any) -> None:
        super().shutdown_request(request)
        with self.vendor.changed:
            self.open.pop(request, None)
            self.vendor.changed.notify_all()

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Say nothing: a client that hangs up is no failure of a test."""


class _Connection(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    server: _HTTPServer

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
        documents = body.get(vendor.documents_field) if isinstance(body, dict) else None
        headers = {name.lower(): value for name, value in self.headers.items()}
        request = Received(
            self.path, headers, body, documents if isinstance(documents, list) else [], time.monotonic(), 0
        )
        vendor._arrived(request)
        try:
            exchange = Exchange(vendor, self.connection, request)
            self._answer(exchange)
            self.close_connection = exchange.over or self.close_connection
        finally:
            vendor._left()

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
        vendor._next(request).play(exchange)

    def log_message(self, format: str, *arguments: Any) -> None:  # noqa: A002 (the name in http.server)
        """Say nothing."""
