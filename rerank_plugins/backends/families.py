"""Each family of local models, as a preset over one of the engines."""

from __future__ import annotations

import logging
from dataclasses import replace
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
from ..engine.hub import Repository, onnx_files, torch_files
from ..engine.lazy import UNKNOWN_LENGTH, LazyBackend, is_path, located
from ..engine.listwise.backend import Listwise
from ..engine.listwise.model import ARCHITECTURE
from ..engine.onnx.backend import OnnxCrossEncoder
from ..engine.tokenizer import Limits
from ..engine.torch.backend import TorchCrossEncoder
from ..options import LocalOptions
from .recipes import CAUSAL, LISTWISE, MODELS, ONNX, TORCH, Recipe

__all__ = ["BGE", "Ettin", "FlashRank", "Jina", "MSMarco", "Mxbai", "Qwen3", "Zerank"]

_log = logging.getLogger("rerank_plugins")
_warned: set[str] = set()
_ENGINES: dict[str, Any] = {ONNX: OnnxCrossEncoder, TORCH: TorchCrossEncoder, CAUSAL: CausalLM, LISTWISE: Listwise}


def _torch(options: LocalOptions) -> bool:
    """Tell whether the options ask for what only the torch engine has."""
    return (
        options.runtime == "torch"
        or any(each not in (None, "cpu", "auto") for each in devices(options.device))
        or (options.dtype in ("bfloat16", "float16") and options.runtime != "openvino")
    )


class FamilyOptions(LocalOptions):
    """Options of the families of models: which engine runs one depends on the model, and on these."""

    runtime: Literal["auto", "onnxruntime", "openvino", "torch"] | None = None
    """`torch` asks for the torch engine; `onnxruntime` or `openvino` runs the ONNX file, where there is one."""
    dtype: Literal["float32", "auto", "bfloat16", "float16", "int8"] | None = None
    """`bfloat16` and `float16` ask for torch, unless the runtime is `openvino`; `int8` is OpenVINO's."""


