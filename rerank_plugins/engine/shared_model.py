"""Models that are loaded once in a process, whoever asks for them, and the backends that hold one.

A model of any engine is a `SharedModel`: its worker threads, its tokenizer, its network, and what forks and threads must not break. A
backend of any engine is a `ModelBackend`: the common options of local models, one model held (or a copy on each device), and let go.
"""

from __future__ import annotations

import asyncio
import os
import threading
import weakref
from abc import ABC, abstractmethod
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Generic, Self, TypeVar

from ..core.admission import FairSemaphore
from ..core.errors import ConfigError
from ..core.loop import Workers
from ..core.model_id import ModelId
from ..core.numeric import integer
from ..core.scorer import Backend
from ..core.types import RerankRequest, Scores, checked
from .load_log import LoadLog
from .weights_digest import digest, fingerprint, reading

if TYPE_CHECKING:
    import numpy as np

    from .tokenizer import Encoded, Limits, PairTokenizer

__all__ = [
    "CALLS",
    "LoadOptions",
    "ModelBackend",
    "SharedModel",
    "check_choice",
    "check_sizes",
    "logits",
    "score_pairs",
]

M = TypeVar("M", bound="SharedModel[Any, Any]")
N = TypeVar("N")
P = TypeVar("P")

CALLS = 32
"""Calls that are in a model at once; the others wait before anything of theirs is tokenized. Enough that short calls pass long ones batch by
batch; few enough that their rows (8 MB for 1,000 documents) fit."""


@dataclass(frozen=True, slots=True)
class LoadOptions:
    """How a model is to run; `None` leaves the choice to the engine."""

    device: str | None = None
    dtype: str | None = None
    runtime: str = "torch"
    remote_code: bool = False
    template: str | None = None
    """Of a language model, the name of its prompt."""
    file: Path | None = None
    """Of an ONNX model, which file of its folder."""

    def on(self, device: str | None) -> LoadOptions:
        """Return the options for a device of torch's, in one spelling: two would be two copies in memory."""
        exact = device == "cpu" and self.dtype is None
        return replace(self, device=None if device == "auto" else device, dtype="float32" if exact else self.dtype)

    @property
    def known_dtype(self) -> str | None:
        """The dtype, where it is known before the model is loaded."""
        return None if self.dtype == "auto" else self.dtype


class SharedModel(ABC, Generic[N, P]):
    """One model in memory: the network (`N`), and what makes its input of texts (`P`)."""

    _table: ClassVar[weakref.WeakValueDictionary[tuple[Any, ...], SharedModel[Any, Any]]] = (
        weakref.WeakValueDictionary()
    )
    """The models of all engines, for as long as somebody holds them."""
    _table_lock: ClassVar[threading.Lock] = threading.Lock()

    def __init__(self, folder: Path, options: LoadOptions, threads: int = 1) -> None:
        """Prepare; nothing is loaded before the first use. `shared` is how to get one."""
        self.folder = folder
        self.options = options
        self.pid = os.getpid()
        self.workers = Workers(threads, f"rerank-{folder.name}")
        self.admission = FairSemaphore(CALLS)
        # Two locks, one for each of the two that are made once: a call that needs the tokenizer does not wait for the weights.
        self._network_lock, self._reader_lock = threading.Lock(), threading.Lock()
        self._network: N | None = None
        self._reader: P | None = None
        self._loaded_from: str | None = None

    @classmethod
    def shared(cls, folder: Path, options: LoadOptions) -> Self:
        """Return the process's one model of a kind, folder and options; it leaves memory when nobody holds it any more.

        A hub's revision is a folder of its own, so the folder stands for model and revision.

        Raises:
            ConfigError: The folder's settings cannot be read.
        """
        key = cls, folder.resolve(), options
        with SharedModel._table_lock:
            model = SharedModel._table.get(key)
            if not isinstance(model, cls):
                model = SharedModel._table[key] = cls(folder, options)
            return model

    @abstractmethod
    def load(self) -> N:
        """Read the weights onto the device; takes a moment."""

    @abstractmethod
    def read(self) -> P:
        """Read the tokenizer, and make what turns texts into the network's input."""

    @property
    @abstractmethod
    def tokenizer(self) -> PairTokenizer:
        """Its tokenizer."""

    @property
    @abstractmethod
    def weights(self) -> list[Path]:
        """The files that hold its weights."""

    @abstractmethod
    def loaded_as(self, network: N) -> tuple[str, str, str]:
        """Return runtime, dtype and device of the loaded network, for the log."""

    @property
    def network(self) -> N:
        """The model itself, loaded when first asked for (on a worker: this takes a moment)."""
        with self._network_lock:
            if self._network is None:
                self._network = self._load()
            return self._network

    def _load(self) -> N:
        load = LoadLog(self.folder)
        self._loaded_from = fingerprint(self.folder, self.weights)
        network = self.load()
        load.finished(*self.loaded_as(network))
        return network

    async def ready(self) -> N:
        """Return the model itself, loaded on a worker."""
        return await self.workers.run(lambda: self.network)

    @property
    def reader(self) -> P:
        """What turns texts into the network's input, made when first asked for."""
        with self._reader_lock:
            if self._reader is None:
                self._reader = self.read()
            return self._reader

    @property
    def fingerprint(self) -> str:
        """A hash of the files that it was loaded from, which others may have replaced since; else of those that are there."""
        return self._loaded_from or fingerprint(self.folder, self.weights)

    @property
    def dtype(self) -> str | None:
        """What it computes in; `None` until it is known."""
        return self.options.known_dtype


