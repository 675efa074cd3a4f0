"""A reverse proxy on loopback that records what passes: request and reply, without keys."""

from __future__ import annotations

import contextlib
import http.client
import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import urlsplit

__all__ = ["Recorder", "recording"]

_HOP = {
    "connection",
    "keep-alive",
    "transfer-encoding",
    "te",
    "trailer",
    "upgrade",
    "proxy-connection",
    "content-length",
}
_SENT = ("content-type", "accept", "authorization", "user-agent")
_CREDENTIAL = {"authorization": "Bearer KEY"}
_ANSWERED = ("content-type", "retry-after")


class Recorder:
    """The exchanges of one proxy."""

    def __init__(self, target: str) -> None:
        """Record for the server at `target`."""
        self.target = urlsplit(target)
        self.exchanges: list[dict[str, Any]] = []
        self.url = ""
        self._lock = threading.Lock()  # guards `exchanges`: each connection has a thread

    def add(self, exchange: dict[str, Any]) -> None:
        """Append one exchange."""
        with self._lock:
            self.exchanges.append(exchange)

    def take(self) -> list[dict[str, Any]]:
        """Return the exchanges since the last call."""
        with self._lock:
            exchanges, self.exchanges = self.exchanges, []
        return exchanges


class _Proxy(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    recorder: Recorder

    def _forward(self) -> None:
        length = int(self.headers.get("content-length") or 0)
        body = self._chunks() if "chunked" in self.headers.get("transfer-encoding", "") else self.rfile.read(length)
        target = self.recorder.target
        connection = http.client.HTTPConnection(target.hostname or "", target.port, timeout=300)
        headers = {name: value for name, value in self.headers.items() if name.lower() not in {*_HOP, "host"}}
        headers["accept-encoding"] = "identity"  # the recording is text
        try:
            connection.request(self.command, target.path + self.path, body or None, headers)
            reply = connection.getresponse()
            content = reply.read()
        except OSError as error:
            with contextlib.suppress(OSError):  # the client may be gone too
                self.send_error(502, str(error))
            return
        finally:
            connection.close()
        self.recorder.add(
            {
                "request": {
                    "method": self.command,
                    "path": self.path,
                    "headers": _kept_headers(dict(self.headers.items()), _SENT),
                    "body": _text(body),
                },
                "response": {
                    "status": reply.status,
                    "headers": _kept_headers(dict(reply.getheaders()), _ANSWERED),
                    "body": _text(content),
                },
            }
        )
        self.send_response(reply.status)
        for name, value in reply.getheaders():
            if name.lower() not in {*_HOP, "date", "server"}:
                self.send_header(name, value)
        self.send_header("content-length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    do_GET = do_POST = _forward

    def _chunks(self) -> bytes:
        parts = []
        while size := int(self.rfile.readline().split(b";")[0], 16):
            parts.append(self.rfile.read(size))
            self.rfile.readline()
        self.rfile.readline()
        return b"".join(parts)

    def log_message(self, *arguments: Any) -> None:
        """Print nothing: the recording is the log."""


def _kept_headers(headers: dict[str, str], names: tuple[str, ...]) -> dict[str, str]:
    lower = {name.lower(): value for name, value in headers.items()}
    shown = {name: _CREDENTIAL.get(name, lower[name]) for name in names if name in lower}
    return shown | {name: value for name, value in lower.items() if name.startswith(("x-rerank-", "x-compute-"))}


def _text(body: bytes) -> Any:
    """Return the JSON of a body, else its text."""
    try:
        return json.loads(body)
    except ValueError:
        return body.decode("utf-8", "replace")


@contextlib.contextmanager
def recording(target: str) -> Iterator[Recorder]:
    """Run a proxy before the server at `target`; its address is the recorder's `url`."""
    recorder = Recorder(target)
    proxy = type("Proxy", (_Proxy,), {"recorder": recorder})
    with ThreadingHTTPServer(("127.0.0.1", 0), proxy) as server:
        server.daemon_threads = True
        recorder.url = f"http://127.0.0.1:{server.server_port}"
        thread = threading.Thread(target=server.serve_forever, daemon=True)
        thread.start()
        try:
            yield recorder
        finally:
            server.shutdown()
            thread.join()
