"""HTTP as data: what a reply's status means, when to come back, and how addresses join. No I/O."""

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

from .address import proxy_variable
from .errors import AuthenticationFailed, BackendError, BadResponse, RateLimited, Rejected, TransientError, clause
from .text_work import SLICE, check_cancelled

__all__ = [
    "HTTPResponse",
    "Transport",
    "connection_advice",
    "error_for",
    "error_for_status",
    "join_url",
    "parse_json",
    "retry_after",
    "whole_number",
]

TRANSIENT_STATUSES = frozenset({408, 409, 425})  # and every 5xx
AUTHENTICATION_STATUSES = frozenset({401, 403, 498})  # 498: Cohere's "invalid token"


_TOO_LONG = re.compile(
    r"too (long|large|big|many tokens)|context (length|window|size)|max(imum)?[ _](context|sequence|token|input|model|length)"
    r"|token limit|(less|fewer) than \d+ tokens|exceeds? the (limit|maximum)|larger than|longer than",
    re.IGNORECASE,
)
"""How servers say that a text is longer than they read: vLLM, TEI, llama.cpp, Infinity, and vendors."""


@dataclass(frozen=True, slots=True)
class HTTPResponse:
    """A reply, read to its end; header names in lower case."""

    status: int
    body: bytes
    headers: Mapping[str, str] = field(default_factory=dict)


class Transport(Protocol):
    """Sends one request; the core is given one and knows no HTTP client."""

    async def post(
        self, url: str, payload: Mapping[str, Any], headers: Mapping[str, str], *, limit: int | None = None
    ) -> HTTPResponse:
        """POST `payload` as JSON and return the reply.

        Args:
            url: Its query may hold credentials: it is sent, and neither logged nor shown in an error.
            payload: The body.
            headers: More headers.
            limit: Bytes that the unpacked reply may have; `None` is the transport's own limit.

        Raises:
            TransientError: No reply came.
            BadResponse: The reply is larger than `limit`.
        """

    async def aclose(self) -> None:
        """Close every connection."""


def error_for(
    response: HTTPResponse,
    *,
    backend: str,
    explanation: str,
    transient: frozenset[int] = frozenset(),
    url: str | None = None,
) -> BackendError:
    """Return the typed error of a reply whose status is not 2xx.

    Args:
        response: The reply.
        backend: The spec of the backend, for the message.
        explanation: What the vendor said in its body.
        transient: More statuses that may pass, by this vendor's own meaning of them.
        url: The address of the request, without credentials.
    """
    if not explanation and response.body.lstrip()[:1] == b"<":
        explanation = "a web page, not JSON"
    return error_for_status(
        response.status, response.headers, backend=backend, explanation=explanation, transient=transient, url=url
    )


