"""Specs as data: where they come from (`sources`), the names they use (`registry`), and what is built from them (`build`)."""

from __future__ import annotations

from .build import backends, identity, load_reranker, shared

__all__ = ["backends", "identity", "load_reranker", "shared"]
