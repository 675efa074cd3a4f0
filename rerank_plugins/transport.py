"""The only file that knows an HTTP client: one `httpx.AsyncClient` per backend and event loop."""

from __future__ import annotations

import functools
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit, urlunsplit

from .core.errors import ConfigError, TransientError
from .core.json_text import encoded
from .core.loop import PerLoop, Workers
from .core.text_work import INLINE, run_text_work, size_of
from .core.wire import HTTPResponse

if TYPE_CHECKING:
    import ssl

    import httpx

__all__ = ["HTTPXTransport"]

_ADVICE = "It may pass: raise `retry` or name a `fallback` in the spec, and check `base_url`."


@functools.cache
def _tls() -> ssl.SSLContext:
    """Certificates take 30 ms to load: once in a process, not once a client."""
    import httpx

    return httpx.create_ssl_context()


_loader = Workers(1, "rerank-plugins-httpx")


async def _prepared() -> None:
    """Import the client and read the certificates on a thread: a tenth of a second that no event loop should wait."""
    if _tls.cache_info().currsize == 0:
        await _loader.run(_tls)


def _shown(url: str) -> str:
    """Return an address without the passwords and keys that may be in it."""
    parts = urlsplit(url)
    return urlunsplit((parts.scheme, parts.netloc.rpartition("@")[2], parts.path, "", ""))


class HTTPXTransport:
    """Sends JSON with httpx; proxies and certificates come from the environment, as httpx reads it."""

    def __init__(self) -> None:
        """Open nothing before the first request."""
        self._clients: PerLoop[httpx.AsyncClient] = PerLoop(self._open, self._close)

    def _open(self) -> httpx.AsyncClient:
        import httpx

        # No timeout here: one attempt is timed as a whole by its backend, where a dripping body cannot restart the clock.
        # Nor a bound on connections: how many calls are under way is the caller's affair.
        limits = httpx.Limits(max_connections=None, max_keepalive_connections=64)
        return httpx.AsyncClient(timeout=None, limits=limits, verify=_tls())  # noqa: S113

    @staticmethod
    async def _close(client: httpx.AsyncClient) -> None:
        await client.aclose()

    async def post(self, url: str, payload: Mapping[str, Any], headers: Mapping[str, str]) -> HTTPResponse:
        """POST `payload` as JSON to `url` and return the reply, read to its end.

        Raises:
            TransientError: No connection, or one that broke.
            ConfigError: The address, a header or a value of the body cannot be used at all.
        """
        await _prepared()
        import httpx

        client = await self._clients.get()
        content = await run_text_work(size_of(payload, INLINE), encoded, payload)
        sent = {"content-type": "application/json", "accept": "application/json", **headers}
        for name, value in sent.items():
            # Checked here, since the client would repeat the value, and so a key, in its error and its log.
            if not (value.isascii() and value.isprintable()):
                raise ConfigError(
                    f"The header {name!r} holds a character that no header can carry, such as a line break: check "
                    "`api_key` and `headers`."
                )
        try:
            reply = await client.post(url, content=content, headers=sent)
        except (httpx.InvalidURL, httpx.UnsupportedProtocol, httpx.LocalProtocolError, UnicodeError) as error:
            raise ConfigError(
                f"{_shown(url)} cannot be asked ({type(error).__name__}): check `base_url`, `api_key` and `headers`."
            ) from None  # its text may show what is secret in the address
        except httpx.HTTPError as error:
            told = f"{type(error).__name__}{f': {error}' if str(error) else ''}"
            raise TransientError(f"No answer from {_shown(url)} ({told}). {_ADVICE}") from error
        return HTTPResponse(
            reply.status_code, reply.content, {key.lower(): value for key, value in reply.headers.items()}
        )

    async def aclose(self) -> None:
        """Close the clients of all event loops."""
        await self._clients.aclose()
