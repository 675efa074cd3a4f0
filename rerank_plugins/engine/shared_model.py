"""Models in memory, shared by all rerankers of the process, and the batching of rows of text.

`SharedModel` is the base of the models of all engines. It holds worker threads, tokenizer and network, and makes them
safe under threads and forks.
"""

from __future__ import annotations

import os
import threading
import weakref
from abc import ABC, abstractmethod
from collections.abc import Awaitable, Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Generic, Self, TypeVar

from ..core._runtime.admission import FairSemaphore
from ..core._runtime.background_loop import Workers
from ..core._runtime.gather import gather
from ..core.errors import ConfigError
from .load_log import LoadLog
from .weights_digest import fingerprint

if TYPE_CHECKING:
    import numpy as np

    from .tokenizer import Encoded, PairTokenizer

__all__ = [
    "MAX_CONCURRENT_CALLS",
    "MAX_PADDING",
    "LoadOptions",
    "SharedModel",
    "check_output",
    "length_batches",
    "packed_batches",
    "padded_batch",
    "run_batches",
]

B = TypeVar("B")  # a batch
N = TypeVar("N")  # the network
P = TypeVar("P")  # the preprocessor

MAX_CONCURRENT_CALLS = 32
"""Calls that one model serves concurrently. Further calls wait before their texts are tokenized. It is high enough that
short calls overtake long ones between batches, and low enough that the rows of all calls fit in memory (8 MB for a call
of 1,000 documents)."""
MAX_PADDING = 0.125
"""Largest difference in length within a batch, as a share of the longest row."""


@dataclass(frozen=True, slots=True)
class LoadOptions:
    """How to load a model; `None` leaves the choice to the engine."""

    device: str | None = None
    dtype: str | None = None
    runtime: str = "torch"
    remote_code: bool = False
    template: str | None = None
    """The name of the prompt template, for a language model."""
    file: Path | None = None
    """The ONNX file in the model's folder, for an ONNX model."""
    cached_graph: bool = False
    """Whether onnxruntime's optimised graph is kept in files for the next process, for an ONNX model."""

    @property
    def known_dtype(self) -> str | None:
        """The dtype, or `None` if it is known only once the model is loaded."""
        return None if self.dtype == "auto" else self.dtype


class SharedModel(ABC, Generic[N, P]):
    """One model in memory: the network (`N`), and the preprocessor that turns texts into its input (`P`)."""

    _table: ClassVar[weakref.WeakValueDictionary[tuple[Any, ...], SharedModel[Any, Any]]] = (
        weakref.WeakValueDictionary()
    )
    """The models of all engines. A model leaves the table when its last user releases it."""
    _table_lock: ClassVar[threading.Lock] = threading.Lock()
    """Guards `_table`, so that two threads do not load one model twice."""

    def __init__(self, folder: Path, options: LoadOptions, threads: int = 1) -> None:
        """Create the model without loading anything. Call `shared` instead: it returns an existing model if it can."""
        self.folder = folder
        self.options = options
        self.pid = os.getpid()
        self.workers = Workers(threads, f"rerank-{folder.name}")
        self.admission = FairSemaphore(MAX_CONCURRENT_CALLS)
        # One lock guards `_network`, the other `_preprocessor`, so that a call that needs only the tokenizer does not
        # wait for the weights.
        self._network_lock, self._preprocessor_lock = threading.Lock(), threading.Lock()
        self._network: N | None = None
        self._preprocessor: P | None = None
        self._loaded_fingerprint: str | None = None

    @classmethod
    def shared(cls, folder: Path, options: LoadOptions) -> Self:
        """Return the only model in this process with this class, folder and options. Create it if there is none.

        Each revision on the hub has its own folder, so the folder identifies model and revision.

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
    def load_network(self) -> N:
        """Read the weights onto the device. Slow."""

    @abstractmethod
    def load_preprocessor(self) -> P:
        """Read the tokenizer, and return the preprocessor, which turns texts into the network's input."""

    @property
    @abstractmethod
    def tokenizer(self) -> PairTokenizer:
        """The model's tokenizer."""

    @property
    @abstractmethod
    def weight_files(self) -> list[Path]:
        """The files that hold the weights."""

    @abstractmethod
    def describe_network(self, network: N) -> tuple[str, str, str]:
        """Return runtime, dtype and device of the loaded network, for the log."""

    @property
    def network(self) -> N:
        """The network, loaded at the first access. Loading is slow, so access it on a worker."""
        with self._network_lock:
            if self._network is None:
                self._network = self._load()
            return self._network

    @property
    def is_loaded(self) -> bool:
        """Whether the network is loaded."""
        return self._network is not None

    def _load(self) -> N:
        load = LoadLog(self.folder)
        self._loaded_fingerprint = fingerprint(self.folder, self.weight_files)
        network = self.load_network()
        load.finished(*self.describe_network(network))
        return network

    async def loaded_network(self) -> N:
        """Return the network, loaded on a worker."""
        return await self.workers.run(lambda: self.network)

    @property
    def preprocessor(self) -> P:
        """The preprocessor, which turns texts into the network's input. It is created at the first access."""
        with self._preprocessor_lock:
            if self._preprocessor is None:
                self._preprocessor = self.load_preprocessor()
            return self._preprocessor

    @property
    def fingerprint(self) -> str:
        """A hash of the files that the model was loaded from; before loading, of the files that are in the folder now.

        The files in the folder may be replaced after the model was loaded, so the hash is computed when it is loaded.
        """
        return self._loaded_fingerprint or fingerprint(self.folder, self.weight_files)

    @property
    def dtype(self) -> str | None:
        """The dtype that the model computes in; `None` until it is known."""
        return self.options.known_dtype


