"""`rerank-plugins check`: print one line for each backend of a reranker that says whether it works."""

from __future__ import annotations

import argparse
from copy import copy
from typing import TYPE_CHECKING

from ..core.errors import RerankError
from .command import FAILED, WRONG_USE, Command, add_spec_argument, load_named_reranker
from .terminal import json_text, progress, say

if TYPE_CHECKING:
    from ..core.health import BackendCheck
    from ..core.types import Usage

__all__ = ["COMMAND"]

CHECK_INSTRUCTION = "Relevant are only passages that name a price in dollars. Nothing else is relevant at all."
INSTRUCTION_IGNORED = (
    "; an instruction changes no score, so the server drops it: give it a chat template with a place for one, or leave "
    "the instruction out"
)


def _add_options(parser: argparse.ArgumentParser) -> None:
    add_spec_argument(parser)
    parser.add_argument(
        "--golden",
        metavar="FAMILY",
        nargs="?",
        const="",
        help="ask questions with one obvious answer, to find a prompt template that is missing or applied twice, and "
        "yes and no that are swapped. FAMILY is qwen3, mxbai, zerank, ctxl or bge, if the model's name does not "
        "contain it",
    )


def _run(arguments: argparse.Namespace) -> int:
    if arguments.golden is not None:
        return _check_golden(arguments)
    if arguments.config is not None and arguments.reranker is None:
        return _check_tables(arguments.config)
    with (
        load_named_reranker(arguments, {}) as reranker,
        progress(f"checking {reranker.scorer.label}"),
    ):
        report = reranker.check()
    if len(report.backends) == 1 and (error := report.backends[0].exception) is not None:
        raise error
    for check in report.backends:
        say(f"{_VERDICTS[check.state]}: {check.model} {_describe_check(check)}")
    return 0 if report.ok else FAILED


_VERDICTS = {
    "ok": "ok",
    "failed": "failed",
    "degraded": "degraded",
    "wrong_order": "warning",
    "outside_scale": "warning",
}


def _describe_check(check: BackendCheck) -> str:
    """Return the outcome of one backend, with the reason on a line of its own."""
    reason = "" if check.reason is None else f"\n{' '.join(check.reason.split())}"
    match check.state:
        case "failed":
            return f"raised {check.error}{reason}"
        case "wrong_order":
            outcome = "did NOT put the right document first"
        case _ if check.scale_seen is None:
            outcome, reason = "keeps the order given", ""
        case "ok":
            outcome = "put the right document first"
        case _:
            outcome = "answered"
    server = "" if check.server is None else f"\nthe server says: {json_text(check.server)}"
    timing = f"loaded in {check.load_seconds:.1f} s, 3 documents in {check.seconds * 1000:.0f} ms"
    return f"{outcome}; {timing}{_describe_usage(check.usage)}{server}{reason}"


def _check_tables(config: str) -> int:
    """Parse and build every reranker of a configuration file. No model is loaded, and nothing is sent."""
    from ..config import load_reranker
    from ..config.schema import check_tables
    from ..config.sources import profiles

    is_broken = False
    for name, settings in profiles(config).items():
        try:
            with load_reranker(name, config=config) as reranker:
                check_tables(settings)
            say(f"ok: {name}: {reranker.scorer.label}")
        except RerankError as error:
            is_broken = True
            say(f"broken: {name}: {' '.join(str(error).split())}")
    return WRONG_USE if is_broken else 0


def _check_golden(arguments: argparse.Namespace) -> int:
    from ..config import backends
    from ..config.registry import local_models
    from .golden import check_prompt, find_template, ignores_instruction

    # No cache: it would answer as the server did before it was repaired, and would count no tokens.
    with load_named_reranker(arguments, {"top_n": None, "score_threshold": None, "cache": None}) as configured:
        reranker = copy(configured)
        reranker.instruction = None
        backend = backends(reranker)[0]
        template = find_template(arguments.golden, backend.model_id, iter(local_models()))
        with progress(f"asking {backend.label}"):
            reranker.warmup()
            verdict = check_prompt(reranker, template, server=backend.remote)
            ignored = (
                verdict.is_ok
                and backend.remote
                and backend.capabilities.instructions
                and ignores_instruction(reranker, configured.instruction or CHECK_INSTRUCTION)
            )
    is_ok = verdict.is_ok and not (ignored and configured.instruction)
    message = f"{verdict.message}{INSTRUCTION_IGNORED if ignored else ''}"
    say(f"{'ok' if is_ok else 'WRONG'}: {backend.label}: {message}")
    return 0 if is_ok else FAILED


def _describe_usage(usage: Usage) -> str:
    amounts = {
        "requests": usage.requests or None,
        "tokens": usage.input_tokens,
        "output tokens": usage.output_tokens,
        "cached tokens": usage.cached_tokens,
        "search units": usage.search_units,
        "USD": usage.cost_usd,
    }
    return "".join(f", {name}: {value:g}" for name, value in amounts.items() if value is not None)


COMMAND = Command(
    "check",
    "ask every backend of a reranker a question with a known answer, and print whether it worked",
    _run,
    _add_options,
    """examples:
  rerank-plugins check
  rerank-plugins check voyage:rerank-2.5
  rerank-plugins check production --config rerank.toml
  rerank-plugins check --config rerank.toml             # all rerankers of the file; sends nothing
  rerank-plugins check '{"use": "vllm:my-reranker", "base_url": "http://127.0.0.1:8000"}' --golden qwen3""",
    "With --config and without SPEC, all rerankers of the file are parsed and built; no model is loaded and nothing\n"
    "is sent. The exit code is 2 if one of them is broken.\n"
    "Otherwise each backend is called once, past cache, retry and fallback. The exit code is 1 if one of them fails\n"
    "or answers by a fallback of its own. It is also 1 if one does not put the right document first, sends scores\n"
    "outside its scale, or has a fault that --golden finds.",
)
