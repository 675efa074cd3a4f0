"""The base of the adapters: their common fields, their live reranker, and the metadata they add to each document."""

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
from .config.registry import unknown
from .config.schema import OPTIONS
from .config.sources import guarded, holds_client, parse, profiles, without_keys
from .core.choices import described
from .core.errors import ConfigError, InputError
from .core.health import CheckReport
from .core.numeric import finite
from .documents import Expected, RerankCall, as_list
from .reranker import Reranker, RerankResponse, RerankResult, check_threshold, check_top_n

__all__ = [
    "ADAPTER_CONFIG",
    "Adapter",
    "RerankerLike",
    "annotated_metadata",
    "check_items",
    "first_finite_number",
    "serializable_spec",
    "trace_metadata",
]

if TYPE_CHECKING:
    RerankerLike = str | Mapping[str, Any] | Reranker | None
else:
    RerankerLike = Any  # not validated by pydantic: its errors show the rejected value, which may hold a key


ADAPTER_CONFIG = ConfigDict(
    arbitrary_types_allowed=True, extra="forbid", hide_input_in_errors=True, use_attribute_docstrings=True
)
"""Every adapter sets it as `model_config` again: pydantic merges the bases in order, so the host's class would win."""


_MODEL = "name the model in the spec, reranker='BACKEND:MODEL'"
_RERANKER = "use reranker"
_TOP_N = "use top_n for the number of documents to return"
_THRESHOLD = "use score_threshold for the minimum relevance_score"
_FIELD_ADVICE = {
    "model": _MODEL,
    "model_name": _MODEL,
    "model_id": _MODEL,
    "spec": _RERANKER,
    "use": _RERANKER,
    "top_k": _TOP_N,
    "k": _TOP_N,
    "n": _TOP_N,
    "topn": _TOP_N,
    "threshold": _THRESHOLD,
    "min_score": _THRESHOLD,
    "similarity_cutoff": _THRESHOLD,
    "client": "a client is an option of the backend, reranker={'use': 'BACKEND:MODEL', 'BACKEND': {'client': …}}",
}
"""What to use here instead of a field of another package's reranker, by the name of that field."""


