"""Resolves a model's name to a folder: a path, or a repository of a hub that is fetched once and pinned.

At the first use the commit and the SHA-256 of every fetched file are recorded (see `pins`). From then on that commit is
the model, even if its branch moves, and a file that differs is refused. Only safetensors, ONNX files, JSON and
tokenizers are fetched (and zip files of these, see `archive`).
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import re
import shlex
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ..core.errors import ConfigError, RerankError, TransientError, clause
from .files import cache_folder, stat_signature
from .hub_answers import checked_answers, refuse_commit, refuse_names
from .hub_errors import translate_error
from .pins import Record, locked

__all__ = ["Repository", "folder_or_repository", "is_path", "is_repository", "require_model"]

_REPOSITORY = re.compile(r"[\w.-]+/[\w.-]+")


def is_path(name: str) -> bool:
    """Tell whether a model's name is a path: something exists there, or it is written like a path.

    It may be the path of a file: the error for that comes when it is used as a folder.
    """
    path = Path(name).expanduser()
    return (
        path.exists()
        or path.is_absolute()
        or name.startswith((".", "~"))
        or name.count("/") > 1
        or os.sep == "\\" in name
    )


def is_repository(name: str) -> bool:
    """Tell whether a name is written like a hub's `org/name`."""
    return _REPOSITORY.fullmatch(name) is not None


def require_model(model: str | None, backend: str) -> str:
    """Return the model that a spec names.

    Raises:
        ConfigError: The spec names no model.
    """
    if not model:
        raise ConfigError(f"{backend} needs a model: write {backend}:/path/to/folder, or {backend}:org/name.")
    return model


def folder_or_repository(
    name: str,
    spec: str,
    choose: Callable[[Sequence[str]], list[str]],
    revision: str | None,
    local_files_only: bool,
    more: Mapping[str, Any] | None = None,
) -> Path | Repository:
    """Return the folder that a model's name means, or the repository on the hub.

    Args:
        name: A folder, or `org/name`.
        spec: The spec for `rerank-plugins fetch`, in errors.
        choose: See `Repository`.
        revision: See `Repository`.
        local_files_only: See `Repository`.
        more: See `Repository`.

    Raises:
        ConfigError: The name is neither.
    """
    if is_path(name):
        return Path(name).expanduser()
    if not is_repository(name):
        raise ConfigError(
            f"{name!r} is neither a folder nor a hub's org/name: write {spec.partition(':')[0]}:/path/to/folder."
        )
    return Repository(name, spec, choose, revision, local_files_only, more=more or {})


