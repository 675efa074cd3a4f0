"""LangChain retrievers that return a given number of candidates: copies, through wrappers and compositions.

LangChain has no common argument for that number. Vector stores take `k` in `search_kwargs`, other retrievers have a field
(`k`, `top_k` and others) or a parameter of their method, wrappers hold a retriever and compositions hold several. The
retrievers here are recognised by such fields and not by class, so that packages that are not installed need no import and
a user's own classes work too.
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

__all__ = ["warn_few", "with_count"]

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
"""The same number, deeper in a field: set only where it is there already."""
CUTS = ("top_n", "k")
"""Fields of compressors and rerankers that cut what a retriever returned."""
LARGEST_COMPOSITION = 100
"""A list in a field that is longer holds a retriever's documents: looking through it at each call would take time."""
WARN_EVERY_S = 60.0


def with_count(retriever: RetrieverLike, count: int, few: list[str], *, is_async: bool) -> RetrieverLike:
    """Return `retriever` so that it returns `count` candidates: a copy where something had to be set.

    Args:
        retriever: Any retriever or runnable; neither it nor anything inside is changed.
        count: How many candidates each source of documents is asked for.
        few: Receives what to do for each part that cannot be asked for `count`, or may return fewer in spite of it. A
            configurable retriever adds to it when it is called, since its fields are known only then.
        is_async: Whether `ainvoke` will be called; only some retrievers take the number in both.
    """
    if isinstance(retriever, DynamicRunnable):
        return _Configured(retriever, count, few)
    if isinstance(retriever, BaseRetriever):
        return _Counting(retriever, count, few, is_async).copy()
    if not _holds_retriever(retriever):
        few.append(f"return more from {_name(retriever)}")
        return retriever

    def counted(part: Any) -> Any:
        return with_count(part, count, few, is_async=is_async) if _holds_retriever(part) else part

    if isinstance(retriever, RunnableSequence):
        # Only the last step with a retriever yields the candidates; those before it may feed a query to it.
        last = max(index for index, step in enumerate(retriever.steps) if _holds_retriever(step))
        steps = [counted(step) if index == last else step for index, step in enumerate(retriever.steps)]
        return retriever.model_copy(update={"first": steps[0], "middle": steps[1:-1], "last": steps[-1]})
    if isinstance(retriever, RunnableBranch):
        branches = [(condition, counted(branch)) for condition, branch in retriever.branches]
        return retriever.model_copy(update={"branches": branches, "default": counted(retriever.default)})
    update = {name: _mapped(value, counted) for name, value in vars(retriever).items()}
    if isinstance(retriever, RunnableBindingBase):
        update["kwargs"] = _raised(retriever.kwargs, count)
    return cast("RunnableSerializable[str, list[Document]]", retriever).model_copy(update=update)


class _Configured(Runnable[str, list[Document]]):
    """A configurable retriever, whose fields are chosen at the call; the number is set after that."""

    def __init__(self, retriever: DynamicRunnable[str, list[Document]], count: int, few: list[str]) -> None:
        self._retriever = retriever
        self._count = count
        self._few = few

    def invoke(self, input: str, config: RunnableConfig | None = None, **kwargs: Any) -> list[Document]:  # noqa: A002
        chosen, config = self._retriever.prepare(config)
        return with_count(chosen, self._count, self._few, is_async=False).invoke(input, config, **kwargs)

    async def ainvoke(self, input: str, config: RunnableConfig | None = None, **kwargs: Any) -> list[Document]:  # noqa: A002
        chosen, config = self._retriever.prepare(config)
        return await with_count(chosen, self._count, self._few, is_async=True).ainvoke(input, config, **kwargs)


