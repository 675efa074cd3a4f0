"""OpenVINO as the runtime of an ONNX file: faster than onnxruntime on some CPUs, in float32, bfloat16 or int8.

`dtype: int8` stores the weights of linear layers in eight bits, a quarter of their memory, and computes activations in
eight bits with one scale per token and group of 32. It is not exact (`benchmarks/local.py` prints Kendall's tau to
float32), so a spec must name it. With a scale per token and group a document's score does not depend on the other
documents of its batch. Coarser groups lose more accuracy, and so does one scale per tensor, which is what onnxruntime's
dynamic quantization uses.
"""

from __future__ import annotations

import contextlib
import os
import threading
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ...core._runtime.fork_hooks import Lock
from .. import no_telemetry
from ..files import stat_signature

if TYPE_CHECKING:
    import numpy as np

__all__ = ["OpenVINO", "computes_bfloat16", "store_weights_as_int8", "without_links"]

GROUP = "32"
"""Activations that share a scale, for OpenVINO's DYNAMIC_QUANTIZATION_GROUP_SIZE."""
_SMALL = 4096
"""A matrix of fewer weights stays in float: int8 saves nothing there."""
_first_tensor = Lock()
"""Held while the first tensor is created, see `OpenVINO`."""


def computes_bfloat16() -> bool:
    """Tell whether this CPU has instructions for bfloat16.

    OpenVINO's own list has BF16 for CPUs that only emulate it.
    """
    with contextlib.suppress(OSError):
        flags = Path("/proc/cpuinfo").read_text("utf-8", "replace")
        return "avx512_bf16" in flags or "amx_bf16" in flags
    return False


class OpenVINO:
    """An ONNX file compiled by OpenVINO. `run` may be called by several threads at once."""

    def __init__(self, file: Path, dtype: str, streams: int, large: int) -> None:
        """Compile a file.

        Args:
            file: The ONNX file.
            dtype: `float32`, `bfloat16` or `int8`.
            streams: How many threads will call `run` at the same time.
            large: Tokens of a batch above which its memory is not kept for the next one.
        """
        import numpy as np

        ov = no_telemetry.openvino()
        # At the first access to the data of a tensor OpenVINO creates something that two threads can deadlock over: one
        # holds Python's lock and waits for the other to create it, which waits for Python's lock (seen once, 2026.4).
        # So it is created here, by one thread.
        with _first_tensor:
            ov.Tensor(np.zeros((1, 1), dtype=np.int64)).data.copy()
        settings = {
            "PERFORMANCE_HINT": "THROUGHPUT",
            "NUM_STREAMS": streams,
            "INFERENCE_NUM_THREADS": streams,
            "INFERENCE_PRECISION_HINT": "bf16" if dtype != "float32" and computes_bfloat16() else "f32",
            # The default quantizes activations in groups even where float32 is asked for.
            "DYNAMIC_QUANTIZATION_GROUP_SIZE": GROUP if dtype == "int8" else "0",
            # OpenVINO keeps the code that it generates for each input shape, by default for 5,000 shapes: half a
            # gigabyte after 1,200 documents, and no faster (MiniLM-L6's shape, 2026.4, two cores).
            "CPU_RUNTIME_CACHE_CAPACITY": "32",
        }
        core = ov.Core()
        model = core.read_model(str(file))
        if dtype == "int8":
            store_weights_as_int8(model)
        self._compiled = core.compile_model(model, "CPU", settings)
        self.inputs, self.outputs = (
            [(_name(node), _shape(node)) for node in nodes] for nodes in (model.inputs, model.outputs)
        )
        self._large = large
        self._idle: list[Any] = []
        self._lock = threading.Lock()  # guards `_idle`

    def run(self, feed: Mapping[str, np.ndarray], output: int) -> np.ndarray:
        """Return one of the outputs, by its position."""
        with self._lock:
            request = self._idle.pop() if self._idle else self._compiled.create_infer_request()
        request.infer(dict(feed))
        values: np.ndarray = request.get_output_tensor(output).data.copy()
        # A request that failed, or that holds the memory of a large batch, is dropped.
        if feed["input_ids"].size <= self._large:
            with self._lock:
                self._idle.append(request)
        return values


def _name(node: Any) -> str:
    return str(node.get_any_name()) if node.get_names() else ""


def _shape(node: Any) -> Sequence[int | None] | None:
    shape = node.get_partial_shape()
    return [size.get_length() if size.is_static else None for size in shape] if shape.rank.is_static else None


def store_weights_as_int8(model: Any) -> None:
    """Change an `openvino.Model` so that linear layers store their weights as int8, with a float32 scale per output."""
    import numpy as np
    from openvino import opset13

    for node in model.get_ordered_ops():
        if node.get_type_name() != "MatMul" or node.input_value(1).get_node().get_type_name() != "Constant":
            continue
        weights = node.input_value(1).get_node().data
        if weights.ndim != 2 or weights.size < _SMALL:
            continue
        inputs = 1 if node.get_attributes()["transpose_b"] else 0
        scale = np.maximum(np.abs(weights).max(axis=inputs, keepdims=True) / np.float32(127), np.float32(1e-12))
        rounded = opset13.constant(np.rint(weights / scale).astype(np.int8))
        restored = opset13.multiply(opset13.convert(rounded, "f32"), opset13.constant(scale))
        node.input(1).replace_source_output(restored.output(0))


@contextlib.contextmanager
def without_links(file: Path, weights: list[Path]) -> Iterator[Path]:
    """Yield a path to an ONNX file whose external weights are real files beside it.

    OpenVINO does not follow links to other folders. All files in a hub's cache are such links. This makes a temporary
    folder of hard links, next to the files that the links point to.

    Args:
        file: The ONNX file.
        weights: The links beside it, or in folders below.
    """
    import tempfile

    from ..pins import update_stat_signatures

    signatures = {path: stat_signature(path) for path in (*weights, file)}
    with contextlib.ExitStack() as cleanup:
        with contextlib.suppress(OSError):  # such as a read-only cache: then the runtime raises its own error
            target = file.resolve().parent
            folder = cleanup.enter_context(tempfile.TemporaryDirectory(dir=target, ignore_cleanup_errors=True))
            for path in signatures:
                link = Path(folder) / path.relative_to(file.parent)
                link.parent.mkdir(parents=True, exist_ok=True)
                os.link(path.resolve(), link)
            file = Path(folder) / file.name
        yield file
    update_stat_signatures(signatures)
