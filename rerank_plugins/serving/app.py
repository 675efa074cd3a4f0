"""A reranker as an ASGI application.

POST `/v2/rerank`, `/v1/rerank`, `/rerank`; GET `/healthz`, `/health`, `/metrics`, `/openapi.json`, `/docs`, and what clients
of other servers ask first: `/info` (Text Embeddings Inference) and `/v1/models` (OpenAI's shape, vLLM).
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
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Mapping, Sequence
from typing import Any, TypeVar

from .. import __version__
from ..config import load_reranker
from ..core.errors import BackendError, DeadlineExceeded, MissingExtra, RerankError
from ..core.redaction import one_line
from ..core.secret import Secret
from ..core.text_work import run_text_work
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

from .cut import Cutter
from .limits import Door, InFlight, Limits, Refusal, read_body
from .metrics import Metrics
from .names import public_label, without_addresses
from .openapi import RERANK, description, info, model_list, page
from .sending import Answer, encoded
from .shapes import Call, answer, read
from .statuses import TYPES, retry_after, status_of

__all__ = ["application", "refused"]

T = TypeVar("T")

_log = logging.getLogger("rerank_plugins")
_GONE = 499  # nginx's number for a client that went away; nobody reads it
_INLINE = 65_536
"""Bytes of a body that are read on the event loop: less than a millisecond, and most requests do not wait for a thread."""
_LOG_EVERY = 60.0


def application(
    reranker: str | Mapping[str, Any] | Reranker | None = None,
    *,
    limits: Limits | None = None,
    api_key: str | None = None,
    models: Sequence[str] = (),
    config: str | None = None,
) -> Starlette:
    """Return the application of one reranker, for any ASGI server.

    Args:
        reranker: A spec, as `load_reranker` takes it, or a ready reranker, which is then not closed here.
        limits: What the server takes.
        api_key: What callers send as a bearer token (a value, or `"env:NAME"`); without it everybody is served.
        models: More names that callers may send as `model`; what `reranker` says is one already.
        config: The file of named rerankers.

    Raises:
        ConfigError: The spec is wrong, or the key's variable is not set.
        MissingExtra: The server's packages, or the backend's, are not installed.
    """
    owned = not isinstance(reranker, Reranker)
    ready = reranker if isinstance(reranker, Reranker) else load_reranker(reranker, config=config)
    key = Secret.of(api_key)
    models = [reranker, *models] if isinstance(reranker, str) else models
    return _Server(ready, owned, limits or Limits(), None if key is None else key.resolved(), models).app


class _Server:
    """What the routes share."""

    def __init__(
        self, reranker: Reranker, owned: bool, limits: Limits, key: Secret | None, models: Sequence[str]
    ) -> None:
        self.reranker, self.owned, self.limits = reranker, owned, limits
        self.key = None if key is None else _digest(key.reveal().encode())
        label, spec_name = reranker.scorer.label, reranker.scorer.spec_name
        model_id = reranker.scorer.model_id
        model = model_id.model if model_id is not None else ""
        # The label may end in the runtime, in brackets, which nobody writes.
        names = list(dict.fromkeys([spec_name, model or spec_name, label, *models]))
        # What the server shows holds no path and no address; what the operator wrote is taken all the same.
        self.models = list(dict.fromkeys(map(public_label, names)))
        self.known_models = frozenset([*names, *self.models])
        self.label, self.public_label = label, public_label(label)
        self.started = int(time.time())
        self.logged: dict[type, float] = {}
        self.door = Door(limits.max_queue)
        self.in_flight = InFlight(limits)
        self.metrics = Metrics()
        self.cutter = Cutter(reranker.scorer)
        capabilities = reranker.scorer.capabilities
        self.described = description(self.models, limits, key=key is not None, instructions=capabilities.instructions)
        main = next(reranker.scorer.leaves()).model_id
        dtype = main.dtype if main is not None else None
        self.info = info(self.models[0], dtype, capabilities, limits)
        routes = [Route(path, self._guarded(self.rerank), methods=["POST"]) for path in RERANK]
        routes += [
            Route(path, self._guarded(answered), methods=["GET"])
            for path, answered in {
                "/healthz": self.health,
                "/health": self.health,
                "/info": self.inform,
                "/v1/models": self.list_models,
                "/metrics": self.count,
                "/openapi.json": self.describe,
                "/docs": self.show,
            }.items()
        ]
        self.app = Starlette(routes=routes, lifespan=self.living, exception_handlers={HTTPException: _no_such_route})
        # A path with a slash too many is not redirected: before a proxy with TLS, that would send a key on in the clear.
        self.app.router.redirect_slashes = False

    @contextlib.asynccontextmanager
    async def living(self, _: Starlette) -> AsyncIterator[None]:
        """Load the model before the first request, so that a server that cannot work does not start."""
        await self.reranker.awarmup()
        yield
        if self.owned:
            await self.reranker.aclose()

    def _guarded(self, route: Callable[[Request], Awaitable[Response | Answer]]) -> ASGIApp:
        """Return a route as an ASGI application that answers every error as JSON, without addresses and insides."""
        return _Guarded(self, route)

    def refusal(self, error: RerankError) -> Response:
        """Return the answer to a request that failed."""
        if isinstance(error, Refusal):
            return refused(error.status, str(error), self._headers(error))
        status = status_of(error)
        if status >= 500:
            self._log(error, status)
        return refused(status, self.public(str(error)), self._headers(error))

    def public(self, message: str) -> str:
        """Return a message of the backend without paths and addresses."""
        # A path may hold spaces, where only the label tells its end; a message may name any scorer that is inside.
        scorers = list(self.reranker.scorer.walk())
        labels = {name for scorer in scorers for name in (scorer.label, scorer.spec_name)}
        for label in sorted(labels, key=len, reverse=True):
            message = message.replace(label, public_label(label))
        return without_addresses(message)

    def _log(self, error: RerankError, status: int) -> None:
        """Tell the operator of a failure once a minute; the vendor's words stay out, they may quote a document."""
        now = time.monotonic()
        if now - self.logged.get(type(error), -_LOG_EVERY) < _LOG_EVERY:
            return
        self.logged[type(error)] = now
        backend = (error.backend if isinstance(error, BackendError) else None) or self.label
        answered = f", which answered {error.status}" if isinstance(error, BackendError) and error.status else ""
        _log.warning(
            "A request failed with %s (%s of %s%s; said at most once a minute)",
            status,
            type(error).__name__,
            one_line(backend),
            answered,
        )

    def _headers(self, error: RerankError) -> dict[str, str]:
        own = error.headers if isinstance(error, Refusal) else {}
        return {**retry_after(error, self._wait()), **own}

    def _wait(self) -> float:
        """Return after how many seconds a place is likely free: what a call takes, at most half a minute."""
        took = self.reranker.stats()["mean_latency_ms"] or 1_000.0
        return float(min(30.0, max(1.0, took / 1_000.0)))

    def _authorise(self, request: Request) -> None:
        if self.key is None:
            return
        given = request.headers.getlist("authorization")
        kind, _, token = given[0].partition(" ") if len(given) == 1 else ("", "", "")
        # Digests have one length, and compare_digest takes the same time wherever they differ.
        right = hmac.compare_digest(_digest(token.strip().encode("latin-1", "replace")), self.key)
        if not (right and kind.lower() == "bearer"):
            raise Refusal(
                401,
                "The key is missing or wrong. Send it once, in the header: Authorization: Bearer KEY.",
                {"www-authenticate": "Bearer"},
            )

    async def rerank(self, request: Request) -> Answer:
        """Answer one call."""
        self._authorise(request)
        _check_headers(request)
        declared = request.headers.get("content-length")
        length = int(declared) if declared else None
        share = self.in_flight.share()
        try:
            with self.door.entered(self._wait()), self.metrics.inside.track_inprogress():
                async with _bounded(self.limits.request_timeout):
                    # No variable here holds the body: it is free again as soon as it is read.
                    work = self._work(request.url.path, await read_body(request.stream(), self.limits, length, share))
                    pieces, headers = await _unless_gone(request, work)
            return Answer(pieces, headers, share)
        except BaseException:
            share.close()
            raise

    async def _work(self, path: str, body: bytes) -> tuple[deque[bytes], dict[str, str]]:
        """Read a body, rerank, and write the answer. Whatever is long runs on worker threads, and can be cancelled."""
        size = len(body)
        call = await _text_work(size, read, body, path)
        del body
        self._check(call)
        documents, cut = await self.cutter.cut(call.documents, call.max_tokens_per_doc)
        response = await self.reranker.arerank(call.query, documents, top_n=call.top_n, instruction=call.instruction)
        self.metrics.answered(response, len(documents))
        if call.given is None:
            size = 64 * len(response)
        pieces = await _text_work(size, lambda: encoded(answer(call, response, cut, self.public)))
        return pieces, _told(response)

    def _check(self, call: Call) -> None:
        if call.model is not None and call.model not in self.known_models:
            raise Refusal(
                404, f"The model {call.model[:200]!r} is not served here; this server has {self.models[0]!r}."
            )
        if len(call.documents) > self.limits.max_documents:
            raise Refusal(413, f"This server takes at most {self.limits.max_documents:,} documents in a request.")

    async def health(self, request: Request) -> Response:
        """Tell how it stands; who has no key learns only that it does."""
        told: dict[str, Any] = {"status": "ok", "version": __version__}
        with contextlib.suppress(Refusal):
            self._authorise(request)
            stats = self.reranker.stats()
            for name in ("answered_by", "attempts", "backends"):
                stats[name] = {public_label(label): each for label, each in stats[name].items()}
            if stats["last_reason"] is not None:
                stats["last_reason"] = self.public(stats["last_reason"])
            inside = {"inside": self.door.inside, "bytes_in_flight": self.in_flight.held}
            told |= {"model": self.public_label, **inside, **stats}
        return JSONResponse(told)

    async def inform(self, request: Request) -> Response:
        """Tell what is served, as Text Embeddings Inference does."""
        self._authorise(request)
        return JSONResponse(self.info)

    async def list_models(self, request: Request) -> Response:
        """List the names of the model, as OpenAI's API and vLLM do."""
        self._authorise(request)
        return JSONResponse(model_list(self.models, self.started))

    async def count(self, request: Request) -> Response:
        """Give the metrics."""
        self._authorise(request)
        return Response(self.metrics.text(), media_type="text/plain; version=0.0.4; charset=utf-8")

    async def describe(self, _: Request) -> Response:
        """Give the OpenAPI description."""
        return JSONResponse(self.described)

    async def show(self, _: Request) -> Response:
        """Give the description as a page."""
        return HTMLResponse(page(self.described))


