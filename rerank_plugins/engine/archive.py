"""Models that a hub repository holds as zip files: fetched like other files, then unpacked into this package's cache.

The zip file is recorded and checked. The folder is unpacked again if a file in it has changed.
"""

from __future__ import annotations

import json
import shutil
import stat
import tempfile
import zipfile
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path, PureWindowsPath

from ..core.errors import ConfigError
from .files import cache_folder, json_of, stat_signature
from .hub import Repository
from .hub_files import CONFIG_FILES

__all__ = ["Archive", "unpack"]

MAX_BYTES = 2**30
"""The largest size of an unpacked zip file: several times the largest of FlashRank's models."""

_SIGNATURES_FILE = ".unpacked.json"
"""File in an unpacked folder: the `stat_signature` of its zip file and of each unpacked file."""


class _Unusable(ConfigError):
    """The zip file is broken, lacks the model, or could do harm."""


@dataclass(frozen=True, slots=True)
class Archive:
    """`NAME.zip` in a repository, which holds the folder NAME with an ONNX file and its tokenizer."""

    repository: Repository
    model: str
    """NAME."""
    onnx: str
    """The name of its ONNX file."""

    @classmethod
    def of(
        cls, repository: str, model: str, onnx: str, *, spec: str, revision: str | None, local_files_only: bool
    ) -> Archive:
        """Create the archive of a model; for the arguments see `Repository`."""
        file = f"{model}.zip"
        return cls(
            Repository(repository, spec, partial(_choose_file, file), revision, local_files_only, file), model, onnx
        )

    def onnx_file(self) -> Path:
        """Return the path of the ONNX file below the folder."""
        return Path(self.onnx)

    def cached(self) -> Path | None:
        """Return the folder if it was unpacked before, and it and its zip file are unchanged."""
        snapshot = self.repository.cached()
        if snapshot is None:
            return None
        folder = self._folder(snapshot)
        return folder if _is_unchanged(folder, snapshot / f"{self.model}.zip") else None

    def fetch(self) -> Path:
        """Return the folder, fetched and unpacked as needed. Blocks.

        Raises:
            ConfigError: As `Repository.fetch`; or the zip file is broken, lacks the model, or could do harm.
            TransientError: The hub cannot be reached now.
        """
        snapshot = self.repository.fetch()
        try:
            return unpack(snapshot / f"{self.model}.zip", self.model, self.onnx, self._folder(snapshot))
        except _Unusable as error:
            raise ConfigError(
                f"{self.repository.spec} cannot be used: {error} To fetch the hub's present file, delete "
                f"{self.repository.record}."
            ) from error

    def _folder(self, snapshot: Path) -> Path:
        commit = snapshot.name
        named = f"{self.repository.name}@{commit}".replace("/", "--")
        return cache_folder() / "unpacked" / named / self.model


def _choose_file(file: str, names: Sequence[str]) -> list[str]:
    if file not in names:
        raise ConfigError(f"it has no {file}")
    return [file]


def unpack(file: Path, model: str, onnx: str, folder: Path) -> Path:
    """Unpack the folder `model` of a zip file as `folder`, unless that exists unchanged, and return it.

    The folder appears in one atomic step: a process that is stopped half-way leaves no folder of that name.

    Args:
        file: The zip file.
        model: The folder in the zip file.
        onnx: The name of the ONNX file in it.
        folder: The folder to write.

    Raises:
        ConfigError: The zip file is broken, could do harm, or holds no such model; or the folder cannot be written.
    """
    if _is_unchanged(folder, file):
        return folder
    prefix = f".new-{model}@"  # other models may be unpacked into the same parent folder at the same time
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix=prefix, dir=folder.parent, ignore_cleanup_errors=True) as beside:
            new = Path(beside) / "new"
            new.mkdir()
            _extract(file, model, onnx, new)
            signatures = {
                "zip": stat_signature(file),
                "files": {path.name: stat_signature(path) for path in new.iterdir()},
            }
            (new / _SIGNATURES_FILE).write_text(json.dumps(signatures), "utf-8")
            if not _is_unchanged(folder, file):  # another process may have unpacked it meanwhile
                if folder.exists():
                    folder.replace(Path(beside) / "old")
                new.replace(folder)
    except OSError as error:
        if not _is_unchanged(folder, file) and not _has_same_content(
            file, model, onnx, folder
        ):  # another process, or a read-only copy
            raise ConfigError(
                f"{folder} cannot be written ({error.strerror}): set XDG_CACHE_HOME to a writable folder."
            ) from error
    for stopped in folder.parent.glob(
        f"{prefix}*"
    ):  # left by a killed process; one that still runs will see that the folder exists
        shutil.rmtree(stopped, ignore_errors=True)
    return folder


