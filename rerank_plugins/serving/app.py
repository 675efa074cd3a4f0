"""Serve a reranker as an ASGI application.

POST `/v2/rerank`, `/v1/rerank`, `/rerank`; GET `/healthz`, `/health`, `/readyz`, `/metrics`, `/openapi.json`, `/docs`,
and for clients of other servers `/info` (Text Embeddings Inference) and `/v1/models` (OpenAI's shape, vLLM).
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import hmac
import json
import logging
import time
from collections import deque
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from typing import Any, TypeVar

from .. import __version__
from ..config import load_reranker
from ..core._runtime.text_work import run_text_work
from ..core.answer_metadata import DEGRADED_HEADER, MODEL_HEADER, REASON_HEADER, encode_reason
from ..core.credentials import plain_key
from ..core.errors import BackendError, DeadlineExceeded, MissingExtra, RerankError
from ..core.numeric import seconds
from ..core.redaction import one_line
from ..core.secret import Secret
from ..reranker import Reranker, RerankResponse

try:
    from starlette.applications import Starlette
    from starlette.exceptions import HTTPException
    from starlette.requests import ClientDisconnect, Request
    from starlette.responses import HTMLResponse, JSONResponse, Response
    from starlette.routing import Route
    from starlette.types import ASGIApp, Receive, Scope, Send
except ModuleNotFoundError as error:
    raise MissingExtra("The server", extra="serve", package="starlette") from error

from .disconnect import cancel_on_disconnect
from .http_errors import error_body, retry_after, status_of
from .limits import ByteBudget, ConcurrencyLimit, Limits, Refusal, read_body
from .metrics import Metrics
from .openapi import RERANK_PATHS, html_page, openai_model_list, openapi_document, tei_info
from .public_names import public_label, without_addresses
from .readiness import Readiness, StartReport
from .response_writer import StreamingJSON, encode_json
from .truncation import DocumentTruncator
from .wire_formats import RerankBody, encode_answer, read_request

__all__ = ["application", "error_response"]

T = TypeVar("T")

_log = logging.getLogger("rerank_plugins")
_GONE = 499  # nginx's number for a client that went away; nobody reads it
_INLINE = 65_536
"""Bodies up to this many bytes are parsed on the event loop: it takes less than a millisecond, and saves a thread."""
_LOG_EVERY = 60.0


def application(
    reranker: str | Mapping[str, Any] | Reranker | None = None,
    *,
    limits: Limits | None = None,
    api_key: str | None = None,
    models: Sequence[str] = (),
    config: str | None = None,
    check_every: float | None = None,
    report: StartReport | None = None,
) -> Starlette:
    """Return the application of one reranker, for any ASGI server.

    Args:
        reranker: A spec, as `load_reranker` takes it, or a ready reranker, which is then not closed here.
        limits: The limits of the server.
        api_key: What callers send as a bearer token (a value, `"env:NAME"` or `"file:PATH"`, which are read once);
            without it no key is needed.
        models: More names that callers may send as `model`; the name in `reranker` is one already.
        config: The file of named rerankers.
        check_every: Seconds after which `/readyz` has the reranker checked again (see `Reranker.check`), which sends
            a request to each backend; `None` checks nothing.
        report: The report of a check before the start. While it is not old, the server starts without one.

    Raises:
        ConfigError: The spec is wrong, or the key's variable or file cannot be read.
        MissingExtra: The server's packages, or the backend's, are not installed.
    """
    owned = not isinstance(reranker, Reranker)
    ready = reranker if isinstance(reranker, Reranker) else load_reranker(reranker, config=config)
    key = None if api_key is None else plain_key(api_key)
    models = [reranker, *models] if isinstance(reranker, str) else models
    every = None if check_every is None else seconds(check_every, "check_every")
    return _Server(ready, owned, limits or Limits(), key, models, every, report).app


class _Server:
    """The state that the routes share."""

    def __init__(
        self,
        reranker: Reranker,
        owned: bool,
        limits: Limits,
        key: Secret | None,
        models: Sequence[str],
        check_every: float | None,
        report: StartReport | None,
    ) -> None:
        self.reranker, self.owned, self.limits = reranker, owned, limits
        self.key = None if key is None else _digest(key.reveal().encode())
        label, spec_name = reranker.scorer.label, reranker.scorer.spec_name
        model_id = reranker.scorer.model_id
        model = model_id.model if model_id is not None else ""
        # The label may end in the runtime, in brackets, which clients do not write.
        names = list(dict.fromkeys([spec_name, model or spec_name, label, *models]))
        # The names that the server shows hold no path and no address; the names that the operator wrote are accepted
        # too.
        self.models = list(dict.fromkeys(map(public_label, names)))
        self.known_models = frozenset([*names, *self.models])
        self.label, self.public_label = label, public_label(label)
        self.started = int(time.time())
        self.logged_at: dict[type, float] = {}
        self.concurrency = ConcurrencyLimit(limits.max_queue)
        self.in_flight = ByteBudget(limits)
        self.metrics = Metrics()
        self.readiness = Readiness(reranker, check_every, self.public_message, report)
        self.cutter = DocumentTruncator(reranker.scorer)
        capabilities = reranker.scorer.capabilities
        self.openapi = openapi_document(self.models, capabilities, limits, needs_key=key is not None)
        main = next(reranker.scorer.leaves()).model_id
        dtype = main.dtype if main is not None else None
        self.info = tei_info(self.models[0], dtype, capabilities, limits)
        routes = [Route(path, self._error_boundary(self.rerank), methods=["POST"]) for path in RERANK_PATHS]
        routes += [
            Route(path, self._error_boundary(answered), methods=["GET"])
            for path, answered in {
                "/healthz": self.get_health,
                "/health": self.get_health,
                "/readyz": self.get_readiness,
                "/info": self.get_info,
                "/v1/models": self.list_models,
                "/metrics": self.get_metrics,
                "/openapi.json": self.get_openapi,
                "/docs": self.get_docs,
            }.items()
        ]
        self.app = Starlette(
            routes=routes, lifespan=self.lifespan, exception_handlers={HTTPException: _unknown_route_response}
        )
        # No redirect of a path with a trailing slash: behind a proxy with TLS, it would send the key in plain text.
        self.app.router.redirect_slashes = False

    @contextlib.asynccontextmanager
    async def lifespan(self, _: Starlette) -> AsyncIterator[None]:
        """Load the model before the first request, so that a server with a broken model does not start."""
        await self.reranker.awarmup()
        await self.readiness.start()
        yield
        await self.readiness.stop()
        if self.owned:
            await self.reranker.aclose()

    def _error_boundary(self, route: Callable[[Request], Awaitable[Response | StreamingJSON]]) -> ASGIApp:
        """Return a route as an ASGI application that answers every error as JSON, without addresses or tracebacks."""
        return _ErrorBoundary(self, route)

    def error_response(self, error: RerankError) -> Response:
        """Return the response to a request that failed."""
        if isinstance(error, Refusal):
            return error_response(error.status, str(error), self._headers(error))
        status = status_of(error)
        if status >= 500:
            self._log(error, status)
        return error_response(status, self.public_message(str(error)), self._headers(error))

    def public_message(self, message: str) -> str:
        """Return a message of the backend without paths and addresses."""
        # A path may hold spaces: only the label shows where it ends. A message may name any scorer of the tree.
        scorers = list(self.reranker.scorer.walk())
        labels = {name for scorer in scorers for name in (scorer.label, scorer.spec_name)}
        for label in sorted(labels, key=len, reverse=True):
            message = message.replace(label, public_label(label))
        return without_addresses(message)

    def _log(self, error: RerankError, status: int) -> None:
        """Log a failure at most once a minute. The vendor's own text is left out: it may quote a document."""
        now = time.monotonic()
        if now - self.logged_at.get(type(error), -_LOG_EVERY) < _LOG_EVERY:
            return
        self.logged_at[type(error)] = now
        backend = (error.backend if isinstance(error, BackendError) else None) or self.label
        answered = f", which answered {error.status}" if isinstance(error, BackendError) and error.status else ""
        _log.warning(
            "A request failed with %s (%s of %s%s; logged at most once a minute)",
            status,
            type(error).__name__,
            one_line(backend),
            answered,
        )

    def _headers(self, error: RerankError) -> dict[str, str]:
        own = error.headers if isinstance(error, Refusal) else {}
        return {**retry_after(error, self._retry_after()), **own}

    def _retry_after(self) -> float:
        """Return the seconds until a slot is likely free: the mean time of a call, from 1 to 30."""
        milliseconds = self.reranker.stats()["mean_latency_ms"] or 1_000.0
        return float(min(30.0, max(1.0, milliseconds / 1_000.0)))

    def _authorise(self, request: Request) -> None:
        if self.key is None:
            return
        values = request.headers.getlist("authorization")
        kind, _, token = values[0].partition(" ") if len(values) == 1 else ("", "", "")
        # All digests have one length, and compare_digest takes the same time wherever they differ.
        right = hmac.compare_digest(_digest(token.strip().encode("latin-1", "replace")), self.key)
        if not (right and kind.lower() == "bearer"):
            raise Refusal(
                401,
                "The key is missing or wrong. Send it once, in the header: Authorization: Bearer KEY.",
                {"www-authenticate": "Bearer"},
            )

    async def rerank(self, request: Request) -> StreamingJSON:
        """Answer one call."""
        self._authorise(request)
        _check_headers(request)
        declared = request.headers.get("content-length")
        length = int(declared) if declared else None
        share = self.in_flight.share()
        try:
            with self.concurrency.slot(self._retry_after()), self.metrics.inside.track_inprogress():
                async with _request_timeout(self.limits.request_timeout):
                    # No variable here holds the body, so that its memory is free as soon as it is parsed.
                    work = self._work(request.url.path, await read_body(request.stream(), self.limits, length, share))
                    pieces, headers = await cancel_on_disconnect(request, work)
            return StreamingJSON(pieces, headers, share)
        except BaseException:
            share.close()
            raise

    async def _work(self, path: str, body: bytes) -> tuple[deque[bytes], dict[str, str]]:
        """Parse a body, rerank, and write the answer. Long work runs on worker threads and can be cancelled."""
        size = len(body)
        call = await _text_work(size, read_request, body, path)
        del body
        self._check(call)
        documents, cut = await self.cutter.cut(call.documents, call.max_tokens_per_doc)
        response = await self.reranker.arerank(call.query, documents, top_n=call.top_n, instruction=call.instruction)
        self.metrics.answered(response, len(documents))
        if call.returned_documents is None:
            size = 64 * len(response)
        pieces = await _text_work(size, lambda: encode_json(encode_answer(call, response, cut, self.public_message)))
        return pieces, self._answer_headers(response)

    def _answer_headers(self, response: RerankResponse) -> dict[str, str]:
        """Return the headers that the docstring of `wire_formats` describes, and TEI's count of tokens."""
        headers = {MODEL_HEADER: _header(public_label(response.model))}
        if response.degraded:
            headers[DEGRADED_HEADER] = "true"
        if response.reason:
            headers[REASON_HEADER] = encode_reason(self.public_message(response.reason))
        if response.usage.input_tokens is not None:
            headers["x-compute-tokens"] = str(response.usage.input_tokens)
        return headers

    def _check(self, call: RerankBody) -> None:
        if call.model is not None and call.model not in self.known_models:
            raise Refusal(
                404, f"The model {call.model[:200]!r} is not served here; this server has {self.models[0]!r}."
            )
        if len(call.documents) > self.limits.max_documents:
            raise Refusal(413, f"This server takes at most {self.limits.max_documents:,} documents in a request.")

    async def get_health(self, request: Request) -> Response:
        """Return the status; with the right key (or where there is none), also the statistics."""
        status: dict[str, Any] = {"status": "ok", "version": __version__}
        with contextlib.suppress(Refusal):
            self._authorise(request)
            stats = self.reranker.stats()
            for name in ("answered_by", "attempts", "backends"):
                stats[name] = {public_label(label): each for label, each in stats[name].items()}
            if stats["last_reason"] is not None:
                stats["last_reason"] = self.public_message(stats["last_reason"])
            inside = {"inside": self.concurrency.inside, "bytes_in_flight": self.in_flight.held}
            status |= {"model": self.public_label, **inside, **stats}
        return JSONResponse(status)

    async def get_readiness(self, request: Request) -> Response:
        """Return 200 if a request would be answered, else 503; with the right key, also the report of the check."""
        is_ready, body, report = self.readiness.state()
        with contextlib.suppress(Refusal):
            self._authorise(request)
            body |= report
        return JSONResponse(body, 200 if is_ready else 503)

    async def get_info(self, request: Request) -> Response:
        """Return the model and the limits, as Text Embeddings Inference does."""
        self._authorise(request)
        return JSONResponse(self.info)

    async def list_models(self, request: Request) -> Response:
        """List the names of the model, as OpenAI's API and vLLM do."""
        self._authorise(request)
        return JSONResponse(openai_model_list(self.models, self.started))

    async def get_metrics(self, request: Request) -> Response:
        """Return the Prometheus metrics."""
        self._authorise(request)
        return Response(self.metrics.text(), media_type="text/plain; version=0.0.4; charset=utf-8")

    async def get_openapi(self, _: Request) -> Response:
        """Return the OpenAPI document."""
        return JSONResponse(self.openapi)

    async def get_docs(self, _: Request) -> Response:
        """Return the OpenAPI document as an HTML page."""
        return HTMLResponse(html_page(self.openapi))


