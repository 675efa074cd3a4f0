"""Local backends by name: the engines themselves, and each family of models as a preset over one of them."""

from __future__ import annotations

import logging
import re
from collections.abc import Mapping
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any, ClassVar, Literal

from pydantic import ValidationInfo, field_validator

from ..core.devices import devices
from ..core.errors import ConfigError, MissingExtra
from ..core.scorer import Backend
from ..core.types import Capabilities
from ..engine.archive import Archive
from ..engine.by_name import ByName, is_path, is_repository
from ..engine.causal_load import architecture, room
from ..engine.hub import Repository, onnx_files, torch_files
from ..engine.limits import Limits
from ..engine.listwise_model import ARCHITECTURE
from ..engine.templates import TEMPLATES
from ..options import LocalOptions, refused
from .causal_lm import CausalLM
from .listwise import Listwise
from .onnx import Onnx, OnnxOptions
from .recipes import CAUSAL, LISTWISE, MODELS, ONNX, TORCH, Recipe
from .sentence_transformers import SentenceTransformers, SentenceTransformersOptions

__all__ = [
    "BGE",
    "UNKNOWN_LENGTH",
    "Ettin",
    "FlashRank",
    "Jina",
    "MSMarco",
    "Mxbai",
    "OnnxByName",
    "Qwen3",
    "TorchByName",
    "Zerank",
    "located",
    "looked_at",
    "run",
]

_log = logging.getLogger("rerank_plugins")
_warned: set[str] = set()
_COMMIT = re.compile(r"[0-9a-f]{40}")
_PIN = (
    "runs code of the repository's, so it needs a model on the hub and its commit: set revision to the 40 digits of the "
    "one that you have read"
)
UNKNOWN_LENGTH = 512
"""Tokens that a model is taken to read as long as nobody has looked into its folder."""


def _torch(options: LocalOptions) -> bool:
    """Tell whether the options ask for what only the torch engine has."""
    return (
        options.runtime == "torch"
        or any(each not in (None, "cpu", "auto") for each in devices(options.device))
        or (options.dtype in ("bfloat16", "float16") and options.runtime != "openvino")
    )


def located(
    name: str, spec: str, choose: Any, options: LocalOptions, more: Mapping[str, Any] | None = None
) -> Path | Repository:
    """Return the folder that a model's name means, or where on the hub it is.

    Args:
        name: A folder, or `org/name`.
        spec: What fetches it.
        choose: See `Repository`.
        options: Of the backend.
        more: See `Repository`.

    Raises:
        ConfigError: It is written like neither.
    """
    if is_path(name):
        return Path(name).expanduser()
    if not is_repository(name):
        raise ConfigError(
            f"{name!r} is neither a folder nor a hub's org/name: write {spec.partition(':')[0]}:/path/to/folder."
        )
    return Repository(name, spec, choose, options.revision, options.local_files_only, more=more or {})


_ENGINES: dict[str, Any] = {ONNX: Onnx, TORCH: SentenceTransformers, CAUSAL: CausalLM, LISTWISE: Listwise}


def looked_at(kind: str, options: LocalOptions) -> None:
    """Refuse what an engine does not offer now, and not once a model of gigabytes is there.

    Raises:
        ConfigError: A value is not offered.
        MissingExtra: The runtime is not installed.
    """
    _ENGINES[kind].asked(**options.engine())


def run(kind: str, options: LocalOptions, folder: Path, **own: Any) -> Backend:
    """Return an engine's backend over the model in a folder; `own` are options that only this engine has.

    Raises:
        ConfigError: It holds no such model.
    """
    engine = _ENGINES[kind]
    made: Backend = engine(str(folder), options.converted(engine.Options, **own))
    return made


class OnnxByName(ByName):
    """`onnx:/folder` or `onnx:org/name`: the ONNX file that the repository ships, without torch."""

    Options = OnnxOptions

    def __init__(self, model: str | None = None, options: OnnxOptions | None = None) -> None:
        """Name a folder, or `org/name` on the hub.

        Raises:
            ConfigError: No model was named, or what is there is none.
        """
        options = options or OnnxOptions()
        if not model:
            raise ConfigError(f"{self.name} needs a model: write {self.name}:/path/to/folder, or {self.name}:org/name.")
        looked_at(ONNX, options)
        where = located(model, f"{self.name}:{model}", onnx_files, options)
        declared = Capabilities(scale="logit", max_tokens=options.max_tokens or UNKNOWN_LENGTH)
        super().__init__(model, where, partial(run, ONNX, options), declared)


