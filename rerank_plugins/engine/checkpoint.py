"""Checks a folder with safetensors before it is loaded: that it holds the right kind of model, and cannot run code.

Nothing in the folder is trusted. No name in its JSON becomes an import or a call: classes come from a table here or
from transformers' table of architectures. Settings by which transformers or sentence-transformers would choose code are
refused.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Iterator, Sequence
from pathlib import Path, PureWindowsPath
from typing import Any, NamedTuple

from ..core.errors import ConfigError
from .files import MAX_SETTINGS_BYTES, json_of, read_text, refuse_special_files, setting

__all__ = [
    "POSITION_TABLE",
    "ROBERTA",
    "Part",
    "architecture",
    "check",
    "check_language_model",
    "cross_encoder_settings",
    "has_modules",
    "headless",
    "missing_weights",
    "parts",
    "read_modules",
    "refuse_chat_template",
    "refuse_code",
    "require_files",
    "require_token_embeddings",
    "require_weights",
    "wants_code",
]

_CLASSIFIER = "ForSequenceClassification"
_CHOOSE_CODE = {
    "quantization_config": "its weights are quantized, which runs code of other packages",
    "compression_config": "its weights are compressed, which runs code of other packages",
    "fusion_config": "it replaces parts of transformers",
}
"""Settings of transformers that select code, at any depth of config.json, and the reason for the error."""
_MODULES = ("Transformer", "Pooling", "Dense", "LayerNorm", "Normalize", "Dropout")
"""The modules of sentence-transformers that are allowed. Others would read names of code from their settings."""
_PYLATE_DENSE = "pylate.models.Dense.Dense"
"""PyLate's layer, which has the settings and weights of sentence-transformers' own."""
ROBERTA = frozenset({"roberta", "xlm-roberta", "xlm-roberta-xl", "camembert", "data2vec-text", "mpnet"})
"""Model types whose positions start after the padding token's id."""
POSITION_TABLE = ROBERTA | {"bert", "electra", "distilbert", "albert"}
"""Model types whose positions are rows of a table, so that its size limits the input."""


class Part(NamedTuple):
    """One module that follows the transformer."""

    kind: str
    """One of `_MODULES`."""
    path: str
    """Its folder, relative to the model's."""


def architecture(folder: Path) -> str:
    """Return the first class that a folder's config.json names; an empty string if it names none."""
    named = json_of(folder / "config.json").get("architectures")
    return str(named[0]) if isinstance(named, list) and named else ""


def check(folder: Path, *, remote_code: bool = False) -> None:
    """Check that a folder holds a cross-encoder, without loading it.

    Args:
        folder: The model's folder.
        remote_code: Whether the caller trusts code in the folder.

    Raises:
        ConfigError: There is no such folder, or it lacks a tokenizer, safetensors or a classification head; or its
            settings choose code; or trusted code would come from another repository.
    """
    require_files(folder)
    named = architecture(folder)
    if named.endswith("ForCausalLM"):
        raise ConfigError(
            f"{folder} is a {named}, which scores by the next word: name it by its family (qwen3, "
            "mxbai, zerank, bge, ctxl), whose prompt it needs, or as causal-lm with a template."
        )
    if named == "LlamaBidirectionalForSequenceClassification":
        raise ConfigError(
            f"{folder} is NVIDIA's reranker: it reads one text, 'question:QUERY \\n \\n passage:DOCUMENT', and only "
            "pairs are made here. Serve it (vllm, with that prompt as its chat template, or nvidia-nim), or use nvidia."
        )
    if remote_code:
        _refuse_code_from_elsewhere(folder)
    else:
        refuse_code(folder)
    refuse_chat_template(folder)
    if remote_code or has_modules(folder) or named.endswith(_CLASSIFIER):
        return
    if "auto_map" in json_of(folder / "config.json"):
        raise wants_code(folder)
    raise headless(folder, f"its config.json names {named or 'no architecture'}")


