"""HTTP without I/O: typed errors for statuses, `Retry-After`, parsing of JSON, and joining of URLs."""

from __future__ import annotations

import functools
import json
import re
import socket
import ssl
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol
from urllib.parse import urlsplit, urlunsplit

from ._runtime.text_work import SLICE_CHARACTERS, check_cancelled
from .address import proxy_variable
from .errors import AuthenticationFailed, BackendError, BadResponse, RateLimited, Rejected, TransientError, clause

__all__ = [
    "HTTPResponse",
    "Transport",
    "connection_advice",
    "error_for",
    "error_for_status",
    "integer_or_none",
    "join_url",
    "parse_json",
    "retry_after",
]

TRANSIENT_STATUSES = frozenset({408, 409, 425})  # and every 5xx
AUTHENTICATION_STATUSES = frozenset({401, 403, 498})  # 498: Cohere's "invalid token"


_TOO_LONG = re.compile(
    r"too (long|large|big|many tokens)|context (length|window|size)"
    r"|max(imum)?[ _](context|sequence|token|input|model|length)"
    r"|token limit|(less|fewer) than \d+ tokens|exceeds? the (limit|maximum)|larger than|longer than",
    re.IGNORECASE,
)
"""Error messages for texts that are too long: vLLM, TEI, llama.cpp, Infinity, and vendors."""


_WRONG_MODEL = re.compile(
    r"model.{0,80}?(\bnot|_not|n't|unknown|invalid|unsupported|unavailable|wrong|no longer|deprecated|retired)"
    r"|(unknown|invalid|unsupported|no such|not an? (valid|known|supported)) (\w+ )?model|模型.{0,20}不",
    re.IGNORECASE,
)
"""Error messages about a model that a vendor does not have. Many send them with status 400."""


@dataclass(frozen=True, slots=True)
class HTTPResponse:
    """A complete reply; names of headers in lower case."""

    status: int
    body: bytes
    headers: Mapping[str, str] = field(default_factory=dict)


class Transport(Protocol):
    """Sends requests. The core does not depend on an HTTP client; transport.py implements this with httpx."""

    async def post(
        self, url: str, payload: Mapping[str, Any] | bytes, headers: Mapping[str, str], *, limit: int | None = None
    ) -> HTTPResponse:
        """POST `payload` as JSON and return the reply.

        Args:
            url: The address. Its query may hold credentials: it is sent, but never logged or shown in an error.
            payload: The body; bytes are JSON already, for requests that are signed.
            headers: Headers to add.
            limit: Largest size of the decompressed reply in bytes; `None` is the transport's own limit.

        Raises:
            TransientError: No reply came.
            BadResponse: The reply is larger than `limit`.
        """

    async def get(self, url: str, headers: Mapping[str, str]) -> HTTPResponse:
        """GET what a server says about itself; arguments and errors as of `post`."""

    async def aclose(self) -> None:
        """Close every connection."""


KEY_ADVICE = "Check the key (`api_key`)."


def error_for(
    response: HTTPResponse,
    *,
    backend: str,
    explanation: str,
    transient: frozenset[int] = frozenset(),
    url: str | None = None,
    key_advice: str = KEY_ADVICE,
    settings: str = "",
) -> BackendError:
    """Return the typed error for a reply whose status is not 2xx.

    Args:
        response: The reply.
        backend: Label of the backend, for the message.
        explanation: The vendor's error message from the body.
        transient: Statuses below 500 that this vendor sends for failures that may pass.
        url: The address of the request, without credentials.
        key_advice: What to check where the key is refused.
        settings: A sentence that names the backend's settings to check where an address or a request is refused.
    """
    if not explanation and response.body.lstrip()[:1] == b"<":
        explanation = "a web page, not JSON"
    return error_for_status(
        response.status,
        response.headers,
        backend=backend,
        explanation=explanation,
        transient=transient,
        url=url,
        key_advice=key_advice,
        settings=settings,
    )


