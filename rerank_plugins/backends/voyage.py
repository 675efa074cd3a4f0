"""Voyage AI (MongoDB), through the `voyageai` SDK (0.3.7 to 0.5): `POST https://api.voyageai.com/v1/rerank`.

Sends `{"query", "documents": [text, …], "model", "top_k": null, "truncation": true}`; reads `{"data": [{"index",
"relevance_score"}], "usage": {"total_tokens"}}` (https://docs.voyageai.com/reference/reranker-api, and
`client_async.py` of voyageai 0.5.0; read in November 2026). Keys of MongoDB Atlas (`al-…`) go to
https://ai.mongodb.com/v1/rerank (https://www.mongodb.com/docs/voyageai, November 2026).
"""

from __future__ import annotations

import contextlib
import copy
import inspect
import json
import logging
import os
import sys
import urllib.request
import warnings
from collections.abc import Iterable, Sequence
from typing import Any
from urllib.parse import urlsplit

from pydantic import Field

from ..core._runtime.context_vars import set_context
from ..core._runtime.text_work import run_text_work
from ..core.address import PathURL, proxy_variable
from ..core.call import ResponseMetadata, record_response, response_metadata
from ..core.credentials import FunctionKey, KeySource
from ..core.errors import BadResponse, ConfigError, TransientError
from ..core.key_file import file_key
from ..core.reply import explanation, token_count
from ..core.sdk import SDKBackend
from ..core.secret import Secret
from ..core.tokens import beginning
from ..core.types import Capabilities, RerankRequest, Scores, Usage
from ..core.wire import connection_advice, error_for_status, join_url
from ..options import HostedOptions
from ..transport import proxy_error, reply_too_large
from .prices import PRICES

__all__ = ["Voyage"]

ATLAS = "https://ai.mongodb.com"
PATH = "/v1/rerank"


def _limits(query: int, pair: int, total: int, *, instructions: bool) -> Capabilities:
    return Capabilities(
        scale="unit",
        max_documents=1000,
        max_query_tokens=query,
        max_tokens=pair,
        max_total_tokens=total,
        instructions=instructions,
    )


class VoyageOptions(HostedOptions):
    """Options of Voyage's API."""

    client: Any = Field(default=None, repr=False)
    """A `voyageai.AsyncClient`, or a blocking `Client`, which runs on threads of this backend's own."""


