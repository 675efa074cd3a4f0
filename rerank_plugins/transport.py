"""The only file that knows an HTTP client: one `httpx.AsyncClient` per backend and event loop."""

from __future__ import annotations

import asyncio
import functools
import importlib.util
import os
import urllib.request
import zlib
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from .core.address import Address, proxy_variable
from .core.call import record_response, response_metadata
from .core.errors import BadResponse, ConfigError, RerankError, TransientError, clause
from .core.json_text import encoded
from .core.loop import PerLoop, Workers
from .core.redaction import redact_logs_of
from .core.text_work import INLINE, run_text_work, size_of
from .core.wire import HTTPResponse, connection_advice

if TYPE_CHECKING:
    import ssl

    import httpx

__all__ = ["HTTPXTransport", "open_client", "prepare", "proxy_error", "too_large", "unreachable"]

LIMIT = 64 * 2**20
"""Bytes of an unpacked reply, where the caller sets no limit."""
_PIECE = 2**20
"""Bytes that are unpacked without a break for the event loop."""

_LOGGERS = ("httpx", *(f"httpcore.{name}" for name in ("connection", "http11", "http2", "proxy", "socks")))
"""They log URLs, and the headers of replies, where a server may repeat a key."""
_PROXY_VARIABLES = ("http_proxy", "https_proxy", "all_proxy")


@functools.cache
def _trusted() -> ssl.SSLContext:
    """Return the certificates to trust. They take 30 ms to read: once in a process, not once a client."""
    import httpx

    try:
        return httpx.create_ssl_context()
    except OSError as error:  # ssl.SSLError, for a file that holds no certificate, is one
        name = next((name for name in ("SSL_CERT_FILE", "SSL_CERT_DIR") if os.environ.get(name)), "SSL_CERT_FILE")
        raise ConfigError(
            f"The certificates that {name} names ({os.environ.get(name, '')}) cannot be read ({type(error).__name__}): "
            f"set {name} to a file of certificates, or unset it."
        ) from error


@functools.cache
def _trusting_nobody() -> ssl.SSLContext:
    """Return a context for addresses without TLS: it reads no certificates, and accepts none."""
    import ssl

    return ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)


@functools.cache
def _quiet_url() -> type[httpx.URL]:
    """Return a class of URLs that are sent whole and shown without their query: httpx logs the URL of each request."""
    import httpx

    class QuietURL(httpx.URL):
        def __str__(self) -> str:
            return str(self.copy_with(query=None))

        def __repr__(self) -> str:
            return f"URL({str(self)!r})"

    return QuietURL


def _import(*, tls: bool) -> None:
    import httpx  # noqa: F401

    redact_logs_of(*_LOGGERS)
    if tls:
        _trusted()


_loader = Workers(1, "rerank-plugins-httpx")
_prepared: set[bool] = set()


async def prepare(url: str) -> None:
    """Import httpx and, for https, read the certificates on a thread: it takes a tenth of a second.

    Raises:
        ConfigError: The certificates cannot be read.
    """
    tls = url.startswith("https")
    if tls not in _prepared:
        await _loader.run(lambda: _import(tls=tls))
        _prepared.add(tls)


def open_client(address: Address, receive: Callable[[HTTPResponse], bytes]) -> httpx.AsyncClient:
    """Return an HTTP client for an SDK that takes one; `prepare` comes first.

    It adds the query and the user of `address` to each request, encodes large bodies off the event loop, and reads a
    reply whole, within the limit of the call under way.

    Args:
        address: Where requests go.
        receive: Takes each reply, and returns the body that the SDK gets to read.

    Raises:
        ConfigError: The environment names a proxy that cannot be used.
    """
    authorization = address.authorization()

    async def complete(request: httpx.Request) -> None:
        if authorization is not None:
            request.headers["authorization"] = authorization
        request.url = _quiet_url()(address.full(str(request.url)))

    async def record(response: httpx.Response) -> None:
        record_response(response.status_code, response.headers.items())

    hooks = {"request": [complete], "response": [record]}
    return _open(address.url, _sdk_client(), receive=receive, event_hooks=hooks)


