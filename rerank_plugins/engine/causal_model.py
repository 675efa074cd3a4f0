"""A folder with a reranking language model, loaded once in a process: prompts in, one logit for each out."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from ..core.scorer import failed
from .batches import packs
from .prompts import Prompt, Prompts, common
from .resident import Placement, Resident, resident
from .templates import TEMPLATES

if TYPE_CHECKING:
    from .causal_load import CausalNetwork
    from .packed import KeysAndValues

__all__ = ["CausalModel", "loaded"]

CPU_TOKENS = 1024
GPU_TOKENS = 16_384
"""Tokens of one batch, the shared beginning not counted, unless the spec says otherwise."""


class CausalModel(Resident["CausalNetwork"]):
    """One language model in memory, as one family's reranker. Made by `loaded`."""

    def __init__(self, folder: Path, placement: Placement) -> None:
        """Prepare; nothing is loaded before the first use."""
        super().__init__(folder, placement)
        self._template = TEMPLATES[placement.template or ""]
        self._prompts_lock = threading.Lock()
        self._prompts: Prompts | None = None
        self._safe: int | None = None

    @property
    def prompts(self) -> Prompts:
        """Its tokenizer and template, read when first asked for."""
        with self._prompts_lock:
            if self._prompts is None:
                self._prompts = Prompts(self.folder / "tokenizer.json", self._template)
            return self._prompts

    def load(self) -> CausalNetwork:
        """Read the weights."""
        from .causal_load import load

        return load(self.folder, self.placement, self.prompts.answers)

    async def map(
        self, rows: Sequence[Prompt], batch_tokens: int | None, each: Callable[[list[int], list[float]], None]
    ) -> None:
        """Run every prompt through the model; call `each(positions, logits)` on the worker after every batch.

        What all prompts begin with is computed once. One batch is in the queue at any time: a cancelled call leaves
        nothing behind but that one.
        """
        network = await self.workers.run(lambda: self.network)
        ids = [row.ids for row in rows]
        same = common(ids) if len(ids) > 1 else 0
        shared = await self.workers.run(self._begin, network, ids[0][:same])
        tails = [row[same:] for row in ids]
        most = batch_tokens or (GPU_TOKENS if network.on_gpu else CPU_TOKENS)
        for positions in packs([len(tail) for tail in tails], min(most, self._safe or most)):
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
        """Run one batch; where a GPU's memory is too small for it, its halves, and remember what fits."""
        try:
            found = network.score([tails[position] for position in positions], shared)
        except Exception as error:
            # Only real exhaustion, and only on a GPU, is worth another try (peers.md B36); one text cannot be halved.
            if not (network.on_gpu and network.exhausted(error) and len(positions) > 1):
                raise failed(str(self.folder), error) from error
            tokens = sum(len(tails[position]) for position in positions)
        else:
            each(positions, found)
            return
        network.free()
        self._safe = min(self._safe or tokens, max(tokens // 2, 1))
        half = len(positions) // 2
        self._run(network, tails, shared, positions[:half], each)
        self._run(network, tails, shared, positions[half:], each)


def loaded(folder: Path, placement: Placement) -> CausalModel:
    """Return the process's one language model of a folder, template, device and dtype; see `resident`."""
    return resident(CausalModel, folder, placement)
