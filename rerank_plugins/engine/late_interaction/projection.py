"""The `Dense` layers of a late-interaction model, which map the encoder's token states to short vectors."""

from __future__ import annotations

import copy
import hashlib
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ...core.errors import ConfigError, clause
from ..files import json_of, stat_regular
from .layout import Layout

if TYPE_CHECKING:
    import numpy as np

__all__ = ["DenseLayer", "Projection", "projection_files", "read_layers", "run_layers", "stanford_digest"]

_BARE_OUTPUTS = ("last_hidden_state", "token_embeddings")
"""The names of outputs before the projection, in files that optimum and sentence-transformers export."""
_NUMPY_DTYPES = {"F64": "<f8", "F32": "<f4", "F16": "<f2", "BF16": "<u2"}
"""The dtypes of safetensors that are read. numpy has no bfloat16: its bits are read as integers."""


@dataclass(frozen=True, slots=True)
class DenseLayer:
    """One layer: activation(x @ weight.T + bias), plus the residual. All arrays are float32."""

    weight: np.ndarray
    """[width of the output, width of the input]."""
    bias: np.ndarray | None
    residual: np.ndarray | None
    """The weight of the residual connection; `None` without one, or if it adds the input itself."""
    adds_input: bool
    activation: str
    """The name of a class of `torch.nn`."""


@dataclass(frozen=True, slots=True)
class Projection:
    """The layers beside an ONNX file, as the folder held them when they were read. The file may hold them too."""

    folder: Path
    dense: tuple[str, ...] | None
    """The folders of the layers; see `Layout`."""
    width_before: Any
    """The width of the encoder, as the settings say."""
    width_after: Any
    """The width of the vectors, as the settings say; `None` in Stanford's layout."""
    layers: list[DenseLayer] | ConfigError
    """The layers; if they cannot be read, the error for an ONNX file that needs them."""

    @classmethod
    def read(cls, folder: Path, layout: Layout) -> Projection:
        """Read the layers and the widths of a folder.

        Raises:
            ConfigError: The settings are damaged; or, in Stanford's layout, the weights.
        """
        if layout.dense is None:  # Stanford's: one layer, whose width only its weights tell
            before = json_of(folder / "config.json").get("hidden_size")
            weights = _stanford_weights(folder)
            missing = ConfigError(
                f"The ONNX file in {folder} does not hold the projection of token vectors, and there are no "
                "safetensors with it beside it: set runtime to 'torch'."
            )
            return cls(folder, None, before, None, _stanford_layers(weights, folder) if weights else missing)
        if not layout.dense:
            return cls(folder, (), None, None, [])
        first, last = (json_of(folder / path / "config.json") for path in (layout.dense[0], layout.dense[-1]))
        layers: list[DenseLayer] | ConfigError
        try:
            layers = read_layers(folder, layout)
        except ConfigError as error:
            layers = error
        return cls(folder, layout.dense, first.get("in_features"), last.get("out_features"), layers)

    @property
    def stanford_digest(self) -> str:
        """What the function `stanford_digest` returns, of the layer that was read."""
        if self.dense is not None or isinstance(self.layers, ConfigError):
            return ""
        return _digest_of(self.layers[0].weight)

    def layers_after(self, width: int, output: str) -> list[DenseLayer]:
        """Return the layers to run after an output of the ONNX file; none if the file holds them.

        Args:
            width: The width of the output.
            output: The name of the output.

        Raises:
            ConfigError: The layers cannot be read or take another width; or the width is neither that of the encoder
            nor that of the vectors.
        """
        if self._is_applied(width, output):
            return []
        if isinstance(self.layers, ConfigError):
            raise copy.copy(self.layers)  # a copy, since every call raises it
        inputs = self.layers[0].weight.shape[1]
        if inputs != width:
            raise ConfigError(
                f"The ONNX file in {self.folder} gives vectors of {width} numbers, and the layer that projects them "
                f"takes {inputs}: fetch the model again, or export an ONNX file that holds the layer."
            )
        return self.layers

    def _is_applied(self, width: int, output: str) -> bool:
        if self.dense is None:
            return bool(width != self.width_before and output != "last_hidden_state")
        if not self.dense:
            return True
        if width == self.width_after and (width != self.width_before or output not in _BARE_OUTPUTS):
            return True
        if width == self.width_before:
            return False
        raise ConfigError(
            f"The ONNX file in {self.folder} gives vectors of {width} numbers; the model's encoder has "
            f"{self.width_before} and its Dense layers {self.width_after}. Export it again, or set runtime to 'torch'."
        )


def projection_files(folder: Path, layout: Layout) -> list[Path]:
    """Return the files that hold the weights of a model's layers, as far as they exist."""
    if layout.dense is None:
        return sorted(folder.glob("*.safetensors"))
    return [file for path in layout.dense if (file := folder / path / "model.safetensors").is_file()]


def stanford_digest(folder: Path) -> str:
    """Return a hash of the layer in Stanford's layout; an empty string if the folder does not hold its weights.

    It lies in the file of the encoder's weights, where samples of the file may miss it.

    Raises:
        ConfigError: The weights are damaged.
    """
    weights = _stanford_weights(folder)
    return _digest_of(weights["linear.weight"]) if weights else ""


def _stanford_weights(folder: Path) -> dict[str, np.ndarray]:
    return _tensors(sorted(folder.glob("*.safetensors")), ("linear.weight",))


def _stanford_layers(weights: dict[str, np.ndarray], folder: Path) -> list[DenseLayer]:
    weight = _require(weights, "linear.weight", folder)
    _check_shape(weight, "linear.weight", (None, None), folder)
    return [DenseLayer(weight, None, None, False, "Identity")]


