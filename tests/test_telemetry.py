"""Spans and metrics through OpenTelemetry's SDK, of calls through both frameworks to a local vendor server."""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
import uuid

import pytest
from langchain_classic.retrievers import ContextualCompressionRetriever
from langchain_core.callbacks import BaseCallbackHandler, CallbackManager
from langchain_core.documents import Document
from langchain_core.retrievers import BaseRetriever
from llama_index.core.schema import NodeWithScore, TextNode
from openinference.instrumentation.langchain import LangChainInstrumentor
from openinference.instrumentation.llama_index import LlamaIndexInstrumentor
from opentelemetry import metrics, trace
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import InMemoryMetricReader
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.trace import SpanKind, StatusCode

from rerank_plugins import load_reranker
from rerank_plugins.core import RateLimited
from rerank_plugins.langchain import RerankCompressor, RerankRetriever
from rerank_plugins.llama_index import RerankPostprocessor
from rerank_plugins.testing.script import Status
from rerank_plugins.testing.vendors import CohereServer, OpenAIDecisionsServer

QUERY = "where does zanzibar sleep"
DOCUMENTS = ["zanzibar sleeps on the sofa", "zanzibar eats", "quokkas are yellow"]
WORDS = ("zanzibar", "sofa", "quokka")


class Exported:
    """The spans and metrics that the SDK exported."""

    def __init__(self) -> None:
        self.exporter, self.reader = InMemorySpanExporter(), InMemoryMetricReader()

    def spans(self, *names: str):
        finished = sorted(self.exporter.get_finished_spans(), key=lambda span: span.start_time)
        return [span for span in finished if not names or span.name.startswith(names)]

    def metrics(self) -> dict[str, list]:
        data = self.reader.get_metrics_data()
        every = [metric for each in data.resource_metrics for scope in each.scope_metrics for metric in scope.metrics]
        return {metric.name: list(metric.data.data_points) for metric in every}


@pytest.fixture(scope="module")
def sdk():
    """Set up OpenTelemetry once: a process accepts only one tracer provider."""
    exported = Exported()
    tracers = TracerProvider()
    tracers.add_span_processor(SimpleSpanProcessor(exported.exporter))
    trace.set_tracer_provider(tracers)
    metrics.set_meter_provider(MeterProvider([exported.reader]))
    return exported


@pytest.fixture
def exported(sdk):
    sdk.exporter.clear()
    return sdk


@pytest.fixture
def vendor():
    with CohereServer() as server:
        yield server


def spec(vendor, **options):
    return {
        "use": "cohere:rerank-v5-test",
        "base_url": vendor.url,
        "api_key": vendor.key,
        "retry": {"attempts": 3, "wait_initial": 0.001},
        "price": {"per_million_tokens": 1.0},
    } | options


def check_rerank_span(exported, vendor, parent):
    """Check a rerank span with two attempts and its tokens, without any text or key. Returns the rerank span."""
    (call,) = exported.spans("rerank ")
    first, second = exported.spans("attempt ")
    assert call.context.trace_id == parent.get_span_context().trace_id
    for attempt, status, outcome in ((first, 429, "RateLimited"), (second, 200, "answered")):
        assert attempt.parent.span_id == call.context.span_id
        assert attempt.kind is SpanKind.CLIENT
        assert attempt.attributes["http.response.status_code"] == status
        assert attempt.attributes["rerank.outcome"] == outcome
        assert attempt.attributes["rerank.documents"] == 3
    assert (first.name, second.name) == ("attempt 1", "attempt 2")
    assert (first.status.status_code, first.attributes["error.type"]) == (StatusCode.ERROR, "429")
    assert second.status.status_code is StatusCode.UNSET
    assert "gen_ai.usage.input_tokens" not in first.attributes
    tokens = sum(len(text.split()) for text in (QUERY, *DOCUMENTS))
    assert second.attributes["gen_ai.usage.input_tokens"] == tokens
    assert dict(call.attributes) == {
        "gen_ai.operation.name": "rerank",
        "gen_ai.provider.name": "cohere",
        "gen_ai.request.model": "rerank-v5-test",
        "gen_ai.response.model": "cohere:rerank-v5-test",
        "gen_ai.usage.input_tokens": tokens,
        "rerank.cost_usd": pytest.approx(tokens / 1e6),
        "rerank.degraded": False,
        "rerank.requests": 2,
        "rerank.results": 3,
        "rerank.truncated": 0,
    }
    check_no_secrets([call, first, second], vendor.key)
    return call


