"""Local backends by name: the engines themselves, and each family of models as a preset over one of them."""

from __future__ import annotations

import logging
import re
from collections.abc import Mapping
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any, ClassVar

from ..core.errors import ConfigError, MissingExtra
from ..core.scorer import Backend
from ..core.types import Capabilities
from ..engine.by_name import ByName, is_path, is_repository
from ..engine.hub import Repository, onnx_files, torch_files
from ..engine.limits import Limits
from .onnx import Onnx
from .recipes import MODELS, Recipe
from .sentence_transformers import SentenceTransformers

__all__ = ["BGE", "Ettin", "FlashRank", "Jina", "MSMarco", "Mxbai", "OnnxByName", "TorchByName"]

_log = logging.getLogger("rerank_plugins")
_warned: set[str] = set()
_COMMIT = re.compile(r"[0-9a-f]{40}")
_SMALL = "ms-marco:ms-marco-MiniLM-L6-v2"
UNKNOWN_LENGTH = 512


def _options(given: Mapping[str, Any], *names: str) -> dict[str, Any]:
    return {name: given[name] for name in names if given[name] is not None}


def _torch(options: Mapping[str, Any]) -> bool:
    """Tell whether the options ask for what only the torch engine has."""
    return (
        options["runtime"] == "torch"
        or options["device"] not in (None, "cpu", "auto")
        or (options["dtype"] in ("bfloat16", "float16") and options["runtime"] != "openvino")
    )


def _where(name: str, spec: str, choose: Any, options: Mapping[str, Any]) -> Path | Repository:
    if is_path(name):
        return Path(name).expanduser()
    if not is_repository(name):
        raise ConfigError(
            f"{name!r} is neither a folder nor a hub's org/name: write {spec.partition(':')[0]}:/path/to/folder."
        )
    return Repository(name, spec, choose, options["revision"], bool(options["local_files_only"]))


_ENGINE_OPTIONS = ("max_tokens", "batch_tokens", "device", "runtime", "dtype")


def _onnx(options: Mapping[str, Any], folder: Path) -> Backend:
    return Onnx(str(folder), **_options(options, *_ENGINE_OPTIONS))


def _sentence_transformers(options: Mapping[str, Any], folder: Path) -> Backend:
    if (folder / "config.json").is_file() and not any(folder.glob("*.safetensors")) and any(folder.glob("**/*.onnx")):
        raise ConfigError(f"{folder} holds an ONNX file and no safetensors: use onnx:{folder}.")
    return SentenceTransformers(str(folder), **_options(options, *_ENGINE_OPTIONS, "trust_remote_code"))


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
        where = _where(model, f"{self.name}:{model}", onnx_files, options)
        declared = Capabilities(scale="logit", max_tokens=max_tokens or UNKNOWN_LENGTH)
        super().__init__(model, where, partial(_onnx, options), declared)


