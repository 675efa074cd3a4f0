"""A model by its hub name → a folder on this machine: fetched once, recorded, and refused when it is not the same later.

At first use the commit and the SHA-256 of every file taken are written down; from then on that commit is the model,
wherever its branch has moved to. Only weights in safetensors or ONNX form, JSON and tokenizers are taken (and, by `archive`,
zip files of these).
"""

from __future__ import annotations

import hashlib
import json
import os
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..core.errors import ConfigError, RerankError, TransientError
from ..core.loop import Workers

__all__ = ["SMALL_FILES", "Repository", "age", "cache_folder", "onnx_files", "torch_files", "workers"]

workers = Workers(2, "rerank-hub")
"""Where fetching runs: never on an event loop."""

SMALL_FILES = (
    "config.json",
    "config_sentence_transformers.json",
    "tokenizer.json",
    "tokenizer_config.json",
    "special_tokens_map.json",
)
"""What is read beside the weights."""


def onnx_files(names: Sequence[str]) -> list[str]:
    """Return what the ONNX engine needs of a repository: one model with its outside weights, and the small files.

    Raises:
        ConfigError: There is no ONNX file, or several and none is the plain one, or no tokenizer.
    """
    models = [name for name in names if name.endswith(".onnx") and name.count("/") <= 1]
    known = [name for name in ("model.onnx", "onnx/model.onnx") if name in models]
    if not known and len(models) != 1:
        told = f"several ({', '.join(sorted(models)[:4])})" if models else "none"
        raise ConfigError(f"of ONNX files it has {told}; use sentence-transformers:… for its PyTorch weights")
    model = (known or models)[0]
    outside = [name for name in names if name.startswith((f"{model}_data", f"{model}.data"))]
    return [model, *outside, *_small(names)]


def torch_files(names: Sequence[str], *, code: bool = False) -> list[str]:
    """Return what the torch engine needs of a repository: safetensors, JSON, the parts of sentence-transformers.

    Raises:
        ConfigError: There are no safetensors, or no tokenizer.
    """
    weights = [name for name in names if name.endswith(".safetensors") and _part(name)]
    if not any("/" not in name for name in weights):
        raise ConfigError("it has no safetensors weights (pickled ones can run code and are not read)")
    parts = [name for name in names if name.endswith(".json") and _part(name)]
    ours = [name for name in names if code and name.endswith(".py")]
    return list(dict.fromkeys([*weights, *_small(names), *parts, *ours]))


def _part(name: str) -> bool:
    """Tell whether a file lies at the top, or in a folder of sentence-transformers' modules (`2_Dense`)."""
    folder, _, rest = name.rpartition("/")
    return not folder or ("/" not in folder and folder[:1].isdigit() and bool(rest))


def _small(names: Sequence[str]) -> list[str]:
    if "tokenizer.json" not in names:
        raise ConfigError("it has no tokenizer.json")
    return [name for name in SMALL_FILES if name in names]


