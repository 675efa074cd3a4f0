"""Build a backend without a spec; its options are checked as in a spec."""

from __future__ import annotations

from typing import Any

from rerank_plugins.options import parse


def build(kind: Any, model: str | None = None, **options: Any) -> Any:
    """Return a backend of the class `kind`."""
    return kind(model, parse(kind.Options, options))
