"""A vendor's local server in a separate process, so that it does not share the interpreter lock with the client."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager

from rerank_plugins.testing.cohere_like import CohereLike
from rerank_plugins.testing.server import VendorServer
from rerank_plugins.testing.vendors import VENDORS

SERVERS: dict[str, type[VendorServer]] = {**VENDORS, "http": CohereLike}


@contextmanager
def vendor_process(name: str) -> Iterator[tuple[str, str]]:
    """Run the server of the backend `name` and yield its URL and its key."""
    process = subprocess.Popen(
        [sys.executable, __file__, name], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert process.stdin is not None
    assert process.stdout is not None
    try:
        url, key = json.loads(process.stdout.readline())
        yield url, key
    finally:
        process.stdin.close()
        process.wait(30)
        process.stdout.close()


if __name__ == "__main__":
    with SERVERS[sys.argv[1]]() as server:
        print(json.dumps([server.url, server.key]), flush=True)
        sys.stdin.read()
