"""What the adapters share: their common fields, the reranker behind them, and what they note on each document."""

from __future__ import annotations

import functools
import inspect
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict
from numbers import Real
from typing import TYPE_CHECKING, Any

from pydantic import BaseModel, ConfigDict, Field, PrivateAttr, field_serializer
from pydantic.json_schema import SkipJsonSchema

from .config import shared
from .config.sources import guarded, holds_client, parse, profiles, without_keys
from .core.errors import ConfigError, InputError
from .documents import RerankCall
from .reranker import Reranker, RerankResponse, RerankResult, check_threshold, check_top_n

__all__ = [
    "ADAPTER",
    "Adapter",
    "RerankerLike",
    "checked",
    "noted",
    "retrieval_score",
    "run_metadata",
    "storable",
]

if TYPE_CHECKING:
    RerankerLike = str | Mapping[str, Any] | Reranker | None
else:
    RerankerLike = Any  # pydantic does not look inside: its errors show what they reject, and that may hold a key

ADAPTER = ConfigDict(arbitrary_types_allowed=True, extra="forbid", hide_input_in_errors=True)
"""To be repeated by every adapter: the host's own classes come later in the bases and would win."""


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
    allowed_rerankers: list[str] | None = None
    """The strings that `reranker` may be: specs, or names in the configuration file. Set it where requests choose the
    reranker: a mapping may name any URL, file and environment variable, so it is refused. `None` (the program's default)
    and a ready `Reranker`, which no request can hold, stay possible. Without this list, `reranker` may be anything."""
    on_response: SkipJsonSchema[Callable[[RerankResponse], object] | None] = Field(
        default=None, exclude=True, repr=False
    )
    """Called with each answer, before the documents are returned: to count usage, or to refuse a degraded answer by
    raising, since what it raises is raised to the caller. A plain function; serialising leaves it out."""

    _live: tuple[Any, float | None, Reranker] | None = PrivateAttr(default=None)
    """What was resolved: the fields `reranker` and `score_threshold`, and the reranker that they gave."""

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
        for name in self.allowed_rerankers or ():
            parse(name, profiles(None))  # a typo in the list is an error here, not at the first request
        if self.allowed_rerankers is not None:
            self._check_allowed()
        if isinstance(self.reranker, Mapping):
            self.reranker = guarded(self.reranker)
        self._resolved()

    def warmup(self) -> None:
        """Load the model now rather than at the first call."""
        self._resolved().warmup()

    async def awarmup(self) -> None:
        """Load the model now rather than at the first call, without blocking the event loop."""
        await self._resolved().awarmup()

    def _check_allowed(self) -> None:
        """Check `reranker` against `allowed_rerankers`.

        Raises:
            ConfigError: It is not in the list. The message does not show a mapping, which may hold keys.
        """
        allowed, value = self.allowed_rerankers or (), self.reranker
        if value is None or isinstance(value, Reranker):
            return
        if not isinstance(value, str) or value not in allowed:
            got = repr(value[:80]) if isinstance(value, str) else f"a {type(value).__name__}"
            raise ConfigError(
                f"reranker must be one of allowed_rerankers ({', '.join(map(repr, allowed))}), got {got}. Name one of "
                "them, or add the spec to the list; what needs a mapping can be named in the configuration file."
            )

    def _resolved(self) -> Reranker:
        """Return the live reranker; found and checked anew where a field was assigned since."""
        if self.allowed_rerankers is not None:
            self._check_allowed()  # here too, since fields may be assigned and copies made with others
        live = self._live
        if live is None or live[0] is not self.reranker or live[1] != self.score_threshold:
            reranker = self.reranker if isinstance(self.reranker, Reranker) else shared(self.reranker)
            check_threshold(self.score_threshold, reranker.scorer)
            live = self._live = self.reranker, self.score_threshold, reranker
        return live[2]

    def _rerank(
        self, query: str, texts: Sequence[str], retrieval_scores: Sequence[float | None], top_n: int | None = None
    ) -> RerankResponse:
        response = self._resolved()._run(self._call(query, texts, retrieval_scores, top_n))
        if self.on_response is not None:
            self.on_response(response)
        return response

    async def _arerank(
        self, query: str, texts: Sequence[str], retrieval_scores: Sequence[float | None], top_n: int | None = None
    ) -> RerankResponse:
        response = await self._resolved()._arun(self._call(query, texts, retrieval_scores, top_n))
        if self.on_response is not None:
            self.on_response(response)
        return response

    def _call(
        self, query: str, texts: Sequence[str], retrieval_scores: Sequence[float | None], top_n: int | None
    ) -> RerankCall:
        known = [score for score in retrieval_scores if score is not None and math.isfinite(score)]
        return RerankCall(
            query=query,
            documents=texts,
            top_n=self.top_n if top_n is None else top_n,
            instruction=self.instruction,
            retrieval_scores=known if len(known) == len(texts) else None,
            score_threshold=self.score_threshold,
        )

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
        if self.allowed_rerankers is not None and isinstance(self.reranker, Reranker):
            kept["reranker"] = self.reranker  # its spec would be refused; it pickles as that by itself
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


