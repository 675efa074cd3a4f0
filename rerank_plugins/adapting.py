"""What the adapters share: their common fields, the reranker behind them, and what they note on each document."""

from __future__ import annotations

import functools
import inspect
import math
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from numbers import Real
from typing import TYPE_CHECKING, Any, ClassVar

from pydantic import BaseModel, ConfigDict, Field, PrivateAttr, field_serializer
from pydantic.json_schema import SkipJsonSchema

from .config import shared
from .config.build import OPTIONS
from .config.registry import unknown
from .config.sources import guarded, holds_client, parse, profiles, without_keys
from .core.choices import described
from .core.errors import ConfigError, InputError
from .core.numeric import finite
from .documents import Expected, RerankCall, as_list
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


ADAPTER = ConfigDict(
    arbitrary_types_allowed=True, extra="forbid", hide_input_in_errors=True, use_attribute_docstrings=True
)
"""To be repeated by every adapter: the host's own classes come later in the bases and would win."""


_MODEL = "name the model in the spec, reranker='BACKEND:MODEL'"
_TOP_N = "how many come back is top_n"
_THRESHOLD = "the least relevance is score_threshold"
_INSTEAD = {
    "model": _MODEL,
    "model_name": _MODEL,
    "model_id": _MODEL,
    "spec": "it is called reranker here",
    "use": "it is called reranker here",
    "top_k": _TOP_N,
    "k": _TOP_N,
    "n": _TOP_N,
    "topn": _TOP_N,
    "threshold": _THRESHOLD,
    "min_score": _THRESHOLD,
    "similarity_cutoff": _THRESHOLD,
    "client": "a client is an option of the backend, reranker={'use': 'BACKEND:MODEL', 'BACKEND': {'client': …}}",
}
"""What fields of other packages' rerankers are called here."""


class Adapter(BaseModel):
    """The fields of every adapter, checked at construction, and the call behind them."""

    model_config = ADAPTER

    reranker: RerankerLike = Field(
        default=None, json_schema_extra={"anyOf": [{"type": "string"}, {"type": "object"}, {"type": "null"}]}
    )
    """A spec (`"backend:model"` or a mapping), the name of a reranker in the configuration file, or a ready `Reranker`;
    `None` is `load_reranker()`'s default. The same spec and key share one live reranker in the process, which the adapter
    never closes."""
    config: str | os.PathLike[str] | None = None
    """Path of the TOML file in which `reranker` and the specs inside it are looked up by name; `None` is the file that the
    environment variable RERANK_PLUGINS_CONFIG names. Never let a request choose it."""
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

    _instead: ClassVar[Mapping[str, str]] = _INSTEAD
    """What to write in place of the fields of other packages."""
    _counts: ClassVar[tuple[str, ...]] = ("top_n",)
    """The fields that are integers of at least 1, or `None`."""
    _live: tuple[Any, str | os.PathLike[str] | None, float | None, Reranker] | None = PrivateAttr(default=None)
    """What was resolved: the fields `reranker`, `config` and `score_threshold`, and the reranker that they gave."""

    def __init__(self, **fields: Any) -> None:
        """Check the fields and find the reranker; here, since pydantic would wrap what a validator raises.

        Raises:
            ConfigError: An unknown backend or option, a missing key, a threshold that cannot mean anything.
            InputError: `top_n` is below 1.
        """
        # Checked here, since pydantic would take 2.0, True and "2" for a 2, and refuse NumPy's.
        for name in self._counts:
            if name in fields:
                fields[name] = check_top_n(fields[name], name)
        if fields.get("score_threshold") is not None:
            fields["score_threshold"] = finite(fields["score_threshold"], "score_threshold", 0.0, 1.0)
        self._check_names(fields)
        if isinstance(fields.get("config"), os.PathLike):
            fields["config"] = os.fspath(fields["config"])  # a string, which every format of the hosts can store
        super().__init__(**fields)
        if inspect.iscoroutinefunction(self.on_response):
            raise ConfigError("on_response has to be a plain function, which starts a task where it has to wait.")
        for name in self.allowed_rerankers or ():
            parse(name, profiles(self.config))  # a typo in the list is an error here, not at the first request
        if self.allowed_rerankers is not None:
            self._check_allowed()
        if isinstance(self.reranker, Mapping):
            self.reranker = guarded(self.reranker)
        self._resolved()

    @classmethod
    def _check_names(cls, fields: Mapping[str, Any]) -> None:
        """Refuse fields that there are not, and say what they are called here.

        Raises:
            ConfigError: The message shows no value, which may be a key.
        """
        valid = [name for name, field in cls.model_fields.items() if not field.exclude or name == "on_response"]
        aliases = {field.alias for field in cls.model_fields.values()}
        for name in fields:
            if name not in cls.model_fields and name not in aliases:
                error = unknown(f"field of {cls.__name__}", name, valid)
                advice = cls._advice(name)
                raise ConfigError(f"There is no field of {cls.__name__} {name!r}: {advice}.") if advice else error

    @classmethod
    def _advice(cls, name: str) -> str | None:
        """Return what to write instead of a field that another package's reranker has."""
        if name in cls._instead:
            return cls._instead[name]
        if name == "api_key" or name.endswith("_api_key"):
            backend = name.removesuffix("_api_key") if name != "api_key" else "BACKEND"
            variable = name.upper() if name != "api_key" else "NAME"
            return f"a key stands in the spec, reranker={{'use': '{backend}:MODEL', 'api_key': 'env:{variable}'}}"
        if name in OPTIONS:
            return f"it is an option of the spec, reranker={{'use': 'BACKEND:MODEL', {name!r}: …}}"
        return None

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
        if live is None or live[0] is not self.reranker or live[1] != self.config or live[2] != self.score_threshold:
            reranker = self._looked_up()
            check_threshold(self.score_threshold, reranker.scorer)
            live = self._live = self.reranker, self.config, self.score_threshold, reranker
        return live[3]

    def _looked_up(self) -> Reranker:
        if not isinstance(self.reranker, Reranker):
            return shared(self.reranker, config=self.config)
        if self.config is not None:
            raise ConfigError(
                "config says where the name of a reranker is looked up, and a ready Reranker has none. Leave it out, or "
                "pass the name."
            )
        return self.reranker

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


def checked(items: Any, kind: type, expected: Expected) -> list[Any]:
    """Return the items of any iterable that has an order as a list, which reads a generator once.

    Args:
        items: The documents or nodes of a call.
        kind: The host's class.
        expected: How errors speak of them.

    Raises:
        InputError: `items` is no iterable of `kind`, or one without an order. The message says what to pass instead.
    """
    name = kind.__name__
    if isinstance(items, kind):  # LlamaIndex's are pydantic models, which can be iterated over
        raise InputError(f"{expected.name} must be a list of {expected.items}, got one {name}: pass a list, [item].")
    listed = as_list(items, expected)
    for index, item in enumerate(listed):
        if not isinstance(item, kind):
            way_out = expected.instead_of(item) or f"leave it out, or make it a {name}"
            raise InputError(f"Item {index} must be a {name}, got {described(item)}: {way_out}.")
    return listed


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