class TorchByName(ByName):
    """`sentence-transformers:/folder` or `sentence-transformers:org/name`: safetensors, on torch."""

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
        trust_remote_code: bool = False,
    ) -> None:
        """See `SentenceTransformers` for the options of the engine, `OnnxByName` for those of the hub.

        Args:
            model: A folder, or `org/name` on the hub.
            max_tokens: Of query and document together.
            batch_tokens: Of one batch.
            device: `cpu`, `cuda`, …
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
        where = _where(model, f"{self.name}:{model}", partial(torch_files, code=trust_remote_code), options)
        declared = Capabilities(scale="logit", max_tokens=max_tokens or UNKNOWN_LENGTH)
        super().__init__(model, where, partial(_sentence_transformers, options), declared)


class Family(ByName):
    """The models of one family: `bge`, `bge:bge-reranker-base`, `bge:BAAI/bge-reranker-base`, or a folder of one."""

    family: ClassVar[str]

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
        """See `OnnxByName`; runs on the ONNX file where there is one, on torch where not, or where only torch can.

        Args:
            model: A name of the family's, or a folder; `None` is the default.
            max_tokens: Of query and document together; `None` is the recipe's.
            batch_tokens: Of one batch.
            device: `cpu`, or what torch knows.
            runtime: `torch` asks for the torch engine.
            dtype: `bfloat16` and `float16` ask for it too, unless the runtime is `openvino`.
            revision: Branch, tag or commit on the hub.
            local_files_only: Ask no network.

        Raises:
            ConfigError: The family has no such model, or not yet.
            MissingExtra: It needs torch, which is not installed.
        """
        options = {key: each for key, each in locals().items() if key not in ("self", "model", "__class__")}
        recipe = None if model and is_path(model) else self._recipe(model)
        where: Path | Repository
        if recipe is None:
            where = folder = Path(str(model)).expanduser()
            torch = _torch(options) or not (any(folder.glob("*.onnx")) or any(folder.glob("onnx/*.onnx")))
        else:
            torch = recipe.native and (recipe.onnx is None or _torch(options))
            where = _where(
                recipe.repository, f"{self.name}:{recipe.name}", torch_files if torch else onnx_files, options
            )
        if torch:
            _need_torch(self.name)
        elif options["runtime"] == "torch":
            raise ConfigError(f"{self.name}:{model} runs from its ONNX file only: leave runtime out.")
        declared = Capabilities(
            scale="logit",
            max_tokens=max_tokens or (recipe.max_tokens if recipe else UNKNOWN_LENGTH),
            offset=recipe.offset if recipe else 0.0,
            divisor=recipe.divisor if recipe else 1.0,
        )
        self._scale = declared
        engine = _sentence_transformers if torch else _onnx

        def make(folder: Path) -> Backend:
            longest = max_tokens
            if recipe and longest is None:  # what both the recipe and the files allow
                longest = min(recipe.max_tokens, Limits.read(folder).max_tokens)
            return engine(options | {"max_tokens": longest, "trust_remote_code": None}, folder)

        super().__init__(recipe.name if recipe else str(model), where, make, declared)

    def _placed(self, folder: Path) -> Backend:
        inner = super()._placed(folder)
        scale = self._scale
        self.capabilities = replace(inner.capabilities, offset=scale.offset, divisor=scale.divisor)
        return inner

    def _recipe(self, model: str | None) -> Recipe:
        known = [recipe for recipe in MODELS if recipe.family == self.family]
        found = (
            known[0] if model is None else next((each for each in known if model in (each.name, each.repository)), None)
        )
        if found is None:
            names = ", ".join(recipe.name for recipe in known if not recipe.instead)
            raise ConfigError(
                f"{self.family} has no model {model!r}. Choose one of: {names}; or name a folder, or any hub's model as "
                "sentence-transformers:org/name or onnx:org/name."
            )
        if found.instead:
            raise ConfigError(f"{self.family}:{found.name} is not there yet. Until then use {found.instead}.")
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
    """BAAI: XLM-R, `<s> q </s></s> d </s>`."""

    family = "bge"


class Mxbai(Family):
    """Mixedbread v1: DeBERTa-v2."""

    family = "mxbai"


class Jina(Family):
    """Jina v1 (JinaBERT) and v2 (XLM-R): their ONNX files, since their code is remote."""

    family = "jina"


class Ettin(Family):
    """Ettin: ModernBERT, first token, Dense, LayerNorm, Dense."""

    family = "ettin"


class MSMarco(Family):
    """The cross-encoders of sentence-transformers trained on MS MARCO."""

    family = "ms-marco"


class FlashRank(OnnxByName):
    """A model folder of the flashrank package (`<cache_dir>/<model>`): one ONNX file, tokenizer and config beside it."""

    def __init__(
        self,
        model: str | None = None,
        *,
        max_tokens: int | None = None,
        batch_tokens: int | None = None,
        device: str | None = None,
        runtime: str | None = None,
        dtype: str | None = None,
    ) -> None:
        """See `OnnxByName`; `model` is the folder.

        Raises:
            ConfigError: No folder was named (flashrank's archives are not fetched), or it holds no such model.
        """
        if not model or not is_path(model):
            raise ConfigError(
                f"flashrank takes the folder of a model that the flashrank package fetched: flashrank:/path/to/"
                f"{model or 'ms-marco-TinyBERT-L-2-v2'}. To fetch a like model by name, use {_SMALL}."
            )
        super().__init__(
            model, max_tokens=max_tokens, batch_tokens=batch_tokens, device=device, runtime=runtime, dtype=dtype
        )