class _ErrorBoundary:
    """Turn the errors of one route into responses, and send them, so that the memory of an answer is always freed."""

    def __init__(self, server: _Server, route: Callable[[Request], Awaitable[Response | StreamingJSON]]) -> None:
        self._server = server
        self._route = route

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        request = Request(scope, receive, send)
        response: Response | StreamingJSON
        try:
            _check_framing(request)
            response = await self._route(request)
        except RerankError as error:
            response = self._server.error_response(error)
        except ClientDisconnect:
            response = Response(status_code=_GONE)
        except Exception:
            _log.exception("The server failed at a request to %s", one_line(request.url.path))
            response = error_response(
                500, "The server failed; its log has the traceback. Report it to the operator.", {}
            )
        self._server.metrics.requests.labels(str(response.status_code)).inc()
        await response(scope, receive, send)


@contextlib.asynccontextmanager
async def _request_timeout(seconds: float) -> AsyncIterator[None]:
    try:
        async with asyncio.timeout(seconds) as clock:
            yield
    except TimeoutError as error:
        if not clock.expired():  # the timeout was another one, inside of the reranker
            raise
        raise DeadlineExceeded(
            f"The request was not answered within {seconds:g} s. Send fewer or shorter documents, or raise the "
            "server's --request-timeout."
        ) from error


