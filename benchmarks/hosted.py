"""Compare our layer with the bare SDKs of hosted vendors, and native async with threads, against a local server.

    python benchmarks/hosted.py [--rounds 300]

1. One call of 100 documents: `Reranker.arerank` against the bare `cohere.AsyncClientV2`, taking turns on one event
   loop. The same for `voyageai.AsyncClient`.
2. 32 concurrent async calls at 100 ms and at 1 s of server delay: ours, the bare async SDK, and what LangChain's
   `acompress_documents` and LlamaIndex's `_apostprocess_nodes` do for a reranker that has only a sync method: one
   thread of the loop's default executor per call. langchain-cohere and LlamaIndex's Cohere package are such rerankers.
   They pin cohere<6 and cohere<7, so classes of the same shape over the installed SDK replace them here.

Time on two cores: about two minutes.
Install: pip install -e '.[cohere,voyage,langchain,llama-index]'
"""

from __future__ import annotations

import argparse
import asyncio
import json
import multiprocessing
import os
import statistics
import time
from collections.abc import Awaitable, Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from multiprocessing.connection import Connection
from typing import Any

import cohere
import voyageai
from langchain_core.documents import BaseDocumentCompressor, Document
from llama_index.core.postprocessor.types import BaseNodePostprocessor
from llama_index.core.schema import NodeWithScore, TextNode

from rerank_plugins import load_reranker
from rerank_plugins.testing.vendors import VENDORS

QUERY = "how do the tides work"
DOCUMENTS = [f"{number}: the moon pulls the sea and the tides follow, {'tide ' * 100}" for number in range(100)]
CONCURRENT = 32


def serve(vendor: str, key: str, pipe: Connection) -> None:
    """Run a vendor server until `None` arrives on the pipe; a number on the pipe sets its delay in seconds."""
    with VENDORS[vendor](key=key, score=lambda _query, text: 1.0 / (1 + len(text))) as server:
        pipe.send(server.url)
        while (delay := pipe.recv()) is not None:
            server.delay = delay
            server.requests.clear()
            pipe.send("ready")


class Server:
    """A vendor server in its own process."""

    def __init__(self, vendor: str) -> None:
        self.key = "benchmark-key-0123456789"
        self.pipe, theirs = multiprocessing.Pipe()
        self.process = multiprocessing.get_context("spawn").Process(
            target=serve, args=(vendor, self.key, theirs), daemon=True
        )
        self.process.start()
        self.url: str = self.pipe.recv()

    def set_delay(self, delay: float) -> None:
        """Delay every answer by this many seconds."""
        self.pipe.send(delay)
        self.pipe.recv()

    def stop(self) -> None:
        """Stop the process."""
        self.pipe.send(None)
        self.process.join(5)


async def measure_milliseconds(call: Callable[[], Awaitable[Any]]) -> float:
    started = time.perf_counter()
    await call()
    return (time.perf_counter() - started) * 1000


def format_quartiles(values: Sequence[float]) -> str:
    low, _, high = statistics.quantiles(values, n=4)
    return f"{statistics.median(values):6.2f} ms  (quartiles {low:.2f} to {high:.2f})"


async def measure_overhead(
    name: str, ours: Callable[[], Awaitable[Any]], bare: Callable[[], Awaitable[Any]], rounds: int
) -> float:
    """Print both medians and the median difference of a pair, and return the latter."""
    for _ in range(20):
        await ours()
        await bare()
    pairs = []
    for number in range(rounds):
        calls = (ours, bare) if number % 2 else (bare, ours)
        times = [await measure_milliseconds(call) for call in calls]
        pairs.append(times if number % 2 else times[::-1])
    difference = [mine - theirs for mine, theirs in pairs]
    print(f"\n{name}, {len(DOCUMENTS)} documents, {rounds} pairs")
    print(f"  ours        {format_quartiles([mine for mine, _ in pairs])}")
    print(f"  bare SDK    {format_quartiles([theirs for _, theirs in pairs])}")
    print(f"  difference  {format_quartiles(difference)}")
    return statistics.median(difference)


class ThreadedCompressor(BaseDocumentCompressor):
    """The shape of langchain-cohere's reranker: a sync method over the SDK, and an inherited async one."""

    client: Any

    def compress_documents(
        self, documents: Sequence[Document], query: str, callbacks: Any = None
    ) -> Sequence[Document]:
        texts = [document.page_content for document in documents]
        response = self.client.rerank(model="rerank-v3.5", query=query, documents=texts)
        return [documents[result.index] for result in response.results]


