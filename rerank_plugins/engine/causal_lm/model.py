"""Reranking language models in memory: a decoder without its vocabulary head, which gives one logit for each prompt."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ...core.errors import ConfigError
from ...core.scorer import unexpected_error
from ..checkpoint import architecture
from ..files import json_of
from ..shared_model import LoadOptions, packed_batches, run_batches
from ..tokenizer import PairTokenizer
from ..torch.base import OnDevice, TorchModel, device_of, dtype_of, pretrained, quiet
from .packed_attention import NAME, KeysAndValues, Packed, register
from .prompts import Prompt, Prompts, common_prefix
from .templates import TEMPLATES

if TYPE_CHECKING:
    import torch

__all__ = [
    "CausalModel",
    "CausalNetwork",
    "Decoder",
    "context_tokens",
    "load",
    "load_decoder",
    "run_prompts",
    "text_tokens",
]

_MIN_CONTEXT = 64
_TRANSFORMERS = 5
"""The first major version whose models pass extra arguments on to the attention function."""
_PROMPT_TOKENS = 256
"""Tokens of the context that are reserved for the prompt and a short instruction (the longest prompt has 110)."""


class Decoder(OnDevice):
    """A decoder without its vocabulary head: token ids in, hidden states of the last layer out."""

    def __init__(self, module: Any, device: torch.device, dtype: torch.dtype) -> None:
        """Take a module that is in evaluation mode and on its device."""
        super().__init__(device, dtype)
        self._module = module

    def states(self, texts: Sequence[Sequence[int]], shared: KeysAndValues | None = None) -> torch.Tensor:
        """Return the hidden states of all tokens of all texts in one row, (tokens, size).

        Args:
            texts: The token ids of each text.
            shared: Keys and values of the common prefix of all texts, see `prefill`.
        """
        return self._run(texts, Packed([len(text) for text in texts], shared))

    def prefill(self, ids: Sequence[int]) -> KeysAndValues | None:
        """Return the keys and values of the common prefix of all texts; `None` for an empty prefix."""
        if not ids:
            return None
        packed = Packed([len(ids)], store=True)
        self._run([ids], packed)
        return packed.stored

    def _run(self, texts: Sequence[Sequence[int]], packed: Packed) -> torch.Tensor:
        import torch

        with torch.inference_mode():
            row = torch.tensor([[token for text in texts for token in text]], device=self.device)
            places = torch.tensor([packed.positions()], device=self.device)
            output = self._module(input_ids=row, position_ids=places, use_cache=False, packed=packed)
            states: torch.Tensor = output.last_hidden_state[0]
            return states


class CausalNetwork(Decoder):
    """A decoder and the rows of its vocabulary head for `yes` and, if the template has one, `no`."""

    def __init__(self, module: Any, rows: torch.Tensor, device: torch.device, dtype: torch.dtype) -> None:
        """Take the decoder's module, and rows of the head in float32, (1 or 2, size), `yes` first."""
        super().__init__(module, device, dtype)
        self._rows = rows

    def score(self, texts: Sequence[Sequence[int]], shared: KeysAndValues | None) -> list[float]:
        """Return the logit of `yes` (minus that of `no`) after each text, computed in float32."""
        import torch

        with torch.inference_mode():
            ends = torch.tensor([len(text) for text in texts], device=self.device).cumsum(0) - 1
            logits = self.states(texts, shared)[ends].float() @ self._rows.T
            values = logits[:, 0] - logits[:, 1] if logits.shape[1] == 2 else logits[:, 0]
            return [float(value) for value in values.cpu()]


class CausalModel(TorchModel[CausalNetwork, Prompts]):
    """One language model in memory, with the prompt template of one family."""

    def __init__(self, folder: Path, options: LoadOptions) -> None:
        """Create the model without loading anything."""
        super().__init__(folder, options)
        self._template = TEMPLATES[options.template or ""]

    @property
    def tokenizer(self) -> PairTokenizer:
        """The model's tokenizer."""
        return self.preprocessor.tokenizer

    def load_preprocessor(self) -> Prompts:
        """Read the tokenizer for the template."""
        return Prompts(self.folder / "tokenizer.json", self._template)

    def load_network(self) -> CausalNetwork:
        """Read the weights."""
        return load(self.folder, self.options, self.preprocessor.answers)

    def prefill(self, network: CausalNetwork, ids: Sequence[int]) -> KeysAndValues | None:
        """Compute the common prefix of a call's texts, on the worker."""
        try:
            return network.prefill(ids)
        except Exception as error:
            raise unexpected_error(str(self.folder), error) from error

    def run_tails(
        self,
        network: CausalNetwork,
        tails: Sequence[Sequence[int]],
        shared: KeysAndValues | None,
        store: Callable[[list[int], list[float]], None],
        positions: list[int],
    ) -> None:
        """Run one batch on the worker, in parts if the GPU's memory is too small.

        Args:
            network: The network.
            tails: The texts of the call without their common prefix.
            shared: Keys and values of that prefix.
            store: Called with positions and logits of each part.
            positions: The texts of the batch.
        """
        texts, half = [tails[position] for position in positions], len(positions) // 2
        try:
            logits = self.run_batch(
                network, lambda: network.score(texts, shared), size=sum(map(len, texts)), divisible=half > 0
            )
        except Exception as error:
            raise unexpected_error(str(self.folder), error) from error
        if logits is not None:
            store(positions, logits)
            return
        for part in (positions[:half], positions[half:]):
            self.run_tails(network, tails, shared, store, part)