def _is_unchanged(folder: Path, file: Path) -> bool:
    try:
        signatures = json_of(folder / _SIGNATURES_FILE)
        return bool(
            signatures["zip"] == stat_signature(file)
            and all(stat_signature(folder / name) == recorded for name, recorded in signatures["files"].items())
        )
    except (OSError, KeyError, AttributeError, ConfigError):  # missing, changed, or not written by this package
        return False


def _has_same_content(file: Path, model: str, onnx: str, folder: Path) -> bool:
    """Tell whether a folder holds exactly the files of the zip file, byte for byte: a copied folder has other ages."""
    try:
        with zipfile.ZipFile(file) as archive:
            members = _members(archive, file.name, model, onnx)
            if {path.name for path in folder.iterdir()} != {*members, _SIGNATURES_FILE}:
                return False
            for name, member in members.items():
                with archive.open(member) as source, (folder / name).open("rb") as unpacked:
                    while part := source.read(2**20):
                        if unpacked.read(len(part)) != part:
                            return False
                    if unpacked.read(1):
                        return False
    except Exception:  # any error of `_extract`; the caller then raises the error that it has already
        return False
    return True


def _extract(file: Path, model: str, onnx: str, into: Path) -> None:
    """Write the model's files as regular files. A zip file with anything else in it is refused as a whole."""
    try:
        with zipfile.ZipFile(file) as archive:
            for name, member in _members(archive, file.name, model, onnx).items():
                with archive.open(member) as source, (into / name).open("wb") as target:
                    shutil.copyfileobj(source, target, 2**20)
    except (ConfigError, OSError):
        raise
    except Exception as error:  # zipfile's own, and those of the decompressor that a member names
        raise _Unusable(f"{file.name} cannot be read as a zip file ({type(error).__name__}: {error}).") from error


def _members(archive: zipfile.ZipFile, file: str, model: str, onnx: str) -> dict[str, zipfile.ZipInfo]:
    wanted = {f"{model}/{name}": name for name in (onnx, *CONFIG_FILES, "vocab.txt")}
    for member in archive.infolist():
        _refuse_harm(file, member)
    members = {wanted[member.filename]: member for member in archive.infolist() if member.filename in wanted}
    for name in (onnx, "tokenizer.json"):
        if name not in members:
            raise _Unusable(f"{file} holds no {model}/{name}.")
    # zipfile returns no bytes beyond the size that a member declares, so the declared sizes are the limit.
    if (size := sum(member.file_size for member in members.values())) > MAX_BYTES:
        raise _Unusable(f"{file} would unpack to {size:,} bytes, and at most {MAX_BYTES:,} are allowed.")
    return members


def _refuse_harm(file: str, member: zipfile.ZipInfo) -> None:
    path = PureWindowsPath(member.filename)  # accepts both kinds of slashes
    if path.anchor or ".." in path.parts:
        raise _Unusable(f"{file} is not unpacked: its member {member.filename!r} leads out of the folder.")
    if stat.S_IFMT(member.external_attr >> 16) not in (0, stat.S_IFREG, stat.S_IFDIR):
        raise _Unusable(f"{file} is not unpacked: its member {member.filename!r} is a link or a special file.")
