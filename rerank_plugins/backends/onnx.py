"""Any cross-encoder in ONNX form, by name: the file that a folder or a repository ships, without torch."""

from __future__ import annotations

from functools import partial
from typing import Literal

from ..core.types import Capabilities
from ..engine.hub import onnx_files
from ..engine.lazy import UNKNOWN_LENGTH, LazyBackend, located, needed
from ..engine.onnx.backend import OnnxCrossEncoder
from ..options import CPU, LocalOptions

__all__ = ["OnnxByName", "OnnxOptions"]


class OnnxOptions(LocalOptions):
    """Options of a cross-encoder in ONNX form."""

    device: CPU | None = None
    """`cpu`."""
    runtime: Literal["auto", "onnxruntime", "openvino"] | None = None
    """`onnxruntime`, or `openvino`; without it onnxruntime, unless `dtype` calls for OpenVINO."""
    dtype: Literal["float32", "auto", "bfloat16", "int8"] | None = None
    """`float32`, exact; `auto` for the fastest that keeps the order; on OpenVINO `bfloat16` and `int8`."""


class OnnxByName(LazyBackend):
    """`onnx:/folder` or `onnx:org/name`: the ONNX file that the repository ships, without torch."""

    Options = OnnxOptions

    def __init__(self, model: str | None = None, options: OnnxOptions | None = None) -> None:
        """Name a folder, or `org/name` on the hub.

        Raises:
            ConfigError: No model was named, or what is there is none.
        """
        options = options or OnnxOptions()
        model = needed(model, self.name)
        OnnxCrossEncoder.check_options(**options.engine())
        where = located(model, f"{self.name}:{model}", onnx_files, options.revision, options.local_files_only)
        declared = Capabilities(scale="logit", max_tokens=options.max_tokens or UNKNOWN_LENGTH)
        super().__init__(model, where, partial(OnnxCrossEncoder, **options.engine()), declared)