class _Guarded:
    """One route. Sending is inside, so that what an answer holds is given back in every case."""

    def __init__(self, server: _Server, route: Callable[[Request], Awaitable[Response | Answer]]) -> None:
        self._server = server
        self._route = route

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        request = Request(scope, receive, send)
        response: Response | Answer
        try:
            _check_framing(request)
            response = await self._route(request)
        except RerankError as error:
            response = self._server.refusal(error)
        except ClientDisconnect:
            response = Response(status_code=_GONE)
        except Exception:
            _log.exception("The server failed at a request to %s", one_line(request.url.path))
            response = refused(500, "The server failed; its log says how. Tell whoever runs it.", {})
        self._server.metrics.requests.labels(str(response.status_code)).inc()
        await response(scope, receive, send)


@contextlib.asynccontextmanager
async def _bounded(seconds: float) -> AsyncIterator[None]:
    try:
        async with asyncio.timeout(seconds) as clock:
            yield
    except TimeoutError as error:
        if not clock.expired():  # of the reranker's own
            raise
        raise DeadlineExceeded(
            f"The request was not answered within {seconds:g} s. Send fewer or shorter documents, or raise the server's "
            "--request-timeout."
        ) from error


async def _text_work(size: int, work: Callable[..., T], *arguments: object) -> T:
    return work(*arguments) if size <= _INLINE else await run_text_work(size, work, *arguments)