class Adapter(BaseModel):
    """Base of the adapters: common fields, checked when the adapter is built, and the call of the reranker.

    Raises:
        ConfigError: An unknown field, backend or option, a missing key, or a threshold that the scores do not support.
        InputError: `top_n` is not an integer of at least 1.
    """

    model_config = ADAPTER_CONFIG

    reranker: RerankerLike = Field(
        default=None, json_schema_extra={"anyOf": [{"type": "string"}, {"type": "object"}, {"type": "null"}]}
    )
    """A spec (`"backend:model"` or a mapping), the name of a reranker in the configuration file, or a ready `Reranker`.
    `None`: what `load_reranker()` loads without arguments, the spec in the environment variable
    RERANK_PLUGINS_RERANKER, else the embedded model. Adapters with the same spec and key share one live reranker in the
    process. The adapter never closes it."""
    config: str | os.PathLike[str] | None = None
    """Path of the TOML configuration file, in which `reranker` and the specs inside it are looked up by name. `None`:
    the file that the environment variable RERANK_PLUGINS_CONFIG names. Never let a request choose it."""
    top_n: int | None = None
    """Maximum number of documents to return, at least 1. `None`: the `top_n` of the spec, else all."""
    instruction: str | None = None
    """What relevant means, for models that follow an instruction; for others a call raises `InputError`. `None`: the
    instruction of the spec."""
    score_threshold: float | None = None
    """Minimum `relevance_score` of a returned document, from 0 to 1. It is not applied to a degraded answer. `None`:
    the threshold of the spec, else no minimum."""
    allowed_rerankers: list[str] | None = None
    """The strings that `reranker` may be: specs, or names in the configuration file. Set it where requests choose the
    reranker. A mapping is then refused, since it may name any URL, file and environment variable; `reranker=None` (the
    program's default) and a ready `Reranker` (no request can hold one) stay allowed. `None`: any reranker is
    allowed."""
    on_response: SkipJsonSchema[Callable[[RerankResponse], object] | None] = Field(
        default=None, exclude=True, repr=False
    )
    """Function that is called with each `RerankResponse`, before the documents are returned: to count usage, or to
    refuse a degraded answer. An exception that it raises reaches the caller. It must not be a coroutine function. It is
    left out when the adapter is serialised."""

    _field_advice: ClassVar[Mapping[str, str]] = _FIELD_ADVICE
    """What to use instead of an unknown field, by its name; ends the error message."""
    _count_fields: ClassVar[tuple[str, ...]] = ("top_n",)
    """The fields that are integers of at least 1, or `None`."""
    _live: tuple[Any, str | os.PathLike[str] | None, float | None, Reranker] | None = PrivateAttr(default=None)
    """The fields `reranker`, `config` and `score_threshold` at the last lookup, and the live reranker from it."""

    def __init__(self, **fields: Any) -> None:
        """Check the fields and look up the reranker.

        The checks are not pydantic validators, since pydantic would wrap `ConfigError` and `InputError` in its own
        error.
        """
        # Not pydantic's check of integers, which accepts 2.0, True and "2", and refuses NumPy's integers.
        for name in self._count_fields:
            if name in fields:
                fields[name] = check_top_n(fields[name], name)
        if fields.get("score_threshold") is not None:
            fields["score_threshold"] = finite(fields["score_threshold"], "score_threshold", 0.0, 1.0)
        self._check_field_names(fields)
        if isinstance(fields.get("config"), os.PathLike):
            fields["config"] = os.fspath(fields["config"])  # all formats of the hosts can store a string
        super().__init__(**fields)
        if inspect.iscoroutinefunction(self.on_response):
            raise ConfigError(
                "on_response must be a plain function, got a coroutine function. To await something, start a task in a "
                "plain function."
            )
        for name in self.allowed_rerankers or ():
            parse(name, profiles(self.config))  # reports a typo in the list now, not at the first request
        if self.allowed_rerankers is not None:
            self._check_allowed()
        if isinstance(self.reranker, Mapping):
            self.reranker = guarded(self.reranker)
        self._live_reranker()

    @classmethod
    def _check_field_names(cls, fields: Mapping[str, Any]) -> None:
        """Check that each field exists.

        Raises:
            ConfigError: A field does not exist. The message names the right one; it shows no value, which may be a key.
        """
        valid = [name for name, field in cls.model_fields.items() if not field.exclude or name == "on_response"]
        aliases = {field.alias for field in cls.model_fields.values()}
        for name in fields:
            if name not in cls.model_fields and name not in aliases:
                error = unknown(f"field of {cls.__name__}", name, valid)
                advice = cls._advice_on_field(name)
                raise ConfigError(f"There is no field of {cls.__name__} {name!r}: {advice}.") if advice else error

    @classmethod
    def _advice_on_field(cls, name: str) -> str | None:
        """Return what to use instead of the unknown field `name`, or `None` where nothing is known about it."""
        if name in cls._field_advice:
            return cls._field_advice[name]
        if name == "api_key" or name.endswith("_api_key"):
            backend = name.removesuffix("_api_key") if name != "api_key" else "BACKEND"
            variable = name.upper() if name != "api_key" else "NAME"
            return f"put the key in the spec, reranker={{'use': '{backend}:MODEL', 'api_key': 'env:{variable}'}}"
        if name in OPTIONS:
            return f"it is an option of the spec, reranker={{'use': 'BACKEND:MODEL', {name!r}: …}}"
        return None

    def warmup(self, *, check: bool = False) -> None:
        """Load the model now, not at the first call. Does nothing for a hosted model without `check`.

        Args:
            check (bool): Whether to `check` every backend too, and to raise the first error.

        Raises:
            BackendError: The model could not be loaded, or a backend failed the check.
        """
        self._live_reranker().warmup(check=check)

    async def awarmup(self, *, check: bool = False) -> None:
        """Load the model now, as `warmup` does, without blocking the event loop.

        Args:
            check (bool): Whether to `check` every backend too, and to raise the first error. Default `False`.
        """
        await self._live_reranker().awarmup(check=check)

    def check(self, *, raise_on_error: bool = False, deadline: float | None = None) -> CheckReport:
        """Ask every backend of the reranker a question with a known answer; see `Reranker.check`.

        Args:
            raise_on_error (bool): Whether to raise the first error, so that a service does not start with a wrong key.
            deadline (float | None): Seconds for the whole check. Default `None`: the timeout of each backend.

        Returns:
            CheckReport: The state of each backend; `to_dict()` makes it plain data for a health endpoint.

        Raises:
            BackendError: A backend failed, with `raise_on_error` only.
        """
        return self._live_reranker().check(raise_on_error=raise_on_error, deadline=deadline)

    async def acheck(self, *, raise_on_error: bool = False, deadline: float | None = None) -> CheckReport:
        """Do what `check` does, without blocking the event loop.

        Args:
            raise_on_error (bool): Whether to raise the first error. Default `False`.
            deadline (float | None): Seconds for the whole check. Default `None`: the timeout of each backend.

        Returns:
            CheckReport: The state of each backend.
        """
        return await self._live_reranker().acheck(raise_on_error=raise_on_error, deadline=deadline)

    def _check_allowed(self) -> None:
        """Check `reranker` against `allowed_rerankers`.

        Raises:
            ConfigError: It is not in the list. The message does not show a mapping, which may hold a key.
        """
        allowed, value = self.allowed_rerankers or (), self.reranker
        if value is None or isinstance(value, Reranker):
            return
        if not isinstance(value, str) or value not in allowed:
            got = repr(value[:80]) if isinstance(value, str) else f"a {type(value).__name__}"
            raise ConfigError(
                f"reranker must be one of allowed_rerankers ({', '.join(map(repr, allowed))}), got {got}. Name one of "
                "them, or add the spec to the list. To allow a mapping, give it a name in the configuration file."
            )

    def _live_reranker(self) -> Reranker:
        """Return the live reranker. It is looked up and checked again after a field was assigned."""
        if self.allowed_rerankers is not None:
            self._check_allowed()  # not only in __init__: fields may be assigned, and model_copy(update=…) changes them
        live = self._live
        if live is None or live[0] is not self.reranker or live[1] != self.config or live[2] != self.score_threshold:
            reranker = self._look_up_reranker()
            check_threshold(self.score_threshold, reranker.scorer)
            live = self._live = self.reranker, self.config, self.score_threshold, reranker
        return live[3]

    def _look_up_reranker(self) -> Reranker:
        if not isinstance(self.reranker, Reranker):
            return shared(self.reranker, config=self.config)
        if self.config is not None:
            raise ConfigError(
                "config names the file in which reranker is looked up, but reranker is a ready Reranker. Leave config "
                "out, or pass the name of a reranker in that file."
            )
        return self.reranker

    def _rerank(
        self, query: str, texts: Sequence[str], retrieval_scores: Sequence[float | None], top_n: int | None = None
    ) -> RerankResponse:
        response = self._live_reranker()._run(self._call(query, texts, retrieval_scores, top_n))
        if self.on_response is not None:
            self.on_response(response)
        return response

    async def _arerank(
        self, query: str, texts: Sequence[str], retrieval_scores: Sequence[float | None], top_n: int | None = None
    ) -> RerankResponse:
        response = await self._live_reranker()._arun(self._call(query, texts, retrieval_scores, top_n))
        if self.on_response is not None:
            self.on_response(response)
        return response

    def _call(
        self, query: str, texts: Sequence[str], retrieval_scores: Sequence[float | None], top_n: int | None
    ) -> RerankCall:
        finite_scores = [score for score in retrieval_scores if score is not None and math.isfinite(score)]
        return RerankCall(
            query=query,
            documents=texts,
            top_n=self.top_n if top_n is None else top_n,
            instruction=self.instruction,
            retrieval_scores=finite_scores if len(finite_scores) == len(texts) else None,
            score_threshold=self.score_threshold,
        )

    @field_serializer("reranker")
    def _without_keys(self, reranker: Any) -> Any:
        return serializable_spec(reranker)

    def __repr_args__(self) -> Any:
        """Yield the fields for `repr`, with the spec without keys."""
        for name, value in super().__repr_args__():
            yield name, without_keys(value) if name == "reranker" and isinstance(value, Mapping) else value

    def __reduce__(self) -> Any:
        """Pickle the fields that were set, without keys. Unpickling reads the keys from the environment again.

        Raises:
            ConfigError: No spec describes the reranker.
        """
        fields = type(self).model_fields
        state: dict[str, Any] = {
            name: serializable_spec(self.reranker, functions=True) if name == "reranker" else getattr(self, name)
            for name in fields
            if name in self.model_fields_set and (not fields[name].exclude or name == "on_response")
        }
        if self.allowed_rerankers is not None and isinstance(self.reranker, Reranker):
            state["reranker"] = self.reranker  # its spec may not be in the list; it pickles itself
        return functools.partial(type(self), **state), ()

    def __deepcopy__(self, memo: dict[int, Any] | None = None) -> Any:
        """Copy the adapter; the copy shares the reranker, its keys and `on_response`."""
        memo = {} if memo is None else memo
        memo |= {id(value): value for value in (self._live, self.reranker, self.on_response)}
        return super().__deepcopy__(memo)


