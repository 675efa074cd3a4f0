"""Pins a model of the hub at its first use (trust on first use): records its commit and the SHA-256 of each file."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from ..core.errors import ConfigError, clause
from .files import cache_folder, stat_signature
from .hub_answers import is_commit, stays_inside

__all__ = ["Record", "locked", "update_stat_signatures"]


@dataclass(frozen=True, slots=True)
class Record:
    """What was recorded at the first use of one model at one revision. The field names are the keys of a JSON file."""

    commit: str
    all: list[str]
    """The names of all files of the repository, of which an engine chooses some."""
    files: dict[str, str]
    """The SHA-256 of each file that was fetched so far, by name."""
    seen: dict[str, list[int]]
    """The `stat_signature` of each file when it was last hashed, by path. While it is equal, the file is not hashed."""
    complete: bool = True
    """Whether `all` is the hub's list. Otherwise it lists a cache that another program filled, maybe only in part."""

    @classmethod
    def read(cls, file: Path) -> Record | None:
        """Read a record from a file; `None` before the first use.

        Raises:
            ConfigError: The file holds no valid record.
        """
        try:
            record = cls(**json.loads(file.read_text("utf-8")))
            types = [type(value) for value in (record.commit, record.all, record.files, record.seen)]
            if types != [str, list, dict, dict]:
                raise TypeError("it is not a record")
            if not is_commit(record.commit) or not all(
                isinstance(name, str) and stays_inside(name) for name in record.all
            ):
                raise ValueError("it names a path outside the hub's cache")
            return record
        except (FileNotFoundError, NotADirectoryError):
            return None
        except (OSError, ValueError, TypeError) as error:
            raise ConfigError(f"{file} cannot be read ({clause(error)}): delete it to trust the model anew.") from error

    def write(self, file: Path) -> None:
        """Write the record to a file in one atomic step.

        Raises:
            OSError: The file cannot be written.
        """
        import tempfile

        with tempfile.TemporaryDirectory(prefix=".new-", dir=file.parent, ignore_cleanup_errors=True) as folder:
            new_file = Path(folder) / file.name
            new_file.write_text(json.dumps(asdict(self), indent=1), "utf-8")
            new_file.replace(file)  # atomic, since the folder is on the same file system


@contextlib.contextmanager
def locked(file: Path) -> Iterator[None]:
    """Lock a record, so that only one process at a time is inside the block.

    Raises:
        OSError: The lock file cannot be written.
    """
    import huggingface_hub.utils

    # WeakFileLock also works on file systems without locks. The type stubs do not have it.
    hub: Any = huggingface_hub.utils
    locks = file.parent.parent / "locks"
    for folder in (file.parent, locks):
        folder.mkdir(parents=True, exist_ok=True)
    with hub.WeakFileLock(locks / f"{file.name}.lock"):
        yield


def update_stat_signatures(signatures: Mapping[Path, list[int]]) -> None:
    """Record the new signature of files that this package has hard-linked temporarily, which changes their ctime.

    Without this they would be hashed at every start. The recorded signature stays if it was not that of the file before
    the link, or if the file was written to since: then the file is hashed again.

    Args:
        signatures: The signature of each file before it was linked.
    """

    def updated(record: Record) -> dict[str, list[int]]:
        recorded = {file: before for file, before in signatures.items() if record.seen.get(str(file)) == before}
        current = {file: stat_signature(file) for file in recorded}
        # Size and mtime must be equal: a link only changes the ctime.
        return {str(file): after for file, after in current.items() if after[:2] == recorded[file][:2]}

    # Without an update, the files are hashed again at the next start. Without a home folder there is a RuntimeError.
    with contextlib.suppress(OSError, ConfigError, RuntimeError):
        for file in (cache_folder() / "models").glob("*.json"):
            if (record := Record.read(file)) and updated(record):
                with locked(file):
                    if record := Record.read(file):  # again, since another process may have changed it
                        replace(record, seen=record.seen | updated(record)).write(file)