@functools.cache
def _sdk_client() -> type[httpx.AsyncClient]:
    import httpx

    class SDKClient(httpx.AsyncClient):
        """Encodes and reads in ways that httpx does not: it writes 8 MB of JSON in one call, and reads without a limit."""

        def __init__(self, *, receive: Callable[[HTTPResponse], bytes], **options: Any) -> None:
            super().__init__(**options)
            self.receive = receive

        async def request(self, method: str, url: Any, *, json: Any = None, **options: Any) -> httpx.Response:
            if json is not None:
                size = size_of(json, INLINE)
                options["content"] = await run_text_work(size, encoded, json, size)
                options["headers"] = {"content-type": "application/json", **dict(options.get("headers") or {})}
            sending = {name: options.pop(name) for name in ("auth", "follow_redirects") if name in options}
            request = self.build_request(method, url, **options)
            metadata = response_metadata()
            limit = metadata.limit if metadata is not None else None
            reply = await _exchange(self, request, LIMIT if limit is None else limit, **sending)
            headers = {name: value for name, value in reply.headers.items() if name not in _OF_THE_BYTES}
            return httpx.Response(reply.status, headers=headers, content=self.receive(reply), request=request)

    return SDKClient


_OF_THE_BYTES = ("content-encoding", "content-length", "transfer-encoding")
"""Headers about the bytes of a body as they came, which are wrong once it has been unpacked."""


async def _exchange(client: httpx.AsyncClient, request: httpx.Request, limit: int, **options: Any) -> HTTPResponse:
    """Send a request and return the reply, read to its end; see `read_reply`."""
    response = await client.send(request, stream=True, **options)
    try:
        body = await read_reply(response, limit)
    finally:
        await response.aclose()
    return HTTPResponse(response.status_code, body, {name.lower(): value for name, value in response.headers.items()})


def _open(url: str, kind: type[httpx.AsyncClient] | None = None, **options: Any) -> httpx.AsyncClient:
    import httpx

    kind = kind or httpx.AsyncClient
    options = {
        # No timeout here: one attempt is timed as a whole by its backend, where a dripping body cannot restart the clock.
        "timeout": None,
        # Nor a bound on connections: how many calls are under way is the caller's affair.
        "limits": httpx.Limits(max_connections=None, max_keepalive_connections=64),
        "verify": _trusted() if url.startswith("https") else _trusting_nobody(),
        # What is unpacked with a limit; brotli and zstd, which httpx asks for where it can, have none.
        "headers": {"accept-encoding": "gzip"},
        **options,
    }
    try:
        return kind(**options)
    except (ImportError, ValueError, TypeError, httpx.InvalidURL) as error:
        if urllib.request.proxy_bypass(urlsplit(url).hostname or ""):
            return kind(trust_env=False, **options)
        raise proxy_error(error) from None  # its text may show the proxy's password


def proxy_error(error: Exception | None = None) -> ConfigError:
    """Return the error for proxies of the environment that cannot be used; it names the variable, not its value."""
    names = [name for name in os.environ if name.lower() in _PROXY_VARIABLES and os.environ[name]]
    wrong = [name for name in names if not _usable(os.environ[name])]
    others = [name for name in os.environ if name.lower() == "no_proxy" and os.environ[name]]
    shown = " and ".join(wrong or [*names, *others]) or "the proxy settings of this system"
    if any(os.environ[name].lower().startswith("socks") for name in wrong):
        advice = "a SOCKS proxy needs a package: pip install 'httpx[socks]'"
    else:
        advice = "write it like http://proxy.example:3128"
    kind = "" if error is None else f" ({type(error).__name__})"
    return ConfigError(f"The proxy that {shown} names cannot be used{kind}: {advice}, or unset the variable.")


def _usable(proxy: str) -> bool:
    import httpx

    try:
        scheme = httpx.Proxy(proxy if "://" in proxy else f"http://{proxy}").url.scheme
    except (ValueError, TypeError, httpx.InvalidURL):
        return False
    return not scheme.startswith("socks") or importlib.util.find_spec("socksio") is not None


