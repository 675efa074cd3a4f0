"""onnxruntime as the runtime of an ONNX file: float32, one thread for each run."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .. import no_telemetry
from .graph_cache import WEIGHTS

if TYPE_CHECKING:
    import numpy as np

__all__ = ["OnnxruntimeSession"]

_EXTERNAL_BYTES = "1024"
"""Weights of at least so many bytes are written beside the graph, so that they are mapped and not copied."""


class OnnxruntimeSession:
    """An ONNX file loaded by onnxruntime. `run` may be called by several threads at once."""

    def __init__(self, file: Path, large: int, *, optimized: bool = False, save_as: Path | None = None) -> None:
        """Load a file.

        Args:
            file: The ONNX file.
            large: Tokens of a batch above which its memory is not kept for the next one.
            optimized: Whether the file is an optimised graph that this class has saved.
            save_as: Where to save the optimised graph, with its weights beside it; `None` does not save it.
        """
        self.file = file
        ort = no_telemetry.onnxruntime()
        options = ort.SessionOptions()
        # One thread per run and one worker per core: no threads that wait for each other, and no loss on a shared
        # machine.
        options.intra_op_num_threads = 1
        options.inter_op_num_threads = 1
        # Weights stored as int8 are computed in float. By default onnxruntime fuses them into integer products.
        options.add_session_config_entry("session.disable_quant_qdq", "1")
        options.log_severity_level = 3
        if optimized:
            options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
        if save_as is not None:
            options.optimized_model_filepath = str(save_as)
            entries = {
                "optimized_model_external_initializers_file_name": WEIGHTS,
                "optimized_model_external_initializers_min_size_in_bytes": _EXTERNAL_BYTES,
                "save_external_prepacked_constant_initializers": "1",
            }
            for name, value in entries.items():
                options.add_session_config_entry(f"session.{name}", value)
        self._session = ort.InferenceSession(str(file), options, providers=["CPUExecutionProvider"])
        nodes = self._session.get_inputs(), self._session.get_outputs()
        self.inputs, self.outputs = ([(node.name, _sizes(node.shape)) for node in part] for part in nodes)
        # Some files take integers of 32 bits. (OpenVINO converts by itself.)
        self._narrow = {node.name for node in self._session.get_inputs() if node.type == "tensor(int32)"}
        # onnxruntime's arena keeps its peak size for ever, so it is shrunk after a large batch. Small batches keep it:
        # they are a tenth faster than without an arena (measured with benchmarks/local.py).
        self._shrinking = ort.RunOptions()
        self._shrinking.add_run_config_entry("memory.enable_memory_arena_shrinkage", "cpu:0")
        self._large = large

    def run(self, feed: Mapping[str, np.ndarray], output: int) -> np.ndarray:
        """Return one of the outputs, by its position."""
        options = self._shrinking if feed["input_ids"].size > self._large else None
        arrays = {name: value.astype("int32") if name in self._narrow else value for name, value in feed.items()}
        values: np.ndarray = self._session.run([self.outputs[output][0]], arrays, options)[0]
        return values


def _sizes(shape: Sequence[Any]) -> Sequence[int | None] | None:
    """Convert a shape of onnxruntime's, which has names and `None` for sizes that are not fixed."""
    return [size if isinstance(size, int) and size > 0 else None for size in shape] or None
