"""Read the JSON of a reply: scores, or the vendor's error; and the largest size of a reply."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any

from .errors import BadResponse
from .types import RerankRequest, Usage
from .wire import integer_or_none

__all__ = [
    "SHAPE_ERRORS",
    "error_codes",
    "explanation",
    "reply_limit",
    "reported_error",
    "reported_usage",
    "token_count",
    "too_many_tokens",
    "unit_count",
    "unknown_shape",
]


def reply_limit(request: RerankRequest) -> int:
    """Return the largest size in bytes of a reply to `request`: enough for a vendor that sends the documents back."""
    sent = len(request.query) + sum(map(len, request.documents))
    return 16 * 2**20 + 4096 * len(request.documents) + 6 * sent  # JSON may escape a character in 6 bytes


SHAPE_ERRORS = (KeyError, TypeError, ValueError, AttributeError, IndexError)
"""What `decode` raises for JSON of another shape."""


def unknown_shape(error: Exception, backend: str) -> BadResponse:
    """Return the error for JSON of another shape, from one of `SHAPE_ERRORS`."""
    return BadResponse(
        f"{backend} answered JSON of an unknown shape ({type(error).__name__}: {error}). Check that `base_url` is "
        "the address of this vendor's rerank API.",
        backend=backend,
    )


def reported_usage(body: Any) -> Usage:
    """Return the tokens and search units that the JSON of a reply names, in OpenAI's shape or in Cohere's.

    Zero input tokens mean that nobody counted: every query has some. Bedrock says -1 for the same. Where the reply
    counts output tokens, its total includes them, so the count of the input precedes the total.

    ```python
    assert reported_usage({"usage": {"total_tokens": 7}}).input_tokens == 7
    assert (
        reported_usage({"meta": {"billed_units": {"search_units": 1}, "tokens": {"input_tokens": 9}}}).input_tokens == 9
    )
    assert reported_usage({"usage": {"prompt_tokens": 0, "total_tokens": 0}}).input_tokens is None
    ```
    """
    counts: dict[tuple[str, ...], int] = {}
    units = None
    for path in _COUNTS:  # in one loop, without a function for each path: every call of a vendor runs it
        value = body
        for name in path:
            value = value.get(name) if isinstance(value, Mapping) else getattr(value, name, None)
            if value is None:
                break
        if path is _SEARCH_UNITS:
            units = value
        elif value is not None:
            plain = type(value) is int and 0 <= value <= _LARGEST_COUNT
            if (count := value if plain else token_count(value)) is not None:
                counts[path] = count
    output = next((counts[path] for path in _OUTPUT_COUNTS if path in counts), None)
    read = (*_INPUT_COUNTS, *_TOKEN_COUNTS) if output else _TOKEN_COUNTS
    return Usage(
        input_tokens=next((count for path in read if (count := counts.get(path))), None),
        output_tokens=output,
        cached_tokens=next((counts[path] for path in _CACHED_COUNTS if path in counts), None),
        search_units=None if units is None else unit_count(units),
    )


def token_count(value: Any) -> int | None:
    """Return a number of tokens in a reply; `None` if it can be none. A wrong number must not fail a call.

    >>> token_count(7), token_count("7"), token_count(-1), token_count(10**400)
    (7, 7, None, None)
    """
    number = value if type(value) is int else integer_or_none(value)
    return number if number is not None and 0 <= number <= _LARGEST_COUNT else None


def unit_count(value: Any) -> float | None:
    """Return a number of search units in a reply, which may have a fraction; `None` if it can be none.

    >>> unit_count(0.5), unit_count(-1), unit_count(float("inf"))
    (0.5, None, None)
    """
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    return value if 0 <= value <= _LARGEST_COUNT else None


_LARGEST_COUNT = 2**63
"""The largest count that is believed. Its product with a price is a number."""


_INPUT_COUNTS = (("usage", "prompt_tokens"), ("usage", "input_tokens"))
_OUTPUT_COUNTS = (("usage", "completion_tokens"), ("usage", "output_tokens"))
_CACHED_COUNTS = (
    ("usage", "prompt_tokens_details", "cached_tokens"),
    ("usage", "input_tokens_details", "cached_tokens"),
    ("usage", "cached_tokens"),
)
_TOKEN_COUNTS = (
    ("usage", "total_tokens"),
    *_INPUT_COUNTS,
    ("meta", "billed_units", "total_tokens"),
    ("meta", "billed_units", "input_tokens"),
    ("meta", "tokens", "input_tokens"),
)
_SEARCH_UNITS = ("meta", "billed_units", "search_units")
_COUNTS = (*_TOKEN_COUNTS, *_OUTPUT_COUNTS, *_CACHED_COUNTS, _SEARCH_UNITS)


def explanation(body: Any) -> str:
    """Return the error message in the JSON of a reply, however deep it is nested; "" if there is none.

    >>> explanation({"error": {"message": "no credit", "code": 402}})
    'no credit'
    >>> explanation({"errors": {"documents": ["must not be empty"]}})
    'documents: must not be empty'
    """
    return _explanation(body, inside=False, depth=0)


_MESSAGES = (
    *("message", "msg", "errormessage", "errormsg", "errordescription", "faultstring", "detail", "details"),
    *("error", "errors", "fault", "exception", "description", "reason", "title"),
)
"""Fields that hold an error or its message, the most specific first; in lower case, without separators."""
_DEPTH = 8


def _explanation(body: Any, *, inside: bool, depth: int) -> str:
    """Implement `explanation`. `inside` an error without a field of `_MESSAGES`, fields of any name are quoted."""
    if isinstance(body, str):
        return body
    if depth == _DEPTH or not isinstance(body, list | dict):
        return ""
    if isinstance(body, list):
        texts = (_explanation(item, inside=inside, depth=depth + 1) for item in body[:3])
        return "; ".join(filter(None, texts))
    fields = {_normalized(key): value for key, value in body.items()}
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
"""HTTP status by parts of the error's name, without separators. The names are those of vendors (https://platform.openai.com/docs/guides/error-codes,
https://docs.claude.com/en/api/errors, https://cloud.google.com/apis/design/errors)."""
_NAME = re.compile(r"[\w.:/#-]{1,100}")


