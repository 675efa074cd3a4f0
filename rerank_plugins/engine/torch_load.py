"""Safetensors to a network that gives logits, and nothing else: no random heads, no pickles, no code of strangers."""

from __future__ import annotations

import contextlib
import inspect
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..core.errors import ConfigError, clause
from .checkpoint import check, headless, modular, parts, refuse_code, wants_code
from .limits import json_of
from .sizes import refuse_sizes

if TYPE_CHECKING:
    import numpy as np
    import torch

    from .resident import Placement

__all__ = [
    "Network",
    "OnDevice",
    "device_of",
    "dtype_of",
    "load",
    "modules",
    "pretrained",
    "quiet",
]

_DTYPES = ("float32", "bfloat16", "float16")


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


class Network(OnDevice):
    """A loaded model: ids, mask and types in, logits out."""

    def __init__(self, module: Any, device: torch.device, dtype: torch.dtype, *, modular: bool) -> None:
        """Keep the model, which is in evaluation mode and on its device."""
        super().__init__(device, dtype)
        self._module = module
        self._modular = modular
        inner = module.transformers_model if modular else module
        takes = inspect.signature(inner.forward).parameters
        # A tokenizer may type its tokens for a model that has one type only (XLM-R): ones would be out of range.
        self._types = "token_type_ids" in takes and (getattr(inner.config, "type_vocab_size", 0) or 0) > 1
        # A decoder's classifier reads a row's last token that is no padding, and refuses batches where config.json names
        # none (or -1): see `_padded_apart`.
        self._config = inner.config.get_text_config()
        pad, self._words = getattr(self._config, "pad_token_id", None), getattr(self._config, "vocab_size", 0) or 0
        self._padless = not modular and not (isinstance(pad, int) and 0 <= pad < self._words)

    def run(self, ids: np.ndarray, mask: np.ndarray, types: np.ndarray) -> np.ndarray:
        """Return logits, (rows, labels) or (rows,), float32, of (rows, tokens) each."""
        import numpy as np
        import torch

        if self._padless:
            apart = self._padded_apart(ids, mask)
            if apart is None:
                sizes = mask.sum(axis=1)
                alone = ((ids[[row], :size], mask[[row], :size], types[[row], :size]) for row, size in enumerate(sizes))
                return np.concatenate([self.run(*each) for each in alone])
            ids = apart
        given = {"input_ids": ids, "attention_mask": mask} | ({"token_type_ids": types} if self._types else {})
        with torch.inference_mode():
            feed = {name: torch.from_numpy(value).to(self.device) for name, value in given.items()}
            output = self._module(feed)["scores"] if self._modular else self._module(**feed).logits
            found: np.ndarray = output.float().cpu().numpy()
            return found

    def _padded_apart(self, ids: np.ndarray, mask: np.ndarray) -> np.ndarray | None:
        """Pad with a token that no row has, and tell the model, so that it finds the last token of each; `None`: there is none.

        Only the one worker of this network calls it, so that nobody else reads the model's config meanwhile.
        """
        import numpy as np

        self._config.pad_token_id = None
        if len(ids) == 1 and mask.all():
            return ids
        used = np.unique(ids[mask > 0])
        free = np.setdiff1d(np.arange(min(len(used) + 1, self._words)), used)
        if not free.size:
            return None
        self._config.pad_token_id = int(free[0])
        return np.where(mask > 0, ids, free[0])


def load(folder: Path, placement: Placement) -> Network:
    """Load a model onto its device.

    Raises:
        ConfigError: A device or dtype that this machine has not, or a checkpoint that is none of a cross-encoder.
    """
    import torch

    check(folder, remote_code=placement.remote_code)
    device = device_of(placement.device)
    dtype = dtype_of(placement.dtype, device)
    several = modular(folder)
    with quiet():
        try:
            module = (modules if several else _classifier)(folder, device, dtype, placement.remote_code)
        except (ConfigError, KeyboardInterrupt):
            raise
        except torch.OutOfMemoryError as error:
            raise ConfigError(
                f"{folder} does not fit on {device}: {clause(error)}. Choose another device or dtype."
            ) from error
        except BaseException as error:  # the libraries raise whatever they like; code that exits ends no host
            if "trust_remote_code" in str(error):
                raise wants_code(folder) from error
            raise ConfigError(
                f"{folder} cannot be loaded ({type(error).__name__}: {error}): fetch it again, or name another model."
            ) from error
    return Network(module, device, dtype, modular=several)


def _classifier(folder: Path, device: torch.device, dtype: torch.dtype, remote_code: bool) -> Any:
    from transformers import AutoModelForSequenceClassification

    module, lacking = pretrained(AutoModelForSequenceClassification, folder, dtype, remote_code=remote_code)
    if lacking:
        raise _lacks(folder, lacking)
    return module.to(device)


