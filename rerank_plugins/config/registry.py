"""Name → backend: ours in one table, strangers' by entry point (group `rerank_plugins.backends`)."""

from __future__ import annotations

import functools
import importlib
import importlib.util
import re
from collections.abc import Collection
from dataclasses import dataclass
from typing import TYPE_CHECKING

from ..core.choices import nearest, unknown
from ..core.errors import ConfigError, MissingExtra
from ..core.scorer import Backend

if TYPE_CHECKING:
    from importlib import metadata

__all__ = [
    "BUILTIN",
    "GROUP",
    "Entry",
    "backend_class",
    "entries",
    "is_known",
    "is_remote",
    "models",
    "unknown",
    "unknown_backend",
]

GROUP = "rerank_plugins.backends"
_REPOSITORY = re.compile(r"(?!\.)[\w.-]+/[\w.-]+")
"""`org/name`, which is no path."""


@dataclass(frozen=True, slots=True)
class Entry:
    """One name that specs can use."""

    path: str
    """`module:Class`."""
    summary: str
    kind: str = "local"
    """`local`, `hosted`, `server` or `plugin`."""
    extra: str | None = None
    """The extra that installs what it needs."""
    packages: tuple[str, ...] = ()
    """The modules it imports beyond the base install."""

    def missing(self) -> str | None:
        """Return the first package it needs that is not installed."""
        for name in self.packages:
            if not _installed(name):
                return name
        return None


def _installed(module: str) -> bool:
    try:
        return importlib.util.find_spec(module) is not None
    except (ImportError, ValueError):  # its parent is not there, or is half-way
        return False


BUILTIN: dict[str, Entry] = {
    "embedded": Entry(
        "rerank_plugins.backends.embedded:Embedded",
        "the model in the wheel: late interaction, English; `embedded:fast`",
    ),
    "lexical": Entry("rerank_plugins.backends.lexical:Lexical", "BM25 over the candidates"),
    "passthrough": Entry("rerank_plugins.backends.passthrough:Passthrough", "the order given"),
    "bge": Entry("rerank_plugins.backends.families:BGE", "BAAI's rerankers, Chinese and English or multilingual"),
    "mxbai": Entry(
        "rerank_plugins.backends.families:Mxbai",
        "Mixedbread's open rerankers: v1, English; v2, multilingual language models",
    ),
    "jina": Entry(
        "rerank_plugins.backends.families:Jina",
        "Jina's open rerankers: v1, v2 from their ONNX files; v3 reads all documents at once",
    ),
    "qwen3": Entry(
        "rerank_plugins.backends.families:Qwen3",
        "Qwen3 rerankers: language models, 0.6 to 8 B, 100+ languages",
        extra="sentence-transformers",
        packages=("sentence_transformers",),
    ),
    "zerank": Entry(
        "rerank_plugins.backends.families:Zerank",
        "ZeroEntropy's open rerankers: language models, 1.7 and 4 B",
        extra="sentence-transformers",
        packages=("sentence_transformers",),
    ),
    "ettin": Entry(
        "rerank_plugins.backends.families:Ettin",
        "Ettin rerankers: ModernBERT, 17 M to 1 B, English",
        extra="sentence-transformers",
        packages=("sentence_transformers",),
    ),
    "ms-marco": Entry("rerank_plugins.backends.families:MSMarco", "the MiniLM cross-encoders of MS MARCO, English"),
    "flashrank": Entry(
        "rerank_plugins.backends.families:FlashRank",
        "the small encoders of the flashrank package, which is not needed; English, Arabic, multilingual",
    ),
    "onnx": Entry("rerank_plugins.backends.onnx:OnnxByName", "any cross-encoder's ONNX file, on onnxruntime"),
    "sentence-transformers": Entry(
        "rerank_plugins.backends.sentence_transformers:TorchByName",
        "any CrossEncoder checkpoint, on torch, CPU or GPU",
        extra="sentence-transformers",
        packages=("sentence_transformers",),
    ),
    "causal-lm": Entry(
        "rerank_plugins.backends.causal_lm:CausalByName",
        "a language model that answers yes or no, with one of the families' templates",
        extra="sentence-transformers",
        packages=("sentence_transformers",),
    ),
    "cohere": Entry(
        "rerank_plugins.backends.cohere:Cohere",
        "Cohere Rerank, through the cohere SDK",
        kind="hosted",
        extra="cohere",
        packages=("cohere",),
    ),
    "voyage": Entry(
        "rerank_plugins.backends.voyage:Voyage",
        "Voyage AI (MongoDB), through the voyageai SDK",
        kind="hosted",
        extra="voyage",
        packages=("voyageai",),
    ),
    "jina-api": Entry("rerank_plugins.backends.jina_api:JinaAPI", "Jina's hosted rerankers", kind="hosted"),
    "mixedbread": Entry(
        "rerank_plugins.backends.mixedbread:Mixedbread", "Mixedbread's hosted rerankers", kind="hosted"
    ),
    "zeroentropy": Entry(
        "rerank_plugins.backends.zeroentropy:ZeroEntropy", "ZeroEntropy's zerank models", kind="hosted"
    ),
    "tei": Entry("rerank_plugins.backends.tei:TEI", "a Text Embeddings Inference server, at base_url", kind="server"),
    "vllm": Entry("rerank_plugins.backends.vllm:VLLM", "a vLLM server, at base_url", kind="server"),
    "infinity": Entry("rerank_plugins.backends.infinity:Infinity", "an Infinity server, at base_url", kind="server"),
    "http": Entry("rerank_plugins.backends.http:HTTP", "any Cohere-shaped /rerank, at base_url", kind="server"),
}


