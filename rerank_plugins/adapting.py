"""What the adapters share: their common fields, the reranker behind them, and what they note on each document."""

from __future__ import annotations

import functools
import inspect
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from numbers import Real
from typing import TYPE_CHECKING, Any

from pydantic import BaseModel, ConfigDict, Field, PrivateAttr, field_serializer
from pydantic.json_schema import SkipJsonSchema

from .config import shared, with_threshold
from .core.errors import ConfigError, InputError
from .reranker import Reranker, RerankResponse, RerankResult, check_top_n
from .spec import guarded, holds_client, without_keys

__all__ = ["ADAPTER", "NOTES", "Adapter", "RerankerLike", "noted", "retrieval_score", "storable"]

if TYPE_CHECKING:
    RerankerLike = str | Mapping[str, Any] | Reranker | None
else:
    RerankerLike = Any  # pydantic does not look inside: its errors show what they reject, and that may hold a key

ADAPTER = ConfigDict(arbitrary_types_allowed=True, extra="forbid", hide_input_in_errors=True)
"""To be repeated by every adapter: the host's own classes come later in the bases and would win."""

NOTES = (
    "relevance_score",
    "retrieval_rank",
    "retrieval_score",
    "rerank_spans",
    "rerank_degraded",
    "rerank_reason",
    "rerank_model",
)
"""The keys that an adapter writes into metadata."""


class Adapter(BaseModel):
    """The fields of every adapter, checked at construction, and the call behind them."""

    model_config = ADAPTER

    reranker: RerankerLike = None
    """A spec (`"backend:model"` or a mapping), or a ready `Reranker`; `None` is `load_reranker()`'s default. The same
    spec and key share one live reranker in the process, which the adapter never closes."""
    top_n: int | None = None
    """How many come back, at least 1; `None` is the spec's own, and without one all."""
    instruction: str | None = None
    """What relevant means here, for models that follow such a text."""
    score_threshold: float | None = None
    """Leave out what has a `relevance_score` below it; never applied to a degraded answer."""
    on_response: SkipJsonSchema[Callable[[RerankResponse], object] | None] = Field(
        default=None, exclude=True, repr=False
    )
    """Called with each answer, before the documents are returned: to count usage, or to refuse a degraded answer by
    raising, since what it raises is raised to the caller. A plain function; serialising leaves it out."""

    _live: tuple[Any, Reranker] | None = PrivateAttr(default=None)

    def __init__(self, **fields: Any) -> None:
        """Check the fields and find the reranker; here, since pydantic would wrap what a validator raises.

        Raises:
            ConfigError: An unknown backend or option, a missing key, a threshold that cannot mean anything.
            InputError: `top_n` is below 1.
        """
        super().__init__(**fields)
        check_top_n(self.top_n)
        if inspect.iscoroutinefunction(self.on_response):
            raise ConfigError("on_response has to be a plain function, which starts a task where it has to wait.")
        if isinstance(self.reranker, Mapping):
            self.reranker = guarded(self.reranker)
        self._resolved()

    def _resolved(self) -> Reranker:
        """Return the live reranker; found anew where the field was assigned since."""
        if self._live is None or self._live[0] is not self.reranker:
            self._live = self.reranker, self.reranker if isinstance(self.reranker, Reranker) else shared(self.reranker)
        reranker = self._live[1]
        return reranker if self.score_threshold is None else with_threshold(reranker, self.score_threshold)

    def _rerank(
        self, query: str, texts: Sequence[str], retrieval_scores: Sequence[float | None], top_n: int | None = None
    ) -> RerankResponse:
        return self._observed(self._resolved().rerank(*self._call(query, texts, retrieval_scores, top_n)))

    async def _arerank(
        self, query: str, texts: Sequence[str], retrieval_scores: Sequence[float | None], top_n: int | None = None
    ) -> RerankResponse:
        return self._observed(await self._resolved().arerank(*self._call(query, texts, retrieval_scores, top_n)))

    def _call(
        self, query: str, texts: Sequence[str], retrieval_scores: Sequence[float | None], top_n: int | None
    ) -> tuple[Any, ...]:
        known = [score for score in retrieval_scores if score is not None and math.isfinite(score)]
        complete = known if len(known) == len(texts) else None
        return query, texts, self.top_n if top_n is None else top_n, self.instruction, complete

    def _observed(self, response: RerankResponse) -> RerankResponse:
        if self.on_response is not None:
            self.on_response(response)
        return response

    @field_serializer("reranker")
    def _without_keys(self, reranker: Any) -> Any:
        return storable(reranker)

    def __repr_args__(self) -> Any:
        """Show the spec without keys."""
        for name, value in super().__repr_args__():
            yield name, without_keys(value) if name == "reranker" and isinstance(value, Mapping) else value

    def __reduce__(self) -> Any:
        """Pickle as the fields that were given, without keys; they are found again in the environment.

        Raises:
            ConfigError: A reranker that no spec describes.
        """
        fields = type(self).model_fields
        kept: dict[str, Any] = {
            name: storable(self.reranker) if name == "reranker" else getattr(self, name)
            for name in fields
            if name in self.model_fields_set and (not fields[name].exclude or name == "on_response")
        }
        return functools.partial(type(self), **kept), ()

    def __deepcopy__(self, memo: dict[int, Any] | None = None) -> Any:
        """Copy within the process: reranker, keys and `on_response` are shared."""
        memo = {} if memo is None else memo
        memo |= {id(each): each for each in (self._live, self.reranker, self.on_response)}
        return super().__deepcopy__(memo)


