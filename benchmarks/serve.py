"""Run 64 clients of the cohere SDK against `rerank-plugins serve` or Ray Serve, and kill a worker meanwhile.

    python benchmarks/serve.py [--seconds 60] [--clients 64] [--reranker lexical] [--documents 20] [--ray]

The clients share one event loop of this process. Each sends a request, compares the order of the answer with that of a
reranker in this process, and sends the next. Errors that are worth a retry (429, 5xx, a broken connection) are counted,
and the request is sent again. Exits with 1 if a request was lost, an order was wrong, or the server's memory grew by
more than a tenth between the first quarter and the end.

Time: --seconds, and some ten seconds to start and stop (Ray: half a minute).
Install: pip install -e '.[serve,cohere]' psutil, and for --ray '.[ray]'
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
RETRIED_STATUSES = {408, 429, 500, 502, 503, 504}
TRIES = 50


def processes_with(processes: list[psutil.Process], word: str) -> list[psutil.Process]:
    """Return the processes with `word` in their command line, without those that have just been killed."""
    matching = []
    for process in processes:
        with contextlib.suppress(psutil.Error):
            if word in " ".join(process.cmdline()):
                matching.append(process)
    return matching


class PlainServer:
    """`rerank-plugins serve` with two workers."""

    def __init__(self, reranker: str) -> None:
        command = [sys.executable, "-m", "rerank_plugins", "serve", reranker, "--port", "0", "--workers", str(WORKERS)]
        self.process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
        for line in self.process.stderr:
            if match := re.search(r"serving at (\S+)", line):
                self.url = match[1]
                return
        raise SystemExit("The server did not start: run `rerank-plugins serve` by hand to see why.")

    def workers(self) -> list[psutil.Process]:
        return processes_with(psutil.Process(self.process.pid).children(), "spawn_main")

    def stop(self) -> None:
        self.process.terminate()
        self.process.wait(60)


class RayServer:
    """The documented Ray Serve application, on a cluster of two CPUs that this process starts."""

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
        return processes_with(psutil.Process().children(recursive=True), "ServeReplica:default:rerank")

    def stop(self) -> None:
        import ray
        from ray import serve

        serve.shutdown()
        ray.shutdown()


def largest_worker_mb(server: PlainServer | RayServer) -> float:
    """Return the memory of the largest worker in MB. The successor of the killed worker is smaller at first."""
    return max(worker.memory_info().rss for worker in server.workers()) / 1e6


@contextlib.contextmanager
def run_server(server: PlainServer | RayServer) -> Iterator[PlainServer | RayServer]:
    try:
        while True:
            with contextlib.suppress(httpx.TransportError):
                if httpx.get(f"{server.url}/healthz", trust_env=False, timeout=60).status_code == 200:
                    break
        yield server
    finally:
        server.stop()


class Clients:
    """All clients, and the counts of what happened to their requests."""

    def __init__(self, url: str, model: str, queries: dict[str, list[int]], documents: list[str]) -> None:
        self.client = cohere.AsyncClientV2("no-key", base_url=url, timeout=60)
        self.model, self.queries, self.documents = model, queries, documents
        self.seconds: list[float] = []
        self.retried: Counter[str] = Counter()
        self.lost: list[str] = []
        self.wrong = 0

    async def run_client(self, number: int, until: float) -> None:
        names = list(self.queries)
        turn = number
        while time.perf_counter() < until:
            turn += 1
            await self.send(names[turn % len(names)])

    async def send(self, query: str) -> None:
        started = time.perf_counter()
        for _ in range(TRIES):
            try:
                answer = await self.client.rerank(
                    model=self.model, query=query, documents=self.documents, request_options={"max_retries": 0}
                )
            except ApiError as error:
                if error.status_code not in RETRIED_STATUSES:
                    self.lost.append(str(error))
                    return
                self.retried[str(error.status_code)] += 1
                await asyncio.sleep(0.1)
            except httpx.TransportError as error:
                self.retried[type(error).__name__] += 1
            else:
                self.seconds.append(time.perf_counter() - started)
                self.wrong += [result.index for result in answer.results] != self.queries[query]
                return
        self.lost.append(f"no answer in {TRIES} tries")


async def measure(
    server: PlainServer | RayServer, clients: Clients, options: argparse.Namespace
) -> tuple[float, float]:
    """Run the clients, kill a worker half-way, and return a worker's memory in MB at a quarter and at the end."""
    until = time.perf_counter() + options.seconds
    tasks = [asyncio.create_task(clients.run_client(number, until)) for number in range(options.clients)]
    await asyncio.sleep(options.seconds / 4)
    early = largest_worker_mb(server)
    await asyncio.sleep(options.seconds / 4)
    (victim, *_) = await asyncio.to_thread(server.workers)
    victim.kill()
    await asyncio.gather(*tasks)
    return early, largest_worker_mb(server)


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
        texts = [f"what has {number} to do with the tide" for number in range(50)]
        queries = {query: [result.index for result in reranker.rerank(query, documents)] for query in texts}
    with run_server(RayServer(options.reranker) if options.ray else PlainServer(options.reranker)) as server:
        clients = Clients(server.url, options.reranker, queries, documents)
        early, late = asyncio.run(measure(server, clients, options))
    cuts = statistics.quantiles(clients.seconds, n=20)
    print(
        f"{'Ray Serve' if options.ray else 'rerank-plugins serve'}, {WORKERS} processes, {options.clients} clients, "
        f"{options.documents} documents, {options.reranker}, {options.seconds:g} s, one process killed"
    )
    print(f"  answered      {len(clients.seconds):,} ({len(clients.seconds) / options.seconds:.0f} a second)")
    print(f"  p50, p95      {statistics.median(clients.seconds) * 1e3:.0f} ms, {cuts[-1] * 1e3:.0f} ms")
    print(f"  sent again    {dict(clients.retried) or 'none'}")
    print(f"  lost, wrong   {len(clients.lost)}, {clients.wrong} {clients.lost[:1] or ''}")
    print(f"  memory        {early:.0f} MB a process at a quarter, {late:.0f} MB at the end")
    return 1 if clients.lost or clients.wrong or late > early * 1.1 else 0


if __name__ == "__main__":
    sys.exit(main())
