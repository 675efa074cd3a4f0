"""Backends that leave the process: what they share, and a vendor over HTTP."""

from __future__ import annotations

import asyncio
import copy
import os
from abc import abstractmethod
from collections.abc import Awaitable, Callable, Hashable, Iterable, Mapping
from functools import cached_property
from typing import Any, ClassVar, TypeVar

from .address import Address, proxy_credentials
from .call import record_response
from .errors import BackendError, BadResponse, ConfigError, RerankError, TransientError, clause
from .numeric import integer, seconds
from .price import Price
from .redaction import holds, holds_key_like, one_line, redact, redact_key_like, redacting_logs
from .reply import explanation, read, reply_limit, reported_error
from .scorer import MAX_IN_FLIGHT, Backend
from .secret import Secret
from .text_work import run_text_work
from .types import RerankRequest, Scores, Span, Usage, aligned
from .wire import HTTPResponse, Transport, error_for, error_for_status, join_url, parse_json, whole_number

__all__ = ["TIMEOUT", "HostedBackend", "Remote"]

T = TypeVar("T")

TIMEOUT = 30.0


class Remote(Backend):
    """What every hosted backend shares: key, address, timeout of one attempt, requests in flight, price."""

    remote = True
    base_url: str = ""
    """The vendor's address; a `base_url` in the spec replaces scheme and host."""
    base_url_variables: ClassVar[tuple[str, ...]] = ()
    """Environment variables that may hold another address, in order: those that the vendor's own SDK reads."""
    key_variables: ClassVar[tuple[str, ...]] = ()
    """Environment variables that may hold the key, in order."""
    key_required: ClassVar[bool] = True
    """Whether calls without a key are refused (self-hosted servers mostly need none)."""
    timeout: float = TIMEOUT
    _key_is_hidden = False
    """Whether credentials are sent that cannot be read here: what looks like one is masked then."""

    def __init__(
        self,
        model: str | None = None,
        *,
        api_key: str | Secret | None = None,
        base_url: str | None = None,
        timeout: float = TIMEOUT,
        max_in_flight: int = MAX_IN_FLIGHT,
        price: Mapping[str, float] | None = None,
    ) -> None:
        """Prepare a client for a vendor.

        Args:
            model: The model's name at the vendor, or the default one.
            api_key: The key, or `"env:NAME"`; without it the variables in `key_variables` are read, in order.
            base_url: Replaces the vendor's scheme and host; the vendor's own path stays.
            timeout: Seconds for one attempt, from sending to the last byte.
            max_in_flight: Parts of one call that are sent at once, where a call is too large for one request.
            price: What you pay, for `usage.cost_usd`: `{"per_million_tokens": 0.05}` or `{"per_search_unit": 0.002}`.

        Raises:
            ConfigError: There is no key and the vendor wants one, or a number is out of range.
        """
        super().__init__(model)
        known = self._known_address(base_url)
        self._base = Address.of(known)
        self._key = self._find_key(Secret.of(api_key))
        if (address := self._find_address(base_url)) != known:
            self._base = Address.of(address)
        self._address = self._base.url
        """Where requests go, without credentials and query."""
        self.timeout = seconds(timeout, "timeout")
        self.max_in_flight = integer(max_in_flight, "max_in_flight")
        self._price = Price.of(price)

    def priced(self, usage: Usage) -> Usage:
        """Return `usage` with what it costs at this spec's price; `None` where there is none, or the vendor did not say."""
        return self._price.of_usage(usage)

    @cached_property
    def label(self) -> str:
        """`name:model`; neither changes once the backend is made, so it is written once."""
        return str(self.model_id)

    @property
    def account(self) -> Hashable:
        """The vendor, its address and the key: what a vendor counts requests by, whatever the model."""
        return self.name, self._address, self._key, self._base.user, self._base.query

    @property
    def fingerprint(self) -> str:
        """The label, and the address: an environment variable may hold another one."""
        return f"{self.label} {self._base.public}"

    def _known_address(self, given: str | None) -> str:
        variables = (value for name in self.base_url_variables if (value := os.environ.get(name)))
        return given or next(variables, "") or self.base_url

    def _find_address(self, given: str | None) -> str:
        return self._known_address(given)

    def _find_key(self, given: Secret | None) -> Secret | None:
        if given is not None:
            return given.resolved(files=True)
        if self._base.user is not None:  # named in the spec, where a key of the environment is not
            return None
        for variable in self.key_variables:
            if value := os.environ.get(variable, "").strip():
                return Secret(value)
        if self.key_required:
            names = " or ".join(self.key_variables) or "api_key"
            raise ConfigError(
                f"{self.name or type(self).__name__} needs a key: set the environment variable {names}, "
                'or give `api_key` (a value, or "env:NAME") in the spec.'
            )
        return None

    def credentials(self) -> tuple[str, ...]:
        """Return every text that no log and no message may show: the key, and what is secret in the address."""
        key = () if self._key is None else (self._key.reveal(),)
        return (*key, *self._base.credentials(), *proxy_credentials())

    def _redacted(self, text: str) -> str:
        """Return a text that came from outside on one line, with the credentials masked."""
        text = redact(one_line(text), self.credentials())
        return redact_key_like(text, self.model) if self._key_is_hidden else text

    async def ascore(self, request: RerankRequest) -> Scores:
        """Send one request and read its reply.

        The credentials are masked in what libraries log meanwhile, and in the error that comes out.
        """
        credentials = self.credentials()
        try:
            with redacting_logs(credentials):
                return await self._ask(request)
        except RerankError as error:
            if not (holds(error, credentials) or (self._key_is_hidden and holds_key_like(error, self.model))):
                raise
            clean = copy.copy(error)  # without its cause and context
            clean.args = tuple(redact(each, credentials) if isinstance(each, str) else each for each in error.args)
        raise clean  # outside of the `except`, which would make the first error its context

    @abstractmethod
    async def _ask(self, request: RerankRequest) -> Scores:
        """Send one request and read its reply."""

    def _named(self, error: BackendError) -> BackendError:
        """Return an error of the transport, which does not know for whom it sends, with the backend in its message."""
        if error.backend is not None:
            return error
        return type(error)(f"{self.label}: {error}", backend=self.label)

    def _scores_of(
        self, decode: Callable[[Any], Iterable[tuple[int, float]]], body: Any, request: RerankRequest
    ) -> tuple[tuple[float, ...], tuple[int, ...]]:
        """Return one score for each document of the JSON of a good reply, and the order of the reply.

        Raises:
            BackendError: The JSON is an error after all (some gateways send one with status 200), or of another shape.
        """
        try:
            pairs = read(decode, body, self.label)
        except BadResponse as error:
            if (ours := self._error_in(body)) is not None:
                raise ours from error
            raise
        return aligned(pairs, request, self.label)

    def _error_in(self, body: Any) -> BackendError | None:
        """Return the error that the JSON of a reply with status 200 holds in place of scores; `None` if it holds none."""
        said = self._words(body)
        if (reported := reported_error(body)) is not None:
            status, name = reported
            return error_for_status(status, {}, backend=self.label, explanation=said or self._redacted(name))
        if not said:
            return None
        return BadResponse(
            f"{self.label} answered 200 with an error in place of scores: {clause(said)}. Do what it asks for, or check "
            "`base_url`.",
            backend=self.label,
            status=200,
        )

    def _words(self, body: Any) -> str:
        """Return what the vendor says went wrong, redacted; nothing where that is not to be found."""
        return self._redacted(explanation(body))[:300]

    async def _in_time(self, work: Awaitable[T]) -> T:
        """Give one attempt its time."""
        try:
            async with asyncio.timeout(self.timeout):
                return await work
        except TimeoutError as error:
            raise TransientError(
                f"{self.label} did not answer within {self.timeout:g} s. It may pass: raise `timeout` or `retry`, "
                "or name a `fallback` in the spec.",
                backend=self.label,
            ) from error


