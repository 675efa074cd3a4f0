"""A folder with an ONNX file and its tokenizer, loaded once in a process and run by one single-threaded worker a core."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Self

from ...core.errors import ConfigError
from ...core.scorer import failed
from ..scheduling import plan, run_batches
from ..shared_model import LoadOptions, SharedModel
from ..tokenizer import Encoded, Limits, PairTokenizer, padded
from .runtimes import Session, open_session, quantises_batches

if TYPE_CHECKING:
    import numpy as np

__all__ = ["BATCH_TOKENS", "OnnxModel", "cores", "model_file"]

BATCH_TOKENS = 512
"""Tokens of one batch, padding included; larger ones are slower on a CPU (they leave the cache) and hold more memory."""
EXACT = LoadOptions(device="cpu", runtime="onnxruntime", dtype="float32")


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
    files = sorted(folder.glob("*.onnx")) or sorted(folder.glob("onnx/*.onnx"))
    if len(files) == 1:
        return files[0]
    why = f"holds several ONNX files ({', '.join(file.name for file in files)})" if files else "holds no ONNX file"
    raise ConfigError(f"{folder} {why}: put the one to use there as model.onnx.")


class OnnxModel(SharedModel[Session, PairTokenizer]):
    """One model in memory."""

    def __init__(self, folder: Path, options: LoadOptions) -> None:
        """Prepare; nothing is loaded before the first use."""
        super().__init__(folder, options, threads=cores())
        self.file = options.file or model_file(folder)
        self.limits = Limits.read(folder)
        self._alone = False
        """Whether every row goes alone, since its output depends on the rows beside it."""

    @classmethod
    def shared(cls, folder: Path, options: LoadOptions = EXACT) -> Self:
        """Return the process's one model of a folder in a runtime and dtype.

        In a hub's cache the files of a revision are links: two revisions may share an ONNX file and not the tokenizer, so the
        folder counts too; and weights outside the file lie beside the link, so it is opened by that name.

        Raises:
            ConfigError: The folder, its ONNX file or its settings cannot be read.
        """
        folder = folder.resolve()
        return super().shared(folder, replace(options, file=model_file(folder)))

    @property
    def tokenizer(self) -> PairTokenizer:
        """Its tokenizer, read when first asked for."""
        return self.reader

    def read(self) -> PairTokenizer:
        """Read the tokenizer."""
        return PairTokenizer(self.folder / "tokenizer.json")

    def load(self) -> Session:
        """Open the file in its runtime."""
        options = self.options
        session = open_session(options.runtime, options.dtype or "float32", self.file, self.workers.threads)
        self._alone = quantises_batches(self.file)
        return session

    def loaded_as(self, network: Session) -> tuple[str, str, str]:
        """Return runtime, dtype and device."""
        return self.options.runtime, self.options.dtype or "float32", "cpu"

    @property
    def weights(self) -> list[Path]:
        """The model's file, and weights that it keeps beside it."""
        return [self.file, *sorted(self.file.parent.glob(f"{self.file.name}[._]data*"))]

    async def map(
        self, rows: Sequence[Encoded], batch_tokens: int, keep: Callable[[list[int], np.ndarray], None]
    ) -> None:
        """Run every row through the model; call `keep(positions, output)` on a worker thread after every batch.

        Two batches a core are in the queue at any time, so a cancelled call leaves nothing behind but those, and
        concurrent calls take turns batch by batch. Where a row's output would depend on the rows beside it, each goes alone.
        """
        session = await self.ready()
        budget = 1 if self._alone or session.rows == 1 else batch_tokens

        def run(positions: list[int]) -> None:
            size = session.rows or len(positions)
            for first in range(0, len(positions), size):
                part = positions[first : first + size]
                fill = part + part[:1] * (size - len(part) if session.rows else 0)
                try:
                    output = session.run(self._feed([rows[position] for position in fill], session))
                except Exception as error:  # the runtimes' errors share no base class
                    raise failed(str(self.file), error) from error
                keep(part, output[: len(part)])

        lane = partial(self.workers.run, run)
        await run_batches(plan([len(row.ids) for row in rows], budget), [lane] * (2 * self.workers.threads))

    def _feed(self, rows: Sequence[Encoded], session: Session) -> dict[str, np.ndarray]:
        import numpy as np

        ids, mask, types = padded(rows, self.limits.pad, session.length)
        feed = {"input_ids": ids, "attention_mask": mask, "token_type_ids": types}
        if "position_ids" in session.inputs:
            feed["position_ids"] = np.maximum(mask.cumsum(axis=1) - 1, 0)
        return {name: value for name, value in feed.items() if name in session.inputs}
