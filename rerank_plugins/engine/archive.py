"""A model that a repository of the hub holds as a zip file: fetched as every other model, then unpacked beside our records.

The zip file is what is recorded and checked; the folder is only made from it, and made anew when it is not as it was left.
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
from .files import json_of
from .hub import SMALL_FILES, Repository, age, cache_folder

__all__ = ["Archive", "unpacked"]

MOST_BYTES = 2**30
"""Of what one zip file may become: several times the largest of FlashRank's encoders."""

_LEFT = ".unpacked.json"
"""In an unpacked folder: size and age of its zip file, and of each file as it was left."""


class _Unusable(ConfigError):
    """What came is no such zip file, or one that could do harm."""


@dataclass(frozen=True, slots=True)
class Archive:
    """`NAME.zip` of a repository, which holds the folder NAME with an ONNX file and its tokenizer."""

    repository: Repository
    model: str
    """NAME."""
    onnx: str
    """The name of its ONNX file."""

    @classmethod
    def of(
        cls, repository: str, model: str, onnx: str, *, spec: str, revision: str | None, local_files_only: bool
    ) -> Archive:
        """Name one; see `Repository`."""
        file = f"{model}.zip"
        return cls(Repository(repository, spec, partial(_only, file), revision, local_files_only, file), model, onnx)

    def at_hand(self) -> Path | None:
        """Return the folder if it was unpacked before and nobody has touched it or its zip file since."""
        snapshot = self.repository.at_hand()
        if snapshot is None:
            return None
        folder = self._folder(snapshot)
        return folder if _whole(folder, snapshot / f"{self.model}.zip") else None

    def fetch(self) -> Path:
        """Return the folder, fetched and unpacked as needed; blocks.

        Raises:
            ConfigError: As `Repository.fetch`; or what came is no such zip file, or one that could do harm.
            TransientError: The hub cannot be reached now.
        """
        snapshot = self.repository.fetch()
        try:
            return unpacked(snapshot / f"{self.model}.zip", self.model, self.onnx, self._folder(snapshot))
        except _Unusable as error:
            raise ConfigError(
                f"{self.repository.spec} cannot be used: {error} To try what the hub has now, delete "
                f"{self.repository.record}."
            ) from error

    def _folder(self, snapshot: Path) -> Path:
        commit = snapshot.name
        named = f"{self.repository.name}@{commit}".replace("/", "--")
        return cache_folder() / "unpacked" / named / self.model


def _only(file: str, names: Sequence[str]) -> list[str]:
    if file not in names:
        raise ConfigError(f"it has no {file}")
    return [file]


def unpacked(file: Path, model: str, onnx: str, folder: Path) -> Path:
    """Unpack the folder `model` of a zip file as `folder`, unless it is there as it was left, and return it.

    It comes into place in one step: whoever is stopped half-way leaves no folder of that name.

    Raises:
        ConfigError: The zip file is broken, could do harm, or holds no such model; or the folder cannot be written.
    """
    if _whole(folder, file):
        return folder
    beginning = f".new-{model}@"  # other models of the repository are unpacked beside it, at the same time maybe
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix=beginning, dir=folder.parent, ignore_cleanup_errors=True) as beside:
            new = Path(beside) / "new"
            new.mkdir()
            _extract(file, model, onnx, new)
            left = {"zip": age(file), "files": {each.name: age(each) for each in new.iterdir()}}
            (new / _LEFT).write_text(json.dumps(left), "utf-8")
            if not _whole(folder, file):  # another process may have been faster
                if folder.exists():
                    folder.replace(Path(beside) / "old")
                new.replace(folder)
    except OSError as error:
        if not _whole(folder, file) and not _same(file, model, onnx, folder):  # as above, or for reading only
            raise ConfigError(
                f"{folder} cannot be written ({error.strerror}): set XDG_CACHE_HOME to a folder that can."
            ) from error
    for stopped in folder.parent.glob(f"{beginning}*"):  # by a kill; who is still at it finds the folder whole
        shutil.rmtree(stopped, ignore_errors=True)
    return folder


def _whole(folder: Path, file: Path) -> bool:
    try:
        left = json_of(folder / _LEFT)
        return bool(
            left["zip"] == age(file) and all(age(folder / name) == told for name, told in left["files"].items())
        )
    except (OSError, KeyError, AttributeError, ConfigError):  # not there, changed, or not written by us
        return False


def _same(file: Path, model: str, onnx: str, folder: Path) -> bool:
    """Tell whether a folder holds what the zip file does, and nothing else: one that was copied, with other times."""
    try:
        with zipfile.ZipFile(file) as archive:
            members = _members(archive, file.name, model, onnx)
            if {each.name for each in folder.iterdir()} != {*members, _LEFT}:
                return False
            for name, member in members.items():
                with archive.open(member) as source, (folder / name).open("rb") as found:
                    while part := source.read(2**20):
                        if found.read(len(part)) != part:
                            return False
                    if found.read(1):
                        return False
    except Exception:  # as in `_extract`; whoever asks has an error to raise already
        return False
    return True


def _extract(file: Path, model: str, onnx: str, into: Path) -> None:
    """Write the model's files, each a plain file of its own; a zip file that tries anything else is refused as a whole."""
    try:
        with zipfile.ZipFile(file) as archive:
            for name, member in _members(archive, file.name, model, onnx).items():
                with archive.open(member) as source, (into / name).open("wb") as target:
                    shutil.copyfileobj(source, target, 2**20)
    except (ConfigError, OSError):
        raise
    except Exception as error:  # of zipfile, and of whichever decompressor a member names
        raise _Unusable(f"{file.name} is no zip file that can be read ({type(error).__name__}: {error}).") from error


def _members(archive: zipfile.ZipFile, file: str, model: str, onnx: str) -> dict[str, zipfile.ZipInfo]:
    wanted = {f"{model}/{name}": name for name in (onnx, *SMALL_FILES, "vocab.txt")}
    for member in archive.infolist():
        _refuse_harm(file, member)
    found = {wanted[member.filename]: member for member in archive.infolist() if member.filename in wanted}
    for name in (onnx, "tokenizer.json"):
        if name not in found:
            raise _Unusable(f"{file} holds no {model}/{name}.")
    # zipfile hands out no byte beyond what a member says to hold, so that what they say is the bound.
    if (size := sum(member.file_size for member in found.values())) > MOST_BYTES:
        raise _Unusable(f"{file} would unpack to {size:,} bytes, and {MOST_BYTES:,} are the most.")
    return found


def _refuse_harm(file: str, member: zipfile.ZipInfo) -> None:
    path = PureWindowsPath(member.filename)  # which knows both kinds of slashes
    if path.anchor or ".." in path.parts:
        raise _Unusable(f"{file} is not unpacked: its member {member.filename!r} leads out of the folder.")
    if stat.S_IFMT(member.external_attr >> 16) not in (0, stat.S_IFREG, stat.S_IFDIR):
        raise _Unusable(f"{file} is not unpacked: its member {member.filename!r} is a link, or no file at all.")