def check_language_model(folder: Path, expected: Sequence[str], family: str) -> None:
    """Check that a folder holds a language model of a known class, without loading it.

    Args:
        folder: The model's folder.
        expected: The classes of which its config.json must name one.
        family: The family or template, for the error.

    Raises:
        ConfigError: There is no such folder, it lacks a file, or its config.json names another class.
    """
    require_files(folder)
    refuse_code(folder)
    if (named := architecture(folder)) not in expected:
        raise ConfigError(
            f"{folder} is a {named or 'model of no named architecture'}, and {family} is for a "
            f"{' or a '.join(expected)}, so its prompt does not fit. Name the family that the model belongs to."
        )


def refuse_code(folder: Path) -> None:
    """Refuse a folder whose settings choose the code that is run.

    Raises:
        ConfigError: The folder holds an adapter, or its config.json holds such a setting.
    """
    if (folder / "adapter_config.json").exists():
        raise ConfigError(
            f"{folder} holds an adapter (adapter_config.json), which names its own base model and classes: merge it "
            "with peft's merge_and_unload, and save the whole model."
        )
    for key, value in _settings(json_of(folder / "config.json")):
        if key in _CHOOSE_CODE and value:
            raise ConfigError(
                f"{folder} cannot be used: config.json has {key}, so {_CHOOSE_CODE[key]}. Name the model that it was "
                "made from, or an ONNX file (onnx:…)."
            )
        if (
            key == "transformers_weights"
            and value
            and not str(value).endswith((".safetensors", ".safetensors.index.json"))
        ):
            raise ConfigError(
                f"{folder} names {value!r} as its weights, and only safetensors are read: save it with save_pretrained."
            )


def _settings(value: Any) -> Iterator[tuple[str, Any]]:
    """Yield every key and value of nested settings. Not recursive: deep JSON would exceed the recursion limit."""
    waiting = [value]
    while waiting:
        node = waiting.pop()
        if isinstance(node, dict):
            yield from node.items()
            waiting += node.values()
        elif isinstance(node, list):
            waiting += node


def _refuse_code_from_elsewhere(folder: Path) -> None:
    """Refuse a checkpoint that takes code from another repository: no revision pins that code."""
    for file in ("config.json", "tokenizer_config.json"):
        named = json_of(folder / file).get("auto_map") or {}
        for value in named.values() if isinstance(named, dict) else [named]:
            for name in value if isinstance(value, list) else [value]:
                if "--" in str(name):
                    raise ConfigError(
                        f"{folder} takes its code from another repository ({str(name).partition('--')[0]}), which no "
                        "revision pins: it is not run. Use an ONNX file (onnx:…), or a copy with the code in it."
                    )


def refuse_chat_template(folder: Path) -> None:
    """Refuse a classifier that was trained on chats: for a plain pair of texts its score means nothing.

    Raises:
        ConfigError: The tokenizer has a chat template, which sentence-transformers would fill with query and document.
    """
    settings, transformer = cross_encoder_settings(folder)
    if settings and "message" not in (setting(folder, transformer, "modality_config", dict, "object") or ()):
        return  # it was saved as a CrossEncoder that reads pairs, so its chat template is not used
    if (folder / "chat_template.jinja").is_file() or json_of(folder / "tokenizer_config.json").get("chat_template"):
        raise ConfigError(
            f"{folder} puts query and document into a chat template, and only plain pairs are classified here: name it "
            "by its family (qwen3, mxbai, zerank, bge, ctxl) or as causal-lm with a template, or serve it (vllm, tei)."
        )


def require_files(folder: Path) -> None:
    """Refuse a folder that lacks a file that every model on torch needs.

    Raises:
        ConfigError: There is no such folder, it lacks config.json, tokenizer.json or safetensors, or it holds a special
            file.
    """
    if not folder.is_dir():
        raise ConfigError(f"There is no folder {folder}: name a folder with config.json, tokenizer.json and weights.")
    refuse_special_files(folder)
    for name in ("config.json", "tokenizer.json"):
        if not (folder / name).is_file():
            raise ConfigError(f"{folder} holds no {name}: a model needs it beside its weights.")
    require_weights(folder)


