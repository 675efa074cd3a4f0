"""Whose scores a calibration is for."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from ..core.scorer import Backend

__all__ = ["difference", "identity", "pending"]

KNOWN_LATER = ("revision", "runtime", "dtype")
"""What a model on a hub tells only when it has been fetched and loaded."""
NO_MATTER = frozenset(
    {"api_key", "base_url", "batch_tokens", "cache_mb", "client", "device", "dtype", "headers", "local_files_only"}
    | {"max_in_flight", "price", "revision", "runtime", "timeout", "trust_remote_code"}
)
"""Options that no score depends on, or that `revision`, `runtime` and `dtype` tell in full."""


def identity(backend: Backend, options: Mapping[str, Any], long_documents: Any) -> dict[str, Any]:
    """Return what a score of `backend` depends on beside the texts, as plain data.

    Args:
        backend: Who scores.
        options: Its options in the spec; keys, addresses and what concerns speed alone are left out.
        long_documents: The spec's; pieces that are joined have other scores than a document that is cut.

    Returns:
        `backend`, `model` (of a folder its last part, so that the file serves on other machines), `revision` (a digest of
        the weights, where they are on this machine), `runtime`, `dtype` and `recipe`. No address: what runs behind a
        `base_url` under the same name is the user's to know.
    """
    limits = backend.capabilities
    path = backend.model.startswith((".", "/", "~")) or "\\" in backend.model or backend.model.count("/") > 1
    model_id = backend.model_id
    recipe = {
        "scale": limits.scale,
        "offset": limits.offset,
        "divisor": limits.divisor,
        "long_documents": long_documents,
        "options": {key: each for key, each in options.items() if key not in NO_MATTER},
    }
    return {
        "backend": backend.name,
        "model": backend.model.replace("\\", "/").rstrip("/").rpartition("/")[2] if path else backend.model,
        "revision": backend.revision,
        "runtime": model_id.runtime,
        "dtype": model_id.dtype,
        "recipe": json.loads(json.dumps(recipe, default=str)),
    }


def difference(fitted: Mapping[str, Any], found: Mapping[str, Any]) -> str | None:
    """Return what differs between two identities, in words; `None` if nothing does.

    What is not known of one of them is not held against it; see `pending`.

    Args:
        fitted: Of the scores that a curve was fitted to.
        found: Of the reranker that is to use it.
    """
    for key in fitted:
        theirs, mine = fitted[key], found.get(key)
        unknown = key in KNOWN_LATER and None in (theirs, mine)
        if theirs != mine and not unknown:
            return f"its {key} is {_told(theirs)}, and here it is {_told(mine)}"
    return None


def pending(fitted: Mapping[str, Any], found: Mapping[str, Any]) -> bool:
    """Tell whether something is not known yet: a cache can answer before the model is loaded, and its dtype known."""
    return any(fitted.get(key) is not None and found.get(key) is None for key in KNOWN_LATER)


def _told(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value)