class ThreadedPostprocessor(BaseNodePostprocessor):
    """The shape of LlamaIndex's Cohere package: a sync method over the SDK, and an inherited async one (a thread)."""

    client: Any

    def _postprocess_nodes(self, nodes: list[NodeWithScore], query_bundle: Any = None) -> list[NodeWithScore]:
        texts = [node.node.get_content() for node in nodes]
        response = self.client.rerank(model="rerank-v3.5", query=query_bundle.query_str, documents=texts)
        return [nodes[result.index] for result in response.results]


async def measure_throughput(call: Callable[[], Awaitable[Any]]) -> float:
    """Return calls per second at 32 concurrent calls: the best of three rounds after a warm-up call."""
    best = 0.0
    await call()
    for _ in range(3):
        started = time.perf_counter()
        await asyncio.gather(*(call() for _ in range(CONCURRENT)))
        best = max(best, CONCURRENT / (time.perf_counter() - started))
    return best


async def measure_one_call(rounds: int) -> dict[str, float]:
    """Measure how many milliseconds our layer adds to one call."""
    added = {}
    server = Server("cohere")
    bare = cohere.AsyncClientV2(server.key, base_url=server.url)
    spec = {"use": "cohere:rerank-v3.5", "base_url": server.url, "api_key": server.key}
    async with load_reranker(spec) as reranker:
        added["cohere_ms"] = await measure_overhead(
            "cohere",
            lambda: reranker.arerank(QUERY, DOCUMENTS),
            lambda: bare.rerank(model="rerank-v3.5", query=QUERY, documents=DOCUMENTS, max_tokens_per_doc=4096),
            rounds,
        )
    await bare.__aexit__(None, None, None)
    server.stop()

    server = Server("voyage")
    client = voyageai.AsyncClient(server.key, base_url=f"{server.url}/v1")
    spec = {"use": "voyage:rerank-2.5", "base_url": server.url, "api_key": server.key}
    async with load_reranker(spec) as reranker:
        added["voyage_ms"] = await measure_overhead(
            "voyage",
            lambda: reranker.arerank(QUERY, DOCUMENTS),
            lambda: client.rerank(QUERY, DOCUMENTS, model="rerank-2.5"),
            rounds,
        )
    server.stop()
    return added


async def measure_concurrent_calls() -> dict[str, float]:
    """Measure 32 concurrent calls at two delays of the server."""
    ratios = {}
    server = Server("cohere")
    documents = [Document(text) for text in DOCUMENTS]
    nodes = [NodeWithScore(node=TextNode(text=text), score=0.5) for text in DOCUMENTS]
    blocking = cohere.ClientV2(server.key, base_url=server.url)
    langchain, llama_index = ThreadedCompressor(client=blocking), ThreadedPostprocessor(client=blocking)
    native = cohere.AsyncClientV2(server.key, base_url=server.url)
    spec = {"use": "cohere:rerank-v3.5", "base_url": server.url, "api_key": server.key}
    # The size of asyncio's default executor: four threads more than cores, at most 32.
    threads = min(32, (os.cpu_count() or 1) + 4)
    asyncio.get_running_loop().set_default_executor(ThreadPoolExecutor(threads))
    async with load_reranker(spec) as reranker:
        for delay in (0.1, 1.0):
            server.set_delay(delay)
            calls = {
                "ours": lambda: reranker.arerank(QUERY, DOCUMENTS),
                "bare async SDK": lambda: native.rerank(model="rerank-v3.5", query=QUERY, documents=DOCUMENTS),
                "LangChain's inherited acompress_documents": lambda: langchain.acompress_documents(documents, QUERY),
                "LlamaIndex's inherited apostprocess_nodes": lambda: llama_index.apostprocess_nodes(
                    nodes, query_str=QUERY
                ),
            }
            print(f"\n{CONCURRENT} calls at once, {delay * 1000:.0f} ms of server delay, {threads} executor threads")
            rates = {name: await measure_throughput(call) for name, call in calls.items()}
            for name, rate in rates.items():
                print(f"  {name:44} {rate:7.1f} calls/s   ours is {rates['ours'] / rate:.2f} times that")
            threaded = max(rate for name, rate in rates.items() if "inherited" in name)
            ratios[f"threaded_{delay:g}s"] = rates["ours"] / threaded
            ratios[f"native_{delay:g}s"] = rates["ours"] / rates["bare async SDK"]
    await native.__aexit__(None, None, None)
    server.stop()
    return ratios


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=300, help="pairs of calls (default: 300)")
    rounds = parser.parse_args().rounds
    results = asyncio.run(measure_one_call(rounds)) | asyncio.run(measure_concurrent_calls())
    print("\n" + json.dumps({name: round(value, 3) for name, value in results.items()}))


if __name__ == "__main__":
    main()
