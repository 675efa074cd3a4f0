"""Any server with a Cohere-shaped `/rerank`: gateways, and servers that have no backend of their own.

Sends `{"model", "query", "documents"}` and reads `{"results": [{"index", "relevance_score"}]}`, the shape of Cohere's
v1 and v2 API that vLLM, llama.cpp, LiteLLM's proxy, SiliconFlow, LocalAI and others share (peers.md D1 and D6, read in
November 2026). Names that differ are options.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from typing import Annotated, Any

from pydantic import AfterValidator

from ..core.hosted import HostedBackend
from ..core.secret import Secret
from ..core.types import Capabilities, RerankRequest, Scale
from ..options import Count, HostedOptions, Sealed, SecretText, refused

__all__ = ["HTTP"]


_TOKEN = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")  # RFC 9110, 5.6.2


def _headers(value: dict[str, Secret]) -> dict[str, Secret]:
    for name, secret in value.items():
        if not _TOKEN.fullmatch(name):
            raise refused(f"names a header {name!r}, and the name of a header has letters, digits and hyphens only")
        if any(character in secret.reveal() for character in "\r\n\0"):
            raise refused(f"has a line break in the header {name!r}: a header is one line")
    return value


class HTTPOptions(HostedOptions):
    """Options of any server with a Cohere-shaped `/rerank`; `base_url` is needed, `api_key` is sent as a bearer token."""

    path: str = "/rerank"
    """Added to `base_url`, unless that ends in it."""
    headers: Annotated[dict[str, SecretText], AfterValidator(_headers)] | None = None
    """Sent along; a value may be `"env:NAME"`. Written out, it is left out where the spec is stored."""
    body: dict[str, Sealed] | None = None
    """More fields of the body; a text in it may be `"env:NAME"`, as in `headers`."""
    query_field: str = "query"
    """The name of the query in the body."""
    documents_field: str = "documents"
    """The name of the documents."""
    instruction_field: str | None = None
    """The name of the instruction, for a server that follows one."""
    top_n_field: str | None = None
    """The name of the number of results, for a server that demands one (the count is sent: cutting is done here)."""
    results_field: str | None = "results"
    """Where the reply has its list; `None` if it is the list."""
    index_field: str = "index"
    """The name of a result's position."""
    score_field: str = "relevance_score"
    """The name of its score."""
    scale: Scale = "unit"
    """What the score means: `unit`, `logit`, `cosine` or `ordinal`."""
    max_documents: Count | None = None
    """Documents in one request."""
    max_tokens: Count | None = None
    """Tokens of the query and one document; a longer document is cut before it is sent."""
    max_total_tokens: Count | None = None
    """Tokens of one request."""
    max_bytes: Count | None = None
    """Bytes of one request."""
    listwise: bool = False
    """A document's score depends on the others."""


class HTTP(HostedBackend):
    """A server of your own, at `base_url`."""

    Options = HTTPOptions
    key_required = False

    def __init__(self, model: str | None = None, options: HTTPOptions | None = None) -> None:
        """Describe the server; without a model's name, none is sent."""
        options = options or HTTPOptions()
        super().__init__(model, **options.shared())
        self._headers: dict[str, Any] = _resolved(options.headers or {})
        self._body: dict[str, Any] = _resolved(options.body or {})
        self._path = options.path
        self._query, self._documents = options.query_field, options.documents_field
        self._instruction, self._top_n = options.instruction_field, options.top_n_field
        self._results, self._index, self._score = options.results_field, options.index_field, options.score_field
        self.capabilities = Capabilities(
            scale=options.scale,
            scale_option='scale = "logit"',
            max_documents=options.max_documents,
            max_tokens=options.max_tokens,
            max_total_tokens=options.max_total_tokens,
            max_bytes=options.max_bytes,
            listwise=options.listwise,
            instructions=options.instruction_field is not None,
            cuts=False,  # many servers refuse what is too long, and with it all other documents of the request
        )

    def headers(self) -> Mapping[str, str]:
        """Return the bearer token and the headers of the spec."""
        return {**super().headers(), **_revealed(self._headers)} if self._headers else super().headers()

    def credentials(self) -> tuple[str, ...]:
        """Return every text of the spec's headers and body, beside what every backend has."""
        if not self._headers and not self._body:
            return super().credentials()
        texts = [*_texts(self._headers), *_texts(self._body)]
        return (*super().credentials(), *texts, *(text.rpartition(" ")[2] for text in texts))

    def encode(self, request: RerankRequest) -> tuple[str, Mapping[str, Any]]:
        """Return the Cohere-shaped body, under the names of the spec."""
        payload: dict[str, Any] = {"model": self.model} if self.model else {}
        payload |= {self._query: request.query, self._documents: list(request.documents)}
        if self._instruction is not None and request.instruction is not None:
            payload[self._instruction] = request.instruction
        if self._top_n is not None:
            payload[self._top_n] = len(request.documents)
        return self._path, payload | _revealed(self._body) if self._body else payload

    def decode(self, body: Any) -> Iterable[tuple[int, float]]:
        """Return (index, score) of each result."""
        results = body if self._results is None else body[self._results]
        return ((each[self._index], each[self._score]) for each in results)


def _resolved(value: Any) -> Any:
    """Return `value` with every secret of the form `env:NAME` read from the environment."""
    if isinstance(value, Mapping):
        return {key: _resolved(each) for key, each in value.items()}
    if isinstance(value, list):
        return [_resolved(each) for each in value]
    return value.resolved() if isinstance(value, Secret) else value


def _revealed(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {key: _revealed(each) for key, each in value.items()}
    if isinstance(value, list):
        return [_revealed(each) for each in value]
    return value.reveal() if isinstance(value, Secret) else value


def _texts(value: Any) -> Iterator[str]:
    if isinstance(value, Secret):
        yield value.reveal()
    elif isinstance(value, Mapping | list):
        for each in value.values() if isinstance(value, Mapping) else value:
            yield from _texts(each)
