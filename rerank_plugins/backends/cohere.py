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
from contextvars import ContextVar
from dataclasses import replace
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, Field, PlainValidator, ValidationInfo, WithJsonSchema

from ..core.address import PathURL, proxy_variable
from ..core.context import holding
from ..core.errors import (
    AuthenticationFailed,
    BackendError,
    BadResponse,
    ConfigError,
    RerankError,
    TransientError,
)
from ..core.numeric import MOST, integer
from ..core.sdk import SDKBackend
from ..core.secret import Secret
from ..core.text_work import run_text_work
from ..core.types import Capabilities, RerankRequest, Scores, Span, Usage
from ..core.wire import HTTPResponse, connection_advice, error_for, error_for_status, join_url, parse_json, whole_number
from ..options import Count, Fraction, HostedOptions, Options, OrBool, checked, refused
from ..transport import open_client, prepare, unreachable
from .cohere_aws import REGION, AWSClient

__all__ = ["Cohere"]

PATH = "/v2/rerank"
PRODUCTION = "https://api.cohere.com"
LONGEST = 4096
"""Tokens of a document that Cohere reads, unless another number is sent."""


def _v2(client: Any) -> Any:
    rerank = getattr(client, "rerank", None)
    if not callable(rerank) or "rank_fields" in inspect.signature(rerank).parameters:  # the SDK's API v1
        raise refused(
            "must be a client of the API v2, such as cohere.AsyncClientV2() or cohere.BedrockClientV2(), "
            f"got {type(client).__name__}"
        )
    return client


def _alone(platform: str, info: ValidationInfo) -> str:
    """Refuse what a client of AWS would not use: it signs with AWS's credentials, and its region is its address."""
    for name in ("client", "api_key", "base_url"):
        if info.data.get(name) is not None:
            raise refused(f"cannot be {platform!r} beside `{name}`: leave one of them out")
    return platform


def _region(region: str, info: ValidationInfo) -> str:
    if "platform" in info.data and info.data["platform"] is None:
        raise refused("needs `platform`, such as 'bedrock'")
    if not REGION.fullmatch(region):
        raise refused("must be the name of an AWS region, such as 'eu-west-1'")
    return region


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
    platform: Annotated[Literal["bedrock", "sagemaker"], AfterValidator(_alone)] | None = None
    """Where on AWS the model runs, called with the credentials that boto3 finds (extra `cohere-aws`). The model is then an
    identifier of Bedrock's (`cohere:cohere.rerank-v3-5:0`) or the name of a SageMaker endpoint."""
    region: Annotated[str, AfterValidator(_region)] | None = None
    """The platform's region; without it `AWS_REGION` and `AWS_DEFAULT_REGION` are read."""
    max_tokens_per_doc: Count = LONGEST
    """Where Cohere cuts a document."""
    priority: Priority | None = None
    """0 is served first and dropped last."""
    relevant_spans: Annotated[SpansOptions | None, OrBool()] = None
    """Ask for the best passages (Rerank 5 and later): `true`, or a mapping with `threshold` and `max_spans`."""


