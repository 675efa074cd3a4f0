"""Specs as data.

`sources` reads them, `registry` has the names they use, `schema` makes typed settings of them, `build` makes rerankers of
those, and `load` does all of it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from .load import load_reranker, shared

if TYPE_CHECKING:
    from .build import backends, identity

__all__ = ["backends", "identity", "load_reranker", "shared"]


def __getattr__(name: str) -> Any:
    """Import what needs pydantic when it is first asked for."""
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from . import build

    return getattr(build, name)
