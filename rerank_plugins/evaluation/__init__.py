"""Which reranker, and is it worth it? Several over one data set: quality, latency, cost, and the answer in words."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .bm25 import BM25
    from .chance import interval, p_value
    from .collection import Collection
    from .comparing import Comparison, compare
    from .data import Candidate, Dataset, Question
    from .metrics import Metrics
    from .reading import read
    from .retrieving import from_retriever

_HOMES = {
    "BM25": "bm25",
    "Candidate": "data",
    "Collection": "collection",
    "Comparison": "comparing",
    "Dataset": "data",
    "Metrics": "metrics",
    "Question": "data",
    "compare": "comparing",
    "from_retriever": "retrieving",
    "interval": "chance",
    "p_value": "chance",
    "read": "reading",
}
__all__ = [
    "BM25",
    "Candidate",
    "Collection",
    "Comparison",
    "Dataset",
    "Metrics",
    "Question",
    "compare",
    "from_retriever",
    "interval",
    "p_value",
    "read",
]


def __getattr__(name: str) -> Any:
    """Import a public name when it is first asked for."""
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from importlib import import_module

    value = getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)
    globals()[name] = value
    return value
