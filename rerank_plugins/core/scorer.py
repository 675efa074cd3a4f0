"""The contract: a scorer takes a query and documents, and returns one score per document, in input order.

To add a backend, subclass one of these:

- `LocalBackend`: implement `score(query, documents)`. It may block; the core runs it on a worker thread.
- `HostedBackend` (hosted.py): implement `encode(request)` and `decode(body)`, two pure functions. The core sends the
  request, measures the time and checks the scores.
- `SDKBackend` (sdk.py): implement `open()` and `ask(client, request)`, for a vendor that is reached through its own
  SDK.

A policy (retry, cache, fallback …) is a `Wrapper`: a scorer around another scorer.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Hashable, Iterator, Mapping, Sequence
from dataclasses import fields, replace
from pathlib import Path
from typing import Any, ClassVar

from ._runtime.background_loop import Workers
from .alignment import checked
from .defaults import MAX_IN_FLIGHT
from .errors import BackendError, RerankError, clause
from .model_id import ModelId
from .types import Blocks, Capabilities, Depth, RerankRequest, Scores

__all__ = ["Backend", "LocalBackend", "Scorer", "Wrapper"]


class Scorer(ABC):
    """Scores documents: a backend, or a policy around other scorers.

    >>> import asyncio
    >>> class Length(Scorer):
    ...     label = "length"
    ...
    ...     async def ascore(self, request: RerankRequest) -> Scores:
    ...         values = tuple(1 / len(document) for document in request.documents)
    ...         return Scores(values=values, model=self.label, capabilities=self.capabilities)
    >>> request = RerankRequest(query="capital", documents=("Oslo", "Berlin"))
    >>> asyncio.run(Length().ascore(request)).best_first()
    [0, 1]
    """

    children: tuple[Scorer, ...] = ()
    """The scorers inside this one, in the order in which it calls them. Empty for a backend."""
    capabilities: Capabilities = Capabilities()
    """What it accepts (limits, instructions), and the scale of its scores."""
    keeps_deadline: bool = False
    """Whether it enforces the deadline itself. A fallback does, so that its last entry still has time to answer."""
    instant: bool = False
    """Whether it answers immediately and cannot fail. A fallback calls such an entry even when no time is left."""
    deadline: float | None = None
    """Seconds for the whole call. `Reranker` starts the clock before it reads the documents."""
    quick: bool = False
    """Whether it answers within milliseconds. A fallback reserves only a small part of the deadline for such an
    entry."""

    @property
    @abstractmethod
    def label(self) -> str:
        """Display name, such as `cohere:rerank-v4.0-fast` or `embedded [onnxruntime float32]`."""

    @property
    def spec_name(self) -> str:
        """The label without runtime and dtype: the form that a spec uses."""
        return self.label

    @property
    def model_id(self) -> ModelId | None:
        """The model that computes the scores. `None` if several models contribute to them."""
        return ModelId(self.label)

    @abstractmethod
    async def ascore(self, request: RerankRequest) -> Scores:
        """Score every document of `request`.

        Returns:
            One value for each document, in the order of the request.

        Raises:
            BackendError: There is no answer, or the answer is not one finite score for each document.
        """

    async def cheap_scores(self, request: RerankRequest) -> Sequence[float]:
        """Return an estimate of each document's score that takes little time. Only a backend with a `depth` has one.

        Only the order of the numbers and their distances, in standard deviations, have a meaning.

        Args:
            request: The query and the documents.
        """
        raise NotImplementedError(f"{type(self).__name__} must define cheap_scores(request): it has a depth.")

    async def request_warning(self, request: RerankRequest) -> str | None:
        """Return why the answer to a whole request may be poor, `None` if nothing is known; it becomes the `reason`.

        Only the backend is asked. Its `ascore` may be given a part of the request, or pieces of the documents.

        Args:
            request: The query and the documents, before they are divided.
        """
        return None

    def tokens(self, text: str) -> Sequence[tuple[int, int]] | None:
        """Return the (start, end) characters of each token of `text`; `None` if no tokenizer is available."""
        return None

    @property
    def answering(self) -> tuple[Scorer, ...]:
        """The children whose scores this scorer may return as its own. Empty if it computes the scores itself."""
        return ()

    def walk(self) -> Iterator[Scorer]:
        """Yield this scorer and all scorers inside it, each before its children."""
        yield self
        for child in self.children:
            yield from child.walk()

    def leaves(self) -> Iterator[Scorer]:
        """Yield the scorers inside (or this one) that compute the returned scores; see `answering`."""
        if not self.answering:
            yield self
        for child in self.answering:
            yield from child.leaves()

    def probes(self) -> Iterator[Scorer]:
        """Yield the scorers that a check calls: each backend, inside nothing that could answer in its place."""
        if not self.children:
            yield self
        for child in self.children:
            yield from child.probes()

    def failure(self, failures: Mapping[int, Exception | None]) -> Exception | None:
        """Return the error that a call would raise now, `None` if it would be answered.

        Args:
            failures: The error of each scorer in `probes`, by the `id` of the scorer; `None` if it answered.
        """
        if id(self) in failures:
            return failures[id(self)]
        return next((error for child in self.children if (error := child.failure(failures)) is not None), None)

    def state(self) -> Mapping[str, Mapping[str, Any]]:
        """Return the state of all policies (breaker, limit, cache) as plain data, by label of the backend.

        If two children have the same label, such as two servers of one kind, the second is `label (2)`.
        """
        states: dict[str, Mapping[str, Any]] = {}
        for child in self.children:
            for label, state in child.state().items():
                name, number = label, 2
                while name in states:
                    name, number = f"{label} ({number})", number + 1
                states[name] = state
        if own := self.own_state():
            states[self.label] = {**states.get(self.label, {}), **own}
        return states

    def own_state(self) -> Mapping[str, Any]:
        """Return what this scorer itself contributes to `state`."""
        return {}

    async def awarmup(self) -> None:
        """Load now what the first call would load, in all children."""
        for child in self.children:
            await child.awarmup()

    async def aclose(self) -> None:
        """Release connections, threads and models of all children. A later call opens them again."""
        for child in self.children:
            await child.aclose()


class Wrapper(Scorer):
    """A scorer around another scorer. It delegates all but `request_warning`; a policy overrides what it changes.

    >>> from dataclasses import replace
    >>> class Doubled(Wrapper):
    ...     async def ascore(self, request: RerankRequest) -> Scores:
    ...         scores = await self.inner.ascore(request)
    ...         return replace(scores, values=tuple(2 * value for value in scores.values))
    """

    def __init__(self, inner: Scorer) -> None:
        """Wrap `inner`, and take over its properties."""
        self.inner = inner
        self.children = (inner,)
        # The label is read often, so it is read directly from the nearest scorer inside that defines one.
        own_label = type(inner).label is not Wrapper.label
        self._label_source: Scorer = inner._label_source if isinstance(inner, Wrapper) and not own_label else inner
        self.capabilities = inner.capabilities
        self.instant = inner.instant
        self.quick = inner.quick
        self.keeps_deadline = inner.keeps_deadline
        self.deadline = inner.deadline

    async def awarmup(self) -> None:
        """Load now what the first call would load, and take over the limits that the inner scorer learns by that."""
        before = self.inner.capabilities
        await super().awarmup()
        after = self.inner.capabilities
        if after is not before:
            learned = {
                field.name: value
                for field in fields(Capabilities)
                if (value := getattr(after, field.name)) != getattr(before, field.name)
            }
            self.capabilities = replace(self.capabilities, **learned)

    @property
    def label(self) -> str:
        """The label of the inner scorer."""
        return self._label_source.label

    @property
    def spec_name(self) -> str:
        """The spec name of the inner scorer."""
        return self.inner.spec_name

    @property
    def model_id(self) -> ModelId | None:
        """The model of the inner scorer."""
        return self.inner.model_id

    async def ascore(self, request: RerankRequest) -> Scores:
        """Return the scores of the inner scorer."""
        return await self.inner.ascore(request)

    async def cheap_scores(self, request: RerankRequest) -> Sequence[float]:
        """Return the cheap scores of the inner scorer."""
        return await self.inner.cheap_scores(request)

    def tokens(self, text: str) -> Sequence[tuple[int, int]] | None:
        """Return the tokens of `text`, by the tokenizer of the inner scorer."""
        return self.inner.tokens(text)

    @property
    def answering(self) -> tuple[Scorer, ...]:
        """The inner scorer."""
        return self.children


class Backend(Scorer):
    """A model or a vendor. Subclass `LocalBackend`, `HostedBackend` or `SDKBackend` rather than this class.

    >>> from rerank_plugins import load_reranker
    >>> backend = next(scorer for scorer in load_reranker("lexical").scorer.walk() if isinstance(scorer, Backend))
    >>> backend.name, backend.remote, str(backend.model_id)
    ('lexical', False, 'lexical')
    """

    name: str = ""
    """The backend's name in specs. The registry sets it."""
    model: str = ""
    """The model's name. The class attribute is the default."""
    remote: ClassVar[bool] = False
    """Whether requests leave the process."""
    sent_digest: str = ""
    """Hash of the values that its spec sends along with each request, such as `body`; `""` for none."""
    learns_limits: ClassVar[bool] = False
    """Whether limits may become known at warm-up. Then the policies that enforce them are there from the start."""
    max_in_flight: int = MAX_IN_FLIGHT
    """How many parts of one call run at the same time, if the call is split."""
    blocks: Blocks | None = None
    """How a call is divided, if the backend compares documents and takes few at once. `None`: a call is one request, or
    is split by the limits of `capabilities`."""
    depth: Depth | None = None
    """How many documents are scored: as many as protect the top, in the order of `cheap_scores`. `None`: all."""
    by_model: ClassVar[Mapping[str, Capabilities]] = {}
    """Capabilities by model name, for models that differ from the class attribute `capabilities`."""
    Options: ClassVar[type[Any] | str | None] = None
    """The options model (see `rerank_plugins.options`). The backend is then built with `options`, an instance of it,
    and with `model` if it has models. `None`: the options are the keyword arguments of the constructor.

    A string, `"module:Class"`, says where the model is. All its options then have defaults, and a spec that only names
    the backend builds it without the model, since that needs pydantic."""

    def __init__(self, model: str | None = None) -> None:
        """Set the model.

        Args:
            model: Name of the model; `None` is the default of the class.
        """
        self.model = model or self.model
        self.capabilities = self.by_model.get(self.model, self.capabilities)

    @property
    def model_id(self) -> ModelId:
        """The model, with runtime and dtype for a local one. The revision is left out: it needs the model's files."""
        return ModelId(self.name or type(self).__name__, self.model)

    def fetch(self) -> Path | None:
        """Download the model's files, which may take minutes.

        Returns:
            Their folder; `None` if the backend has no files.
        """
        return None

    @property
    def account(self) -> Hashable:
        """Key under which all rerankers of the process share the rate limit and the circuit breaker."""
        return self.name, self.model

    @property
    def fingerprint(self) -> str:
        """Identifies what scores depend on besides texts and options, such as the model's files. Part of cache keys."""
        return self.label

    async def afingerprint(self) -> str:
        """Return `fingerprint` after downloading the model's files, unless they are on this machine. Loads no model.

        Before the download, `fingerprint` is the same for two commits of a model on a hub.
        """
        return self.fingerprint

    async def server_info(self) -> Mapping[str, Any] | None:
        """Return what the server's information endpoint says (model, limits, version), as plain data for a check.

        Returns:
            `None` for a vendor without such an endpoint, and for a model in this process.
        """
        return None

    @property
    def revision(self) -> str | None:
        """Identifies the model's weights on every machine. `None` if it is unknown, or not known yet."""
        return None

    @property
    def spec_name(self) -> str:
        """`name:model`, the form that a spec uses."""
        return self.model_id.spec

    @property
    def label(self) -> str:
        """`name:model`, with runtime and dtype for a local model."""
        return str(self.model_id)