def error_for_status(
    status: int,
    headers: Mapping[str, str],
    *,
    backend: str,
    explanation: str,
    transient: frozenset[int] = frozenset(),
    url: str | None = None,
) -> BackendError:
    """Return the typed error of an HTTP status that is not 2xx; header names in lower case."""
    explanation = clause(explanation)
    where = f" {url} was asked." if url else ""
    told = f"{backend} answered {status}" + (f": {explanation}" if explanation else "") + "."
    request_id = headers.get("x-request-id") or headers.get("request-id") or headers.get("cf-ray")

    def make(kind: type[BackendError], advice: str, wait: float | None = None) -> BackendError:
        return kind(f"{told} {advice}", backend=backend, status=status, retry_after=wait, request_id=request_id)

    if status == 429:
        return make(RateLimited, "Send fewer requests, or raise `retry`, or name a `fallback`.", retry_after(headers))
    if status in TRANSIENT_STATUSES or status in transient or status >= 500:
        if status == 501 or explanation == "a web page, not JSON":
            advice = (
                f"This does not look like a rerank API: check `base_url`.{where} If it is one, it may pass: name a "
            )
            return make(TransientError, f"{advice}`fallback` in the spec.", retry_after(headers))
        return make(
            TransientError, "It may pass: raise `retry` or name a `fallback` in the spec.", retry_after(headers)
        )
    if status in AUTHENTICATION_STATUSES:
        return make(AuthenticationFailed, "Check the key (`api_key`, or the backend's environment variable).")
    if status == 402:
        return make(Rejected, "The account has no credit left: top it up, or change the backend.")
    if status == 407:
        name = (proxy_variable(url) if url else "") or "HTTPS_PROXY or HTTP_PROXY"
        return make(
            Rejected, f"A proxy asks for a user and a password: write them into {name}, as http://user:password@…."
        )
    if status in (404, 405):
        return make(Rejected, f"Check the model's name and `base_url`.{where}")
    if 300 <= status < 400:
        return make(Rejected, f"It redirects: set `base_url` to the address it names.{where}")
    if 200 <= status < 300:
        return make(BadResponse, "Expected a JSON body of scores.")
    if status == 413 or (status in (400, 422) and _TOO_LONG.search(explanation)):
        return make(
            Rejected,
            "The request is too large for it: name its limit in the backend's own options (`max_tokens` or `max_bytes`, "
            "where it has them), so that longer documents are cut here and marked `truncated`, or set `long_documents` to "
            "'chunk'. A `fallback` answers for this with `on`: ['rejected'].",
        )
    return make(Rejected, "The request is refused as it is: sending it again will not help.")


def retry_after(headers: Mapping[str, str]) -> float | None:
    """Return the seconds a reply asks to wait, or `None`.

    Reads `retry-after-ms` (milliseconds), `retry-after` (seconds, fractions of them, or an HTTP date: RFC 9110,
    10.2.3), then `x-ratelimit-reset` (epoch seconds, as the cohere SDK 7.3.1 reads it, or milliseconds), `ratelimit-reset`
    and `x-ratelimit-reset-requests`, `-tokens`: seconds from now, or "1m30s" and "20ms" as OpenAI-like gateways write it.
    """
    milliseconds = _number(headers.get("retry-after-ms"))
    if milliseconds is not None:
        return max(0.0, milliseconds / 1000.0)
    told = headers.get("retry-after")
    if told is not None:
        seconds = _number(told)
        if seconds is not None:
            return max(0.0, seconds)
        if (moment := _date(told)) is not None:
            return max(0.0, moment - time.time())
    for name in ("x-ratelimit-reset", "ratelimit-reset", "x-ratelimit-reset-requests", "x-ratelimit-reset-tokens"):
        if (reset := _duration(headers.get(name))) is not None:
            epoch = reset / 1000.0 if reset > 1e11 else reset
            return max(0.0, epoch - time.time()) if epoch > 1e9 else reset
    return None