async def read_reply(response: httpx.Response, limit: int) -> bytes:
    """Return the body of a streamed reply, unpacked.

    Raises:
        BadResponse: It has more than `limit` bytes, or is packed in a way that was not asked for.
    """
    encoding = response.headers.get("content-encoding", "identity").strip().lower()
    if encoding not in ("identity", "", "gzip"):
        raise BadResponse(
            f"The reply is packed as {encoding[:40]!r}, which was not asked for: check what answers at `base_url`."
        )
    unpack = zlib.decompressobj(16 + zlib.MAX_WBITS) if encoding == "gzip" else None
    body = bytearray()
    async for chunk in response.aiter_raw(_PIECE):
        packed = chunk
        while packed:
            if unpack is None:
                piece, packed = packed, b""
            else:
                try:
                    piece = unpack.decompress(packed, _PIECE)
                except zlib.error as error:
                    raise BadResponse(
                        f"The reply cannot be unpacked as gzip ({clause(error)}): check `base_url`."
                    ) from error
                packed = unpack.unconsumed_tail
            body += piece
            if len(body) > limit:
                raise too_large(limit)
            if packed:
                await asyncio.sleep(0)
    return bytes(body)


def too_large(limit: int) -> BadResponse:
    """Return the error for a reply of more than `limit` bytes."""
    return BadResponse(
        f"The reply is larger than {limit // 2**20} MB, far more than scores need: check `base_url`, and what answers "
        "there."
    )


def unreachable(error: Exception, url: str) -> RerankError:
    """Return the error for what httpx raised in place of a reply from `url`."""
    import httpx

    kind = type(error).__name__
    if isinstance(error, httpx.InvalidURL | httpx.UnsupportedProtocol | httpx.LocalProtocolError | UnicodeError):
        return ConfigError(f"{url} cannot be asked ({kind}): check `base_url`, `api_key` and `headers`.")
    advice = connection_advice(error, proxy_variable(url))
    return TransientError(f"No answer from {url} ({kind}{f': {error}' if str(error) else ''}). {advice}")


class HTTPXTransport:
    """Sends JSON with httpx; proxies and certificates come from the environment, as httpx reads it."""

    def __init__(self) -> None:
        """Open nothing before the first request."""
        self._url = ""  # a transport has one backend, and that has one address
        self._clients: PerLoop[httpx.AsyncClient] = PerLoop(lambda: _open(self._url), self._close)

    @staticmethod
    async def _close(client: httpx.AsyncClient) -> None:
        await client.aclose()

    async def post(
        self, url: str, payload: Mapping[str, Any], headers: Mapping[str, str], *, limit: int | None = None
    ) -> HTTPResponse:
        """POST `payload` as JSON to `url` and return the reply, read to its end.

        Raises:
            TransientError: No connection, or one that broke.
            BadResponse: The unpacked reply is larger than `limit` bytes.
            ConfigError: The address, a header, a proxy, the certificates or a value of the body cannot be used at all.
        """
        if url.startswith("https") not in _prepared:
            await prepare(url)
        import httpx

        self._url = shown = url.partition("?")[0]
        client = await self._clients.get()
        size = size_of(payload, INLINE)
        content = await run_text_work(size, encoded, payload, size)
        sent = {"content-type": "application/json", "accept": "application/json", **headers}
        for name, value in sent.items():
            # Checked here, since the client would repeat the value, and so a key, in its error and its log.
            if not (value.isascii() and value.isprintable()):
                raise ConfigError(
                    f"The header {name!r} holds a character that no header can carry, such as a line break: check "
                    "`api_key` and `headers`."
                )
        try:
            request = client.build_request("POST", url, content=content, headers=sent)
            request.url = _quiet_url()(url)
            return await _exchange(client, request, LIMIT if limit is None else limit)
        except (httpx.HTTPError, httpx.InvalidURL, UnicodeError) as error:
            ours = unreachable(error, shown)
            raise ours from (
                error if isinstance(ours, TransientError) else None
            )  # what is wrong in a URL may be secret

    async def aclose(self) -> None:
        """Close the clients of all event loops."""
        await self._clients.aclose()
