"""What is known of each model, as data; `families` makes backends of it.

Sources: peers.md E1 and E2 (model cards and the makers' code, November 2026); ONNX files as in fastembed 0.9.1's list and
the repositories' file lists. A score is always the logit; `relevance_score` is its sigmoid.
"""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["CAUSAL", "LISTWISE", "MODELS", "ONNX", "TORCH", "Recipe"]

ONNX, TORCH, CAUSAL, LISTWISE = "onnx", "sentence-transformers", "causal-lm", "listwise"


@dataclass(frozen=True, slots=True)
class Recipe:
    """One model."""

    family: str
    name: str
    """What stands after the family's colon."""
    repository: str
    """`org/name` on the hub."""
    max_tokens: int
    languages: str
    licence: str
    onnx: str | None = None
    """The ONNX file that its repository ships."""
    offset: float = 0.0
    divisor: float = 1.0
    """Of the `logit` scale."""
    template: str | None = None
    """Of a language model that answers yes or no, the name of its prompt in `engine.templates`."""
    query_tokens: int | None = None
    document_tokens: int | None = None
    """Of a listwise model, what it reads of the query and of each document."""
    native: bool = True
    """Whether the torch engine can run it: a native architecture with safetensors."""
    zipped: bool = False
    """Whether its repository holds many models, and this one as `name.zip`: then `onnx` is the file inside."""

    @property
    def engine(self) -> str:
        """What runs it unless the spec says otherwise."""
        if self.template:
            return CAUSAL
        return LISTWISE if self.document_tokens else ONNX if self.onnx else TORCH

    @property
    def names(self) -> tuple[str, ...]:
        """What may stand after the family's colon: its name, or its repository where that is this model's only."""
        return (self.name,) if self.zipped else (self.name, self.repository)

    @property
    def commercial(self) -> bool:
        """Whether its licence allows commercial use."""
        return "NC" not in self.licence

    @property
    def scale(self) -> str:
        """How `relevance_score` comes of the raw score x."""
        if self.engine == LISTWISE:
            return "(x + 1) / 2"
        shifted = f"x - {self.offset:g}" if self.offset else "x"
        return f"sigmoid({shifted if self.divisor == 1 else f'{shifted} / {self.divisor:g}'})"

    def row(self) -> dict[str, str]:
        """Return it as a line of a table."""
        return {
            "spec": f"{self.family}:{self.name}",
            "engine": self.engine,
            "tokens": str(self.max_tokens),
            "scale": self.scale,
            "languages": self.languages,
            "licence": self.licence,
            "ONNX file": self.onnx or "",
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


def _zerank(name: str, licence: str) -> Recipe:
    repository = f"zeroentropy/{name}"
    return Recipe("zerank", name, repository, 32_512, "multilingual", licence, divisor=5.0, template="zerank")


def _flashrank(name: str, file: str, languages: str = "English") -> Recipe:
    """As flashrank 0.2.10's Config.py has them, licence included (of the repository as a whole); `_Q` is int8, by its maker.

    Left out, as no encoders of pairs: rank-T5-flan (a T5), and rank_zephyr_7b_v1_full (listwise, in llama.cpp's format).
    """
    return Recipe(
        "flashrank", name, "prithivida/flashrank", 512, languages, "CC-BY-SA", file, native=False, zipped=True
    )


def _jina_listwise(name: str, query: int, document: int) -> Recipe:
    """The sizes that its `rerank` cuts at (modeling.py of jina-reranker-v3; of v3.5 as infinity's port reads them off)."""
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


MODELS: tuple[Recipe, ...] = (
    Recipe("bge", "bge-reranker-v2-m3", "BAAI/bge-reranker-v2-m3", 8192, "multilingual", "Apache-2.0"),
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
    _flashrank("ms-marco-TinyBERT-L-2-v2", "flashrank-TinyBERT-L-2-v2.onnx"),
    _flashrank("ms-marco-MiniLM-L-12-v2", "flashrank-MiniLM-L-12-v2_Q.onnx"),
    _flashrank("ms-marco-MultiBERT-L-12", "flashrank-MultiBERT-L12_Q.onnx", "100+ languages"),
    _flashrank("ce-esci-MiniLM-L12-v2", "flashrank-ce-esci-MiniLM-L12-v2_Q.onnx"),
    _flashrank("miniReranker_arabic_v1", "miniReranker_arabic_v1.onnx", "Arabic"),
)
"""Of every family the first is the default."""
