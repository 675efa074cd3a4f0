"""Models on torch that are loaded once in a process, whoever asks for them, and what forks and threads must not break."""

from __future__ import annotations

import os
import threading
import weakref
from abc import ABC, abstractmethod
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Generic, TypeVar

from ..core.loop import Workers
from .turns import Turns

if TYPE_CHECKING:
    from .torch_load import OnDevice

__all__ = ["Placement", "Resident", "resident"]

N = TypeVar("N", bound="OnDevice")
R = TypeVar("R", bound="Resident[Any]")


@dataclass(frozen=True, slots=True)
class Placement:
    """How a model is to run; no device and no dtype leave the choice to `torch_load`."""

    device: str | None = None
    dtype: str | None = None
    remote_code: bool = False
    template: str | None = None
    """Of a language model, the name of its prompt."""


class Resident(ABC, Generic[N]):
    """One model in memory. Made by `resident`, which gives the same object to everybody who asks for the same."""

    def __init__(self, folder: Path, placement: Placement) -> None:
        """Prepare; nothing is loaded before the first use."""
        self.folder = folder
        self.placement = placement
        self.pid = os.getpid()
        # One worker: torch uses every core by itself, and two callers at once would fight for them. Batches of
        # concurrent calls take turns.
        self.workers = Workers(1, f"rerank-{folder.name}")
        self.turns = Turns()
        self._network_lock = threading.Lock()
        self._network: N | None = None

    @abstractmethod
    def load(self) -> N:
        """Read the weights onto the device; takes a moment."""

    @property
    def network(self) -> N:
        """The model itself, loaded when first asked for (on the worker: this takes a moment)."""
        with self._network_lock:
            if self._network is None:
                self._network = self.load()
            return self._network

    @property
    def dtype(self) -> str | None:
        """What it computes in: told from the start where the spec says it, else once it is loaded."""
        if self._network is not None:
            return self._network.dtype
        if self.placement.dtype in (None, "auto"):
            return "float32" if self.placement.device == "cpu" and self.placement.dtype is None else None
        return self.placement.dtype


_table: weakref.WeakValueDictionary[tuple[Any, ...], Resident[Any]] = weakref.WeakValueDictionary()
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


def _after_fork() -> None:
    # torch's threads and a GPU's context are not made for a fork. The child loads anew, and never frees what it got.
    global _table_lock
    _table_lock = threading.Lock()
    _abandoned.extend(_table.values())
    _table.clear()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)
