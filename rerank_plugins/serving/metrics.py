"""Prometheus metrics of the server. Labels are models and outcomes, never text or keys."""

from __future__ import annotations

import contextlib
import os
from pathlib import Path

from ..core.errors import MissingExtra
from ..reranker import RerankResponse
from .public_names import public_label

try:
    from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest
    from prometheus_client.multiprocess import MultiProcessCollector, mark_process_dead
except ModuleNotFoundError as error:
    raise MissingExtra("The server", extra="serve", package="prometheus-client") from error

__all__ = ["Metrics"]

_SECONDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0)


class Metrics:
    """The counters of one application, in a registry of its own."""

    def __init__(self) -> None:
        """Create the counters."""
        folder = os.environ.get("PROMETHEUS_MULTIPROC_DIR")
        self._workers = None if folder is None else Path(folder)
        if self._workers is not None:
            (self._workers / f"worker-{os.getpid()}").touch()
        self.registry = own = CollectorRegistry()
        self.requests = Counter("rerank_requests", "Requests by status", ["status"], registry=own)
        self.seconds = Histogram("rerank_seconds", "Seconds of a rerank call", registry=own, buckets=_SECONDS)
        self.inside = Gauge("rerank_inside", "Calls inside now", registry=own, multiprocess_mode="livesum")
        self.documents = Counter("rerank_documents", "Documents that were reranked", registry=own)
        self.degraded = Counter("rerank_degraded", "Answers of a fallback", registry=own)
        self.attempts = Counter("rerank_attempts", "Attempts by model and outcome", ["model", "outcome"], registry=own)
        self.tokens = Counter("rerank_input_tokens", "Tokens, where the backend counts them", registry=own)
        self.output = Counter("rerank_output_tokens", "Generated tokens, where the backend counts them", registry=own)
        self.cached = Counter(
            "rerank_cached_tokens", "Input tokens from the vendor's prompt cache, where it counts them", registry=own
        )
        self.units = Counter("rerank_search_units", "Search units, where the backend counts them", registry=own)
        self.cost = Counter("rerank_cost_usd", "US dollars, where the spec has a price", registry=own)

    def answered(self, response: RerankResponse, documents: int) -> None:
        """Count an answer over so many documents."""
        self.seconds.observe(response.latency_ms / 1000.0)
        self.documents.inc(documents)
        self.degraded.inc(response.degraded)
        for attempt in response.attempts:
            self.attempts.labels(public_label(attempt.model), attempt.outcome).inc()
        self.tokens.inc(response.usage.input_tokens or 0)
        self.output.inc(response.usage.output_tokens or 0)
        self.cached.inc(response.usage.cached_tokens or 0)
        self.units.inc(response.usage.search_units or 0)
        self.cost.inc(response.usage.cost_usd or 0)

    def text(self) -> bytes:
        """Return the metrics in Prometheus's text format; of several worker processes, their sum."""
        if self._workers is None:
            return generate_latest(self.registry)
        if (
            os.name == "posix"
        ):  # elsewhere workers cannot share a port, and `os.kill` ends a process whatever the signal
            _remove_dead_workers(self._workers)
        registry = CollectorRegistry()
        MultiProcessCollector(registry, str(self._workers))  # type: ignore[no-untyped-call]
        return generate_latest(registry)


def _remove_dead_workers(workers: Path) -> None:
    """Remove the running calls of killed worker processes from the gauge; their counters stay."""
    for mark in workers.glob("worker-*"):
        process = int(mark.name.removeprefix("worker-"))
        try:
            os.kill(process, 0)  # sends nothing
        except ProcessLookupError:
            with contextlib.suppress(FileNotFoundError):  # another worker does the same at this moment
                mark_process_dead(process, str(workers))  # type: ignore[no-untyped-call]
            mark.unlink(missing_ok=True)
        except PermissionError:
            continue  # it runs