def check_no_secrets(spans, *secrets):
    exported = " ".join(span.to_json() for span in spans)
    for secret in (*WORDS, *secrets):
        assert secret not in exported


class Store(BaseRetriever):
    def _get_relevant_documents(self, query, *, run_manager):
        return [Document(text) for text in DOCUMENTS]


@pytest.fixture
def langchain_traced():
    instrumentor = LangChainInstrumentor()
    instrumentor.instrument()
    yield
    instrumentor.uninstrument()


@pytest.fixture
def llama_index_traced():
    instrumentor = LlamaIndexInstrumentor()
    instrumentor.instrument()
    yield
    instrumentor.uninstrument()


def langchain_of(spec, retriever):
    """Return the LangChain retriever of type `retriever` with a reranker of `spec`."""
    if retriever == "RerankRetriever":
        return RerankRetriever(retriever=Store(), reranker=spec)
    return ContextualCompressionRetriever(base_compressor=RerankCompressor(reranker=spec), base_retriever=Store())


@pytest.mark.parametrize("retriever", ["RerankRetriever", "ContextualCompressionRetriever"])
@pytest.mark.parametrize("way", ["sync", "async"])
def test_langchain_call_is_a_child_of_the_retriever_span(exported, vendor, langchain_traced, way, retriever):
    vendor.play(Status(429, {"retry-after": "0.001"}))
    langchain_retriever = langchain_of(spec(vendor), retriever)
    if way == "sync":
        langchain_retriever.invoke(QUERY)  # runs on the background loop's thread, with the caller's context
    else:
        asyncio.run(langchain_retriever.ainvoke(QUERY))
    (retriever_span,) = exported.spans(retriever)
    assert retriever_span.parent is None
    call = check_rerank_span(exported, vendor, retriever_span)
    assert call.parent.span_id == retriever_span.context.span_id


class UnrelatedGetSpan(BaseCallbackHandler):
    def get_span(self, name, kind):
        """Has the name of OpenInference's method with other parameters."""


@pytest.mark.parametrize(
    "callbacks", [None, [UnrelatedGetSpan()], CallbackManager([UnrelatedGetSpan()], parent_run_id=uuid.uuid4())]
)
def test_callback_without_a_span_does_not_fail_the_call(exported, vendor, callbacks):
    compressor = RerankCompressor(reranker=spec(vendor))
    assert compressor.compress_documents([Document(DOCUMENTS[0])], QUERY, callbacks=callbacks)
    (call,) = exported.spans("rerank ")
    assert call.parent is None


def test_langchain_compressor_is_a_child_of_the_current_span(exported, vendor):
    vendor.play(Status(429, {"retry-after": "0.001"}))
    with trace.get_tracer("test").start_as_current_span("mine") as mine:
        RerankCompressor(reranker=spec(vendor)).compress_documents([Document(each) for each in DOCUMENTS], QUERY)
    assert check_rerank_span(exported, vendor, mine).parent.span_id == mine.get_span_context().span_id


@pytest.mark.parametrize("way", ["sync", "async"])
def test_llama_index_call_is_a_child_of_the_postprocessor_span(exported, vendor, llama_index_traced, way):
    vendor.play(Status(429, {"retry-after": "0.001"}))
    nodes = [NodeWithScore(node=TextNode(text=each), score=0.5) for each in DOCUMENTS]
    postprocessor = RerankPostprocessor(reranker=spec(vendor))
    with trace.get_tracer("test").start_as_current_span("mine") as mine:
        if way == "sync":
            postprocessor.postprocess_nodes(nodes, query_str=QUERY)
        else:
            asyncio.run(postprocessor.apostprocess_nodes(nodes, query_str=QUERY))
    call = check_rerank_span(exported, vendor, mine)
    names = {span.context.span_id: span.name for span in exported.spans("RerankPostprocessor")}
    assert names[call.parent.span_id].startswith("RerankPostprocessor.")


