"""The contract: a scorer turns a query and documents into one score per document, in input order.

An author of a backend writes one of three:

- `LocalBackend`: `score(query, documents)`, plain and blocking; the core runs it on a worker thread.
- `HostedBackend` (in `hosted.py`): `encode(request)` and `decode(body)`, two pure functions; the core sends, times and checks.
- `SDKBackend` (there too): `open()` and `ask(client, request)`, for a vendor whose own async client is used.

Policies subclass `Wrapper`: they are what they wrap.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Hashable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar

from .errors import BackendError, RerankError, clause
from .loop import Workers
from .model_id import ModelId
from .types import Capabilities, RerankRequest, Scores, checked

__all__ = ["Backend", "LocalBackend", "Scorer", "Wrapper"]

MAX_IN_FLIGHT = 8


class Scorer(ABC):
    """Anything that scores: a backend, or a policy around scorers."""

    children: tuple[Scorer, ...] = ()
    """The scorers that it asks, in order; a backend has none."""
    capabilities: Capabilities = Capabilities()
    """What it takes and what its scores mean."""
    keeps_deadline: bool = False
    """Whether it watches the deadline of the call itself (a fallback does, so that its last entry can still answer)."""
    instant: bool = False
    """Whether it answers at once and cannot fail: a fallback then asks it even when no time is left."""
    deadline: float | None = None
    """Seconds that it gives a whole call. `Reranker` starts that clock before it reads the documents."""
    quick: bool = False
    """Whether it answers within milliseconds: a fallback then reserves only a small part of the deadline for it."""

    @property
    @abstractmethod
    def label(self) -> str:
        """The spec of who answers, for people."""

    @property
    def spec_name(self) -> str:
        """The label without how local models are run: what one writes in a spec."""
        return self.label

    @property
    def model_id(self) -> ModelId | None:
        """The one model that is meant to answer; `None` where several answer together."""
        return ModelId(self.label)

    @abstractmethod
    async def ascore(self, request: RerankRequest) -> Scores:
        """Score every document of `request`.

        Raises:
            BackendError: No answer, a refusal, or an answer that is not one finite score for every document.
        """

    def tokens(self, text: str) -> Sequence[tuple[int, int]] | None:
        """Return the (start, end) characters of the tokens of `text`, or `None` where the tokenizer is not at hand."""
        return None

    @property
    def answering(self) -> tuple[Scorer, ...]:
        """Those of `children` whose scores may be the answer; none where the scores are its own."""
        return ()

    def walk(self) -> Iterator[Scorer]:
        """Yield this scorer and all that are inside it, each before its children."""
        yield self
        for child in self.children:
            yield from child.walk()

    def leaves(self) -> Iterator[Scorer]:
        """Yield the scorers whose own scores may be the answer."""
        if not self.answering:
            yield self
        for child in self.answering:
            yield from child.leaves()

    def state(self) -> Mapping[str, Mapping[str, Any]]:
        """Return what its policies know of each backend now (breaker, limit, cache), by label; plain data.

        Of two children with one label (servers of one kind, say) the second is `label (2)`.
        """
        states: dict[str, Mapping[str, Any]] = {}
        for child in self.children:
            for label, state in child.state().items():
                name, place = label, 2
                while name in states:
                    name, place = f"{label} ({place})", place + 1
                states[name] = state
        if own := self.own_state():
            states[self.label] = {**states.get(self.label, {}), **own}
        return states

    def own_state(self) -> Mapping[str, Any]:
        """Return what this scorer itself adds to `state`."""
        return {}

    async def awarmup(self) -> None:
        """Load what the first call would load: here, in all children."""
        for child in self.children:
            await child.awarmup()

    async def aclose(self) -> None:
        """Give back connections, threads and models, here in all children; a later call makes them anew."""
        for child in self.children:
            await child.aclose()


class Wrapper(Scorer):
    """A scorer around a scorer; delegates everything and changes nothing."""

    def __init__(self, inner: Scorer) -> None:
        """Wrap `inner`."""
        self.inner = inner
        self.children = (inner,)
        own_label = type(inner).label is not Wrapper.label
        self._labelled: Scorer = inner._labelled if isinstance(inner, Wrapper) and not own_label else inner
        self.capabilities = inner.capabilities
        self.instant = inner.instant
        self.quick = inner.quick
        self.keeps_deadline = inner.keeps_deadline
        self.deadline = inner.deadline

    @property
    def label(self) -> str:
        """The inner scorer's."""
        return self._labelled.label

    @property
    def spec_name(self) -> str:
        """The inner scorer's."""
        return self.inner.spec_name

    @property
    def model_id(self) -> ModelId | None:
        """The inner scorer's."""
        return self.inner.model_id

    async def ascore(self, request: RerankRequest) -> Scores:
        """Ask the inner scorer."""
        return await self.inner.ascore(request)

    def tokens(self, text: str) -> Sequence[tuple[int, int]] | None:
        """Ask the inner scorer."""
        return self.inner.tokens(text)

    @property
    def answering(self) -> tuple[Scorer, ...]:
        """The inner scorer."""
        return self.children


