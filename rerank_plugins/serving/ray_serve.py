"""The server's application as a Ray Serve deployment.

    serve run rerank_plugins.serving.ray_serve:app reranker=embedded replicas=2

Arguments are `name=value`; in a config file for `serve deploy`, the same names under `args`.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from typing import Any

from ..core.errors import ConfigError, MissingExtra, clause
from .limits import Limits
from .server import Served

try:
    from ray import serve
except ModuleNotFoundError as error:
    raise MissingExtra("rerank_plugins.serving.ray_serve", extra="ray", package="ray") from error

__all__ = ["app"]

_LIMITS = {
    "max_documents": int,
    "max_body_mb": float,
    "max_queue": int,
    "body_timeout": float,
    "request_timeout": float,
    "max_in_flight_mb": float,
}


def app(args: Mapping[str, Any]) -> Any:
    """Return the Ray Serve application of a reranker.

    Args:
        args: `reranker` (a spec, a mapping or its JSON; without it as `load_reranker()`), `replicas` (1), `num_cpus` of
            each (1), `api_key` (`env:NAME`, read where a replica runs), `model` (one more name that callers may send),
            `config`, and the server's limits: `max_documents`, `max_body_mb`, `max_queue`, `body_timeout`,
            `request_timeout`, `max_in_flight_mb`.

    Raises:
        ConfigError: An argument that there is not, or that cannot be read.
    """
    known = {"reranker", "replicas", "num_cpus", "api_key", "model", "config", *_LIMITS}
    if unknown := sorted(set(args) - known):
        raise ConfigError(f"There is no argument {unknown[0]!r}. Choose from: {', '.join(sorted(known))}.")
    spec = args.get("reranker")
    try:
        if isinstance(spec, str) and spec.lstrip().startswith("{"):
            spec = json.loads(spec)
        limits = Limits(**{name: kind(args[name]) for name, kind in _LIMITS.items() if name in args})
        replicas, num_cpus = int(args.get("replicas", 1)), float(args.get("num_cpus", 1))
    except ConfigError:
        raise
    except (ValueError, TypeError, OverflowError, RecursionError) as error:  # `inf` replicas, say
        raise ConfigError(f"An argument cannot be read: {clause(error)}. See `app`'s description.") from error
    if replicas < 1 or not 0 <= num_cpus < math.inf:
        raise ConfigError("replicas must be at least 1 and num_cpus a finite number of at least 0.")
    models = (args["model"],) if "model" in args else ()
    served = Served(spec, args.get("config"), args.get("api_key"), models, limits)

    def build() -> Any:  # runs where the replica runs
        return served()

    deployment = serve.deployment(
        name="rerank",
        num_replicas=replicas,
        ray_actor_options={"num_cpus": num_cpus},
        # Ray's own queue is the wider one: the application answers 429 with Retry-After, which clients understand.
        max_ongoing_requests=limits.max_queue + 16,
        graceful_shutdown_timeout_s=30,
    )(serve.ingress(build)())
    return deployment.bind()
