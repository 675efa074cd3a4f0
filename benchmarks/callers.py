"""Many callers on one local model: at once against in turn, and how long the event loop was kept from others.

python benchmarks/callers.py: 16 threads and 64 tasks, each with a question over 10 documents; MiniLM-L6's shape, onnx float32.
Prints seconds at once and in turn, their ratio (above 1: at once is faster), the largest difference of a score from the
one in turn, and the longest gap of a task that wakes up every five milliseconds.
"""

import asyncio
import statistics
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from checkpoints import minilm
from local import QUERIES, texts

from rerank_plugins import Reranker, load_reranker

ROUNDS, DOCUMENTS = 3, 10
Scores = list[list[float]]


def asked(count: int) -> list[tuple[str, list[str]]]:
    return [(QUERIES[number % len(QUERIES)], texts(DOCUMENTS, seed=100 + number)) for number in range(count)]


def in_turn(reranker: Reranker, count: int) -> Scores:
    return [[result.raw_score for result in reranker.rerank(*each)] for each in asked(count)]


def threads(reranker: Reranker, count: int) -> Scores:
    with ThreadPoolExecutor(count) as pool:
        return [
            [result.raw_score for result in found]
            for found in pool.map(lambda each: reranker.rerank(*each), asked(count))
        ]


def tasks(reranker: Reranker, count: int) -> tuple[Scores, float]:
    async def run() -> tuple[Scores, float]:
        gaps = []

        async def beat() -> None:
            while True:
                before = time.perf_counter()
                await asyncio.sleep(0.005)
                gaps.append(time.perf_counter() - before - 0.005)

        heart = asyncio.create_task(beat())
        found = await asyncio.gather(*(reranker.arerank(*each) for each in asked(count)))
        heart.cancel()
        return [[result.raw_score for result in one] for one in found], max(gaps)

    return asyncio.run(run())


def timed(work: Callable[[], object]) -> tuple[float, object]:
    started = time.perf_counter()
    found = work()
    return time.perf_counter() - started, found


def main() -> None:
    with tempfile.TemporaryDirectory() as name:
        folder = minilm(Path(name) / "model", texts(60, seed=9, words=60))
        with load_reranker(f"onnx:{folder}") as reranker:
            reranker.warmup()
            for count, title in ((16, "threads"), (64, "tasks")):
                turns, together, far, gap = [], [], 0.0, 0.0
                for _ in range(ROUNDS):
                    took, expected = timed(lambda count=count: in_turn(reranker, count))
                    turns.append(took)
                    if title == "threads":
                        took, found = timed(lambda count=count: threads(reranker, count))
                    else:
                        took, (found, waited) = timed(lambda count=count: tasks(reranker, count))
                        gap = max(gap, waited)
                    together.append(took)
                    pairs = [
                        pair
                        for one, other in zip(expected, found, strict=True)
                        for pair in zip(one, other, strict=True)
                    ]
                    far = max(far, *(abs(one - other) for one, other in pairs))
                one, other = statistics.median(turns), statistics.median(together)
                beat = f", longest gap of the loop {gap * 1000:.0f} ms" if gap else ""
                print(
                    f"{count} {title}: in turn {one:.2f} s, at once {other:.2f} s (x{one / other:.2f}), differ by {far:.0e}{beat}"
                )


if __name__ == "__main__":
    main()