def error_for_status(
    status: int,
    headers: Mapping[str, str],
    *,
    backend: str,
    explanation: str,
    transient: frozenset[int] = frozenset(),
    url: str | None = None,
    key_advice: str = KEY_ADVICE,
    settings: str = "",
    address_option: str = "base_url",
) -> BackendError:
    """Return the typed error for an HTTP status that is not 2xx; see `error_for`.

    Args:
        status: The status.
        headers: Those of the reply, with names in lower case.
        backend: Label of the backend.
        explanation: The vendor's error message.
        transient: Statuses below 500 for failures that may pass.
        url: The address of the request, without credentials.
        key_advice: What to check where the key is refused.
        settings: What else to check where an address or a request is refused.
        address_option: The option that the address comes from.
    """
    explanation = clause(explanation)
    where = f" The request went to {url}." if url else ""
    settings = f" {settings}" if settings else ""
    problem = f"{backend} answered {status}" + (f": {explanation}" if explanation else "") + "."
    names = ("x-request-id", "request-id", "x-typesafe-request-id", "cf-ray")
    request_id = next((value for name in names if (value := headers.get(name))), None)

    is_rerank = address_option == "base_url"
    what = "a rerank API" if is_rerank else "a server of tokens"

    def make(kind: type[BackendError], advice: str, wait: float | None = None) -> BackendError:
        return kind(f"{problem} {advice}", backend=backend, status=status, retry_after=wait, request_id=request_id)

    if status == 429:
        return make(RateLimited, "Send fewer requests, or raise `retry`, or name a `fallback`.", retry_after(headers))
    if status in TRANSIENT_STATUSES or status in transient or status >= 500:
        if status == 501 or explanation == "a web page, not JSON":
            advice = (
                f"This does not look like {what}: check `{address_option}`.{where} If it is one, it may pass: name "
                "a `fallback` in the spec."
            )
            return make(TransientError, advice, retry_after(headers))
        return make(
            TransientError, "It may pass: raise `retry` or name a `fallback` in the spec.", retry_after(headers)
        )
    if status in AUTHENTICATION_STATUSES:
        return make(AuthenticationFailed, f"{key_advice}{settings}")
    if status == 402:
        return make(Rejected, "The account has no credit left: top it up, or change the backend.")
    if status == 407:
        name = (proxy_variable(url) if url else "") or "HTTPS_PROXY or HTTP_PROXY"
        return make(
            Rejected, f"A proxy asks for a user and a password: write them into {name}, as http://user:password@…."
        )
    if status in (404, 405):
        named = "the model's name and " if is_rerank else ""
        return make(Rejected, f"Check {named}`{address_option}`.{settings}{where}")
    if 300 <= status < 400:
        return make(Rejected, f"It redirects: set `{address_option}` to the address it names.{where}")
    if 200 <= status < 300:
        return make(BadResponse, "Expected a JSON body of scores.")
    if status == 413 or (status in (400, 422) and _TOO_LONG.search(explanation)):
        return make(
            Rejected,
            "The request is too large for it: name its limit in the backend's own options (`max_tokens` or "
            "`max_bytes`, where it has them), so that longer documents are cut here and marked `truncated`, or set "
            "`long_documents` to 'chunk'. A `fallback` answers for this with `on`: ['rejected'].",
        )
    model = " Check the model's name (`use`)." if is_rerank and _WRONG_MODEL.search(explanation) else ""
    return make(Rejected, f"The request is refused as it is: sending it again will not help.{model}{settings}")


def retry_after(headers: Mapping[str, str]) -> float | None:
    """Return the seconds that a reply asks to wait, or `None` if it does not ask.

    The first of these headers counts: `retry-after-ms` (milliseconds), `retry-after` (seconds, also fractions, or an
    HTTP date: RFC 9110, section 10.2.3), `x-ratelimit-reset` (epoch seconds, as the cohere SDK 7.3.1 reads it, or
    milliseconds), `ratelimit-reset`, `x-ratelimit-reset-requests` and `x-ratelimit-reset-tokens` (seconds from now, or
    durations such as "1m30s" and "20ms", as OpenAI-like gateways write them).
    """
    milliseconds = _number(headers.get("retry-after-ms"))
    if milliseconds is not None:
        return max(0.0, milliseconds / 1000.0)
    text = headers.get("retry-after")
    if text is not None:
        seconds = _number(text)
        if seconds is not None:
            return max(0.0, seconds)
        if (moment := _date(text)) is not None:
            return max(0.0, moment - time.time())
    for name in ("x-ratelimit-reset", "ratelimit-reset", "x-ratelimit-reset-requests", "x-ratelimit-reset-tokens"):
        if (reset := _duration(headers.get(name))) is not None:
            epoch = reset / 1000.0 if reset > 1e11 else reset
            return max(0.0, epoch - time.time()) if epoch > 1e9 else reset
    return None


def _date(text: str) -> float | None:
    """Return the epoch seconds of an HTTP date, or `None`. A date without a time zone is UTC."""
    import email.utils  # imported here: it takes a tenth of this package's import time, for a rare header
    from datetime import UTC

    try:
        date = email.utils.parsedate_to_datetime(text)
        return (date if date.tzinfo else date.replace(tzinfo=UTC)).timestamp()
    except (ValueError, TypeError, OverflowError):
        return None


def _number(text: str | None) -> float | None:
    try:
        value = float(text) if text is not None else None
    except ValueError:
        return None
    return value if value is not None and value == value and abs(value) != float("inf") else None


_UNITS = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0}


def _duration(text: str | None) -> float | None:
    if text is None or not text.strip():
        return None
    if (seconds := _number(text)) is not None:
        return max(0.0, seconds)
    total, number, unit = 0.0, "", ""
    for character in text.strip() + "0":
        if (character.isdigit() or character == ".") and unit:
            if unit not in _UNITS or _number(number) is None:
                return None
            total, number, unit = total + float(number) * _UNITS[unit], "", ""
        if character.isdigit() or character == ".":
            number += character
        else:
            unit += character
    return total


