"""Checks the sizes in a model's config.json against its weights: a wrong size could exhaust memory or take hours."""

from __future__ import annotations

import math
from pathlib import Path

from ..core.errors import ConfigError, clause
from .checkpoint import POSITION_TABLE
from .files import json_of

__all__ = ["refuse_sizes"]

_LAYERS = ("num_hidden_layers", "num_layers", "n_layer", "n_layers", "encoder_layers", "decoder_layers")
_WIDTHS = (
    "hidden_size",
    "intermediate_size",
    "vocab_size",
    "d_model",
    "dim",
    "n_embd",
    "embedding_size",
    "type_vocab_size",
)
_POSITIONS = ("max_position_embeddings", "n_positions")
_HIDDEN = ("hidden_size", "d_model", "dim", "n_embd")
_MIN_LAYER_LIMIT = 1000
"""Always allowed: so many layers are built in seconds, and ALBERT's layers may share one set of weights."""
_MAX_POSITIONS = 2**27
"""The limit for models without a table of positions, which still compute with numbers of that count; the longest
context in use is 2**23."""


def refuse_sizes(folder: Path) -> None:
    """Refuse a config.json that declares a larger network than the folder's weights can fill.

    transformers builds the network before it reads the weights: 10 million layers take hours, and a weight that no file
    holds is filled with random numbers. The limits: a layer has at least one tensor, a width is at most the number of
    all weights, and labels and a table of positions are matrices of the hidden width.

    Raises:
        ConfigError: config.json declares a larger size, or a weights file cannot be read.
    """
    tensors, numbers = _stored(folder)
    config = json_of(folder / "config.json")
    settings = [config, *(value for value in config.values() if isinstance(value, dict))]
    hidden = next((config[name] for name in _HIDDEN if isinstance(config.get(name), int) and config[name] > 0), 1)
    table = config.get("model_type") in POSITION_TABLE
    bounds = (
        *((name, max(tensors, _MIN_LAYER_LIMIT)) for name in _LAYERS),
        *((name, numbers) for name in _WIDTHS),
        *((name, numbers // hidden if table else _MAX_POSITIONS) for name in _POSITIONS),
        ("num_labels", max(numbers // hidden, 2)),
    )
    labels = config.get("id2label")
    if isinstance(labels, dict):
        settings.append({"num_labels": len(labels)})
    for section in settings:
        for name, largest in bounds:
            value = section.get(name)
            if isinstance(value, int) and value > largest:
                raise ConfigError(
                    f"config.json in {folder} declares {name} {value:,}, which its weights ({tensors:,} tensors of "
                    f"{numbers:,} numbers) cannot have: fetch the model again."
                )


def _stored(folder: Path) -> tuple[int, int]:
    """Return how many tensors the weights at the top of a folder hold, and how many numbers all tensors hold."""
    from safetensors import safe_open

    tensors = numbers = 0
    for file in sorted(folder.glob("*.safetensors")):
        try:
            with safe_open(file, "np") as opened:
                for name in opened.keys():  # noqa: SIM118 (not a dictionary)
                    tensors += 1
                    numbers += math.prod(opened.get_slice(name).get_shape())
        except Exception as error:  # safetensors' exceptions share no base class
            raise ConfigError(f"{file} cannot be read as safetensors ({clause(error)}): fetch it again.") from error
    return tensors, numbers
