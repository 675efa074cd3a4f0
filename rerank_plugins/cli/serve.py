"""`rerank-plugins serve`: serve a reranker over HTTP, with the request formats of Cohere and TEI."""

from __future__ import annotations

import argparse
import logging
import sys
import time
from typing import TYPE_CHECKING, Any

from ..core.errors import ConfigError
from .command import NAME, Command, add_spec_argument, load_named_reranker, parse_spec
from .terminal import progress, say

if TYPE_CHECKING:
    from ..reranker import Reranker
    from ..serving.readiness import StartReport

__all__ = ["COMMAND"]


def _add_options(parser: argparse.ArgumentParser) -> None:
    add_spec_argument(parser)
    parser.add_argument(
        "--host",
        default="127.0.0.1",
        metavar="HOST",
        help="address to listen on; default: 127.0.0.1, this machine only",
    )
    parser.add_argument(
        "--port", default=8000, type=int, metavar="PORT", help="port to listen on, 0 for a free one; default: 8000"
    )
    parser.add_argument(
        "--workers", default=1, type=int, metavar="N", help="processes, each with its own copy of the model; default: 1"
    )
    parser.add_argument(
        "--api-key",
        metavar="env:NAME",
        help="environment variable with the key that clients must send, or its file as file:PATH; default: no key",
    )
    parser.add_argument(
        "--model",
        action="append",
        default=[],
        metavar="NAME",
        help="another name that clients may send as `model`; repeatable",
    )
    parser.add_argument("--max-documents", type=int, metavar="N", help="documents in one request; default: 1,000")
    parser.add_argument("--max-body-mb", type=float, metavar="MB", help="size of one request body; default: 8")
    parser.add_argument(
        "--max-queue", type=int, metavar="N", help="requests at the same time, more get status 429; default: 128"
    )
    parser.add_argument(
        "--body-timeout", type=float, metavar="S", help="seconds for a request body to arrive; default: 10"
    )
    parser.add_argument(
        "--request-timeout", type=float, metavar="S", help="seconds for a whole request, then status 504; default: 300"
    )
    parser.add_argument(
        "--max-in-flight-mb",
        type=float,
        metavar="MB",
        help="request and response bodies in memory, more get status 429; default: 64",
    )

    parser.add_argument(
        "--check",
        action="store_true",
        help="send one small request to each backend at the start, and exit with 1 if a key, a model, an address or a "
        "scale is wrong",
    )
    parser.add_argument(
        "--check-every",
        type=float,
        metavar="S",
        help="repeat the check for /readyz, at most every S seconds; default: never, since the vendor bills it",
    )


_LIMITS = ("max_documents", "max_body_mb", "max_queue", "body_timeout", "request_timeout", "max_in_flight_mb")


def _run(arguments: argparse.Namespace) -> int:
    from ..serving.limits import Limits
    from ..serving.server import ApplicationFactory, run

    options = {name: getattr(arguments, name) for name in _LIMITS}
    if arguments.api_key is not None and not arguments.api_key.startswith(("env:", "file:")):
        raise ConfigError(
            "--api-key must name an environment variable, as env:NAME, or a file, as file:PATH: all users of a machine "
            "can see a key on the command line."
        )
    if arguments.workers < 1:
        raise ConfigError(f"--workers must be at least 1, got {arguments.workers}.")
    if not 0 <= arguments.port <= 65_535:  # checked before a model is loaded
        raise ConfigError(f"--port must be from 0 to 65535, got {arguments.port}.")
    limits = Limits(**{name: value for name, value in options.items() if value is not None})
    logging.getLogger("uvicorn.error").setLevel(logging.WARNING)

    if arguments.api_key is None and arguments.host not in ("127.0.0.1", "::1", "localhost"):
        say(f"{NAME}: without --api-key, everyone who can reach {arguments.host} is served", file=sys.stderr)

    def serve(reranker: str | dict[str, Any] | Reranker | None, report: StartReport | None) -> None:
        served = ApplicationFactory(
            reranker, arguments.config, arguments.api_key, models, limits, arguments.check_every, report
        )
        served()  # an error in the spec or the key is raised here, once, and not in each worker
        run(served, host=arguments.host, port=arguments.port, workers=arguments.workers, on_listening=_print_address)

    spec = None if arguments.reranker is None else parse_spec(arguments.reranker)
    # Clients may use the operator's name for the reranker; a loaded reranker has no name of its table in the file.
    models = (*([spec] if isinstance(spec, str) else []), *arguments.model)
    if arguments.workers > 1:
        report = None
        if arguments.check:  # once here, and not in each worker
            with load_named_reranker(arguments, {}) as reranker, progress(f"checking {reranker.scorer.label}"):
                report = _check(reranker)
        serve(spec, report)
        return 0
    with load_named_reranker(arguments, {}) as reranker:
        with progress(f"loading {reranker.scorer.label}"):
            reranker.warmup()
            report = _check(reranker) if arguments.check else None
        serve(reranker, report)
    return 0


def _check(reranker: Reranker) -> StartReport:
    from ..serving.readiness import StartReport

    started = time.monotonic()
    return StartReport(reranker.check(raise_on_error=True), started)


def _print_address(address: str) -> None:
    say(f"{NAME}: serving at {address} (documentation: {address}/docs); Ctrl-C stops it", file=sys.stderr)


COMMAND = Command(
    "serve",
    "serve a reranker over HTTP, with the request formats of Cohere and TEI",
    _run,
    _add_options,
    """examples:
  rerank-plugins serve
  rerank-plugins serve production --config rerank.toml --host 0.0.0.0 --api-key env:SERVE_KEY
  curl -s localhost:8000/v2/rerank -H 'content-type: application/json' -d '{"query": "q", "documents": ["a", "b"]}'""",
    "Paths: POST /v2/rerank, /v1/rerank, /rerank (also TEI's format); GET /healthz, /health, /readyz,\n"
    "/info, /v1/models, /metrics, /openapi.json, /docs.",
)
