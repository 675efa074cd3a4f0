"""Cohere Rerank, through the `cohere` SDK (5.13 to 7.x): `POST https://api.cohere.com/v2/rerank`.

Sends `{"model", "query", "documents": [text, …], "max_tokens_per_doc"}` and, where asked, `priority` and
`relevant_spans`; reads `{"results": [{"index", "relevance_score", "relevant_spans"?}], "meta": {"billed_units"}}`
(https://docs.cohere.com/reference/rerank, and `v2/client.py` of cohere 7.3.1; read in November 2026). Documents are
texts only: structured ones go as YAML, as that page advises, which the core has done. There is no field for an
instruction.
"""

from __future__ import annotations

import inspect
from collections.abc import Iterable, Mapping
from dataclasses import replace
from typing import Any

from ..core.errors import BadResponse, ConfigError, Rejected, TransientError
from ..core.hosted import TIMEOUT, SDKBackend, explanation, read
from ..core.noting import note, noted
from ..core.numeric import integer
from ..core.scorer import MAX_IN_FLIGHT
from ..core.secret import Secret
from ..core.types import Capabilities, RerankRequest, Scores, Span, Usage, aligned
from ..core.wire import HTTPResponse, error_for_status, join_url, parse_json, whole_number

__all__ = ["Cohere"]

PATH = "/v2/rerank"


class Cohere(SDKBackend):
    """Cohere, or what speaks its API; through a client of the user's also Bedrock, SageMaker or a private deployment.

    (Bedrock and SageMaker by the signature of the SDK's clients: not run against AWS.)

    Every model that the API lists (`rerank-v5.0-pro`, `-fast`, `rerank-v4.0-pro`, `-fast`, `rerank-v3.5`,
    `rerank-english-v3.0`, `rerank-multilingual-v3.0`) has the same limits: a document longer than the model's window is
    read in chunks and gets the best one's score, so only `max_tokens_per_doc` cuts it
    (https://docs.cohere.com/docs/reranking-best-practices, read in November 2026; it covers v3.0 to v4.0, and that v5
    does the same is not confirmed).
    """

    model = "rerank-v5.0-fast"
    key_variables = ("CO_API_KEY", "COHERE_API_KEY")
    base_url_variables = ("CO_API_URL",)
    capabilities = Capabilities(
        scale="unit",
        # "We recommend against sending more than 1,000 documents in a single request" (API reference); the hard limit
        # is 10,000 (best practices).
        max_documents=1000,
        max_document_tokens=4096,  # the default of max_tokens_per_doc (API reference)
        max_query_tokens=2048,  # best practices
    )

    def __init__(
        self,
        model: str | None = None,
        *,
        api_key: str | Secret | None = None,
        client: Any = None,
        base_url: str | None = None,
        timeout: float = TIMEOUT,
        max_in_flight: int = MAX_IN_FLIGHT,
        price: Mapping[str, float] | None = None,
        max_tokens_per_doc: int = 4096,
        priority: int | None = None,
        relevant_spans: bool | Mapping[str, Any] = False,
    ) -> None:
        """See `SDKBackend`.

        Args:
            model: The model's name; on Bedrock or SageMaker its identifier, ARN or endpoint.
            api_key: The key, or `"env:NAME"`.
            client: A `cohere.AsyncClientV2`, or a blocking one (`ClientV2`, `BedrockClientV2`, `SagemakerClientV2`),
                which runs on threads of this backend's own.
            base_url: Replaces scheme and host.
            timeout: Seconds for one attempt.
            max_in_flight: Parts of one call that are sent at once.
            price: US dollars for tokens or search units.
            max_tokens_per_doc: Where Cohere cuts a document.
            priority: 0 is served first and dropped last.
            relevant_spans: Ask for the best passages (Rerank 5 and later); a mapping gives `threshold` and `max_spans`.
        """
        integer(max_tokens_per_doc, "cohere.max_tokens_per_doc")
        if priority is not None:
            integer(priority, "cohere.priority", 0)
        if client is not None:
            _check_client(client)
        super().__init__(
            model,
            api_key=api_key,
            client=client,
            base_url=base_url,
            timeout=timeout,
            max_in_flight=max_in_flight,
            price=price,
        )
        self.capabilities = replace(self.capabilities, max_document_tokens=max_tokens_per_doc)
        self._options: dict[str, Any] = {"max_tokens_per_doc": max_tokens_per_doc}
        if priority is not None:
            self._options["priority"] = priority
        if relevant_spans is not False:
            given = relevant_spans if isinstance(relevant_spans, Mapping) else {}
            self._options["relevant_spans"] = {"mode": "enabled", **given}

    def key_of(self, client: Any) -> Secret | None:
        """Return the token that the SDK's client wrapper holds, unless it is a function or a placeholder."""
        token = getattr(getattr(client, "_client_wrapper", None), "_token", None)
        return Secret(token) if isinstance(token, str) and len(token) > len("n/a") else None

    def load(self) -> None:
        """Import the SDK: it loads lazily, so its client has to be named."""
        from cohere import AsyncClientV2  # noqa: F401

    def open(self) -> Any:
        """Return an `AsyncClientV2`; its `timeout` only must not be shorter than ours, which covers the attempt."""
        import cohere

        address: dict[str, Any] = {}
        if self._address:  # the SDK appends the path, and would double a /v2 at the end
            address["base_url"] = join_url(self._address, PATH).removesuffix(PATH)
        key = self._key.reveal() if self._key is not None else None
        client = cohere.AsyncClientV2(key, timeout=self._patience, **address)
        # The way in which the SDK itself closes it. Errors tell the headers (Retry-After) from 5.16 on only.
        client._client_wrapper.httpx_client.httpx_client.event_hooks["response"].append(_take)
        return client

    async def shut(self, client: Any) -> None:
        """Close its connections, as the SDK's own `async with` does."""
        await client.__aexit__(None, None, None)

    @property
    def _patience(self) -> int:
        return int(self.timeout) + 60

    async def ask(self, client: Any, request: RerankRequest) -> Scores:
        """Send one request; `top_n` is never sent, and retries are ours.

        The newer fields go as `additional_body_parameters`, which every SDK version has, where keyword arguments would
        fail on the older ones.
        """
        try:
            reply = await self.run(
                client.rerank,
                model=self.model,
                query=request.query,
                documents=list(request.documents),
                request_options={
                    "max_retries": 0,
                    "timeout_in_seconds": self._patience,
                    "additional_body_parameters": self._options,
                },
            )
        except _Answer as answer:
            reply = parse_json(answer.reply, backend=self.label)
        # From a client of the user's it is the SDK's object, built unchecked: whatever JSON came is in it.
        values, reply_order = aligned(read(_pairs, reply, self.label), request, self.label)
        return Scores(
            values=values,
            reply_order=reply_order,
            model=self.label,
            capabilities=self.capabilities,
            usage=_usage(reply),
            spans=_spans(_get(reply, "results"), len(values)) if "relevant_spans" in self._options else None,
        )

    def translate(self, error: Exception) -> Exception:
        """Return our error for an `ApiError` or for what the SDK's HTTP client raised."""
        from cohere.core.api_error import ApiError

        if isinstance(error, ApiError):
            told = getattr(error, "headers", None)
            headers = {str(name).lower(): str(value) for name, value in told.items()} if told else _headers()
            body = error.body.model_dump() if hasattr(error.body, "model_dump") else error.body  # typed before 5.16
            said = self._redacted(explanation(body))[:300]
            status = error.status_code or 200
            return error_for_status(
                status, headers, backend=self.label, explanation="" if 200 <= status < 300 else said
            )
        package, kind = type(error).__module__.partition(".")[0], type(error).__name__
        told = self._redacted(f"{kind}: {error}" if str(error) else kind)[:300]
        if package == "botocore":
            return Rejected(f"{self.label}: {told} Check the credentials and the region of AWS.", backend=self.label)
        if kind in ("InvalidURL", "UnsupportedProtocol", "LocalProtocolError"):
            return ConfigError(f"{self.label} cannot be asked ({told}): check `base_url` and `api_key`.")
        if isinstance(error, OSError) or package in ("httpx", "httpcore", "h11", "anyio", "aiohttp"):
            return TransientError(
                f"{self.label}: no answer ({told}). It may pass: raise `retry` or name a `fallback` in the spec, and "
                "check `base_url`.",
                backend=self.label,
            )
        # What is left comes of a body that the SDK could not read: ValueError, TypeError, AttributeError, pydantic's.
        return BadResponse(
            f"{self.label} answered what the cohere SDK cannot read ({kind}). Check `base_url`.",
            backend=self.label,
        )


