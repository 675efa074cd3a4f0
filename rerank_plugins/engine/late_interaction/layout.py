"""Reads how a late-interaction checkpoint prepares its texts: markers, lengths, query expansion, skipped tokens.

Three layouts are in use, and each is read as sentence-transformers 6.2 reads it (`MultiVectorEncoder`):

- sentence-transformers' own: `modules.json` with a `MultiVectorMask`; the settings stand beside each module;
- PyLate's: `modules.json` with `Dense` layers; the settings stand in `config_sentence_transformers.json`;
- Stanford's: the class `HF_ColBERT` in `config.json`, and the settings in `artifact.metadata`.
"""

from __future__ import annotations

import string
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ...core.errors import ConfigError
from ..checkpoint import (
    Part,
    architecture,
    read_modules,
    refuse_code,
    require_token_embeddings,
)
from ..files import json_of
from ..tokenizer import Limits

__all__ = ["Expansion", "Layout"]

_MODULES = ("Transformer", "Dense", "MultiVectorMask", "Normalize", "Pooling")
_STANFORD = "HF_ColBERT"
_EXPANSION_TOKENS = 32
"""The length of an expanded query where the settings name none (ColBERT, section 3.2)."""
_MAX_EXPANSION_TOKENS = 8192
"""The longest expanded query of a model without a table of positions: every query is filled up to this length."""
_PYLATE_SETTINGS = frozenset(
    {
        "query_length",
        "document_length",
        "query_expansion",
        "do_query_expansion",
        "attend_to_expansion_tokens",
        "attend_to_mask_tokens",
        "query_prefix",
        "document_prefix",
        "skiplist_words",
    }
)


@dataclass(frozen=True, slots=True)
class Expansion:
    """Query expansion: short queries are filled up with mask tokens, which are scored too."""

    tokens: int
    """The length to which a query is filled up, special tokens included."""
    attend: bool
    """Whether the encoder's attention reads the mask tokens too."""
    fixed: bool
    """Whether longer queries are cut to this length."""
    token: str | None
    """The mask token; `None` is the tokenizer's."""
    setting: str = field(repr=False, compare=False)
    """The field and file that set the length, for errors. It is no part of fingerprints, which hold the `repr`."""


@dataclass(frozen=True, slots=True)
class Layout:
    """The settings of one checkpoint."""

    prompts: tuple[str, str]
    """The text before a query, and before a document. It may begin with a marker, which is one token."""
    legacy: bool
    """Whether a marker that is only a word of the vocabulary counts as one token (PyLate, Stanford)."""
    max_query_tokens: int
    max_document_tokens: int
    """The longest query and document, in tokens, prompt and special tokens included."""
    positions: int | None
    """The number of positions, if they are a table: no option can exceed it."""
    pad: int
    """The id of the padding token."""
    expansion: Expansion | None
    skipped: tuple[str, ...]
    """Tokens whose vectors are dropped, such as punctuation."""
    skips_queries: bool
    skips_documents: bool
    """In which texts they are dropped."""
    dense: tuple[str, ...] | None
    """The folders of the `Dense` layers, in order; `None` if the layer is `linear.weight` among the model's weights."""
    lower_case: bool
    """Whether text is converted to lower case, whatever the tokenizer does."""

    @classmethod
    def read(cls, folder: Path) -> Layout:
        """Read the settings of a model's folder.

        Raises:
            ConfigError: A file cannot be read or names code, or the folder holds no late-interaction model.
        """
        refuse_code(folder)
        saved = json_of(folder / "config_sentence_transformers.json")
        if (folder / "modules.json").is_file():
            parts = read_modules(folder, _MODULES)
            if saved.get("model_type") == "MultiVectorEncoder" or any(part.kind == "MultiVectorMask" for part in parts):
                return _own_layout(folder, saved, parts)
            if saved.get("model_type") == "ColBERT" or not _PYLATE_SETTINGS.isdisjoint(saved):
                return _pylate_layout(folder, saved, parts)
        elif architecture(folder) == _STANFORD:
            return _stanford_layout(folder)
        raise ConfigError(
            f"{folder} holds no late-interaction model: it has no MultiVectorMask in modules.json, no settings of "
            f"PyLate in config_sentence_transformers.json, and no {_STANFORD} in config.json. Name a model that was "
            "trained as ColBERT; for a cross-encoder, write onnx:… or sentence-transformers:…."
        )