def _digest_of(weight: np.ndarray) -> str:
    return hashlib.sha256(weight.tobytes()).hexdigest()[:32]


def read_layers(folder: Path, layout: Layout) -> list[DenseLayer]:
    """Read the layers of a model.

    Raises:
        ConfigError: Weights are missing or damaged.
    """
    if layout.dense is None:
        return _stanford_layers(_stanford_weights(folder), folder)
    layers: list[DenseLayer] = []
    for path in layout.dense:
        inside = folder / path
        config = json_of(inside / "config.json")
        weights = _tensors([inside / "model.safetensors"], ("linear.weight", "linear.bias", "residual.weight"))
        weight = _require(weights, "linear.weight", inside)
        # A layer takes what the one before it gives.
        _check_shape(weight, "linear.weight", (None, layers[-1].weight.shape[0] if layers else None), inside)
        bias = _require(weights, "linear.bias", inside) if config.get("bias", True) else None
        if bias is not None:
            _check_shape(bias, "linear.bias", (weight.shape[0],), inside)
        use_residual = bool(config.get("use_residual"))
        maps = use_residual and weight.shape[0] != weight.shape[1]
        residual = _require(weights, "residual.weight", inside) if maps else None
        if residual is not None:
            _check_shape(residual, "residual.weight", weight.shape, inside)
        activation = str(config.get("activation_function", "torch.nn.Tanh")).rpartition(".")[2]
        layers.append(DenseLayer(weight, bias, residual, use_residual and not maps, activation))
    return layers


def _check_shape(tensor: np.ndarray, name: str, expected: Sequence[int | None], folder: Path) -> None:
    """Check the shape of a weight. `None` is any size above 0.

    Raises:
        ConfigError: It has another shape.
    """
    sizes = zip(tensor.shape, expected, strict=False)
    if len(tensor.shape) != len(expected) or not all(size > 0 and size == (want or size) for size, want in sizes):
        shape = tuple("any" if want is None else want for want in expected)
        raise ConfigError(
            f"{folder} has a {name} of shape {tensor.shape} in its safetensors, and ({', '.join(map(str, shape))}) is "
            "expected: fetch the model again."
        )


def run_layers(layers: list[DenseLayer], states: np.ndarray) -> np.ndarray:
    """Return the projected token states.

    Args:
        layers: The layers, in order.
        states: float32 [rows, tokens, width].

    Raises:
        ConfigError: A layer has an activation that only torch has.
    """
    import numpy as np

    for layer in layers:
        output = states @ layer.weight.T
        if layer.bias is not None:
            output += layer.bias
        if layer.activation == "Tanh":
            output = np.tanh(output)
        elif layer.activation == "ReLU":
            output = np.maximum(output, np.float32(0.0))
        elif layer.activation != "Identity":
            raise ConfigError(
                f"A Dense layer has the activation {layer.activation}, which only torch runs: set runtime to 'torch'."
            )
        if layer.residual is not None:
            output += states @ layer.residual.T
        elif layer.adds_input:
            output += states
        states = output
    return states


def _require(weights: dict[str, np.ndarray], name: str, folder: Path) -> np.ndarray:
    if name not in weights:
        raise ConfigError(
            f"{folder} has no {name} in its safetensors, the weights that project token vectors: fetch it again, or "
            "export an ONNX file that holds them."
        )
    return weights[name]


def _tensors(files: list[Path], names: tuple[str, ...]) -> dict[str, np.ndarray]:
    """Return the tensors of these names in safetensors files, as float32.

    The format is read here, because the package safetensors belongs to torch's extra and its numpy loader refuses
    bfloat16 (https://huggingface.co/docs/safetensors: eight bytes with the header's length, a JSON header, the data).

    Raises:
        ConfigError: A file cannot be read.
    """
    tensors: dict[str, np.ndarray] = {}
    for file in files:
        try:
            tensors |= _read_tensors(file, names, stat_regular(file).st_size)
        except FileNotFoundError:
            continue
        except (OSError, ValueError, KeyError, TypeError, RecursionError, ArithmeticError, MemoryError) as error:
            raise ConfigError(f"{file} cannot be read as safetensors ({clause(error)}): fetch it again.") from error
    return tensors


def _read_tensors(file: Path, names: tuple[str, ...], file_bytes: int) -> dict[str, np.ndarray]:
    import json

    import numpy as np

    tensors: dict[str, Any] = {}
    with file.open("rb") as stream:
        size = int.from_bytes(stream.read(8), "little")
        if size > 2**27:
            raise ValueError(f"its header has {size} bytes")
        header = json.loads(stream.read(size))
        for name in names:
            if name not in header:
                continue
            entry = header[name]
            dtype = np.dtype(_NUMPY_DTYPES[entry["dtype"]])
            shape, (start, end) = entry["shape"], entry["data_offsets"]
            # Before anything is read: a size that the file does not have would be allocated.
            if not all(type(number) is int and number >= 0 for number in (*shape, start, end)):
                raise ValueError(f"the shape or the offsets of {name} are not integers of at least 0")
            if end > file_bytes - 8 - size or end - start != math.prod(shape) * dtype.itemsize:
                raise ValueError(f"the offsets of {name} do not fit its shape or the file")
            stream.seek(8 + size + start)
            values = np.frombuffer(stream.read(end - start), dtype)
            if entry["dtype"] == "BF16":  # the upper half of a float32
                values = (values.astype(np.uint32) << 16).view(np.float32)
            tensors[name] = values.astype(np.float32).reshape(shape)
    return tensors
