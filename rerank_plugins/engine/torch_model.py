"""A folder with a cross-encoder in safetensors form, loaded once in a process and run by one worker, on CPU or GPU.

Only the `torch_…` files, `resident` and the engines of language models know torch, and only inside functions.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from ..core.scorer import failed
from .batches import plan
from .encoder import Encoded, Encoder
from .limits import Limits
from .resident import Placement, Resident, resident

if TYPE_CHECKING:
    import numpy as np

    from .torch_load import Network

__all__ = ["Placement", "TorchModel", "loaded"]

CPU_TOKENS = 1024
GPU_TOKENS = 16_384
"""Tokens of one batch, padding included, unless the spec says otherwise."""


class TorchModel(Resident["Network"]):
    """One cross-encoder in memory. Made by `loaded`, which gives the same object to everybody who asks for the same."""

    def __init__(self, folder: Path, placement: Placement) -> None:
        """Prepare; nothing is loaded before the first use."""
        super().__init__(folder, placement)
        self.limits = Limits.read(folder)
        # Not the network's lock: who asks for the tokenizer does not wait for the weights.
        self._encoder_lock = threading.Lock()
        self._encoder: Encoder | None = None
        self._safe: int | None = None

    @property
    def encoder(self) -> Encoder:
        """Its tokenizer, read when first asked for."""
        with self._encoder_lock:
            if self._encoder is None:
                self._encoder = Encoder(self.folder / "tokenizer.json")
            return self._encoder

    def load(self) -> Network:
        """Read the weights."""
        from .torch_load import load

        return load(self.folder, self.placement)

    async def map(
        self, rows: Sequence[Encoded], batch_tokens: int | None, each: Callable[[list[int], np.ndarray], None]
    ) -> None:
        """Run every row through the model; call `each(positions, output)` on the worker after every batch.

        One batch is in the queue at any time: a cancelled call leaves nothing behind but that one.
        """
        network = await self.workers.run(lambda: self.network)
        most = batch_tokens or (GPU_TOKENS if network.on_gpu else CPU_TOKENS)
        for positions in plan([len(row.ids) for row in rows], min(most, self._safe or most)):
            await self.workers.run(self._run, network, rows, positions, each)

    def _run(
        self,
        network: Network,
        rows: Sequence[Encoded],
        positions: list[int],
        each: Callable[[list[int], np.ndarray], None],
    ) -> None:
        """Run one batch; where a GPU's memory is too small for it, its halves, and remember what fits."""
        try:
            output = network.run(*_padded(rows, positions, self.limits.pad))
        except Exception as error:
            # Only real exhaustion, and only on a GPU, is worth another try (peers.md B36); one row cannot be halved.
            if not (network.on_gpu and network.exhausted(error) and len(positions) > 1):
                raise failed(str(self.folder), error) from error
            tokens = len(rows[positions[0]].ids) * len(positions)
        else:
            each(positions, output)
            return
        network.free()
        self._safe = min(self._safe or tokens, max(tokens // 2, 1))
        half = len(positions) // 2
        self._run(network, rows, positions[:half], each)
        self._run(network, rows, positions[half:], each)


def _padded(rows: Sequence[Encoded], positions: Sequence[int], pad: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return ids, mask and types, each (rows, longest), int64."""
    import numpy as np

    shape = (len(positions), max(len(rows[position].ids) for position in positions))
    ids = np.full(shape, pad, dtype=np.int64)
    mask, types = np.zeros(shape, dtype=np.int64), np.zeros(shape, dtype=np.int64)
    for line, position in enumerate(positions):
        row = rows[position]
        length = len(row.ids)
        ids[line, :length] = row.ids
        mask[line, :length] = 1
        types[line, :length] = row.types
    return ids, mask, types


def loaded(folder: Path, placement: Placement) -> TorchModel:
    """Return the process's one cross-encoder of a folder, device and dtype; see `resident`.

    Raises:
        ConfigError: The folder's settings cannot be read.
    """
    return resident(TorchModel, folder, placement)
