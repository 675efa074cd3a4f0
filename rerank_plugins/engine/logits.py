"""A cross-encoder's output to one raw score a row."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from ..core.errors import ConfigError

if TYPE_CHECKING:
    import numpy as np

__all__ = ["logits"]


def logits(output: np.ndarray, folder: Path) -> list[float]:
    """Return one logit a row: the only one, or of two labels the second's minus the first's.

    The sigmoid of that difference is the softmax of the second label.

    Args:
        output: (rows,), (rows, 1) or (rows, 2).
        folder: The model's, for the error.

    Raises:
        ConfigError: Another shape.
    """
    if output.ndim == 1:
        return [float(value) for value in output]
    if output.ndim == 2 and output.shape[1] == 1:
        return [float(value) for value in output[:, 0]]
    if output.ndim == 2 and output.shape[1] == 2:
        return [float(value) for value in output[:, 1] - output[:, 0]]
    raise ConfigError(
        f"{folder} gives an output of shape {output.shape} and no single score: it is no cross-encoder "
        "(perhaps an embedding model). Name one that was trained to rerank."
    )