def _date(text: str) -> float | None:
    """Return the epoch seconds of an HTTP date; one that names no zone is of Greenwich, whatever this machine's is."""
    import email.utils  # a tenth of this package's import time, for a rare header
    from datetime import UTC

    try:
        found = email.utils.parsedate_to_datetime(text)
        return (found if found.tzinfo else found.replace(tzinfo=UTC)).timestamp()
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
    """Return the body as JSON.

    Raises:
        BadResponse: The body is something else (an HTML page, a cut text).
    """
    try:
        if len(response.body) <= SLICE:
            return json.loads(response.body)
        # The parser keeps the interpreter lock except where it calls back: for each object and number here.
        return json.loads(response.body, object_hook=_object, parse_float=_float, parse_int=_integer)
    except (ValueError, RecursionError) as error:
        start = response.body[:60].decode("utf-8", "replace")
        raise BadResponse(
            f"{backend} answered {response.status} with a body that is not JSON (it begins {start!r}). "
            "Check `base_url`: a proxy or a web page may be answering in its place."
            + (f" {url} was asked." if url else ""),
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


def whole_number(value: Any) -> int | None:
    """Return a count that a vendor tells, or `None`: what is told oddly must not spoil a right answer."""
    if (isinstance(value, str) and value.isdecimal()) or (isinstance(value, float) and value.is_integer()):
        return int(value)
    return value if isinstance(value, int) and not isinstance(value, bool) else None


@functools.lru_cache(maxsize=256)
def join_url(base: str, path: str) -> str:
    """Return `base` + `path`, where a base that already ends in the beginning of the path does not repeat it.

    `http://h` and `http://h/v1` and `http://h/v1/rerank` all give `http://h/v1/rerank` for the path `/v1/rerank`.
    """
    parts = urlsplit(base)
    have = [segment for segment in parts.path.split("/") if segment]
    want = [segment for segment in path.split("/") if segment]
    overlap = next((size for size in range(min(len(have), len(want)), 0, -1) if have[-size:] == want[:size]), 0)
    return urlunsplit((parts.scheme, parts.netloc, "/" + "/".join(have + want[overlap:]), parts.query, ""))


def connection_advice(error: BaseException, proxy: str = "") -> str:
    """Return what an error of a connection says about its cause, and what to do.

    Args:
        error: What an HTTP client raised in place of a reply.
        proxy: The variable that names the proxy in between (see `proxy_variable`); "" where there is none. It is
            connected to in place of the host of `base_url`, so it is to blame where there is no connection.
    """
    chain = list(_chain(error))
    texts = " ".join(str(each) for each in chain)
    closing = "It may pass: raise `retry` or name a `fallback` in the spec"
    if any(isinstance(each, socket.gaierror) for each in chain):
        if proxy:
            advice = f"The host of the proxy that {proxy} names cannot be resolved (DNS): check {proxy}, or unset it."
        else:
            advice = (
                "The name of the host cannot be resolved (DNS): check the spelling of `base_url`, and this machine's "
                "DNS."
            )
    elif "CERTIFICATE_VERIFY_FAILED" in texts or "certificate verify failed" in texts:
        advice = (
            "The server's certificate is not trusted: set SSL_CERT_FILE to a file with the certificate of the authority "
            "that signed it, or check `base_url`."
        )
    elif any(isinstance(each, ssl.SSLError) for each in chain) or "[SSL:" in texts:
        advice = (
            "TLS failed: the server may speak plain HTTP on this port. Check whether `base_url` starts with http:// "
            "or https://."
        )
    elif any(isinstance(each, ConnectionRefusedError) for each in chain) or "Connection refused" in texts:
        if proxy:
            advice = f"Nothing listens there: check host and port of the proxy that {proxy} names, or unset {proxy}."
        else:
            advice = "Nothing listens there: check the host and port of `base_url`, and that the server runs."
    elif proxy and any(type(each).__name__ in ("ProxyError", "ClientHttpProxyError") for each in chain):
        advice = f"The proxy that {proxy} names refuses to connect: check its address, user and password."
    elif "\\x15\\x03" in texts or "illegal status line" in texts or "Bad status line" in texts:
        at = f"the proxy that {proxy} names" if proxy else "`base_url`"
        advice = (
            f"What answered does not speak HTTP: it may speak TLS. Check the port of {at}, and whether it starts with "
            "http:// or https://."
        )
    elif proxy:
        return f"{closing}, and check `base_url` and the proxy that {proxy} names."
    else:
        return f"{closing}, and check `base_url`."
    return f"{advice} {closing}."


def _chain(error: BaseException) -> Iterator[BaseException]:
    """Yield an error, its causes, and the members of groups among them."""
    waiting, seen = [error], set[int]()
    while waiting:
        each = waiting.pop()
        if id(each) in seen:
            continue
        seen.add(id(each))
        yield each
        inner = (each.__cause__, each.__context__, getattr(each, "os_error", None))  # aiohttp has the last one
        waiting += [one for one in inner if isinstance(one, BaseException)]
        waiting += each.exceptions if isinstance(each, BaseExceptionGroup) else ()
