"""Data sets of the hub, or copies of them on disk: which files there are, and where each lies on this machine."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

from ..core.errors import ConfigError, InputError
from ..engine.hub import is_repository
from ..engine.hub_answers import checked_answers, refuse_commit, refuse_names
from ..engine.hub_errors import translate_error

__all__ = ["NANOBEIR", "DataFiles", "HubFiles", "LocalFiles", "hub_files"]

NANOBEIR = "sentence-transformers/NanoBEIR-en"
"""The data sets that sentence-transformers' evaluators read by default
(`CrossEncoderNanoBEIREvaluator` of sentence-transformers 6.2)."""
PREFIX = "hub:"


class DataFiles(Protocol):
    """The files of one data set."""

    @property
    def name(self) -> str:
        """The name in tables and reports."""

    def names(self) -> Sequence[str]:
        """Return the names of all files, with `/` between folders."""

    def path(self, name: str) -> Path:
        """Return the path of a file on this machine, and download it first where it is missing."""


@dataclass(frozen=True, slots=True)
class LocalFiles:
    """A folder."""

    folder: Path

    @property
    def name(self) -> str:
        """The name of the folder."""
        return self.folder.resolve().name

    def names(self) -> Sequence[str]:
        """Return the names of all files."""
        return sorted(
            file.relative_to(self.folder).as_posix()
            for file in self.folder.rglob("*")
            if file.is_file() and not any(part.startswith(".") for part in file.relative_to(self.folder).parts)
        )

    def path(self, name: str) -> Path:
        """Return the path of a file."""
        return self.folder / name


def hub_files(data: str | os.PathLike[str] | None) -> HubFiles | None:
    """Return the repository that `nanobeir` or `hub:org/name@revision` names; `None` for a path.

    A folder or file of that name comes first, as with models.

    Raises:
        InputError: The name behind `hub:` is not written as org/name.
    """
    if not isinstance(data, str) or Path(data).exists():
        return None
    if data.lower() == "nanobeir":
        return HubFiles(NANOBEIR)
    if not data.startswith(PREFIX):
        return None
    name, _, revision = data.removeprefix(PREFIX).partition("@")
    if not is_repository(name):
        raise InputError(
            f"{data!r} names no data set of the hub: write {PREFIX}org/name, or {PREFIX}org/name@revision."
        )
    return HubFiles(name, revision or None)


@dataclass(slots=True)
class HubFiles:
    """A repository of data on the hub, at the commit that its branch has when it is first read."""

    repository: str
    revision: str | None = None
    _listing: tuple[str, list[str]] | None = field(default=None, repr=False)
    """The commit, and the names of its files."""

    @property
    def name(self) -> str:
        """The repository and its commit, because figures can only be compared over the same data."""
        return f"{self.repository.split('/')[1]}@{self._listed()[0][:7]}"

    def names(self) -> Sequence[str]:
        """Return the names of all files.

        Raises:
            ConfigError: There is no such repository or revision, or it is not on this machine and the network is off.
            TransientError: The hub cannot be reached now.
        """
        return self._listed()[1]

    def path(self, name: str) -> Path:
        """Return the path of a file in the hub's cache, and download it first where it is missing.

        Raises:
            ConfigError: See `names`.
            TransientError: The hub cannot be reached now.
        """
        from huggingface_hub import hf_hub_download

        commit = self._listed()[0]
        try:
            with checked_answers(self.repository):
                file = Path(hf_hub_download(self.repository, name, repo_type="dataset", revision=commit))
            self._write_ref(file.parents[name.count("/")], commit)
            return file
        except ConfigError:
            raise
        except Exception as error:  # the exceptions of the hub's client and of its HTTP library share no base class
            raise self._failed(error) from error

    def _write_ref(self, folder: Path, commit: str) -> None:
        """Write the commit of the revision to the hub's cache: its client writes it only for a download by revision."""
        revision = self.revision or "main"
        if revision != commit and folder.name == commit:
            ref = folder.parent.parent / "refs" / revision
            with contextlib.suppress(OSError):
                ref.parent.mkdir(parents=True, exist_ok=True)
                ref.write_text(commit, "utf-8")

    def _listed(self) -> tuple[str, list[str]]:
        if self._listing is None:
            self._listing = self._cached() if _offline() else self._on_hub()
        return self._listing

    def _on_hub(self) -> tuple[str, list[str]]:
        from huggingface_hub import HfApi, constants

        try:
            information: Any = HfApi().dataset_info(
                self.repository, revision=self.revision, timeout=constants.HF_HUB_ETAG_TIMEOUT
            )
            commit = refuse_commit(str(information.sha), self.repository)
            return commit, refuse_names([file.rfilename for file in information.siblings or ()], self.repository)
        except ConfigError:
            raise
        except Exception as error:  # as in `path`
            raise self._failed(error) from error

    def _cached(self) -> tuple[str, list[str]]:
        from huggingface_hub import snapshot_download
        from huggingface_hub.errors import LocalEntryNotFoundError

        try:
            folder = Path(
                snapshot_download(self.repository, repo_type="dataset", revision=self.revision, local_files_only=True)
            )
        except LocalEntryNotFoundError as error:
            raise ConfigError(
                f"{self.repository} is not on this machine, and fetching is off (HF_HUB_OFFLINE). Where there is a "
                f"network, run: {self._command}"
            ) from error
        return folder.name, list(LocalFiles(folder).names())

    @property
    def _command(self) -> str:
        revision = f" --revision {self.revision}" if self.revision else ""
        return f"hf download {self.repository} --repo-type dataset{revision}"

    def _failed(self, error: Exception) -> Exception:
        return translate_error(
            error,
            self.repository,
            spec=f"{PREFIX}{self.repository}",
            command=self._command,
            revision=self.revision,
            recorded=None,
        )


def _offline() -> bool:
    from huggingface_hub import constants

    return bool(constants.HF_HUB_OFFLINE)
