"""A folder with a cross-encoder in safetensors form, loaded once in a process and run by one worker, on CPU or GPU.

Only the `torch_…` files, `resident` and the engines of language models know torch, and only inside functions.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from .batches import plan
from .encoder import Encoded, Encoder
from .lanes import deal
from .limits import Limits
from .resident import Placement, Resident, resident, together

if TYPE_CHECKING:
    import numpy as np

    from .torch_load import Network

__all__ = ["Placement", "TorchModel", "loaded", "map_rows"]


class TorchModel(Resident["Network", Encoder]):
    """One cross-encoder in memory. Made by `loaded`, which gives the same object to everybody who asks for the same."""

    def __init__(self, folder: Path, placement: Placement) -> None:
        """Prepare; nothing is loaded before the first use."""
        super().__init__(folder, placement)
        self.limits = Limits.read(folder)

    @property
    def encoder(self) -> Encoder:
        """Its tokenizer, read when first asked for."""
        return self.reader

    def read(self) -> Encoder:
        """Read the tokenizer."""
        return Encoder(self.folder / "tokenizer.json")

    def load(self) -> Network:
        """Read the weights."""
        from .torch_load import load

        return load(self.folder, self.placement)

    def run(
        self,
        network: Network,
        rows: Sequence[Encoded],
        each: Callable[[list[int], np.ndarray], None],
        positions: list[int],
    ) -> None:
        """Run one batch on the worker, or its parts; call `each(positions, output)` after each."""

        def run(part: list[int]) -> np.ndarray:
            return network.run(*_padded(rows, part, self.limits.pad))

        def tokens(part: list[int]) -> int:
            return len(rows[part[0]].ids) * len(part)

        for part, output in self.outputs(network, positions, run, tokens):
            each(part, output)


async def map_rows(
    models: Sequence[TorchModel],
    rows: Sequence[Encoded],
    batch_tokens: int | None,
    each: Callable[[list[int], np.ndarray], None],
) -> None:
    """Run every row through a model that has one copy or several; call `each(positions, output)` after every batch.

    A batch's tokens count its padding. `each` runs on the workers: of several copies, at the same time.
    """
    networks, most = await together(models, batch_tokens)
    lanes = [
        partial(model.workers.run, model.run, network, rows, each)
        for model, network in zip(models, networks, strict=True)
    ]
    await deal(plan([len(row.ids) for row in rows], most), lanes)


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
