"""A folder with safetensors, looked at before anything is loaded: what it is, and that it chooses no code.

Everything in the folder is data of a stranger. No name in its JSON becomes an import or a call: classes come from a table
here or from transformers' own table of architectures, and settings by which transformers or sentence-transformers would
choose code are refused.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path, PureWindowsPath
from typing import Any

from ..core.errors import ConfigError
from .files import MOST_SETTINGS, json_of, only_regular, read_text

__all__ = [
    "POSITION_TABLE",
    "ROBERTA",
    "Part",
    "architecture",
    "check",
    "check_language_model",
    "has_files",
    "has_weights",
    "headless",
    "missing_weights",
    "modular",
    "no_chat",
    "parts",
    "refuse_code",
    "saved",
    "wants_code",
]

_CLASSIFIER = "ForSequenceClassification"
_CHOOSE_CODE = {
    "quantization_config": "its weights are quantized, which runs code of other packages",
    "compression_config": "its weights are compressed, which runs code of other packages",
    "fusion_config": "it replaces parts of transformers",
}
"""Settings of transformers that name what is run, at any depth of config.json."""
_MODULES = ("Transformer", "Pooling", "Dense", "LayerNorm", "Normalize", "Dropout")
"""The modules of sentence-transformers that a reranker is made of; others read more names from their settings."""


ROBERTA = frozenset({"roberta", "xlm-roberta", "xlm-roberta-xl", "camembert", "data2vec-text", "mpnet"})
"""Model types whose positions begin after the padding's."""
POSITION_TABLE = ROBERTA | {"bert", "electra", "distilbert", "albert"}
"""Model types whose positions are rows of a table: past its end there is nothing to read."""


@dataclass(frozen=True, slots=True)
class Part:
    """One module after the transformer."""

    kind: str
    """One of `_MODULES`."""
    path: str
    """Its folder, below the model's."""


def architecture(folder: Path) -> str:
    """Return the class that a folder's config.json names first; empty where it names none."""
    named = json_of(folder / "config.json").get("architectures")
    return str(named[0]) if isinstance(named, list) and named else ""


def check(folder: Path, *, remote_code: bool = False) -> None:
    """Look at a folder's files without loading any.

    Raises:
        ConfigError: It holds no cross-encoder that can be run: no such folder, no tokenizer, no safetensors, no head;
            or its settings choose code; or its code, though trusted, lies in another repository.
    """
    has_files(folder)
    named = architecture(folder)
    if named.endswith("ForCausalLM"):
        raise ConfigError(
            f"{folder} is a {named}, which scores by the words it would write: name it by its family (qwen3, "
            "mxbai, zerank, bge), whose prompt it needs, or as causal-lm with a template."
        )
    if remote_code:
        _refuse_code_from_elsewhere(folder)
    else:
        refuse_code(folder)
    no_chat(folder)
    if remote_code or modular(folder) or named.endswith(_CLASSIFIER):
        return
    if "auto_map" in json_of(folder / "config.json"):
        raise wants_code(folder)
    raise headless(folder, f"its config.json names {named or 'no architecture'}")


def check_language_model(folder: Path, wanted: str, family: str) -> None:
    """Look at a folder's files without loading any.

    Raises:
        ConfigError: It is no folder, or lacks a file, or its config.json names another class than `wanted`.
    """
    has_files(folder)
    refuse_code(folder)
    if (named := architecture(folder)) != wanted:
        raise ConfigError(
            f"{folder} is a {named or 'model of no named architecture'}, and {family} is for a {wanted}: its prompt and "
            "its answers would mean nothing there. Name the family that the model belongs to."
        )


def refuse_code(folder: Path) -> None:
    """Refuse settings by which a folder would choose the code that is run.

    Raises:
        ConfigError: It is an adapter, or its config.json holds such a setting.
    """
    if (folder / "adapter_config.json").exists():
        raise ConfigError(
            f"{folder} holds an adapter (adapter_config.json), which names its own base model and classes: merge it with "
            "peft's merge_and_unload, and save the whole model."
        )
    for key, value in _settings(json_of(folder / "config.json")):
        if key in _CHOOSE_CODE and value:
            raise ConfigError(
                f"{folder} cannot be used: config.json has {key}, so {_CHOOSE_CODE[key]}. Name the model that it was made "
                "from, or an ONNX file (onnx:…)."
            )
        if (
            key == "transformers_weights"
            and value
            and not str(value).endswith((".safetensors", ".safetensors.index.json"))
        ):
            raise ConfigError(f"{folder} names {value!r} as its weights, and only safetensors are read: save it again.")


