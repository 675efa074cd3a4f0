"""Any server with a Cohere-shaped `/rerank`: gateways, and servers that have no backend of their own.

Sends `{"model", "query", "documents"}` and reads `{"results": [{"index", "relevance_score"}]}`, the shape of Cohere's
v1 and v2 API that vLLM, llama.cpp, LiteLLM's proxy, SiliconFlow, LocalAI and others share (peers.md D1 and D6, read in
November 2026). Names that differ are options.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from ..core.errors import ConfigError
from ..core.hosted import TIMEOUT, HostedBackend
from ..core.numeric import integer
from ..core.scorer import MAX_IN_FLIGHT
from ..core.secret import Secret, refuse_mask
from ..core.types import Capabilities, RerankRequest, Scale

__all__ = ["HTTP"]


class HTTP(HostedBackend):
    """A server of your own, at `base_url`."""

    key_required = False

    def __init__(
        self,
        model: str | None = None,
        *,
        api_key: str | Secret | None = None,
        base_url: str | None = None,
        timeout: float = TIMEOUT,
        max_in_flight: int = MAX_IN_FLIGHT,
        price: Mapping[str, float] | None = None,
        path: str = "/rerank",
        headers: Mapping[str, str] | None = None,
        body: Mapping[str, Any] | None = None,
        query_field: str = "query",
        documents_field: str = "documents",
        instruction_field: str | None = None,
        top_n_field: str | None = None,
        results_field: str | None = "results",
        index_field: str = "index",
        score_field: str = "relevance_score",
        scale: Scale = "unit",
        max_documents: int | None = None,
        max_tokens: int | None = None,
        max_total_tokens: int | None = None,
        max_bytes: int | None = None,
        listwise: bool = False,
    ) -> None:
        """Describe the server.

        Args:
            model: The model's name there; without one, none is sent.
            api_key: Sent as a bearer token, where given.
            base_url: The address; needed.
            timeout: Seconds for one attempt.
            max_in_flight: Parts of one call that are sent at once.
            price: US dollars per million tokens, for `usage.cost_usd`; see `Remote`.
            path: Added to `base_url`, unless that ends in it.
            headers: Sent along; a value may be `"env:NAME"`. Written out, it is left out where the spec is stored.
            body: More fields of the body; a text in it may be `"env:NAME"`, as in `headers`.
            query_field: The name of the query in the body.
            documents_field: The name of the documents.
            instruction_field: The name of the instruction, for a server that follows one.
            top_n_field: The name of the number of results, for a server that demands one (the count is sent: cutting
                is done here).
            results_field: Where the reply has its list; `None` if it is the list.
            index_field: The name of a result's position.
            score_field: The name of its score.
            scale: What the score means: `unit`, `logit`, `cosine` or `ordinal`.
            max_documents: Documents in one request.
            max_tokens: Tokens of the query and one document; a longer document is cut before it is sent.
            max_total_tokens: Tokens of one request.
            max_bytes: Bytes of one request.
            listwise: A document's score depends on the others.

        Raises:
            ConfigError: No `base_url`, or a value that is not offered.
        """
        if scale not in ("unit", "logit", "cosine", "ordinal"):
            raise ConfigError(f"scale {scale!r} is not offered; choose one of: unit, logit, cosine, ordinal.")
        limits = {
            "max_documents": max_documents,
            "max_tokens": max_tokens,
            "max_total_tokens": max_total_tokens,
            "max_bytes": max_bytes,
        }
        for name, value in limits.items():
            if value is not None:
                integer(value, name)
        if not isinstance(path, str):
            raise ConfigError(f"path has to be a text such as '/rerank', and {path!r} is not.")
        super().__init__(
            model, api_key=api_key, base_url=base_url, timeout=timeout, max_in_flight=max_in_flight, price=price
        )
        self._path = path
        self._headers = {name: _resolved(value, f"headers.{name}") for name, value in (headers or {}).items()}
        self._body = {name: _resolved(value, f"body.{name}") for name, value in (body or {}).items()}
        self._query, self._documents = query_field, documents_field
        self._instruction, self._top_n = instruction_field, top_n_field
        self._results, self._index, self._score = results_field, index_field, score_field
        self.capabilities = Capabilities(
            scale=scale,
            scale_option='scale = "logit"',
            max_documents=max_documents,
            max_tokens=max_tokens,
            max_total_tokens=max_total_tokens,
            max_bytes=max_bytes,
            listwise=listwise,
            instructions=instruction_field is not None,
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


def _resolved(value: Any, name: str) -> Any:
    """Return `value` with every text in it as a `Secret`, those of the form `env:NAME` read from the environment."""
    if isinstance(value, Mapping):
        return {key: _resolved(each, f"{name}.{key}") for key, each in value.items()}
    if isinstance(value, list | tuple):
        return [_resolved(each, name) for each in value]
    if isinstance(value, str | Secret):
        secret = value if isinstance(value, Secret) else Secret(value)
        refuse_mask(secret.reveal(), f"http.{name}")
        return secret.resolved()
    return value


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
