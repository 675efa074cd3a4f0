"""The rerank server as a Ray Serve deployment.

    serve run rerank_plugins.serving.ray_serve:app reranker=embedded replicas=2

Arguments have the form `name=value`. In a config file for `serve deploy`, the same names stand under `args`.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from ..config.sources import parse_json_spec
from ..core.errors import ConfigError, MissingExtra, clause
from .limits import Limits
from .server import ApplicationFactory

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

    ```python
    from ray import serve
    from rerank_plugins.serving.ray_serve import app

    application = app({"reranker": "embedded", "replicas": "2"})
    serve.run(application)
    ```

    Args:
        args: All are optional, and may be strings:

            - `reranker`: a spec, as a string, a mapping or JSON; without it, `load_reranker()` is served.
            - `config`: the path of the configuration file in which `reranker` is looked up.
            - `replicas`: the number of replicas, 1 by default.
            - `num_cpus`: the CPUs that Ray reserves for each replica, 1 by default.
            - `api_key`: the key that clients must send; `env:NAME` and `file:PATH` are read where a replica
              runs.
            - `model`: one more name that clients may send as `model`.
            - `max_documents`, `max_body_mb`, `max_queue`, `body_timeout`, `request_timeout`, `max_in_flight_mb`: the
              limits of `rerank-plugins serve`.

    Raises:
        ConfigError: An argument is unknown or has an invalid value.
    """
    known = {"reranker", "replicas", "num_cpus", "api_key", "model", "config", *_LIMITS}
    if unknown := sorted(set(args) - known):
        raise ConfigError(f"There is no argument {unknown[0]!r}. Choose from: {', '.join(sorted(known))}.")
    spec = args.get("reranker")
    try:
        if isinstance(spec, str):
            spec = parse_json_spec(spec, "reranker")
        limits = Limits(**{name: kind(args[name]) for name, kind in _LIMITS.items() if name in args})
        replicas, num_cpus = int(args.get("replicas", 1)), float(args.get("num_cpus", 1))
    except ConfigError:
        raise
    except (ValueError, TypeError, OverflowError, RecursionError) as error:  # `inf` replicas, say
        raise ConfigError(f"An argument has an invalid value: {clause(error)}. See `help(app)`.") from error
    if replicas < 1 or not 0 <= num_cpus < math.inf:
        raise ConfigError("replicas must be at least 1 and num_cpus a finite number of at least 0.")
    models = (args["model"],) if "model" in args else ()
    factory = ApplicationFactory(spec, args.get("config"), args.get("api_key"), models, limits)

    def build() -> Any:  # runs where the replica runs
        return factory()

    deployment = serve.deployment(
        name="rerank",
        num_replicas=replicas,
        ray_actor_options={"num_cpus": num_cpus},
        # Ray's queue is wider than the application's, which answers 429 with Retry-After, as clients understand.
        max_ongoing_requests=limits.max_queue + 16,
        graceful_shutdown_timeout_s=30,
    )(serve.ingress(build)())
    return deployment.bind()
