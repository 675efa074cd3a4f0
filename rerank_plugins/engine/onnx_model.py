"""A folder with an ONNX file and its tokenizer, loaded once in a process and run by one single-threaded worker a core."""

from __future__ import annotations

import os
import threading
import weakref
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

from ..core.errors import ConfigError
from ..core.loop import Workers
from ..core.scorer import failed
from .batches import plan
from .digest import fingerprint
from .encoder import Encoded, Encoder
from .lanes import deal
from .limits import Limits
from .load_log import LoadLog
from .runtimes import Session, open_session, quantises_batches
from .turns import Turns

if TYPE_CHECKING:
    import numpy as np

__all__ = ["BATCH_TOKENS", "OnnxModel", "cores", "loaded", "model_file"]

T = TypeVar("T")

BATCH_TOKENS = 512
"""Tokens of one batch, padding included; larger ones are slower on a CPU (they leave the cache) and hold more memory."""


def cores() -> int:
    """Return how many cores this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def model_file(folder: Path) -> Path:
    """Return the ONNX file of a model's folder: `model.onnx`, `onnx/model.onnx`, or the only one there is.

    Raises:
        ConfigError: No such folder, no ONNX file in it, or several and none called so.
    """
    if not folder.is_dir():
        raise ConfigError(f"There is no folder {folder}: name a folder with an ONNX file and a tokenizer.json.")
    for known in ("model.onnx", "onnx/model.onnx"):
        if (folder / known).is_file():
            return folder / known
    found = sorted(folder.glob("*.onnx")) or sorted(folder.glob("onnx/*.onnx"))
    if len(found) == 1:
        return found[0]
    told = f"holds several ONNX files ({', '.join(each.name for each in found)})" if found else "holds no ONNX file"
    raise ConfigError(f"{folder} {told}: put the one to use there as model.onnx.")


class OnnxModel:
    """One model in memory. Made by `loaded`, which gives the same object for the same file while anybody holds it."""

    def __init__(self, folder: Path, file: Path, runtime: str, dtype: str) -> None:
        """Prepare; nothing is loaded before the first use."""
        self.folder = folder
        self.file = file
        self.runtime = runtime
        self.dtype = dtype
        self.pid = os.getpid()
        self.limits = Limits.read(folder)
        self.workers = Workers(cores(), f"rerank-{folder.name}")
        self.turns = Turns()
        # Two locks: a call that needs the tokenizer does not wait for the weights.
        self._lock, self._encoder_lock = threading.Lock(), threading.Lock()
        self._session: Session | None = None
        self._apart = False
        self._encoder: Encoder | None = None
        self._loaded_from: str | None = None

    @property
    def encoder(self) -> Encoder:
        """Its tokenizer, read when first asked for."""
        with self._encoder_lock:
            if self._encoder is None:
                self._encoder = Encoder(self.folder / "tokenizer.json")
            return self._encoder

    @property
    def session(self) -> Session:
        """Its session, loaded when first asked for (on a worker: this takes a moment)."""
        with self._lock:
            if self._session is None:
                load = LoadLog(self.folder)
                self._loaded_from = fingerprint(self.folder, self.weights)
                self._session = open_session(self.runtime, self.dtype, self.file, self.workers.threads)
                self._apart = quantises_batches(self.file)
                load.finished(self.runtime, self.dtype)
            return self._session

    @property
    def weights(self) -> list[Path]:
        """The model's file, and weights that it keeps beside it."""
        return [self.file, *sorted(self.file.parent.glob(f"{self.file.name}[._]data*"))]

    @property
    def fingerprint(self) -> str:
        """A hash of the files that it was loaded from, which others may have replaced since; else of those that are there."""
        return self._loaded_from or fingerprint(self.folder, self.weights)

    async def map(
        self, rows: Sequence[Encoded], batch_tokens: int, each: Callable[[list[int], np.ndarray], None]
    ) -> None:
        """Run every row through the model; call `each(positions, output)` on a worker thread after every batch.

        Two batches a core are in the queue at any time, so a cancelled call leaves nothing behind but those, and
        concurrent calls take turns batch by batch. Where a row's output would depend on the rows beside it, each goes alone.
        """
        session = await self.workers.run(lambda: self.session)
        budget = 1 if self._apart or session.rows == 1 else batch_tokens

        def run(positions: list[int]) -> None:
            size = session.rows or len(positions)
            for first in range(0, len(positions), size):
                part = positions[first : first + size]
                fill = part + part[:1] * (size - len(part) if session.rows else 0)
                try:
                    output = session.run(self._feed(rows, fill, session))
                except Exception as error:  # the runtimes' errors share no base class
                    raise failed(str(self.file), error) from error
                each(part, output[: len(part)])

        lane = partial(self.workers.run, run)
        await deal(plan([len(row.ids) for row in rows], budget), [lane] * (2 * self.workers.threads))

    def _feed(self, rows: Sequence[Encoded], positions: list[int], session: Session) -> dict[str, np.ndarray]:
        import numpy as np

        longest = session.length or max(len(rows[position].ids) for position in positions)
        shape = (len(positions), longest)
        ids = np.full(shape, self.limits.pad, dtype=np.int64)
        mask = np.zeros(shape, dtype=np.int64)
        types = np.zeros(shape, dtype=np.int64)
        for line, position in enumerate(positions):
            row = rows[position]
            size = len(row.ids)
            ids[line, :size] = row.ids
            mask[line, :size] = 1
            types[line, :size] = row.types
        feed = {"input_ids": ids, "attention_mask": mask, "token_type_ids": types}
        if "position_ids" in session.inputs:
            feed["position_ids"] = np.maximum(mask.cumsum(axis=1) - 1, 0)
        return {name: value for name, value in feed.items() if name in session.inputs}


_table: weakref.WeakValueDictionary[tuple[Path, Path, str, str], OnnxModel] = weakref.WeakValueDictionary()
_table_lock = threading.Lock()
_abandoned: list[OnnxModel] = []


def loaded(folder: Path, runtime: str = "onnxruntime", dtype: str = "float32") -> OnnxModel:
    """Return the process's one model of a folder in a runtime and dtype; it is dropped from memory when nobody holds it any more.

    In a hub's cache the files of a revision are links: two revisions may share an ONNX file and not the tokenizer, so the
    folder counts too; and weights outside the file lie beside the link, so it is opened by that name.

    Raises:
        ConfigError: The folder, its ONNX file or its settings cannot be read.
    """
    folder = folder.resolve()
    file = model_file(folder)
    key = folder, file, runtime, dtype
    with _table_lock:
        model = _table.get(key)
        if model is None:
            model = _table[key] = OnnxModel(folder, file, runtime, dtype)
        return model


def _after_fork() -> None:
    # A session's inner state is not made for a fork. The child loads anew, and never frees what it inherited.
    global _table_lock
    _table_lock = threading.Lock()
    _abandoned.extend(_table.values())
    _table.clear()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)
