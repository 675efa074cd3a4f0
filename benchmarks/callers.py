"""Compare concurrent calls of one local model with sequential ones, and measure the gaps of the event loop.

    python benchmarks/callers.py

16 threads and 64 asyncio tasks, each with a query over 10 documents. The model has MiniLM-L6's shape, on onnx in
float32. Prints the seconds of concurrent and of sequential calls, their ratio (above 1: concurrent calls are faster),
the largest difference between two scores of the same document, and the longest delay of a task that wakes up every five
milliseconds.

Time on two cores: about three minutes.
Install: pip install -e '.[training]'
"""

import asyncio
import statistics
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from checkpoints import write_minilm
from local import QUERIES, texts

from rerank_plugins import Reranker, load_reranker

ROUNDS, DOCUMENTS = 3, 10
Scores = list[list[float]]


def make_calls(count: int) -> list[tuple[str, list[str]]]:
    return [(QUERIES[number % len(QUERIES)], texts(DOCUMENTS, seed=100 + number)) for number in range(count)]


def run_sequentially(reranker: Reranker, count: int) -> Scores:
    return [[result.raw_score for result in reranker.rerank(*call)] for call in make_calls(count)]


def run_in_threads(reranker: Reranker, count: int) -> Scores:
    with ThreadPoolExecutor(count) as pool:
        return [
            [result.raw_score for result in response]
            for response in pool.map(lambda call: reranker.rerank(*call), make_calls(count))
        ]


def run_in_tasks(reranker: Reranker, count: int) -> tuple[Scores, float]:
    async def run() -> tuple[Scores, float]:
        gaps = []

        async def measure_gaps() -> None:
            while True:
                before = time.perf_counter()
                await asyncio.sleep(0.005)
                gaps.append(time.perf_counter() - before - 0.005)

        gap_task = asyncio.create_task(measure_gaps())
        responses = await asyncio.gather(*(reranker.arerank(*call) for call in make_calls(count)))
        gap_task.cancel()
        return [[result.raw_score for result in response] for response in responses], max(gaps)

    return asyncio.run(run())


def measure_seconds(work: Callable[[], object]) -> tuple[float, object]:
    started = time.perf_counter()
    result = work()
    return time.perf_counter() - started, result


def main() -> None:
    with tempfile.TemporaryDirectory() as name:
        folder = write_minilm(Path(name) / "model", texts(60, seed=9, words=60))
        with load_reranker(f"onnx:{folder}") as reranker:
            reranker.warmup()
            for count, title in ((16, "threads"), (64, "tasks")):
                sequential, concurrent, difference, gap = [], [], 0.0, 0.0
                for _ in range(ROUNDS):
                    seconds, expected = measure_seconds(lambda count=count: run_sequentially(reranker, count))
                    sequential.append(seconds)
                    if title == "threads":
                        seconds, scores = measure_seconds(lambda count=count: run_in_threads(reranker, count))
                    else:
                        seconds, (scores, longest) = measure_seconds(lambda count=count: run_in_tasks(reranker, count))
                        gap = max(gap, longest)
                    concurrent.append(seconds)
                    pairs = [
                        pair
                        for one, other in zip(expected, scores, strict=True)
                        for pair in zip(one, other, strict=True)
                    ]
                    difference = max(difference, *(abs(one - other) for one, other in pairs))
                one, other = statistics.median(sequential), statistics.median(concurrent)
                delay = f", longest gap of the loop {gap * 1000:.0f} ms" if gap else ""
                print(
                    f"{count} {title}: sequential {one:.2f} s, concurrent {other:.2f} s (x{one / other:.2f}), "
                    f"scores differ by {difference:.0e}{delay}"
                )


if __name__ == "__main__":
    main()
