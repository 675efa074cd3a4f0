"""Spans and metrics through OpenTelemetry's real SDK, of calls through both frameworks to a vendor server on loopback."""

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
from rerank_plugins.testing.vendors import CohereServer

QUERY = "where does zanzibar sleep"
DOCUMENTS = ["zanzibar sleeps on the sofa", "zanzibar eats", "quokkas are yellow"]
WORDS = ("zanzibar", "sofa", "quokka")


class Seen:
    """What the SDK exported."""

    def __init__(self) -> None:
        self.exporter, self.reader = InMemorySpanExporter(), InMemoryMetricReader()

    def spans(self, *names: str):
        finished = sorted(self.exporter.get_finished_spans(), key=lambda span: span.start_time)
        return [span for span in finished if not names or span.name.startswith(names)]

    def metrics(self) -> dict[str, list]:
        found = self.reader.get_metrics_data()
        every = [metric for each in found.resource_metrics for scope in each.scope_metrics for metric in scope.metrics]
        return {metric.name: list(metric.data.data_points) for metric in every}


@pytest.fixture(scope="module")
def sdk():
    """OpenTelemetry takes one provider for the life of a process."""
    seen = Seen()
    provider = TracerProvider()
    provider.add_span_processor(SimpleSpanProcessor(seen.exporter))
    trace.set_tracer_provider(provider)
    metrics.set_meter_provider(MeterProvider([seen.reader]))
    return seen


@pytest.fixture
def seen(sdk):
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


def check_the_call(seen, vendor, parent):
    """A rerank with two attempts inside, the tokens on it, and nothing of the texts or the key anywhere."""
    (call,) = seen.spans("rerank ")
    first, second = seen.spans("attempt ")
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
    told = " ".join(span.to_json() for span in spans)
    for secret in (*WORDS, *secrets):
        assert secret not in told


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
    """Every way to rerank in LangChain."""
    if retriever == "RerankRetriever":
        return RerankRetriever(retriever=Store(), reranker=spec)
    return ContextualCompressionRetriever(base_compressor=RerankCompressor(reranker=spec), base_retriever=Store())


@pytest.mark.parametrize("retriever", ["RerankRetriever", "ContextualCompressionRetriever"])
@pytest.mark.parametrize("way", ["sync", "async"])
def test_a_langchain_call_stands_inside_its_own_span(seen, vendor, langchain_traced, way, retriever):
    vendor.play(Status(429, {"retry-after": "0.001"}))
    asking = langchain_of(spec(vendor), retriever)
    if way == "sync":
        asking.invoke(QUERY)  # the work is on our own loop's thread, and the context went along
    else:
        asyncio.run(asking.ainvoke(QUERY))
    (theirs,) = seen.spans(retriever)
    assert theirs.parent is None
    assert check_the_call(seen, vendor, theirs).parent.span_id == theirs.context.span_id


class Odd(BaseCallbackHandler):
    def get_span(self, name, kind):
        """Something else."""


@pytest.mark.parametrize("callbacks", [None, [Odd()], CallbackManager([Odd()], parent_run_id=uuid.uuid4())])
def test_who_keeps_no_span_is_no_reason_to_fail(seen, vendor, callbacks):
    compressor = RerankCompressor(reranker=spec(vendor))
    assert compressor.compress_documents([Document(DOCUMENTS[0])], QUERY, callbacks=callbacks)
    (call,) = seen.spans("rerank ")
    assert call.parent is None


def test_a_langchain_compressor(seen, vendor):
    vendor.play(Status(429, {"retry-after": "0.001"}))
    with trace.get_tracer("test").start_as_current_span("mine") as mine:
        RerankCompressor(reranker=spec(vendor)).compress_documents([Document(each) for each in DOCUMENTS], QUERY)
    assert check_the_call(seen, vendor, mine).parent.span_id == mine.get_span_context().span_id


@pytest.mark.parametrize("way", ["sync", "async"])
def test_a_llama_index_call_stands_inside_its_own_span(seen, vendor, llama_index_traced, way):
    vendor.play(Status(429, {"retry-after": "0.001"}))
    nodes = [NodeWithScore(node=TextNode(text=each), score=0.5) for each in DOCUMENTS]
    postprocessor = RerankPostprocessor(reranker=spec(vendor))
    with trace.get_tracer("test").start_as_current_span("mine") as mine:
        if way == "sync":
            postprocessor.postprocess_nodes(nodes, query_str=QUERY)
        else:
            asyncio.run(postprocessor.apostprocess_nodes(nodes, query_str=QUERY))
    call = check_the_call(seen, vendor, mine)
    theirs = {span.context.span_id: span.name for span in seen.spans("RerankPostprocessor")}
    assert theirs[call.parent.span_id].startswith("RerankPostprocessor.")


