"""The answer to one call: results, best first, and what it took to get them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any, Generic, overload

from .plain_data import plain_data
from .types import Attempt, Scale, Span, Usage

if TYPE_CHECKING:
    from typing_extensions import TypeVar  # part of every type checker; not imported when the program runs

    DocumentT = TypeVar("DocumentT", bound=str | Mapping[str, Any], default=Any)
    DocumentT_co = TypeVar("DocumentT_co", covariant=True, default=Any)
else:
    from typing import TypeVar

    DocumentT = TypeVar("DocumentT", bound="str | Mapping[str, Any]")
    DocumentT_co = TypeVar("DocumentT_co", covariant=True)

__all__ = ["DocumentT", "DocumentT_co", "RerankResponse", "RerankResult"]


@dataclass(frozen=True, slots=True, kw_only=True)
class RerankResult(Generic[DocumentT_co]):
    """One document of a response, with its scores.

    Generic in the type of the document: reranking a `list[str]` gives `RerankResult[str]`.

    >>> from rerank_plugins import load_reranker
    >>> result = load_reranker("lexical").rerank("capital of Germany", ["a recipe", "Berlin is the capital"])[0]
    >>> result.index, result.document
    (1, 'Berlin is the capital')
    >>> 0.0 <= result.relevance_score <= 1.0
    True
    """

    index: int
    """Position of the document in the input, from 0."""
    document: DocumentT_co = field(repr=False)
    """The document as it was passed in: the same object."""
    relevance_score: float | None
    """Relevance in [0, 1], computed from `raw_score` by the backend's scale. `None` if the document has no score."""
    raw_score: float | None
    """The model's own score; it decides the order. `None` if the document is blank or was not scored."""
    truncated: bool = False
    """Whether the model read only a part of the document."""
    spans: tuple[Span, ...] = ()
    """The best passages of the document, if the backend or the policy `long_documents` reports them."""
    reason: str | None = None
    """Why the document has no score, or which fields of a mapping were not read. `None` if there is nothing to
    explain."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RerankResponse(Sequence[RerankResult[DocumentT_co]], Generic[DocumentT_co]):
    """The answer to one call: a sequence of results, best first.

    Generic in the type of the documents: reranking a `list[str]` gives `RerankResponse[str]`.

    >>> from rerank_plugins import load_reranker
    >>> response = load_reranker("lexical").rerank("capital of Germany", ["a recipe", "Berlin is the capital"])
    >>> [result.index for result in response]
    [1, 0]
    >>> response.model, response.degraded, response.usage.requests
    ('lexical', False, 0)
    """

    results: tuple[RerankResult[DocumentT_co], ...]
    """The results, best first. Documents without a score come last."""
    model: str
    """Label of the model that answered, such as `cohere:rerank-v4.0-fast` or `embedded [onnxruntime float32]`."""
    scale: Scale
    """What `raw_score` means; see `Capabilities.scale`."""
    usage: Usage = field(default_factory=Usage)
    """What the call consumed, failed attempts included."""
    degraded: bool = False
    """Whether the scores are a fallback's, or the documents are in the order given because no backend answered."""
    reason: str | None = None
    """Why the answer is degraded, or why its scores cannot be trusted. `None` if all is well."""
    attempts: tuple[Attempt, ...] = ()
    """What was tried, in the order in which it ended."""
    latency_ms: float = 0.0
    """Duration of the whole call in milliseconds."""

    def __len__(self) -> int:
        """Return the number of results."""
        return len(self.results)

    @overload
    def __getitem__(self, index: int) -> RerankResult[DocumentT_co]: ...
    @overload
    def __getitem__(self, index: slice) -> tuple[RerankResult[DocumentT_co], ...]: ...
    def __getitem__(self, index: int | slice) -> RerankResult[DocumentT_co] | tuple[RerankResult[DocumentT_co], ...]:
        """Return one result, or a tuple of results for a slice."""
        return self.results[index]

    def __iter__(self) -> Iterator[RerankResult[DocumentT_co]]:
        """Iterate over the results, best first."""
        return iter(self.results)

    def to_dict(self, *, documents: bool = True) -> dict[str, Any]:
        """Return the response as plain data that `json.dumps` accepts. It never contains a key.

        Args:
            documents: Whether each result includes its document. Pass `False` for logs: then no text of a document is
                in it.

        Returns:
            A dict with these keys:

            - `results`: a list of dicts, best first, with `index`, `relevance_score` and `raw_score` (`None` without a
              score), and `truncated`. They also have `spans` (a list of dicts with `start`, `end`, `score`), `reason`
              (`None` if there is nothing to explain) and `document`. A string stays as it is. A mapping becomes a dict
              of plain values: dates as ISO 8601, bytes as Base64, arrays as lists, NaN and infinity as `None`, other
              objects as `str(value)`.
            - `usage`: a dict with the fields of `Usage`; `None` for what the backend does not report.
            - `model`, `scale`, `degraded` and `reason` (`None` if all is well).
            - `attempts`: a list of dicts with the fields of `Attempt`. `usage` and `status` are `None` without a reply.
            - `latency_ms`: a float.

        >>> import json
        >>> from rerank_plugins import load_reranker
        >>> data = load_reranker("lexical").rerank("capital", ["Berlin is the capital"]).to_dict()
        >>> sorted(data)
        ['attempts', 'degraded', 'latency_ms', 'model', 'reason', 'results', 'scale', 'usage']
        >>> data["results"][0]["document"]
        'Berlin is the capital'
        >>> json.loads(json.dumps(data)) == data
        True
        """
        return {
            "results": [_result_dict(result, documents=documents) for result in self.results],
            "usage": asdict(self.usage),
            "model": self.model,
            "scale": self.scale,
            "degraded": self.degraded,
            "reason": self.reason,
            "attempts": [asdict(attempt) for attempt in self.attempts],
            "latency_ms": self.latency_ms,
        }


def _result_dict(result: RerankResult[Any], *, documents: bool) -> dict[str, Any]:
    data = {
        "index": result.index,
        "relevance_score": result.relevance_score,
        "raw_score": result.raw_score,
        "truncated": result.truncated,
        "spans": [asdict(span) for span in result.spans],
        "reason": result.reason,
    }
    if documents:
        data["document"] = plain_data(result.document)
    return data
