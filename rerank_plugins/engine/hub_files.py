"""Chooses the files of a Hugging Face repository that an engine needs."""

from __future__ import annotations

from collections.abc import Sequence
from importlib.util import find_spec

from ..core.errors import ConfigError

__all__ = ["CONFIG_FILES", "colbert_files", "onnx_files", "torch_files"]

CONFIG_FILES = (
    "config.json",
    "config_sentence_transformers.json",
    "sentence_bert_config.json",
    "tokenizer.json",
    "tokenizer_config.json",
    "special_tokens_map.json",
)
"""Configuration and tokenizer files, which are read in addition to the weights."""


def onnx_files(names: Sequence[str], *, known: Sequence[str] = ()) -> list[str]:
    """Return the files that the ONNX engine needs: one model with its external weights, and `CONFIG_FILES`.

    Args:
        names: The names of all files of the repository.
        known: The ONNX file and its external weights, where they are known. All of them must be there: a cache that
            another program filled may lack some.

    Raises:
        ConfigError: The repository lacks one of `known`. Or it has no ONNX file, several of which none is called
            `model.onnx`, or no tokenizer. The caller puts the repository's name before the message, so it starts with
            "it has".
    """
    if missing := [name for name in known if name not in names]:
        raise ConfigError(f"it has no {' and no '.join(missing)}")
    if known:
        return [*dict.fromkeys([*known, *_with_external_weights(known[0], names)]), *_config_files(names)]
    models = _onnx_models(names)
    default = [name for name in ("model.onnx", "onnx/model.onnx") if name in models]
    if not default and len(models) != 1:
        count = f"several ONNX files ({', '.join(sorted(models)[:4])})" if models else "no ONNX file"
        raise ConfigError(f"it has {count}; for its PyTorch weights, use sentence-transformers:…")
    return [*_with_external_weights((default or models)[0], names), *_config_files(names)]


def colbert_files(names: Sequence[str], *, onnx: str | None = None, runtime: str | None = None) -> list[str]:
    """Return the files that a late-interaction model needs: one ONNX file if there is one, else the safetensors.

    Args:
        names: The names of all files of the repository.
        onnx: The ONNX file to prefer.
        runtime: `torch` takes the safetensors in any case, `onnxruntime` never.

    Raises:
        ConfigError: The repository has neither, or no tokenizer. The caller puts the repository's name before the
            message, so it starts with "it has".
    """
    settings = [name for name in names if name == "artifact.metadata"]
    models = _onnx_models(names)
    chosen = next((name for name in (onnx, "model.onnx", "onnx/model.onnx") if name in models), None)
    if chosen is None and len(models) == 1:
        chosen = models[0]
    if chosen is None and runtime == "onnxruntime":
        raise ConfigError("it has no ONNX file called model.onnx: leave runtime out, or set it to 'torch'")
    if chosen is None or runtime == "torch":
        if runtime != "torch" and find_spec("torch") is None:
            raise ConfigError(
                "it has no ONNX file called model.onnx, and its safetensors need torch: run pip install "
                "'rerank-plugins[sentence-transformers]'"
            )
        return [*torch_files(names), *settings]
    modules = [
        name
        for name in names
        if "/" in name and _is_part_of_model(name) and name.endswith(("/config.json", "/model.safetensors"))
    ]
    modules += [name for name in names if name == "modules.json"]
    return [*_with_external_weights(chosen, names), *_config_files(names), *modules, *settings]


def _onnx_models(names: Sequence[str]) -> list[str]:
    return [name for name in names if name.endswith(".onnx") and name.count("/") <= 1]


def _with_external_weights(model: str, names: Sequence[str]) -> list[str]:
    return [model, *(name for name in names if name.startswith((f"{model}_data", f"{model}.data")))]


def torch_files(names: Sequence[str], *, code: bool = False) -> list[str]:
    """Return the files that the torch engine needs: safetensors, JSON, and the modules of sentence-transformers.

    Args:
        names: The names of all files of the repository.
        code: Whether to include Python files, which `trust_remote_code` runs.

    Raises:
        ConfigError: The repository has no safetensors, or no tokenizer. The caller puts the repository's name before
            the message, so it starts with "it has".
    """
    weights = [name for name in names if name.endswith(".safetensors") and _is_part_of_model(name)]
    if not any("/" not in name for name in weights):
        raise ConfigError("it has no safetensors weights (pickled ones can run code and are not read)")
    # The chat template is not applied. It is fetched because a model that has one must be refused.
    configs = [
        name for name in names if (name.endswith(".json") or name == "chat_template.jinja") and _is_part_of_model(name)
    ]
    python = [name for name in names if code and name.endswith(".py")]
    return list(dict.fromkeys([*weights, *_config_files(names), *configs, *python]))


def _is_part_of_model(name: str) -> bool:
    """Return whether a file is at the top level, or in a module of sentence-transformers (folder `2_Dense`)."""
    folder, _, rest = name.rpartition("/")
    return not folder or ("/" not in folder and folder[:1].isdigit() and bool(rest))


def _config_files(names: Sequence[str]) -> list[str]:
    if "tokenizer.json" not in names:
        raise ConfigError("it has no tokenizer.json")
    return [name for name in CONFIG_FILES if name in names]
