"""HTTP with httpx: one `httpx.AsyncClient` per backend and event loop. No other file imports an HTTP client."""

from __future__ import annotations

import asyncio
import contextlib
import functools
import importlib.util
import os
import urllib.request
import zlib
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, TypeVar
from urllib.parse import urlsplit

from .core._runtime.background_loop import PerLoop, Workers
from .core._runtime.text_work import MAX_INLINE_SIZE, approximate_size, run_text_work
from .core.address import Address, proxy_variable
from .core.call import record_response, response_metadata
from .core.errors import BadResponse, ConfigError, RerankError, TransientError, clause
from .core.json_text import encode_json
from .core.redaction import redact_logs_of
from .core.wire import HTTPResponse, connection_advice

if TYPE_CHECKING:
    import ssl

    import httpx

__all__ = [
    "HTTPXTransport",
    "connection_error",
    "open_sdk_client",
    "post_form",
    "prepare_httpx",
    "proxy_error",
    "reply_too_large",
]

C = TypeVar("C", bound="httpx.AsyncClient | httpx.Client")

MAX_REPLY_BYTES = 64 * 2**20
"""Largest reply after decompression, if the caller sets no limit."""
TOKEN_TIMEOUT = 20.0
"""Seconds for one request for an access token."""
MAX_INFO_BYTES = 2**22
"""Largest reply of a server about itself."""
_CHUNK_BYTES = 2**20
"""How much is decompressed before the event loop runs other tasks."""

_LOGGERS = ("httpx", *(f"httpcore.{name}" for name in ("connection", "http11", "http2", "proxy", "socks")))
"""Loggers whose records hold URLs and reply headers. Keys in them are masked: a server may repeat a key."""
_PROXY_VARIABLES = ("http_proxy", "https_proxy", "all_proxy")


@functools.cache
def _ssl_context() -> ssl.SSLContext:
    """Return the TLS context of all clients. It is shared because reading the trusted certificates takes 30 ms."""
    import httpx

    try:
        return httpx.create_ssl_context()
    except OSError as error:  # or its subclass ssl.SSLError, if the file holds no certificate
        name = next((name for name in ("SSL_CERT_FILE", "SSL_CERT_DIR") if os.environ.get(name)), "SSL_CERT_FILE")
        raise ConfigError(
            f"The certificates in {name}={os.environ.get(name, '')} cannot be read ({type(error).__name__}). "
            f"Set {name} to a file of certificates, or unset it."
        ) from error


@functools.cache
def _empty_ssl_context() -> ssl.SSLContext:
    """Return a TLS context without certificates, for http URLs. httpx requires one, although no request uses it."""
    import ssl

    return ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)


@functools.cache
def _url_class() -> type[httpx.URL]:
    """Return a URL class that sends its query but hides it in `str`: httpx logs the URL of each request."""
    import httpx

    class URLWithHiddenQuery(httpx.URL):
        def __str__(self) -> str:
            return str(self.copy_with(query=None))

        def __repr__(self) -> str:
            return f"URL({str(self)!r})"

    return URLWithHiddenQuery


_IMPORTED_BY_REQUESTS = ("httpcore", "anyio", "anyio._backends._asyncio", "h11", "h2.connection", "socksio")
"""Modules that httpx imports when a client is opened or sends its first request. `h2` and `socksio` are optional."""


def _import_httpx(*, tls: bool) -> None:
    import httpx  # noqa: F401

    for name in _IMPORTED_BY_REQUESTS:
        with contextlib.suppress(ImportError):
            importlib.import_module(name)
    redact_logs_of(*_LOGGERS)
    if tls:
        _ssl_context()


_loader = Workers(1, "rerank-plugins-httpx")
_prepared: set[bool] = set()
"""The values of `tls` for which `_import_httpx` has run."""


