"""`rerank-plugins check`: one line that says whether a reranker works."""

from __future__ import annotations

import argparse
import time
from typing import TYPE_CHECKING

from .command import FAILED, Command, named, spec_argument
from .terminal import progress

if TYPE_CHECKING:
    from ..reranker import RerankResponse

__all__ = ["COMMAND"]

CHECK_QUERY = "How does a reranker order search results?"
CHECK_DOCUMENTS = (
    "Bananas are yellow and rich in potassium.",
    "A reranker reads the query together with each of the search results and orders them, the best first.",
    "Bread rises because yeast makes gas in the dough.",
)
CHECK_BEST = 1


def _run(arguments: argparse.Namespace) -> int:
    with named(arguments, {"top_n": None, "score_threshold": None}) as reranker:
        started = time.perf_counter()
        with progress(f"loading {reranker.scorer.label}"):
            reranker.warmup()
        loaded = time.perf_counter() - started
        response = reranker.rerank(CHECK_QUERY, CHECK_DOCUMENTS)
    print(
        f"{'degraded' if response.degraded else 'ok'}: {response.model} {_order(response)}; "
        f"loaded in {loaded:.1f} s, 3 documents in {response.latency_ms:.0f} ms{_usage(response)}"
    )
    return FAILED if response.degraded else 0


def _order(response: RerankResponse) -> str:
    if all(result.raw_score is None for result in response):
        return "keeps the order given"
    return "put the right document first" if response[0].index == CHECK_BEST else "did NOT put the right document first"


def _usage(response: RerankResponse) -> str:
    usage = response.usage
    told = {
        "requests": usage.requests or None,
        "tokens": usage.input_tokens,
        "search units": usage.search_units,
        "USD": usage.cost_usd,
    }
    return "".join(f", {name}: {value:g}" for name, value in told.items() if value is not None)


COMMAND = Command(
    "check",
    "load a reranker, rerank three documents, and say how it went",
    _run,
    spec_argument,
    """examples:
  rerank-plugins check
  rerank-plugins check voyage:rerank-2.5
  rerank-plugins check production --config rerank.toml""",
    "The exit code is 1 when it fails, and when a stand-in answers.",
)
