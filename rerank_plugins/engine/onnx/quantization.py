"""`dtype: int8` on OpenVINO: weights in eight bits, and activations too, in groups of 32.

The weights of linear layers take a quarter of their memory. Not exact (`benchmarks/local.py` prints Kendall's tau to float32), so it
is taken only by name. A scale for each token and group keeps a document's score apart from its batch-mates'; coarser groups, or one
scale a tensor as onnxruntime's dynamic quantisation has it, lose more (speed.md, "Accuracy", November 2026).
"""

from __future__ import annotations

from typing import Any

__all__ = ["GROUP", "compress"]

GROUP = "32"
"""Activations that share a scale, for OpenVINO's DYNAMIC_QUANTIZATION_GROUP_SIZE."""
_SMALL = 4096
"""Weights of a matrix that is left in float: nothing is won there."""


def compress(model: Any) -> None:
    """Store the weights of every linear layer of an `openvino.Model` as int8 with a float32 scale an output, in place."""
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
