"""Cohere Rerank, through the `cohere` SDK (5.13 to 7.x): `POST https://api.cohere.com/v2/rerank`.

Sends `{"model", "query", "documents": [text, …]}` and, if set, `max_tokens_per_doc`, `priority` and `relevant_spans`.
Reads `{"results": [{"index", "relevance_score", "relevant_spans"?}], "meta": {"billed_units"}}`
(https://docs.cohere.com/reference/rerank, and `v2/client.py` of cohere 7.3.1; read in November 2026). Documents are
strings: the core writes mappings as YAML, as that page advises. There is no field for an instruction.
"""

from __future__ import annotations

import inspect
from collections.abc import Iterable, Mapping
from contextvars import ContextVar
from dataclasses import replace
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, Field, PlainValidator, ValidationInfo, WithJsonSchema

from ..core._runtime.context_vars import set_context
from ..core._runtime.text_work import run_text_work
from ..core.address import PathURL, proxy_variable
from ..core.answer_metadata import get_field, read_metadata
from ..core.credentials import FunctionKey, KeySource
from ..core.errors import (
    AuthenticationFailed,
    BackendError,
    BadResponse,
    ConfigError,
    RerankError,
    TransientError,
)
from ..core.numeric import MAX_INTEGER, integer
from ..core.reply import reported_usage
from ..core.sdk import SDKBackend
from ..core.secret import Secret
from ..core.types import Capabilities, RerankRequest, Scores, Span
from ..core.wire import HTTPResponse, connection_advice, error_for, error_for_status, join_url, parse_json
from ..options import Count, Fraction, HostedOptions, Options, OrBool, checked, refused
from ..transport import connection_error, open_sdk_client, prepare_httpx
from .cohere_aws import REGION, AWSClient
from .prices import PRICES

__all__ = ["Cohere"]

RERANK_PATH = "/v2/rerank"
DEFAULT_BASE_URL = "https://api.cohere.com"
DEFAULT_MAX_TOKENS_PER_DOC = 4096
"""Number of tokens at which Cohere cuts a document if a request does not set `max_tokens_per_doc`."""


def _check_v2_client(client: Any) -> Any:
    rerank = getattr(client, "rerank", None)
    if not callable(rerank) or "rank_fields" in inspect.signature(rerank).parameters:  # a client of API v1
        raise refused(
            "must be a client of API v2, such as cohere.AsyncClientV2() or cohere.BedrockClientV2(), "
            f"got {type(client).__name__}"
        )
    return client


def _refuse_other_credentials(platform: str, info: ValidationInfo) -> str:
    """Refuse options that have no effect on AWS: requests are signed with AWS credentials and sent to a region."""
    for name in ("client", "api_key", "base_url"):
        if info.data.get(name) is not None:
            raise refused(f"cannot be {platform!r} if `{name}` is set: remove one of the two")
    return platform


def _check_region(region: str, info: ValidationInfo) -> str:
    if "platform" in info.data and info.data["platform"] is None:
        raise refused("needs `platform`, such as 'bedrock'")
    if not REGION.fullmatch(region):
        raise refused("must be the name of an AWS region, such as 'eu-west-1'")
    return region


class SpansOptions(Options):
    """Which passages of a document Cohere returns."""

    mode: Literal["enabled", "disabled"] = "enabled"
    """Whether passages are returned."""
    threshold: Fraction | None = None
    """Minimum score of a returned passage."""
    max_spans: Count | None = None
    """Maximum number of passages of one document."""


Priority = Annotated[
    int,
    PlainValidator(checked(lambda value, name: integer(value, name, 0))),
    WithJsonSchema({"type": "integer", "minimum": 0, "maximum": MAX_INTEGER}),
]


