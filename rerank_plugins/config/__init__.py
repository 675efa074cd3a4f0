"""Turns specs into rerankers.

`sources` reads specs from strings, mappings, TOML files and the environment. `registry` maps backend names to classes.
`schema` parses a spec into typed settings, and `build` makes a reranker of them. `load` puts these steps together.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from .load import load_reranker, shared

if TYPE_CHECKING:
    from .build import backends, build_around, identity

__all__ = ["backends", "build_around", "identity", "load_reranker", "shared"]


def __getattr__(name: str) -> Any:
    """Import `build` at the first access to one of its names."""
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from . import build

    return getattr(build, name)