async def run_prompts(
    models: Sequence[CausalModel],
    rows: Sequence[Prompt],
    batch_tokens: int | None,
    store: Callable[[list[int], list[float]], None],
) -> None:
    """Run every prompt through a model. The common prefix of all prompts is computed once per copy of the model.

    Args:
        models: The copies of the model, one per device.
        rows: The prompts of one call.
        batch_tokens: The tokens of a batch without the common prefix; `None` is the device's default.
        store: Called with positions and logits after every batch, on the workers: for several copies, at the same time.
    """
    networks = await asyncio.gather(*(model.loaded_network() for model in models))
    copies = list(zip(models, networks, strict=True))
    ids = [row.ids for row in rows]
    prefix = common_prefix(ids) if len(ids) > 1 else 0
    caches = await asyncio.gather(
        *(model.workers.run(model.prefill, network, ids[0][:prefix]) for model, network in copies)
    )
    tails = [row[prefix:] for row in ids]
    limit = min(model.batch_limit(network, batch_tokens) for model, network in copies)
    runners = [
        partial(model.workers.run, model.run_tails, network, tails, shared, store)
        for (model, network), shared in zip(copies, caches, strict=True)
    ]
    await run_batches(packed_batches([len(tail) for tail in tails], limit), runners)


def context_tokens(folder: Path) -> int:
    """Return the size of the context of the model in a folder, in tokens.

    Raises:
        ConfigError: config.json does not declare it, or it is too small for a prompt.
    """
    size = json_of(folder / "config.json").get("max_position_embeddings")
    if not isinstance(size, int) or size < _MIN_CONTEXT:
        raise ConfigError(f"config.json in {folder} has no usable max_position_embeddings: fetch the model again.")
    return size


def text_tokens(folder: Path) -> int:
    """Return how many tokens of the context are free for query and document.

    Raises:
        ConfigError: As `context_tokens`.
    """
    size = context_tokens(folder)
    return max(size - _PROMPT_TOKENS, size // 2)


def load(folder: Path, options: LoadOptions, answers: Sequence[int]) -> CausalNetwork:
    """Load a model onto its device.

    Args:
        folder: The model's folder.
        options: How to load it.
        answers: The ids of `yes` and `no`. The other rows of the vocabulary head are dropped. A conversion to a
            classifier has a head of its own.

    Raises:
        ConfigError: This machine lacks the device or the dtype, or the checkpoint is incomplete.
    """
    from transformers import AutoModelForCausalLM, AutoModelForSequenceClassification

    if architecture(folder).endswith("ForSequenceClassification"):
        device, dtype, module = load_decoder(folder, options, AutoModelForSequenceClassification, head=True)
        weights = module.score.weight
        if len(weights) != 1:
            raise ConfigError(
                f"{folder} has {len(weights)} labels, and a conversion of a reranker has one: name the language model "
                "that it was made from."
            )
    else:
        device, dtype, module = load_decoder(folder, options, AutoModelForCausalLM)
        weights = module.get_output_embeddings().weight[list(answers)]
    return CausalNetwork(module.base_model.to(device), weights.detach().float().to(device), device, dtype)


def load_decoder(
    folder: Path, options: LoadOptions, kind: Any, *, head: bool = False
) -> tuple[torch.device, torch.dtype, Any]:
    """Return device, dtype, and the model that `kind.from_pretrained` loads, still on the CPU, with packed attention.

    Args:
        folder: The model's folder.
        options: How to load it.
        kind: A class of transformers.
        head: Whether the folder must hold a classification head, for the error.

    Raises:
        ConfigError: This machine lacks the device or the dtype, weights are missing, or transformers is too old.
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
            module = pretrained(kind, folder, dtype, attention=NAME, head=head)
    except (ConfigError, KeyboardInterrupt):
        raise
    except (
        BaseException
    ) as error:  # the libraries raise anything, and code that calls sys.exit must not end the program
        raise ConfigError(
            f"{folder} cannot be loaded ({type(error).__name__}: {error}): fetch it again, or name another model."
        ) from error
    return device, dtype, module