class LocalBackend(Backend):
    """A model in this process. Implement `score`; it may block, since it runs on the backend's own worker thread.

    >>> from rerank_plugins import Reranker
    >>> class Overlap(LocalBackend):
    ...     capabilities = Capabilities(scale="unit")
    ...     model = "overlap-1"
    ...
    ...     def score(self, query: str, documents: Sequence[str]) -> Sequence[float]:
    ...         words = set(query.split())
    ...         return [len(words & set(document.split())) / len(words) for document in documents]
    >>> with Reranker(Overlap()) as reranker:
    ...     [result.index for result in reranker.rerank("capital of Germany", ["bananas", "the capital"])]
    [1, 0]
    """

    def __init__(self, model: str | None = None) -> None:
        """Set the model.

        Args:
            model: Name or folder of the model; `None` is the default of the class.
        """
        super().__init__(model)
        self._workers = Workers(1, f"rerank-{type(self).__name__.lower()}")

    def score(self, query: str, documents: Sequence[str]) -> Sequence[float]:
        """Score each document.

        Args:
            query: The question, never blank.
            documents: At least one text; none is blank, and none is repeated.

        Returns:
            One finite raw score per document, in input order.
        """
        raise NotImplementedError(f"{type(self).__name__} must define score(query, documents).")

    async def ascore(self, request: RerankRequest) -> Scores:
        """Run `score` on the worker thread and check its result."""
        try:
            values = await self._workers.run(self._checked, request)
        except RerankError:
            raise
        except Exception as error:
            raise unexpected_error(self.label, error) from error
        return Scores(values=values, model=self.label, capabilities=self.capabilities)

    def _checked(self, request: RerankRequest) -> tuple[float, ...]:
        # This runs on the worker too: `score` may return a generator, which computes the scores while it is read.
        return checked(self.score(request.query, request.documents), request, self.label)

    async def aclose(self) -> None:
        """Stop the worker thread after its current job."""
        self._workers.close()


def unexpected_error(label: str, error: Exception) -> BackendError:
    """Return the error for an exception of any type that a model in this process raised.

    It is a plain `BackendError`, so a fallback does not hide it: the model or the backend has a defect.
    """
    return BackendError(
        f"{label} failed with {type(error).__name__}: {clause(error)}. The model or its backend is broken: "
        "run `rerank-plugins check` to reproduce the error outside your program.",
        backend=label,
    )
