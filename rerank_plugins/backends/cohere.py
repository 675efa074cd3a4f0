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
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, Field, PlainValidator, WithJsonSchema

from ..core.address import PathURL, proxy_variable
from ..core.call import record_response, response_metadata
from ..core.errors import BadResponse, ConfigError, Rejected, TransientError
from ..core.hosted import SDKBackend
from ..core.numeric import MOST, integer
from ..core.secret import Secret
from ..core.types import Capabilities, RerankRequest, Scores, Span, Usage
from ..core.wire import HTTPResponse, connection_advice, error_for, error_for_status, join_url, parse_json, whole_number
from ..options import Count, Fraction, HostedOptions, Options, OrBool, checked, refused
from ..transport import LIMIT, open_client, prepare, read_reply, unreachable

__all__ = ["Cohere"]

PATH = "/v2/rerank"
PRODUCTION = "https://api.cohere.com"


def _v2(client: Any) -> Any:
    rerank = getattr(client, "rerank", None)
    if not callable(rerank) or "rank_fields" in inspect.signature(rerank).parameters:  # the SDK's API v1
        raise refused(
            "must be a client of the API v2, such as cohere.AsyncClientV2() or cohere.BedrockClientV2(), "
            f"got {type(client).__name__}"
        )
    return client


class SpansOptions(Options):
    """Which passages are asked for."""

    mode: Literal["enabled", "disabled"] = "enabled"
    """Whether any are."""
    threshold: Fraction | None = None
    """The lowest score of a passage."""
    max_spans: Count | None = None
    """Passages of one document."""


Priority = Annotated[
    int,
    PlainValidator(checked(lambda value, name: integer(value, name, 0))),
    WithJsonSchema({"type": "integer", "minimum": 0, "maximum": MOST}),
]


class CohereOptions(HostedOptions):
    """Options of Cohere's API."""

    client: Annotated[Any, AfterValidator(_v2)] | None = Field(default=None, repr=False)
    """A `cohere.AsyncClientV2`, or a blocking one (`ClientV2`, `BedrockClientV2`, `SagemakerClientV2`), which runs on
    threads of this backend's own."""
    max_tokens_per_doc: Count = 4096
    """Where Cohere cuts a document."""
    priority: Priority | None = None
    """0 is served first and dropped last."""
    relevant_spans: Annotated[SpansOptions | None, OrBool()] = None
    """Ask for the best passages (Rerank 5 and later): `true`, or a mapping with `threshold` and `max_spans`."""


