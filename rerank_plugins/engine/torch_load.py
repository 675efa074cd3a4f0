"""Safetensors to a network that gives logits, and nothing else: no random heads, no pickles, no code of strangers."""

from __future__ import annotations

import contextlib
import inspect
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..core.errors import ConfigError
from .limits import json_of, saved

if TYPE_CHECKING:
    import numpy as np
    import torch

    from .resident import Placement

__all__ = [
    "Network",
    "OnDevice",
    "check",
    "device_of",
    "dtype_of",
    "has_files",
    "has_weights",
    "load",
    "modular",
    "modules",
    "no_chat",
    "quiet",
]

_CLASSIFIER = "ForSequenceClassification"
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

    def run(self, ids: np.ndarray, mask: np.ndarray, types: np.ndarray) -> np.ndarray:
        """Return logits, (rows, labels) or (rows,), float32, of (rows, tokens) each."""
        import torch

        given = {"input_ids": ids, "attention_mask": mask} | ({"token_type_ids": types} if self._types else {})
        with torch.inference_mode():
            feed = {name: torch.from_numpy(value).to(self.device) for name, value in given.items()}
            output = self._module(feed)["scores"] if self._modular else self._module(**feed).logits
            found: np.ndarray = output.float().cpu().numpy()
            return found


def check(folder: Path, *, remote_code: bool = False) -> None:
    """Look at a folder's files without loading any.

    Raises:
        ConfigError: It holds no cross-encoder that can be run: no such folder, no tokenizer, no safetensors, no head;
            or its code, though trusted, lies in another repository.
    """
    has_files(folder)
    architecture = _architecture(folder)
    if architecture.endswith("ForCausalLM"):
        raise ConfigError(
            f"{folder} is a {architecture}, which scores by the words it would write: name it by its family (qwen3, "
            "mxbai, zerank, bge), whose prompt it needs, or as causal-lm with a template."
        )
    if remote_code:
        _refuse_code_from_elsewhere(folder)
    no_chat(folder)
    if remote_code or modular(folder) or architecture.endswith(_CLASSIFIER):
        return
    if "auto_map" in json_of(folder / "config.json"):
        raise _wants_code(folder)
    raise _headless(folder, f"its config.json names {architecture or 'no architecture'}")


def _architecture(folder: Path) -> str:
    return str((json_of(folder / "config.json").get("architectures") or [""])[0])


def _refuse_code_from_elsewhere(folder: Path) -> None:
    """Refuse code that a checkpoint takes from another repository, which is whatever that one's branch holds by then."""
    for file in ("config.json", "tokenizer_config.json"):
        named = json_of(folder / file).get("auto_map") or {}
        for each in named.values() if isinstance(named, dict) else [named]:
            for name in each if isinstance(each, list) else [each]:
                if "--" in str(name):
                    raise ConfigError(
                        f"{folder} takes its code from another repository ({str(name).partition('--')[0]}), at no commit "
                        "that a revision pins: it is not run. Use an ONNX file (onnx:…), or a copy with the code in it."
                    )


def no_chat(folder: Path) -> None:
    """Refuse a classifier that was trained on a chat: the pair alone is another text, and its score would mean nothing.

    Raises:
        ConfigError: Its tokenizer has a chat template, which sentence-transformers would fill with query and document.
    """
    theirs, its_transformer = saved(folder)
    if theirs and "message" not in (its_transformer.get("modality_config") or ()):
        return  # so it was saved to read pairs, whatever its tokenizer could do
    if (folder / "chat_template.jinja").is_file() or json_of(folder / "tokenizer_config.json").get("chat_template"):
        raise ConfigError(
            f"{folder} puts query and document into a chat template, and only pairs are classified here: take the language "
            "model that it was made from (causal-lm, or its family), or serve it and name the server (vllm, tei)."
        )


def has_files(folder: Path) -> None:
    """Refuse a folder that lacks what every model here is loaded from.

    Raises:
        ConfigError: No such folder, no config.json, no tokenizer.json, no safetensors.
    """
    if not folder.is_dir():
        raise ConfigError(f"There is no folder {folder}: name a folder with config.json, tokenizer.json and weights.")
    for name in ("config.json", "tokenizer.json"):
        if not (folder / name).is_file():
            raise ConfigError(f"{folder} holds no {name}: a model needs it beside its weights.")
    has_weights(folder)


def has_weights(folder: Path) -> None:
    """Refuse a folder without safetensors.

    Raises:
        ConfigError: There are none.
    """
    if not any(folder.glob("*.safetensors")):
        if any(folder.glob("**/*.onnx")):
            raise ConfigError(f"{folder} holds an ONNX file and no safetensors: use onnx:{folder}.")
        raise ConfigError(
            f"{folder} holds no safetensors weights. Pickled ones (pytorch_model.bin) can run code and are not read: "
            "save the model again with transformers' save_pretrained."
        )