def test_the_metrics(seen, vendor):
    vendor.play(Status(429, {"retry-after": "0.001"}))
    load_reranker(spec(vendor, use="cohere:rerank-v5-metrics", cache=True)).rerank(QUERY, DOCUMENTS)

    def of(name, **attributes):
        points = [each for each in seen.metrics()[name] if attributes.items() <= dict(each.attributes).items()]
        return [each for each in points if each.attributes["gen_ai.request.model"] == "rerank-v5-metrics"]

    (duration,) = of("gen_ai.client.operation.duration")
    assert duration.count == 1
    assert 0 < duration.sum < 30
    (tokens,) = of("gen_ai.client.token.usage", **{"gen_ai.token.type": "input"})
    assert tokens.sum > 0
    (limited,) = of("rerank.attempts", **{"rerank.outcome": "RateLimited", "http.response.status_code": 429})
    (answered,) = of("rerank.attempts", **{"rerank.outcome": "answered", "http.response.status_code": 200})
    assert (limited.value, answered.value) == (1, 1)
    (cost,) = of("rerank.cost")
    assert cost.value == pytest.approx(tokens.sum / 1e6)


def test_cache_and_degradation(seen, vendor):
    vendor.play(Status(500), Status(500), Status(500))
    with load_reranker(spec(vendor, cache=True, fallback=["lexical"])) as reranker:
        assert reranker.rerank(QUERY, DOCUMENTS).degraded
        assert not reranker.rerank(QUERY, DOCUMENTS[:2]).degraded
        reranker.rerank(QUERY, DOCUMENTS)
    degraded, _, cached = seen.spans("rerank ")
    assert degraded.attributes["rerank.degraded"] is True
    assert degraded.attributes["gen_ai.response.model"] == "lexical"
    attempts = [each for each in seen.spans("attempt ") if each.parent.span_id == degraded.context.span_id]
    assert [each.attributes["gen_ai.provider.name"] for each in attempts] == ["cohere"] * 3 + ["lexical"]
    assert [each.kind for each in attempts] == [SpanKind.CLIENT] * 3 + [SpanKind.INTERNAL]
    (event,) = cached.events
    assert (event.name, event.attributes["rerank.detail"]) == ("cached", "2 of 3 documents")
    assert any(each.value == 1 for each in seen.metrics()["rerank.degraded"])
    check_no_secrets(seen.spans(), vendor.key)


def test_a_cascade_is_no_vendor_of_its_own(seen, vendor):
    stages = ["embedded:fast", spec(vendor)]
    with load_reranker({"cascade": {"stages": stages, "keep": [2]}}) as reranker:
        reranker.rerank(QUERY, DOCUMENTS)
    (call,) = seen.spans("rerank ")
    asked = [span.attributes["gen_ai.provider.name"] for span in seen.spans("attempt ")]
    assert asked == ["embedded", "cohere"]
    assert call.attributes["gen_ai.provider.name"] == "rerank_plugins"
    assert call.attributes["gen_ai.request.model"] == "embedded:fast → cohere:rerank-v5-test"


def test_a_failure_tells_its_kind_and_not_its_words(seen, vendor):
    vendor.always(Status(429, message="zanzibar is too much"))
    with load_reranker(spec(vendor, retry=1)) as reranker, pytest.raises(RateLimited, match="zanzibar"):
        reranker.rerank(QUERY, DOCUMENTS)
    (call,) = seen.spans("rerank ")
    assert (call.status.status_code, call.status.description) == (StatusCode.ERROR, "RateLimited")
    check_no_secrets(seen.spans(), vendor.key)


def test_without_opentelemetry_it_is_off():
    """Not installed, as far as this process can see; and nothing of ours asks for it."""
    code = """
import json, sys
sys.modules["opentelemetry"] = None
from rerank_plugins import load_reranker
answer = load_reranker("lexical").rerank("cat", ["a dog", "a cat"])
print(json.dumps([answer[0].index, [each.outcome for each in answer.attempts]]))
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60)
    assert json.loads(done.stdout) == [1, ["answered"]]