def test_metrics_of_a_call_have_duration_tokens_attempts_and_cost(exported, vendor):
    vendor.play(Status(429, {"retry-after": "0.001"}))
    load_reranker(spec(vendor, use="cohere:rerank-v5-metrics", cache=True)).rerank(QUERY, DOCUMENTS)

    def points_of(name, **attributes):
        points = [each for each in exported.metrics()[name] if attributes.items() <= dict(each.attributes).items()]
        return [each for each in points if each.attributes["gen_ai.request.model"] == "rerank-v5-metrics"]

    (duration,) = points_of("gen_ai.client.operation.duration")
    assert duration.count == 1
    assert 0 < duration.sum < 30
    (tokens,) = points_of("gen_ai.client.token.usage", **{"gen_ai.token.type": "input"})
    assert tokens.sum > 0
    (limited,) = points_of("rerank.attempts", **{"rerank.outcome": "RateLimited", "http.response.status_code": 429})
    (answered,) = points_of("rerank.attempts", **{"rerank.outcome": "answered", "http.response.status_code": 200})
    assert (limited.value, answered.value) == (1, 1)
    (cost,) = points_of("rerank.cost")
    assert cost.value == pytest.approx(tokens.sum / 1e6)


def test_spans_report_cache_hits_and_degradation(exported, vendor):
    vendor.play(Status(500), Status(500), Status(500))
    with load_reranker(spec(vendor, cache=True, fallback=["lexical"])) as reranker:
        assert reranker.rerank(QUERY, DOCUMENTS).degraded
        assert not reranker.rerank(QUERY, DOCUMENTS[:2]).degraded
        reranker.rerank(QUERY, DOCUMENTS)
    degraded, _, cached = exported.spans("rerank ")
    assert degraded.attributes["rerank.degraded"] is True
    assert degraded.attributes["gen_ai.response.model"] == "lexical"
    attempts = [each for each in exported.spans("attempt ") if each.parent.span_id == degraded.context.span_id]
    assert [each.attributes["gen_ai.provider.name"] for each in attempts] == ["cohere"] * 3 + ["lexical"]
    assert [each.kind for each in attempts] == [SpanKind.CLIENT] * 3 + [SpanKind.INTERNAL]
    (event,) = cached.events
    assert (event.name, event.attributes["rerank.detail"]) == ("cached", "2 of 3 documents")
    assert any(each.value == 1 for each in exported.metrics()["rerank.degraded"])
    check_no_secrets(exported.spans(), vendor.key)


def test_cascade_span_has_no_vendor_as_its_provider(exported, vendor):
    stages = ["embedded:fast", spec(vendor)]
    with load_reranker({"cascade": {"stages": stages, "keep": [2]}}) as reranker:
        reranker.rerank(QUERY, DOCUMENTS)
    (call,) = exported.spans("rerank ")
    backends = [span.attributes["gen_ai.provider.name"] for span in exported.spans("attempt ")]
    assert backends == ["embedded", "cohere"]
    assert call.attributes["gen_ai.provider.name"] == "rerank_plugins"
    assert call.attributes["gen_ai.request.model"] == "embedded:fast → cohere:rerank-v5-test"


def test_failed_span_has_the_error_class_and_not_its_message(exported, vendor):
    vendor.always(Status(429, message="zanzibar is too much"))
    with load_reranker(spec(vendor, retry=1)) as reranker, pytest.raises(RateLimited, match="zanzibar"):
        reranker.rerank(QUERY, DOCUMENTS)
    (call,) = exported.spans("rerank ")
    assert (call.status.status_code, call.status.description) == (StatusCode.ERROR, "RateLimited")
    check_no_secrets(exported.spans(), vendor.key)


def test_telemetry_is_off_without_opentelemetry():
    """Blocks the import, as if OpenTelemetry were not installed."""
    code = """
import json, sys
sys.modules["opentelemetry"] = None
from rerank_plugins import load_reranker
answer = load_reranker("lexical").rerank("cat", ["a dog", "a cat"])
print(json.dumps([answer[0].index, [each.outcome for each in answer.attempts]]))
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60)
    assert json.loads(done.stdout) == [1, ["answered"]]


def test_output_and_cached_tokens_are_on_the_span_and_in_the_metrics(exported):
    with OpenAIDecisionsServer() as server:
        settings = {"use": "openai", "base_url": server.url, "api_key": server.key}
        load_reranker(settings).rerank(QUERY, DOCUMENTS)
    (call,) = exported.spans("rerank ")
    assert call.attributes["gen_ai.usage.output_tokens"] == 0
    assert call.attributes["gen_ai.usage.cache_read.input_tokens"] == call.attributes["gen_ai.usage.input_tokens"] // 2