class Backend(Scorer):
    """A model or a vendor, by name."""

    name: str = ""
    """The backend's name in specs; set by the registry."""
    model: str = ""
    """The model asked for; the class attribute is the default."""
    remote: ClassVar[bool] = False
    """Whether requests leave the process."""
    max_in_flight: int = MAX_IN_FLIGHT
    """Parts of one call that run at once, where the core splits it."""
    by_model: ClassVar[Mapping[str, Capabilities]] = {}
    """Rows for the models that differ from the class's `capabilities`."""
    Options: ClassVar[type[Any] | None] = None
    """The model of its options (see `rerank_plugins.options`): it is made with `options`, an instance of that, and with
    `model` where it has models. `None`: its options are the keyword arguments of its constructor."""

    def __init__(self, model: str | None = None) -> None:
        """Take the model's name, or the default one."""
        self.model = model or self.model
        self.capabilities = self.by_model.get(self.model, self.capabilities)

    @property
    def model_id(self) -> ModelId:
        """What answers, and how a local model is run; without the revision, which takes reading the model's files."""
        return ModelId(self.name or type(self).__name__, self.model)

    def fetch(self) -> Path | None:
        """Bring the model's files to this machine, which may take minutes, and return their folder; `None`: it has none."""
        return None

    @property
    def account(self) -> Hashable:
        """Who is asked, for what all rerankers of the process share about it (rate limit, breaker)."""
        return self.name, self.model

    @property
    def fingerprint(self) -> str:
        """What a score depends on beside the texts and the options of the spec: the model's files, say."""
        return self.label

    async def afingerprint(self) -> str:
        """Return `fingerprint` once the model's files are on this machine; fetches them where they are not.

        It loads no model. Until the files are there, `fingerprint` cannot tell one commit of a hub's model from another.
        """
        return self.fingerprint

    @property
    def revision(self) -> str | None:
        """What tells the model's weights from others of its name, on every machine; `None`: not known, or not yet."""
        return None

    @property
    def spec_name(self) -> str:
        """`name:model`, as a spec says it."""
        return self.model_id.spec

    @property
    def label(self) -> str:
        """`name:model`, and how it is run."""
        return str(self.model_id)


class LocalBackend(Backend):
    """A model in this process. An author writes `score` (blocking is fine: it runs on the backend's own thread)."""

    def __init__(self, model: str | None = None) -> None:
        """Take the model's name or folder, or the default one."""
        super().__init__(model)
        self._workers = Workers(1, f"rerank-{type(self).__name__.lower()}")

    def score(self, query: str, documents: Sequence[str]) -> Sequence[float]:
        """Return one finite raw score per document, in input order."""
        raise NotImplementedError(f"{type(self).__name__} has to define score(query, documents).")

    async def ascore(self, request: RerankRequest) -> Scores:
        """Run `score` on the backend's worker thread and check what it gives."""
        try:
            values = await self._workers.run(self._checked, request)
        except RerankError:
            raise
        except Exception as error:
            raise failed(self.label, error) from error
        return Scores(values=values, model=self.label, capabilities=self.capabilities)

    def _checked(self, request: RerankRequest) -> tuple[float, ...]:
        # On the worker too: what `score` gives may be computed only as it is read (a generator, a map).
        return checked(self.score(request.query, request.documents), request, self.label)

    async def aclose(self) -> None:
        """Let the worker thread end."""
        self._workers.close()


def failed(label: str, error: Exception) -> BackendError:
    """Return the error for whatever a model in this process raised: a defect, which no stand-in may hide."""
    return BackendError(
        f"{label} failed with {type(error).__name__}: {clause(error)}. The model or its backend is broken: "
        "`rerank-plugins check` shows it alone.",
        backend=label,
    )
