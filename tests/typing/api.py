"""The public surface as a typed program uses it: checked by `mypy --strict`, never executed."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, assert_type

from rerank_plugins import (
    AccessToken,
    AllBackendsFailed,
    BackendCheck,
    CheckReport,
    MissingExtra,
    RateLimited,
    Reranker,
    RerankError,
    RerankResponse,
    RerankResult,
    Usage,
    load_reranker,
)
from rerank_plugins.core import (
    Attempt,
    Capabilities,
    HostedBackend,
    LocalBackend,
    RerankRequest,
    Scorer,
    Scores,
    SDKBackend,
    Span,
    Wrapper,
)
from rerank_plugins.lancedb import LanceDBReranker
from rerank_plugins.langchain import RerankCompressor, RerankRetriever
from rerank_plugins.llama_index import RerankPostprocessor

# --- specs ---

assert_type(load_reranker(), Reranker)
load_reranker("cohere:rerank-v4.0-fast", top_n=5)
load_reranker({"use": "voyage:rerank-2.5", "deadline": 2.0, "retry": 3, "fallback": ["embedded", "passthrough"]})
load_reranker("production", config="rerank.toml")
load_reranker("production", config=Path("rerank.toml"))
load_reranker(5)  # type: ignore[arg-type]
load_reranker("embedded", topn=5)  # type: ignore[call-arg]
load_reranker("embedded", top_n="5")  # type: ignore[arg-type]
load_reranker("embedded", retry=3, cache=True, fallback=["lexical", {"use": "passthrough"}])
load_reranker("embedded", cache={"kind": "disk", "path": Path("scores.sqlite3")}, long_documents="chunk")
load_reranker("embedded", cache={"kinds": "disk"})  # type: ignore[arg-type]
load_reranker("cohere", cohere={"max_tokens_per_doc": 512})
load_reranker("cohere", api_key=lambda: AccessToken("token", expires_at=1.0))
load_reranker("cohere", api_key=5)  # type: ignore[arg-type]
assert_type(load_reranker().check(raise_on_error=True, deadline=5.0), CheckReport)
assert_type(RerankCompressor().check().backends, tuple[BackendCheck, ...])

# --- calls ---


def call(reranker: Reranker, rows: list[dict[str, Any]], texts: tuple[str, ...]) -> float | None:
    reranker.rerank("query", texts, top_n=3, instruction="newest first", retrieval_scores=[0.5] * len(texts))
    mixed: RerankResponse[str | Mapping[str, Any]] = reranker.rerank("query", [*rows, "a text"])
    assert_type(mixed[0].index, int)
    response = reranker.rerank("query", rows)
    assert_type(response, RerankResponse[dict[str, Any]])
    assert_type(response[0], RerankResult[dict[str, Any]])
    assert_type(response[:2], tuple[RerankResult[dict[str, Any]], ...])
    assert_type(response.to_dict(), dict[str, Any])
    assert_type(response.to_dict(documents=False), dict[str, Any])
    assert_type(response.usage, Usage)
    assert_type(response.usage.cost_usd, float | None)
    assert_type(response.attempts, tuple[Attempt, ...])
    assert_type(response.reason, str | None)
    assert_type([result.index for result in response], list[int])
    for result in response:
        assert_type(result.spans, tuple[Span, ...])
        assert_type(result.truncated, bool)
        result.index = 5  # type: ignore[misc]
    return response[0].relevance_score


def documents_keep_their_type(reranker: Reranker, titles: Iterable[str], mixed: list[str | dict[str, int]]) -> str:
    assert_type(reranker.rerank("query", mixed)[0].document, str | dict[str, int])
    reranker.rerank("query", [{"title": "a"}, {"title": "b"}])[0].document.keys()
    reranker.rerank("query", (title for title in titles))[0].document.upper()
    reranker.rerank("query", [b"bytes"])  # type: ignore[type-var]
    reranker.rerank("query", [1, 2])  # type: ignore[type-var]
    reranker.rerank("query", 5)  # type: ignore[call-overload]
    any_response: RerankResponse = reranker.rerank("query", mixed)  # without a parameter: documents of any type
    texts: RerankResponse[str] = reranker.rerank("query", titles)
    wider: RerankResponse[str | dict[str, int]] = texts
    return any_response.model + wider.model + texts[0].document


async def acall(reranker: Reranker) -> RerankResponse:
    async with load_reranker() as other:
        await other.awarmup()
    with reranker:
        reranker.warmup()
    return await reranker.arerank("query", ["a", "b"], top_n=1)


def handle_errors(reranker: Reranker) -> object:
    try:
        return reranker.rerank("query", ["text"])
    except RateLimited as error:
        return assert_type(error.retry_after, float | None)
    except AllBackendsFailed as error:
        return assert_type(error.errors, tuple[RerankError, ...])
    except MissingExtra as error:
        return assert_type(error.extra, str)


# --- backends and policies of other packages ---


class Local(LocalBackend):
    capabilities = Capabilities(scale="logit", offset=1.5, divisor=2.0)
    model = "local-1"

    def score(self, query: str, documents: Sequence[str]) -> list[float]:
        return [0.0 for _ in documents]


class Hosted(HostedBackend):
    base_url = "https://api.acme.example"
    key_variables = ("ACME_API_KEY",)
    by_model = {"small": Capabilities(max_documents=10)}  # noqa: RUF012

    def encode(self, request: RerankRequest) -> tuple[str, Mapping[str, Any]]:
        return "/rerank", {"query": request.query, "documents": list(request.documents)}

    def decode(self, body: Any) -> Iterable[tuple[int, float]]:
        return ((entry["index"], entry["score"]) for entry in body)


class SDKExample(SDKBackend):
    def open(self) -> object:
        return object()

    async def ask(self, client: Any, request: RerankRequest) -> Scores:
        return Scores(values=(0.5,) * len(request.documents), model=self.label, capabilities=self.capabilities)

    def translate(self, error: Exception) -> Exception:
        return error


class CallTwice(Wrapper):
    async def ascore(self, request: RerankRequest) -> Scores:
        await self.inner.ascore(request)
        return await super().ascore(request)


scorer: Scorer = CallTwice(Local("local-2"))
Reranker(scorer, top_n=3, score_threshold=0.5)
Capabilities(scale="percent")  # type: ignore[arg-type]

# --- adapters ---


def observe(response: RerankResponse) -> None: ...


RerankCompressor(reranker="cohere:rerank-v4.0-fast", top_n=5, on_response=observe)
RerankCompressor(reranker={"use": "lexical"}, instruction="newest first", score_threshold=0.5)
RerankCompressor(reranker=load_reranker("lexical"))
RerankPostprocessor(reranker="cohere:rerank-v4.0-fast", top_n=5, on_response=observe)
RerankPostprocessor()
LanceDBReranker("cohere:rerank-v4.0-fast", column="body", top_n=5, on_response=observe, return_score="all")
LanceDBReranker(load_reranker("lexical"))
LanceDBReranker(return_score="some")  # type: ignore[arg-type]


def retriever(first: RerankRetriever) -> RerankRetriever:
    return RerankRetriever(retriever=first, reranker="lexical", top_n=5, fetch_k=50)