def _check_client(client: Any) -> None:
    rerank = getattr(client, "rerank", None)
    if rerank is None or "rank_fields" in inspect.signature(rerank).parameters:  # the SDK's API v1
        raise ConfigError(
            f"cohere.client has to be a client of the API v2, such as cohere.AsyncClientV2() or "
            f"cohere.BedrockClientV2(); {type(client).__name__} is none."
        )


class _Answer(Exception):
    """Takes a good reply past the SDK: building its objects costs more time than everything else here together."""

    def __init__(self, reply: HTTPResponse) -> None:
        super().__init__("answered")
        self.reply = reply


async def _take(response: Any) -> None:
    """Note a reply, and take it if it is a good one; a refusal is the SDK's to raise."""
    note(response.status_code, response.headers.items())
    if 200 <= response.status_code < 300:
        raise _Answer(HTTPResponse(response.status_code, await response.aread()))


def _headers() -> Mapping[str, str]:
    found = noted()
    return found.headers if found is not None else {}


def _get(value: Any, name: str) -> Any:
    return value.get(name) if isinstance(value, Mapping) else getattr(value, name, None)


def _pairs(reply: Any) -> Iterable[tuple[int, float]]:
    return ((_get(each, "index"), _get(each, "relevance_score")) for each in _get(reply, "results"))


def _usage(reply: Any) -> Usage:
    billed = _get(_get(reply, "meta"), "billed_units")
    units, tokens = _get(billed, "search_units"), _get(billed, "input_tokens")
    return Usage(
        input_tokens=whole_number(tokens),
        search_units=units if isinstance(units, int | float) and not isinstance(units, bool) else None,
    )


def _spans(results: Any, count: int) -> tuple[tuple[Span, ...], ...]:
    found: list[tuple[Span, ...]] = [()] * count
    for result in results:
        told = (
            [_get(span, name) for name in ("start", "end", "score")] for span in _get(result, "relevant_spans") or ()
        )
        found[_get(result, "index")] = tuple(Span(*each) for each in told if None not in each)
    return tuple(found)
