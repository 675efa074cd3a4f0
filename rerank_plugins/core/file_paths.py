"""Paths of files that users name, and files that only this user can change."""

from __future__ import annotations

import os
import stat
from collections.abc import Callable
from pathlib import Path

from .errors import ConfigError, clause

__all__ = ["NotPrivate", "create_private", "expand_user", "private_status"]


class NotPrivate(Exception):
    """A file or folder is not this user's alone. The message says why."""


def expand_user(path: str | os.PathLike[str], option: str) -> Path:
    """Return a path with `~` replaced by the home folder.

    Args:
        path: The path.
        option: The option that names it, for the error.

    Raises:
        ConfigError: The home folder is not known.
    """
    try:
        return Path(path).expanduser()
    except RuntimeError as error:  # a container's user without a home folder, or `~name` of an unknown user
        raise ConfigError(
            f"{option}: this user's home folder is not known ({clause(error)}): name a file without ~."
        ) from error


def private_status(path: Path, is_kind: Callable[[int], bool]) -> os.stat_result:
    """Return the status of a file or folder that only this user can change. Owner and mode are checked on POSIX only.

    Args:
        path: The file or folder.
        is_kind: `stat.S_ISREG` or `stat.S_ISDIR`.

    Raises:
        FileNotFoundError: There is none.
        NotPrivate: It is a link or of another kind, belongs to another user, or others may write to it.
    """
    status = path.lstat()
    if not is_kind(status.st_mode):
        raise NotPrivate(f"{path.name} is a link or a special file")
    if hasattr(os, "geteuid"):
        if status.st_uid != os.geteuid():
            raise NotPrivate(f"{path.name} belongs to another user")
        if status.st_mode & (stat.S_IWGRP | stat.S_IWOTH):
            raise NotPrivate(f"others may write to {path.name}; run chmod go-w on it")
    return status


def create_private(path: Path) -> None:
    """Create an empty file that only this user can read and write. A file that exists is checked and not opened.

    Raises:
        NotPrivate: The file exists, and others can change it.
        OSError: The file cannot be created.
    """
    flags = os.O_RDWR | os.O_CREAT | os.O_EXCL | getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_CLOEXEC", 0)
    try:
        os.close(os.open(path, flags, 0o600))
    except FileExistsError:
        private_status(path, stat.S_ISREG)