_abandoned: list[Any] = []


def _after_fork() -> None:
    # torch's threads, a GPU's context and a session's inner state are not made for a fork. The child loads anew, and never frees what it
    # inherited.
    SharedModel._table_lock = threading.Lock()
    _abandoned.extend(SharedModel._table.values())
    SharedModel._table.clear()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)


class ModelBackend(Backend, Generic[M]):
    """A backend over the model in a folder. Subclasses say how it is loaded, and score."""

    kind: type[M]
    """The class of its model."""

    def __init__(self, folder: Path | str, copies: Sequence[LoadOptions], batch_tokens: int | None) -> None:
        """Point at a folder; the model is loaded by the first call, or by `warmup()`.

        Args:
            folder: The model's.
            copies: How it is loaded, once for each device.
            batch_tokens: Tokens of one batch; `None` is what the engine likes.
        """
        super().__init__(str(folder))
        self.folder = Path(folder).expanduser()
        self.batch_tokens = batch_tokens
        self._copies = list(copies)
        self._held: list[M] = []

    @property
    def model_id(self) -> ModelId:
        """With the runtime and, once it is known, the dtype."""
        # Who closed it and wants its name does not take hold of a model that others still use.
        options = self._copies[0]
        dtype = self._held[0].dtype if self._held else options.known_dtype
        return replace(super().model_id, runtime=options.runtime, dtype=dtype)

    @property
    def fingerprint(self) -> str:
        """The spec's name, and a hash of the model's files: another model may come to stand in the same folder.

        Not the label, which may have another dtype once the model is loaded: that would be another name for the same scores.
        """
        return f"{self.spec_name} {self.shared_model.fingerprint}"

    async def afingerprint(self) -> str:
        """Read the files on a thread."""
        return await reading.run(lambda: self.fingerprint)

    @property
    def revision(self) -> str:
        """A hash of the weights."""
        return digest(self.shared_model.weights)

    @property
    def shared_models(self) -> list[M]:
        """The process's one model of this folder and these options, on each device."""
        held = self._held
        if not held or held[0].pid != os.getpid():
            held = self._held = [self.kind.shared(self.folder, options) for options in self._copies]
        return held

    @property
    def shared_model(self) -> M:
        """The first of them, which also reads the texts and lets the calls in."""
        return self.shared_models[0]

    def tokens(self, text: str) -> Sequence[tuple[int, int]]:
        """Return the characters of each token of `text`."""
        return self.shared_model.tokenizer.offsets(text)

    async def awarmup(self) -> None:
        """Load the tokenizer and the model."""
        models = self.shared_models
        await asyncio.gather(models[0].workers.run(lambda: models[0].reader), *(model.ready() for model in models))

    async def aclose(self) -> None:
        """Let the model go; it leaves memory when no other reranker holds it."""
        self._held = []

    async def ascore(self, request: RerankRequest) -> Scores:
        """Score every document; `truncated` tells which were cut, `reason` whatever else there is to say."""
        models = self.shared_models
        async with models[0].admission.acquire():
            values, truncated, reason = await self.score(models, request)
        label = self.label
        return Scores(
            values=checked(values, request, label),
            model=label,
            capabilities=self.capabilities,
            truncated=tuple(truncated),
            reason=reason,
        )

    @abstractmethod
    async def score(
        self, models: list[M], request: RerankRequest
    ) -> tuple[Sequence[float], Sequence[bool], str | None]:
        """Return raw scores, which documents were cut, and a reason, where there is one."""