def require_weights(folder: Path) -> None:
    """Refuse a folder without safetensors.

    Raises:
        ConfigError: The folder holds no safetensors.
    """
    if not any(folder.glob("*.safetensors")):
        if any(folder.glob("**/*.onnx")):
            raise ConfigError(f"{folder} holds an ONNX file and no safetensors: use onnx:{folder}.")
        raise ConfigError(
            f"{folder} holds no safetensors weights. Pickled ones (pytorch_model.bin) can run code and are not read: "
            "save the model again with transformers' save_pretrained."
        )


def has_modules(folder: Path) -> bool:
    """Return whether modules of sentence-transformers follow the transformer (Ettin: pooling, then dense layers).

    Raises:
        ConfigError: As `parts`.
    """
    return bool(parts(folder))


def parts(folder: Path) -> list[Part]:
    """Return the modules of sentence-transformers that follow the transformer; none for a plain classifier.

    Raises:
        ConfigError: A module is not sentence-transformers' own, lies outside the folder or names code; or the last one
            gives no score.
    """
    file = folder / "modules.json"
    if not file.is_file():
        return []
    if not cross_encoder_settings(folder)[0] and architecture(folder).endswith(_CLASSIFIER):
        return []  # left over from an embedding model that became a classifier: sentence-transformers ignores it too
    parts_of_file = read_modules(folder)
    if len(parts_of_file) < 2:
        return []
    _require_scores(folder, parts_of_file[-1])
    if (
        [part.kind for part in parts_of_file].count("Transformer") != 1
        or parts_of_file[0].kind != "Transformer"
        or parts_of_file[0].path
    ):
        raise ConfigError(
            f"{file} must begin with its only Transformer: save the model again with sentence-transformers."
        )
    require_token_embeddings(folder)
    return parts_of_file[1:]


def read_modules(folder: Path, allowed: Collection[str] = _MODULES) -> list[Part]:
    """Return the modules that a folder's `modules.json` lists, the transformer among them.

    Args:
        folder: The model's folder. It holds a `modules.json`.
        allowed: The classes that the caller can run.

    Raises:
        ConfigError: The file cannot be read; or a module is another class, lies outside the folder, holds pickled
            weights or names code.
    """
    file = folder / "modules.json"
    try:
        modules = [
            (str(module["type"]), str(module["path"])) for module in json.loads(read_text(file, MAX_SETTINGS_BYTES))
        ]
    except (OSError, ValueError, TypeError, KeyError, RecursionError) as error:
        raise ConfigError(f"{file} cannot be read ({error!r}): fetch the model again.") from error
    parts_of_file = [Part(_module_class(file, kind, allowed), path) for kind, path in modules]
    for part in parts_of_file:
        where = PureWindowsPath(part.path)  # accepts both kinds of slashes
        if where.anchor or ".." in where.parts:
            raise ConfigError(f"{file} names {part.path!r}, which leads out of the folder: fetch the model again.")
        inside = folder / part.path
        if (
            (inside / "pytorch_model.bin").is_file()
            and not (inside / "model.safetensors").is_file()
            and inside != folder
        ):
            raise ConfigError(
                f"{inside} holds pickled weights, which can run code and are not read: save the model again."
            )
        if part.kind == "Dense":
            _require_activation(inside / "config.json")
    return parts_of_file


def _module_class(file: Path, kind: str, allowed: Collection[str]) -> str:
    """Return which of `allowed` a dotted name means. The name is never used to import a class."""
    name = kind.rpartition(".")[2]
    if not kind.startswith("sentence_transformers.") and kind != _PYLATE_DENSE:
        raise ConfigError(
            f"{file} names {kind}, code that is not sentence-transformers' own: it is not run. Use an ONNX file "
            f"(onnx:…)."
        )
    if name == "MultiVectorMask" and name not in allowed:
        raise ConfigError(f"{file.parent} holds a late-interaction model and no cross-encoder: write colbert:….")
    if name not in allowed:
        raise ConfigError(
            f"{file} names {kind}, and a reranker may hold {', '.join(allowed)}: it is not run. Use an ONNX file "
            f"(onnx:…)."
        )
    return name


