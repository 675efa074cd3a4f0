"""A server of access tokens on loopback, in the form of IBM Cloud's."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs

API_KEY = "an-api-key-of-ibm-0123456789"


class TokenServer:
    """Answers `API_KEY` with the next of `tokens`; the last one is repeated."""

    def __init__(self, tokens: list[str], seconds: float = 3600.0) -> None:
        """Set the tokens, and how long each is valid."""
        self.tokens = tokens
        self.seconds = seconds
        self.requests: list[dict[str, list[str]]] = []
        self.url = ""
        self.status = 200
        self.message = "played by the test"
        """What it answers beside another status than 200."""
        self.received: list[tuple[str, str | None]] = []
        """Path with query, and the authorization, of each request."""
        self.any_key = False
        """Whether every request gets a token."""

    def answer(self, form: dict[str, list[str]]) -> tuple[int, Any]:
        """Return status and body."""
        self.requests.append(form)
        if self.status != 200:
            return self.status, {"errorCode": "BXNIM0000E", "errorMessage": self.message}
        if not self.any_key and form.get("apikey") != [API_KEY]:
            message = "Provided API key could not be found."
            return 400, {"errorCode": "BXNIM0415E", "errorMessage": message}
        token = self.tokens.pop(0) if len(self.tokens) > 1 else self.tokens[0]
        return 200, {"access_token": token, "token_type": "Bearer", "expires_in": self.seconds}


@contextmanager
def token_server(*tokens: str, seconds: float = 3600.0) -> Iterator[TokenServer]:
    """Run a token server."""
    own = TokenServer(list(tokens), seconds)

    class Answer(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            form = parse_qs(self.rfile.read(int(self.headers["content-length"])).decode())
            own.received.append((self.path, self.headers.get("authorization")))
            status, body = own.answer(form)
            content = json.dumps(body).encode()
            self.send_response(status)
            self.send_header("content-length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)

        def log_message(self, *arguments: Any) -> None:
            """Print nothing."""

    with ThreadingHTTPServer(("127.0.0.1", 0), Answer) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        own.url = f"http://127.0.0.1:{server.server_port}/identity/token"
        try:
            yield own
        finally:
            server.shutdown()
            thread.join()