_inherited: list[Any] = []
"""In a forked child, the models of its parent. They are never freed, because freeing them can crash."""


def _after_fork() -> None:
    # The threads of torch, the context of a GPU and the state of a session do not survive a fork, so the child loads
    # its models anew.
    SharedModel._table_lock = threading.Lock()
    _inherited.extend(SharedModel._table.values())
    SharedModel._table.clear()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)


def padded_batch(
    rows: Sequence[Encoded], pad: int, length: int | None = None
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return token ids, attention mask and token types of rows, each an int64 array (rows, tokens).

    Args:
        rows: The tokenized texts.
        pad: The id of the padding token.
        length: The number of tokens to which every row is padded; `None` is the length of the longest row.
    """
    import numpy as np

    shape = (len(rows), length or max(len(row.ids) for row in rows))
    ids = np.full(shape, pad, dtype=np.int64)
    mask, types = np.zeros(shape, dtype=np.int64), np.zeros(shape, dtype=np.int64)
    for index, row in enumerate(rows):
        size = len(row.ids)
        ids[index, :size] = row.ids
        mask[index, :size] = 1 if row.attention is None else row.attention
        types[index, :size] = row.types
    return ids, mask, types


def check_output(output: Any, file: Path, rows: Sequence[Encoded], *, per_token: bool) -> None:
    """Check that a model's output has an entry for each row. An exported `squeeze()` drops the rows' axis, for example.

    Args:
        output: What the model returned: an array (rows, …), if the file is in order.
        file: The model's file, for the error.
        rows: The rows of the batch.
        per_token: Whether the output must be one vector per token (rows, tokens, width). There may be more tokens than
            the longest row has, because of padding.

    Raises:
        ConfigError: The output has another shape.
    """
    shape: tuple[int, ...] = getattr(output, "shape", ())  # a runtime may return a list, for a sequence
    tokens = max(len(row.ids) for row in rows)
    fits = shape[:1] == (len(rows),) and (not per_token or (len(shape) == 3 and shape[1] >= tokens))
    if not fits:
        raise ConfigError(
            f"The output of {file} has the shape {shape} for {len(rows)} rows of {tokens} tokens: export it again."
        )


def length_batches(lengths: Sequence[int], batch_tokens: int) -> list[list[int]]:
    """Return batches of row positions, longest rows first, for a network that pads the rows of a batch to one length.

    Longest first, because the last batch decides when the call ends, and a batch of short rows ends sooner. Rows of
    very different lengths never share a batch: padding costs as much as text (batches of 32 rows, as
    sentence-transformers makes them, take 1.28 times as long at 100 documents and 2.07 times at 30).

    Args:
        lengths: The tokens of each row.
        batch_tokens: Maximum tokens of a batch, padding included. A longer row gets a batch of its own.
    """
    order = sorted(range(len(lengths)), key=lambda position: -lengths[position])
    batches: list[list[int]] = []
    for position in order:
        batch = batches[-1] if batches else None
        if batch is not None:
            longest = lengths[batch[0]]
            is_similar = lengths[position] >= longest * (1.0 - MAX_PADDING)
            if is_similar and longest * (len(batch) + 1) <= batch_tokens:
                batch.append(position)
                continue
        batches.append([position])
    return batches


def packed_batches(lengths: Sequence[int], batch_tokens: int) -> list[list[int]]:
    """Return batches of row positions, longest rows first, for a network that packs rows without padding.

    Args:
        lengths: The tokens of each row.
        batch_tokens: Maximum tokens of a batch. A longer row gets a batch of its own.
    """
    batches: list[list[int]] = []
    remaining_tokens = 0
    for position in sorted(range(len(lengths)), key=lambda position: -lengths[position]):
        if not batches or lengths[position] > remaining_tokens:
            batches.append([])
            remaining_tokens = batch_tokens
        batches[-1].append(position)
        remaining_tokens -= lengths[position]
    return batches


async def run_batches(batches: Iterable[B], runners: Iterable[Callable[[B], Awaitable[None]]]) -> None:
    """Start the batches in order, each on the first free runner, and return when all are done.

    A runner is a function that runs one batch at a time, such as one on a worker thread. So a cancelled call leaves at
    most one batch per runner running. The first error ends the call and is raised unchanged.
    """
    queue = iter(batches)

    async def run(runner: Callable[[B], Awaitable[None]]) -> None:
        for batch in queue:
            await runner(batch)

    await gather(run(runner) for runner in runners)
