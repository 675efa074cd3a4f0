"""Any cross-encoder in ONNX form, from a folder or a hub repository, without torch."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from ..core.types import Capabilities
from ..engine.hub import Repository, folder_or_repository, require_model
from ..engine.hub_files import onnx_files
from ..engine.model_backend import UNKNOWN_LENGTH, LazyBackend
from ..engine.onnx.cross_encoder import OnnxCrossEncoder
from ..options import CPU, LocalOptions

__all__ = ["Onnx", "OnnxOptions"]


class OnnxOptions(LocalOptions):
    """Options of a cross-encoder in ONNX form."""

    device: CPU | None = None
    """`cpu`."""
    runtime: Literal["auto", "onnxruntime", "openvino"] | None = None
    """`onnxruntime`, or `openvino`; the default is onnxruntime, unless `dtype` needs OpenVINO."""
    dtype: Literal["float32", "auto", "bfloat16", "int8"] | None = None
    """`float32`, exact; `auto`, the fastest that keeps the order; on OpenVINO also `bfloat16` and `int8`."""


class Onnx(LazyBackend):
    """`onnx:/folder` or `onnx:org/name`: the ONNX file in a folder or a hub repository, without torch."""

    Options = OnnxOptions

    def __init__(self, model: str | None = None, options: OnnxOptions | None = None) -> None:
        """Take a folder, or `org/name` on the hub.

        Args:
            model: The folder or repository.
            options: See `OnnxOptions`.

        Raises:
            ConfigError: No model was named, or the folder holds none.
        """
        options = options or OnnxOptions()
        model = require_model(model, self.name)
        OnnxCrossEncoder.check_options(**options.engine())
        source = folder_or_repository(
            model, f"{self.name}:{model}", onnx_files, options.revision, options.local_files_only
        )
        declared = Capabilities(scale="logit", max_tokens=options.max_tokens or UNKNOWN_LENGTH)

        def make(folder: Path) -> OnnxCrossEncoder:
            file = source.onnx_file() if isinstance(source, Repository) else None
            return OnnxCrossEncoder(folder, file=file, **options.engine())

        super().__init__(model, source, make, declared)