def _settings(value: Any) -> Iterator[tuple[str, Any]]:
    """Yield every key and value of nested settings; no recursion, which deep JSON would exhaust."""
    waiting = [value]
    while waiting:
        each = waiting.pop()
        if isinstance(each, dict):
            yield from each.items()
            waiting += each.values()
        elif isinstance(each, list):
            waiting += each


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
        ConfigError: No such folder, no config.json, no tokenizer.json, no safetensors; or something in it is no file.
    """
    if not folder.is_dir():
        raise ConfigError(f"There is no folder {folder}: name a folder with config.json, tokenizer.json and weights.")
    only_regular(folder)
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
    return bool(parts(folder))


def parts(folder: Path) -> list[Part]:
    """Return the modules of sentence-transformers that come after the transformer; none for a plain classifier.

    Raises:
        ConfigError: They are not its own, lie outside of the folder, name code, or do not end in a score.
    """
    file = folder / "modules.json"
    if not file.is_file():
        return []
    if not saved(folder)[0] and architecture(folder).endswith(_CLASSIFIER):
        return []  # left over from the embedding model that became a classifier: sentence-transformers passes over it too
    try:
        modules = [(str(each["type"]), str(each["path"])) for each in json.loads(read_text(file, MOST_SETTINGS))]
    except (OSError, ValueError, TypeError, KeyError, RecursionError) as error:
        raise ConfigError(f"{file} cannot be read ({error!r}): fetch the model again.") from error
    made = [Part(_known(file, kind), path) for kind, path in modules]
    for part in made:
        where = PureWindowsPath(part.path)  # which knows both kinds of slashes
        if where.anchor or ".." in where.parts:
            raise ConfigError(f"{file} names {part.path!r}, which leads out of the folder: fetch the model again.")
        inside = folder / part.path
        if (
            (inside / "pytorch_model.bin").is_file()
            and not (inside / "model.safetensors").is_file()
            and inside != folder
        ):
            raise ConfigError(f"{inside} holds pickled weights, which can run code and are not read: save it anew.")
        if part.kind == "Dense":
            _activation(inside / "config.json")
    if len(made) < 2:
        return []
    _ends_in_a_score(folder, made[-1])
    if [part.kind for part in made].count("Transformer") != 1 or made[0].kind != "Transformer" or made[0].path:
        raise ConfigError(f"{file} does not begin with its one Transformer: only such a model is run here.")
    _plain_transformer(folder)
    return made[1:]


def _known(file: Path, kind: str) -> str:
    """Return which of `_MODULES` a dotted name means: the class itself is never looked up by that name."""
    name = kind.rpartition(".")[2]
    if not kind.startswith("sentence_transformers."):
        raise ConfigError(f"{file} names {kind}, code that is not sentence-transformers' own: it is not run.")
    if name not in _MODULES:
        raise ConfigError(f"{file} names {kind}, and a reranker is made of {', '.join(_MODULES)}: it is not run.")
    return name


def _activation(file: Path) -> None:
    """Refuse a Dense layer whose activation is no activation of torch's: sentence-transformers imports what it is named."""
    named = json_of(file).get("activation_function")
    if named is None:
        return
    prefix, _, name = str(named).rpartition(".")
    if prefix not in ("torch.nn", "torch.nn.modules.activation", "torch.nn.modules.linear") or not name.isidentifier():
        raise ConfigError(f"{file} names {named!r} as its activation, which is not one of torch.nn: it is not run.")


def _plain_transformer(folder: Path) -> None:
    """Refuse a transformer that is to be called in another way than for its token embeddings."""
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
            f"{folder} calls its transformer in a way of its own ({task}, {method}, {output}, {name}) in "
            "sentence_bert_config.json, and only its token embeddings are used here: save it again with "
            "transformer_task 'feature-extraction'."
        )


def _ends_in_a_score(folder: Path, part: Part) -> None:
    """Refuse what sentence-transformers would take for an embedding model, and give a head of random numbers."""
    if part.kind != "Dense":
        raise headless(folder, f"the last of its modules is {part.kind} (an embedding model?)")
    if (gives := json_of(folder / part.path / "config.json").get("module_output_name")) != "scores":
        raise headless(folder, f"the last of its modules gives {gives or 'an embedding'} and no scores")
    name = "config_sentence_transformers.json"
    if (model_type := json_of(folder / name).get("model_type")) != "CrossEncoder":
        raise headless(folder, f"its {name} tells of {model_type or 'no model_type'} and not of a CrossEncoder")


def missing_weights(folder: Path, names: Sequence[str], *, head: bool) -> ConfigError:
    """Return the error for a folder whose files lack weights: they would be random numbers.

    Args:
        folder: The model's.
        names: Of the weights.
        head: Whether it was to hold a classification head.
    """
    lack = f"lack {', '.join(names[:3])}{' …' if len(names) > 3 else ''}"
    return (
        headless(folder, f"its weights {lack}")
        if head
        else ConfigError(f"The weights in {folder} {lack}: fetch it again.")
    )


def headless(folder: Path, why: str) -> ConfigError:
    """Return the error for a model whose scores would be random."""
    return ConfigError(
        f"{folder} has no trained classification head ({why}), so its scores would be random. "
        "Name a model that was trained to rerank."
    )


def wants_code(folder: Path) -> ConfigError:
    """Return the error for a model that only runs with its own code."""
    return ConfigError(
        f"{folder} needs code of its own to run, which is not trusted. Use a checkpoint of a native architecture or its "
        "ONNX file (onnx:…); or name the model by its hub name and set trust_remote_code with a 40-digit revision."
    )


def saved(folder: Path) -> tuple[dict[str, Any], dict[str, Any]]:
    """Return what sentence-transformers saved of a CrossEncoder, and of the transformer in it; nothing of another kind of model.

    Nor does it look there itself, but takes such a folder as a plain checkpoint: an embedding model's prompt is none of a
    reranker's.
    """
    theirs = json_of(folder / "config_sentence_transformers.json")
    if theirs.get("model_type") != "CrossEncoder":
        return {}, {}
    return theirs, json_of(folder / "sentence_bert_config.json")
