"""Measure what the core adds to a call: `passthrough` on 100 documents, sync against async, in milliseconds.

    python benchmarks/core.py

`passthrough` does no work, so the whole time of a call is the core's: validation, the background loop, sorting. Prints
the median and the 5th and 95th percentile of 2,000 calls.

Time on two cores: five seconds, 15 on a busy machine.
Install: pip install -e .
"""

import asyncio
import statistics
import time

from rerank_plugins import load_reranker

CALLS = 2_000
documents = [f"document {number} says something short" for number in range(100)]
reranker = load_reranker("passthrough")


def show(name: str, times: list[float]) -> None:
    quantiles = statistics.quantiles(times, n=20)
    print(f"{name:6} median {statistics.median(times):.3f} ms a call [p5 {quantiles[0]:.3f}, p95 {quantiles[-1]:.3f}]")


def time_sync_calls() -> list[float]:
    times = []
    for _ in range(CALLS):
        started = time.perf_counter()
        reranker.rerank("a query", documents)
        times.append((time.perf_counter() - started) * 1000)
    return times


async def time_async_calls() -> list[float]:
    times = []
    for _ in range(CALLS):
        started = time.perf_counter()
        await reranker.arerank("a query", documents)
        times.append((time.perf_counter() - started) * 1000)
    return times


print(f"core: passthrough, {len(documents)} documents, {CALLS} calls")
show("sync", time_sync_calls())
show("async", asyncio.run(time_async_calls()))
