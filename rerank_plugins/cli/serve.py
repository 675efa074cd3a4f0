"""`rerank-plugins serve`: a reranker behind HTTP, in Cohere's shape and TEI's."""

from __future__ import annotations

import argparse
import logging
import sys
from typing import TYPE_CHECKING, Any

from ..core.errors import ConfigError
from .command import NAME, Command, named, spec_argument, spec_from
from .terminal import progress, say

if TYPE_CHECKING:
    from ..reranker import Reranker

__all__ = ["COMMAND"]


def _options(parser: argparse.ArgumentParser) -> None:
    spec_argument(parser)
    parser.add_argument("--host", default="127.0.0.1", metavar="HOST", help="where to listen; default: this machine")
    parser.add_argument("--port", default=8000, type=int, metavar="PORT", help="default: 8000; 0 takes a free one")
    parser.add_argument(
        "--workers", default=1, type=int, metavar="N", help="processes, each with the model; default: 1"
    )
    parser.add_argument("--api-key", metavar="env:NAME", help="the variable of the key that callers have to send")
    parser.add_argument(
        "--model", action="append", default=[], metavar="NAME", help="one more name that callers may send as `model`"
    )
    parser.add_argument("--max-documents", type=int, metavar="N", help="in one request; default: 1,000")
    parser.add_argument("--max-body-mb", type=float, metavar="MB", help="of one request; default: 8")
    parser.add_argument("--max-queue", type=int, metavar="N", help="calls inside at once, then 429; default: 128")
    parser.add_argument("--body-timeout", type=float, metavar="S", help="seconds for a request to arrive; default: 10")
    parser.add_argument(
        "--request-timeout", type=float, metavar="S", help="seconds for a whole request, then 504; default: 300"
    )
    parser.add_argument(
        "--max-in-flight-mb", type=float, metavar="MB", help="bodies and answers held at once, then 429; default: 64"
    )


_LIMITS = ("max_documents", "max_body_mb", "max_queue", "body_timeout", "request_timeout", "max_in_flight_mb")


def _run(arguments: argparse.Namespace) -> int:
    from ..serving.limits import Limits
    from ..serving.server import Served, run

    options = {name: getattr(arguments, name) for name in _LIMITS}
    if arguments.api_key is not None and not arguments.api_key.startswith("env:"):
        raise ConfigError("--api-key names a variable, as env:NAME: a key on the command line is seen by everybody.")
    if arguments.workers < 1:
        raise ConfigError(f"--workers has to be at least 1, and {arguments.workers} is not.")
    if not 0 <= arguments.port <= 65_535:  # before a model is loaded for nothing
        raise ConfigError(f"--port must be from 0 to 65535, got {arguments.port}.")
    limits = Limits(**{name: value for name, value in options.items() if value is not None})
    logging.getLogger("uvicorn.error").setLevel(logging.WARNING)

    if arguments.api_key is None and arguments.host not in ("127.0.0.1", "::1", "localhost"):
        say(f"{NAME}: whoever reaches {arguments.host} is served: there is no --api-key", file=sys.stderr)

    def serve(reranker: str | dict[str, Any] | Reranker | None) -> None:
        served = Served(reranker, arguments.config, arguments.api_key, models, limits)
        served()  # what is wrong with the spec or the key is said here, once, rather than by a worker
        run(served, host=arguments.host, port=arguments.port, workers=arguments.workers, told=_told)

    spec = None if arguments.reranker is None else spec_from(arguments.reranker)
    # What the operator calls it, clients may call it too: a ready reranker does not know the name of its profile.
    models = (*([spec] if isinstance(spec, str) else []), *arguments.model)
    if arguments.workers > 1:
        serve(spec)
        return 0
    with named(arguments, {}) as reranker:
        with progress(f"loading {reranker.scorer.label}"):
            reranker.warmup()
        serve(reranker)
    return 0


def _told(address: str) -> None:
    say(f"{NAME}: serving at {address} (its page: {address}/docs); Ctrl-C ends it", file=sys.stderr)


COMMAND = Command(
    "serve",
    "answer rerank calls over HTTP, in Cohere's shape and TEI's",
    _run,
    _options,
    """examples:
  rerank-plugins serve
  rerank-plugins serve production --config rerank.toml --host 0.0.0.0 --api-key env:SERVE_KEY
  curl -s localhost:8000/v2/rerank -H 'content-type: application/json' -d '{"query": "q", "documents": ["a", "b"]}'""",
    "Paths: POST /v2/rerank, /v1/rerank, /rerank (also TEI's shape); GET /healthz, /health, /info,\n"
    "/v1/models, /metrics, /openapi.json, /docs.",
)
