"""Clients of other servers with ours: what they send, and the fields that they need in an answer.

The bodies are taken from the sources of the clients, read in November 2026: Infinity's `infinity_client`, LiteLLM,
Haystack's Jina and TEI rankers, Xinference's client, vLLM's request schema. The clients themselves run in
`make interop`.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import httpx
import pytest
from support.local_server import served

from rerank_plugins import load_reranker
from rerank_plugins.core import Backend, Capabilities, RerankRequest, Scores, Span, Usage
from rerank_plugins.reranker import Reranker

QUERY = "where does the cat sleep"
DOCUMENTS = ["bananas are yellow", "the cat can sleep on the sofa", "a cat"]


class Scored(Backend):
    """A model that returns logits, spans and a token count."""

    name = "scored"
    capabilities = Capabilities(scale="logit")

    def __init__(self, tokens: int | None = None) -> None:
        super().__init__(None)
        self.tokens_counted = tokens

    async def ascore(self, request: RerankRequest) -> Scores:
        return Scores(
            values=tuple(3.0 if "sleep" in text else -2.0 for text in request.documents),
            model=self.label,
            capabilities=self.capabilities,
            usage=Usage(input_tokens=self.tokens_counted),
            spans=((Span(0, 3, 0.2), Span(4, 7, 0.9), Span(8, 9, 0.6)),) * len(request.documents),
        )


@pytest.fixture(scope="module")
def url() -> Iterator[str]:
    with served(Reranker(Scored()), models=["served"]) as address:
        yield address


def post(url: str, path: str, **body: Any) -> Any:
    answer = httpx.post(f"{url}{path}", json=body, trust_env=False)
    assert answer.status_code == 200, answer.text
    return answer.json()


@pytest.mark.parametrize("path", ["/v2/rerank", "/v1/rerank", "/rerank"])
def test_answer_always_has_usage(url: str, path: str) -> None:
    """Haystack's JinaRanker and LangChain's InfinityRerank read `usage["prompt_tokens"]` of every answer."""
    body = post(url, path, query=QUERY, documents=DOCUMENTS)
    assert body["usage"] == {"prompt_tokens": 0, "total_tokens": 0}
    assert "billed_units" not in body["meta"]


def test_usage_has_the_models_token_count() -> None:
    with served(Reranker(Scored(tokens=12))) as url:
        body = post(url, "/v1/rerank", query=QUERY, documents=DOCUMENTS)
    assert body["usage"] == {"prompt_tokens": 12, "total_tokens": 12}


@pytest.mark.parametrize("backend", ["http", "cohere:served", "vllm:served", "jina-api:served"])
def test_zero_tokens_are_unknown_usage_for_our_clients(url: str, backend: str) -> None:
    spec = {"use": backend, "base_url": url, "api_key": "no-key-at-all", "price": {"per_million_tokens": 1}}
    with load_reranker(spec) as reranker:
        usage = reranker.rerank(QUERY, DOCUMENTS).usage
    assert (usage.input_tokens, usage.cost_usd) == (None, None)


OTHERS_FIELDS = {
    "max_chunks_per_doc": 5,
    "overlap_tokens": 80,  # SiliconFlow
    "max_tokens_per_query": 64,  # vLLM, from here on
    "truncate_prompt_tokens": -1,
    "truncation_side": "left",
    "add_special_tokens": False,
    "chat_template": "{{ query }}",
    "chat_template_kwargs": {"enable_thinking": False},
    "mm_processor_kwargs": {},
    "request_id": "r-1",
    "cache_salt": "salt",
    "priority": 0,
    "user": "me",
    "return_len": True,  # Xinference
    "kwargs": '{"a": 1}',
}


@pytest.mark.parametrize(("name", "value"), OTHERS_FIELDS.items())
def test_a_field_of_another_server_is_answered_with_a_warning(url: str, name: str, value: object) -> None:
    body = post(url, "/v1/rerank", query=QUERY, documents=DOCUMENTS, **{name: value})
    assert body["meta"]["warnings"] == [f"{name} is not used by this server"]
    assert [result["index"] for result in body["results"]] == [1, 0, 2]


def test_every_field_with_a_warning_is_described(url: str) -> None:
    described = httpx.get(f"{url}/openapi.json", trust_env=False).json()["components"]["schemas"]["CohereBody"]
    assert set(OTHERS_FIELDS) <= set(described["properties"])


def test_a_top_n_of_zero_is_all_documents(url: str) -> None:
    """A top_n of 0 means all documents in vLLM, whose clients send it."""
    assert len(post(url, "/v1/rerank", query=QUERY, documents=DOCUMENTS, top_n=0)["results"]) == 3
    assert len(post(url, "/rerank", query=QUERY, texts=DOCUMENTS, top_n=0)) == 3


def test_use_activation_false_returns_raw_scores(url: str) -> None:
    """Our own `vllm` backend sends this field."""
    raw = post(url, "/v1/rerank", query=QUERY, documents=DOCUMENTS, use_activation=False)
    assert [result["relevance_score"] for result in raw["results"]] == [3.0, -2.0, -2.0]
    assert raw["meta"]["warnings"] == []
    spec = {"use": "vllm:served", "base_url": url, "vllm": {"use_activation": False}}
    with load_reranker(spec) as reranker:
        assert [result.raw_score for result in reranker.rerank(QUERY, DOCUMENTS)] == [3.0, -2.0, -2.0]


def test_relevant_spans_honour_threshold_and_max_spans(url: str) -> None:
    """Cohere's `threshold` and `max_spans`, which our own `cohere` backend sends."""

    def spans(**wanted: object) -> list[int]:
        body = post(url, "/v2/rerank", query=QUERY, documents=DOCUMENTS, relevant_spans={"mode": "enabled", **wanted})
        return [span["start"] for span in body["results"][0].get("relevant_spans", [])]

    assert spans() == [0, 4, 8]
    assert spans(threshold=0.5) == [4, 8]
    assert spans(max_spans=1) == [4]
    assert spans(threshold=0.5, max_spans=5) == [4, 8]
    assert spans(threshold=0.95) == []
    options = {"relevant_spans": {"threshold": 0.5, "max_spans": 1}}
    with load_reranker({"use": "cohere:served", "base_url": url, "api_key": "none-at-all", "cohere": options}) as ours:
        assert [span.start for span in ours.rerank(QUERY, DOCUMENTS)[0].spans] == [4]


