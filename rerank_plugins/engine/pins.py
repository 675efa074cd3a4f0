"""What was seen of a hub's model at its first use, written down for all later ones: the commit, and each file's SHA-256."""

from __future__ import annotations

import contextlib
import json
import tempfile
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from ..core.errors import ConfigError, clause
from .hub_answers import is_commit, stays_inside

__all__ = ["Record", "locked"]


@dataclass(frozen=True, slots=True)
class Record:
    """One model at one revision."""

    commit: str
    all: list[str]
    """The names of all its files, for each engine to choose from."""
    files: dict[str, str]
    """The SHA-256 of those that were taken so far."""
    seen: dict[str, list[int]]
    """By path, how each was when it was last hashed: see `hub.age`."""
    complete: bool = True
    """Whether `all` is what the hub listed, not only what a cache held that somebody else had filled."""

    @classmethod
    def read(cls, file: Path) -> Record | None:
        """Return what is written there; `None` before the first use.

        Raises:
            ConfigError: There is something else.
        """
        try:
            found = cls(**json.loads(file.read_text("utf-8")))
            if [type(each) for each in (found.commit, found.all, found.files, found.seen)] != [str, list, dict, dict]:
                raise TypeError("it is no record")
            if not is_commit(found.commit) or not all(
                isinstance(each, str) and stays_inside(each) for each in found.all
            ):
                raise ValueError("it leads out of the hub's cache")
            return found
        except (FileNotFoundError, NotADirectoryError):
            return None
        except (OSError, ValueError, TypeError) as error:
            raise ConfigError(f"{file} cannot be read ({clause(error)}): delete it to trust the model anew.") from error

    def write(self, file: Path) -> None:
        """Write it there, in one step; raises `OSError`."""
        with tempfile.TemporaryDirectory(prefix=".new-", dir=file.parent, ignore_cleanup_errors=True) as beside:
            new = Path(beside) / file.name
            new.write_text(json.dumps(asdict(self), indent=1), "utf-8")
            new.replace(file)


@contextlib.contextmanager
def locked(file: Path) -> Iterator[None]:
    """Let one process at a time read a record and write it; raises `OSError` where nothing can be written."""
    from huggingface_hub import utils

    hub: Any = utils  # its lock, which also works where a file system knows none, is not in its stubs
    locks = file.parent.parent / "locks"
    for folder in (file.parent, locks):
        folder.mkdir(parents=True, exist_ok=True)
    with hub.WeakFileLock(locks / f"{file.name}.lock"):
        yield