class CohereOptions(HostedOptions):
    """Options of Cohere's API."""

    client: Annotated[Any, AfterValidator(_check_v2_client)] | None = Field(default=None, repr=False)
    """A `cohere.AsyncClientV2`, or a blocking client (`ClientV2`, `BedrockClientV2`, `SagemakerClientV2`), which runs
    on worker threads."""
    platform: Annotated[Literal["bedrock", "sagemaker"], AfterValidator(_refuse_other_credentials)] | None = None
    """The AWS service that runs the model. Requests are signed with the credentials that boto3 finds (extra
    `cohere-aws`). The model is then a Bedrock model ID (`cohere:cohere.rerank-v3-5:0`) or the name of a SageMaker
    endpoint."""
    region: Annotated[str, AfterValidator(_check_region)] | None = None
    """The AWS region. By default that of `AWS_REGION` or `AWS_DEFAULT_REGION`."""
    max_tokens_per_doc: Count | None = None
    """Number of tokens at which Cohere cuts a document. Without it none is sent, and Cohere cuts at 4,096 tokens."""
    priority: Priority | None = None
    """Priority of requests under load: 0 is served first and refused last."""
    relevant_spans: Annotated[SpansOptions | None, OrBool()] = None
    """Ask for the best passages (Rerank 5 and later): `true`, or a mapping with `threshold` and `max_spans`."""


