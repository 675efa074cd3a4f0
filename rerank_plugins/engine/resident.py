"""Models on torch that are loaded once in a process, whoever asks for them, and what forks and threads must not break."""

from __future__ import annotations

import asyncio
import os
import threading
import traceback
import weakref
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Generic, TypeVar

from ..core.fork import Lock
from ..core.loop import Workers
from .digest import fingerprint
from .load_log import LoadLog
from .turns import Turns

if TYPE_CHECKING:
    from .encoder import Encoder
    from .torch_load import OnDevice

__all__ = ["Placement", "Resident", "ready", "resident"]

N = TypeVar("N", bound="OnDevice")
P = TypeVar("P")
R = TypeVar("R", bound="Resident[Any, Any]")
T = TypeVar("T")

CPU_TOKENS = 1024
GPU_TOKENS = 16_384
"""Tokens of one batch, unless the spec says otherwise."""


@dataclass(frozen=True, slots=True)
class Placement:
    """How a model is to run; no device and no dtype leave the choice to `torch_load`."""

    device: str | None = None
    dtype: str | None = None
    remote_code: bool = False
    template: str | None = None
    """Of a language model, the name of its prompt."""

    def on(self, device: str | None) -> Placement:
        """Return it for a device, as it is always said: two ways to say the same are not two copies in memory."""
        exact = device == "cpu" and self.dtype is None
        return replace(self, device=None if device == "auto" else device, dtype="float32" if exact else self.dtype)

    @property
    def told(self) -> str | None:
        """The dtype, where it is known before the model is loaded."""
        return None if self.dtype == "auto" else self.dtype


class Resident(ABC, Generic[N, P]):
    """One model in memory, and what makes its input. Made by `resident`: the same object for all who ask for the same."""

    def __init__(self, folder: Path, placement: Placement) -> None:
        """Prepare; nothing is loaded before the first use."""
        self.folder = folder
        self.placement = placement
        self.pid = os.getpid()
        # One worker: torch uses every core by itself, and two callers at once would fight for them. Batches of
        # concurrent calls take turns.
        self.workers = Workers(1, f"rerank-{folder.name}")
        self.turns = Turns()
        # Two locks: who asks for the tokenizer does not wait for the weights.
        self._network_lock, self._reader_lock = threading.Lock(), threading.Lock()
        self._network: N | None = None
        self._reader: P | None = None
        self._safe: int | None = None
        self._loaded_from: str | None = None

    @abstractmethod
    def load(self) -> N:
        """Read the weights onto the device; takes a moment."""

    @abstractmethod
    def read(self) -> P:
        """Read the tokenizer, and make what turns texts into the network's input."""

    @property
    @abstractmethod
    def encoder(self) -> Encoder:
        """Its tokenizer."""

    @property
    def network(self) -> N:
        """The model itself, loaded when first asked for (on the worker: this takes a moment)."""
        with self._network_lock:
            if self._network is None:
                with _loading:
                    load = LoadLog(self.folder)
                    self._loaded_from = fingerprint(self.folder, self.weights)
                    self._network = self.load()
                load.finished("torch", self._network.dtype, str(self._network.device))
            return self._network

    @property
    def weights(self) -> list[Path]:
        """The files that hold them."""
        return sorted(self.folder.glob("**/*.safetensors"))

    @property
    def fingerprint(self) -> str:
        """A hash of the files that it was loaded from, which others may have replaced since; else of those that are there."""
        return self._loaded_from or fingerprint(self.folder, self.weights)

    async def ready(self) -> N:
        """Return the model itself, loaded on the worker."""
        return await self.workers.run(lambda: self.network)

    @property
    def reader(self) -> P:
        """What turns texts into the network's input, made when first asked for."""
        with self._reader_lock:
            if self._reader is None:
                self._reader = self.read()
            return self._reader

    def most(self, network: N, batch_tokens: int | None) -> int:
        """Return how many tokens a batch may have: as the spec says or the device likes, and no more than was found to fit."""
        most = batch_tokens or (GPU_TOKENS if network.on_gpu else CPU_TOKENS)
        return min(most, self._safe or most)

    def attempt(self, network: N, run: Callable[[], T], *, size: int, halves: bool) -> T | None:
        """Run a batch of `size` tokens; `None`: a GPU's memory is too small for it, but has room for its halves.

        What fits is remembered.
        """
        try:
            return run()
        except Exception as error:
            # Who keeps the error does not keep what was computed so far: a full GPU needs that back.
            traceback.clear_frames(error.__traceback__)
            # Only real exhaustion, and only on a GPU, is worth another try (peers.md B36); one text cannot be halved.
            if not (network.on_gpu and network.exhausted(error) and halves):
                raise
        network.free()
        self._safe = min(self._safe or size, max(size // 2, 1))
        return None

    @property
    def dtype(self) -> str | None:
        """What it computes in: told from the start where the spec says it, else once it is loaded."""
        if self._network is not None:
            return self._network.dtype
        return self.placement.told


_loading = Lock()
"""One at a time: transformers sets torch's default dtype, which is the process's, while it loads."""
_table: weakref.WeakValueDictionary[tuple[Any, ...], Resident[Any, Any]] = weakref.WeakValueDictionary()
_table_lock = threading.Lock()
_abandoned: list[Any] = []


def resident(kind: type[R], folder: Path, placement: Placement) -> R:
    """Return the process's one model of a kind, folder, device and dtype; it leaves memory when nobody holds it any more.

    A hub's revision is a folder of its own, so the folder stands for model and revision.

    Raises:
        ConfigError: The folder's settings cannot be read.
    """
    key = kind, folder.resolve(), placement
    with _table_lock:
        model = _table.get(key)
        if not isinstance(model, kind):
            model = _table[key] = kind(folder, placement)
        return model


async def ready(models: Sequence[Resident[N, Any]]) -> list[N]:
    """Load the copies of one model, and return them."""
    return list(await asyncio.gather(*(model.ready() for model in models)))


def _after_fork() -> None:
    # torch's threads and a GPU's context are not made for a fork. The child loads anew, and never frees what it got.
    global _table_lock
    _table_lock = threading.Lock()
    _abandoned.extend(_table.values())
    _table.clear()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)