def _digest(key: bytes) -> bytes:
    return hashlib.sha256(key).digest()


def _check_framing(request: Request) -> None:
    """Refuse a request whose end a proxy before us may have seen elsewhere (RFC 9112, 6.1): what follows may be smuggled."""
    if "transfer-encoding" in request.headers and "content-length" in request.headers:
        raise Refusal(
            400, "Content-Length and Transfer-Encoding contradict each other. Send one.", {"connection": "close"}
        )


def _check_headers(request: Request) -> None:
    kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if kind != "application/json":  # a form of somebody else's web page cannot send this without asking first
        raise Refusal(415, "The body has to be JSON. Send the header Content-Type: application/json.")
    if request.headers.get("content-encoding", "identity").lower() != "identity":
        raise Refusal(415, "A compressed body is not taken. Send it as it is.")


async def _unless_gone(request: Request, work: Coroutine[Any, Any, T]) -> T:
    """Await `work`, or cancel it when the client goes: nobody pays for an answer that nobody reads."""
    asked = asyncio.ensure_future(work)
    gone = asyncio.ensure_future(_gone(request))
    try:
        await asyncio.wait({asked, gone}, return_when=asyncio.FIRST_COMPLETED)
        if not asked.done():
            raise ClientDisconnect
        return asked.result()
    finally:
        for each in (asked, gone):
            each.cancel()
            with contextlib.suppress(asyncio.CancelledError, Exception):
                await each


async def _gone(request: Request) -> None:
    while (await request.receive())["type"] != "http.disconnect":
        pass


def _told(response: RerankResponse) -> dict[str, str]:
    headers = {"x-rerank-model": _header(public_label(response.model))}
    if response.degraded:
        headers["x-rerank-degraded"] = "true"
    if response.usage.input_tokens is not None:
        headers["x-compute-tokens"] = str(response.usage.input_tokens)
    return headers


def _header(text: str) -> str:
    """Return `text` as a header can carry it."""
    return "".join(each if each.isascii() and each.isprintable() else "?" for each in text)


def refused(status: int, message: str, headers: Mapping[str, str]) -> Response:
    """Return an error that clients of both shapes can read."""
    text = json.dumps({"message": message, "error": message, "error_type": TYPES.get(status, "Backend")})
    return Response(text, status, {**headers}, "application/json")


async def _no_such_route(request: Request, error: Exception) -> Response:
    try:
        _check_framing(request)  # here too: what follows on the connection is read as the next request
    except Refusal as refusal:
        return refused(refusal.status, str(refusal), refusal.headers)
    status = error.status_code if isinstance(error, HTTPException) else 404
    headers = dict(error.headers or {}) if isinstance(error, HTTPException) else {}
    known = "POST /v2/rerank, /v1/rerank or /rerank; GET /healthz, /info, /v1/models, /metrics, /openapi.json or /docs"
    return refused(status, f"{request.method} {request.url.path[:200]} is not served here. Use {known}.", headers)
