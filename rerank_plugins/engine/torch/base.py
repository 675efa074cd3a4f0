"""What all engines on torch share: options, device and memory, and the safe loading of weights.

Only this package and the models and backends of the other engines on torch import torch, and only inside functions.
Loading reads safetensors and no pickles, and runs code from a folder only where the caller trusts it.
"""

from __future__ import annotations

import contextlib
import traceback
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, TypeVar

from ...core._runtime.fork_hooks import Lock
from ...core.errors import ConfigError, clause
from ..checkpoint import missing_weights, parts, refuse_code
from ..files import json_of
from ..model_backend import ModelBackend, check_choice
from ..shared_model import LoadOptions, SharedModel
from ..sizes import refuse_sizes

if TYPE_CHECKING:
    import torch

__all__ = ["OnDevice", "TorchBackend", "TorchModel", "device_of", "dtype_of", "modules", "pretrained", "quiet"]

M = TypeVar("M", bound="TorchModel[Any, Any]")
N = TypeVar("N", bound="OnDevice")
P = TypeVar("P")
T = TypeVar("T")

CPU_TOKENS = 1024
GPU_TOKENS = 16_384
"""Tokens of one batch, unless the spec says otherwise."""
_DTYPES = ("float32", "bfloat16", "float16")
_loading = Lock()
"""Held while a model is loaded: transformers then sets torch's default dtype, which belongs to the whole process."""


class OnDevice:
    """A loaded network on its device."""

    def __init__(self, device: torch.device, dtype: torch.dtype) -> None:
        """Remember the device and the dtype."""
        self.device = device
        self.dtype = str(dtype).removeprefix("torch.")

    @property
    def on_gpu(self) -> bool:
        """Whether it runs on a GPU."""
        return self.device.type != "cpu"

    def is_out_of_memory(self, error: Exception) -> bool:
        """Tell whether `error` means that the GPU's memory is too small."""
        import torch

        # Apple's backend raises a plain RuntimeError (MPSAllocator.mm in torch: "MPS backend out of memory (MPS
        # allocated: …").
        return isinstance(error, torch.OutOfMemoryError) or "MPS backend out of memory" in str(error)

    def free(self) -> None:
        """Return the GPU memory that a failed batch left in torch's cache."""
        import torch

        empty = getattr(getattr(torch, self.device.type, None), "empty_cache", None)  # cuda, xpu and mps have it
        if empty is not None:
            empty()


