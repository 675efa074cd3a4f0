"""A JSON server on loopback, for the stores that cannot run here."""

import json
import threading
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

Answer = Callable[[str, str, list[Any]], tuple[int, Any]]
"""From method, path and the JSON documents of the request body to status and reply."""


def serve(answer: Answer, headers: dict[str, str]) -> str:
    """Start a server that ends with this process, and return its URL."""

    class Connection(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def reply(self) -> None:
            body = self.rfile.read(int(self.headers["content-length"] or 0))
            documents = [json.loads(line) for line in body.splitlines() if line.strip()]
            status, reply = answer(self.command, self.path.partition("?")[0], documents)
            content = json.dumps(reply).encode()
            self.send_response(status)
            for name, value in {"content-length": str(len(content)), **headers}.items():
                self.send_header(name, value)
            self.end_headers()
            if self.command != "HEAD":
                self.wfile.write(content)

        do_GET = do_HEAD = do_POST = do_PUT = reply  # noqa: N815 (names of http.server)

        def log_message(self, *arguments: object) -> None:
            """Print nothing."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Connection)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    return f"http://127.0.0.1:{server.server_port}"
