"""A folder with a reranking language model, loaded once in a process: prompts in, one logit for each out."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from ..core.scorer import failed
from .batches import packs
from .encoder import Encoder
from .lanes import deal
from .prompts import Prompt, Prompts, common
from .resident import Placement, Resident, ready, resident
from .templates import TEMPLATES

if TYPE_CHECKING:
    from .causal_load import CausalNetwork
    from .packed import KeysAndValues

__all__ = ["CausalModel", "loaded", "map_prompts"]


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

    def begin(self, network: CausalNetwork, ids: Sequence[int]) -> KeysAndValues | None:
        """Compute what every text of a call begins with, on the worker."""
        try:
            return network.begin(ids)
        except Exception as error:
            raise failed(str(self.folder), error) from error

    def run(
        self,
        network: CausalNetwork,
        tails: Sequence[Sequence[int]],
        shared: KeysAndValues | None,
        each: Callable[[list[int], list[float]], None],
        positions: list[int],
    ) -> None:
        """Run one batch on the worker, or its parts; call `each(positions, logits)` after each."""
        texts, half = [tails[position] for position in positions], len(positions) // 2
        try:
            found = self.attempt(
                network, lambda: network.score(texts, shared), size=sum(map(len, texts)), halves=half > 0
            )
        except Exception as error:
            raise failed(str(self.folder), error) from error
        if found is not None:
            each(positions, found)
            return
        for part in (positions[:half], positions[half:]):
            self.run(network, tails, shared, each, part)


async def map_prompts(
    models: Sequence[CausalModel],
    rows: Sequence[Prompt],
    batch_tokens: int | None,
    each: Callable[[list[int], list[float]], None],
) -> None:
    """Run every prompt through a model that has one copy or several; call `each(positions, logits)` after every batch.

    What all prompts begin with is computed once a copy, and is not counted in `batch_tokens`. `each` runs on the
    workers: of several copies, at the same time.
    """
    copies = list(zip(models, await ready(models), strict=True))
    ids = [row.ids for row in rows]
    same = common(ids) if len(ids) > 1 else 0
    begun = await asyncio.gather(*(model.workers.run(model.begin, network, ids[0][:same]) for model, network in copies))
    tails = [row[same:] for row in ids]
    most = min(model.most(network, batch_tokens) for model, network in copies)
    lanes = [
        partial(model.workers.run, model.run, network, tails, shared, each)
        for (model, network), shared in zip(copies, begun, strict=True)
    ]
    await deal(packs([len(tail) for tail in tails], most), lanes)


def loaded(folder: Path, placement: Placement) -> CausalModel:
    """Return the process's one language model of a folder, template, device and dtype; see `resident`."""
    return resident(CausalModel, folder, placement)
