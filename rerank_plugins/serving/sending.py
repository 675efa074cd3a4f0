"""Write an answer as JSON in pieces, and send it no faster than its client reads: what waits is held once, and counted."""

from __future__ import annotations

import asyncio
import json
from collections import deque
from collections.abc import Iterator, Mapping
from typing import Any

from starlette.types import Receive, Scope, Send

from ..core.text_work import check_cancelled
from .limits import Share

__all__ = ["DROP", "Answer", "encoded"]

DROP = "rerank_plugins.drop"
"""The key of `scope["state"]` under which our server puts a function that ends the connection at once."""
_PIECE = 32_768
"""Characters of an answer that are given to the server at a time, which holds them twice."""
_SLICE = 16_384
"""Characters of a text that are written in one call."""


def encoded(value: Any) -> deque[bytes]:
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


class Answer:
    """A rerank answer as an ASGI application. It owns `share`, and gives it back when the answer is sent or dropped."""

    status_code = 200

    def __init__(self, pieces: deque[bytes], headers: Mapping[str, str], share: Share) -> None:
        """Hold the pieces of the body; `headers` in lower case."""
        self._pieces = pieces
        self._left = sum(map(len, pieces))
        self._headers = {"content-type": "application/json", "content-length": str(self._left), **headers}
        self._share = share
        share.resize(self._left)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Send the answer; `send` waits while the client does not read."""
        task = asyncio.current_task()
        drop = scope.get("state", {}).get(DROP) or (task.cancel if task is not None else None)
        try:
            if drop is not None:
                self._share.sending(drop)
            headers = [(name.encode(), value.encode("latin-1")) for name, value in self._headers.items()]
            await send({"type": "http.response.start", "status": self.status_code, "headers": headers})
            while self._pieces:
                piece = self._pieces.popleft()
                self._left -= len(piece)
                await send({"type": "http.response.body", "body": piece, "more_body": bool(self._pieces)})
                self._share.resize(self._left)
        finally:
            self._share.close()