class HostedBackend(Remote):
    """A vendor over HTTP. An author writes `encode` and `decode`; everything else has a sane default."""

    transport: Transport | None = None
    """Sends the requests; set by the configuration."""
    transient_statuses: ClassVar[frozenset[int]] = frozenset()
    """Statuses below 500 that mean at this vendor: it may pass."""

    def _find_address(self, given: str | None) -> str:
        if address := super()._find_address(given):
            return address
        raise ConfigError(
            f"{self.name or type(self).__name__} needs a base_url: the address of the server, such as "
            "http://127.0.0.1:8080."
        )

    @abstractmethod
    def encode(self, request: RerankRequest) -> tuple[str, Mapping[str, Any]]:
        """Return the path and the JSON body of a request."""

    @abstractmethod
    def decode(self, body: Any) -> Iterable[tuple[int, float]]:
        """Return (index, score) of every document, in any order, from the JSON of a reply."""

    def headers(self) -> Mapping[str, str]:
        """Return the headers of a request; by default the key as a bearer token."""
        return {"authorization": f"Bearer {self._key.reveal()}"} if self._key is not None else {}

    def usage(self, body: Any, headers: Mapping[str, str]) -> Usage:
        """Return what the vendor says it charged; by default `usage.total_tokens`, which most of them tell."""
        told = body.get("usage") if isinstance(body, dict) else None
        return Usage(input_tokens=whole_number(told.get("total_tokens")) if isinstance(told, dict) else None)

    def spans(self, body: Any, count: int) -> tuple[tuple[Span, ...], ...] | None:
        """Return the best passages of each document, where the vendor tells."""
        return None

    def explain(self, body: Any) -> str:
        """Return what the vendor says went wrong, from the JSON of an error reply."""
        return explanation(body)

    async def _ask(self, request: RerankRequest) -> Scores:
        path, payload = self.encode(request)
        own_path = self.base_url.partition("://")[2].partition("/")[2]
        path, _, query = path.partition("?")
        url = join_url(self._address, f"{own_path}/{path}")
        sent_to = f"{url}?{query}" if query else url
        reply = await self._in_time(self._post(sent_to, payload, reply_limit(request)))
        if not 200 <= reply.status < 300:
            told = self._explanation(reply)
            raise error_for(reply, backend=self.label, explanation=told, transient=self.transient_statuses, url=url)
        return await run_text_work(len(reply.body), self._read_scores, reply, request, url)

    def _read_scores(self, reply: HTTPResponse, request: RerankRequest, url: str) -> Scores:
        body = parse_json(reply, backend=self.label, url=url)
        values, reply_order = self._scores_of(self.decode, body, request)
        return Scores(
            values=values,
            reply_order=reply_order,
            model=self.label,
            capabilities=self.capabilities,
            usage=self._price.of_usage(self.usage(body, reply.headers)),
            spans=self.spans(body, len(values)),
        )

    async def _post(self, url: str, payload: Mapping[str, Any], limit: int) -> HTTPResponse:
        if self.transport is None:
            raise ConfigError(f"{type(self).__name__} has no transport: build it with load_reranker().")
        headers = dict(self.headers())
        if self._base.user is not None and (basic := self._base.authorization()):
            if not any(name.lower() == "authorization" for name in headers):
                headers["authorization"] = basic
        try:
            reply = await self.transport.post(self._base.full(url), payload, headers, limit=limit)
        except BackendError as error:
            raise self._named(error) from error.__cause__
        record_response(reply.status, ())
        return reply

    def _words(self, body: Any) -> str:
        try:
            return self._redacted(self.explain(body))[:300]
        except Exception:  # an error of any form must not hide the status
            return ""

    def _explanation(self, reply: HTTPResponse) -> str:
        try:
            return self._words(parse_json(reply, backend=self.label))
        except BadResponse:
            return ""

    async def aclose(self) -> None:
        """Close the connections."""
        if self.transport is not None:
            await self.transport.aclose()
