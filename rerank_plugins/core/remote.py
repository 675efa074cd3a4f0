"""`Remote`: what backends over HTTP share with those on top of an SDK: key, address, timeout, price."""

from __future__ import annotations

import asyncio
import copy
import logging
import math
import os
import time
from abc import abstractmethod
from collections.abc import Awaitable, Callable, Hashable, Iterable, Mapping
from contextvars import ContextVar
from functools import cached_property
from typing import Any, ClassVar, TypeVar

from ._runtime.context_vars import set_context
from .address import Address, proxy_credentials
from .alignment import Aligned, aligned
from .answer_metadata import AnswerMetadata
from .call import record_refusal
from .credentials import FunctionKey, KeyFunction, KeySource, key_source, sealed_key
from .defaults import LIST, MAX_IN_FLIGHT, TIMEOUT
from .errors import (
    AuthenticationFailed,
    BackendError,
    BadResponse,
    ConfigError,
    RerankError,
    TransientError,
    clause,
)
from .numeric import integer, seconds
from .price import ListPrice, Price, find_list_price
from .redaction import holds, holds_key_like, one_line, redact, redact_key_like, redacting_logs
from .reply import SHAPE_ERRORS, explanation, reported_error, unknown_shape
from .scorer import Backend
from .secret import Secret
from .types import RerankRequest, Scores, Unscored, Usage
from .wire import KEY_ADVICE, error_for_status

__all__ = ["Decode", "Remote"]

T = TypeVar("T")
Decode = Callable[[Any], Iterable[tuple[int, float | Unscored]]]
"""Reads (index, raw score) of each document from the parsed JSON of a reply."""

_log = logging.getLogger("rerank_plugins")
_WARN_EVERY = 60.0
_REASON = 1_000
"""Characters of a server's own words in `Scores.reason`."""


_REQUEST_KEY: ContextVar[tuple[Remote, Secret] | None] = ContextVar("rerank_plugins_request_key", default=None)
"""The backend and the key of the current request. Requests at the same time may have different keys while one rotates.
"""


