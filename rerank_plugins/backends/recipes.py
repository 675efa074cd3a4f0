"""The models of each family, as data; `families` makes backends from it.

Sources: the model cards on https://huggingface.co/ORG/NAME (the `repository` of each row) and the makers' code,
    November 2026; ONNX files as in the list of fastembed 0.9.1 and the file lists of the repositories. No row was run
    with the model's own weights: no hub could be reached. A raw score is a logit (a cosine for listwise models);
    `scale` says how `relevance_score` follows from it.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass

from ..core.errors import ConfigError

__all__ = ["CAUSAL", "COLBERT", "LISTWISE", "MODELS", "ONNX", "TORCH", "Recipe", "find_recipe", "refusal"]

ONNX, TORCH, CAUSAL, LISTWISE, COLBERT = "onnx", "sentence-transformers", "causal-lm", "listwise", "colbert"
_log = logging.getLogger("rerank_plugins")
_warned: set[str] = set()


@dataclass(frozen=True, slots=True)
class Recipe:
    """One model."""

    family: str
    name: str
    """The name after the family's colon in a spec."""
    repository: str
    """`org/name` on the hub."""
    max_tokens: int | None
    """The longest input; of a late-interaction model, the longest document unless `max_tokens` says more. `None` where
    the card's figure could not be read: then the model's files decide."""
    languages: str
    licence: str
    onnx: str | None = None
    """The ONNX file in the repository, if there is one."""
    onnx_repository: str | None = None
    """The repository of the ONNX file, if others than the maker have made it. Then it runs where `runtime` or `dtype`
    selects it, or torch is not installed."""
    onnx_weights: tuple[str, ...] = ()
    """Files that hold weights of the ONNX file."""
    offset: float = 0.0
    divisor: float = 1.0
    """Offset and divisor of the `logit` scale."""
    template: str | None = None
    """For a language model that answers yes or no, the name of its prompt in `engine.causal_lm.templates`."""
    query_tokens: int | None = None
    document_tokens: int | None = None
    """For a listwise model, the tokens that it reads of the query and of each document."""
    native: bool = True
    """Whether the torch engine can run it: a native architecture with safetensors."""
    zipped: bool = False
    """Whether the repository holds many models, this one as `name.zip`. Then `onnx` is the file inside."""

    @property
    def engine(self) -> str:
        """The engine that runs the model unless the spec says otherwise."""
        if self.family == COLBERT:
            return COLBERT
        if self.template:
            return CAUSAL
        return LISTWISE if self.document_tokens else ONNX if self.onnx and not self.onnx_repository else TORCH

    @property
    def onnx_parts(self) -> tuple[str, ...]:
        """The ONNX file and the files that hold its weights; nothing if there is no such file."""
        return (self.onnx, *self.onnx_weights) if self.onnx else ()

    @property
    def names(self) -> tuple[str, ...]:
        """The names of the model in specs: its own, and its repository's unless that holds other models too."""
        return (self.name,) if self.zipped else (self.name, self.repository)

    @property
    def commercial(self) -> bool:
        """Whether the licence allows commercial use."""
        return "NC" not in self.licence

    @property
    def scale(self) -> str:
        """The formula for `relevance_score` from the raw score x."""
        if self.engine in (LISTWISE, COLBERT):
            return "(x + 1) / 2"
        shifted = f"x - {self.offset:g}" if self.offset else "x"
        return f"sigmoid({shifted if self.divisor == 1 else f'{shifted} / {self.divisor:g}'})"

    def row(self) -> dict[str, str]:
        """Return the model as a row of a table."""
        return {
            "spec": f"{self.family}:{self.name}",
            "engine": self.engine,
            "tokens": str(self.max_tokens or "as its files say"),
            "scale": self.scale,
            "languages": self.languages,
            "licence": self.licence,
            "card": f"https://huggingface.co/{self.repository}",
            "ONNX file": f"{self.onnx_repository}: {self.onnx}" if self.onnx_repository else self.onnx or "",
        }


_FILE = "onnx/model.onnx"


