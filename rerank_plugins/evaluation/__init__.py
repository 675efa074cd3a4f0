"""Compare rerankers over your own data: quality, latency, cost, and advice in words."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .baseline import compare_to_baseline, read_baseline
    from .bm25 import BM25
    from .collection import Collection
    from .comparison import Comparison, compare
    from .data import Candidate, Dataset, Question
    from .loaders import read
    from .metrics import Metrics
    from .ray_pool import RayPool
    from .retriever_data import from_retriever
    from .significance import interval, p_value

_MODULES = {
    "BM25": "bm25",
    "Candidate": "data",
    "Collection": "collection",
    "Comparison": "comparison",
    "Dataset": "data",
    "Metrics": "metrics",
    "Question": "data",
    "RayPool": "ray_pool",
    "compare": "comparison",
    "compare_to_baseline": "baseline",
    "from_retriever": "retriever_data",
    "interval": "significance",
    "p_value": "significance",
    "read": "loaders",
    "read_baseline": "baseline",
}
__all__ = [
    "BM25",
    "Candidate",
    "Collection",
    "Comparison",
    "Dataset",
    "Metrics",
    "Question",
    "RayPool",
    "compare",
    "compare_to_baseline",
    "from_retriever",
    "interval",
    "p_value",
    "read",
    "read_baseline",
]


def __getattr__(name: str) -> Any:
    """Import a public name at its first use."""
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from importlib import import_module

    value = getattr(import_module(f"{__name__}.{_MODULES[name]}"), name)
    globals()[name] = value
    return value