def storable(reranker: RerankerLike) -> str | dict[str, Any] | None:
    """Return what stands for `reranker` in a file: its spec, without keys.

    Raises:
        ConfigError: No spec describes it, so what is read back would be another one.
    """
    if isinstance(reranker, Reranker):
        if reranker.spec is None:
            raise ConfigError(
                "This adapter holds a Reranker made by hand, which no spec describes, so it cannot be serialised or "
                "pickled. Give the adapter a spec, or make the reranker with load_reranker()."
            )
        return without_keys(reranker.spec)
    if not isinstance(reranker, Mapping):
        return reranker
    if holds_client(reranker):
        raise ConfigError(
            "The spec of this adapter holds a `client`, a live object, so it cannot be serialised or pickled. Make the "
            "adapter anew where it is needed, or describe the connection with base_url and api_key."
        )
    return without_keys(reranker)


def checked(items: Iterable[Any], kind: type) -> None:
    """Refuse what is no `kind` of the host's.

    Raises:
        InputError: It names the index.
    """
    for index, item in enumerate(items):
        if not isinstance(item, kind):
            raise InputError(f"Item {index} is a {type(item).__name__}, where a {kind.__name__} belongs. Leave it out.")


def retrieval_score(*candidates: Any) -> float | None:
    """Return the first finite number among `candidates`, as a Python float."""
    for value in candidates:
        if isinstance(value, Real) and not isinstance(value, bool) and math.isfinite(value):
            return float(value)
    return None


def noted(
    metadata: Mapping[Any, Any], response: RerankResponse, result: RerankResult, score: float | None
) -> dict[Any, Any]:
    """Return a copy of a document's metadata with what this answer says of it, in place of an earlier reranker's.

    `score` is the retriever's, where known.
    """
    notes: dict[Any, Any] = {"relevance_score": result.relevance_score, "retrieval_rank": result.index}
    if score is not None:
        notes["retrieval_score"] = score
    if result.spans:
        notes["rerank_spans"] = [{"start": each.start, "end": each.end, "score": each.score} for each in result.spans]
    if response.degraded:
        notes |= {"rerank_degraded": True, "rerank_reason": response.reason, "rerank_model": response.model}
    return {key: value for key, value in metadata.items() if key not in NOTES} | notes
