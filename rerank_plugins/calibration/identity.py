"""Identity of a scorer: what its scores depend on. A calibration is only valid for scores of the same identity."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from ..core.scorer import Backend

__all__ = ["describe_difference", "identity", "is_incomplete"]

KNOWN_AFTER_LOADING = ("revision", "runtime", "dtype")
"""Keys of an identity that are `None` until a model of the hub is downloaded and loaded."""
SCORE_NEUTRAL_OPTIONS = frozenset(
    {
        "api_key",
        "base_url",
        "batch_tokens",
        "cache_mb",
        "client",
        "device",
        "dtype",
        "headers",
        "local_files_only",
        "max_in_flight",
        "price",
        "revision",
        "runtime",
        "timeout",
        "token_url",
        "trust_remote_code",
    }
)
"""Options that do not change a score, or that the identity holds already as `revision`, `runtime` and `dtype`."""


def identity(backend: Backend, options: Mapping[str, Any], long_documents: Any) -> dict[str, Any]:
    """Return everything besides the texts that a score of `backend` depends on, as plain data.

    Args:
        backend: The backend that scores.
        options: Its options in the spec. `SCORE_NEUTRAL_OPTIONS` are left out.
        long_documents: The spec's `long_documents`. Chunking and truncation give different scores.

    Returns:
        `backend`, `model` (for a local folder only its name, so that the identity is the same on other machines),
        `revision` (a digest of the weights if they are on this machine), `runtime`, `dtype` and `recipe` (everything
        else). `base_url` is not part of it: the user must know whether two addresses serve the same model.
    """
    capabilities = backend.capabilities
    is_path = backend.model.startswith((".", "/", "~")) or "\\" in backend.model or backend.model.count("/") > 1
    model_id = backend.model_id
    recipe = {
        "scale": capabilities.scale,
        "offset": capabilities.offset,
        "divisor": capabilities.divisor,
        "long_documents": long_documents,
        "options": {key: value for key, value in options.items() if key not in SCORE_NEUTRAL_OPTIONS},
    }
    return {
        "backend": backend.name,
        "model": backend.model.replace("\\", "/").rstrip("/").rpartition("/")[2] if is_path else backend.model,
        "revision": backend.revision,
        "runtime": model_id.runtime,
        "dtype": model_id.dtype,
        "recipe": json.loads(json.dumps(recipe, default=str)),
    }


def describe_difference(fitted: Mapping[str, Any], current: Mapping[str, Any]) -> str | None:
    """Return a phrase for the first difference between two identities; `None` if there is none.

    A value that is unknown until the model is loaded counts as equal; see `is_incomplete`.

    Args:
        fitted: The identity of the scores that a curve was fitted to.
        current: The identity of the scorer that will use the curve.
    """
    for key in fitted:
        expected, actual = fitted[key], current.get(key)
        unknown = key in KNOWN_AFTER_LOADING and None in (expected, actual)
        if expected != actual and not unknown:
            return f"its {key} is {_format(expected)}, and here it is {_format(actual)}"
    return None


def is_incomplete(fitted: Mapping[str, Any], current: Mapping[str, Any]) -> bool:
    """Return whether `current` lacks a value until the model is loaded. A cache can answer before that."""
    return any(fitted.get(key) is not None and current.get(key) is None for key in KNOWN_AFTER_LOADING)


def _format(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value)