class Cohere(SDKBackend):
    """Cohere, or what speaks its API: a private deployment or Azure by `base_url`, Bedrock and SageMaker by `platform`.

    The SDK's clients of AWS, like a blocking client of the user's, run on threads of this backend's own, and read their
    replies whole: the size of a reply has no limit there. (They run against local endpoints in the tests, not against AWS.)

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
        max_document_tokens=LONGEST,  # the default of max_tokens_per_doc (API reference)
        max_query_tokens=2048,  # best practices
    )

    def __init__(self, model: str | None = None, options: CohereOptions | None = None) -> None:
        """Name a model; on Bedrock or SageMaker by its identifier, ARN or endpoint."""
        options = options or CohereOptions()
        self._aws = (
            None if options.platform is None else AWSClient(options.platform, options.region, model, options.timeout)
        )
        super().__init__(model, client=options.client, **options.shared())
        self._key_is_hidden = self._key_is_hidden or self._aws is not None
        self.capabilities = replace(self.capabilities, max_document_tokens=options.max_tokens_per_doc)
        self._extra: dict[str, Any] = {"max_tokens_per_doc": options.max_tokens_per_doc}
        if self._aws is not None and options.max_tokens_per_doc == LONGEST:
            self._extra = {}  # AWS documents no such field, and its models have the same default
        if options.priority is not None:
            self._extra["priority"] = options.priority
        if options.relevant_spans is not None:
            self._extra["relevant_spans"] = options.relevant_spans.model_dump(exclude_none=True)

    def _known_address(self, given: str | None) -> str:
        return super()._known_address(given) if self._aws is None else self._aws.address

    def _find_key(self, given: Secret | None) -> Secret | None:
        return super()._find_key(given) if self._aws is None else None

    def load(self) -> None:
        """Import the SDK, which loads lazily, so its client has to be named; for AWS, make the client."""
        if self._aws is not None:
            self._aws.get()
            return
        from cohere import AsyncClientV2  # noqa: F401

    async def awarmup(self) -> None:
        """Import the SDK, httpx and the certificates without stopping the event loop."""
        if self._aws is not None:  # whose client reads the certificates when it is made
            await prepare(self._url)
        await super().awarmup()
        if self._given is None:
            await prepare(self._url)

    @property
    def _url(self) -> str:
        return self._aws.address if self._aws is not None else join_url(self._address or PRODUCTION, PATH)

    def open(self) -> Any:
        """Return an `AsyncClientV2` with an HTTP client made here: it bounds replies, and keeps credentials out of logs.

        The SDK appends the path to its `base_url` (and would double a /v2 at the end), so a query is added by that
        client, to the URL of each request. `timeout` must not be shorter than ours, which covers the attempt.
        """
        if self._aws is not None:
            return self._aws
        import cohere

        user = None if self._key is not None else self._base.user
        return cohere.AsyncClientV2(
            self._key.reveal() if self._key is not None else "n/a",  # `user` takes its place
            timeout=self._patience,
            base_url=self._url.removesuffix(PATH),
            httpx_client=open_client(
                replace(self._base, url=PathURL(self._url, self._base.url.secrets), user=user), _receive
            ),
        )

    async def shut(self, client: Any) -> None:
        """Close its connections, as the SDK's own `async with` does."""
        if client is not self._aws:
            await client.__aexit__(None, None, None)

    async def aclose(self) -> None:
        """Close the clients made here."""
        await super().aclose()
        if self._aws is not None:
            self._aws.close()

    @property
    def _patience(self) -> int:
        return int(self.timeout) + (60 if self._aws is None else 1)  # what hangs on AWS occupies a thread

    async def ask(self, client: Any, request: RerankRequest) -> Scores:
        """Send one request; `top_n` is never sent, and retries are ours.

        The newer fields go as `additional_body_parameters`, which every SDK version has, where keyword arguments would
        fail on the older ones.
        """
        from cohere.core import ApiError

        received: list[HTTPResponse] = []
        with holding(_RECEIVED, received):
            try:
                answer = await self.run(
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
            except ApiError as error:
                if not received:
                    raise
                raise self._refusal(received[-1]) from error
        if not received:
            return self._scores(answer, request)
        return await run_text_work(len(received[-1].body), self._read, received[-1], request)

    def _read(self, reply: HTTPResponse, request: RerankRequest) -> Scores:
        return self._scores(parse_json(reply, backend=self.label, url=self._url), request)

    def _scores(self, answer: Any, request: RerankRequest) -> Scores:
        """Return the scores in JSON, or in the SDK's object: it is built unchecked, so whatever came may be in it."""
        values, reply_order = self._scores_of(_pairs, answer, request)
        return Scores(
            values=values,
            reply_order=reply_order,
            model=self.label,
            capabilities=self.capabilities,
            usage=_usage(answer),
            spans=_spans(_get(answer, "results"), len(values)) if "relevant_spans" in self._extra else None,
        )

    def translate(self, error: Exception) -> Exception:
        """Return our error for an `ApiError` or for what the SDK's HTTP client raised."""
        ours = self._translated(error)
        if self._aws is not None and isinstance(ours, RerankError):
            ours.args = (f"{ours} {self._aws.advice}",)
        return ours

    def _translated(self, error: Exception) -> RerankError:
        from cohere.core import ApiError

        if isinstance(error, ApiError):
            headers = {str(name).lower(): str(value) for name, value in (getattr(error, "headers", None) or {}).items()}
            body = error.body.model_dump() if hasattr(error.body, "model_dump") else error.body  # typed before 5.16
            status = error.status_code or 200
            said = "" if 200 <= status < 300 else self._words(body)
            return error_for_status(status, headers, backend=self.label, explanation=said)
        package, kind = type(error).__module__.partition(".")[0], type(error).__name__
        shown = self._redacted(f"{kind}: {error}" if str(error) else kind)[:300]
        if package == "botocore":
            return AuthenticationFailed(
                f"{self.label}: {shown} Check the credentials and the region of AWS.", backend=self.label
            )
        if package == "httpx" and (self._given is None or kind in ("InvalidURL", "UnsupportedProtocol")):
            ours = unreachable(error, self._url)
            if isinstance(ours, ConfigError):
                return ConfigError(f"{self.label}: {ours}")
            return TransientError(f"{self.label}: {ours}", backend=self.label)
        if isinstance(error, OSError) or package in ("httpx", "httpcore", "h11", "anyio", "aiohttp"):
            return TransientError(
                f"{self.label}: no answer ({shown}). {connection_advice(error, proxy_variable(self._url))}",
                backend=self.label,
            )
        # What is left comes of a body that the SDK could not read: ValueError, TypeError, AttributeError, pydantic's.
        return BadResponse(
            f"{self.label} answered what the cohere SDK cannot read ({kind}). Check `base_url`.",
            backend=self.label,
        )

    def _refusal(self, reply: HTTPResponse) -> BackendError:
        try:
            said = self._words(parse_json(reply, backend=self.label))
        except BadResponse:
            said = ""
        return error_for(reply, backend=self.label, explanation=said, url=self._url)


_RECEIVED: ContextVar[list[HTTPResponse] | None] = ContextVar("rerank_plugins_cohere_received", default=None)
"""Takes the replies to the call under way."""


def _receive(reply: HTTPResponse) -> bytes:
    """Keep a reply for `ask`, and give the SDK an empty object to read in place of scores.

    The SDK builds a pydantic object for every document and passage, on the event loop: a tenth of a second for 1,000
    documents. Refusals it gets as they are, for the `ApiError` that it raises.
    """
    if (received := _RECEIVED.get()) is not None:
        received.append(reply)
    return b"{}" if 200 <= reply.status < 300 else reply.body


def _get(value: Any, name: str) -> Any:
    return value.get(name) if isinstance(value, Mapping) else getattr(value, name, None)


def _pairs(reply: Any) -> Iterable[tuple[int, float]]:
    return ((_get(each, "index"), _get(each, "relevance_score")) for each in _get(reply, "results"))


def _usage(reply: Any) -> Usage:
    billed = _get(_get(reply, "meta"), "billed_units")
    units, tokens = _get(billed, "search_units"), whole_number(_get(billed, "input_tokens"))
    return Usage(
        input_tokens=tokens if tokens is not None and tokens >= 0 else None,  # -1 where AWS did not say
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
