"""The encoders of late-interaction models: token ids in, one vector per token out, on onnxruntime or torch."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from ...core.errors import ConfigError, clause
from ..checkpoint import require_files, wants_code
from ..files import json_of
from ..onnx.cross_encoder import OnnxModel, Session
from ..shared_model import LoadOptions
from ..torch.base import device_of, dtype_of, pretrained, quiet
from ..torch.cross_encoder import CrossEncoderModel, Network
from .layout import Layout
from .projection import DenseLayer, Projection, projection_files, read_layers, run_layers, stanford_digest
from .prompts import LateTokenizer

if TYPE_CHECKING:
    import numpy as np
    import torch

__all__ = ["OnnxTokenModel", "TorchTokenModel", "check_weights"]

_OTHER_OUTPUTS = ("hidden_states", "attentions", "present")


def _late(tokenizer: object) -> LateTokenizer:
    assert isinstance(tokenizer, LateTokenizer)
    return tokenizer


class OnnxTokenModel(OnnxModel):
    """An ONNX file whose output is one vector per token: before the projection or after it."""

    per_token = True

    def __init__(self, folder: Path, options: LoadOptions) -> None:
        """Create the model without loading anything."""
        super().__init__(folder, options)
        self.layout = Layout.read(folder)
        self._projection: Projection | None = None
        """Read with the network, so that a file that is replaced later has no effect. Set before the network is."""
        self._layers: list[DenseLayer] | None = None
        """Those to run, from the first batch on: only its output tells whether the ONNX file holds them."""

    @property
    def weight_files(self) -> list[Path]:
        """The ONNX file, its external weights, and the files of the projection, which the ONNX file may not hold."""
        return [*super().weight_files, *projection_files(self.folder, self.layout)]

    @property
    def fingerprint(self) -> str:
        """A hash of the files that the model was loaded from, and of the projection's weights in Stanford's layout."""
        if self._projection is not None:
            head = self._projection.stanford_digest
        else:
            head = stanford_digest(self.folder) if self.layout.dense is None else ""
        return f"{super().fingerprint} {head}".rstrip()

    @property
    def rows_tokenizer(self) -> LateTokenizer:
        """The tokenizer, read at the first access."""
        return _late(self.preprocessor)

    @property
    def fixed_length(self) -> int | None:
        """The tokens of every row, if the file fixes them."""
        return self.network.length

    def load_preprocessor(self) -> LateTokenizer:
        """Read the tokenizer."""
        return LateTokenizer(self.folder, self.layout)

    def load_network(self) -> Session:
        """Load the file and the layers of the projection, and choose the output with one vector per token."""
        self._projection, self._layers = Projection.read(self.folder, self.layout), None
        session = super().load_network()
        tokens = [
            place
            for place, (name, shape) in enumerate(session.outputs)
            if (shape is None or len(shape) == 3) and not name.startswith(_OTHER_OUTPUTS)
        ]
        if not tokens:
            raise ConfigError(
                f"{self.file} has no output with one vector per token, so it is no late-interaction model. Export the "
                "token vectors, or use the safetensors with runtime 'torch'."
            )
        session.output = tokens[0]
        expansion = self.layout.expansion
        if expansion is not None and session.length is not None and expansion.tokens > session.length:
            raise ConfigError(
                f"{self.folder} expands every query to {expansion.tokens} tokens ({expansion.setting}), and "
                f"{self.file.name} reads rows of {session.length}: export it with a length that is not fixed."
            )
        return session

    def project(self, output: np.ndarray) -> np.ndarray:
        """Return the vectors of a batch's output; runs the projection if the file does not hold it."""
        if self._layers is None:
            session = self.network
            assert self._projection is not None, "it is read with the network"
            self._layers = self._projection.layers_after(output.shape[-1], session.outputs[session.output][0])
        return run_layers(self._layers, output)


