"""`HostedBackend`: a vendor over HTTP. `HTTPBackend`: the same for a reply that is read with the request at hand."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterable, Mapping
from typing import Any, ClassVar

from ._runtime.text_work import run_text_work
from .answer_metadata import NO_METADATA, read_metadata
from .call import record_response
from .errors import BackendError, BadResponse, ConfigError, Rejected
from .remote import Decode, Remote
from .reply import explanation, reply_limit, reported_usage
from .types import RerankRequest, Scores, Span, Unscored, Usage
from .wire import HTTPResponse, Transport, error_for, join_url, parse_json

__all__ = ["HTTPBackend", "HostedBackend"]


class HTTPBackend(Remote):
    """What all backends over HTTP share: the transport, headers, errors, usage, and the reading of replies.

    Subclass `HostedBackend`, where one request has one body and one reply. A subclass of this class implements `_ask`
    with `_exchange`, for a reply that can only be read with what the request said, such as ids.
    """

    transport: Transport | None = None
    """Sends the requests. `load_reranker` sets it."""
    transient_statuses: ClassVar[frozenset[int]] = frozenset()
    """More statuses below 500 that this vendor sends for failures that may pass."""

    path_option: str = ""
    """The option of the spec that sets the path, if any: an error for an address that does not exist names it."""

    def _find_address(self, base_url: str | None) -> str:
        if address := super()._find_address(base_url):
            return address
        raise ConfigError(
            f"{self.name or type(self).__name__} needs a base_url: the address of the server, such as "
            "http://127.0.0.1:8080."
        )

    def headers(self) -> Mapping[str, str]:
        """Return the headers of a request. By default the key is sent as a bearer token."""
        key = self._fixed_key if self._key_source is None else self._key
        return {} if key is None else {"authorization": f"Bearer {key.reveal()}"}

    def usage(self, body: Any, headers: Mapping[str, str]) -> Usage:
        """Return what the vendor reports to have consumed.

        By default it reads `usage` (OpenAI's format), else `meta.billed_units` and `meta.tokens` (Cohere's format).

        Args:
            body: The parsed JSON of the reply.
            headers: The headers of the reply; names in lower case.
        """
        return reported_usage(body)

    def spans(self, body: Any, count: int) -> tuple[tuple[Span, ...], ...] | None:
        """Return the best passages of each document; `None` if the vendor does not report any.

        Args:
            body: The parsed JSON of the reply.
            count: The number of documents.
        """
        return None

    def explain(self, body: Any) -> str:
        """Return the vendor's error message. By default it is searched for under the usual names.

        Args:
            body: The parsed JSON of an error reply.
        """
        return explanation(body)

    def too_large(self, status: int, body: Any) -> bool:
        """Return whether an error says that the request has too many tokens, so that fewer documents may pass.

        By default `False`. Where it is `True`, the core sends the documents again in smaller parts.

        Args:
            status: The status of the reply, 400 or above.
            body: Its parsed JSON; `None` if it is not JSON.
        """
        return False

    async def _exchange(self, path: str, payload: Mapping[str, Any], request: RerankRequest, decode: Decode) -> Scores:
        """Send `payload` to the path below `base_url`, and read the reply with `decode`.

        Args:
            path: May have a query.
            payload: The body, which is sent as JSON.
            request: The documents that the reply must score.
            decode: Reads the parsed JSON of the reply. It may raise a `KeyError` or the like for another shape.
        """
        own_path = self.base_url.partition("://")[2].partition("/")[2]
        path, _, query = path.partition("?")
        url = join_url(self._address, f"{own_path}/{path}")
        sent_to = f"{url}?{query}" if query else url
        reply = await self._in_time(self._post(sent_to, payload, reply_limit(request)))
        if not 200 <= reply.status < 300:
            raise self._error_for(reply, url)
        return await run_text_work(len(reply.body), self._read_scores, reply, request, url, decode)

    def _error_for(self, reply: HTTPResponse, url: str) -> BackendError:
        """Return the typed error for a reply with another status than 2xx."""
        try:
            body = parse_json(reply, backend=self.label)
        except BadResponse:
            body = None
        message = self._message_of(body)
        settings = self.settings_advice()
        if self.path_option and reply.status in (404, 405):
            settings = f"Check also `{self.path_option}`. {settings}".rstrip()
        error = error_for(
            reply,
            backend=self.label,
            explanation=message,
            transient=self.transient_statuses,
            url=url,
            key_advice=self.key_advice(),
            settings=settings,
        )
        if isinstance(error, Rejected):
            error.too_large = self.too_large(reply.status, body)
            error.explanation = message
        return error

    def _read_scores(self, reply: HTTPResponse, request: RerankRequest, url: str, decode: Decode) -> Scores:
        body = parse_json(reply, backend=self.label, url=url)
        values, reply_order, reasons = self._scores_of(decode, body, request)
        scores = Scores(
            values=values,
            reply_order=reply_order,
            reasons=reasons,
            model=self.label,
            capabilities=self.capabilities,
            usage=self._price.of_usage(self.usage(body, reply.headers)),
            spans=self.spans(body, len(values)),
        )
        metadata = read_metadata(body, reply.headers)
        return scores if metadata is NO_METADATA else self._with_metadata(scores, metadata)

    async def _post(self, url: str, payload: Mapping[str, Any], limit: int) -> HTTPResponse:
        if self.transport is None:
            raise ConfigError(f"{type(self).__name__} has no transport. Build it with load_reranker().")
        headers = dict(self.headers())
        if self._base.user is not None:
            headers = self._with_user(headers)
        try:
            reply = await self.transport.post(self._base.full(url), payload, headers, limit=limit)
        except BackendError as error:
            raise self._named(error) from error.__cause__
        record_response(reply.status, ())
        return reply

    def _with_user(self, headers: Mapping[str, str]) -> dict[str, str]:
        """Return `headers` with the user of the address, if they have no other authentication."""
        basic = self._base.authorization()
        if basic is None or any(name.lower() == "authorization" for name in headers):
            return dict(headers)
        return {**headers, "authorization": basic}

    def _message_of(self, body: Any) -> str:
        try:
            return self._redacted(self.explain(body))[:300]
        except Exception:  # `explain` may fail on an error of another shape; that must not hide the HTTP status
            return ""

    async def aclose(self) -> None:
        """Close the connections."""
        if self.transport is not None:
            await self.transport.aclose()


class HostedBackend(HTTPBackend):
    """A vendor over HTTP. Implement `encode` and `decode`; everything else has a default.

    The core sends the request, applies the timeout, turns HTTP statuses into errors, and checks that the reply has one
    finite score for each document. An instance sends nothing without a `transport`, which `load_reranker` sets.

    >>> class Acme(HostedBackend):
    ...     name = "acme"
    ...     model = "acme-rerank-1"
    ...     base_url = "https://api.acme.example/v1"
    ...     key_variables = ("ACME_API_KEY",)
    ...
    ...     def encode(self, request: RerankRequest) -> tuple[str, Mapping[str, Any]]:
    ...         return "rerank", {"query": request.query, "documents": list(request.documents)}
    ...
    ...     def decode(self, body: Any) -> Iterable[tuple[int, float]]:
    ...         return ((result["index"], result["score"]) for result in body["results"])
    >>> acme = Acme(api_key="a key")
    >>> acme.label
    'acme:acme-rerank-1'
    >>> acme.encode(RerankRequest(query="capital", documents=("Berlin",)))
    ('rerank', {'query': 'capital', 'documents': ['Berlin']})
    >>> list(acme.decode({"results": [{"index": 0, "score": 0.5}]}))
    [(0, 0.5)]
    """

    @abstractmethod
    def encode(self, request: RerankRequest) -> tuple[str, Mapping[str, Any]]:
        """Build the request to the vendor.

        Args:
            request: The query and the documents. `request.fields` holds mappings, if `capabilities.fields` is set.

        Returns:
            The path below `base_url`, and the body, which is sent as JSON.
        """

    @abstractmethod
    def decode(self, body: Any) -> Iterable[tuple[int, float | Unscored]]:
        """Read the scores from a reply. A `KeyError` or `TypeError` here becomes a `BadResponse`.

        Args:
            body: The parsed JSON of a reply with a 2xx status.

        Returns:
            (index, raw score) of each document, in any order; the index counts from 0 in the request. `Unscored`
            stands for the score of a document that the model declined to score.
        """

    async def _ask(self, request: RerankRequest) -> Scores:
        path, payload = self.encode(request)
        return await self._exchange(path, payload, request, self.decode)
