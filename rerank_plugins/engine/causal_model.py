"""A folder with a reranking language model, loaded once in a process: prompts in, one logit for each out."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from ..core.scorer import failed
from .batches import packs
from .encoder import Encoder
from .prompts import Prompt, Prompts, common
from .resident import Placement, Resident, resident
from .templates import TEMPLATES

if TYPE_CHECKING:
    from .causal_load import CausalNetwork
    from .packed import KeysAndValues

__all__ = ["CausalModel", "loaded"]


class CausalModel(Resident["CausalNetwork", Prompts]):
    """One language model in memory, as one family's reranker. Made by `loaded`."""

    def __init__(self, folder: Path, placement: Placement) -> None:
        """Prepare; nothing is loaded before the first use."""
        super().__init__(folder, placement)
        self._template = TEMPLATES[placement.template or ""]

    @property
    def encoder(self) -> Encoder:
        """Its tokenizer."""
        return self.reader.encoder

    def read(self) -> Prompts:
        """Read the tokenizer, for the template."""
        return Prompts(self.folder / "tokenizer.json", self._template)

    def load(self) -> CausalNetwork:
        """Read the weights."""
        from .causal_load import load

        return load(self.folder, self.placement, self.reader.answers)

    async def map(
        self, rows: Sequence[Prompt], batch_tokens: int | None, each: Callable[[list[int], list[float]], None]
    ) -> None:
        """Run every prompt through the model; call `each(positions, logits)` on the worker after every batch.

        What all prompts begin with is computed once, and is not counted in `batch_tokens`. One batch is in the queue at any time: a cancelled call leaves
        nothing behind but that one.
        """
        network = await self.workers.run(lambda: self.network)
        ids = [row.ids for row in rows]
        same = common(ids) if len(ids) > 1 else 0
        shared = await self.workers.run(self._begin, network, ids[0][:same])
        tails = [row[same:] for row in ids]
        for positions in packs([len(tail) for tail in tails], self.most(network, batch_tokens)):
            await self.workers.run(self._run, network, tails, shared, positions, each)

    def _begin(self, network: CausalNetwork, ids: Sequence[int]) -> KeysAndValues | None:
        try:
            return network.begin(ids)
        except Exception as error:
            raise failed(str(self.folder), error) from error

    def _run(
        self,
        network: CausalNetwork,
        tails: Sequence[Sequence[int]],
        shared: KeysAndValues | None,
        positions: list[int],
        each: Callable[[list[int], list[float]], None],
    ) -> None:
        def run(part: list[int]) -> list[float]:
            return network.score([tails[position] for position in part], shared)

        def tokens(part: list[int]) -> int:
            return sum(len(tails[position]) for position in part)

        for part, found in self.outputs(network, positions, run, tokens):
            each(part, found)


def loaded(folder: Path, placement: Placement) -> CausalModel:
    """Return the process's one language model of a folder, template, device and dtype; see `resident`."""
    return resident(CausalModel, folder, placement)
