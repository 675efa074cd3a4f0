"""The contract: a scorer turns a query and documents into one score per document, in input order.

An author of a backend writes one of three:

- `LocalBackend`: `score(query, documents)`, plain and blocking; the core runs it on a worker thread.
- `HostedBackend` (in `hosted.py`): `encode(request)` and `decode(body)`, two pure functions; the core sends, times and checks.
- `SDKBackend` (there too): `open()` and `ask(client, request)`, for a vendor whose own async client is used.

Policies subclass `Wrapper`: they are what they wrap.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Hashable, Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar

from .errors import BackendError, RerankError
from .loop import Workers
from .types import Capabilities, RerankRequest, Scores, checked

__all__ = ["Backend", "LocalBackend", "Scorer", "Wrapper"]

MAX_IN_FLIGHT = 8


class Scorer(ABC):
    """Anything that scores: a backend, or a policy around scorers."""

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

    @abstractmethod
    async def ascore(self, request: RerankRequest) -> Scores:
        """Score every document of `request`.

        Raises:
            BackendError: No answer, a refusal, or an answer that is not one finite score for every document.
        """

    def tokens(self, text: str) -> Sequence[tuple[int, int]] | None:
        """Return the (start, end) characters of the tokens of `text`, or `None` where the tokenizer is not at hand."""
        return None

    def state(self) -> Mapping[str, Mapping[str, Any]]:
        """Return what its policies know of each backend now (breaker, limit, cache), by label; plain data."""
        return {}

    async def awarmup(self) -> None:
        """Load what the first call would load."""

    async def aclose(self) -> None:
        """Give back connections, threads and models; a later call makes them anew."""


class Wrapper(Scorer):
    """A scorer around a scorer; delegates everything and changes nothing."""

    def __init__(self, inner: Scorer) -> None:
        """Wrap `inner`."""
        self.inner = inner
        self.capabilities = inner.capabilities
        self.instant = inner.instant
        self.quick = inner.quick
        self.keeps_deadline = inner.keeps_deadline
        self.deadline = inner.deadline

    @property
    def label(self) -> str:
        """The inner scorer's."""
        return self.inner.label

    async def ascore(self, request: RerankRequest) -> Scores:
        """Ask the inner scorer."""
        return await self.inner.ascore(request)

    def tokens(self, text: str) -> Sequence[tuple[int, int]] | None:
        """Ask the inner scorer."""
        return self.inner.tokens(text)

    def state(self) -> Mapping[str, Mapping[str, Any]]:
        """Return the inner scorer's, and this one's own where it has any."""
        inner, own = self.inner.state(), self.own_state()
        return {**inner, self.label: {**inner.get(self.label, {}), **own}} if own else inner

    def own_state(self) -> Mapping[str, Any]:
        """Return what this policy adds to `state`."""
        return {}

    async def awarmup(self) -> None:
        """Warm up the inner scorer."""
        await self.inner.awarmup()

    async def aclose(self) -> None:
        """Close the inner scorer."""
        await self.inner.aclose()


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
    def detail(self) -> str | None:
        """How a local model is run, for the label."""
        return None

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
        name = self.name or type(self).__name__
        return f"{name}:{self.model}" if self.model and self.model != name else name

    @property
    def label(self) -> str:
        """`name:model`, and how it is run."""
        return f"{self.spec_name} [{self.detail}]" if self.detail else self.spec_name


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
        f"{label} failed with {type(error).__name__}: {str(error).rstrip(' .')}. The model or its backend is broken: "
        "`rerank-plugins check` shows it alone.",
        backend=label,
    )