class Voyage(SDKBackend):
    """Voyage's rerankers.

    A blocking `voyageai.Client` of the user's runs on threads of this backend's own. The SDK reads its replies whole,
    so the size of a reply has no limit; with an `AsyncClient` it has one.
    """

    Options = VoyageOptions
    model = "rerank-3"
    base_url = "https://api.voyageai.com"
    key_variables = ("VOYAGE_API_KEY",)
    list_prices = PRICES["voyage"]
    # Tokens of the query, of query and document, of a whole call (the query's times the documents, plus theirs), and at
    # most 1,000 documents: https://docs.voyageai.com/reference/reranker-api and the SDK's docstrings (read in November
    # 2026). That rerank-3 has the limits of rerank-2.5 is confirmed for its context of 32,000
    # (https://docs.voyageai.com/docs/reranker, updated 2026-09-29) and assumed for the rest.
    capabilities = _limits(8_000, 32_000, 600_000, instructions=True)
    by_model = {  # noqa: RUF012
        "rerank-2": _limits(4_000, 16_000, 600_000, instructions=False),
        "rerank-2-lite": _limits(2_000, 8_000, 600_000, instructions=False),
        "rerank-1": _limits(2_000, 8_000, 100_000, instructions=False),
        "rerank-lite-1": _limits(1_000, 4_000, 300_000, instructions=False),
    }

    def __init__(self, model: str | None = None, options: VoyageOptions | None = None) -> None:
        """Name a model."""
        options = options or VoyageOptions()
        super().__init__(model, client=options.client, **options.shared())

    def _find_key(self, api_key: Secret | FunctionKey | None) -> Secret | KeySource | None:
        path = os.environ.get("VOYAGE_API_KEY_PATH")
        if api_key is not None or self._user_client is not None or not path or os.environ.get("VOYAGE_API_KEY"):
            return super()._find_key(api_key)
        try:
            return file_key(path)
        except ConfigError as error:
            raise ConfigError(f"VOYAGE_API_KEY_PATH: {error}") from error

    def _find_address(self, base_url: str | None) -> str:
        atlas = self._key is not None and self._key.reveal().startswith("al-")
        if self._base.user is not None or self._base.query is not None:
            raise ConfigError(
                "voyage.base_url cannot have a user or a query: the voyageai SDK sends neither. For a gateway that "
                "needs them, use the backend `http` with results_field = 'data'."
            )
        # The key of a function is not known yet, and one in a file may change.
        self._address_by_key = not base_url and self._key_source is not None
        return super()._find_address(base_url or (ATLAS if atlas else None))

    def key_of(self, client: Any) -> Secret | None:
        """Return the key that the SDK's client holds."""
        key = getattr(client, "api_key", None)
        return Secret(key) if isinstance(key, str) and key else None

    def load(self) -> None:
        """Import the SDK, and stop it from logging the texts of our calls (it does at DEBUG)."""
        import voyageai  # noqa: F401

        logging.getLogger("voyage").addFilter(_log_filter)
        # aiohttp warns of bodies above 1 MB that it gets as bytes, as from the SDK; 600,000 tokens are more than that.
        warnings.filterwarnings("ignore", "Sending a large body directly with raw bytes", ResourceWarning)

    def open(self) -> Any:
        """Return an aiohttp session for this loop's calls; the SDK itself opens one for every request.

        No compression: aiohttp does not limit the size of an unpacked reply, and scores are small.
        """
        import aiohttp

        traces = aiohttp.TraceConfig()
        traces.on_request_end.append(_record_reply)
        return aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(limit=0),
            timeout=aiohttp.ClientTimeout(total=None),
            trace_configs=[traces],
            headers={"accept-encoding": "identity"},
            auto_decompress=False,
            **_proxy(self._address),
        )

    async def shut(self, client: Any) -> None:
        """Close the session."""
        await client.close()

    async def ask(self, client: Any, request: RerankRequest) -> Scores:
        """Send one request; `top_k` is left out, truncation is on, retries are ours.

        An instruction is put before the query: there is no field for it (docs.voyageai.com/docs/reranker, read in
        November 2026).
        """
        own = self._user_client is None
        sender = self._sender() if own else _without_retries(client)
        limit = 2 * (self.capabilities.max_tokens or sys.maxsize)
        long = sum(len(text) for text in request.documents if len(text) > limit)
        documents = await run_text_work(long, self._readable, request.documents, limit)
        with _use_session(client if own else await self._clients.get()):
            answer = await self.run(
                sender.rerank,
                query=request.query if request.instruction is None else f"{request.instruction}\n{request.query}",
                documents=documents,
                model=self.model,
                truncation=True,
            )
        values, reply_order, _ = self._scores_of(_pairs, answer, request)
        return Scores(
            values=values,
            reply_order=reply_order,
            model=self.label,
            capabilities=self.capabilities,
            usage=Usage(input_tokens=token_count(getattr(answer, "total_tokens", None))),
        )

    @staticmethod
    def _readable(documents: Sequence[str], limit: int) -> list[str]:
        """Return the documents without the text that the model cannot read: the SDK writes its JSON on the event loop.

        Truncate marks a document by the estimate of its whole text, so one that is cut here is `truncated`.
        """
        return [beginning(text, limit) for text in documents]

    def _sender(self) -> Any:
        """Return the SDK's client; the session holds the connections."""
        from voyageai.client_async import AsyncClient

        key = self._key.reveal() if self._key is not None else None
        address = self._address
        if self._address_by_key and key is not None:
            address = PathURL(ATLAS if key.startswith("al-") else self.base_url)
        return AsyncClient(
            key,
            max_retries=0,
            timeout=self.timeout + 60,  # our own timeout ends the attempt first
            base_url=join_url(address, PATH).removesuffix("/rerank"),  # which the SDK appends
        )

    def translate(self, error: Exception) -> Exception:
        """Return our error by the HTTP status: the SDK's classes do not cover every status."""
        import voyageai.error

        reply = response_metadata() or ResponseMetadata()
        status = reply.status or getattr(error, "http_status", None)
        kind, cause = type(error).__name__, error.__cause__ or error
        packages = {type(each).__module__.partition(".")[0] for each in (error, cause)}
        if status is not None and not 200 <= status < 300:
            headers = reply.headers or {
                str(name).lower(): str(value) for name, value in (getattr(error, "headers", None) or {}).items()
            }
            words = explanation(getattr(error, "json_body", None)) or explanation(
                _json(getattr(error, "http_body", ""))
            )
            return error_for_status(
                status,
                headers,
                backend=self.label,
                explanation=self._redacted(words)[:300],
                url=join_url(self._address, PATH),
                key_advice=self.key_advice(),
            )
        network = isinstance(error, voyageai.error.Timeout | OSError) or packages & {"aiohttp", "requests", "urllib3"}
        if network or (status is None and isinstance(error, voyageai.error.APIConnectionError)):
            advice = connection_advice(error, proxy_variable(self._address, for_all=False))
            return TransientError(
                f"{self.label}: no answer from {self._address} ({type(cause).__name__}). {advice}", backend=self.label
            )
        body = _json(reply.body)
        if body is not None and (ours := self._error_in(body)) is not None:
            return ours
        return BadResponse(
            f"{self.label} sent a reply that the voyageai SDK cannot read ({kind}). Check `base_url`.",
            backend=self.label,
        )