def _own_layout(folder: Path, saved: Mapping[str, Any], parts: list[Part]) -> Layout:
    dense = _dense_layers(folder, parts, legacy=False)
    masks = [json_of(folder / part.path / "config.json") for part in parts if part.kind == "MultiVectorMask"]
    normalized = any(
        part.kind == "Normalize"
        and json_of(folder / part.path / "config.json").get("module_input_name") == "token_embeddings"
        for part in parts
    )
    if len(masks) != 1 or not normalized or masks[0].get("keep_only_token_ids"):
        raise ConfigError(
            f"{folder} must have one MultiVectorMask for texts and a Normalize of its token embeddings in "
            "modules.json: its scores would not be cosines. Name a model that was trained as ColBERT on texts."
        )
    prompts = saved.get("prompts")
    prompts = prompts if isinstance(prompts, dict) else {}
    document = next((prompts[name] for name in ("document", "passage", "corpus") if prompts.get(name)), "")
    tasks = masks[0].get("skiplist_tasks", ["document"])
    tasks = [tasks] if isinstance(tasks, str) else tasks or []
    if not isinstance(tasks, list) or not all(isinstance(task, str) for task in tasks):
        raise ConfigError(f"{folder} has settings with skiplist_tasks that are no list of strings: fetch it again.")
    return _layout(
        folder,
        prompts=(_text(prompts.get("query")), _text(document)),
        legacy=False,
        settings={},
        expansion_setting="",
        skipped=masks[0].get("skiplist_words") or (),
        skips=("query" in tasks, "document" in tasks),
        dense=dense,
    )


def _pylate_layout(folder: Path, saved: Mapping[str, Any], parts: list[Part]) -> Layout:
    settings: dict[str, Any] = {
        name: saved[name] for name in ("query_length", "document_length") if saved.get(name) is not None
    }
    field_name = "query_expansion.length" if "query_expansion" in saved else "query_length"
    if "query_expansion" in saved:
        settings["query_expansion"] = saved["query_expansion"]
    elif saved.get("do_query_expansion") is False:
        settings["query_expansion"] = None
    else:
        attend = saved.get("attend_to_expansion_tokens", saved.get("attend_to_mask_tokens"))
        tokens = settings.pop("query_length", None) or _EXPANSION_TOKENS
        settings["query_expansion"] = {"strategy": "fixed", "attend": bool(attend), "length": tokens}
    prompts = saved.get("prompts") if isinstance(saved.get("prompts"), dict) else {}
    prompts = prompts if isinstance(prompts, dict) else {}
    texts = []
    for role in ("query", "document"):
        prefix = _text(saved.get(f"{role}_prefix"))
        texts.append(prefix + _text(prompts.get(role)).removeprefix(prefix))
    skipped = saved.get("skiplist_words")
    return _layout(
        folder,
        prompts=(texts[0], texts[1]),
        legacy=True,
        settings=settings,
        expansion_setting=f"{field_name} in config_sentence_transformers.json",
        skipped=list(string.punctuation) if skipped is None else skipped,
        skips=(False, True),
        dense=_dense_layers(folder, parts, legacy=True),
    )


def _stanford_layout(folder: Path) -> Layout:
    saved = json_of(folder / "artifact.metadata")
    settings: dict[str, Any] = {
        "query_expansion": {
            "strategy": "fixed",
            "attend": bool(saved.get("attend_to_mask_tokens")),
            "length": saved.get("query_maxlen") or _EXPANSION_TOKENS,
        }
    }
    if saved.get("doc_maxlen") is not None:
        settings["document_length"] = saved["doc_maxlen"]
    markers = (saved.get("query_token_id") or "[unused0]", saved.get("doc_token_id") or "[unused1]")
    return _layout(
        folder,
        prompts=(f"{markers[0]} ", f"{markers[1]} "),
        legacy=True,
        settings=settings,
        expansion_setting="query_maxlen in artifact.metadata",
        skipped=list(string.punctuation) if saved.get("mask_punctuation", True) else (),
        skips=(False, True),
        dense=None,
    )