class Cohere(SDKBackend):
    """Cohere, or what speaks its API; through a client of the user's also Bedrock, SageMaker or a private deployment.

    (Bedrock and SageMaker by the signature of the SDK's clients: not run against AWS.)

    Every model that the API lists (`rerank-v5.0-pro`, `-fast`, `rerank-v4.0-pro`, `-fast`, `rerank-v3.5`,
    `rerank-english-v3.0`, `rerank-multilingual-v3.0`) has the same limits: a document longer than the model's window is
    read in chunks and gets the best one's score, so only `max_tokens_per_doc` cuts it
    (https://docs.cohere.com/docs/reranking-best-practices, read in November 2026; it covers v3.0 to v4.0, and that v5
    does the same is not confirmed).
    """

    Options = CohereOptions
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

    def __init__(self, model: str | None = None, options: CohereOptions | None = None) -> None:
        """Name a model; on Bedrock or SageMaker by its identifier, ARN or endpoint."""
        options = options or CohereOptions()
        super().__init__(model, client=options.client, **options.shared())
        self.capabilities = replace(self.capabilities, max_document_tokens=options.max_tokens_per_doc)
        self._extra: dict[str, Any] = {"max_tokens_per_doc": options.max_tokens_per_doc}
        if options.priority is not None:
            self._extra["priority"] = options.priority
        if options.relevant_spans is not None:
            self._extra["relevant_spans"] = options.relevant_spans.model_dump(exclude_none=True)

    def key_of(self, client: Any) -> Secret | None:
        """Return the token that the SDK's client wrapper holds, unless it is a function or a placeholder."""
        token = getattr(getattr(client, "_client_wrapper", None), "_token", None)
        return Secret(token) if isinstance(token, str) and len(token) > len("n/a") else None

    def load(self) -> None:
        """Import the SDK: it loads lazily, so its client has to be named."""
        from cohere import AsyncClientV2  # noqa: F401

    async def awarmup(self) -> None:
        """Import the SDK, httpx and the certificates without stopping the event loop."""
        await super().awarmup()
        if self._given is None:
            await prepare(self._url)

    @property
    def _url(self) -> str:
        return join_url(self._address or PRODUCTION, PATH)

    def open(self) -> Any:
        """Return an `AsyncClientV2` with an HTTP client made here: it bounds replies, and keeps credentials out of logs.

        The SDK appends the path to its `base_url` (and would double a /v2 at the end), so a query is added by that
        client, to the URL of each request. `timeout` must not be shorter than ours, which covers the attempt.
        """
        import cohere

        user = None if self._key is not None else self._base.user
        return cohere.AsyncClientV2(
            self._key.reveal() if self._key is not None else "n/a",  # `user` takes its place
            timeout=self._patience,
            base_url=self._url.removesuffix(PATH),
            httpx_client=open_client(
                replace(self._base, url=PathURL(self._url, self._base.url.secrets), user=user), _take
            ),
        )

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
                    "additional_body_parameters": self._extra,
                },
            )
        except _Answer as answer:
            reply = self._body(answer.reply)
        # From a client of the user's it is the SDK's object, built unchecked: whatever JSON came is in it.
        values, reply_order = self._scores_of(_pairs, reply, request)
        return Scores(
            values=values,
            reply_order=reply_order,
            model=self.label,
            capabilities=self.capabilities,
            usage=_usage(reply),
            spans=_spans(_get(reply, "results"), len(values)) if "relevant_spans" in self._extra else None,
        )

    def _body(self, reply: HTTPResponse) -> Any:
        """Return the JSON of a good reply.

        Raises:
            BackendError: The reply is a refusal, or no JSON.
        """
        if 200 <= reply.status < 300:
            return parse_json(reply, backend=self.label, url=self._url)
        try:
            said = self._words(parse_json(reply, backend=self.label))
        except BadResponse:
            said = ""
        raise error_for(reply, backend=self.label, explanation=said, url=self._url)

    def translate(self, error: Exception) -> Exception:
        """Return our error for an `ApiError` or for what the SDK's HTTP client raised."""
        from cohere.core.api_error import ApiError

        if isinstance(error, ApiError):
            told = getattr(error, "headers", None)
            headers = {str(name).lower(): str(value) for name, value in told.items()} if told else _headers()
            body = error.body.model_dump() if hasattr(error.body, "model_dump") else error.body  # typed before 5.16
            said = self._words(body)
            status = error.status_code or 200
            return error_for_status(
                status, headers, backend=self.label, explanation="" if 200 <= status < 300 else said
            )
        package, kind = type(error).__module__.partition(".")[0], type(error).__name__
        told = self._redacted(f"{kind}: {error}" if str(error) else kind)[:300]
        if package == "botocore":
            return Rejected(f"{self.label}: {told} Check the credentials and the region of AWS.", backend=self.label)
        if package == "httpx" and (self._given is None or kind in ("InvalidURL", "UnsupportedProtocol")):
            ours = unreachable(error, self._url)
            if isinstance(ours, ConfigError):
                return ConfigError(f"{self.label}: {ours}")
            return TransientError(f"{self.label}: {ours}", backend=self.label)
        if isinstance(error, OSError) or package in ("httpx", "httpcore", "h11", "anyio", "aiohttp"):
            return TransientError(
                f"{self.label}: no answer ({told}). {connection_advice(error, proxy_variable(self._url))}",
                backend=self.label,
            )
        # What is left comes of a body that the SDK could not read: ValueError, TypeError, AttributeError, pydantic's.
        return BadResponse(
            f"{self.label} answered what the cohere SDK cannot read ({kind}). Check `base_url`.",
            backend=self.label,
        )


class _Answer(Exception):
    """Takes a reply past the SDK: building its objects costs more time than everything else here together."""

    def __init__(self, reply: HTTPResponse) -> None:
        super().__init__("answered")
        self.reply = reply


async def _take(response: Any) -> None:
    """Take the reply past the SDK, whose own reading of it has no limit."""
    record_response(response.status_code, response.headers.items())
    metadata = response_metadata()
    limit = metadata.limit if metadata is not None else None
    body = await read_reply(response, limit or LIMIT)
    raise _Answer(HTTPResponse(response.status_code, body, dict(_headers())))


def _headers() -> Mapping[str, str]:
    metadata = response_metadata()
    return metadata.headers if metadata is not None else {}


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