def modules(
    folder: Path, device: torch.device, dtype: torch.dtype, remote_code: bool = False, *, attention: str | None = None
) -> Any:
    """Load a transformer with sentence-transformers' modules after it.

    Their classes come from a table here, and the transformer from `pretrained`: sentence-transformers' own loader imports
    and calls what a folder's files name (activations, methods of the model), and loads a tokenizer that nobody uses.

    Raises:
        ConfigError: Its files do not hold all of it.
    """
    import sentence_transformers  # noqa: F401 (the package that an error names where it is not installed)
    import torch
    from sentence_transformers.base.modules import Dense
    from sentence_transformers.sentence_transformer.modules import Dropout, LayerNorm, Normalize, Pooling
    from transformers import AutoModel, AutoModelForTextEncoding

    encoder_of_two = bool(json_of(folder / "config.json").get("is_encoder_decoder"))
    kind = AutoModelForTextEncoding if encoder_of_two else AutoModel
    backbone, lacking = pretrained(kind, folder, dtype, remote_code=remote_code, attention=attention)
    # A pooler is asked by no module: they read the tokens.
    lacking = [name for name in lacking if not name.startswith("pooler.")]
    if lacking:
        raise _lacks(folder, lacking)
    classes: dict[str, Any] = {each.__name__: each for each in (Dense, Dropout, LayerNorm, Normalize, Pooling)}
    after = []
    for part in parts(folder):
        if part.kind == "Dense":
            _refuse_activation(folder / part.path / "config.json")
        after.append(
            classes[part.kind].load(str(folder), subfolder=part.path, local_files_only=True, trust_remote_code=False)
        )

    class Modular(torch.nn.Module):
        """Features in, features with the modules' outputs out, as sentence-transformers passes them on."""

        def __init__(self) -> None:
            super().__init__()
            self.transformers_model = backbone
            self.after = torch.nn.ModuleList(after).to(dtype)  # the backbone has it, but for buffers that stay exact

        def forward(self, features: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
            states = self.transformers_model(**features, return_dict=True).last_hidden_state
            features = {**features, "token_embeddings": states}
            for module in self.after:
                features = module(features)
            return features

    return Modular().eval().to(device)


def _refuse_activation(file: Path) -> None:
    """Refuse what the table of names in `checkpoint` lets pass and torch does not have as an activation."""
    import torch

    named = json_of(file).get("activation_function")
    activation = None if named is None else getattr(torch.nn, str(named).rpartition(".")[2], None)
    inside = getattr(activation, "__module__", "")
    if named is not None and inside != "torch.nn.modules.activation" and activation is not torch.nn.Identity:
        raise ConfigError(f"{file} names {named!r} as its activation, which is not one of torch.nn: it is not run.")


def pretrained(
    kind: Any, folder: Path, dtype: torch.dtype, *, remote_code: bool = False, attention: str | None = None
) -> tuple[Any, list[str]]:
    """Return what `kind.from_pretrained` reads, on the CPU and in evaluation mode, and the names of weights it lacks.

    `attention` None is what transformers likes best, whatever the folder says: it may name a repository of kernels.

    Raises:
        ConfigError: The folder's settings choose code, or declare sizes that its weights do not have.
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
    return module.eval(), sorted(
        {*loading_info["missing_keys"], *(str(each) for each in loading_info.get("mismatched_keys", ()))}
    )


def _lacks(folder: Path, lacking: list[str]) -> ConfigError:
    return headless(folder, f"its weights lack {', '.join(lacking[:3])}{' …' if len(lacking) > 3 else ''}")


def device_of(asked: str | None) -> torch.device:
    """Return the device that a spec asks for; of itself an NVIDIA GPU, else the CPU.

    Raises:
        ConfigError: This machine has no such device.
    """
    import torch

    if asked in (None, "auto"):
        # Not Apple's: for small models it is no gain, and its memory is invisible (peers.md B35). By name it is taken.
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(asked)
        torch.empty(1, device=device)
    except Exception as error:  # torch raises RuntimeError, AssertionError and others
        raise ConfigError(
            f"device {asked!r} cannot be used here ({clause(error)}): try 'cpu', or leave it out."
        ) from error
    return device


def dtype_of(asked: str | None, device: torch.device) -> torch.dtype:
    """Return what to compute in: as the spec asks, of itself float32 on a CPU and bfloat16 on a GPU that has it.

    Raises:
        ConfigError: float16 on a CPU.
    """
    import torch

    if device.type == "cpu":
        if asked == "float16":
            raise ConfigError("dtype 'float16' is for GPUs: a CPU is slow and inexact in it. Take bfloat16 or float32.")
        fast = asked == "auto" and _cpu_has_bfloat16()
        return torch.bfloat16 if fast or asked == "bfloat16" else torch.float32
    if asked in _DTYPES:
        found: torch.dtype = getattr(torch, str(asked))
        return found
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