def serializable_spec(reranker: RerankerLike, *, functions: bool = False) -> str | dict[str, Any] | None:
    """Return the spec of `reranker` without keys, for pickles and JSON.

    Args:
        reranker: The spec, or the reranker built from one.
        functions: Whether to keep a function as `api_key`. It pickles by its name; JSON has no form for it.

    Raises:
        ConfigError: No spec describes it, so that loading would return another reranker.
    """
    if isinstance(reranker, Reranker):
        if reranker.spec is None:
            raise ConfigError(
                "This adapter holds a Reranker made by hand, which no spec describes, so it cannot be serialised or "
                "pickled. Pass a spec to the adapter, or make the reranker with load_reranker()."
            )
        return without_keys(reranker.spec, functions=functions)
    if not isinstance(reranker, Mapping):
        return reranker
    if holds_client(reranker):
        raise ConfigError(
            "The spec of this adapter holds a `client`, a live object, so it cannot be serialised or pickled. Build "
            "the adapter again in the other process, or describe the connection with base_url and api_key."
        )
    return without_keys(reranker, functions=functions)


def check_items(items: Any, kind: type, expected: Expected) -> list[Any]:
    """Return the items of an ordered iterable as a list. A generator is read once.

    Args:
        items: The documents or nodes of a call.
        kind: The host's class of one item.
        expected: The words that the error messages use for the items.

    Raises:
        InputError: `items` is not an ordered iterable of `kind`. The message says what to pass instead.
    """
    name = kind.__name__
    if isinstance(items, kind):  # a NodeWithScore of LlamaIndex is a pydantic model, which is iterable
        raise InputError(f"{expected.name} must be a list of {expected.items}, got one {name}: pass a list, [item].")
    listed = as_list(items, expected)
    for index, item in enumerate(listed):
        if not isinstance(item, kind):
            advice = expected.instead_of(item) or f"leave it out, or make it a {name}"
            raise InputError(f"Item {index} must be a {name}, got {described(item)}: {advice}.")
    return listed