class _Counting:
    """One retriever and what has to be set on its copy."""

    def __init__(self, retriever: BaseRetriever, count: int, few: list[str], is_async: bool) -> None:
        self.retriever = retriever
        self.count = count
        self.few = few
        self.is_async = is_async
        self.fields = vars(retriever)
        self.update: dict[str, Any] = {}
        self.is_set = False
        """Whether some field or inner retriever has taken the number."""

    def copy(self) -> RetrieverLike:
        self._inner_retrievers()
        self._own_fields()
        self._search_kwargs()
        for path in COUNT_PATHS:
            self._deep_field(path)
        copied = self.retriever.model_copy(update=self.update) if self.update else self.retriever
        return copied if self.is_set else self._through_the_call(copied)

    def _inner_retrievers(self) -> None:
        def counted(part: Any) -> Any:
            if not _yields_documents(part) or not _holds_retriever(part):
                return part
            self.is_set = True
            return with_count(part, self.count, self.few, is_async=self.is_async)

        for name, value in self.fields.items():
            changed = _mapped(value, counted)
            if changed is not value:
                self.update[name] = changed
        if not self.is_set:
            return
        # Our own retriever, inside another one: what it reranks has to cover what the outer one wants.
        fetch_k = self.fields.get("fetch_k")
        if isinstance(fetch_k, int) and fetch_k < self.count:
            self.update["fetch_k"] = self.count
        if isinstance(top_n := self.fields.get("top_n"), int) and top_n < self.count:
            self.few.append(f"set top_n on {_name(self.retriever)}")
        for value in self.fields.values():
            if not isinstance(value, Runnable):
                self.few += [f"set {cut}" for cut in _cuts(value, self.count)]

    def _own_fields(self) -> None:
        for name in COUNT_FIELDS:
            field = type(self.retriever).model_fields.get(name)
            value = self.fields.get(name)
            if field is None or isinstance(value, bool):
                continue
            if isinstance(value, int) or (value is None and int in get_args(field.annotation)):
                largest = min((each.le for each in field.metadata if hasattr(each, "le")), default=self.count)
                if largest < self.count:
                    self.few.append(f"{name} on {_name(self.retriever)} is at most {largest}")
                self.update[name] = min(self.count, largest)
                self.is_set = True

    def _search_kwargs(self) -> None:
        value = self.fields.get("search_kwargs", {})
        if not isinstance(value, Mapping):
            return
        kwargs = dict(value)
        is_vector_store = isinstance(self.fields.get("vectorstore"), VectorStore)
        if is_vector_store and not self.update.keys() & COUNT_FIELDS:
            kwargs.setdefault("k", self.count)
        # Several hits may belong to one document of a docstore, and a retriever with a `k` of its own chooses among the
        # hits: there the larger number wins.
        chooses = "docstore" in self.fields or "k" in self.update
        for name in COUNT_FIELDS:
            if isinstance(kwargs.get(name), int):
                kwargs[name] = max(kwargs[name], self.count) if chooses else self.count
                self.is_set = True
        if "docstore" in self.fields:
            self.few.append(
                f"set a larger k in search_kwargs of {_name(self.retriever)}, where hits of one document count once"
            )
        # Maximal marginal relevance chooses k among fetch_k (20 by default): with no more than k it would choose nothing.
        pool = kwargs.get("fetch_k", 20 if self.fields.get("search_type") == "mmr" else None)
        if is_vector_store and isinstance(pool, int) and pool < self.count:
            kwargs["fetch_k"] = 2 * self.count
        if kwargs != value:
            self.update["search_kwargs"] = kwargs

    def _deep_field(self, path: tuple[str, ...]) -> None:
        changed = _with_value(self.fields.get(path[0]), path[1:], self.count)
        if changed is not None:
            self.update[path[0]] = changed
            self.is_set = True

    def _through_the_call(self, copied: BaseRetriever) -> RetrieverLike:
        taken = [_takes_k(copied._get_relevant_documents)]
        if self.is_async or taken == ["any"]:  # a guess is made for both ways of calling, or for none
            taken.append(_takes_k(copied._aget_relevant_documents))
        if not all(taken):
            self.few.append(f"set k on {_name(copied)}")
            return copied
        if "any" in taken:
            self.few.append(f"set k on {_name(copied)}, which seems to ignore the k that it is passed")
        return copied.bind(k=self.count)