async def prepare_httpx(url: str) -> None:
    """Import httpx and, for https, read the certificates, on a worker thread: both take a tenth of a second.

    Raises:
        ConfigError: The certificates cannot be read.
    """
    tls = url.startswith("https")
    if tls not in _prepared:
        await _loader.run(lambda: _import_httpx(tls=tls))
        _prepared.add(tls)


def open_sdk_client(address: Address, receive: Callable[[HTTPResponse], bytes]) -> httpx.AsyncClient:
    """Return an HTTP client to pass to an SDK. Call `prepare_httpx` before.

    The client adds the query and the credentials of `address` to each request, encodes large bodies on a worker
    thread, and reads each reply to its end, within the size limit of the current call.

    Args:
        address: The address of the vendor.
        receive: Called with each reply. It returns the body that the SDK gets.

    Raises:
        ConfigError: An environment variable names a proxy that cannot be used.
    """
    authorization = address.authorization()

    async def add_query_and_credentials(request: httpx.Request) -> None:
        if authorization is not None:
            request.headers["authorization"] = authorization
        request.url = _url_class()(address.full(str(request.url)))

    async def record_metadata(response: httpx.Response) -> None:
        record_response(response.status_code, response.headers.items())

    hooks = {"request": [add_query_and_credentials], "response": [record_metadata]}
    return _create_client(address.url, _sdk_client_class(), receive=receive, event_hooks=hooks)


@functools.cache
def _sdk_client_class() -> type[httpx.AsyncClient]:
    import httpx

    class SDKClient(httpx.AsyncClient):
        """Encodes bodies off the event loop and limits the size of replies, which httpx does not."""

        def __init__(self, *, receive: Callable[[HTTPResponse], bytes], **options: Any) -> None:
            super().__init__(**options)
            self.receive = receive

        async def request(self, method: str, url: Any, *, json: Any = None, **options: Any) -> httpx.Response:
            if json is not None:
                size = approximate_size(json, MAX_INLINE_SIZE)
                options["content"] = await run_text_work(size, encode_json, json, size)
                options["headers"] = {"content-type": "application/json", **dict(options.get("headers") or {})}
            send_options = {name: options.pop(name) for name in ("auth", "follow_redirects") if name in options}
            request = self.build_request(method, url, **options)
            metadata = response_metadata()
            limit = metadata.max_bytes if metadata is not None else None
            reply = await _send_and_read(self, request, MAX_REPLY_BYTES if limit is None else limit, **send_options)
            headers = {name: value for name, value in reply.headers.items() if name not in _BODY_HEADERS}
            return httpx.Response(reply.status, headers=headers, content=self.receive(reply), request=request)

    return SDKClient


_BODY_HEADERS = ("content-encoding", "content-length", "transfer-encoding")
"""Headers that describe the body as it was sent. They are wrong after decompression."""


async def _send_and_read(client: httpx.AsyncClient, request: httpx.Request, limit: int, **options: Any) -> HTTPResponse:
    """Send a request and return the reply, read to its end by `read_reply`."""
    response = await client.send(request, stream=True, **options)
    try:
        body = await read_reply(response, limit)
    finally:
        await response.aclose()
    return HTTPResponse(response.status_code, body, {name.lower(): value for name, value in response.headers.items()})


def _create_client(url: str, client_class: type[C], **options: Any) -> C:
    """Return a client for requests to `url`. Raises a ConfigError for a proxy that cannot be used."""
    import httpx

    options = {
        # No timeout: the backend limits the whole attempt. The read timeout of httpx starts again with each byte.
        "timeout": None,
        # No limit on connections: the caller decides how many calls run at the same time.
        "limits": httpx.Limits(max_connections=None, max_keepalive_connections=64),
        "verify": _ssl_context() if url.startswith("https") else _empty_ssl_context(),
        # Only gzip is decompressed with a size limit. httpx would also request brotli and zstd if they are installed.
        "headers": {"accept-encoding": "gzip"},
        **options,
    }
    try:
        return client_class(**options)
    except (ImportError, ValueError, TypeError, httpx.InvalidURL) as error:
        if urllib.request.proxy_bypass(urlsplit(url).hostname or ""):  # NO_PROXY exempts this host from the proxy
            return client_class(trust_env=False, **options)
        raise proxy_error(error) from None  # the message of `error` may show the proxy's password


