"""Copies of LangChain retrievers that return a chosen number of candidates, through wrappers and compositions.

LangChain has no common argument for that number. Vector stores take `k` in `search_kwargs`, other retrievers have a
field (`k`, `top_k` and others) or a parameter of their method, wrappers hold a retriever and compositions hold several.
Retrievers are recognised by such fields and not by their class, so that packages that are not installed need no import,
and classes of the user work too.
"""

from __future__ import annotations

import inspect
import logging
import threading
import time
import weakref
from collections.abc import Iterator, Mapping
from typing import Any, cast, get_args

from langchain_core.documents import Document
from langchain_core.retrievers import BaseRetriever, RetrieverLike
from langchain_core.runnables import Runnable, RunnableBranch, RunnableConfig, RunnableSequence, RunnableSerializable
from langchain_core.runnables.base import RunnableBindingBase
from langchain_core.runnables.configurable import DynamicRunnable
from langchain_core.vectorstores import VectorStore
from pydantic import BaseModel

__all__ = ["warn_too_few_candidates", "with_fetch_k"]

_log = logging.getLogger("rerank_plugins.langchain")

COUNT_FIELDS = (
    "k",
    "top_k",
    "top_k_results",
    "num_contexts",
    "num_results",
    "num_web_results",
    "n_results",
    "max_results",
    "max_documents",
    "limit",
)
"""Fields that hold the number of results in the retrievers of langchain-core, -classic and -community."""
COUNT_PATHS = (
    ("retrieval_config", "vectorSearchConfiguration", "numberOfResults"),
    ("body", "hits"),
    ("params", "limit"),
)
"""Paths to the number of results inside nested fields. The number is set only where the path exists."""
LIMIT_FIELDS = ("top_n", "k")
"""Fields of compressors and rerankers that limit the number of documents that they return."""
MAX_CONTAINER_LENGTH = 100
"""Longest list or mapping that is searched for retrievers. A longer one holds documents, and searching it takes time in
every call."""
WARNING_INTERVAL_S = 60.0
"""Seconds between two warnings about one retriever."""


def with_fetch_k(retriever: RetrieverLike, count: int, advice: list[str], *, is_async: bool) -> RetrieverLike:
    """Return a retriever that returns `count` candidates: a copy of `retriever` if a field must be set, else itself.

    Args:
        retriever: Any retriever or runnable; neither it nor anything inside it is changed.
        count: Number of candidates that each source of documents must return.
        advice: A list to which advice is appended: one phrase for each retriever that has no setting for the number, or
            that may return fewer candidates anyway. A configurable retriever appends when it is called, because its
            fields are known only then.
        is_async: Whether `ainvoke` will be called; some retrievers take the number only in `invoke`.
    """
    if isinstance(retriever, DynamicRunnable):
        return _ConfigurableRetriever(retriever, count, advice)
    if isinstance(retriever, BaseRetriever):
        return _RetrieverCopy(retriever, count, advice, is_async).make()
    if not _holds_retriever(retriever):
        advice.append(f"return more from {_name(retriever)}")
        return retriever

    def copy_part(part: Any) -> Any:
        return with_fetch_k(part, count, advice, is_async=is_async) if _holds_retriever(part) else part

    if isinstance(retriever, RunnableSequence):
        # Only the last step that holds a retriever returns the candidates. Earlier steps may retrieve too, to write the
        # query of that step.
        last = max(index for index, step in enumerate(retriever.steps) if _holds_retriever(step))
        steps = [copy_part(step) if index == last else step for index, step in enumerate(retriever.steps)]
        return retriever.model_copy(update={"first": steps[0], "middle": steps[1:-1], "last": steps[-1]})
    if isinstance(retriever, RunnableBranch):
        branches = [(condition, copy_part(branch)) for condition, branch in retriever.branches]
        return retriever.model_copy(update={"branches": branches, "default": copy_part(retriever.default)})
    update = {name: _map_runnables(value, copy_part) for name, value in vars(retriever).items()}
    if isinstance(retriever, RunnableBindingBase):
        update["kwargs"] = _update_bound_arguments(retriever.kwargs, count)
    return cast("RunnableSerializable[str, list[Document]]", retriever).model_copy(update=update)


class _ConfigurableRetriever(Runnable[str, list[Document]]):
    """A configurable retriever: the configuration of the call sets its fields first, then `count` is set."""

    def __init__(self, retriever: DynamicRunnable[str, list[Document]], count: int, advice: list[str]) -> None:
        self._retriever = retriever
        self._count = count
        self._advice = advice

    def invoke(self, input: str, config: RunnableConfig | None = None, **kwargs: Any) -> list[Document]:  # noqa: A002
        configured, config = self._retriever.prepare(config)
        return with_fetch_k(configured, self._count, self._advice, is_async=False).invoke(input, config, **kwargs)

    async def ainvoke(self, input: str, config: RunnableConfig | None = None, **kwargs: Any) -> list[Document]:  # noqa: A002
        configured, config = self._retriever.prepare(config)
        return await with_fetch_k(configured, self._count, self._advice, is_async=True).ainvoke(input, config, **kwargs)