def first_finite_number(*values: Any) -> float | None:
    """Return the first finite number among `values` as a Python float, or `None` if there is none."""
    for value in values:
        if isinstance(value, Real) and not isinstance(value, bool) and math.isfinite(value):
            return float(value)
    return None


def annotated_metadata(
    metadata: Mapping[Any, Any], response: RerankResponse, result: RerankResult, retrieval_score: float | None
) -> tuple[dict[Any, Any], list[str]]:
    """Return a copy of a document's metadata with the keys of this answer added, and the list of these keys.

    Keys that an earlier reranker wrote are removed. A value that the user stored under one of these names stays unless
    this answer writes that key.

    Args:
        metadata: The document's metadata; not changed.
        response: The answer of the reranker.
        result: The result of this document in `response`.
        retrieval_score: The retriever's score, or `None` if unknown.
    """
    added: dict[str, Any] = {"relevance_score": result.relevance_score, "retrieval_rank": result.index}
    if retrieval_score is not None:
        added["retrieval_score"] = retrieval_score
    if result.spans:
        added["rerank_spans"] = [{"start": span.start, "end": span.end, "score": span.score} for span in result.spans]
    if response.degraded:
        added |= {"rerank_degraded": True, "rerank_reason": response.reason, "rerank_model": response.model}
    elif result.relevance_score is None and result.reason:
        added["rerank_reason"] = result.reason
    stale = set() if _OPTIONAL_KEYS.isdisjoint(metadata) else _stale_keys(metadata)
    return {key: value for key, value in metadata.items() if key not in stale} | added, list(added)


_OPTIONAL_KEYS = frozenset({"rerank_degraded", "rerank_reason", "rerank_model", "rerank_spans"})
"""The keys that only some answers write, so that an earlier reranker's would stay."""


def _stale_keys(metadata: Mapping[Any, Any]) -> set[str]:
    """Return the optional keys that an earlier reranker wrote.

    The keys beside them, and the types of the values, distinguish them from keys of the user.
    """
    keys: set[str] = set()
    if metadata.get("rerank_degraded") is True:
        keys |= {"rerank_degraded", "rerank_reason", "rerank_model"}
    if "retrieval_rank" in metadata and metadata.get("relevance_score", "") is None:
        keys.add("rerank_reason")
    spans = metadata.get("rerank_spans")
    if (
        isinstance(spans, list)
        and spans
        and all(isinstance(span, Mapping) and {"start", "end"} <= span.keys() for span in spans)
    ):
        keys.add("rerank_spans")
    return keys


def trace_metadata(response: RerankResponse) -> dict[str, Any]:
    """Return the metadata that traces of a framework may show: no text, no key, no message of a vendor."""
    usage = {name: value for name, value in asdict(response.usage).items() if value is not None}
    return {"rerank_model": response.model, "rerank_degraded": response.degraded, "rerank_usage": usage}