@dataclass(frozen=True, slots=True)
class Repository:
    """One model of a hub, at one revision."""

    name: str
    """`org/name`."""
    spec: str
    """The spec for `rerank-plugins fetch`, in errors."""
    choose: Callable[[Sequence[str]], list[str]]
    """Returns the needed files out of all files of the repository. Raises `ConfigError` if some are missing; its
    message starts with "it has", because the name of the repository is put before it."""
    revision: str | None = None
    local_files_only: bool = False
    file: str | None = None
    """The file of this model, in a repository that holds many models."""
    more: Mapping[str, Any] = field(default_factory=dict)
    """Options that the spec needs so that `rerank-plugins fetch` fetches the same files."""

    def __post_init__(self) -> None:
        """Refuse a revision that is not a string, such as the integer that YAML makes of a commit without letters."""
        if not isinstance(self.revision, str | None):
            raise ConfigError(
                f"revision must be a string, got {self.revision!r}: write a branch, tag or commit in quotes."
            )

    @property
    def record(self) -> Path:
        """The file that records commit and hashes of the first use."""
        model = f"{self.name}/{self.file}" if self.file else self.name
        named = f"{model}@{self.revision or 'main'}".replace("/", "--")
        return cache_folder() / "models" / f"{named}.json"

    @property
    def command(self) -> str:
        """The command that fetches the model."""
        spec = {"use": self.spec, **({"revision": self.revision} if self.revision else {}), **self.more}
        return f"rerank-plugins fetch {self.spec if len(spec) == 1 else shlex.quote(json.dumps(spec))}"

    def files(self) -> list[str]:
        """Return the names of this model's files; nothing before they are fetched."""
        record = Record.read(self.record)
        return [] if record is None else self._wanted(record.all)

    def onnx_file(self) -> Path | None:
        """Return the ONNX file among `files`, as a path below the model's folder; `None` if there is none.

        The folder may hold ONNX files that other programs have put there.
        """
        return next((Path(name) for name in self.files() if name.endswith(".onnx")), None)

    def cached(self) -> Path | None:
        """Return the folder if it was fetched before and is unchanged. Uses no network and reads no weights."""
        record = Record.read(self.record)
        if record is None:
            return None
        folder = self._cached(record.commit)
        if folder is None:
            return None
        try:
            unchanged = all(
                record.seen.get(str(folder / name)) == stat_signature(folder / name)
                for name in self._wanted(record.all)
            )
        except (OSError, ConfigError):
            return None
        return folder if unchanged else None

    def fetch(self) -> Path:
        """Return the folder, from the cache or the hub. Blocks.

        Raises:
            ConfigError: There is no such repository, revision or file; the files are not those of the first use; they
                cannot be written; or the model is not cached, and the network is off.
            TransientError: The hub cannot be reached now, or a download was damaged.
        """
        cached, record = self.cached(), Record.read(self.record)
        if cached is not None and (record is None or record.complete or self._offline()):
            return cached  # otherwise another program filled the cache, maybe only in part
        try:
            commit, names, complete = self._listed(record)
            wanted = self._wanted(names)
            folder = self._cached(commit)
            missing = [name for name in wanted if folder is None or not (folder / name).is_file()]
            if folder is None or missing:
                folder = self._downloaded(commit, wanted, missing)
            seen = {str(folder / name): stat_signature(folder / name) for name in wanted}
            files = {name: _sha256(folder / name) for name in wanted}
        except RerankError:
            raise
        except (
            Exception
        ) as error:  # the exceptions of the hub's client, of its HTTP library and of the disk share no base class
            raise self._failed(error, record) from error
        if complete and record is None:
            self._write_ref(folder, commit)
        self._refuse_damage(folder, {name: files[name] for name in missing}, downloaded=True)
        if record is not None:
            self._refuse_change(record, files, folder)
        known = record.files if record else {}
        self._refuse_damage(
            folder, {name: digest for name, digest in files.items() if name not in known}, downloaded=False
        )
        recorded = self._update_record(Record(commit, names, files, seen, complete), folder)
        return folder if recorded == commit else self.fetch()

    def _listed(self, record: Record | None) -> tuple[str, list[str], bool]:
        """Return the commit, the names of all files, and whether that list comes from the hub (else from the cache)."""
        if record is not None and record.complete:
            return record.commit, record.all, True
        revision = record.commit if record else self.revision or "main"
        error: Exception | None = None
        if not self._offline():
            from huggingface_hub import HfApi, constants
            from huggingface_hub.errors import RevisionNotFoundError

            try:
                model = HfApi().model_info(self.name, revision=revision, timeout=constants.HF_HUB_ETAG_TIMEOUT)
                # A mirror may answer with another commit than the requested one: the recorded one is the model.
                commit = record.commit if record else refuse_commit(str(model.sha), self.name)
                return commit, refuse_names([file.rfilename for file in model.siblings or ()], self.name), True
            except (RevisionNotFoundError, ConfigError):
                raise
            except Exception as refusal:  # or unreachable: then the cache is used, as the hub's own client does
                error = refusal
        folder = self._cached(revision)
        if folder is None:
            raise error or self._missing("")
        names = _cached_files(folder)
        try:
            self.choose(names)
        except ConfigError as incomplete:  # the cache is incomplete, which says nothing about the repository
            raise error or self._missing(str(incomplete)) from None
        return folder.name, names, False

    def _downloaded(self, commit: str, wanted: Sequence[str], missing: Sequence[str]) -> Path:
        if self._offline():
            raise self._missing("" if len(missing) == len(wanted) else f"it lacks {', '.join(missing)}")
        from huggingface_hub import hf_hub_download

        # The largest file last, so that a problem with the repository shows before the long wait.
        with checked_answers(self.name):
            paths = [Path(hf_hub_download(self.name, name, revision=commit)) for name in reversed(wanted)]
        top = paths[-1]
        for _ in Path(wanted[0]).parts:
            top = top.parent
        return top

    def _cached(self, revision: str) -> Path | None:
        from huggingface_hub import try_to_load_from_cache

        for name in (self.file,) if self.file else ("config.json", "tokenizer.json"):
            path = try_to_load_from_cache(self.name, name, revision=revision)
            if isinstance(path, str):
                return Path(path).parent
        return None

    def _write_ref(self, folder: Path, commit: str) -> None:
        """Write the commit of the revision to the hub's cache.

        The hub's client writes it only for a download by revision, and this downloads by commit. With it the cache
        works offline for a user without our record.
        """
        revision = self.revision or "main"
        if revision != commit and folder.name == commit:
            ref = folder.parent.parent / "refs" / revision
            with contextlib.suppress(OSError):
                ref.parent.mkdir(parents=True, exist_ok=True)
                ref.write_text(commit, "utf-8")

    def _wanted(self, names: Sequence[str]) -> list[str]:
        try:
            return self.choose(names)
        except ConfigError as error:
            raise ConfigError(f"{self.name} cannot be used as {self.spec}: {clause(error)}.") from None

    def _offline(self) -> bool:
        from huggingface_hub import constants

        return self.local_files_only or constants.HF_HUB_OFFLINE

    def _missing(self, lacks: str) -> ConfigError:
        state = f"is incomplete on this machine ({lacks})" if lacks else "is not on this machine"
        return ConfigError(
            f"{self.name} {state}, and fetching is off (local_files_only or HF_HUB_OFFLINE). Where there is a network, "
            f"run: {self.command}"
        )

    def _failed(self, error: Exception, record: Record | None) -> RerankError:
        recorded = (record.commit, self.record) if record else None
        return translate_error(
            error, self.name, spec=self.spec, command=self.command, revision=self.revision, recorded=recorded
        )

    # --- the record of the first use ---

    def _update_record(self, new: Record, folder: Path) -> str:
        """Add files to the record, and return the recorded commit.

        Raises `ConfigError` for files that differ from the first use.
        """
        try:
            with locked(self.record):
                known = Record.read(self.record)
                if known is None:
                    new.write(self.record)
                elif known.commit == new.commit:
                    self._refuse_change(known, new.files, folder)
                    listed = known if known.complete else new
                    both = known.files | new.files, known.seen | new.seen
                    Record(known.commit, listed.all, *both, listed.complete).write(self.record)
                return known.commit if known else new.commit
        except OSError as error:
            known = Record.read(self.record)
            if known is not None and known.commit == new.commit:
                self._refuse_change(known, new.files, folder)
                if known.files.items() >= new.files.items():
                    return known.commit  # everything is recorded already, such as in a read-only copy of a cache
            raise ConfigError(
                f"{self.record} cannot be written ({error.strerror}): set XDG_CACHE_HOME to a writable folder."
            ) from error

    def _refuse_change(self, known: Record, files: Mapping[str, str], folder: Path) -> None:
        for name, digest in files.items():
            if known.files.get(name, digest) != digest:
                raise ConfigError(
                    f"{name} of {self.name} is not the file of the first use (commit {known.commit[:12]}, SHA-256 "
                    f"{known.files[name][:12]}…, now {digest[:12]}…). To fetch it again, delete "
                    f"{(folder / name).resolve()}; to accept the change, delete {self.record}."
                )

    def _refuse_damage(self, folder: Path, files: Mapping[str, str], *, downloaded: bool) -> None:
        """Check files against the SHA-256 that the hub announced, where its cache holds that.

        The hub's client checks only sizes.

        Args:
            folder: The model's folder.
            files: The SHA-256 of each file.
            downloaded: Whether the files were just downloaded. Then a damaged one is deleted, so that the next try
                fetches it.
        """
        for name, digest in files.items():
            promised = _promised(folder / name)
            if promised is None or promised == digest:
                continue
            where = (folder / name).resolve()
            damage = f"{name} of {self.name} is damaged (SHA-256 {digest[:12]}…, and {promised[:12]}… on the hub)"
            if not downloaded:
                raise ConfigError(f"{damage}: delete {where}, and run: {self.command}")
            where.unlink(missing_ok=True)
            raise TransientError(f"{damage}. Try again, or run: {self.command}", backend=self.spec)


def _cached_files(folder: Path) -> list[str]:
    """Return the names of all files in a cached folder, and of weights that its index names, cached or not."""
    names = [path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()]
    for index in folder.glob("*.safetensors.index.json"):
        with contextlib.suppress(
            OSError, ValueError, AttributeError
        ):  # a broken index is reported when the model is loaded
            names += map(str, json.loads(index.read_text("utf-8"))["weight_map"].values())
    return list(dict.fromkeys(names))


def _promised(file: Path) -> str | None:
    """Return the SHA-256 that the hub announced for a large file: in its cache, the name of the link's target."""
    try:
        target = file.readlink().name
    except OSError:  # not a link: a cache without links does not hold the SHA-256
        return None
    return target if re.fullmatch(r"[0-9a-f]{64}", target) else None


def _sha256(file: Path) -> str:
    with file.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()