class _DropRecordsOfCalls(logging.Filter):
    """Drop the SDK's log records of our calls: they hold queries and documents."""

    def filter(self, record: logging.LogRecord) -> bool:
        return response_metadata() is None


_log_filter = _DropRecordsOfCalls()


def _use_session(session: Any) -> contextlib.AbstractContextManager[None]:
    """Make the SDK send its requests through `session`."""
    import voyageai

    return set_context(voyageai.aiosession, session)


async def _record_reply(_session: Any, _context: Any, parameters: Any) -> None:
    response = parameters.response
    record_response(response.status, response.headers.items())
    if (reply := response_metadata()) is None:
        return
    if reply.max_bytes is not None:
        if (response.content_length or 0) > reply.max_bytes:
            raise reply_too_large(reply.max_bytes)
        # The length of a chunked reply is not known before it is read.
        response.content = _LimitedStream(response.content, reply.max_bytes)
    if response.status == 200:
        reply.body = await response.read()  # aiohttp caches it, so the SDK can read it again


class _LimitedStream:
    """The stream of a reply's body, with a limit on `read`; everything else is passed to the stream."""

    def __init__(self, stream: Any, limit: int) -> None:
        self._stream = stream
        self._limit = limit

    async def read(self) -> bytes:
        """Return the rest of the body.

        Raises:
            BadResponse: The body is longer than the limit; aiohttp then closes the connection.
        """
        body = bytearray()
        async for chunk in self._stream.iter_any():
            body += chunk
            if len(body) > self._limit:
                raise reply_too_large(self._limit)
        return bytes(body)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)


def _proxy(url: str) -> dict[str, Any]:
    """Return the options of a session that uses the environment's proxy for `url`.

    Like aiohttp's `trust_env`, but without ~/.netrc: aiohttp refuses a request with a key and an entry there.
    """
    import aiohttp

    if "proxy" not in inspect.signature(aiohttp.ClientSession).parameters:  # before 3.11
        return {"trust_env": True}
    parts = urlsplit(url)
    proxy = urllib.request.getproxies().get(parts.scheme)
    if not proxy or urllib.request.proxy_bypass(parts.hostname or ""):
        return {}
    proxy = proxy if "://" in proxy else f"http://{proxy}"
    try:
        proxy_parts = urlsplit(proxy)
        usable = proxy_parts.scheme == "http" and bool(proxy_parts.hostname) and (proxy_parts.port or 0) >= 0
    except ValueError:
        usable = False
    if not usable:
        raise proxy_error()
    return {"proxy": proxy}


def _without_retries(client: Any) -> Any:
    """Return a copy of the user's client without retries."""
    own = copy.copy(client)
    own.max_retries = 0
    return own


def _pairs(answer: Any) -> Iterable[tuple[int, float]]:
    return ((each.index, each.relevance_score) for each in answer.results)


def _json(body: Any) -> Any:
    try:
        return json.loads(body)
    except (ValueError, TypeError):
        return None
