"""A folder with a cross-encoder in safetensors form, loaded once in a process and run by one worker, on CPU or GPU.

Only the `torch_…` files, `resident` and the engines of language models know torch, and only inside functions.
"""

from __future__ import annotations

import asyncio
import weakref
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from ..core.errors import RerankError
from ..core.scorer import failed
from .encoder import Encoded, Encoder
from .limits import Limits
from .resident import Placement, Resident, ready, resident
from .sharing import Call, Row, answer, batch

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
        self.calls = weakref.WeakKeyDictionary[Call, None]()
        """Those that are in it now, in the order in which they came. Held here, one whose event loop was closed would stay."""

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

    def run(self, network: Network, call: Call, loop: asyncio.AbstractEventLoop) -> None:
        """Run the next batch of a call on the worker, and queue for the one after; on a GPU, rows of other calls fill it up.

        Not on a CPU: it gains nothing, and what stands beside a document would be chance.
        """
        try:
            others = [other for each in self.calls.keyrefs() if (other := each())] if network.on_gpu else []
            self._run(network, batch(call, others, self.most(network, call.batch_tokens)))
            if call.waits and not loop.is_closed():
                self.workers.submit(self.run, network, call, loop)
        except BaseException as error:
            call.fail(error)

    def _run(self, network: Network, rows: list[Row]) -> None:
        rows = [(call, position) for call, position in rows if not call.over]
        if not rows:
            return
        encoded = [call.rows[position] for call, position in rows]
        size, half = max(len(each.ids) for each in encoded) * len(rows), len(rows) // 2
        try:
            output = self.attempt(
                network, lambda: network.run(*_padded(encoded, self.limits.pad)), size=size, halves=half > 0
            )
            if output is not None:
                answer(rows, output)
                return
        except BaseException as error:
            for call in {call for call, _ in rows}:
                call.fail(error)
            return
        self._run(network, rows[:half])
        self._run(network, rows[half:])


async def map_rows(
    models: Sequence[TorchModel],
    rows: Sequence[Encoded],
    batch_tokens: int | None,
    each: Callable[[list[int], np.ndarray], None],
) -> None:
    """Run every row through a model that has one copy or several; call `each(positions, output)` after every batch.

    A batch's tokens count its padding. `each` runs on the workers: of several copies, at the same time.
    """
    call = Call(rows, batch_tokens, each)
    try:
        for model in models:  # before anything is awaited: whose turn is before ours may take rows along
            model.calls[call] = None
        for model, network in zip(models, await ready(models), strict=True):
            model.workers.submit(model.run, network, call, asyncio.get_running_loop())
        error = await asyncio.wrap_future(call.done)
    finally:
        call.leave()
        for model in models:
            model.calls.pop(call, None)
    if isinstance(error, Exception) and not isinstance(error, RerankError):
        raise failed(str(models[0].folder), error) from error
    if error is not None:
        raise error


def _padded(rows: Sequence[Encoded], pad: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return ids, mask and types, each (rows, longest), int64."""
    import numpy as np

    shape = (len(rows), max(len(row.ids) for row in rows))
    ids = np.full(shape, pad, dtype=np.int64)
    mask, types = np.zeros(shape, dtype=np.int64), np.zeros(shape, dtype=np.int64)
    for line, row in enumerate(rows):
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