def checked(items: Any, kind: type, advice: Mapping[str, str]) -> list[Any]:
    """Return the items of any iterable as a list, which reads a generator once.

    Args:
        items: The documents or nodes of a call.
        kind: The host's class.
        advice: What to do instead, by the name of a class that was passed.

    Raises:
        InputError: `items` is no iterable of `kind`. The message names the position and the way out.
    """
    name = kind.__name__
    if isinstance(items, kind | str | bytes | Mapping) or not isinstance(items, Iterable):
        way_out = "collect it first, [item async for item in …]" if hasattr(items, "__aiter__") else "pass a list"
        raise InputError(f"Expected an iterable of {name} objects, got one {type(items).__name__}: {way_out}.")
    checked_items = list(items)
    for index, item in enumerate(checked_items):
        if not isinstance(item, kind):
            names = [each.__name__ for each in type(item).__mro__]
            way_out = next((advice[each] for each in names if each in advice), f"leave it out, or make it a {name}")
            raise InputError(f"Item {index} must be a {name}, got {type(item).__name__}: {way_out}.")
    return checked_items


def retrieval_score(*candidates: Any) -> float | None:
    """Return the first finite number among `candidates`, as a Python float."""
    for value in candidates:
        if isinstance(value, Real) and not isinstance(value, bool) and math.isfinite(value):
            return float(value)
    return None


def noted(
    metadata: Mapping[Any, Any], response: RerankResponse, result: RerankResult, score: float | None
) -> tuple[dict[Any, Any], list[str]]:
    """Return a copy of a document's metadata with this answer's keys, and these keys.

    The keys of an earlier reranker are left out. What the user stored under one of these names stays where this answer
    has nothing to write there.

    Args:
        metadata: The document's; not changed.
        response: The answer.
        result: The document's place in it.
        score: The retriever's score, where known.
    """
    notes: dict[str, Any] = {"relevance_score": result.relevance_score, "retrieval_rank": result.index}
    if score is not None:
        notes["retrieval_score"] = score
    if result.spans:
        notes["rerank_spans"] = [{"start": each.start, "end": each.end, "score": each.score} for each in result.spans]
    if response.degraded:
        notes |= {"rerank_degraded": True, "rerank_reason": response.reason, "rerank_model": response.model}
    elif result.relevance_score is None and result.reason:
        notes["rerank_reason"] = result.reason
    earlier = set() if _NOTES.isdisjoint(metadata) else _earlier_notes(metadata)
    return {key: value for key, value in metadata.items() if key not in earlier} | notes, list(notes)


_NOTES = frozenset({"rerank_degraded", "rerank_reason", "rerank_model", "rerank_spans"})
"""The keys that an earlier reranker may have left where this one has nothing to write."""


def _earlier_notes(metadata: Mapping[Any, Any]) -> set[str]:
    """Return the `rerank_*` keys that an earlier reranker wrote, told from a user's own by what goes with them."""
    keys: set[str] = set()
    if metadata.get("rerank_degraded") is True:
        keys |= {"rerank_degraded", "rerank_reason", "rerank_model"}
    if "retrieval_rank" in metadata and metadata.get("relevance_score", "") is None:
        keys.add("rerank_reason")
    spans = metadata.get("rerank_spans")
    if (
        isinstance(spans, list)
        and spans
        and all(isinstance(each, Mapping) and {"start", "end"} <= each.keys() for each in spans)
    ):
        keys.add("rerank_spans")
    return keys


def run_metadata(response: RerankResponse) -> dict[str, Any]:
    """Return what a framework's trace may show of an answer: no text, no key, no vendor's words."""
    usage = {name: value for name, value in asdict(response.usage).items() if value is not None}
    return {"rerank_model": response.model, "rerank_degraded": response.degraded, "rerank_usage": usage}