@functools.cache
def _plugins() -> dict[str, metadata.EntryPoint]:
    from importlib import metadata  # a fifth of this package's import time, for whoever only imports it

    return {point.name: point for point in metadata.entry_points(group=GROUP)}


def entries() -> dict[str, Entry]:
    """Return every name that specs can use; ours win over a stranger's of the same name."""
    found: dict[str, Entry] = {}
    for name, point in _plugins().items():
        found[name] = Entry(point.value, f"from the package {point.dist.name if point.dist else '?'}", kind="plugin")
    return found | BUILTIN


def is_known(name: str) -> bool:
    """Tell whether specs can use `name`."""
    return name in BUILTIN or name in _plugins()


def is_remote(name: str) -> bool:
    """Tell whether requests of the backend `name` leave the process; of ours without importing it."""
    entry = BUILTIN.get(name)
    return backend_class(name).remote if entry is None else entry.kind in ("hosted", "server")


def backend_class(name: str) -> type[Backend]:
    """Return the class behind a backend's name.

    Raises:
        ConfigError: Nobody has that name, or a plugin's entry point does not lead to a backend.
        MissingExtra: It needs a package that is not installed.
    """
    entry = BUILTIN.get(name) or entries().get(name)
    if entry is None:
        raise unknown_backend(name)
    if entry.packages and (package := entry.missing()) is not None:
        raise MissingExtra(f"The backend {name!r}", extra=entry.extra or "all", package=package)
    try:
        if entry.kind == "plugin":
            found = _plugins()[name].load()
        else:
            module, _, attribute = entry.path.partition(":")
            found = getattr(importlib.import_module(module), attribute)
    except Exception as error:  # a stranger's module may fail in any way
        raise ConfigError(
            f"The backend {name!r} ({entry.path}) cannot be imported ({type(error).__name__}: {error}). "
            "Install what it needs, or mend its entry point."
        ) from error
    if not (isinstance(found, type) and issubclass(found, Backend)):
        raise ConfigError(
            f"{entry.path}, the entry point of {name!r}, is no LocalBackend, HostedBackend or SDKBackend."
        )
    return found


def models() -> list[dict[str, str]]:
    """Return what is known of each local model by name, as rows of text."""
    recipes = importlib.import_module("rerank_plugins.backends.recipes")  # data, but a backend's room: by its name only
    rows: list[dict[str, str]] = [recipe.row() for recipe in recipes.MODELS]
    return rows


def unknown_backend(spec: str, named: Collection[str] | None = None) -> ConfigError:
    """Return the error for a spec whose backend nothing has.

    Args:
        spec: The string that was to name it.
        named: The rerankers of the configuration file, where the string might have been one of those.
    """
    valid = [*entries(), *(named or ())]
    if _REPOSITORY.fullmatch(spec):
        recipes = importlib.import_module("rerank_plugins.backends.recipes")
        known = [f"{each.family}:{spec}" for each in recipes.MODELS if spec.lower() == each.repository.lower()]
        write = " or ".join(map(repr, [*known, f"onnx:{spec}", f"sentence-transformers:{spec}"]))
        return ConfigError(
            f"There is no backend {spec!r}: it looks like a model on the Hugging Face hub. Name what runs it too: {write}."
        )
    error = unknown("backend or named reranker" if named else "backend", spec.partition(":")[0], valid)
    if named is None or named or nearest(spec, valid) is not None:
        return error
    return ConfigError(
        f"{error} If it is a name in a configuration file: none is set. Pass its path as `config`, or set RERANK_PLUGINS_CONFIG."
    )
