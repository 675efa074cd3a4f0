"""What the user of a chain sees while its vendors fail one after another. Offline: the vendors are local servers.

The chain uses cohere, then jina-api, then the embedded model, then the order of the retriever; at most one second.

pip install 'rerank-plugins[langchain,cohere]'
"""

import logging

from langchain_core.documents import Document
from langchain_core.retrievers import BaseRetriever

from rerank_plugins import load_reranker
from rerank_plugins.langchain import RerankRetriever
from rerank_plugins.testing.script import Hang, Status
from rerank_plugins.testing.vendors import VENDORS

# All answers are printed here. In a log, there is one warning per minute.
logging.getLogger("rerank_plugins").setLevel(logging.ERROR)


class Shelf(BaseRetriever):
    def _get_relevant_documents(self, query, *, run_manager):
        return [Document(text) for text in ("Bananas are yellow.", "The moon makes the tides.", "Cars have wheels.")]


def show(response):
    tried = ", ".join(f"{attempt.model} {attempt.outcome}" for attempt in response.attempts)
    print(f"   {response[0].document!r} in {response.latency_ms:.0f} ms; tried: {tried}")
    print(f"   DEGRADED: {response.reason[:150]}…" if response.degraded else "   as asked for")


with VENDORS["cohere"]() as cohere, VENDORS["jina-api"]() as jina:
    breaker = {"failures": 2, "reset_s": 0.5}
    second = {"use": "jina-api", "base_url": jina.url, "api_key": jina.key, "breaker": breaker}
    spec = {"use": "cohere", "base_url": cohere.url, "api_key": cohere.key, "breaker": breaker}
    with load_reranker(spec, deadline=1.0, fallback=[second, "embedded", "passthrough"]) as reranker:
        reranker.warmup()  # so that the embedded model is loaded before it is needed
        chain = RerankRetriever(retriever=Shelf(), reranker=reranker, top_n=2, on_response=show)

        def ask(title):
            print(f"\n{title}")
            return chain.invoke("what makes the tides?")[0].metadata.get("rerank_degraded", False)

        ask("1. All vendors answer")
        cohere.always(Status(429, {"retry-after": "7"}))
        ask("2. cohere asks to wait seven seconds: jina-api answers")
        cohere.reset()
        cohere.always(Hang())
        ask("3. cohere does not answer: jina-api answers after cohere's share of the second")
        ask("4. cohere failed twice and its breaker is open: jina-api answers at once")
        jina.always(Status(503))
        ask("5. jina-api fails too: the embedded model answers")
        cohere.reset()
        while ask("6. cohere is up again, and is used when its breaker has been open for half a second"):
            pass
        stats = reranker.stats()
        health = {name: stats[name] for name in ("calls", "degraded", "failed", "answered_by")}
        print("\nA health endpoint returns:", health)