def post_form(address: Address, fields: Mapping[str, str], timeout: float = TOKEN_TIMEOUT) -> HTTPResponse:
    """POST a form and return the reply: for tokens. Blocks, so call it on a worker thread.

    The query and the user of the address are sent, but neither an error nor a log shows them.

    Raises:
        TransientError: No reply came.
        ConfigError: The address, a proxy or the certificates are invalid.
    """
    import httpx

    _import_httpx(tls=address.url.startswith("https"))
    headers = {"accept": "application/json"}
    if (authorization := address.authorization()) is not None:
        headers["authorization"] = authorization
    try:
        with _create_client(address.url, httpx.Client, timeout=timeout) as client:
            request = client.build_request("POST", str(address.url), data=dict(fields), headers=headers)
            request.url = _url_class()(address.full(address.url))
            reply = client.send(request)
    except (httpx.HTTPError, httpx.InvalidURL, UnicodeError) as error:
        raise connection_error(error, address.public, "token_url") from None
    return HTTPResponse(
        reply.status_code, reply.content, {name.lower(): value for name, value in reply.headers.items()}
    )


def proxy_error(error: Exception | None = None) -> ConfigError:
    """Return the error for an unusable proxy. It names the environment variable, but not its value."""
    names = [name for name in os.environ if name.lower() in _PROXY_VARIABLES and os.environ[name]]
    invalid = [name for name in names if not _is_usable_proxy(os.environ[name])]
    exceptions = [name for name in os.environ if name.lower() == "no_proxy" and os.environ[name]]
    sources = " and ".join(invalid or [*names, *exceptions]) or "the proxy settings of this system"
    if any(os.environ[name].lower().startswith("socks") for name in invalid):
        advice = "a SOCKS proxy needs a package: pip install 'httpx[socks]'"
    else:
        advice = "write it like http://proxy.example:3128"
    kind = "" if error is None else f" ({type(error).__name__})"
    return ConfigError(f"The proxy in {sources} cannot be used{kind}: {advice}, or unset the variable.")


def _is_usable_proxy(proxy: str) -> bool:
    import httpx

    try:
        scheme = httpx.Proxy(proxy if "://" in proxy else f"http://{proxy}").url.scheme
    except (ValueError, TypeError, httpx.InvalidURL):
        return False
    return not scheme.startswith("socks") or importlib.util.find_spec("socksio") is not None


async def read_reply(response: httpx.Response, limit: int) -> bytes:
    """Return the decompressed body of a streamed reply.

    Raises:
        BadResponse: It has more than `limit` bytes, or an encoding that was not requested.
    """
    encoding = response.headers.get("content-encoding", "identity").strip().lower()
    if encoding not in ("identity", "", "gzip"):
        raise BadResponse(
            f"The reply is encoded as {encoding[:40]!r}, which was not requested. Check what answers at `base_url`."
        )
    decompressor = zlib.decompressobj(16 + zlib.MAX_WBITS) if encoding == "gzip" else None
    body = bytearray()
    async for chunk in response.aiter_raw(_CHUNK_BYTES):
        compressed = chunk
        while compressed:
            if decompressor is None:
                decompressed, compressed = compressed, b""
            else:
                try:
                    decompressed = decompressor.decompress(compressed, _CHUNK_BYTES)
                except zlib.error as error:
                    raise BadResponse(
                        f"The reply cannot be decompressed as gzip ({clause(error)}). Check `base_url`."
                    ) from error
                compressed = decompressor.unconsumed_tail
            body += decompressed
            if len(body) > limit:
                raise reply_too_large(limit)
            if compressed:
                await asyncio.sleep(0)  # lets other tasks run
    return bytes(body)