class Cohere(SDKBackend):
    """Cohere, and other servers with its API: `base_url` for a private deployment or Azure, `platform` for AWS.

    The SDK's AWS clients are blocking, so they run on worker threads, as does a blocking client of the user. These
    clients read a reply of any size. The tests run the AWS clients against local endpoints, not against AWS.

    Every model that the API lists (`rerank-v5.0-pro`, `-fast`, `rerank-v4.0-pro`, `-fast`, `rerank-v3.5`,
    `rerank-english-v3.0`, `rerank-multilingual-v3.0`) has the same limits. Cohere reads a document that is longer than
    the model's context window in chunks, and returns the score of the best chunk. So only `max_tokens_per_doc` cuts a
    document (https://docs.cohere.com/docs/reranking-best-practices, read in November 2026; the page covers v3.0 to
    v4.0, and whether v5 does the same is not confirmed).
    """

    Options = CohereOptions
    model = "rerank-v5.0-fast"
    key_variables = ("CO_API_KEY", "COHERE_API_KEY")
    base_url_variables = ("CO_API_URL",)
    list_prices = PRICES["cohere"]
    capabilities = Capabilities(
        scale="unit",
        # "We recommend against sending more than 1,000 documents in a single request" (API reference); the hard limit
        # is 10,000 (best practices).
        max_documents=1000,
        max_document_tokens=DEFAULT_MAX_TOKENS_PER_DOC,  # API reference
        max_query_tokens=2048,  # best practices
    )

    def __init__(self, model: str | None = None, options: CohereOptions | None = None) -> None:
        """Create the backend of one model. On Bedrock and SageMaker, `model` is a model ID, an ARN or an endpoint."""
        options = options or CohereOptions()
        self._aws = (
            None if options.platform is None else AWSClient(options.platform, options.region, model, options.timeout)
        )
        super().__init__(model, client=options.client, **options.shared())
        self._key_is_unknown = self._key_is_unknown or self._aws is not None
        self._optional_fields: dict[str, Any] = {}
        # Not sent by default: AWS does not document the field, and a vLLM server with a shorter context window refuses
        # Cohere's default of 4,096.
        if options.max_tokens_per_doc is not None:
            self.capabilities = replace(self.capabilities, max_document_tokens=options.max_tokens_per_doc)
            self._optional_fields["max_tokens_per_doc"] = options.max_tokens_per_doc
        if options.priority is not None:
            self._optional_fields["priority"] = options.priority
        if options.relevant_spans is not None:
            self._optional_fields["relevant_spans"] = options.relevant_spans.model_dump(exclude_none=True)

    def _known_address(self, base_url: str | None) -> str:
        return super()._known_address(base_url) if self._aws is None else self._aws.address

    def _find_key(self, api_key: Secret | FunctionKey | None) -> Secret | KeySource | None:
        return super()._find_key(api_key) if self._aws is None else None

    def key_advice(self) -> str:
        """Return what to check if the key, or the signature of AWS, is refused."""
        return super().key_advice() if self._aws is None else "Check the credentials of AWS."

    def load(self) -> None:
        """Import the SDK; for AWS, create the client. The class is imported by name because the SDK loads it lazily."""
        if self._aws is not None:
            self._aws.get()
            return
        from cohere import AsyncClientV2  # noqa: F401

    async def awarmup(self) -> None:
        """Import the SDK, httpx and the certificates without blocking the event loop."""
        if self._aws is not None:  # creating its client reads the certificates
            await prepare_httpx(self._url)
        await super().awarmup()
        if self._user_client is None:
            await prepare_httpx(self._url)

    @property
    def _url(self) -> str:
        return self._aws.address if self._aws is not None else join_url(self._address or DEFAULT_BASE_URL, RERANK_PATH)

    def open(self) -> Any:
        """Return an `AsyncClientV2` with our HTTP client, which limits replies and keeps credentials out of logs.

        The SDK appends `/v2/rerank` to its `base_url`. So the base URL must not end with it, and our HTTP client adds
        the query of the URL. The timeout of the SDK is longer than ours, which already limits the whole attempt.
        """
        if self._aws is not None:
            return self._aws
        import cohere

        has_key = self._fixed_key is not None or self._key_source is not None
        user = None if has_key else self._base.user  # the user of the URL, for basic authentication
        return cohere.AsyncClientV2(
            self._bearer_token,  # the SDK calls it for each request
            timeout=self._sdk_timeout,
            base_url=self._url.removesuffix(RERANK_PATH),
            httpx_client=open_sdk_client(
                replace(self._base, url=PathURL(self._url, self._base.url.secrets), user=user), _record_reply
            ),
        )

    def _bearer_token(self) -> str:
        key = self._key
        return key.reveal() if key is not None else "n/a"  # the SDK requires a key; our client replaces it by `user`

    async def shut(self, client: Any) -> None:
        """Close the connections of a client, as the SDK's `async with` does."""
        if client is not self._aws:
            await client.__aexit__(None, None, None)

    async def aclose(self) -> None:
        """Close the clients made here."""
        await super().aclose()
        if self._aws is not None:
            self._aws.close()

    @property
    def _sdk_timeout(self) -> int:
        return int(self.timeout) + (60 if self._aws is None else 1)  # a hanging AWS call occupies a worker thread

    async def ask(self, client: Any, request: RerankRequest) -> Scores:
        """Send one request, without the SDK's retries and without `top_n`.

        Optional fields are sent as `additional_body_parameters`: older SDK versions have no keyword arguments for them.
        """
        from cohere.core import ApiError

        replies: list[HTTPResponse] = []
        with set_context(_REPLIES, replies):
            try:
                answer = await self.run(
                    client.rerank,
                    model=self.model,
                    query=request.query,
                    documents=list(request.documents),
                    request_options={
                        "max_retries": 0,
                        "timeout_in_seconds": self._sdk_timeout,
                        "additional_body_parameters": self._optional_fields,
                    },
                )
            except ApiError as error:
                if not replies:
                    raise
                raise self._error_of(replies[-1]) from error
        if not replies:
            return self._scores(answer, request, {})
        return await run_text_work(len(replies[-1].body), self._read, replies[-1], request)

    def _read(self, reply: HTTPResponse, request: RerankRequest) -> Scores:
        return self._scores(parse_json(reply, backend=self.label, url=self._url), request, reply.headers)

    def _scores(self, answer: Any, request: RerankRequest, headers: Mapping[str, str]) -> Scores:
        """Return the scores of parsed JSON or of the SDK's response object, whose fields the SDK does not validate."""
        values, reply_order, _ = self._scores_of(_index_score_pairs, answer, request)
        scores = Scores(
            values=values,
            reply_order=reply_order,
            model=self.label,
            capabilities=self.capabilities,
            usage=reported_usage(answer),
            spans=_spans(get_field(answer, "results"), len(values))
            if "relevant_spans" in self._optional_fields
            else None,
        )
        return self._with_metadata(scores, read_metadata(answer, headers))

    def translate(self, error: Exception) -> Exception:
        """Return the `RerankError` for an `ApiError`, or for an exception of the SDK's HTTP client."""
        typed_error = self._typed_error(error)
        if self._aws is not None:
            typed_error.args = (f"{typed_error} {self._aws.advice}",)
        return typed_error

    def _typed_error(self, error: Exception) -> RerankError:
        from cohere.core import ApiError

        if isinstance(error, ApiError):
            headers = {str(name).lower(): str(value) for name, value in (getattr(error, "headers", None) or {}).items()}
            # Before SDK 5.16 the body is a pydantic model.
            body = error.body.model_dump() if hasattr(error.body, "model_dump") else error.body
            status = error.status_code or 200
            explanation = "" if 200 <= status < 300 else self._message_of(body)
            return error_for_status(
                status, headers, backend=self.label, explanation=explanation, key_advice=self.key_advice()
            )
        package, kind = type(error).__module__.partition(".")[0], type(error).__name__
        redacted = self._redacted(f"{kind}: {error}" if str(error) else kind)[:300]
        if package == "botocore":
            return AuthenticationFailed(
                f"{self.label}: {redacted} Check the AWS credentials and the region.", backend=self.label
            )
        if package == "httpx" and (self._user_client is None or kind in ("InvalidURL", "UnsupportedProtocol")):
            cause = connection_error(error, self._url)
            if isinstance(cause, ConfigError):
                return ConfigError(f"{self.label}: {cause}")
            return TransientError(f"{self.label}: {cause}", backend=self.label)
        if isinstance(error, OSError) or package in ("httpx", "httpcore", "h11", "anyio", "aiohttp"):
            return TransientError(
                f"{self.label}: no answer ({redacted}). {connection_advice(error, proxy_variable(self._url))}",
                backend=self.label,
            )
        # All other exceptions come from a reply that the SDK cannot parse, such as ValueError and pydantic's errors.
        return BadResponse(
            f"{self.label} sent a reply that the cohere SDK cannot read ({kind}). Check `base_url`.",
            backend=self.label,
        )

    def _error_of(self, reply: HTTPResponse) -> BackendError:
        try:
            explanation = self._message_of(parse_json(reply, backend=self.label))
        except BadResponse:
            explanation = ""
        return error_for(
            reply, backend=self.label, explanation=explanation, url=self._url, key_advice=self.key_advice()
        )


