"""OpenTelemetry spans of a LangChain call with a busy vendor: rerank → attempt 1 (429) → attempt 2 (200).

pip install 'rerank-plugins[langchain,opentelemetry]' opentelemetry-sdk
python examples/tracing.py
"""

from langchain_core.documents import Document
from opentelemetry import trace
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from rerank_plugins.langchain import RerankCompressor
from rerank_plugins.testing.cohere_like import CohereLike  # a local server in place of a vendor
from rerank_plugins.testing.script import Status

exporter = InMemorySpanExporter()  # an OTLPSpanExporter sends them to your collector
tracer_provider = TracerProvider()
tracer_provider.add_span_processor(SimpleSpanProcessor(exporter))
trace.set_tracer_provider(tracer_provider)

documents = [Document("Bananas are yellow."), Document("A refund takes five working days.")]
with CohereLike() as vendor:
    vendor.play(Status(429, {"retry-after": "0.1"}))
    compressor = RerankCompressor(reranker={"use": "http", "base_url": vendor.url, "api_key": vendor.key})
    with trace.get_tracer("example").start_as_current_span("my request"):
        compressor.compress_documents(documents, "how long does a refund take")

spans = sorted(exporter.get_finished_spans(), key=lambda span: span.start_time)
span_of = {span.context.span_id: span for span in spans}
for span in spans:
    depth, parent = 0, span.parent
    while parent is not None:
        depth, parent = depth + 1, span_of[parent.span_id].parent
    shown = ("http.response.status_code", "gen_ai.usage.input_tokens", "rerank.outcome", "rerank.results")
    attributes = ", ".join(f"{name}={span.attributes[name]}" for name in shown if name in span.attributes)
    print(f"{'  ' * depth}{span.name}  {attributes}")
