"""What the JSON of a reply says: scores, or what went wrong; and how large a reply may be."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

from .errors import BadResponse
from .types import RerankRequest

__all__ = ["explanation", "read", "reply_limit"]


def reply_limit(request: RerankRequest) -> int:
    """Return the bytes that a reply to `request` may have: far more than scores need, with the documents sent back."""
    sent = len(request.query) + sum(map(len, request.documents))
    return 16 * 2**20 + 4096 * len(request.documents) + 6 * sent  # JSON writes a character in up to 6 bytes


def read(decode: Callable[[Any], Iterable[tuple[int, float]]], body: Any, backend: str) -> list[tuple[int, float]]:
    """Return `decode(body)` as a list; a body of another shape is `BadResponse`, not a KeyError."""
    try:
        return list(decode(body))
    except (KeyError, TypeError, ValueError, AttributeError, IndexError) as error:
        raise BadResponse(
            f"{backend} answered JSON of an unknown shape ({type(error).__name__}: {error}). Check that `base_url` is "
            "the address of this vendor's rerank API.",
            backend=backend,
        ) from error


def explanation(body: Any) -> str:
    """Return the sentence in which the vendors say what went wrong: `message`, `detail` or `error`, nested or not."""
    if isinstance(body, str):
        return body
    if isinstance(body, list):
        return "; ".join(filter(None, (explanation(each) for each in body[:3])))
    if isinstance(body, dict):
        return next((text for key in ("message", "detail", "error", "msg") if (text := explanation(body.get(key)))), "")
    return ""