def parse_json(response: HTTPResponse, *, backend: str, url: str | None = None) -> Any:
    """Parse the body of a reply as JSON.

    Raises:
        BadResponse: The body is not JSON: an HTML page, a truncated text.
    """
    try:
        if len(response.body) <= SLICE_CHARACTERS:
            return json.loads(response.body)
        # The parser holds the interpreter lock except while it calls back. These callbacks run for each object and
        # number.
        return json.loads(response.body, object_hook=_object, parse_float=_float, parse_int=_integer)
    except (ValueError, RecursionError) as error:
        start = response.body[:60].decode("utf-8", "replace")
        raise BadResponse(
            f"{backend} answered {response.status} with a body that is not JSON (it begins {start!r}). "
            "Check `base_url`: a proxy or a web page may be answering in its place."
            + (f" The request went to {url}." if url else ""),
            backend=backend,
            status=response.status,
        ) from error


def _object(value: dict[str, Any]) -> dict[str, Any]:
    check_cancelled()
    return value


def _float(text: str) -> float:
    return float(text)


def _integer(text: str) -> int:
    return int(text)


def integer_or_none(value: Any) -> int | None:
    """Return a count in a reply as an `int`, or `None` if it is not an integer: a wrong count must not fail a call."""
    # Python refuses to parse thousands of digits, and no count has more than a few.
    if (isinstance(value, str) and value.isdecimal() and len(value) < 20) or (
        isinstance(value, float) and value.is_integer()
    ):
        return int(value)
    return value if isinstance(value, int) and not isinstance(value, bool) else None


@functools.lru_cache(maxsize=256)
def join_url(base: str, path: str) -> str:
    """Return `base` + `path`. If the base already ends with the beginning of the path, that is not repeated.

    >>> join_url("http://host", "/v1/rerank")
    'http://host/v1/rerank'
    >>> join_url("http://host/v1", "/v1/rerank")
    'http://host/v1/rerank'
    """
    parts = urlsplit(base)
    head = [segment for segment in parts.path.split("/") if segment]
    tail = [segment for segment in path.split("/") if segment]
    overlap = next((size for size in range(min(len(head), len(tail)), 0, -1) if head[-size:] == tail[:size]), 0)
    return urlunsplit((parts.scheme, parts.netloc, "/" + "/".join(head + tail[overlap:]), parts.query, ""))


def connection_advice(error: BaseException, proxy: str = "", address_option: str = "base_url") -> str:
    """Return the cause of a connection error as far as it is clear, and what to do about it.

    Args:
        error: The error that an HTTP client raised in place of a reply.
        proxy: Name of the environment variable that sets the proxy (see `proxy_variable`); "" without one. With a
            proxy, the client connects to the proxy only, so connection errors concern the proxy, not the host of
            `base_url`.
        address_option: The option that the address comes from.
    """
    chain = list(_chain(error))
    texts = " ".join(map(str, chain))
    closing = "It may pass: raise `retry` or name a `fallback` in the spec"
    if any(isinstance(member, socket.gaierror) for member in chain):
        if proxy:
            advice = f"The host of the proxy that {proxy} names cannot be resolved (DNS): check {proxy}, or unset it."
        else:
            advice = (
                f"The name of the host cannot be resolved (DNS): check the spelling of `{address_option}`, and this "
                "machine's DNS."
            )
    elif "CERTIFICATE_VERIFY_FAILED" in texts or "certificate verify failed" in texts:
        advice = (
            "The server's certificate is not trusted: set SSL_CERT_FILE to a file with the certificate of the "
            f"authority that signed it, or check `{address_option}`."
        )
    elif any(isinstance(member, ssl.SSLError) for member in chain) or "[SSL:" in texts:
        advice = (
            f"TLS failed: the server may speak plain HTTP on this port. Check whether `{address_option}` starts with "
            "http:// or https://."
        )
    elif any(isinstance(member, ConnectionRefusedError) for member in chain) or "Connection refused" in texts:
        if proxy:
            advice = f"Nothing listens there: check host and port of the proxy that {proxy} names, or unset {proxy}."
        else:
            advice = f"Nothing listens there: check the host and port of `{address_option}`, and that the server runs."
    elif proxy and any(type(member).__name__ in ("ProxyError", "ClientHttpProxyError") for member in chain):
        advice = f"The proxy that {proxy} names refuses to connect: check its address, user and password."
    elif "\\x15\\x03" in texts or "illegal status line" in texts or "Bad status line" in texts:
        at = f"the proxy that {proxy} names" if proxy else f"`{address_option}`"
        advice = (
            f"What answered does not speak HTTP: it may speak TLS. Check the port of {at}, and whether it starts with "
            "http:// or https://."
        )
    elif proxy:
        return f"{closing}, and check `{address_option}` and the proxy that {proxy} names."
    else:
        return f"{closing}, and check `{address_option}`."
    return f"{advice} {closing}."


def _chain(error: BaseException) -> Iterator[BaseException]:
    """Yield an error, its causes and contexts, and the members of exception groups among them."""
    pending, seen = [error], set[int]()
    while pending:
        current = pending.pop()
        if id(current) in seen:
            continue
        seen.add(id(current))
        yield current
        related = (current.__cause__, current.__context__, getattr(current, "os_error", None))  # aiohttp sets os_error
        pending += [other for other in related if isinstance(other, BaseException)]
        pending += current.exceptions if isinstance(current, BaseExceptionGroup) else ()
