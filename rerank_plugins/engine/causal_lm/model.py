"""A folder with a reranking language model: a decoder without its head, prompts in, one logit for each out."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ...core.errors import ConfigError
from ...core.scorer import failed
from ..files import json_of
from ..scheduling import packs, run_batches
from ..shared_model import LoadOptions
from ..tokenizer import PairTokenizer
from ..torch.loading import OnDevice, TorchModel, device_of, dtype_of, pretrained, quiet
from .packed_attention import NAME, KeysAndValues, Packed, register
from .prompts import Prompt, Prompts, common
from .templates import TEMPLATES

if TYPE_CHECKING:
    import torch

__all__ = ["CausalModel", "CausalNetwork", "Trunk", "context", "load", "load_trunk", "map_prompts", "text_tokens"]

_FEWEST = 64
_TRANSFORMERS = 5
"""Its models hand our arguments on to attention."""
_RESERVE = 256
"""Tokens of the context that are kept for the prompt and a short instruction (the longest prompt has 110)."""


class Trunk(OnDevice):
    """A decoder without its head: rows of ids in, the last layer's states out."""

    def __init__(self, module: Any, device: torch.device, dtype: torch.dtype) -> None:
        """Keep the module, which is in evaluation mode and on its device."""
        super().__init__(device, dtype)
        self._module = module

    def states(self, texts: Sequence[Sequence[int]], shared: KeysAndValues | None = None) -> torch.Tensor:
        """Return the states of all tokens of all texts behind each other, (tokens, size); see `Packed`."""
        return self._run(texts, Packed([len(text) for text in texts], shared))

    def begin(self, ids: Sequence[int]) -> KeysAndValues | None:
        """Return the keys and values of what stands before every text; `None` where that is nothing."""
        if not ids:
            return None
        packed = Packed([len(ids)], keep=True)
        self._run([ids], packed)
        return packed.kept

    def _run(self, texts: Sequence[Sequence[int]], packed: Packed) -> torch.Tensor:
        import torch

        with torch.inference_mode():
            row = torch.tensor([[token for text in texts for token in text]], device=self.device)
            places = torch.tensor([packed.positions()], device=self.device)
            output = self._module(input_ids=row, position_ids=places, use_cache=False, packed=packed)
            states: torch.Tensor = output.last_hidden_state[0]
            return states


class CausalNetwork(Trunk):
    """A trunk and the rows of the vocabulary head for `yes` and, where there is one, `no`."""

    def __init__(self, module: Any, rows: torch.Tensor, device: torch.device, dtype: torch.dtype) -> None:
        """Keep both; `rows` is (1 or 2, size), float32, `yes` first."""
        super().__init__(module, device, dtype)
        self._rows = rows

    def score(self, texts: Sequence[Sequence[int]], shared: KeysAndValues | None) -> list[float]:
        """Return the logit of `yes`, minus that of `no`, after each text; computed in float32."""
        import torch

        with torch.inference_mode():
            ends = torch.tensor([len(text) for text in texts], device=self.device).cumsum(0) - 1
            logits = self.states(texts, shared)[ends].float() @ self._rows.T
            values = logits[:, 0] - logits[:, 1] if logits.shape[1] == 2 else logits[:, 0]
            return [float(value) for value in values.cpu()]


class CausalModel(TorchModel[CausalNetwork, Prompts]):
    """One language model in memory, as one family's reranker."""

    def __init__(self, folder: Path, options: LoadOptions) -> None:
        """Prepare; nothing is loaded before the first use."""
        super().__init__(folder, options)
        self._template = TEMPLATES[options.template or ""]

    @property
    def tokenizer(self) -> PairTokenizer:
        """Its tokenizer."""
        return self.reader.tokenizer

    def read(self) -> Prompts:
        """Read the tokenizer, for the template."""
        return Prompts(self.folder / "tokenizer.json", self._template)

    def load(self) -> CausalNetwork:
        """Read the weights."""
        return load(self.folder, self.options, self.reader.answers)

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
        keep: Callable[[list[int], list[float]], None],
        positions: list[int],
    ) -> None:
        """Run one batch on the worker, or its parts; call `keep(positions, logits)` after each."""
        texts, half = [tails[position] for position in positions], len(positions) // 2
        try:
            logits = self.attempt(
                network, lambda: network.score(texts, shared), size=sum(map(len, texts)), halves=half > 0
            )
        except Exception as error:
            raise failed(str(self.folder), error) from error
        if logits is not None:
            keep(positions, logits)
            return
        for part in (positions[:half], positions[half:]):
            self.run(network, tails, shared, keep, part)


