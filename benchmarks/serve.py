"""64 clients through the cohere SDK against `rerank-plugins serve` (or Ray Serve); a worker is killed in the middle.

    python benchmarks/serve.py [--seconds 60] [--clients 64] [--reranker lexical] [--documents 20] [--ray]

The clients share one event loop of this process; each asks, checks the answer's order against what one process says, and asks
again. Refusals that may pass (429, 5xx, a broken connection) are counted and sent again. Exits with 1 if a request was lost,
an answer was wrong, or the server's memory grew by more than a tenth between the first quarter and the end.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import os
import re
import statistics
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator

import cohere
import httpx
import psutil
from cohere.core.api_error import ApiError

from rerank_plugins import load_reranker

WORKERS = 2
MAY_PASS = {408, 429, 500, 502, 503, 504}
TRIES = 50


class Plain:
    """`rerank-plugins serve` with two workers."""

    def __init__(self, reranker: str) -> None:
        command = [sys.executable, "-m", "rerank_plugins", "serve", reranker, "--port", "0", "--workers", str(WORKERS)]
        self.process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
        for line in self.process.stderr:
            if found := re.search(r"serving at (\S+)", line):
                self.url = found[1]
                return
        raise SystemExit("The server did not start.")

    def workers(self) -> list[psutil.Process]:
        children = psutil.Process(self.process.pid).children()
        return [each for each in children if "spawn_main" in " ".join(each.cmdline())]

    def stop(self) -> None:
        self.process.terminate()
        self.process.wait(60)


class OnRay:
    """The documented command, on a cluster of two CPUs that is started here."""

    def __init__(self, reranker: str) -> None:
        os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
        import ray
        from ray import serve

        from rerank_plugins.serving.ray_serve import app

        ray.init(num_cpus=2, include_dashboard=False, log_to_driver=False)
        serve.start(http_options={"host": "127.0.0.1", "port": 18_423})
        serve.run(app({"reranker": reranker, "replicas": WORKERS, "num_cpus": 0.4}), route_prefix="/")
        self.url = "http://127.0.0.1:18423"

    def workers(self) -> list[psutil.Process]:
        found = []
        for each in psutil.Process().children(recursive=True):
            with contextlib.suppress(psutil.Error):
                if "ServeReplica:default:rerank" in " ".join(each.cmdline()):
                    found.append(each)
        return found

    def stop(self) -> None:
        import ray
        from ray import serve

        serve.shutdown()
        ray.shutdown()


def megabytes(server: Plain | OnRay) -> float:
    """Return what the largest worker holds; the killed one's successor is smaller at first."""
    return max(each.memory_info().rss for each in server.workers()) / 1e6


@contextlib.contextmanager
def running(server: Plain | OnRay) -> Iterator[Plain | OnRay]:
    try:
        while True:
            with contextlib.suppress(httpx.TransportError):
                if httpx.get(f"{server.url}/healthz", trust_env=False, timeout=60).status_code == 200:
                    break
        yield server
    finally:
        server.stop()


class Clients:
    """All of them, and what they saw."""

    def __init__(self, url: str, model: str, queries: dict[str, list[int]], documents: list[str]) -> None:
        self.client = cohere.AsyncClientV2("no-key", base_url=url, timeout=60)
        self.model, self.queries, self.documents = model, queries, documents
        self.seconds: list[float] = []
        self.passing: Counter[str] = Counter()
        self.lost: list[str] = []
        self.wrong = 0

    async def live(self, number: int, until: float) -> None:
        names = list(self.queries)
        turn = number
        while time.perf_counter() < until:
            turn += 1
            await self.ask(names[turn % len(names)])

    async def ask(self, query: str) -> None:
        started = time.perf_counter()
        for _ in range(TRIES):
            try:
                answer = await self.client.rerank(
                    model=self.model, query=query, documents=self.documents, request_options={"max_retries": 0}
                )
            except ApiError as error:
                if error.status_code not in MAY_PASS:
                    self.lost.append(str(error))
                    return
                self.passing[str(error.status_code)] += 1
                await asyncio.sleep(0.1)
            except httpx.TransportError as error:
                self.passing[type(error).__name__] += 1
            else:
                self.seconds.append(time.perf_counter() - started)
                self.wrong += [each.index for each in answer.results] != self.queries[query]
                return
        self.lost.append(f"no answer in {TRIES} tries")


async def measure(server: Plain | OnRay, clients: Clients, options: argparse.Namespace) -> tuple[float, float]:
    """Let the clients live, kill a worker half-way, and return a process's megabytes at a quarter and at the end."""
    until = time.perf_counter() + options.seconds
    lives = [asyncio.create_task(clients.live(number, until)) for number in range(options.clients)]
    await asyncio.sleep(options.seconds / 4)
    early = megabytes(server)
    await asyncio.sleep(options.seconds / 4)
    (victim, *_) = await asyncio.to_thread(server.workers)
    victim.kill()
    await asyncio.gather(*lives)
    return early, megabytes(server)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=60.0)
    parser.add_argument("--clients", type=int, default=64)
    parser.add_argument("--reranker", default="lexical")
    parser.add_argument("--documents", type=int, default=20)
    parser.add_argument("--ray", action="store_true")
    options = parser.parse_args()

    documents = [f"{number}: the moon pulls the sea, {'tide ' * (number % 7)}" for number in range(options.documents)]
    with load_reranker(options.reranker) as reranker:
        asked = [f"what has {number} to do with the tide" for number in range(50)]
        queries = {query: [each.index for each in reranker.rerank(query, documents)] for query in asked}
    with running(OnRay(options.reranker) if options.ray else Plain(options.reranker)) as server:
        clients = Clients(server.url, options.reranker, queries, documents)
        early, late = asyncio.run(measure(server, clients, options))
    cuts = statistics.quantiles(clients.seconds, n=20)
    print(
        f"{'Ray Serve' if options.ray else 'rerank-plugins serve'}, {WORKERS} processes, {options.clients} clients, "
        f"{options.documents} documents, {options.reranker}, {options.seconds:g} s, one process killed"
    )
    print(f"  answered      {len(clients.seconds):,} ({len(clients.seconds) / options.seconds:.0f} a second)")
    print(f"  p50, p95      {statistics.median(clients.seconds) * 1e3:.0f} ms, {cuts[-1] * 1e3:.0f} ms")
    print(f"  sent again    {dict(clients.passing) or 'none'}")
    print(f"  lost, wrong   {len(clients.lost)}, {clients.wrong} {clients.lost[:1] or ''}")
    print(f"  memory        {early:.0f} MB a process at a quarter, {late:.0f} MB at the end")
    return 1 if clients.lost or clients.wrong or late > early * 1.1 else 0


if __name__ == "__main__":
    sys.exit(main())