async def _text_work(size: int, work: Callable[..., T], *arguments: object) -> T:
    return work(*arguments) if size <= _INLINE else await run_text_work(size, work, *arguments)


def _digest(key: bytes) -> bytes:
    return hashlib.sha256(key).digest()


def _check_framing(request: Request) -> None:
    """Refuse a request whose end a proxy may see elsewhere (RFC 9112, 6.1: request smuggling)."""
    if "transfer-encoding" in request.headers and "content-length" in request.headers:
        raise Refusal(
            400, "Content-Length and Transfer-Encoding contradict each other. Send one.", {"connection": "close"}
        )


def _check_headers(request: Request) -> None:
    kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if kind != "application/json":  # a form of a foreign web page cannot send this type without a CORS preflight
        raise Refusal(415, "The body must be JSON. Send the header Content-Type: application/json.")
    if request.headers.get("content-encoding", "identity").lower() != "identity":
        raise Refusal(415, "A compressed body is not accepted. Send it uncompressed.")


def _header(text: str) -> str:
    """Return `text` with a question mark for each character that a header cannot hold."""
    return "".join(each if each.isascii() and each.isprintable() else "?" for each in text)


def error_response(status: int, message: str, headers: Mapping[str, str]) -> Response:
    """Return an error as a response that the clients of each shape can read; see `schemas.Error`."""
    return Response(json.dumps(error_body(status, message)), status, {**headers}, "application/json")


async def _unknown_route_response(request: Request, error: Exception) -> Response:
    try:
        _check_framing(request)  # here too: the rest of the connection is parsed as the next request
    except Refusal as refusal:
        return error_response(refusal.status, str(refusal), refusal.headers)
    status = error.status_code if isinstance(error, HTTPException) else 404
    headers = dict(error.headers or {}) if isinstance(error, HTTPException) else {}
    gets = "/healthz, /readyz, /info, /v1/models, /metrics, /openapi.json or /docs"
    known = f"POST /v2/rerank, /v1/rerank or /rerank; GET {gets}"
    return error_response(
        status, f"{request.method} {request.url.path[:200]} is not served here. Use {known}.", headers
    )