def cache_folder() -> Path:
    """Return where this package keeps what it writes down."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "rerank_plugins"


@dataclass(frozen=True, slots=True)
class Repository:
    """One model of a hub, at one revision."""

    name: str
    """`org/name`."""
    spec: str
    """For `rerank-plugins fetch`, in errors."""
    choose: Callable[[Sequence[str]], list[str]]
    """From all files of the repository those that are needed; raises `ConfigError` with half a sentence."""
    revision: str | None = None
    local_files_only: bool = False
    file: str | None = None
    """The one file that is the model, in a repository that holds many models."""

    @property
    def record(self) -> Path:
        """Where commit and hashes of the first use are written down."""
        model = f"{self.name}/{self.file}" if self.file else self.name
        named = f"{model}@{self.revision or 'main'}".replace("/", "--")
        return cache_folder() / "models" / f"{named}.json"

    def at_hand(self) -> Path | None:
        """Return the folder if it was fetched before and nobody has touched it since; asks no network, reads no weights."""
        record = self._recorded()
        if record is None:
            return None
        folder = self._cached(record["commit"])
        if folder is None:
            return None
        try:
            same = all(
                record["seen"].get(str(folder / name)) == age(folder / name) for name in self._wanted(record["all"])
            )
        except (OSError, ConfigError):
            return None
        return folder if same else None

    def fetch(self) -> Path:
        """Return the folder, from the cache or the hub; blocks.

        Raises:
            ConfigError: No such repository, revision or file; not the files of the first use; or not at hand, and the
                network is off.
            TransientError: The hub cannot be reached now.
        """
        at_hand = self.at_hand()
        if at_hand is not None:
            return at_hand
        record = self._recorded()
        try:
            commit, names = self._listed(record)
            wanted = self._wanted(names)
            folder = self._cached(commit)
            if folder is None or not all((folder / name).is_file() for name in wanted):
                folder = self._downloaded(commit, wanted)
        except RerankError:
            raise
        except Exception as error:  # the hub's client raises its own and its HTTP library's
            raise self._failed(error) from error
        self._write_down(record, commit, names, folder, wanted)
        return folder

    def _listed(self, record: dict[str, Any] | None) -> tuple[str, list[str]]:
        """Return the commit and the names of all files: as recorded, as the hub says, or as the cache has them."""
        if record is not None:
            return record["commit"], record["all"]
        error: Exception | None = None
        if not self._offline():
            from huggingface_hub import HfApi
            from huggingface_hub.errors import HfHubHTTPError

            try:
                told = HfApi().model_info(self.name, revision=self.revision or "main")
                return str(told.sha), [each.rfilename for each in told.siblings or ()]
            except HfHubHTTPError as refused:
                if refused.response.status_code < 500:
                    raise
                error = refused
            except Exception as unreachable:
                error = unreachable
        folder = self._cached(self.revision or "main")
        if folder is None:
            raise error or self._missing()
        return folder.name, [each.relative_to(folder).as_posix() for each in folder.rglob("*") if each.is_file()]

    def _downloaded(self, commit: str, wanted: Sequence[str]) -> Path:
        if self._offline():
            raise self._missing()
        from huggingface_hub import hf_hub_download

        # The largest last: what is wrong with a repository shows before the wait.
        found = [Path(hf_hub_download(self.name, name, revision=commit)) for name in reversed(wanted)]
        top = found[-1]
        for _ in Path(wanted[0]).parts:
            top = top.parent
        return top

    def _cached(self, revision: str) -> Path | None:
        from huggingface_hub import try_to_load_from_cache

        for name in (self.file,) if self.file else ("config.json", "tokenizer.json"):
            found = try_to_load_from_cache(self.name, name, revision=revision)
            if isinstance(found, str):
                return Path(found).parent
        return None

    def _wanted(self, names: Sequence[str]) -> list[str]:
        try:
            return self.choose(names)
        except ConfigError as error:
            raise ConfigError(f"{self.name} cannot be used as {self.spec}: {error}.") from None

    def _offline(self) -> bool:
        from huggingface_hub import constants

        return self.local_files_only or constants.HF_HUB_OFFLINE

    def _missing(self) -> ConfigError:
        return ConfigError(
            f"{self.name} is not on this machine, and fetching is off (local_files_only or HF_HUB_OFFLINE). Where there "
            f"is a network, run: rerank-plugins fetch {self.spec}"
        )

    def _failed(self, error: Exception) -> RerankError:
        from huggingface_hub.errors import HfHubHTTPError, RevisionNotFoundError

        if isinstance(error, RevisionNotFoundError):
            return ConfigError(f"{self.name} has no revision {self.revision!r} on the hub: check its commits and tags.")
        status = error.response.status_code if isinstance(error, HfHubHTTPError) else 0
        if status in (401, 403, 404):
            return ConfigError(
                f"The hub has no {self.name}, or it is gated ({status}): check the name; for a gated model accept its "
                "terms and set HF_TOKEN."
            )
        return TransientError(
            f"{self.name} could not be fetched ({type(error).__name__}: {error}). Try again, or fetch it beforehand: "
            f"rerank-plugins fetch {self.spec}",
            backend=self.spec,
        )

    # --- what was seen at first use ---

    def _recorded(self) -> dict[str, Any] | None:
        try:
            found = json.loads(self.record.read_text("utf-8"))
            return found if {"commit", "all", "files", "seen"} <= found.keys() else None
        except FileNotFoundError:
            return None
        except (OSError, ValueError, AttributeError) as error:
            raise ConfigError(f"{self.record} cannot be read ({error}): delete it to trust the model anew.") from error

    def _write_down(
        self, record: dict[str, Any] | None, commit: str, names: Sequence[str], folder: Path, wanted: Sequence[str]
    ) -> None:
        known = dict(record["files"]) if record else {}
        seen = dict(record["seen"]) if record else {}
        for name in wanted:
            digest = _sha256(folder / name)
            if known.setdefault(name, digest) != digest:
                raise ConfigError(
                    f"{name} of {self.name} is not the file of the first use (commit {commit[:12]}, SHA-256 "
                    f"{known[name][:12]}…, now {digest[:12]}…). Fetch it again into an empty cache; to accept the change, "
                    f"delete {self.record}."
                )
            seen[str(folder / name)] = age(folder / name)
        told = json.dumps({"commit": commit, "all": list(names), "files": known, "seen": seen}, indent=1)
        try:
            self.record.parent.mkdir(parents=True, exist_ok=True)
            with tempfile.NamedTemporaryFile("w", dir=self.record.parent, delete=False, encoding="utf-8") as file:
                file.write(told)
            os.replace(file.name, self.record)  # noqa: PTH105 (atomic, and mypy knows its types)
        except OSError as error:
            raise ConfigError(
                f"{self.record} cannot be written ({error.strerror}): set XDG_CACHE_HOME to a folder that can."
            ) from error


def age(file: Path) -> list[int]:
    """Return a file's size and time of change: what tells that nobody has touched it since."""
    told = file.stat()
    return [told.st_size, told.st_mtime_ns]


def _sha256(file: Path) -> str:
    with file.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()