def _ms_marco(size: str) -> Recipe:
    name = f"ms-marco-{size}"
    return Recipe("ms-marco", name, f"cross-encoder/{name}", 512, "English", "Apache-2.0", _FILE)


def _mxbai(size: str) -> Recipe:
    name = f"mxbai-rerank-{size}-v1"
    return Recipe("mxbai", name, f"mixedbread-ai/{name}", 512, "English", "Apache-2.0", _FILE)


def _ettin(size: str) -> Recipe:
    name = f"ettin-reranker-{size}-v1"
    return Recipe("ettin", name, f"cross-encoder/{name}", 7999, "English", "Apache-2.0")


def _mxbai_v2(size: str, estimated_max: float) -> Recipe:
    """`sigmoid(score - estimated_max / 2)`: mxbai-rerank 0.1.6, estimated_max_cfg and sigmoid_normalize."""
    name = f"mxbai-rerank-{size}-v2"
    repository = f"mixedbread-ai/{name}"
    return Recipe(
        "mxbai", name, repository, 8192, "100+ languages", "Apache-2.0", offset=estimated_max / 2, template="mxbai"
    )


def _qwen3(size: str) -> Recipe:
    name = f"Qwen3-Reranker-{size}"
    return Recipe("qwen3", name, f"Qwen/{name}", 8192, "100+ languages", "Apache-2.0", template="qwen3")


def _qwen3_converted(size: str) -> Recipe:
    """A conversion to a classifier: its card, 2026-11-30."""
    name = f"Qwen3-Reranker-{size}-seq-cls"
    return Recipe("qwen3", name, f"tomaarsen/{name}", 8192, "100+ languages", "Apache-2.0", template="qwen3")


def _ctxl(size: str) -> Recipe:
    """Languages, licence and context as on its card, 2026-11-30; the context without the rest of the prompt."""
    name = f"ctxl-rerank-v2-instruct-multilingual-{size}"
    return Recipe("ctxl", name, f"ContextualAI/{name}", 32_512, "100+ languages", "CC-BY-NC-SA-4.0", template="ctxl")


def _zerank(name: str, licence: str) -> Recipe:
    repository = f"zeroentropy/{name}"
    return Recipe("zerank", name, repository, 32_512, "multilingual", licence, divisor=5.0, template="zerank")


def _flashrank(name: str, file: str, languages: str = "English") -> Recipe:
    """As in Config.py of flashrank 0.2.10. The licence is the repository's. `_Q` was quantized to int8 by its maker.

    Left out, as no encoders of pairs: rank-T5-flan (a T5), and rank_zephyr_7b_v1_full (listwise, in llama.cpp's
    format).
    """
    return Recipe(
        "flashrank", name, "prithivida/flashrank", 512, languages, "CC-BY-SA", file, native=False, zipped=True
    )


def _jina_listwise(name: str, query: int, document: int) -> Recipe:
    """The limits of its `rerank` (modeling.py of jina-reranker-v3; for v3.5 as in infinity's port)."""
    return Recipe(
        "jina",
        name,
        f"jinaai/{name}",
        131_072,
        "multilingual",
        "CC-BY-NC-4.0",
        query_tokens=query,
        document_tokens=document,
    )


def _encoder(
    repository: str, tokens: int | None, languages: str, licence: str, onnx: str | None = None, family: str = ""
) -> Recipe:
    """Card and file list of each repository on https://huggingface.co, read in November 2026.

    An ONNX file is named only where the list shows it as `onnx/model.onnx`.
    """
    name = repository.partition("/")[2]
    return Recipe(family or "cross-encoder", name, repository, tokens, languages, licence, onnx)


def _colbert(
    repository: str, tokens: int, languages: str, licence: str, onnx: str | None = None, *, native: bool = True
) -> Recipe:
    """The lengths are those of the cards (tokens of a document); the files of the model decide."""
    name = repository.partition("/")[2]
    return Recipe("colbert", name, repository, tokens, languages, licence, onnx, native=native)


