"""20,000 reranks, 64 in flight, against a server that fails a fifth of its requests in twelve ways: is anything lost or leaked?

    python benchmarks/soak.py [--reranks 20000]

48 tasks on one event loop and 16 threads with the sync face share two rerankers: one with stand-ins, one without. Every answer
is checked document by document against what the server must have scored. The server runs in another process. Exits with 1 if
a document was lost, doubled or scored wrongly, if a call ended in anything but an answer or a typed error, or if something leaked.
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
WAYS: list[Step] = [
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
    """Run the server; every message on the pipe is answered with its open connections and failures so far."""
    chance = random.Random(4)
    failures: Counter[str] = Counter()
    state = {"fails": False}  # of the request that is being looked at: the server asks under its lock
    with CohereLike(key=KEY) as server:

        def fails(_: Received) -> bool:
            if len(server.requests) > 1_000:
                server.requests.clear()
            return chance.random() < FAILING

        for step in WAYS:  # of those that fail, each way has the same share
            share = 1.0 / (len(WAYS) - WAYS.index(step))

            def chosen(request: Received, step: Step = step, share: float = share) -> bool:
                if step is WAYS[0]:
                    state["fails"] = fails(request)
                hit = state["fails"] and chance.random() < share
                failures["failed"] += hit
                failures["requests"] += step is WAYS[0]
                return hit

            server.always(step, chosen)
        pipe.send(server.url)
        while pipe.recv():
            pipe.send((server.connections, dict(failures)))


def question(number: int) -> tuple[str, list[str]]:
    """Return a query and twelve documents, a blank and a repeated one among them, that no other call has."""
    documents = [f"call {number} document {each} of tides" for each in range(10)]
    return f"tides {number} document {number % 10}", [*documents, "", documents[3]]


class Ends:
    """How the calls ended."""

    def __init__(self) -> None:
        self.counts: Counter[str] = Counter()
        self.wrong: list[str] = []
        self.lock = threading.Lock()

    def note(self, number: int, end: RerankResponse | BaseException) -> None:
        with self.lock:
            if isinstance(end, RerankResponse):
                self.counts[f"answered by {end.model}"] += 1
                self._check(number, end)
            else:
                self.counts[type(end).__name__] += 1
                if not isinstance(end, RerankError):
                    self.wrong.append(f"call {number} ended in {end!r}")

    def _check(self, number: int, answer: RerankResponse) -> None:
        query, documents = question(number)
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


def footing(pipe: Connection) -> dict[str, Any]:
    """Return what could leak: memory, descriptors, threads, tasks, connections at the server."""
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


async def soak(rerankers: list[Reranker], reranks: int, pipe: Connection) -> tuple[Ends, list[dict[str, Any]]]:
    """Run all calls; return how they ended, and the footing after every tenth of them."""
    ends, numbers = Ends(), itertools.count()
    lock = threading.Lock()
    found: list[dict[str, Any]] = []

    def following() -> int | None:
        with lock:
            number = next(numbers)
        return number if number < reranks else None

    async def ask() -> None:
        while (number := following()) is not None:
            try:
                ends.note(number, await rerankers[number % 2].arerank(*question(number)))
            except Exception as error:
                ends.note(number, error)
            if number % (reranks // 10) == 0:
                found.append({"after": number, "tasks": len(asyncio.all_tasks()), **footing(pipe)})
                print("  " + "  ".join(f"{key} {value}" for key, value in found[-1].items()), flush=True)

    def ask_in_thread() -> None:
        while (number := following()) is not None:
            try:
                ends.note(number, rerankers[number % 2].rerank(*question(number)))
            except Exception as error:
                ends.note(number, error)

    threads = [threading.Thread(target=ask_in_thread) for _ in range(THREADS)]
    for thread in threads:
        thread.start()
    await asyncio.gather(*(ask() for _ in range(TASKS)))
    for thread in threads:
        await asyncio.to_thread(thread.join)
    found.append({"after": reranks, "tasks": len(asyncio.all_tasks()), **footing(pipe)})
    return ends, found


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
    before = footing(pipe)
    rerankers = [load_reranker(spec), load_reranker(spec, fallback=["lexical", "passthrough"], deadline=5.0)]
    began = time.monotonic()
    ends, found = asyncio.run(soak(rerankers, reranks, pipe))
    seconds = time.monotonic() - began
    for reranker in rerankers:
        reranker.close()
    after = footing(pipe)
    while (
        after["connections"] and time.monotonic() - began < seconds + 5.0
    ):  # the server notes a closed one on its own time
        after = footing(pipe)
    pipe.send(False)
    process.join(5.0)

    print(f"\n{reranks} reranks in {seconds:.1f} s ({reranks / seconds:.0f} a second), {TASKS + THREADS} in flight")
    print(f"server: {after['requests']} requests, {after['failed'] / after['requests']:.1%} failed, {len(WAYS)} ways")
    for end, count in ends.counts.most_common():
        print(f"  {count:6}  {end}")
    grown = {key: round(after[key] - before[key], 1) for key in ("rss_mb", "descriptors", "threads", "connections")}
    steady = round(found[-1]["rss_mb"] - found[len(found) // 3]["rss_mb"], 1)
    print(f"after closing, against before the first call: {grown}; memory over the last two thirds: {steady} MB")
    wrong = ends.wrong
    wrong += [] if ends.counts.total() == reranks else [f"{ends.counts.total()} of {reranks} calls ended"]
    wrong += [] if grown["connections"] <= 0 else ["connections are left"]
    wrong += [] if grown["descriptors"] <= 8 else ["descriptors are left"]  # the background loop's own
    wrong += [] if grown["threads"] <= 8 else ["threads are left"]
    wrong += [] if found[-1]["tasks"] == 1 else ["tasks are left"]
    wrong += [] if steady < 20.0 else ["memory grows"]
    print(json.dumps({"wrong": len(wrong), "seconds": round(seconds, 1), "steady_mb": steady, **grown}))
    for each in wrong[:10]:
        print(f"WRONG: {each}", file=sys.stderr)
    return bool(wrong)


if __name__ == "__main__":
    sys.exit(main())
