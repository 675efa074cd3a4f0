"""Logs that a model was loaded, in one format for every engine."""

from __future__ import annotations

import logging
import time
from pathlib import Path

from ..core.redaction import one_line

__all__ = ["LoadLog"]

_log = logging.getLogger("rerank_plugins")


class LoadLog:
    """Measures the time of one load, from its creation on.

    Loading takes from milliseconds to minutes, and the first call waits for it, so it is logged for operators (INFO).
    """

    def __init__(self, model: Path) -> None:
        """Start the clock for a model's folder or file."""
        self._model = model
        self._started = time.perf_counter()

    def finished(self, engine: str, dtype: str, device: str = "cpu") -> None:
        """Log the model, the time, and what it computes with."""
        seconds = time.perf_counter() - self._started
        _log.info("Loaded %s in %.2f s (%s, %s, %s)", one_line(str(self._model)), seconds, engine, dtype, device)