class Family(LazyBackend):
    """The models of one family: `bge`, `bge:bge-reranker-base`, `bge:BAAI/bge-reranker-base`, or a folder of one."""

    Options = FamilyOptions
    family: ClassVar[str]
    template: ClassVar[str | None] = None
    """The prompt of its language models, where it has some."""
    only_language_models: ClassVar[bool] = False

    def __init__(self, model: str | None = None, options: FamilyOptions | None = None) -> None:
        """Name a model of the family's, or a folder; `None` is the default.

        It runs on the ONNX file where there is one, on torch where not, or where only torch can.

        Raises:
            ConfigError: The family has no such model.
            MissingExtra: It needs torch, which is not installed.
        """
        options = options or FamilyOptions()
        recipe = None if model and is_path(model) else self._recipe(model)
        where: Path | Repository | Archive
        if recipe is None:
            where = Path(str(model)).expanduser()
            kind = self._kind(where, options)
        else:
            kind = TORCH if recipe.engine == ONNX and recipe.native and _torch(options) else recipe.engine
            where = self._remote(recipe, kind, options)
        if kind != ONNX:
            _need_torch(self.name)
        elif options.runtime == "torch":
            raise ConfigError(
                f"{self.name}:{recipe.name if recipe else model} runs from its ONNX file only: leave runtime out."
            )
        if kind == TORCH and (options.runtime in OnnxCrossEncoder.runtimes or options.dtype == "int8"):
            raise ConfigError(
                f"{self.name}:{recipe.name if recipe else model} has no ONNX file, which that runtime or dtype needs: make one "
                f"with rerank-plugins export {recipe.repository if recipe else model} ./folder; name it {self.name}:./folder."
            )
        engine = _ENGINES[kind]
        engine.check_options(**options.engine())  # now, and not once a model of gigabytes is there
        prompt = TEMPLATES[self.template] if kind == CAUSAL and self.template else None
        known = recipe or self._known(where)
        declared = Capabilities(
            scale="cosine" if kind == LISTWISE else "logit",
            max_tokens=options.max_tokens or (recipe.max_tokens if recipe else UNKNOWN_LENGTH),
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
        elif kind == LISTWISE and known is not None:
            own = {"query_tokens": known.query_tokens, "document_tokens": known.document_tokens}

        def make(folder: Path) -> Backend:
            longest = options.max_tokens
            if recipe and longest is None and kind != LISTWISE:  # what both the recipe and the files allow
                limit = text_tokens(folder) if kind == CAUSAL else Limits.read(folder).max_tokens
                longest = min(recipe.max_tokens, limit)
            backend: Backend = engine(folder, **options.engine() | {"max_tokens": longest}, **own)
            return backend

        super().__init__(recipe.name if recipe else str(model), where, make, declared)

    def _remote(self, recipe: Recipe, kind: str, options: LocalOptions) -> Path | Repository | Archive:
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
        more = {"runtime": "torch"} if kind != recipe.engine else {}
        choose = onnx_files if kind == ONNX else torch_files
        return located(recipe.repository, spec, choose, options.revision, options.local_files_only, more)

    def _kind(self, folder: Path, options: LocalOptions) -> str:
        """Return what runs the model in a folder."""
        named = architecture(folder) if folder.is_dir() else ""
        if self.only_language_models or (self.template and named.endswith("ForCausalLM")):
            return CAUSAL
        if named == ARCHITECTURE:
            return LISTWISE
        onnx = any(folder.glob("*.onnx")) or any(folder.glob("onnx/*.onnx"))
        return TORCH if _torch(options) or not onnx else ONNX

    def _wrap(self, backend: Backend) -> None:
        super()._wrap(backend)
        scale = self._scale
        self.capabilities = replace(backend.capabilities, offset=scale.offset, divisor=scale.divisor)

    def _known(self, folder: Path | Repository | Archive) -> Recipe | None:
        """Return the recipe that a folder's path names (`…/mxbai-rerank-base-v2`, a hub's cache), whatever its files cannot tell.

        That is how large a score there can be (mxbai v2), and how much is read of a text (jina v3 and v3.5).
        """
        parts = folder.parts if isinstance(folder, Path) else ()
        named = [
            recipe for recipe in MODELS if recipe.family == self.family and any(recipe.name in part for part in parts)
        ]
        return max(named, key=lambda recipe: len(recipe.name), default=None)

    def _recipe(self, model: str | None) -> Recipe:
        known = [recipe for recipe in MODELS if recipe.family == self.family]
        recipe = known[0] if model is None else next((each for each in known if model in each.names), None)
        if recipe is None:
            names = ", ".join(recipe.name for recipe in known)
            raise ConfigError(
                f"{self.family} has no model {model!r}. Choose one of: {names}; or name a folder, or any hub's model as "
                "sentence-transformers:org/name or onnx:org/name."
            )
        if not recipe.commercial and recipe.name not in _warned:
            _warned.add(recipe.name)
            _log.warning(
                "%s is licensed %s: not for commercial use without its maker's leave.", recipe.name, recipe.licence
            )
        return recipe


def _need_torch(name: str) -> None:
    import importlib.util

    if importlib.util.find_spec("sentence_transformers") is None:
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
    """Qwen3-Reranker: "yes" against "no"."""

    family = "qwen3"
    template = "qwen3"
    only_language_models = True


class Zerank(Family):
    """ZeroEntropy: Qwen3, the logit of "Yes"."""

    family = "zerank"
    template = "zerank"
    only_language_models = True


class Jina(Family):
    """Jina v1 (JinaBERT) and v2 (XLM-R) from their ONNX files, since their code is remote; v3 (Qwen3), listwise."""

    family = "jina"


class Ettin(Family):
    """Ettin: ModernBERT, first token, Dense, LayerNorm, Dense."""

    family = "ettin"


class MSMarco(Family):
    """The cross-encoders of sentence-transformers trained on MS MARCO."""

    family = "ms-marco"


class FlashRank(Family):
    """The encoders of the flashrank package, from its author's zip files; or a folder that the package has unpacked."""

    family = "flashrank"