def _layout(
    folder: Path,
    *,
    prompts: tuple[str, str],
    legacy: bool,
    settings: Mapping[str, Any],
    expansion_setting: str,
    skipped: Any,
    skips: tuple[bool, bool],
    dense: tuple[str, ...] | None,
) -> Layout:
    """Return the layout. What `sentence_bert_config.json` says comes before `settings`.

    `expansion_setting` is the field and file of the length of query expansion in `settings`, for errors.
    """
    transformer = json_of(folder / "sentence_bert_config.json")
    if transformer.get("query_expansion") is not None:
        expansion_setting = "query_expansion.length in sentence_bert_config.json"
    settings = {**settings, **{name: value for name, value in transformer.items() if value is not None}}
    limits = Limits.read(folder)
    longest = _count(folder, settings, "max_seq_length") or limits.max_tokens
    longest_expansion = limits.positions or _MAX_EXPANSION_TOKENS
    expansion = _expansion(folder, settings.get("query_expansion"), longest_expansion, expansion_setting)
    query = _count(folder, settings, "query_length") or longest
    if expansion is not None:
        query = expansion.tokens if expansion.fixed else max(query, expansion.tokens)
    document = _count(folder, settings, "document_length") or longest
    if not isinstance(skipped, list | tuple) or not all(isinstance(word, str) for word in skipped):
        raise ConfigError(f"{folder} has settings with skiplist_words that are no list of strings: fetch it again.")
    longest = limits.positions or max(query, document)
    return Layout(
        prompts=prompts,
        legacy=legacy,
        max_query_tokens=min(query, longest),
        max_document_tokens=min(document, longest),
        positions=limits.positions,
        pad=limits.pad,
        expansion=expansion,
        skipped=tuple(skipped),
        skips_queries=skips[0],
        skips_documents=skips[1],
        dense=dense,
        lower_case=bool(settings.get("do_lower_case")),
    )


def _dense_layers(folder: Path, parts: list[Part], *, legacy: bool) -> tuple[str, ...]:
    """Return the folders of the `Dense` layers.

    Raises:
        ConfigError: The modules are in another order than transformer, layers, the rest; or a layer projects something
            else than token vectors.
    """
    require_token_embeddings(folder)
    kinds = [part.kind for part in parts]
    projections = [part for part in parts if part.kind == "Dense"]
    ordered = kinds[:1] == ["Transformer"] and kinds.count("Transformer") == 1 and not parts[0].path
    if not ordered or any(kind != "Dense" for kind in kinds[1 : 1 + len(projections)]):
        raise ConfigError(
            f"{folder / 'modules.json'} must list its only Transformer, then its Dense layers, then the rest: save the "
            "model again with sentence-transformers."
        )
    for part in projections:
        config = json_of(folder / part.path / "config.json")
        source = config.get("module_input_name", "token_embeddings")
        if [source, config.get("module_output_name") or source] != ["token_embeddings"] * 2 and not legacy:
            raise ConfigError(
                f"{folder / part.path} projects {source!r} and not token_embeddings: name a model that was trained as "
                "ColBERT."
            )
    return tuple(part.path for part in projections)


def _expansion(folder: Path, settings: Any, longest: int, setting: str) -> Expansion | None:
    """Return how queries are expanded.

    Args:
        folder: The model's folder.
        settings: The entry `query_expansion`; `None` for no expansion.
        longest: The longest row that the model reads.
        setting: The field and file that set the length.

    Raises:
        ConfigError: The entry is damaged, or its length exceeds `longest`.
    """
    if settings is None:
        return None
    if not isinstance(settings, dict) or settings.get("strategy") not in ("fixed", "min"):
        raise ConfigError(f"{folder} has a query_expansion that is not known here: {settings!r}. Fetch it again.")
    tokens, token = _count(folder, settings, "length"), settings.get("token")
    if tokens is None or not isinstance(token, str | None):
        raise ConfigError(f"{folder} has a query_expansion without a length: fetch it again.")
    if tokens > longest:
        raise ConfigError(
            f"{folder} expands every query to {tokens} tokens ({setting}), and its model reads at most {longest}: "
            "fetch it again."
        )
    return Expansion(tokens, bool(settings.get("attend")), settings["strategy"] == "fixed", token, setting)


def _count(folder: Path, settings: Mapping[str, Any], name: str) -> int | None:
    """Return a positive integer among the settings, or `None` if there is none of that name.

    Raises:
        ConfigError: The value is something else.
    """
    value = settings.get(name)
    if value is None:
        return None
    if not isinstance(value, int) or isinstance(value, bool) or not 0 < value < 2**31:
        raise ConfigError(f"{folder} has settings with {name} {value!r}, which is no positive integer: fetch it again.")
    return value


def _text(value: Any) -> str:
    return value if isinstance(value, str) else ""
