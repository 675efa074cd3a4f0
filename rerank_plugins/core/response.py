"""The answer to one call: a sequence of results, and what it took to get them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, overload

from .types import Attempt, Scale, Span, Usage

__all__ = ["RerankResponse", "RerankResult"]


@dataclass(frozen=True, slots=True, kw_only=True)
class RerankResult:
    """One document of the answer."""

    index: int
    """Its position in the input."""
    document: Any = field(repr=False)
    """The very object that was passed in."""
    relevance_score: float | None
    """In [0, 1], by the backend's declared scale; `None` for a blank document and where nothing was scored."""
    raw_score: float | None
    """What the model said; orders the answer."""
    truncated: bool = False
    """The model did not read it to its end."""
    spans: tuple[Span, ...] = ()
    """Its best passages, where the backend tells."""
    reason: str | None = None
    """Why it has no score, or which fields of a mapping were not read."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RerankResponse(Sequence[RerankResult]):
    """The answer: a sequence of results, best first."""

    results: tuple[RerankResult, ...]
    model: str
    """The spec of whoever answered, with runtime and dtype for a local model."""
    scale: Scale
    """What `raw_score` means; see `Capabilities`."""
    usage: Usage = field(default_factory=Usage)
    degraded: bool = False
    """A stand-in answered, or nobody did and this is the order given."""
    reason: str | None = None
    """Why it is degraded, or what is wrong with its scores where it is not."""
    attempts: tuple[Attempt, ...] = ()
    """What was tried, in the order in which it ended."""
    latency_ms: float = 0.0

    def __len__(self) -> int:
        """Return the number of results."""
        return len(self.results)

    @overload
    def __getitem__(self, index: int) -> RerankResult: ...
    @overload
    def __getitem__(self, index: slice) -> tuple[RerankResult, ...]: ...
    def __getitem__(self, index: int | slice) -> RerankResult | tuple[RerankResult, ...]:
        """Return a result, or a tuple of them."""
        return self.results[index]

    def __iter__(self) -> Iterator[RerankResult]:
        """Iterate over the results, best first."""
        return iter(self.results)