class _RetrieverCopy:
    """Collects the fields to set on the copy of one retriever, then makes the copy."""

    def __init__(self, retriever: BaseRetriever, count: int, advice: list[str], is_async: bool) -> None:
        self.retriever = retriever
        self.count = count
        self.advice = advice
        self.is_async = is_async
        self.fields = vars(retriever)
        self.update: dict[str, Any] = {}
        """The fields to set on the copy."""
        self.count_is_set = False
        """Whether the count was set in a field or in an inner retriever."""

    def make(self) -> RetrieverLike:
        self._set_inner_retrievers()
        self._set_count_fields()
        self._set_search_kwargs()
        for path in COUNT_PATHS:
            self._set_nested_field(path)
        copied = self.retriever.model_copy(update=self.update) if self.update else self.retriever
        return copied if self.count_is_set else self._bind_k(copied)

    def _set_inner_retrievers(self) -> None:
        def copy_part(part: Any) -> Any:
            if not _yields_documents(part) or not _holds_retriever(part):
                return part
            self.count_is_set = True
            return with_fetch_k(part, self.count, self.advice, is_async=self.is_async)

        for name, value in self.fields.items():
            changed = _map_runnables(value, copy_part)
            if changed is not value:
                self.update[name] = changed
        if not self.count_is_set:
            return
        # A RerankRetriever inside another retriever must rerank at least as many as the outer one wants.
        fetch_k = self.fields.get("fetch_k")
        if isinstance(fetch_k, int) and fetch_k < self.count:
            self.update["fetch_k"] = self.count
        if isinstance(top_n := self.fields.get("top_n"), int) and top_n < self.count:
            self.advice.append(f"set top_n on {_name(self.retriever)}")
        for value in self.fields.values():
            if not isinstance(value, Runnable):
                self.advice += [f"set {limit}" for limit in _limits_below(value, self.count)]

    def _set_count_fields(self) -> None:
        for name in COUNT_FIELDS:
            field = type(self.retriever).model_fields.get(name)
            value = self.fields.get(name)
            if field is None or isinstance(value, bool):
                continue
            if isinstance(value, int) or (value is None and int in get_args(field.annotation)):
                bounds = [constraint.le for constraint in field.metadata if hasattr(constraint, "le")]
                largest = min(bounds, default=self.count)
                if largest < self.count:
                    self.advice.append(f"{name} on {_name(self.retriever)} is at most {largest}")
                self.update[name] = min(self.count, largest)
                self.count_is_set = True

    def _set_search_kwargs(self) -> None:
        value = self.fields.get("search_kwargs", {})
        if not isinstance(value, Mapping):
            return
        kwargs = dict(value)
        is_vector_store = isinstance(self.fields.get("vectorstore"), VectorStore)
        if is_vector_store and not self.update.keys() & COUNT_FIELDS:
            kwargs.setdefault("k", self.count)
        # Two kinds of retrievers return only some of the hits: with a `docstore`, several hits may belong to one
        # document, and with a field `k`, the retriever returns k of the hits. For them a larger number in search_kwargs
        # stays as it is.
        selects_among_hits = "docstore" in self.fields or "k" in self.update
        for name in COUNT_FIELDS:
            if isinstance(kwargs.get(name), int):
                kwargs[name] = max(kwargs[name], self.count) if selects_among_hits else self.count
                self.count_is_set = True
        if "docstore" in self.fields:
            self.advice.append(
                f"set a larger k in search_kwargs of {_name(self.retriever)}, where hits of one document count once"
            )
        # Maximal marginal relevance selects k of fetch_k hits (20 by default): with fetch_k <= k it has no choice.
        fetch_k = kwargs.get("fetch_k", 20 if self.fields.get("search_type") == "mmr" else None)
        if is_vector_store and isinstance(fetch_k, int) and fetch_k < self.count:
            kwargs["fetch_k"] = 2 * self.count
        if kwargs != value:
            self.update["search_kwargs"] = kwargs

    def _set_nested_field(self, path: tuple[str, ...]) -> None:
        changed = _replace_at_path(self.fields.get(path[0]), path[1:], self.count)
        if changed is not None:
            self.update[path[0]] = changed
            self.count_is_set = True

    def _bind_k(self, copied: BaseRetriever) -> RetrieverLike:
        """Return `copied` with `k` bound as an argument of its calls, if its methods accept one."""
        kinds = [_find_k_parameter(copied._get_relevant_documents)]
        # With **kwargs it is unknown whether `k` reaches the search, so the async method must accept `k` too.
        if self.is_async or kinds == ["keywords"]:
            kinds.append(_find_k_parameter(copied._aget_relevant_documents))
        if not all(kinds):
            self.advice.append(f"set k on {_name(copied)}")
            return copied
        if "keywords" in kinds:
            self.advice.append(f"set k on {_name(copied)}, which seems to ignore the argument k")
        return copied.bind(k=self.count)