def _require_activation(file: Path) -> None:
    """Refuse a Dense layer whose activation is not one of torch's, because sentence-transformers imports that name."""
    named = json_of(file).get("activation_function")
    if named is None:
        return
    prefix, _, name = str(named).rpartition(".")
    if prefix not in ("torch.nn", "torch.nn.modules.activation", "torch.nn.modules.linear") or not name.isidentifier():
        raise ConfigError(
            f"{file} names {named!r} as its activation, which is not one of torch.nn: it is not run. Fetch the model "
            f"again."
        )


def require_token_embeddings(folder: Path) -> None:
    """Refuse a transformer whose output is not its token embeddings."""
    settings = json_of(folder / "sentence_bert_config.json")
    task = settings.get("transformer_task", "feature-extraction")
    modalities = settings.get("modality_config")
    text = modalities.get("text") if isinstance(modalities, dict) else None
    method = text.get("method", "forward") if isinstance(text, dict) else "forward"
    output = text.get("method_output_name", "last_hidden_state") if isinstance(text, dict) else "last_hidden_state"
    output = output[0] if isinstance(output, list) and len(output) == 1 else output
    name = settings.get("module_output_name", "token_embeddings")
    if (task, method, output, name) != ("feature-extraction", "forward", "last_hidden_state", "token_embeddings"):
        raise ConfigError(
            f"{folder} configures its transformer for another output ({task}, {method}, {output}, {name}) in "
            "sentence_bert_config.json, and only its token embeddings are used here: save it again with "
            "transformer_task 'feature-extraction'."
        )


def _require_scores(folder: Path, part: Part) -> None:
    """Refuse a last module without scores: sentence-transformers would add a head of random weights."""
    if part.kind != "Dense":
        raise headless(folder, f"the last of its modules is {part.kind} (an embedding model?)")
    if (gives := json_of(folder / part.path / "config.json").get("module_output_name")) != "scores":
        raise headless(folder, f"the last of its modules gives {gives or 'an embedding'} and no scores")
    name = "config_sentence_transformers.json"
    if (model_type := json_of(folder / name).get("model_type")) != "CrossEncoder":
        raise headless(folder, f"its {name} names {model_type or 'no model_type'} and not CrossEncoder")


def missing_weights(folder: Path, names: Sequence[str], *, head: bool) -> ConfigError:
    """Return the error for a folder that lacks weights, which transformers would fill with random numbers.

    Args:
        folder: The model's folder.
        names: The names of the missing weights.
        head: Whether the folder must hold a classification head.
    """
    lack = f"lack {', '.join(names[:3])}{' …' if len(names) > 3 else ''}"
    return (
        headless(folder, f"its weights {lack}")
        if head
        else ConfigError(f"The weights in {folder} {lack}: fetch it again.")
    )


def headless(folder: Path, why: str) -> ConfigError:
    """Return the error for a model without a trained head."""
    return ConfigError(
        f"{folder} has no trained classification head ({why}), so its scores would be random. "
        "Name a model that was trained to rerank, or a late-interaction model (ColBERT) as colbert:…."
    )


def wants_code(folder: Path) -> ConfigError:
    """Return the error for a model that runs only with its own code."""
    return ConfigError(
        f"{folder} needs code of its own to run, which is not trusted. Use a checkpoint of a native architecture or "
        "its ONNX file (onnx:…); or name the model by its hub name and set trust_remote_code with a 40-digit revision."
    )


def cross_encoder_settings(folder: Path) -> tuple[dict[str, Any], dict[str, Any]]:
    """Return the settings of a CrossEncoder of sentence-transformers, and those of its transformer; else empty ones.

    sentence-transformers ignores the settings of other kinds of models too: the prompt of an embedding model is not for
    a reranker.
    """
    settings = json_of(folder / "config_sentence_transformers.json")
    if settings.get("model_type") != "CrossEncoder":
        return {}, {}
    return settings, json_of(folder / "sentence_bert_config.json")