_REPLIES: ContextVar[list[HTTPResponse] | None] = ContextVar("rerank_plugins_cohere_replies", default=None)
"""Collects the replies to the current request."""


def _record_reply(reply: HTTPResponse) -> bytes:
    """Record a reply for `ask`, and return the body for the SDK: an empty object instead of scores.

    The SDK would build a pydantic object for every document and passage on the event loop, which takes a tenth of a
    second for 1,000 documents. It gets the body of an error unchanged, and raises `ApiError`.
    """
    if (replies := _REPLIES.get()) is not None:
        replies.append(reply)
    return b"{}" if 200 <= reply.status < 300 else reply.body


def _index_score_pairs(reply: Any) -> Iterable[tuple[int, float]]:
    return (
        (get_field(result, "index"), get_field(result, "relevance_score")) for result in get_field(reply, "results")
    )


def _spans(results: Any, count: int) -> tuple[tuple[Span, ...], ...]:
    spans: list[tuple[Span, ...]] = [()] * count
    for result in results:
        spans_of_result = (
            [get_field(span, name) for name in ("start", "end", "score")]
            for span in get_field(result, "relevant_spans") or ()
        )
        spans[get_field(result, "index")] = tuple(Span(*values) for values in spans_of_result if None not in values)
    return tuple(spans)
