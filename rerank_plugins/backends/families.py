"""The families of local models, each a preset over the engines."""

from __future__ import annotations

import importlib.util
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any, ClassVar, Literal

from ..core.devices import devices
from ..core.errors import ConfigError, MissingExtra
from ..core.scorer import Backend
from ..core.types import Capabilities
from ..engine.archive import Archive
from ..engine.causal_lm.backend import CausalLM
from ..engine.causal_lm.model import text_tokens
from ..engine.causal_lm.templates import TEMPLATES
from ..engine.checkpoint import architecture
from ..engine.files import has_onnx_file
from ..engine.hub import Repository, folder_or_repository, is_path
from ..engine.hub_files import onnx_files, torch_files
from ..engine.listwise.backend import Listwise
from ..engine.listwise.model import ARCHITECTURE
from ..engine.model_backend import UNKNOWN_LENGTH, LazyBackend
from ..engine.onnx.cross_encoder import OnnxCrossEncoder
from ..engine.tokenizer import Limits
from ..engine.torch.cross_encoder import TorchCrossEncoder
from ..options import LocalOptions
from .recipes import CAUSAL, LISTWISE, MODELS, ONNX, TORCH, Recipe, find_recipe

__all__ = ["BGE", "Contextual", "CrossEncoders", "Ettin", "FlashRank", "Jina", "MSMarco", "Mxbai", "Qwen3", "Zerank"]

_ENGINES: dict[str, Any] = {ONNX: OnnxCrossEncoder, TORCH: TorchCrossEncoder, CAUSAL: CausalLM, LISTWISE: Listwise}


def _torch(options: LocalOptions) -> bool:
    """Tell whether the options need the torch engine."""
    return (
        options.runtime == "torch"
        or any(device not in (None, "cpu", "auto") for device in devices(options.device))
        or (options.dtype in ("bfloat16", "float16") and options.runtime != "openvino")
    )


def _has_torch() -> bool:
    return importlib.util.find_spec("sentence_transformers") is not None


def _engine_of(recipe: Recipe, options: LocalOptions) -> str:
    """Return the engine that runs a known model with these options."""
    if _torch(options):
        return TORCH if recipe.native and recipe.engine == ONNX else recipe.engine
    selects_onnx = options.runtime in OnnxCrossEncoder.runtimes or options.dtype == "int8"
    return ONNX if recipe.onnx_repository and (selects_onnx or not _has_torch()) else recipe.engine


class FamilyOptions(LocalOptions):
    """Options of a family of models. The model and these options decide which engine runs it."""

    runtime: Literal["auto", "onnxruntime", "openvino", "torch"] | None = None
    """`torch` selects the torch engine; `onnxruntime` or `openvino` runs the ONNX file, if there is one."""
    dtype: Literal["float32", "auto", "bfloat16", "float16", "int8"] | None = None
    """`bfloat16` and `float16` select torch, unless the runtime is `openvino`; `int8` selects OpenVINO."""