def _raised(kwargs: Mapping[str, Any], count: int) -> dict[str, Any]:
    """Return bound arguments of a call with `k` and mmr's `fetch_k`, where they are bound, large enough."""
    raised = dict(kwargs)
    if "k" in kwargs:
        raised["k"] = count
    if isinstance(pool := kwargs.get("fetch_k"), int) and pool < count:
        raised["fetch_k"] = 2 * count
    return raised


def _takes_k(method: Any) -> str | None:
    """Return how a method takes `k`: as a parameter ("named"), among any others ("any"), or not at all (`None`)."""
    parameters = inspect.signature(method).parameters
    if "k" in parameters:
        return "named"
    return "any" if any(each.kind is each.VAR_KEYWORD for each in parameters.values()) else None


def _mapped(value: Any, change: Any, depth: int = 2) -> Any:
    """Return `value` with every runnable in it changed; the same object where nothing was."""
    if isinstance(value, Runnable):
        return change(value)
    if not _may_hold_runnables(value, depth):
        return value
    parts = value.values() if isinstance(value, Mapping) else value
    changed = [_mapped(part, change, depth - 1) for part in parts]
    if all(map(lambda new, old: new is old, changed, parts)):
        return value
    return dict(zip(value, changed, strict=True)) if isinstance(value, Mapping) else type(value)(changed)


def _may_hold_runnables(value: Any, depth: int) -> bool:
    """Return whether to look into a container: one that is long or deep is a collection of documents or numbers."""
    return depth > 0 and isinstance(value, list | tuple | Mapping) and len(value) <= LARGEST_COMPOSITION


def _holds_retriever(runnable: Any) -> bool:
    """Return whether a runnable is a retriever or is made of one."""
    if isinstance(runnable, BaseRetriever | _Configured):
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
    """Return whether candidates may come from it: a chain that writes queries declares another output."""
    try:
        return runnable.OutputType in (Any, list[Document])
    except TypeError:  # a runnable without annotations says so like this
        return True


def _cuts(compressor: Any, count: int) -> Iterator[str]:
    """Yield which fields of a document compressor, or of those in its pipeline, leave fewer than `count`."""
    if not isinstance(compressor, BaseModel):
        return
    for name in CUTS:
        if isinstance(value := getattr(compressor, name, None), int) and value < count:
            yield f"{name} on {type(compressor).__name__}"
    transformers = getattr(compressor, "transformers", None)
    for each in transformers if isinstance(transformers, list | tuple) else ():
        yield from _cuts(each, count)


def _with_value(holder: Any, path: tuple[str, ...], count: int) -> Any:
    """Return a copy of a mapping or model with the integer at `path` replaced; `None` where there is none."""
    name, *rest = path
    inner = holder.get(name) if isinstance(holder, Mapping) else getattr(holder, name, None)
    if rest:
        inner = _with_value(inner, tuple(rest), count)
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
"""When each retriever was last warned about: by `id`, with a weak reference, since ids are used again."""
_warned_lock = threading.Lock()
"""Guards `_warned`: retrievers are called from several threads."""


def warn_few(retriever: RetrieverLike, count: int, got: int, few: list[str]) -> None:
    """Log once a minute for each retriever that `got` candidates came where `count` were wanted."""
    now = time.monotonic()
    with _warned_lock:
        reference, warned_at = _warned.get(id(retriever), (None, 0.0))
        if reference is not None and reference() is retriever and now - warned_at < WARN_EVERY_S:
            return
        if len(_warned) >= 1024:
            _warned.clear()
        _warned[id(retriever)] = weakref.ref(retriever), now
    advice = "; ".join(dict.fromkeys(few))
    _log.warning(
        "fetch_k asked for %d candidates, got %d: %s (this warning comes at most once a minute)", count, got, advice
    )
