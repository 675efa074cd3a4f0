"""`rerank-plugins check`: one line that says whether a reranker works."""

from __future__ import annotations

import argparse
import time
from typing import TYPE_CHECKING

from ..core.errors import RerankError
from .command import FAILED, WRONG_USE, Command, named, spec_argument
from .terminal import progress, say

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
WRONG = "did NOT put the right document first"


def _options(parser: argparse.ArgumentParser) -> None:
    spec_argument(parser)
    parser.add_argument(
        "--golden",
        metavar="FAMILY",
        nargs="?",
        const="",
        help="ask questions with one obvious answer, and say whether a template is missing, doubled or upside down; "
        "FAMILY (qwen3, mxbai, zerank, bge) where the model's name does not tell it",
    )


def _run(arguments: argparse.Namespace) -> int:
    if arguments.golden is not None:
        return _golden(arguments)
    if arguments.config is not None and arguments.reranker is None:
        return _tables(arguments.config)
    with named(arguments, {"top_n": None, "score_threshold": None}) as reranker:
        started = time.perf_counter()
        with progress(f"loading {reranker.scorer.label}"):
            reranker.warmup()
        loaded = time.perf_counter() - started
        response = reranker.rerank(CHECK_QUERY, CHECK_DOCUMENTS)
    right = _order(response)
    reason = response.reason  # scores outside of the declared scale, say
    doubtful = right == WRONG or reason is not None
    verdict = "degraded" if response.degraded else "warning" if doubtful else "ok"
    say(
        f"{verdict}: {response.model} {right}; "
        f"loaded in {loaded:.1f} s, 3 documents in {response.latency_ms:.0f} ms{_usage(response)}"
    )
    if reason is not None:
        say(reason)
    if right == WRONG and not response.degraded:
        say(
            "The question is an easy one: the model may not be trained to rerank, or is asked in a wrong way. "
            "Try `rerank-plugins check --golden`, or `rerank-plugins compare` on your own data."
        )
    return 0 if verdict == "ok" else FAILED


def _tables(config: str) -> int:
    """Parse and build every reranker of a configuration file; no model is loaded, and nothing is sent."""
    from ..config import load_reranker
    from ..config.schema import check_tables
    from ..config.sources import profiles

    broken = False
    for name, settings in profiles(config).items():
        try:
            with load_reranker(name, config=config) as reranker:
                check_tables(settings)
            say(f"ok: {name}: {reranker.scorer.label}")
        except RerankError as error:
            broken = True
            say(f"broken: {name}: {' '.join(str(error).split())}")
    return WRONG_USE if broken else 0


def _golden(arguments: argparse.Namespace) -> int:
    from ..config import backends
    from ..config.registry import models
    from .golden import judged, template_of

    # A cache would tell what the server said before it was mended, and counts no tokens.
    with named(arguments, {"top_n": None, "score_threshold": None, "instruction": None, "cache": None}) as reranker:
        backend = backends(reranker)[0]
        template = template_of(arguments.golden, backend.model_id, iter(models()))
        with progress(f"asking {backend.label}"):
            reranker.warmup()
            verdict = judged(reranker, template, server=backend.remote)
    say(f"{'ok' if verdict.fine else 'WRONG'}: {backend.label}: {verdict.words}")
    return 0 if verdict.fine else FAILED


def _order(response: RerankResponse) -> str:
    if all(result.raw_score is None for result in response):
        return "keeps the order given"
    return "put the right document first" if response[0].index == CHECK_BEST else WRONG


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
    _options,
    """examples:
  rerank-plugins check
  rerank-plugins check voyage:rerank-2.5
  rerank-plugins check production --config rerank.toml
  rerank-plugins check --config rerank.toml             # every table of the file; loads and sends nothing
  rerank-plugins check '{"use": "vllm:my-reranker", "base_url": "http://127.0.0.1:8000"}' --golden qwen3""",
    "With --config and no SPEC, every reranker of the file is parsed and built, without loading a model or sending anything;\n"
    "the exit code is 2 where one of them is broken.\n"
    "The exit code is 1 when it fails, when a stand-in answers, when the right document is not first, and when --golden finds\n"
    "something wrong.",
)