def _update_bound_arguments(kwargs: Mapping[str, Any], count: int) -> dict[str, Any]:
    """Return bound arguments with `k` set to `count`, and `fetch_k` (of maximal marginal relevance) raised above it.

    An argument that is not bound is not added.
    """
    updated = dict(kwargs)
    if "k" in kwargs:
        updated["k"] = count
    if isinstance(fetch_k := kwargs.get("fetch_k"), int) and fetch_k < count:
        updated["fetch_k"] = 2 * count
    return updated


def _find_k_parameter(method: Any) -> str | None:
    """Return "parameter" if `method` has a parameter `k`, "keywords" if it has only **kwargs, else `None`."""
    parameters = inspect.signature(method).parameters
    if "k" in parameters:
        return "parameter"
    has_keywords = any(parameter.kind is parameter.VAR_KEYWORD for parameter in parameters.values())
    return "keywords" if has_keywords else None


def _map_runnables(value: Any, change: Any, depth: int = 2) -> Any:
    """Return `value` with each runnable in it replaced by `change(runnable)`; the same object if nothing changed."""
    if isinstance(value, Runnable):
        return change(value)
    if not _may_hold_runnables(value, depth):
        return value
    parts = value.values() if isinstance(value, Mapping) else value
    changed = [_map_runnables(part, change, depth - 1) for part in parts]
    if all(map(lambda new, old: new is old, changed, parts)):
        return value
    return dict(zip(value, changed, strict=True)) if isinstance(value, Mapping) else type(value)(changed)


def _may_hold_runnables(value: Any, depth: int) -> bool:
    """Return whether to search a container. A long or deep one is a collection of documents or numbers."""
    return depth > 0 and isinstance(value, list | tuple | Mapping) and len(value) <= MAX_CONTAINER_LENGTH


def _holds_retriever(runnable: Any) -> bool:
    """Return whether a runnable is a retriever or contains one."""
    if isinstance(runnable, BaseRetriever | _ConfigurableRetriever):
        return True
    if isinstance(runnable, RunnableBranch):
        parts: Iterator[Any] = iter([*(branch for _, branch in runnable.branches), runnable.default])
    elif isinstance(runnable, RunnableSerializable):
        parts = (part for value in vars(runnable).values() for part in _runnables(value))
    else:
        return False
    return any(map(_holds_retriever, parts))


def _runnables(value: Any, depth: int = 2) -> Iterator[Runnable[Any, Any]]:
    if isinstance(value, Runnable):
        yield value
    elif _may_hold_runnables(value, depth):
        for part in value.values() if isinstance(value, Mapping) else value:
            yield from _runnables(part, depth - 1)


def _yields_documents(runnable: Runnable[Any, Any]) -> bool:
    """Return whether a runnable may return candidates. A chain that writes queries declares another output type."""
    try:
        return runnable.OutputType in (Any, list[Document])
    except TypeError:  # raised by a runnable without annotations
        return True


def _limits_below(compressor: Any, count: int) -> Iterator[str]:
    """Yield the limit fields with a value below `count`: of a document compressor, and of those in its pipeline."""
    if not isinstance(compressor, BaseModel):
        return
    for name in LIMIT_FIELDS:
        if isinstance(value := getattr(compressor, name, None), int) and value < count:
            yield f"{name} on {type(compressor).__name__}"
    transformers = getattr(compressor, "transformers", None)
    for transformer in transformers if isinstance(transformers, list | tuple) else ():
        yield from _limits_below(transformer, count)


def _replace_at_path(holder: Any, path: tuple[str, ...], count: int) -> Any:
    """Return a copy of a mapping or model with `count` in place of the integer at `path`; `None` if there is none."""
    name, *rest = path
    inner = holder.get(name) if isinstance(holder, Mapping) else getattr(holder, name, None)
    if rest:
        inner = _replace_at_path(inner, tuple(rest), count)
    elif isinstance(inner, int) and not isinstance(inner, bool):
        inner = count
    else:
        return None
    if inner is None:
        return None
    if isinstance(holder, Mapping):
        return {**holder, name: inner}
    return holder.model_copy(update={name: inner}) if isinstance(holder, BaseModel) else None


def _name(runnable: Runnable[Any, Any]) -> str:
    return runnable.get_name()


_warned: dict[int, tuple[Any, float]] = {}
"""The last warning about each retriever, by the `id` of the retriever: a weak reference to it, and the time. The
reference tells whether another object has the id now."""
_warned_lock = threading.Lock()
"""Guards `_warned`, since retrievers are called from several threads."""


def warn_too_few_candidates(retriever: RetrieverLike, count: int, received: int, advice: list[str]) -> None:
    """Log a warning that `received` candidates came instead of `count`, at most once a minute for each retriever."""
    now = time.monotonic()
    with _warned_lock:
        reference, warned_at = _warned.get(id(retriever), (None, 0.0))
        if reference is not None and reference() is retriever and now - warned_at < WARNING_INTERVAL_S:
            return
        if len(_warned) >= 1024:  # bounds the memory; at worst a warning is repeated too early
            _warned.clear()
        _warned[id(retriever)] = weakref.ref(retriever), now
    _log.warning(
        "fetch_k is %d, but the retriever returned %d candidates: %s (this warning comes at most once a minute)",
        count,
        received,
        "; ".join(dict.fromkeys(advice)),
    )