Run = Callable[[Sequence["Encoded"], Callable[[list[int], "np.ndarray"], None]], Awaitable[None]]
"""Runs rows through a model and hands on positions and output after every batch."""


async def score_pairs(
    model: SharedModel[Any, PairTokenizer], limits: Limits, request: RerankRequest, max_tokens: int, run: Run
) -> tuple[list[float], list[bool], None]:
    """Score every document with a cross-encoder: the query and a document are one row, and its logit is the score.

    Args:
        model: Reads the texts.
        limits: Of the model.
        request: The texts.
        max_tokens: The longest row.
        run: Runs the rows.

    Raises:
        ConfigError: The tokenizer or the output is none of a cross-encoder.
    """
    tokenizer = await model.workers.run(lambda: model.tokenizer)
    if not tokenizer.joins_pairs:
        raise ConfigError(f"The tokenizer in {model.folder} joins no pair of texts: this is no cross-encoder's.")
    query = limits.prompt + request.query
    rows = await model.workers.run(partial(tokenizer.pairs, query, request.documents, max_tokens))
    values: list[float] = [0.0] * len(rows)

    def keep(positions: list[int], output: np.ndarray) -> None:
        for position, value in zip(positions, logits(output, model.folder), strict=True):
            values[position] = value

    await run(rows, keep)
    return values, [row.truncated for row in rows], None


def logits(output: np.ndarray, folder: Path) -> list[float]:
    """Return one logit a row: the only one, or of two labels the second's minus the first's.

    The sigmoid of that difference is the softmax of the second label.

    Args:
        output: (rows,), (rows, 1) or (rows, 2).
        folder: The model's, for the error.

    Raises:
        ConfigError: Another shape.
    """
    if output.ndim == 1:
        return [float(value) for value in output]
    if output.ndim == 2 and output.shape[1] == 1:
        return [float(value) for value in output[:, 0]]
    if output.ndim == 2 and output.shape[1] == 2:
        return [float(value) for value in output[:, 1] - output[:, 0]]
    raise ConfigError(
        f"{folder} gives an output of shape {output.shape} and no single score: it is no cross-encoder "
        "(perhaps an embedding model). Name one that was trained to rerank."
    )


def check_choice(name: str, value: Any, choices: tuple[str, ...]) -> None:
    """Refuse a value that is not among `choices`; `None` is always fine.

    Raises:
        ConfigError: It is not among them.
    """
    if value is not None and value not in choices:
        raise ConfigError(f"{name} {value!r} is not offered here; choose one of: {', '.join(choices)}.")


def check_sizes(max_tokens: Any, batch_tokens: Any) -> None:
    """Refuse numbers of tokens that are too small; `None` is always fine.

    Raises:
        ConfigError: One is no integer, or is too small.
    """
    for name, value, least in (("max_tokens", max_tokens, 16), ("batch_tokens", batch_tokens, 1)):
        if value is not None:  # a text that is longer than batch_tokens goes alone
            integer(value, name, least)