MODELS: tuple[Recipe, ...] = (
    Recipe(
        "bge",
        "bge-reranker-v2-m3",
        "BAAI/bge-reranker-v2-m3",
        8192,
        "multilingual",
        "Apache-2.0",
        _FILE,
        # fastembed 0.9.1, onnx_text_cross_encoder.py: the same two files
        onnx_repository="onnx-community/bge-reranker-v2-m3-ONNX",
        onnx_weights=(f"{_FILE}_data",),
    ),
    Recipe("bge", "bge-reranker-base", "BAAI/bge-reranker-base", 512, "Chinese, English", "MIT", _FILE),
    Recipe("bge", "bge-reranker-large", "BAAI/bge-reranker-large", 512, "Chinese, English", "MIT"),
    Recipe(
        "bge",
        "bge-reranker-v2-gemma",
        "BAAI/bge-reranker-v2-gemma",
        7936,
        "multilingual",
        "Gemma",
        template="bge-gemma",
    ),
    _mxbai("base"),
    _mxbai("xsmall"),
    _mxbai("large"),
    _mxbai_v2("base", 9.0),
    _mxbai_v2("large", 12.0),
    Recipe(
        "jina",
        "jina-reranker-v1-turbo-en",
        "jinaai/jina-reranker-v1-turbo-en",
        8192,
        "English",
        "Apache-2.0",
        _FILE,
        native=False,
    ),
    Recipe(
        "jina",
        "jina-reranker-v1-tiny-en",
        "jinaai/jina-reranker-v1-tiny-en",
        8192,
        "English",
        "Apache-2.0",
        _FILE,
        native=False,
    ),
    Recipe(
        "jina",
        "jina-reranker-v2-base-multilingual",
        "jinaai/jina-reranker-v2-base-multilingual",
        1024,
        "multilingual",
        "CC-BY-NC-4.0",
        _FILE,
        native=False,
    ),
    _jina_listwise("jina-reranker-v3", 512, 2048),
    _jina_listwise("jina-reranker-v3.5", 1024, 8192),
    _qwen3("0.6B"),
    _qwen3("4B"),
    _qwen3("8B"),
    _qwen3_converted("0.6B"),
    _qwen3_converted("4B"),
    _qwen3_converted("8B"),
    _ctxl("1b"),
    _ctxl("2b"),
    _zerank("zerank-1-small", "Apache-2.0"),
    _zerank("zerank-1", "CC-BY-NC-4.0"),
    _zerank("zerank-2", "CC-BY-NC-4.0"),
    _ettin("32m"),
    _ettin("17m"),
    _ettin("68m"),
    _ettin("150m"),
    _ettin("400m"),
    _ettin("1b"),
    _ms_marco("MiniLM-L6-v2"),
    _ms_marco("MiniLM-L2-v2"),
    _ms_marco("MiniLM-L4-v2"),
    _ms_marco("MiniLM-L12-v2"),
    _ms_marco("TinyBERT-L2-v2"),
    _encoder("cross-encoder/mmarco-mMiniLMv2-L12-H384-v1", None, "15 languages", "Apache-2.0", family="ms-marco"),
    _encoder("Alibaba-NLP/gte-reranker-modernbert-base", 8192, "English", "Apache-2.0", _FILE),
    _encoder("ibm-granite/granite-embedding-reranker-english-r2", 8192, "English", "Apache-2.0"),
    _encoder("olaverse/mist-reranker-150m", None, "English", "Apache-2.0"),
    _encoder("cl-nagoya/ruri-v3-reranker-310m", None, "Japanese", "Apache-2.0"),
    _encoder("hotchpotch/japanese-reranker-xsmall-v2", None, "Japanese", "MIT"),
    _encoder("hotchpotch/japanese-reranker-cross-encoder-xsmall-v1", 512, "Japanese", "MIT"),
    _encoder("DiTy/cross-encoder-russian-msmarco", None, "Russian", "MIT"),
    _flashrank("ms-marco-TinyBERT-L-2-v2", "flashrank-TinyBERT-L-2-v2.onnx"),
    _flashrank("ms-marco-MiniLM-L-12-v2", "flashrank-MiniLM-L-12-v2_Q.onnx"),
    _flashrank("ms-marco-MultiBERT-L-12", "flashrank-MultiBERT-L12_Q.onnx", "100+ languages"),
    _flashrank("ce-esci-MiniLM-L12-v2", "flashrank-ce-esci-MiniLM-L12-v2_Q.onnx"),
    _flashrank("miniReranker_arabic_v1", "miniReranker_arabic_v1.onnx", "Arabic"),
    _colbert("answerdotai/answerai-colbert-small-v1", 512, "English", "Apache-2.0", "vespa_colbert.onnx"),
    _colbert("mixedbread-ai/mxbai-edge-colbert-v0-17m", 512, "English", "Apache-2.0"),
    _colbert("mixedbread-ai/mxbai-edge-colbert-v0-32m", 512, "English", "Apache-2.0"),
    _colbert("lightonai/LateOn", 300, "English", "Apache-2.0", "model.onnx"),
    _colbert("lightonai/mLateOn", 8192, "multilingual, code", "Apache-2.0", "model.onnx"),
    _colbert("lightonai/GTE-ModernColBERT-v1", 300, "English", "Apache-2.0"),
    _colbert("colbert-ir/colbertv2.0", 512, "English", "MIT", "model.onnx"),
    _colbert("jinaai/jina-colbert-v2", 8192, "multilingual", "CC-BY-NC-4.0", _FILE, native=False),
    _colbert("LiquidAI/LFM2-ColBERT-350M", 512, "8 languages", "LFM1.0 (free below 10 M$ of revenue)"),
)
"""Of every family the first is the default."""

