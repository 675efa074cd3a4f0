"""Run 20,000 reranks, 64 at a time, against a server that fails a fifth of its requests in twelve ways: lost or leaked?

    python benchmarks/soak.py [--reranks 20000]

48 tasks on one event loop and 16 threads with the sync methods share two rerankers, one with fallbacks and one without.
Every answer is compared, document by document, with the scores that the server must have computed. The server runs in
another process. Exits with 1 if a document was lost, doubled or scored wrongly, if a call ended in anything but an
answer or a typed error, or if memory, descriptors, threads, tasks or connections leaked.

Time on two cores: 42 seconds on an AMD EPYC (Zen 5), a few minutes on older ones.
Install: pip install -e . psutil
"""

from __future__ import annotations

import argparse
import asyncio
import gc
import itertools
import json
import logging
import multiprocessing
import random
import sys
import threading
import time
from collections import Counter
from multiprocessing.connection import Connection
from typing import Any

import psutil

from rerank_plugins import Reranker, RerankError, RerankResponse, load_reranker
from rerank_plugins.testing.cohere_like import CohereLike
from rerank_plugins.testing.script import HTML, CutBody, Drip, Duplicate, Gap, Hang, NaN, Reset, Status, Step, Stranger
from rerank_plugins.testing.server import Received, share_of_words

KEY = "soak-key-0123456789"
TASKS, THREADS = 48, 16
FAILING = 0.2
FAILURES: list[Step] = [
    Status(500),
    Status(503, {"retry-after-ms": "20"}),
    Status(429, {"retry-after": "0.02"}),
    Reset(),
    CutBody(),
    Hang(),
    Drip(),
    HTML(),
    Gap(),
    Duplicate(),
    NaN(),
    Stranger(),
]


def serve(pipe: Connection) -> None:
    """Run the server. Answer every message on the pipe with the open connections and the failures so far."""
    generator = random.Random(4)
    failures: Counter[str] = Counter()
    state = {"fails": False}  # of the current request: the server calls the predicates under its lock
    with CohereLike(key=KEY) as server:

        def fails(_: Received) -> bool:
            if len(server.requests) > 1_000:
                server.requests.clear()
            return generator.random() < FAILING

        for step in FAILURES:  # every kind of failure has the same share
            share = 1.0 / (len(FAILURES) - FAILURES.index(step))

            def chosen(request: Received, step: Step = step, share: float = share) -> bool:
                if step is FAILURES[0]:
                    state["fails"] = fails(request)
                hit = state["fails"] and generator.random() < share
                failures["failed"] += hit
                failures["requests"] += step is FAILURES[0]
                return hit

            server.always(step, chosen)
        pipe.send(server.url)
        while pipe.recv():
            pipe.send((server.connections, dict(failures)))


def make_request(number: int) -> tuple[str, list[str]]:
    """Return a query and twelve documents that no other call has; one is blank and one is a repetition."""
    documents = [f"call {number} document {at} of tides" for at in range(10)]
    return f"tides {number} document {number % 10}", [*documents, "", documents[3]]


class Outcomes:
    """How the calls ended. `lock` guards all fields: tasks and threads record at the same time."""

    def __init__(self) -> None:
        self.counts: Counter[str] = Counter()
        self.wrong: list[str] = []
        self.lock = threading.Lock()

    def record(self, number: int, outcome: RerankResponse | BaseException) -> None:
        with self.lock:
            if isinstance(outcome, RerankResponse):
                self.counts[f"answered by {outcome.model}"] += 1
                self._check(number, outcome)
            else:
                self.counts[type(outcome).__name__] += 1
                if not isinstance(outcome, RerankError):
                    self.wrong.append(f"call {number} ended in {outcome!r}")

    def _check(self, number: int, answer: RerankResponse) -> None:
        query, documents = make_request(number)
        if sorted(result.index for result in answer) != list(range(len(documents))):
            self.wrong.append(f"call {number} lost or doubled a document")
        for result in answer:
            if result.document != documents[result.index]:
                self.wrong.append(f"call {number}: another call's document")
            if (
                answer.model == "http"
                and result.document
                and result.raw_score != share_of_words(query, result.document)
            ):
                self.wrong.append(f"call {number}: a score of another document")


def measure_resources(pipe: Connection) -> dict[str, Any]:
    """Return what could leak: memory, descriptors, threads, and connections at the server."""
    gc.collect()
    process = psutil.Process()
    pipe.send(True)
    connections, failures = pipe.recv()
    return {
        "rss_mb": round(process.memory_info().rss / 1e6, 1),
        "descriptors": process.num_fds(),
        "threads": process.num_threads(),
        "connections": connections,
        **failures,
    }


