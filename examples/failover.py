"""What a chain's user sees while the vendors behind its reranker die one after another. Offline: they are local servers.

The chain asks cohere, then jina-api, then the model in the wheel, then keeps the retriever's order: in a second at most.

pip install 'rerank-plugins[langchain,cohere]'
"""

import logging

from langchain_core.documents import Document
from langchain_core.retrievers import BaseRetriever

from rerank_plugins import load_reranker
from rerank_plugins.langchain import RerankRetriever
from rerank_plugins.testing.script import Hang, Status
from rerank_plugins.testing.vendors import VENDORS

# Here every answer is shown; a log gets one warning a minute.
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
        reranker.warmup()  # so that the model in the wheel is ready when it is needed
        chain = RerankRetriever(retriever=Shelf(), reranker=reranker, top_n=2, on_response=show)

        def ask(title):
            print(f"\n{title}")
            return chain.invoke("what makes the tides?")[0].metadata.get("rerank_degraded", False)

        ask("1. Everybody is well")
        cohere.always(Status(429, {"retry-after": "7"}))
        ask("2. cohere wants seven seconds of quiet: jina-api answers")
        cohere.reset()
        cohere.always(Hang())
        ask("3. cohere never answers: jina-api does, after cohere's share of the second")
        ask("4. cohere failed twice and its breaker is open: jina-api answers at once")
        jina.always(Status(503))
        ask("5. jina-api dies too: the model in the wheel answers")
        cohere.reset()
        while ask("6. cohere is back, and found when its half second is over"):
            pass
        stats = reranker.stats()
        told = {name: stats[name] for name in ("calls", "degraded", "failed", "answered_by")}
        print("\nA health endpoint reads:", told)