class TorchModel(SharedModel[N, P]):
    """One model on one device of torch's.

    It has one worker: torch uses every core by itself, and two callers at once would compete for them. Concurrent calls
    take turns batch by batch.
    """

    def __init__(self, folder: Path, options: LoadOptions) -> None:
        """Create the model without loading anything."""
        super().__init__(folder, options)
        self._fitting_tokens: int | None = None
        """After a batch was too large for the GPU: the tokens of a batch that is known to fit."""

    @property
    def weight_files(self) -> list[Path]:
        """The safetensors."""
        return sorted(self.folder.glob("**/*.safetensors"))

    def describe_network(self, network: N) -> tuple[str, str, str]:
        """Return runtime, dtype and device of the loaded network."""
        return "torch", network.dtype, str(network.device)

    @property
    def dtype(self) -> str | None:
        """The dtype that the model computes in. If the options name none, it is known once the model is loaded."""
        return super().dtype if self._network is None else self._network.dtype

    def _load(self) -> N:
        with _loading:
            return super()._load()

    def batch_limit(self, network: N, batch_tokens: int | None) -> int:
        """Return the tokens that a batch may have: the option or the device's default, capped by a size that fits."""
        limit = batch_tokens or (GPU_TOKENS if network.on_gpu else CPU_TOKENS)
        return min(limit, self._fitting_tokens or limit)

    def run_batch(self, network: N, run: Callable[[], T], *, size: int, divisible: bool) -> T | None:
        """Run a batch; return `None` where the GPU's memory is too small for it, so that the caller runs its halves.

        Args:
            network: The network that runs it.
            run: Runs the batch.
            size: Tokens of the batch.
            divisible: Whether the batch has halves; if not, the error is raised.
        """
        try:
            return run()
        except Exception as error:
            # The frames of the traceback hold the tensors computed so far, and a full GPU needs their memory.
            traceback.clear_frames(error.__traceback__)
            # Only a full GPU is worth another try. On a CPU the system's memory is full, and halves would not help.
            if not (network.on_gpu and network.is_out_of_memory(error) and divisible):
                raise
        network.free()
        self._fitting_tokens = min(self._fitting_tokens or size, max(size // 2, 1))
        return None


class TorchBackend(ModelBackend[M]):
    """A backend over one model in safetensors form, on a CPU or on GPUs."""

    on_several_devices: ClassVar[bool] = False
    """Whether it can hold a copy of the model on each of several devices."""

    @classmethod
    def options_of_copies(
        cls, names: Sequence[str | None], runtime: str | None, dtype: str | None
    ) -> list[LoadOptions]:
        """Return how to load the copy of the model on each device.

        Args:
            names: `cpu`, `cuda`, `cuda:1`, `mps`; `None` and `auto` are an NVIDIA GPU where there is one, else the CPU.
                The batches of a call are shared among several GPUs, where the backend supports that.
            runtime: `torch`.
            dtype: `None` is float32 on a CPU, bfloat16 on a GPU that has it; `auto` is bfloat16 on a CPU that has it
                too; `float32`, `bfloat16`, and `float16` on a GPU.

        Raises:
            ConfigError: A value is not offered.
        """
        check_choice("runtime", runtime, ("torch", "auto"))
        check_choice("dtype", dtype, (*_DTYPES, "auto"))
        if len(names) > 1 and not cls.on_several_devices:
            raise ConfigError(f"This model runs on one device, and device names {len(names)}: name one.")
        # One spelling for each device and dtype: two would be two copies of one model in memory.
        return [
            LoadOptions(None if name == "auto" else name, dtype or ("float32" if name == "cpu" else None))
            for name in names
        ]


def pretrained(
    kind: Any,
    folder: Path,
    dtype: torch.dtype,
    *,
    remote_code: bool = False,
    attention: str | None = None,
    unused: str | None = None,
    head: bool = True,
) -> Any:
    """Return the module that `kind.from_pretrained` loads, on the CPU and in evaluation mode.

    Args:
        kind: A class of transformers.
        folder: The model's folder.
        dtype: The dtype of the weights.
        remote_code: Whether to run code from the folder.
        attention: The attention implementation. `None` is transformers' default; the folder's choice is ignored,
            because it may name a repository of kernels.
        unused: A prefix of names of weights that are never used, and so may be missing.
        head: Whether the folder must hold a classification head, for the error.

    Raises:
        ConfigError: The folder's settings choose code or declare sizes that its weights do not have, or weights are
            missing.
    """
    from transformers import AutoConfig

    if not remote_code:
        refuse_code(folder)
    refuse_sizes(folder)
    shared: dict[str, Any] = {"local_files_only": True, "trust_remote_code": remote_code}
    config = (getattr(kind, "config_class", None) or AutoConfig).from_pretrained(folder, **shared)
    config._attn_implementation = None
    config._experts_implementation = None
    if hasattr(config, "use_cache"):
        config.use_cache = False
    chosen = {} if attention is None else {"attn_implementation": attention}
    module, loading_info = kind.from_pretrained(
        folder, config=config, dtype=dtype, use_safetensors=True, output_loading_info=True, **chosen, **shared
    )
    # transformers fills missing weights with random numbers, and says so only in its log.
    names = {*loading_info["missing_keys"], *(str(each) for each in loading_info.get("mismatched_keys", ()))}
    missing = sorted(name for name in names if unused is None or not name.startswith(unused))
    if missing:
        raise missing_weights(folder, missing, head=head)
    return module.eval()


def device_of(name: str | None) -> torch.device:
    """Return the device of that name; for `None` and `auto` an NVIDIA GPU if there is one, else the CPU.

    Raises:
        ConfigError: The device cannot be used on this machine.
    """
    import torch

    if name in (None, "auto"):
        # An Apple GPU is used only by name: small models gain nothing there, and its memory use cannot be seen.
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(name)
        torch.empty(1, device=device)
    except Exception as error:  # torch raises RuntimeError, AssertionError and others
        raise ConfigError(
            f"device {name!r} cannot be used here ({clause(error)}): try 'cpu', or leave it out."
        ) from error
    return device


def dtype_of(name: str | None, device: torch.device) -> torch.dtype:
    """Return the dtype of that name; for `None` float32 on a CPU, and bfloat16 on a GPU that has it.

    Raises:
        ConfigError: The name is float16 and the device a CPU.
    """
    import torch

    if device.type == "cpu":
        if name == "float16":
            raise ConfigError("dtype 'float16' is for GPUs: a CPU is slow and inexact in it. Use bfloat16 or float32.")
        auto = name == "auto" and _cpu_has_bfloat16()
        return torch.bfloat16 if auto or name == "bfloat16" else torch.float32
    if name in _DTYPES:
        dtype: torch.dtype = getattr(torch, str(name))
        return dtype
    return torch.bfloat16 if device.type == "cuda" and torch.cuda.is_bf16_supported() else torch.float32


def _cpu_has_bfloat16() -> bool:
    import torch

    tests = (getattr(torch.cpu, name, None) for name in ("_is_avx512_bf16_supported", "_is_amx_tile_supported"))
    return any(test() for test in tests if test is not None)


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Silence transformers' progress bars and reports while a model is loaded: problems are raised as errors."""
    import transformers.utils

    logging: Any = transformers.utils.logging  # its functions are untyped
    shown, level = logging.is_progress_bar_enabled(), logging.get_verbosity()
    logging.disable_progress_bar()
    logging.set_verbosity_error()
    try:
        yield
    finally:
        logging.set_verbosity(level)
        if shown:
            logging.enable_progress_bar()


def modules(
    folder: Path, device: torch.device, dtype: torch.dtype, remote_code: bool = False, *, attention: str | None = None
) -> Any:
    """Load a transformer and the modules of sentence-transformers that follow it.

    The classes of the modules come from a table here, and the transformer from `pretrained`. The loader of
    sentence-transformers is not used: it imports and calls whatever the folder's files name (activations, methods of
    the model), and loads a tokenizer that is not needed.

    Args:
        folder: The model's folder.
        device: The device to run on.
        dtype: The dtype of the weights.
        remote_code: Whether to run code from the folder.
        attention: The attention implementation, see `pretrained`.

    Raises:
        ConfigError: The folder's files do not hold all parts.
    """
    import sentence_transformers  # noqa: F401 (the package that an error names where it is not installed)
    import torch
    from sentence_transformers.base.modules import Dense
    from sentence_transformers.sentence_transformer.modules import Dropout, LayerNorm, Normalize, Pooling
    from transformers import AutoModel, AutoModelForTextEncoding

    encoder_decoder = bool(json_of(folder / "config.json").get("is_encoder_decoder"))
    kind = AutoModelForTextEncoding if encoder_decoder else AutoModel
    # No module reads the pooler's output: they read the tokens.
    backbone = pretrained(kind, folder, dtype, remote_code=remote_code, attention=attention, unused="pooler.")
    classes: dict[str, Any] = {module.__name__: module for module in (Dense, Dropout, LayerNorm, Normalize, Pooling)}
    after = []
    for part in parts(folder):
        if part.kind == "Dense":
            _refuse_activation(folder / part.path / "config.json")
        after.append(
            classes[part.kind].load(str(folder), subfolder=part.path, local_files_only=True, trust_remote_code=False)
        )

    class Modular(torch.nn.Module):
        """Adds the outputs of the modules to the features, as sentence-transformers does."""

        def __init__(self) -> None:
            super().__init__()
            self.transformers_model = backbone
            self.after = torch.nn.ModuleList(after).to(
                dtype
            )  # the backbone has this dtype already, except for buffers that stay exact

        def forward(self, features: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
            states = self.transformers_model(**features, return_dict=True).last_hidden_state
            features = {**features, "token_embeddings": states}
            for module in self.after:
                features = module(features)
            return features

    return Modular().eval().to(device)


def _refuse_activation(file: Path) -> None:
    """Refuse a name that passed the check in `checkpoint` and is still no activation of torch."""
    import torch

    named = json_of(file).get("activation_function")
    activation = None if named is None else getattr(torch.nn, str(named).rpartition(".")[2], None)
    inside = getattr(activation, "__module__", "")
    if named is not None and inside != "torch.nn.modules.activation" and activation is not torch.nn.Identity:
        raise ConfigError(
            f"{file} names {named!r} as its activation, which is not one of torch.nn: it is not run. Fetch the model "
            f"again."
        )