class TorchByNameOptions(SentenceTransformersOptions):
    """Options of a cross-encoder on torch, by name."""

    @field_validator("trust_remote_code")
    @classmethod
    def _pinned(cls, value: bool, info: ValidationInfo) -> bool:
        if value and not _COMMIT.fullmatch(info.data.get("revision") or ""):
            raise refused(_PIN)
        return value


class TorchByName(ByName):
    """`sentence-transformers:/folder` or `sentence-transformers:org/name`: safetensors, on torch."""

    Options = TorchByNameOptions

    def __init__(self, model: str | None = None, options: TorchByNameOptions | None = None) -> None:
        """Name a folder, or `org/name` on the hub.

        Raises:
            ConfigError: No model was named, what is there is none, or code of a folder's.
        """
        options = options or TorchByNameOptions()
        if not model:
            raise ConfigError(f"{self.name} needs a model: write {self.name}:/path/to/folder, or {self.name}:org/name.")
        trusted = options.trust_remote_code
        if trusted and is_path(model):
            raise ConfigError(f"trust_remote_code {_PIN}.")
        looked_at(TORCH, options)
        choose = partial(torch_files, code=trusted)
        more = {"sentence-transformers": {"trust_remote_code": True}} if trusted else {}
        where = located(model, f"{self.name}:{model}", choose, options, more)
        declared = Capabilities(scale="logit", max_tokens=options.max_tokens or UNKNOWN_LENGTH)
        super().__init__(model, where, partial(run, TORCH, options), declared)


class FamilyOptions(LocalOptions):
    """Options of the families of models: which engine runs one depends on the model, and on these."""

    runtime: Literal["auto", "onnxruntime", "openvino", "torch"] | None = None
    """`torch` asks for the torch engine; `onnxruntime` or `openvino` runs the ONNX file, where there is one."""
    dtype: Literal["float32", "auto", "bfloat16", "float16", "int8"] | None = None
    """`bfloat16` and `float16` ask for torch, unless the runtime is `openvino`; `int8` is OpenVINO's."""


class Family(ByName):
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
        if kind == TORCH and (options.runtime in Onnx.runtimes or options.dtype == "int8"):
            raise ConfigError(
                f"{self.name}:{recipe.name if recipe else model} has no ONNX file, which that runtime or dtype needs: make one "
                f"with rerank-plugins export {recipe.repository if recipe else model} ./folder; name it {self.name}:./folder."
            )
        looked_at(kind, options)
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
                most = room(folder) if kind == CAUSAL else Limits.read(folder).max_tokens
                longest = min(recipe.max_tokens, most)
            return run(kind, options, folder, max_tokens=longest, **own)

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
        return located(recipe.repository, spec, onnx_files if kind == ONNX else torch_files, options, more)

    def _kind(self, folder: Path, options: LocalOptions) -> str:
        """Return what runs the model in a folder."""
        named = architecture(folder) if folder.is_dir() else ""
        if self.only_language_models or (self.template and named.endswith("ForCausalLM")):
            return CAUSAL
        if named == ARCHITECTURE:
            return LISTWISE
        onnx = any(folder.glob("*.onnx")) or any(folder.glob("onnx/*.onnx"))
        return TORCH if _torch(options) or not onnx else ONNX

    def _placed(self, folder: Path) -> Backend:
        inner = super()._placed(folder)
        scale = self._scale
        self.capabilities = replace(inner.capabilities, offset=scale.offset, divisor=scale.divisor)
        return inner

    def _known(self, folder: Path | Repository | Archive) -> Recipe | None:
        """Return the recipe that a folder's path names (`…/mxbai-rerank-base-v2`, a hub's cache), whatever its files cannot tell.

        That is how large a score there can be (mxbai v2), and how much is read of a text (jina v3 and v3.5).
        """
        parts = folder.parts if isinstance(folder, Path) else ()
        named = [each for each in MODELS if each.family == self.family and any(each.name in part for part in parts)]
        return max(named, key=lambda recipe: len(recipe.name), default=None)

    def _recipe(self, model: str | None) -> Recipe:
        known = [recipe for recipe in MODELS if recipe.family == self.family]
        found = known[0] if model is None else next((each for each in known if model in each.names), None)
        if found is None:
            names = ", ".join(recipe.name for recipe in known)
            raise ConfigError(
                f"{self.family} has no model {model!r}. Choose one of: {names}; or name a folder, or any hub's model as "
                "sentence-transformers:org/name or onnx:org/name."
            )
        if not found.commercial and found.name not in _warned:
            _warned.add(found.name)
            _log.warning(
                "%s is licensed %s: not for commercial use without its maker's leave.", found.name, found.licence
            )
        return found


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
