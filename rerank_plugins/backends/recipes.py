"""What is known of each model, as data; `families` makes backends of it.

Sources: peers.md E1 and E2 (model cards and the makers' code, November 2026); ONNX files as in fastembed 0.9.1's list and
the repositories' file lists. A score is always the logit; `relevance_score` is its sigmoid.
"""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["LATER", "MODELS", "ONNX", "TORCH", "Recipe"]

ONNX, TORCH, LATER = "onnx", "sentence-transformers", "not yet"


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
    instead: str | None = None
    """It needs an engine that is not there yet: what to use until then."""
    native: bool = True
    """Whether the torch engine can run it: a native architecture with safetensors."""

    @property
    def engine(self) -> str:
        """What runs it unless the spec says otherwise."""
        return LATER if self.instead else ONNX if self.onnx else TORCH

    @property
    def commercial(self) -> bool:
        """Whether its licence allows commercial use."""
        return "NC" not in self.licence

    def row(self) -> dict[str, str]:
        """Return it as a line of a table."""
        return {
            "spec": f"{self.family}:{self.name}",
            "engine": f"not yet: {self.instead}" if self.instead else self.engine,
            "tokens": str(self.max_tokens),
            "languages": self.languages,
            "licence": self.licence,
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


def _later(family: str, name: str, owner: str, longest: int, languages: str, licence: str, instead: str) -> Recipe:
    return Recipe(family, name, f"{owner}/{name}", longest, languages, licence, instead=instead)


MODELS: tuple[Recipe, ...] = (
    Recipe("bge", "bge-reranker-v2-m3", "BAAI/bge-reranker-v2-m3", 8192, "multilingual", "Apache-2.0"),
    Recipe("bge", "bge-reranker-base", "BAAI/bge-reranker-base", 512, "Chinese, English", "MIT", _FILE),
    Recipe("bge", "bge-reranker-large", "BAAI/bge-reranker-large", 512, "Chinese, English", "MIT"),
    _later("bge", "bge-reranker-v2-gemma", "BAAI", 8192, "multilingual", "Gemma", "bge:bge-reranker-v2-m3"),
    _mxbai("base"),
    _mxbai("xsmall"),
    _mxbai("large"),
    _later(
        "mxbai", "mxbai-rerank-base-v2", "mixedbread-ai", 8192, "100+ languages", "Apache-2.0", "mixedbread (hosted)"
    ),
    _later(
        "mxbai", "mxbai-rerank-large-v2", "mixedbread-ai", 8192, "100+ languages", "Apache-2.0", "mixedbread (hosted)"
    ),
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
    _later("jina", "jina-reranker-v3", "jinaai", 131_072, "multilingual", "CC-BY-NC-4.0", "jina-api (hosted)"),
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
)
"""Of every family the first is the default."""
