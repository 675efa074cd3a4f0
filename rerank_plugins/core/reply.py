"""What the JSON of a reply says: scores, or what went wrong; and how large a reply may be."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator
from typing import Any

from .errors import BadResponse
from .types import RerankRequest
from .wire import whole_number

__all__ = ["explanation", "read", "reply_limit", "reported_error"]


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
    """Return the sentence in which the JSON of a reply says what went wrong, however it is nested; "" where there is none.

    ```python
    assert explanation({"error": {"message": "no credit", "code": 402}}) == "no credit"
    assert explanation({"errors": {"documents": ["must not be empty"]}}) == "documents: must not be empty"
    ```
    """
    return _explanation(body, inside=False, depth=0)


_MESSAGES = (
    *("message", "msg", "errormessage", "errormsg", "errordescription", "faultstring", "detail", "details"),
    *("error", "errors", "fault", "exception", "description", "reason", "title"),
)
"""Names of fields that hold an error or its sentence, the most telling first; lower case, without separators."""
_DEPTH = 8


def _explanation(body: Any, *, inside: bool, depth: int) -> str:
    """See `explanation`; `inside` an error, fields of any name are quoted where none of `_MESSAGES` is there."""
    if isinstance(body, str):
        return body
    if depth == _DEPTH or not isinstance(body, list | dict):
        return ""
    if isinstance(body, list):
        texts = (_explanation(each, inside=inside, depth=depth + 1) for each in body[:3])
        return "; ".join(filter(None, texts))
    fields = {_plain(key): value for key, value in body.items()}
    for name in _MESSAGES:
        if text := _explanation(fields.get(name), inside=True, depth=depth + 1):
            return text
    if not inside:
        return ""
    named = ((key, _explanation(value, inside=True, depth=depth + 1)) for key, value in list(body.items())[:5])
    return "; ".join(f"{key}: {text}" for key, text in named if text)


_CODES = ("code", "status", "statuscode", "errorcode", "type", "errortype", "error")
_KINDS = (
    (429, ("ratelimit", "toomanyrequests", "throttl", "quota", "resourceexhausted")),
    (402, ("insufficientcredit", "insufficientbalance", "insufficientfunds", "paymentrequired", "billing")),
    (401, ("authentication", "unauthenticated", "unauthorized", "invalidapikey", "invalidtoken", "expiredtoken")),
    (403, ("permission", "forbidden", "accessdenied")),
    (503, ("overload", "unavailable", "servererror", "internalerror", "serverbusy", "atcapacity")),
    (504, ("timeout", "timedout")),
    (404, ("notfound",)),
    (400, ("invalidrequest", "invalidargument", "badrequest", "validation")),
)
"""The status that a vendor sends with an error of such a name (https://platform.openai.com/docs/guides/error-codes,
https://docs.claude.com/en/api/errors, https://cloud.google.com/apis/design/errors): parts of names, without separators."""
_NAME = re.compile(r"[\w.:/#-]{1,100}")


def reported_error(body: Any) -> tuple[int, str] | None:
    """Return the HTTP status that an error in the JSON of a reply means, and its name or number there.

    Gateways answer 200 and say it in the body: as a number (`{"error": {"code": 429}}`) or as a name (`{"type":
    "rate_limit_exceeded"}`). `None` where the body names no known error.
    """
    codes = list(_codes(body))
    for code in codes:
        status = whole_number(code)
        if status is not None and 400 <= status < 600:
            return status, str(status)
    for code in codes:
        if isinstance(code, str) and _NAME.fullmatch(code):
            last = _plain(re.split(r"[/#]", code)[-1])  # a URL, as RFC 9457 has it, or a class of a package
            for status, parts in _KINDS:
                if any(part in last for part in parts):
                    return status, code
    return None


def _codes(body: Any, depth: int = 0) -> Iterator[str | int | float]:
    """Yield names and numbers of errors, the innermost first. Only fields of errors are entered: others may be documents."""
    if isinstance(body, list):
        body = body[0] if body else None
    if not isinstance(body, dict) or depth == _DEPTH:
        return
    for key, value in body.items():
        if _plain(key) in _MESSAGES:
            yield from _codes(value, depth + 1)
    for key, value in body.items():
        if _plain(key) in _CODES and isinstance(value, str | int | float):
            yield value


def _plain(name: Any) -> str:
    return re.sub(r"[-_. ]", "", str(name)).lower()
