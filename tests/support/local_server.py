"""Serve a reranker with uvicorn in a thread of the test, on a free port of this machine."""

from __future__ import annotations

import contextlib
import socket
import threading
from collections.abc import Iterator
from typing import Any

import uvicorn

from rerank_plugins.serving.app import application
from rerank_plugins.serving.limits import Limits
from rerank_plugins.serving.server import Settings


@contextlib.contextmanager
def served(reranker: Any, **options: Any) -> Iterator[str]:
    """Serve `reranker` and yield the URL."""
    app = application(reranker, **options)
    config = Settings(app, options.get("limits", Limits()), log_config=None)
    server = uvicorn.Server(config)
    with socket.create_server(("127.0.0.1", 0)) as listener:
        # A small buffer, so that a slow reader blocks the server on any system.
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 65536)
        thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]}, daemon=True)
        thread.start()
        try:
            yield f"http://127.0.0.1:{listener.getsockname()[1]}"
        finally:
            server.should_exit = True
            thread.join(10)
    assert not thread.is_alive()