_REFUSED = {
    "maidalun1020/bce-reranker-base_v1": (
        "its main branch holds pickled weights only (its file list, 2025), which can run code and are not read. Its "
        "branch refs/pr/1 holds safetensors: write sentence-transformers:maidalun1020/bce-reranker-base_v1 with "
        "revision = 'refs/pr/1'"
    ),
    "ContextualAI/ctxl-rerank-v2-instruct-multilingual-6b": (
        "it is a Mistral, and how its tokenizer begins a prompt could not be read. Name the 1b or the 2b, or use "
        "Contextual's API (contextual)"
    ),
    "nvidia/llama-nemotron-rerank-1b-v2": (
        "it reads one text, 'question:QUERY \\n \\n passage:DOCUMENT', in both directions, with code of its own, and "
        "no engine here does that. Serve it (vllm, with that prompt as its chat template, or nvidia-nim), or use "
        "NVIDIA's API (nvidia)"
    ),
}
"""Rerankers that users may look for, by repository, and why they are not offered; read on 2026-11-30."""
_MAIN_BRANCH_ONLY = {"maidalun1020/bce-reranker-base_v1"}
"""Those of which another revision may hold what is missing."""


def refusal(model: str, revision: str | None = None) -> str | None:
    """Return why a reranker is not offered, as the end of a sentence; `None` if nothing is known against it.

    Args:
        model: A repository, or its name alone.
        revision: The revision that the spec names.
    """
    for name, why in _REFUSED.items():
        if model.lower() in (name.lower(), name.partition("/")[2].lower()):
            return None if revision and name in _MAIN_BRANCH_ONLY else why
    return None


def find_recipe(family: str, model: str | None) -> Recipe:
    """Return the model of a family with this name or repository; the family's default for `None`.

    Logs once that a model is not for commercial use.

    Raises:
        ConfigError: The family has no such model.
    """
    known = [recipe for recipe in MODELS if recipe.family == family]
    recipe = known[0] if model is None else next((recipe for recipe in known if model in recipe.names), None)
    if recipe is None:
        if why := refusal(str(model)):
            raise ConfigError(f"{family} does not offer {model!r}: {why}.")
        names = ", ".join(recipe.name for recipe in known)
        raise ConfigError(
            f"{family} has no model {model!r}. Choose one of: {names}; or name a folder, or any model on the hub as "
            "sentence-transformers:org/name or onnx:org/name."
        )
    if not recipe.commercial and recipe.name not in _warned:
        _warned.add(recipe.name)
        _log.warning(
            "%s is licensed %s: not for commercial use without its maker's permission.", recipe.name, recipe.licence
        )
    return recipe