def reply_too_large(limit: int) -> BadResponse:
    """Return the error for a reply of more than `limit` bytes."""
    return BadResponse(
        f"The reply is larger than {limit // 2**20} MB, far more than scores need. Check `base_url`, and what answers "
        "there."
    )


def connection_error(error: Exception, url: str, address_option: str = "base_url") -> RerankError:
    """Return the `RerankError` for an exception of httpx that was raised before a reply came from `url`.

    Args:
        error: The exception.
        url: The address, without credentials.
        address_option: The option that the address comes from.
    """
    import httpx

    kind = type(error).__name__
    if isinstance(error, httpx.InvalidURL | httpx.UnsupportedProtocol | httpx.LocalProtocolError | UnicodeError):
        checked = "`base_url`, `api_key` and `headers`" if address_option == "base_url" else f"`{address_option}`"
        return ConfigError(f"The request to {url} cannot be sent ({kind}). Check {checked}.")
    advice = connection_advice(error, proxy_variable(url), address_option)
    return TransientError(f"No answer from {url} ({kind}{f': {error}' if str(error) else ''}). {advice}")


class HTTPXTransport:
    """Sends JSON with httpx. Proxies and certificates come from the environment variables that httpx reads."""

    def __init__(self) -> None:
        """Create the transport. The first request opens the client."""
        self._url = ""  # each transport serves one backend, which has one address
        self._clients: PerLoop[httpx.AsyncClient] = PerLoop(self._open, self._close)

    def _open(self) -> httpx.AsyncClient:
        import httpx

        return _create_client(self._url, httpx.AsyncClient)

    @staticmethod
    async def _close(client: httpx.AsyncClient) -> None:
        await client.aclose()

    async def post(
        self,
        url: str,
        payload: Mapping[str, Any] | bytes | None,
        headers: Mapping[str, str],
        *,
        limit: int | None = None,
    ) -> HTTPResponse:
        """POST `payload` as JSON to `url` and return the reply, read to its end.

        Args:
            url: The address.
            payload: The body; bytes are JSON already. `None`: a GET without a body, see `get`.
            headers: Headers to add.
            limit: Largest size of the reply in bytes.

        Raises:
            TransientError: The connection failed, or broke before the reply was complete.
            BadResponse: The decompressed reply is larger than `limit` bytes.
            ConfigError: The address, a header, a proxy, the certificates or a value of the body is invalid.
        """
        if url.startswith("https") not in _prepared:
            await prepare_httpx(url)
        import httpx

        self._url = loggable_url = url.partition("?")[0]
        client = await self._clients.get()
        if payload is None or isinstance(payload, bytes):
            content = payload
        else:
            size = approximate_size(payload, MAX_INLINE_SIZE)
            content = await run_text_work(size, encode_json, payload, size)
        all_headers = {"content-type": "application/json", "accept": "application/json", **headers}
        for name, value in all_headers.items():
            # Checked here: httpx would repeat the value, which may be a key, in its error and its log.
            if not (value.isascii() and value.isprintable()):
                raise ConfigError(
                    f"The header {name!r} has a character that HTTP headers must not have, such as a line break. Check "
                    "`api_key` and `headers`."
                )
        try:
            method = "GET" if payload is None else "POST"
            request = client.build_request(method, url, content=content, headers=all_headers)
            request.url = _url_class()(url)
            return await _send_and_read(client, request, MAX_REPLY_BYTES if limit is None else limit)
        except (httpx.HTTPError, httpx.InvalidURL, UnicodeError) as error:
            typed = connection_error(error, loggable_url)
            # The cause of a ConfigError is dropped: it may quote a secret part of the URL.
            raise typed from (error if isinstance(typed, TransientError) else None)

    async def get(self, url: str, headers: Mapping[str, str]) -> HTTPResponse:
        """GET `url` and return the reply, read to its end; errors as of `post`."""
        return await self.post(url, None, headers, limit=MAX_INFO_BYTES)

    async def aclose(self) -> None:
        """Close the clients of all event loops."""
        await self._clients.aclose()
