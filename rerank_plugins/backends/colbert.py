"""Late-interaction models (ColBERT's kind): query and document are read apart, so a document's vectors can be kept."""

from __future__ import annotations

from functools import partial
from importlib.util import find_spec
from pathlib import Path
from typing import Annotated, Any, Literal

from ..core.devices import devices
from ..core.errors import ConfigError, MissingExtra
from ..core.file_paths import expand_user
from ..core.numeric import finite
from ..core.scorer import Backend
from ..core.types import Capabilities
from ..engine.files import has_onnx_file
from ..engine.hub import Repository, folder_or_repository, is_path, is_repository
from ..engine.hub_files import colbert_files
from ..engine.late_interaction.colbert import OnnxColBERT, TorchColBERT, VectorOptions
from ..engine.late_interaction.vector_file import VectorFile
from ..engine.model_backend import UNKNOWN_LENGTH, LazyBackend
from ..options import FilePath, LocalOptions, Number, Tokens, number
from .recipes import COLBERT, MODELS, Recipe, find_recipe

__all__ = ["ColBERT", "ColBERTOptions"]

CACHE_MB = 256
DISK_MB = 1024
DiskMegabytes = Annotated[float, *number(float, partial(finite, low=1.0, high=1e9), 1, 1e9)]
"""A number of megabytes of at least 1: less does not hold the vectors of a few documents."""


class ColBERTOptions(LocalOptions):
    """Options of a late-interaction model."""

    runtime: Literal["auto", "onnxruntime", "torch"] | None = None
    """`onnxruntime` runs the model's ONNX file, `torch` its safetensors. By default the ONNX file, if there is one."""
    dtype: Literal["float32", "auto", "bfloat16", "float16"] | None = None
    """Number format of the weights. `bfloat16` and `float16` select torch."""
    query_tokens: Tokens | None = None
    """Tokens that are read of a query, marker and special tokens included. By default what the model's settings say,
    often 32."""
    cache_mb: Number = CACHE_MB
    """Megabytes of document vectors to cache in memory for later queries; 0 turns the cache off."""
    cache_path: FilePath | None = None
    """Path of a SQLite file that caches document vectors for other processes and later starts. By default there is
    none. It holds no text, but vectors tell much about their text: protect it like the documents. In a configuration
    file a relative path is relative to that file's folder."""
    cache_disk_mb: DiskMegabytes = DISK_MB
    """Megabytes of document vectors in the file of `cache_path`, about; at least 1."""
    vectors: Literal["float32", "float16", "int8"] = "float32"
    """Number format of document vectors, cached or not: `float16` halves the cache and moves scores by less than 0.001;
    `int8` needs a quarter, and may change the order of close scores."""

    def for_vectors(self) -> VectorOptions:
        """Return the options of the vectors for the engine."""
        return VectorOptions(
            query_tokens=self.query_tokens,
            cache_bytes=int(self.cache_mb * 1_000_000),
            cache_path=None if self.cache_path is None else expand_user(self.cache_path, "cache_path"),
            disk_bytes=int(self.cache_disk_mb * 1_000_000),
            vector_format=self.vectors,
        )


class ColBERT(LazyBackend):
    """A late-interaction model: `colbert`, `colbert:LateOn`, `colbert:org/name`, or a folder.

    PyLate's, Stanford's and sentence-transformers' layouts are read. The raw score is the mean over the query's vectors
    of the best cosine with a vector of the document: MaxSim divided by their number. `relevance_score` is
    (raw + 1) / 2.
    """

    Options = ColBERTOptions

    def __init__(self, model: str | None = None, options: ColBERTOptions | None = None) -> None:
        """Take the name of a model, a repository of the hub, or a folder.

        The model runs from its ONNX file if there is one, and on torch if there is none or the options need torch.

        Args:
            model: A known model by name, any `org/name` on the hub, or a folder; `None` is the default.
            options: See `ColBERTOptions`.

        Raises:
            ConfigError: There is no such model, or an option is not offered for it.
            MissingExtra: The options need torch, which is not installed.
        """
        options = options or ColBERTOptions()
        torch_option = _torch_option(options)
        torch = torch_option is not None
        recipe = _known_model(model)
        if torch:
            if recipe is not None and not recipe.native:
                raise ConfigError(f"{self.name}:{recipe.name} runs only from its ONNX file: leave {torch_option} out.")
            _require_torch(self.name)
        engine: Any = TorchColBERT if torch else OnnxColBERT
        engine.check_options(**options.engine())  # before gigabytes are fetched
        vectors = options.for_vectors()
        if vectors.cache_path is not None:
            VectorFile.check_path(vectors.cache_path)
        source = _source(self.name, model, recipe, options, torch=torch)
        declared = Capabilities(
            scale="cosine",
            max_document_tokens=options.max_tokens or (recipe.max_tokens if recipe else None) or UNKNOWN_LENGTH,
        )

        def make(folder: Path) -> Backend:
            file = source.onnx_file() if isinstance(source, Repository) else None
            has_onnx = has_onnx_file(source) if isinstance(source, Path) else file is not None
            if options.runtime != "onnxruntime" and (torch or not has_onnx):
                _require_torch(self.name)
                return TorchColBERT(folder, vectors=vectors, **options.engine())
            return OnnxColBERT(folder, vectors=vectors, file=file, **options.engine())

        super().__init__(recipe.name if recipe else str(model), source, make, declared)


def _torch_option(options: ColBERTOptions) -> str | None:
    """Return the option that selects torch; `None` if none does."""
    if options.runtime in ("onnxruntime", "torch"):
        return "runtime" if options.runtime == "torch" else None
    if any(device not in (None, "cpu", "auto") for device in devices(options.device)):
        return "device"
    return "dtype" if options.dtype in ("bfloat16", "float16") else None


def _known_model(model: str | None) -> Recipe | None:
    """Return the recipe of a name or repository; `None` for a folder, and for any other repository on the hub.

    Raises:
        ConfigError: It is none of these.
    """
    if model is not None and is_path(model):
        return None
    if model is not None and is_repository(model) and not any(model in recipe.names for recipe in MODELS):
        return None
    return find_recipe(COLBERT, model)


def _source(
    name: str, model: str | None, recipe: Recipe | None, options: ColBERTOptions, *, torch: bool
) -> Path | Repository:
    where = recipe.repository if recipe else str(model)
    spec = f"{name}:{recipe.name if recipe else model}"
    runtime = "torch" if torch else options.runtime
    choose = partial(colbert_files, onnx=recipe.onnx if recipe else None, runtime=runtime)
    more = {"runtime": "torch"} if torch else {}
    return folder_or_repository(where, spec, choose, options.revision, options.local_files_only, more)


def _require_torch(name: str) -> None:
    if find_spec("torch") is None or find_spec("transformers") is None:
        raise MissingExtra(f"The backend {name!r}", extra="sentence-transformers", package="sentence_transformers")
