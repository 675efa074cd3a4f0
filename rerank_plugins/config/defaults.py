"""The settings of a spec that only names a backend, such as `"embedded"`: no option is there to be checked.

Such a spec is built without `schema` and the models of all options. They need pydantic, whose import takes longer than
all other steps of building a reranker.
"""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from typing import Any, NamedTuple

from ..core.scorer import Backend, Scorer
from ..policies.stack import Stack
from ..policies.truncate import with_truncation
from .registry import backend_class

__all__ = ["BackendSpec", "DefaultOptions", "default_options"]


class BackendSpec(NamedTuple):
    """The class and the arguments of one backend that is not constructed yet."""

    name: str
    kind: type[Backend]
    arguments: Mapping[str, Any]
    """Keyword arguments of its constructor."""
    settings: Mapping[str, Any]
    """The plain spec that names the backend."""


class _Truncation:
    """The default of `long_documents`."""

    mode = "truncate"

    def wrap(self, scorer: Scorer, stack: Stack) -> Scorer:
        """Return `scorer` inside truncation, or `scorer` itself if it has no limit."""
        return with_truncation(scorer, stack)


class DefaultOptions(NamedTuple):
    """What `build` reads of a `RerankerOptions` in which only `use` is set. The defaults are the same."""

    use: str
    backend: BackendSpec
    table: str = ""
    top_n: None = None
    instruction: None = None
    score_threshold: None = None
    fields: None = None
    deadline: None = None
    fallback: None = None
    on_error: str = "raise"
    retry: None = None
    limit: None = None
    breaker: None = None
    cache: None = None
    long_documents: _Truncation = _Truncation()
    calibration: None = None
    cascade: None = None
    fuse: None = None
    diversify: None = None
    model_fields_set: frozenset[str] = frozenset({"use"})


def default_options(settings: Mapping[str, Any]) -> DefaultOptions | None:
    """Return the options of a spec that only names a backend; `None` if there is something for `schema` to check.

    Args:
        settings: See `schema.parse_spec`.

    Raises:
        ConfigError: There is no such backend.
        MissingExtra: The backend needs a package that is not installed.
    """
    use = settings.get("use")
    if settings.keys() != {"use"} or not isinstance(use, str) or not use:
        return None
    name, _, model = use.partition(":")
    kind = backend_class(name)
    if not isinstance(kind.Options, str) or (model and "model" not in inspect.signature(kind).parameters):
        return None
    return DefaultOptions(use, BackendSpec(name, kind, {"model": model} if model else {}, settings))
