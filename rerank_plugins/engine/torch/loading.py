"""What all models on torch share: a device and its memory, and weights that are whole; no pickles, no code of strangers.

Only this file, and the models and backends of engines on torch, know torch, and only inside functions.
"""

from __future__ import annotations

import contextlib
import traceback
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from ...core.errors import ConfigError, clause
from ...core.fork import Lock
from ..checkpoint import missing_weights, refuse_code
from ..shared_model import LoadOptions, SharedModel
from ..sizes import refuse_sizes

if TYPE_CHECKING:
    import torch

__all__ = ["OnDevice", "TorchModel", "device_of", "dtype_of", "pretrained", "quiet"]

N = TypeVar("N", bound="OnDevice")
P = TypeVar("P")
T = TypeVar("T")

CPU_TOKENS = 1024
GPU_TOKENS = 16_384
"""Tokens of one batch, unless the spec says otherwise."""
_DTYPES = ("float32", "bfloat16", "float16")
_loading = Lock()
"""One load at a time: transformers sets torch's default dtype, which is the process's, while it loads."""


class OnDevice:
    """A loaded model on its device, and what that device says."""

    def __init__(self, device: torch.device, dtype: torch.dtype) -> None:
        """Keep where it is and what it computes in."""
        self.device = device
        self.dtype = str(dtype).removeprefix("torch.")

    @property
    def on_gpu(self) -> bool:
        """Whether it runs on a GPU."""
        return self.device.type != "cpu"

    def exhausted(self, error: Exception) -> bool:
        """Tell whether `error` says that the GPU's memory is too small."""
        import torch

        # Apple's says so in its message only (MPSAllocator.mm in torch: "MPS backend out of memory (MPS allocated: …").
        return isinstance(error, torch.OutOfMemoryError) or "MPS backend out of memory" in str(error)

    def free(self) -> None:
        """Give back what a failed batch holds of the GPU's memory."""
        import torch

        empty = getattr(getattr(torch, self.device.type, None), "empty_cache", None)  # cuda, xpu and mps have it
        if empty is not None:
            empty()


class TorchModel(SharedModel[N, P]):
    """One model on a device of torch's.

    It has one worker: torch uses every core by itself, and two callers at once would fight for them. Batches of concurrent calls take turns.
    """

    def __init__(self, folder: Path, options: LoadOptions) -> None:
        """Prepare; nothing is loaded before the first use."""
        super().__init__(folder, options)
        self._largest: int | None = None
        """The tokens of a batch that a full GPU is known to have room for, once one was too large."""

    @property
    def weights(self) -> list[Path]:
        """The safetensors."""
        return sorted(self.folder.glob("**/*.safetensors"))

    def loaded_as(self, network: N) -> tuple[str, str, str]:
        """Return runtime, dtype and device of the loaded network."""
        return "torch", network.dtype, str(network.device)

    @property
    def dtype(self) -> str | None:
        """What it computes in: known from the start where the options say it, else once it is loaded."""
        return super().dtype if self._network is None else self._network.dtype

    def _load(self) -> N:
        with _loading:
            return super()._load()

    def batch_limit(self, network: N, batch_tokens: int | None) -> int:
        """Return how many tokens a batch may have: the option or the device's default, capped by the last size that fitted."""
        limit = batch_tokens or (GPU_TOKENS if network.on_gpu else CPU_TOKENS)
        return min(limit, self._largest or limit)

    def attempt(self, network: N, run: Callable[[], T], *, size: int, halves: bool) -> T | None:
        """Run a batch of `size` tokens; `None`: a GPU's memory is too small for it, but has room for its halves.

        What fits is remembered.
        """
        try:
            return run()
        except Exception as error:
            # Who keeps the error does not keep what was computed so far: a full GPU needs that back.
            traceback.clear_frames(error.__traceback__)
            # Only real exhaustion, and only on a GPU, is worth another try: on a CPU the system's memory is full, and halves would
            # not help. One text cannot be halved.
            if not (network.on_gpu and network.exhausted(error) and halves):
                raise
        network.free()
        self._largest = min(self._largest or size, max(size // 2, 1))
        return None


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
    """Return what `kind.from_pretrained` reads, on the CPU and in evaluation mode.

    Args:
        kind: A class of transformers.
        folder: Of the model.
        dtype: Of the weights.
        remote_code: Run the folder's own code.
        attention: `None` is what transformers likes best, whatever the folder says: it may name a repository of kernels.
        unused: How the names of weights begin that nobody reads, and that may be missing.
        head: Whether the folder has to hold a classification head, for the error.

    Raises:
        ConfigError: The folder's settings choose code, or declare sizes that its weights do not have; or weights are missing.
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
    # transformers fills what is missing with random numbers, and says so only in its log.
    names = {*loading_info["missing_keys"], *(str(each) for each in loading_info.get("mismatched_keys", ()))}
    missing = sorted(name for name in names if unused is None or not name.startswith(unused))
    if missing:
        raise missing_weights(folder, missing, head=head)
    return module.eval()


def device_of(name: str | None) -> torch.device:
    """Return the device that a spec asks for; of itself an NVIDIA GPU, else the CPU.

    Raises:
        ConfigError: This machine has no such device.
    """
    import torch

    if name in (None, "auto"):
        # Not Apple's: for small models it is no gain, and its memory is invisible. By name it is taken.
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
    """Return what to compute in: as the spec asks, of itself float32 on a CPU and bfloat16 on a GPU that has it.

    Raises:
        ConfigError: float16 on a CPU.
    """
    import torch

    if device.type == "cpu":
        if name == "float16":
            raise ConfigError("dtype 'float16' is for GPUs: a CPU is slow and inexact in it. Take bfloat16 or float32.")
        fast = name == "auto" and _cpu_has_bfloat16()
        return torch.bfloat16 if fast or name == "bfloat16" else torch.float32
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
    """Load without the libraries' bars and reports: what they would say is raised as an error."""
    from transformers import utils

    logging: Any = utils.logging  # its functions are untyped
    shown, level = logging.is_progress_bar_enabled(), logging.get_verbosity()
    logging.disable_progress_bar()
    logging.set_verbosity_error()
    try:
        yield
    finally:
        logging.set_verbosity(level)
        if shown:
            logging.enable_progress_bar()