async def soak(rerankers: list[Reranker], reranks: int, pipe: Connection) -> tuple[Outcomes, list[dict[str, Any]]]:
    """Run all calls. Return their outcomes, and the resources in use after every tenth of the calls."""
    outcomes, numbers = Outcomes(), itertools.count()
    lock = threading.Lock()
    samples: list[dict[str, Any]] = []

    def next_number() -> int | None:
        with lock:
            number = next(numbers)
        return number if number < reranks else None

    async def run_task() -> None:
        while (number := next_number()) is not None:
            try:
                outcomes.record(number, await rerankers[number % 2].arerank(*make_request(number)))
            except Exception as error:
                outcomes.record(number, error)
            if number % (reranks // 10) == 0:
                samples.append({"after": number, "tasks": len(asyncio.all_tasks()), **measure_resources(pipe)})
                print("  " + "  ".join(f"{key} {value}" for key, value in samples[-1].items()), flush=True)

    def run_thread() -> None:
        while (number := next_number()) is not None:
            try:
                outcomes.record(number, rerankers[number % 2].rerank(*make_request(number)))
            except Exception as error:
                outcomes.record(number, error)

    threads = [threading.Thread(target=run_thread) for _ in range(THREADS)]
    for thread in threads:
        thread.start()
    await asyncio.gather(*(run_task() for _ in range(TASKS)))
    for thread in threads:
        await asyncio.to_thread(thread.join)
    samples.append({"after": reranks, "tasks": len(asyncio.all_tasks()), **measure_resources(pipe)})
    return outcomes, samples


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--reranks", type=int, default=20_000)
    reranks = parser.parse_args().reranks
    logging.getLogger("rerank_plugins").setLevel(logging.ERROR)
    pipe, theirs = multiprocessing.Pipe()
    process = multiprocessing.get_context("spawn").Process(target=serve, args=(theirs,), daemon=True)
    process.start()
    spec = {"use": "http", "base_url": pipe.recv(), "api_key": KEY, "timeout": 0.5, "cache": {"max_entries": 5_000}}
    spec |= {"retry": {"attempts": 3, "wait_initial": 0.02}, "breaker": {"failures": 50, "reset_s": 0.1}}
    before = measure_resources(pipe)
    rerankers = [load_reranker(spec), load_reranker(spec, fallback=["lexical", "passthrough"], deadline=5.0)]
    began = time.monotonic()
    outcomes, samples = asyncio.run(soak(rerankers, reranks, pipe))
    seconds = time.monotonic() - began
    for reranker in rerankers:
        reranker.close()
    after = measure_resources(pipe)
    # The server notices a closed connection a little later.
    while after["connections"] and time.monotonic() - began < seconds + 5.0:
        after = measure_resources(pipe)
    pipe.send(False)
    process.join(5.0)

    print(f"\n{reranks} reranks in {seconds:.1f} s ({reranks / seconds:.0f} a second), {TASKS + THREADS} in flight")
    print(
        f"server: {after['requests']} requests, {after['failed'] / after['requests']:.1%} failed, {len(FAILURES)} ways"
    )
    for outcome, count in outcomes.counts.most_common():
        print(f"  {count:6}  {outcome}")
    grown = {key: round(after[key] - before[key], 1) for key in ("rss_mb", "descriptors", "threads", "connections")}
    steady = round(samples[-1]["rss_mb"] - samples[len(samples) // 3]["rss_mb"], 1)
    print(f"after closing, against before the first call: {grown}; memory over the last two thirds: {steady} MB")
    wrong = outcomes.wrong
    wrong += [] if outcomes.counts.total() == reranks else [f"{outcomes.counts.total()} of {reranks} calls ended"]
    wrong += [] if grown["connections"] <= 0 else ["connections are left"]
    wrong += [] if grown["descriptors"] <= 8 else ["descriptors are left"]  # those of the background loop
    wrong += [] if grown["threads"] <= 8 else ["threads are left"]
    wrong += [] if samples[-1]["tasks"] == 1 else ["tasks are left"]
    wrong += [] if steady < 20.0 else ["memory grows"]
    print(json.dumps({"wrong": len(wrong), "seconds": round(seconds, 1), "steady_mb": steady, **grown}))
    for message in wrong[:10]:
        print(f"WRONG: {message}", file=sys.stderr)
    return bool(wrong)


if __name__ == "__main__":
    sys.exit(main())