class Remote(Backend):
    """A backend outside this process: key, address, timeout of one attempt, requests in flight, price."""

    remote = True
    base_url: str = ""
    """The vendor's address. A `base_url` in the spec replaces scheme and host; the path stays."""
    base_url_variables: ClassVar[tuple[str, ...]] = ()
    """Environment variables that replace `base_url`, first one first: those that the vendor's own SDK reads."""
    key_variables: ClassVar[tuple[str, ...]] = ()
    """Environment variables that may hold the key, first one first."""
    key_required: ClassVar[bool] = True
    """Whether a missing key is an error. Self-hosted servers mostly need none."""
    list_prices: ClassVar[Mapping[str, ListPrice]] = {}
    """Published prices by model, for `price = "list"`."""
    list_price: ListPrice | None = None
    """The published price that costs are computed from; `None` without `price = "list"`."""
    finds_credentials: ClassVar[bool] = False
    """Whether it finds credentials of the program elsewhere: those of a cloud, which its SDK finds."""
    retired: ClassVar[Mapping[str, str]] = {}
    """Models that are gone or on their way out, and what is known of that."""
    timeout: float = TIMEOUT
    """Seconds for one attempt, from sending the request to the last byte of the reply."""
    _key_is_unknown = False
    """Whether requests carry a key that only a client of the user holds. Then every text that looks like a key is
    masked."""

    def __init__(
        self,
        model: str | None = None,
        *,
        api_key: str | Secret | FunctionKey | KeyFunction | None = None,
        base_url: str | None = None,
        timeout: float = TIMEOUT,
        max_in_flight: int = MAX_IN_FLIGHT,
        price: Mapping[str, float] | str | None = None,
    ) -> None:
        """Find the key and the address, and check the numbers. Nothing is sent.

        Args:
            model: The model's name at the vendor; `None` is the default of the class.
            api_key: The key, `"env:NAME"`, `"file:PATH"`, or a function that returns the key; `None` reads the
                variables in `key_variables`.
            base_url: Replaces the vendor's scheme and host; the vendor's own path stays.
            timeout: Seconds for one attempt, from sending the request to the last byte of the reply.
            max_in_flight: How many requests of one call run at the same time, if the call needs several.
            price: What you pay, for `usage.cost_usd`: `{"per_million_tokens": 0.05}`, `{"per_search_unit": 0.002}`, or
                `"list"` for the price in `list_prices`.

        Raises:
            ConfigError: The key is missing, the address is not a URL, a number is out of range, or no list price of
                the model is known.
        """
        super().__init__(model)
        known = self._known_address(base_url)
        self._base = Address.of(known)
        key = self._find_key(sealed_key(api_key))
        self._fixed_key = key if isinstance(key, Secret) else None
        self._key_source = key if isinstance(key, KeySource) else None
        if (address := self._find_address(base_url)) != known:
            self._base = Address.of(address)
        self._address = self._base.url
        """The URL that requests go to, without credentials and query."""
        self.timeout = seconds(timeout, "timeout")
        self.max_in_flight = integer(max_in_flight, "max_in_flight")
        if isinstance(price, str) and price == LIST:
            self.list_price = find_list_price(f"{self.name}:{self.model}".rstrip(":"), self.model, self.list_prices)
        self._price = Price.of(price) if self.list_price is None else self.list_price.price
        self._warned_at = -math.inf
        """When a warning of the server was logged last. Not locked: two threads at once write one line too many."""

    def priced(self, usage: Usage) -> Usage:
        """Return `usage` with `cost_usd`; it stays `None` without a price, or if the vendor reports no units."""
        return self._price.of_usage(usage)

    @cached_property
    def label(self) -> str:
        """`name:model`. Neither changes after construction, so the text is built once."""
        return str(self.model_id)

    @property
    def account(self) -> Hashable:
        """Vendor, address and key: vendors count requests by these, whatever the model."""
        return self.name, self._address, self._key_source or self._fixed_key, self._base.user, self._base.query

    @property
    def fingerprint(self) -> str:
        """Label and address, since an environment variable may replace the address."""
        return f"{self.label} {self._base.public}"

    def _known_address(self, base_url: str | None) -> str:
        variables = (value for name in self.base_url_variables if (value := os.environ.get(name)))
        return base_url or next(variables, "") or self.base_url

    def _find_address(self, base_url: str | None) -> str:
        return self._known_address(base_url)

    @property
    def _key(self) -> Secret | None:
        """The key of the current request; outside of a request, the key that was read last."""
        if self._key_source is None:
            return self._fixed_key
        request_key = _REQUEST_KEY.get()
        if request_key is not None and request_key[0] is self:
            return request_key[1]
        return self._key_source.current

    def _find_key(self, api_key: Secret | FunctionKey | None) -> Secret | KeySource | None:
        """Return the key, or the source of a key that may change. `None` if requests are sent without one."""
        if api_key is not None:
            return key_source(api_key)
        if not self.reads_key_variables:  # a user in the URL precedes a key of the environment
            return None
        for variable in self.key_variables:
            if value := os.environ.get(variable, "").strip():
                return Secret(value)
        if self.key_required:
            names = " or ".join(self.key_variables) or "api_key"
            raise ConfigError(
                f"{self.name or type(self).__name__} needs a key: set the environment variable {names}, "
                'or set `api_key` (a value, "env:NAME" or "file:PATH") in the spec.'
            )
        return None

    @property
    def reads_key_variables(self) -> bool:
        """Whether the key is read from `key_variables` where the spec has no `api_key`."""
        return self._base.user is None

    def key_advice(self) -> str:
        """Return what to check if the key is refused."""
        if self._base.user is not None and self._fixed_key is None and self._key_source is None:
            return "Check user and password in `base_url`."
        if not (self.key_variables and self.reads_key_variables):
            return KEY_ADVICE
        return f"Check the key (`api_key`, or the environment variable {' or '.join(self.key_variables)})."

    def settings_advice(self) -> str:
        """Return what to check if a request is refused, beside key, address and model; "" without such advice."""
        state = self.retired.get(self.model)
        return f"About {self.model}: {state}." if state else ""

    def credentials(self) -> tuple[str, ...]:
        """Return the texts that no log and no error may show: the key, and the secret parts of the address."""
        key = self._fixed_key if self._key_source is None else self._key
        known = () if key is None else (key.reveal(),)
        return (*known, *self._base.credentials(), *proxy_credentials())

    def _redacted(self, text: str) -> str:
        """Return a text of the vendor on one line, with credentials masked."""
        text = redact(one_line(text), self.credentials())
        return redact_key_like(text, self.model) if self._key_is_unknown else text

    async def ascore(self, request: RerankRequest) -> Scores:
        """Send one request and read its reply, with a key that is valid now.

        If the vendor refuses a key that may change, the request is sent once more with a newer key, if there is one.
        """
        if (source := self._key_source) is None:
            return await self._redacting(request)
        key = await self._key_in_time(source.aget())
        started = time.perf_counter()
        try:
            with set_context(_REQUEST_KEY, (self, key)):
                return await self._redacting(request)
        except AuthenticationFailed as error:
            newer = await self._key_in_time(source.arefresh(key))
            if newer == key:
                raise
            milliseconds = (time.perf_counter() - started) * 1000.0
            record_refusal(self.label, milliseconds, str(error), error.status)
        with set_context(_REQUEST_KEY, (self, newer)):
            return await self._redacting(request)

    async def _key_in_time(self, work: Awaitable[Secret]) -> Secret:
        """Await a key for at most `timeout` seconds."""
        try:
            async with asyncio.timeout(self.timeout) as limit:
                return await work
        except TimeoutError as error:
            if not limit.expired():  # the function raised it
                raise
            assert self._key_source is not None
            raise TransientError(
                f"{self.label}: {self._key_source.origin} returned no key within {self.timeout:g} s. It may pass: "
                "raise `timeout`, or name a `fallback` in the spec.",
                backend=self.label,
            ) from error

    async def _redacting(self, request: RerankRequest) -> Scores:
        """Send one request. Credentials are masked in all that libraries log meanwhile, and in the error raised."""
        credentials = self.credentials()
        try:
            with redacting_logs(credentials):
                return await self._ask(request)
        except RerankError as error:
            if not (holds(error, credentials) or (self._key_is_unknown and holds_key_like(error, self.model))):
                raise
            clean = copy.copy(error)  # without cause and context, which may hold the credentials too
            clean.args = tuple(redact(each, credentials) if isinstance(each, str) else each for each in error.args)
        raise clean  # outside of `except`, where Python would set the first error as its context

    @abstractmethod
    async def _ask(self, request: RerankRequest) -> Scores:
        """Send one request and read its reply."""

    def _named(self, error: BackendError) -> BackendError:
        """Add the backend to an error of the transport, which serves any backend."""
        if error.backend is not None:
            return error
        return type(error)(f"{self.label}: {error}", backend=self.label)

    def _scores_of(self, decode: Decode, body: Any, request: RerankRequest) -> Aligned:
        """Read the JSON of a reply with a 2xx status.

        Raises:
            BackendError: The JSON has another shape, or it is an error: some gateways send errors with status 200.
        """
        try:
            pairs = list(decode(body))
        except SHAPE_ERRORS as error:
            raise self._error_in(body) or unknown_shape(error, self.label) from error
        except BadResponse as error:
            if (reported := self._error_in(body)) is not None:
                raise reported from error
            raise
        return aligned(pairs, request, self.label)

    def _error_in(self, body: Any) -> BackendError | None:
        """Return the error that a reply with status 200 holds in place of scores. `None` if it holds none."""
        message = self._message_of(body)
        if (reported := reported_error(body)) is not None:
            status, name = reported
            return error_for_status(
                status,
                {},
                backend=self.label,
                explanation=message or self._redacted(name),
                key_advice=self.key_advice(),
                settings=self.settings_advice(),
            )
        if not message:
            return None
        return BadResponse(
            f"{self.label} answered 200 with an error in place of scores: {clause(message)}. Do what it asks for, or "
            "check `base_url`.",
            backend=self.label,
            status=200,
        )

    def _with_metadata(self, scores: Scores, metadata: AnswerMetadata) -> Scores:
        """Return `scores` with what the server reports about them: degraded, truncated, unscored, warnings."""
        reason = self._reason(metadata)
        if reason is not None:
            self._log_metadata(metadata)
        return metadata.apply_to(scores, reason)

    def _reason(self, metadata: AnswerMetadata) -> str | None:
        parts = []
        if metadata.degraded:
            why = self._redacted(metadata.reason or "it does not say why")
            parts.append(f"the server of {self.label} answered with a fallback: {why}")
        if metadata.warnings:
            parts.append(f"{self.label} warns: {'; '.join(map(self._redacted, metadata.warnings))}")
        return "; ".join(parts)[: len(self.label) + _REASON] or None

    def _log_metadata(self, metadata: AnswerMetadata) -> None:
        """Log at most once a minute. The server's own text is left out, because it may quote a document."""
        now = time.monotonic()
        if now - self._warned_at < _WARN_EVERY:
            return
        self._warned_at = now
        _log.warning(
            "%s sent %s. The response's `reason` quotes the server. (logged at most once a minute)",
            one_line(self.label),
            "the answer of a fallback" if metadata.degraded else "a warning",
        )

    def _message_of(self, body: Any) -> str:
        """Return the vendor's own error message from the JSON of a reply, redacted; "" if there is none."""
        return self._redacted(explanation(body))[:300]

    async def _in_time(self, work: Awaitable[T], what: str = "") -> T:
        """Await `work` for at most `timeout` seconds; `what` does it, for the error, if it is not the backend."""
        try:
            async with asyncio.timeout(self.timeout):
                return await work
        except TimeoutError as error:
            raise TransientError(
                f"{what or self.label} did not answer within {self.timeout:g} s. It may pass: raise `timeout` or "
                "`retry`, or name a `fallback` in the spec.",
                backend=self.label,
            ) from error