async def map_prompts(
    models: Sequence[CausalModel],
    rows: Sequence[Prompt],
    batch_tokens: int | None,
    keep: Callable[[list[int], list[float]], None],
) -> None:
    """Run every prompt through a model that has one copy or several; call `keep(positions, logits)` after every batch.

    What all prompts begin with is computed once a copy, and is not counted in `batch_tokens`. `keep` runs on the
    workers: of several copies, at the same time.
    """
    networks = await asyncio.gather(*(model.ready() for model in models))
    copies = list(zip(models, networks, strict=True))
    ids = [row.ids for row in rows]
    same = common(ids) if len(ids) > 1 else 0
    begun = await asyncio.gather(*(model.workers.run(model.begin, network, ids[0][:same]) for model, network in copies))
    tails = [row[same:] for row in ids]
    limit = min(model.batch_limit(network, batch_tokens) for model, network in copies)
    lanes = [
        partial(model.workers.run, model.run, network, tails, shared, keep)
        for (model, network), shared in zip(copies, begun, strict=True)
    ]
    await run_batches(packs([len(tail) for tail in tails], limit), lanes)


def context(folder: Path) -> int:
    """Return how many tokens the model in a folder was made for.

    Raises:
        ConfigError: Its config.json does not say, or says too few to hold a prompt.
    """
    size = json_of(folder / "config.json").get("max_position_embeddings")
    if not isinstance(size, int) or size < _FEWEST:
        raise ConfigError(f"config.json in {folder} has no usable max_position_embeddings: fetch the model again.")
    return size


def text_tokens(folder: Path) -> int:
    """Return how many tokens of query and document the model in a folder has beside its prompt.

    Raises:
        ConfigError: As `context`.
    """
    size = context(folder)
    return max(size - _RESERVE, size // 2)


def load(folder: Path, options: LoadOptions, answers: Sequence[int]) -> CausalNetwork:
    """Load a model onto its device; of its vocabulary head only the rows `answers` are kept.

    Raises:
        ConfigError: A device or dtype that this machine has not, or a checkpoint that is not whole.
    """
    from transformers import AutoModelForCausalLM

    device, dtype, whole = load_trunk(folder, options, AutoModelForCausalLM)
    rows = whole.get_output_embeddings().weight[list(answers)].detach().float().to(device)
    return CausalNetwork(whole.base_model.to(device), rows, device, dtype)


def load_trunk(folder: Path, options: LoadOptions, kind: Any) -> tuple[torch.device, torch.dtype, Any]:
    """Return device, dtype, and the model that `kind.from_pretrained` reads, still on the CPU, with our attention.

    Raises:
        ConfigError: A device or dtype that this machine has not, weights that lack something, or an old transformers.
    """
    import transformers

    if int(transformers.__version__.partition(".")[0]) < _TRANSFORMERS:
        raise ConfigError(
            f"Language models need transformers {_TRANSFORMERS}, and {transformers.__version__} is installed: "
            f"pip install 'transformers>={_TRANSFORMERS}'"
        )
    device = device_of(options.device)
    dtype = dtype_of(options.dtype, device)
    register()
    try:
        with quiet():
            module = pretrained(kind, folder, dtype, attention=NAME, head=False)
    except (ConfigError, KeyboardInterrupt):
        raise
    except BaseException as error:  # the libraries raise whatever they like; code that exits ends no host
        raise ConfigError(
            f"{folder} cannot be loaded ({type(error).__name__}: {error}): fetch it again, or name another model."
        ) from error
    return device, dtype, module
