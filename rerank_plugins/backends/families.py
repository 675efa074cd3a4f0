"""Local backends by name: the engines themselves, and each family of models as a preset over one of them."""

from __future__ import annotations

import logging
import re
from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any, ClassVar

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
from .causal_lm import CausalLM
from .listwise import Listwise
from .onnx import Onnx
from .recipes import CAUSAL, LISTWISE, MODELS, ONNX, TORCH, Recipe
from .sentence_transformers import SentenceTransformers

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
UNKNOWN_LENGTH = 512
"""Tokens that a model is taken to read as long as nobody has looked into its folder."""


def _torch(options: Mapping[str, Any]) -> bool:
    """Tell whether the options ask for what only the torch engine has."""
    return (
        options["runtime"] == "torch"
        or any(each not in (None, "cpu", "auto") for each in devices(options["device"]))
        or (options["dtype"] in ("bfloat16", "float16") and options["runtime"] != "openvino")
    )


def located(
    name: str, spec: str, choose: Any, options: Mapping[str, Any], more: Mapping[str, Any] | None = None
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
    return Repository(name, spec, choose, options["revision"], bool(options["local_files_only"]), more=more or {})


_COMMON = ("max_tokens", "batch_tokens", "device", "runtime", "dtype")
_ENGINES: dict[str, tuple[Any, tuple[str, ...]]] = {
    ONNX: (Onnx, ()),
    TORCH: (SentenceTransformers, ("trust_remote_code",)),
    CAUSAL: (CausalLM, ("template",)),
    LISTWISE: (Listwise, ("query_tokens", "document_tokens")),
}
"""The class of each engine, and the options that only it has."""


def looked_at(kind: str, options: Mapping[str, Any]) -> None:
    """Refuse what an engine does not offer now, and not once a model of gigabytes is there.

    Raises:
        ConfigError: A value is not offered.
        MissingExtra: The runtime is not installed.
    """
    _ENGINES[kind][0].asked(**{name: options[name] for name in _COMMON})


def run(kind: str, options: Mapping[str, Any], folder: Path) -> Backend:
    """Return an engine's backend over the model in a folder.

    Raises:
        ConfigError: It holds no such model.
    """
    engine, more = _ENGINES[kind]
    given = {name: options[name] for name in (*_COMMON, *more) if options[name] is not None}
    made: Backend = engine(str(folder), **given)
    return made


class OnnxByName(ByName):
    """`onnx:/folder` or `onnx:org/name`: the ONNX file that the repository ships, without torch."""

    def __init__(
        self,
        model: str | None = None,
        *,
        max_tokens: int | None = None,
        batch_tokens: int | None = None,
        device: str | None = None,
        runtime: str | None = None,
        dtype: str | None = None,
        revision: str | None = None,
        local_files_only: bool = False,
    ) -> None:
        """See `Onnx` for the options of the engine.

        Args:
            model: A folder, or `org/name` on the hub.
            max_tokens: Of query and document together; `None` is what the model's files say.
            batch_tokens: Of one batch.
            device: `cpu`.
            runtime: As the engine offers.
            dtype: As the engine offers.
            revision: Branch, tag or commit on the hub; `None` is `main`, and after the first use its commit of then.
            local_files_only: Ask no network.

        Raises:
            ConfigError: No model was named, or what is there is none.
        """
        options = {key: each for key, each in locals().items() if key not in ("self", "model", "__class__")}
        if not model:
            raise ConfigError(f"{self.name} needs a model: write {self.name}:/path/to/folder, or {self.name}:org/name.")
        looked_at(ONNX, options)
        where = located(model, f"{self.name}:{model}", onnx_files, options)
        declared = Capabilities(scale="logit", max_tokens=max_tokens or UNKNOWN_LENGTH)
        super().__init__(model, where, partial(run, ONNX, options), declared)


class TorchByName(ByName):
    """`sentence-transformers:/folder` or `sentence-transformers:org/name`: safetensors, on torch."""

    def __init__(
        self,
        model: str | None = None,
        *,
        max_tokens: int | None = None,
        batch_tokens: int | None = None,
        device: str | Sequence[str] | None = None,
        runtime: str | None = None,
        dtype: str | None = None,
        revision: str | None = None,
        local_files_only: bool = False,
        trust_remote_code: bool = False,
    ) -> None:
        """See `SentenceTransformers` for the options of the engine, `OnnxByName` for those of the hub.

        Args:
            model: A folder, or `org/name` on the hub.
            max_tokens: Of query and document together.
            batch_tokens: Of one batch.
            device: `cpu`, `cuda`, …, or a list of GPUs.
            runtime: `torch`.
            dtype: `float32`, `bfloat16`, `float16`, `auto`.
            revision: Branch, tag or commit on the hub.
            local_files_only: Ask no network.
            trust_remote_code: Run the repository's own code: only of a model on the hub, at a commit (40 digits).

        Raises:
            ConfigError: No model was named, what is there is none, or code without a pinned commit.
        """
        options = {key: each for key, each in locals().items() if key not in ("self", "model", "__class__")}
        if not model:
            raise ConfigError(f"{self.name} needs a model: write {self.name}:/path/to/folder, or {self.name}:org/name.")
        if trust_remote_code and (is_path(model) or not _COMMIT.fullmatch(revision or "")):
            raise ConfigError(
                "trust_remote_code runs code of the repository's, so it needs a model on the hub and its commit: set "
                "revision to the 40 digits of the one that you have read."
            )
        looked_at(TORCH, options)
        choose = partial(torch_files, code=trust_remote_code)
        more = {"sentence-transformers": {"trust_remote_code": True}} if trust_remote_code else {}
        where = located(model, f"{self.name}:{model}", choose, options, more)
        declared = Capabilities(scale="logit", max_tokens=max_tokens or UNKNOWN_LENGTH)
        super().__init__(model, where, partial(run, TORCH, options), declared)


class Family(ByName):
    """The models of one family: `bge`, `bge:bge-reranker-base`, `bge:BAAI/bge-reranker-base`, or a folder of one."""

    family: ClassVar[str]
    template: ClassVar[str | None] = None
    """The prompt of its language models, where it has some."""
    only_language_models: ClassVar[bool] = False

    def __init__(
        self,
        model: str | None = None,
        *,
        max_tokens: int | None = None,
        batch_tokens: int | None = None,
        device: str | Sequence[str] | None = None,
        runtime: str | None = None,
        dtype: str | None = None,
        revision: str | None = None,
        local_files_only: bool = False,
    ) -> None:
        """See `OnnxByName`; runs on the ONNX file where there is one, on torch where not, or where only torch can.

        Args:
            model: A name of the family's, or a folder; `None` is the default.
            max_tokens: Of query and document together; `None` is the recipe's.
            batch_tokens: Of one batch.
            device: `cpu`, or what torch knows, or a list of GPUs.
            runtime: `torch` asks for the torch engine.
            dtype: `bfloat16` and `float16` ask for it too, unless the runtime is `openvino`.
            revision: Branch, tag or commit on the hub.
            local_files_only: Ask no network.

        Raises:
            ConfigError: The family has no such model.
            MissingExtra: It needs torch, which is not installed.
        """
        options = {key: each for key, each in locals().items() if key not in ("self", "model", "__class__")}
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
        elif options["runtime"] == "torch":
            raise ConfigError(
                f"{self.name}:{recipe.name if recipe else model} runs from its ONNX file only: leave runtime out."
            )
        if kind == TORCH and (runtime in Onnx.runtimes or dtype == "int8"):
            raise ConfigError(
                f"{self.name}:{recipe.name if recipe else model} has no ONNX file, which that runtime or dtype needs: make one "
                f"with rerank-plugins export {recipe.repository if recipe else model} ./folder; name it {self.name}:./folder."
            )
        looked_at(kind, options)
        prompt = TEMPLATES[self.template] if kind == CAUSAL and self.template else None
        known = recipe or self._known(where)
        declared = Capabilities(
            scale="cosine" if kind == LISTWISE else "logit",
            max_tokens=max_tokens or (recipe.max_tokens if recipe else UNKNOWN_LENGTH),
            offset=known.offset if known else prompt.offset if prompt else 0.0,
            divisor=known.divisor if known else prompt.divisor if prompt else 1.0,
            max_query_tokens=known.query_tokens if known else None,
            max_document_tokens=known.document_tokens if known else None,
            listwise=kind == LISTWISE,
            instructions=kind in (CAUSAL, LISTWISE),
        )
        self._scale = declared
        beside = {
            "trust_remote_code": None,
            "template": self.template,
            "query_tokens": known.query_tokens if known else None,
            "document_tokens": known.document_tokens if known else None,
        }

        def make(folder: Path) -> Backend:
            longest = max_tokens
            if recipe and longest is None and kind != LISTWISE:  # what both the recipe and the files allow
                most = room(folder) if kind == CAUSAL else Limits.read(folder).max_tokens
                longest = min(recipe.max_tokens, most)
            return run(kind, options | beside | {"max_tokens": longest}, folder)

        super().__init__(recipe.name if recipe else str(model), where, make, declared)

    def _remote(self, recipe: Recipe, kind: str, options: Mapping[str, Any]) -> Path | Repository | Archive:
        spec = f"{self.name}:{recipe.name}"
        if recipe.zipped:
            where = {name: options[name] for name in ("revision", "local_files_only")}
            return Archive.of(recipe.repository, recipe.name, str(recipe.onnx), spec=spec, **where)
        more = {"runtime": "torch"} if kind != recipe.engine else {}
        return located(recipe.repository, spec, onnx_files if kind == ONNX else torch_files, options, more)

    def _kind(self, folder: Path, options: Mapping[str, Any]) -> str:
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
