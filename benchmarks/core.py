"""What the core costs a call: `passthrough` on 100 documents, sync and async. Prints medians in milliseconds."""

import asyncio
import statistics
import time

from rerank_plugins import load_reranker

CALLS = 2_000
documents = [f"document {number} says something short" for number in range(100)]
reranker = load_reranker("passthrough")


def told(name: str, times: list[float]) -> None:
    quantiles = statistics.quantiles(times, n=20)
    print(f"{name:6} median {statistics.median(times):.3f} ms a call [p5 {quantiles[0]:.3f}, p95 {quantiles[-1]:.3f}]")


def sync() -> list[float]:
    times = []
    for _ in range(CALLS):
        started = time.perf_counter()
        reranker.rerank("a query", documents)
        times.append((time.perf_counter() - started) * 1000)
    return times


async def asynchronous() -> list[float]:
    times = []
    for _ in range(CALLS):
        started = time.perf_counter()
        await reranker.arerank("a query", documents)
        times.append((time.perf_counter() - started) * 1000)
    return times


print(f"core: passthrough, {len(documents)} documents, {CALLS} calls")
told("sync", sync())
told("async", asyncio.run(asynchronous()))