class Family(LazyBackend):
    """The models of one family: `bge`, `bge:bge-reranker-base`, `bge:BAAI/bge-reranker-base`, or a folder of one."""

    Options = FamilyOptions
    family: ClassVar[str]
    template: ClassVar[str | None] = None
    """The prompt template of the family's language models, if it has some."""
    only_language_models: ClassVar[bool] = False

    def __init__(self, model: str | None = None, options: FamilyOptions | None = None) -> None:
        """Take the name of a model or a folder.

        The model runs from its ONNX file if there is one, and on torch if there is none or the options need torch.

        Args:
            model: A model of the family, by name or hub repository, or a folder; `None` is the family's default.
            options: See `FamilyOptions`.

        Raises:
            ConfigError: The family has no such model, or an option is not offered for it.
            MissingExtra: The model needs torch, which is not installed.
        """
        options = options or FamilyOptions()
        recipe = None if model and is_path(model) else find_recipe(self.family, model)
        source: Path | Repository | Archive
        if recipe is None:
            source = Path(str(model)).expanduser()
            kind = self._engine_for(source, options)
        else:
            kind = _engine_of(recipe, options)
            source = self._source_of(recipe, kind, options)
        if kind != ONNX:
            _require_torch(self.name)
        elif options.runtime == "torch":
            raise ConfigError(
                f"{self.name}:{recipe.name if recipe else model} runs only from its ONNX file: leave runtime out."
            )
        if kind == TORCH and (options.runtime in OnnxCrossEncoder.runtimes or options.dtype == "int8"):
            raise ConfigError(
                f"{self.name}:{recipe.name if recipe else model} has no ONNX file, which that runtime or dtype needs: "
                f"make one "
                f"with rerank-plugins export {recipe.repository if recipe else model} ./folder; name it "
                f"{self.name}:./folder."
            )
        engine = _ENGINES[kind]
        engine.check_options(**options.engine())  # before gigabytes are fetched
        prompt = TEMPLATES[self.template] if kind == CAUSAL and self.template else None
        known, length = recipe or self._recipe_of_folder(source), recipe.max_tokens if recipe else None
        declared = Capabilities(
            scale="cosine" if kind == LISTWISE else "logit",
            max_tokens=options.max_tokens or length or UNKNOWN_LENGTH,
            offset=known.offset if known else prompt.offset if prompt else 0.0,
            divisor=known.divisor if known else prompt.divisor if prompt else 1.0,
            max_query_tokens=known.query_tokens if known else None,
            max_document_tokens=known.document_tokens if known else None,
            listwise=kind == LISTWISE,
            instructions=kind in (CAUSAL, LISTWISE),
        )
        self._scale = declared
        own: dict[str, Any] = {}
        if kind == CAUSAL:
            own = {"template": self.template}
        elif kind == ONNX and recipe and recipe.onnx and not recipe.zipped:
            own = {"file": Path(recipe.onnx)}  # others may have fetched more ONNX files into the same folder
        elif kind == LISTWISE and known is not None:
            own = {"query_tokens": known.query_tokens, "document_tokens": known.document_tokens}

        def make(folder: Path) -> Backend:
            longest = options.max_tokens
            if recipe and longest is None and kind != LISTWISE:  # the lower limit of the recipe and of the files
                limit = text_tokens(folder) if kind == CAUSAL else Limits.read(folder).longest(None)
                longest = min(length or limit, limit)
            file = {"file": source.onnx_file()} if kind == ONNX and not isinstance(source, Path) else {}
            backend: Backend = engine(folder, **options.engine() | {"max_tokens": longest}, **{**file, **own})
            return backend

        super().__init__(recipe.name if recipe else str(model), source, make, declared)

    def _source_of(self, recipe: Recipe, kind: str, options: LocalOptions) -> Path | Repository | Archive:
        spec = f"{self.name}:{recipe.name}"
        if recipe.zipped:
            return Archive.of(
                recipe.repository,
                recipe.name,
                str(recipe.onnx),
                spec=spec,
                revision=options.revision,
                local_files_only=options.local_files_only,
            )
        more = {"runtime": "torch" if kind == TORCH else "onnxruntime"} if kind != recipe.engine else {}
        onnx = kind == ONNX
        repository = recipe.onnx_repository if onnx and recipe.onnx_repository else recipe.repository
        choose = partial(onnx_files, known=recipe.onnx_parts) if onnx else partial(torch_files)
        return folder_or_repository(repository, spec, choose, options.revision, options.local_files_only, more)

    def _engine_for(self, folder: Path, options: LocalOptions) -> str:
        """Return the engine that runs the model in a folder."""
        named = architecture(folder) if folder.is_dir() else ""
        known = TEMPLATES[self.template].architectures if self.template else ()
        if self.only_language_models or named in known or (known and named.endswith("ForCausalLM")):
            return CAUSAL
        if named == ARCHITECTURE:
            return LISTWISE
        return TORCH if _torch(options) or not has_onnx_file(folder) else ONNX

    def _wrap(self, backend: Backend) -> None:
        super()._wrap(backend)
        scale = self._scale
        self.capabilities = replace(backend.capabilities, offset=scale.offset, divisor=scale.divisor)

    def _recipe_of_folder(self, folder: Path | Repository | Archive) -> Recipe | None:
        """Return the recipe whose name occurs in a folder's path (`…/mxbai-rerank-base-v2`, a hub's cache), or `None`.

        The folder's files do not say how large a score can be (mxbai v2), nor how much of a text is read (jina v3 and
        v3.5).
        """
        parts = folder.parts if isinstance(folder, Path) else ()
        named = [
            recipe for recipe in MODELS if recipe.family == self.family and any(recipe.name in part for part in parts)
        ]
        return max(named, key=lambda recipe: len(recipe.name), default=None)


def _require_torch(name: str) -> None:
    if not _has_torch():
        raise MissingExtra(f"The backend {name!r}", extra="sentence-transformers", package="sentence_transformers")


class BGE(Family):
    """BAAI: XLM-R, `<s> q </s></s> d </s>`; and a Gemma."""

    family = "bge"
    template = "bge-gemma"


class Mxbai(Family):
    """Mixedbread v1: DeBERTa-v2; v2: Qwen2."""

    family = "mxbai"
    template = "mxbai"


class Qwen3(Family):
    """Qwen3-Reranker: "yes" against "no"; and its conversions to a classifier."""

    family = "qwen3"
    template = "qwen3"
    only_language_models = True


class Zerank(Family):
    """ZeroEntropy: Qwen3, the logit of "Yes"."""

    family = "zerank"
    template = "zerank"
    only_language_models = True


class Contextual(Family):
    """Contextual's v2: Qwen3, the logit of the vocabulary's first token."""

    family = "ctxl"
    template = "ctxl"
    only_language_models = True


class CrossEncoders(Family):
    """Encoders of other makers: BERT, XLM-R, ModernBERT."""

    family = "cross-encoder"


class Jina(Family):
    """Jina's v1 (JinaBERT) and v2 (XLM-R) as ONNX files (on torch they need remote code); v3 is listwise."""

    family = "jina"


class Ettin(Family):
    """Ettin: ModernBERT, first token, Dense, LayerNorm, Dense."""

    family = "ettin"


class MSMarco(Family):
    """The cross-encoders of sentence-transformers trained on MS MARCO, or on its translation mMARCO."""

    family = "ms-marco"


class FlashRank(Family):
    """The models of the flashrank package, from its author's zip files; or a folder that the package has unpacked."""

    family = "flashrank"
