"""Safetensors to a language model's trunk and the few rows of its vocabulary head that score."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..core.errors import ConfigError
from .checkpoint import architecture, has_files, refuse_code
from .limits import json_of
from .packed import NAME, KeysAndValues, Packed, register
from .torch_load import OnDevice, device_of, dtype_of, pretrained, quiet

if TYPE_CHECKING:
    import torch

    from .resident import Placement

__all__ = ["CausalNetwork", "Trunk", "architecture", "check", "context", "load", "room", "trunk"]

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
            row = torch.tensor([[each for text in texts for each in text]], device=self.device)
            places = torch.tensor([packed.positions()], device=self.device)
            output = self._module(input_ids=row, position_ids=places, use_cache=False, packed=packed)
            found: torch.Tensor = output.last_hidden_state[0]
            return found


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


def check(folder: Path, wanted: str, family: str) -> None:
    """Look at a folder's files without loading any.

    Raises:
        ConfigError: It is no folder, or lacks a file, or its config.json names another class than `wanted`.
    """
    has_files(folder)
    refuse_code(folder)
    if (found := architecture(folder)) != wanted:
        raise ConfigError(
            f"{folder} is a {found or 'model of no named architecture'}, and {family} is for a {wanted}: its prompt and "
            "its answers would mean nothing there. Name the family that the model belongs to."
        )


def context(folder: Path) -> int:
    """Return how many tokens the model in a folder was made for.

    Raises:
        ConfigError: Its config.json does not say, or says too few to hold a prompt.
    """
    found = json_of(folder / "config.json").get("max_position_embeddings")
    if not isinstance(found, int) or found < _FEWEST:
        raise ConfigError(f"config.json in {folder} has no usable max_position_embeddings: fetch the model again.")
    return found


def room(folder: Path) -> int:
    """Return how many tokens of query and document the model in a folder has beside its prompt.

    Raises:
        ConfigError: As `context`.
    """
    most = context(folder)
    return max(most - _RESERVE, most // 2)


def load(folder: Path, placement: Placement, answers: Sequence[int]) -> CausalNetwork:
    """Load a model onto its device; of its vocabulary head only the rows `answers` are kept.

    Raises:
        ConfigError: A device or dtype that this machine has not, or a checkpoint that is not whole.
    """
    from transformers import AutoModelForCausalLM

    device, dtype, whole = trunk(folder, placement, AutoModelForCausalLM)
    rows = whole.get_output_embeddings().weight[list(answers)].detach().float().to(device)
    return CausalNetwork(whole.base_model.to(device), rows, device, dtype)


def trunk(folder: Path, placement: Placement, kind: Any) -> tuple[torch.device, torch.dtype, Any]:
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
    device = device_of(placement.device)
    dtype = dtype_of(placement.dtype, device)
    register()
    try:
        with quiet():
            module, lacking = pretrained(kind, folder, dtype, attention=NAME)
    except (ConfigError, KeyboardInterrupt):
        raise
    except BaseException as error:  # the libraries raise whatever they like; code that exits ends no host
        raise ConfigError(
            f"{folder} cannot be loaded ({type(error).__name__}: {error}): fetch it again, or name another model."
        ) from error
    if lacking:
        raise ConfigError(
            f"The weights in {folder} lack {', '.join(lacking[:3])}{' …' if len(lacking) > 3 else ''}: fetch it again."
        )
    return device, dtype, module