def modular(folder: Path) -> bool:
    """Tell whether sentence-transformers' modules come after the transformer (Ettin: pooling, then dense layers).

    Raises:
        ConfigError: They are not its own, or do not end in a score.
    """
    file = folder / "modules.json"
    if not file.is_file():
        return False
    if not saved(folder)[0] and _architecture(folder).endswith(_CLASSIFIER):
        return False  # left over from the embedding model that became a classifier: sentence-transformers passes over it too
    import json

    try:
        modules = [(str(each["type"]), folder / each["path"]) for each in json.loads(file.read_text("utf-8"))]
    except (OSError, ValueError, TypeError, KeyError) as error:
        raise ConfigError(f"{file} cannot be read ({error!r}): fetch the model again.") from error
    for kind, part in modules:
        if not kind.startswith("sentence_transformers."):
            raise ConfigError(f"{file} names {kind}, code that is not sentence-transformers' own: it is not run.")
        if (part / "pytorch_model.bin").is_file() and not (part / "model.safetensors").is_file() and part != folder:
            raise ConfigError(f"{part} holds pickled weights, which can run code and are not read: save it anew.")
    if len(modules) > 1:
        _ends_in_a_score(folder, *modules[-1])
    return len(modules) > 1


def _ends_in_a_score(folder: Path, kind: str, part: Path) -> None:
    """Refuse what sentence-transformers would take for an embedding model, and give a head of random numbers."""
    kind = kind.rpartition(".")[2]
    if kind != "Dense":
        raise _headless(folder, f"the last of its modules is {kind} (an embedding model?)")
    if (gives := json_of(part / "config.json").get("module_output_name")) != "scores":
        raise _headless(folder, f"the last of its modules gives {gives or 'an embedding'} and no scores")
    name = "config_sentence_transformers.json"
    if (told := json_of(folder / name).get("model_type")) != "CrossEncoder":
        raise _headless(folder, f"its {name} tells of {told or 'no model_type'} and not of a CrossEncoder")


def load(folder: Path, placement: Placement) -> Network:
    """Load a model onto its device.

    Raises:
        ConfigError: A device or dtype that this machine has not, or a checkpoint that is none of a cross-encoder.
    """
    import torch

    check(folder, remote_code=placement.remote_code)
    device = device_of(placement.device)
    dtype = dtype_of(placement.dtype, device)
    parts = modular(folder)
    with quiet():
        try:
            module = (modules if parts else _classifier)(folder, device, dtype, placement.remote_code)
        except ConfigError:
            raise
        except torch.OutOfMemoryError as error:
            raise ConfigError(f"{folder} does not fit on {device}: {error}. Choose another device or dtype.") from error
        except Exception as error:  # the libraries raise whatever they like
            if "trust_remote_code" in str(error):
                raise _wants_code(folder) from error
            raise ConfigError(
                f"{folder} cannot be loaded ({type(error).__name__}: {error}): fetch it again, or name another model."
            ) from error
    return Network(module, device, dtype, modular=parts)


def _classifier(folder: Path, device: torch.device, dtype: torch.dtype, remote_code: bool) -> Any:
    from transformers import AutoModelForSequenceClassification

    module, told = AutoModelForSequenceClassification.from_pretrained(
        folder,
        dtype=dtype,
        local_files_only=True,
        trust_remote_code=remote_code,
        use_safetensors=True,
        output_loading_info=True,
    )
    # transformers fills what is missing with random numbers, and says so only in its log.
    lacking = sorted({*told["missing_keys"], *(str(each) for each in told.get("mismatched_keys", ()))})
    if lacking:
        raise _headless(folder, f"its weights lack {', '.join(lacking[:3])}{' …' if len(lacking) > 3 else ''}")
    return module.eval().to(device)


def modules(
    folder: Path, device: torch.device, dtype: torch.dtype, remote_code: bool = False, *, attention: str | None = None
) -> Any:
    """Load a transformer with sentence-transformers' modules after it; of `attention` None is what transformers likes best.

    Raises:
        ConfigError: Its files do not hold all of it.
    """
    from sentence_transformers import CrossEncoder

    found = CrossEncoder(
        str(folder),
        device=str(device),
        local_files_only=True,
        trust_remote_code=remote_code,
        model_kwargs={"dtype": dtype, "use_safetensors": True, "attn_implementation": attention},
    )
    if lacking := _lacking(found.transformers_model, folder):
        raise _headless(folder, f"its weights lack {', '.join(lacking[:3])}{' …' if len(lacking) > 3 else ''}")
    return found.eval()


def _lacking(backbone: Any, folder: Path) -> list[str]:
    """Return the weights under the modules that no file holds: sentence-transformers leaves them random and says nothing."""
    from safetensors import safe_open

    stored = set[str]()
    for file in folder.glob("*.safetensors"):
        with safe_open(file, "pt") as opened:
            for name in opened.keys():  # noqa: SIM118 (it is no dictionary)
                parts = name.split(".")  # a file may have them below "model." or "bert."
                stored.update(".".join(parts[start:]) for start in range(len(parts)))
    if not any(name for name in backbone.state_dict() if name not in stored):
        return []
    # Older names are told by transformers itself. A pooler is asked by no module: they read the tokens.
    _, told = type(backbone).from_pretrained(
        folder, local_files_only=True, use_safetensors=True, output_loading_info=True
    )
    return sorted(name for name in told["missing_keys"] if not name.startswith("pooler."))


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
        raise ConfigError(f"device {asked!r} cannot be used here ({error}): try 'cpu', or leave it out.") from error
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


def _headless(folder: Path, why: str) -> ConfigError:
    return ConfigError(
        f"{folder} has no trained classification head ({why}), so its scores would be random. "
        "Name a model that was trained to rerank."
    )


def _wants_code(folder: Path) -> ConfigError:
    return ConfigError(
        f"{folder} needs code of its own to run, which is not trusted. Use a checkpoint of a native architecture or its "
        "ONNX file (onnx:…); or name the model by its hub name and set trust_remote_code with a 40-digit revision."
    )
