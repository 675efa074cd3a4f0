"""`FileKey`: a key in a file, as Kubernetes and Docker hand secrets to a container."""

from __future__ import annotations

import logging
import math
import os
import stat
import time
from pathlib import Path

from ._runtime.fork_hooks import Lock
from .errors import ConfigError
from .key_source import KeySource, file_workers, shared_source
from .redaction import one_line
from .secret import Secret

__all__ = ["FileKey", "file_key"]

LONGEST_KEY = 65_536
"""Bytes of the largest key file: more than any key has, so that a wrong path does not read gigabytes."""
_WARN_EVERY_S = 60.0

_log = logging.getLogger("rerank_plugins")


class FileKey(KeySource):
    """A key in a file. It is read again when the file changes, and when the vendor refused the key.

    Kubernetes and Docker write secrets as files, and replace them when a secret rotates.
    """

    def __init__(self, path: str) -> None:
        """Set the path. Nothing is read."""
        self.path = path
        self.origin = f"the file {path}"
        # Guards the attributes below. It is held while the file is read, so that callers at the same time read it once.
        self._lock = Lock()
        self._current: Secret | None = None
        self._signature: tuple[int, ...] = ()
        self._warned_at = -math.inf

    @property
    def current(self) -> Secret | None:
        """The key that was read last."""
        return self._current

    def get(self) -> Secret:
        """Read the file if it has changed, on this thread.

        Raises:
            ConfigError: The file cannot be read, or holds no key.
        """
        return self._read(force=False)

    async def aget(self) -> Secret:
        """Read the file if it has changed, on a worker thread: a file system may be slow."""
        return await file_workers.run(lambda: self._read_or_last(force=False))

    async def arefresh(self, after: Secret) -> Secret:
        """Read the file. Its time of change does not decide: some file systems count whole seconds."""
        return await file_workers.run(lambda: self._read_or_last(force=True))

    def _read(self, *, force: bool) -> Secret:
        with self._lock:
            try:
                file = Path(self.path)
                status = file.stat()
                signature = (status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns)
                if self._current is None or force or signature != self._signature:
                    self._current = Secret(_key_in(file, status, self.path))
                    self._signature = signature
            except ConfigError:
                raise
            except (OSError, ValueError) as error:  # ValueError: a NUL in the path
                why = getattr(error, "strerror", None) or type(error).__name__
                raise _file_error(self.path, f"which cannot be read: {why}. Check the path") from None
            return self._current

    def _read_or_last(self, *, force: bool) -> Secret:
        """Read the file, or return the last key with a warning: the file may be missing while it is replaced.

        Raises:
            ConfigError: There was no key yet.
        """
        try:
            return self._read(force=force)
        except ConfigError as error:
            if self._current is None:
                raise
            if time.monotonic() - self._warned_at >= _WARN_EVERY_S:
                self._warned_at = time.monotonic()
                _log.warning("%s The last key is used. (logged at most once a minute)", one_line(str(error)))
            return self._current

    def __repr__(self) -> str:
        """Return the path, and no key."""
        return f"FileKey({self.path!r})"


def _file_error(path: str, problem: str) -> ConfigError:
    return ConfigError(f"The spec takes its key from the file {path}, {problem}.")


def _key_in(file: Path, status: os.stat_result, path: str) -> str:
    """Return the key in a file, without the end of the line.

    Raises:
        ConfigError: The file is not a regular file of one line of text, or is larger than any key.
    """
    if not stat.S_ISREG(status.st_mode):  # reading a pipe could wait for ever
        raise _file_error(path, "which is not a regular file: name the file that holds the key")
    with file.open("rb") as opened:
        content = opened.read(LONGEST_KEY + 1)
    if len(content) > LONGEST_KEY:
        raise _file_error(path, f"which has more than {LONGEST_KEY:,} bytes: name the file that holds the key alone")
    try:
        key = content.decode("utf-8-sig").strip()  # Windows' editor begins a file with a byte order mark
    except UnicodeDecodeError:
        key = "\0"
    if not key:
        raise _file_error(path, "which is empty: write the key into it")
    if len(key.splitlines()) > 1:
        raise _file_error(path, "which has more than one line: write the key alone into it")
    if not key.isprintable():
        raise _file_error(path, "which is not text: write the key into it, as one line in UTF-8")
    return key


def file_key(path: str) -> KeySource:
    """Return the source of the key in a file. It reads the file, so that a wrong path is an error now.

    Raises:
        ConfigError: The file cannot be read, or holds no key.
    """
    absolute = os.path.abspath(os.path.expanduser(path))  # noqa: PTH100, PTH111 (pathlib fails without a home folder)
    source = shared_source(absolute, lambda: FileKey(absolute))
    source.get()
    return source