class _TokenNetwork(Network):
    """A loaded encoder with its projection."""

    def __init__(self, module: Any, device: torch.device, dtype: torch.dtype, layers: list[DenseLayer]) -> None:
        """Take an encoder of transformers, in evaluation mode and on its device, and the layers after it."""
        super().__init__(module, device, dtype, modular=False)
        self._projection = _torch_layers(layers, device, dtype)

    def run(self, ids: np.ndarray, mask: np.ndarray, types: np.ndarray) -> np.ndarray:
        """Return the projected vectors in float32, (rows, tokens, width). See `Network.run` for the arguments."""
        import torch

        arrays = {"input_ids": ids, "attention_mask": mask} | ({"token_type_ids": types} if self._types else {})
        with torch.inference_mode():
            feed = {name: torch.from_numpy(value).to(self.device) for name, value in arrays.items()}
            states = self._module(**feed, return_dict=True).last_hidden_state
            vectors: np.ndarray = self._projection(states).float().cpu().numpy()
            return vectors


def _torch_layers(layers: list[DenseLayer], device: torch.device, dtype: torch.dtype) -> Any:
    import torch

    def tensor(array: np.ndarray) -> torch.Tensor:
        return torch.from_numpy(array.copy()).to(device, dtype)

    steps = []
    for layer in layers:
        activation = getattr(torch.nn, layer.activation, None)
        named = getattr(activation, "__module__", "")
        is_activation = activation is torch.nn.Identity or named == "torch.nn.modules.activation"
        if activation is None or not is_activation:
            raise ConfigError(
                f"A Dense layer has the activation {layer.activation!r}, which is not one of torch.nn: it is not run. "
                "Fetch the model again."
            )
        bias = None if layer.bias is None else tensor(layer.bias)
        residual = None if layer.residual is None else tensor(layer.residual)
        steps.append((tensor(layer.weight), bias, activation(), residual, layer.adds_input))

    def run(states: torch.Tensor) -> torch.Tensor:
        for weight, bias, activate, residual, adds_input in steps:
            output = activate(torch.nn.functional.linear(states, weight, bias))
            if residual is not None:
                output = output + torch.nn.functional.linear(states, residual)
            elif adds_input:
                output = output + states
            states = output
        return states

    return run


def check_weights(folder: Path) -> None:
    """Check that a folder holds an encoder in safetensors that runs without code of its own.

    Raises:
        ConfigError: There is no such folder, it lacks a file, or its config.json names code.
    """
    require_files(folder)
    if "auto_map" in json_of(folder / "config.json"):
        raise wants_code(folder)


class TorchTokenModel(CrossEncoderModel):
    """An encoder in safetensors, with its projection."""

    fixed_length: ClassVar[int | None] = None

    def __init__(self, folder: Path, options: LoadOptions) -> None:
        """Create the model without loading anything."""
        super().__init__(folder, options)
        self.layout = Layout.read(folder)

    @property
    def rows_tokenizer(self) -> LateTokenizer:
        """The tokenizer, read at the first access."""
        return _late(self.preprocessor)

    def load_preprocessor(self) -> LateTokenizer:
        """Read the tokenizer."""
        return LateTokenizer(self.folder, self.layout)

    def load_network(self) -> Network:
        """Read the weights."""
        import torch
        import transformers

        check_weights(self.folder)
        device = device_of(self.options.device)
        dtype = dtype_of(self.options.dtype, device)
        with quiet():
            try:
                module = pretrained(transformers.AutoModel, self.folder, dtype, unused="pooler.", head=False).to(device)
                return _TokenNetwork(module, device, dtype, read_layers(self.folder, self.layout))
            except (ConfigError, KeyboardInterrupt):
                raise
            except torch.OutOfMemoryError as error:
                raise ConfigError(
                    f"{self.folder} does not fit on {device}: {clause(error)}. Choose another device or dtype."
                ) from error
            except BaseException as error:  # the libraries raise anything
                raise ConfigError(
                    f"{self.folder} cannot be loaded ({type(error).__name__}: {clause(error)}): fetch it again, or "
                    "name another model."
                ) from error

    def project(self, output: np.ndarray) -> np.ndarray:
        """Return a batch's output as it is: the network has run the projection."""
        return output