def reported_error(body: Any) -> tuple[int, str] | None:
    """Return the HTTP status that an error in the JSON of a reply stands for, and its name or number in the JSON.

    Some gateways send errors with status 200, with a number (`{"error": {"code": 429}}`) or a name (`{"type":
    "rate_limit_exceeded"}`) in the body. Returns `None` if the body names no known error.
    """
    codes = list(error_codes(body))
    for code in codes:
        status = integer_or_none(code)
        if status is not None and 400 <= status < 600:
            return status, str(status)
    for code in codes:
        if isinstance(code, str) and _NAME.fullmatch(code):
            last = _normalized(
                re.split(r"[/#]", code)[-1]
            )  # the end of a URL (RFC 9457) or of a class with its package
            for status, parts in _KINDS:
                if any(part in last for part in parts):
                    return status, code
    return None


_TOO_MANY_TOKENS = frozenset(
    {
        "context_length_exceeded",  # OpenAI, and most servers in its format
        "string_above_max_length",  # OpenAI, for one text
        "max_tokens_exceeded",  # TypeSafe
        "exceed_context_size_error",  # llama.cpp
        "request_too_large",  # Anthropic
    }
)
_CONTEXT = re.compile(
    r"context (length|window|size)|maximum model length|prompt is too long|too many (input |prompt )?tokens"
    r"|token count .{0,80}exceeds|reduce the length of the (input|messages|prompt)",
    re.IGNORECASE,
)
"""Messages without a code of their own: vLLM and SGLang, llama-cpp-python, Anthropic, Gemini, Groq."""
_MESSAGE = 1_000
"""Characters of a message that are searched: an error may quote a whole document."""


def too_many_tokens(status: int, body: Any) -> bool:
    """Return whether an error says that the request has more tokens than the model reads, so that fewer may pass.

    vLLM and others have no code for it, so the message of a 400, 413 or 422 is searched too.

    Args:
        status: The HTTP status, 400 or above.
        body: The parsed JSON of the reply; `None` if it is not JSON.

    >>> too_many_tokens(400, {"error": {"code": "context_length_exceeded"}})
    True
    >>> too_many_tokens(400, {"error": {"message": "This model's maximum context length is 4096 tokens.", "code": 400}})
    True
    >>> too_many_tokens(400, {"error": {"message": "Unsupported parameter: 'max_tokens'"}})
    False
    """
    if any(code in _TOO_MANY_TOKENS for code in error_codes(body)):
        return True
    return status in (400, 413, 422) and _CONTEXT.search(explanation(body)[:_MESSAGE]) is not None


def error_codes(body: Any, depth: int = 0) -> Iterator[str | int | float]:
    """Yield names and numbers of errors, innermost first. Only error fields are searched: others may hold documents."""
    if isinstance(body, list):
        body = body[0] if body else None
    if not isinstance(body, dict) or depth == _DEPTH:
        return
    for key, value in body.items():
        if _normalized(key) in _MESSAGES:
            yield from error_codes(value, depth + 1)
    for key, value in body.items():
        if _normalized(key) in _CODES and isinstance(value, str | int | float):
            yield value


def _normalized(name: Any) -> str:
    return re.sub(r"[-_. ]", "", str(name)).lower()
