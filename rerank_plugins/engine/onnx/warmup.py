"""Loads the network and the tokenizer of an ONNX model at the same time, on two workers."""

from __future__ import annotations

import asyncio
import contextlib
from typing import Any

from .. import no_telemetry
from ..shared_model import SharedModel

__all__ = ["load_model"]


async def load_model(model: SharedModel[Any, Any]) -> None:
    """Load the network, and the tokenizer meanwhile on another worker."""
    await asyncio.gather(model.loaded_network(), model.workers.run(_read_tokenizer, model))


def _read_tokenizer(model: SharedModel[Any, Any]) -> None:
    """Read the tokenizer after the import, which holds the interpreter lock too, and beside the session."""
    if model.options.runtime == "onnxruntime":
        with contextlib.suppress(Exception):  # loading the network reports why it cannot be imported
            no_telemetry.onnxruntime()
    _ = model.preprocessor
