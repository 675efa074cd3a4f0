"""Write an answer as JSON in pieces, and send it no faster than the client reads.

The pieces that wait are in memory once, and counted.
"""

from __future__ import annotations

import asyncio
import json
from collections import deque
from collections.abc import Iterator, Mapping
from typing import Any

from starlette.types import Receive, Scope, Send

from ..core._runtime.text_work import check_cancelled
from .limits import BudgetShare

__all__ = ["ABORT_KEY", "StreamingJSON", "encode_json"]

ABORT_KEY = "rerank_plugins.abort"
"""The key in `scope["state"]` of a function that closes the connection immediately. Only our own server sets it."""
_PIECE = 32_768
"""Characters of an answer that uvicorn gets at a time; it holds them twice."""
_SLICE = 16_384
"""Characters of a string that are written in one call."""


def encode_json(value: Any) -> deque[bytes]:
    """Return `value` as JSON in UTF-8, in pieces of some 32 KB.

    Lone surrogates, which a vendor's words may hold, become question marks: UTF-8 has none.

    Raises:
        ValueError: A number that is not finite.
    """
    pieces: deque[bytes] = deque()
    fragments: list[str] = []
    size = 0
    for fragment in _fragments(value):
        fragments.append(fragment)
        size += len(fragment)
        if size >= _PIECE:
            check_cancelled()
            pieces.append("".join(fragments).encode("utf-8", "replace"))
            fragments, size = [], 0
    pieces.append("".join(fragments).encode("utf-8", "replace"))
    return pieces


def _fragments(value: Any) -> Iterator[str]:
    if isinstance(value, str) and len(value) > _SLICE:
        yield '"'
        for start in range(0, len(value), _SLICE):
            yield _json(value[start : start + _SLICE])[1:-1]
        yield '"'
    elif isinstance(value, list):
        yield "["
        for position, each in enumerate(value):
            if position:
                yield ","
            yield from _fragments(each)
        yield "]"
    elif isinstance(value, dict):
        yield "{"
        for position, (key, each) in enumerate(value.items()):
            if position:
                yield ","
            yield from _fragments(key)
            yield ":"
            yield from _fragments(each)
        yield "}"
    else:
        yield _json(value)


_json = json.JSONEncoder(ensure_ascii=False, allow_nan=False).encode


class StreamingJSON:
    """A JSON response in pieces, as an ASGI application. It closes `share` when it is sent or dropped."""

    status_code = 200

    def __init__(self, pieces: deque[bytes], headers: Mapping[str, str], share: BudgetShare) -> None:
        """Hold the pieces of the body; `headers` in lower case."""
        self._pieces = pieces
        self._remaining = sum(map(len, pieces))
        self._headers = {"content-type": "application/json", "content-length": str(self._remaining), **headers}
        self._share = share
        share.resize(self._remaining)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Send the answer; `send` waits while the client does not read."""
        task = asyncio.current_task()
        abort = scope.get("state", {}).get(ABORT_KEY) or (task.cancel if task is not None else None)
        try:
            if abort is not None:
                self._share.start_sending(abort)
            headers = [(name.encode(), value.encode("latin-1")) for name, value in self._headers.items()]
            await send({"type": "http.response.start", "status": self.status_code, "headers": headers})
            while self._pieces:
                piece = self._pieces.popleft()
                self._remaining -= len(piece)
                await send({"type": "http.response.body", "body": piece, "more_body": bool(self._pieces)})
                self._share.resize(self._remaining)
        finally:
            self._share.close()