@pytest.mark.parametrize(
    ("method", "path", "body", "status"),
    [
        ("POST", "/v1/rerank", {"query": QUERY}, 422),
        ("POST", "/v1/rerank", {"query": " ", "documents": DOCUMENTS}, 400),
        ("POST", "/v1/rerank", {"query": QUERY, "documents": DOCUMENTS, "model": "another"}, 404),
        ("POST", "/v1/unknown", {}, 404),
        ("GET", "/v1/rerank", None, 405),
    ],
)
def test_errors_have_the_message_in_detail(
    url: str, method: str, path: str, body: dict[str, Any] | None, status: int
) -> None:
    """Xinference's client and LlamaIndex's JinaRerank raise KeyError for an error without `detail`."""
    answer = httpx.request(method, f"{url}{path}", json=body, trust_env=False)
    assert answer.status_code == status
    assert answer.json()["detail"] == answer.json()["message"] != ""


def test_error_schema_describes_detail(url: str) -> None:
    schemas = httpx.get(f"{url}/openapi.json", trust_env=False).json()["components"]["schemas"]
    assert schemas["Error"]["properties"]["detail"]["type"] == "string"
    assert "detail" in schemas["Error"]["required"]


def test_tei_body_accepts_model_and_top_n(url: str) -> None:
    body = post(url, "/rerank", query=QUERY, texts=DOCUMENTS, model="served", top_n=1, is_truncated=True)
    assert [result["index"] for result in body] == [1]
    answer = httpx.post(f"{url}/rerank", json={"query": QUERY, "texts": DOCUMENTS, "model": "another"}, trust_env=False)
    assert answer.status_code == 404


def test_document_is_a_string_for_infinity_client(url: str) -> None:
    """`infinity_client` sends `raw_scores` with every request, and refuses an object in `document`."""
    body = post(url, "/rerank", query=QUERY, documents=DOCUMENTS, return_documents=True, raw_scores=False)
    assert [result["document"] for result in body["results"]] == [DOCUMENTS[1], DOCUMENTS[0], DOCUMENTS[2]]
    cohere = post(url, "/rerank", query=QUERY, documents=DOCUMENTS, return_documents=True)
    assert cohere["results"][0]["document"] == {"text": DOCUMENTS[1]}


def test_single_rank_field_is_scored_as_its_value(url: str) -> None:
    """The text of the field is scored, not the YAML of the object, which has another score."""
    with served("lexical") as lexical:
        objects = [{"text": text, "title": "cat"} for text in DOCUMENTS]
        by_field = post(lexical, "/v1/rerank", query=QUERY, documents=objects, rank_fields=["text"])["results"]
        assert by_field == post(lexical, "/v1/rerank", query=QUERY, documents=DOCUMENTS)["results"]
