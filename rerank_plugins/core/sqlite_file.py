"""A SQLite file that several processes share, and whose loss costs nothing but time: the base of caches on disk."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import sqlite3
import stat
import threading
import time
import weakref
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, ClassVar, TypeVar

from ._runtime.background_loop import Workers
from ._runtime.fork_hooks import pause_during_fork
from .deadline import seconds_left
from .errors import ConfigError
from .file_paths import NotPrivate, create_private, private_status

__all__ = ["NAMES_PER_QUERY", "SQLiteFile"]

T = TypeVar("T")

NAMES_PER_QUERY = 500
"""Variables in one statement. SQLite allows 32,766, older builds 999."""
_LOCK_TIMEOUT_S = 5.0
"""Seconds to wait until another process has finished writing."""
_READ_TIMEOUT_S = 1.0
"""Seconds that a call waits for the file; at most half of the time that its deadline leaves."""
_PAUSE_S = 10.0
"""Seconds for which the file is not used after it exceeded `_READ_TIMEOUT_S`."""
_WARN_EVERY = 60.0
_log = logging.getLogger("rerank_plugins")


class SQLiteFile:
    """A SQLite file in WAL mode (https://www.sqlite.org/wal.html), used by one thread of this process.

    Any number of processes on one machine can read and write, and a killed process leaves the file intact. WAL does not
    work on network file systems. If the file cannot be read or written, calls work without it, and a warning is logged
    at most once a minute. A file that is locked by another process or on a slow disk delays a call by at most
    `_READ_TIMEOUT_S`.
    """

    schema: ClassVar[tuple[str, ...]]
    """The statements that create the tables, where they do not exist."""
    option: ClassVar[str]
    """The option that names the file, for errors: `cache.path`."""
    loss: ClassVar[str]
    """What happens while the file cannot be used, for the warning."""
    example: ClassVar[str]
    """A file name, for the error about a folder."""
    private: ClassVar[bool] = False
    """Whether the file is created for this user alone, and refused if others can change it. SQLite gives the files
    that it makes beside it the same permissions."""

    def __init__(self, path: Path) -> None:
        """Set the file, which is created at its first use.

        Args:
            path: The file. Its folder is created here.

        Raises:
            ConfigError: See `check_path`.
        """
        self.check_path(path)
        self.path = path
        self._workers = Workers(1, "rerank-cache")
        self._connection: sqlite3.Connection | None = None
        # Guards `_connection`, and is held during a fork, so that no process forks while the file is open.
        self._connection_lock = threading.Lock()
        pause_during_fork(self)
        self._errors = 0
        self._paused_until = 0.0
        self._warned = -_WARN_EVERY

    @classmethod
    def check_path(cls, path: Path) -> None:
        """Check the path of a file, and create its folder.

        Raises:
            ConfigError: The folder cannot be created, the path is a folder, or others can change a file that must be
                private.
        """
        try:
            if "\0" in str(path):
                raise ValueError("a NUL in its name")
            is_folder = path.is_dir()
            path.parent.mkdir(parents=True, exist_ok=True)
        except (OSError, ValueError) as error:
            reason = getattr(error, "strerror", None) or error
            raise ConfigError(
                f"The folder of {cls.option} {path} cannot be created ({reason}): name another place."
            ) from error
        if is_folder:
            raise ConfigError(f"{cls.option} {path} is a folder: name a file in it, such as {path / cls.example}.")
        if cls.private:
            try:
                private_status(path, stat.S_ISREG)
            except FileNotFoundError:
                pass  # it is created at its first use
            except NotPrivate as error:
                raise ConfigError(
                    f"{cls.option} {path} cannot be trusted ({error}): name a file that only you can change."
                ) from error
            except OSError as error:
                raise ConfigError(
                    f"{cls.option} {path} cannot be read ({error.strerror}): name another place."
                ) from error

    def state(self) -> Mapping[str, Any]:
        """Return the path and the number of errors."""
        return {"path": str(self.path), "errors": self._errors}

    async def aclose(self) -> None:
        """Close the file."""
        await self._workers.run(self._shut)
        self._workers.close()

    def _submit(self, work: Callable[[Any], Any], argument: Any) -> None:
        """Queue work on the file without waiting. Later work sees its effect: one thread runs all work in order."""
        if not self._is_paused():
            self._workers.submit(self._run, work, argument)

    async def _in_time(self, work: Callable[[Any], T], argument: Any) -> T | None:
        """Run work on the file and return its result; `None` if the file cannot be used, or takes too long."""
        if self._is_paused():
            return None
        limit = self._read_limit()
        try:
            async with asyncio.timeout(limit) as clock:
                return await self._workers.run(self._run, work, argument)
        except TimeoutError:
            if not clock.expired():
                raise
        self._paused_until = time.monotonic() + _PAUSE_S
        self._record_error(f"it did not answer within {limit:.3g} s", slow=True)
        return None

    @staticmethod
    def _read_limit() -> float:
        """Return the seconds that a call waits for the file."""
        left = seconds_left()
        return _READ_TIMEOUT_S if left is None else min(_READ_TIMEOUT_S, left / 2)

    def _shut(self) -> None:
        with self._connection_lock:
            self._close()

    def _pause(self) -> None:
        # SQLite keeps the locks of open files per process. A child that opens a file which its parent had open mistakes
        # the parent's locks for its own (https://www.sqlite.org/howtocorrupt.html, section 2.6). So the file is closed
        # before a fork. The lock waits for a write under way.
        self._connection_lock.acquire()
        self._close()

    def _resume(self) -> None:
        self._connection_lock.release()

    def _is_paused(self) -> bool:
        """Return whether the file is not used now, and count the skipped access as an error."""
        paused = time.monotonic() < self._paused_until
        self._errors += paused
        return paused

    def _run(self, work: Callable[[Any], T], argument: Any) -> T | None:
        """Run work on the file; `None` if the file is paused or SQLite raises an error."""
        with self._connection_lock:
            if self._is_paused():  # this was queued behind work that took too long
                return None
            started = time.monotonic()
            try:
                return work(argument)
            except sqlite3.Error as error:
                self._close()
                reason = str(error)
                code = getattr(error, "sqlite_errorcode", sqlite3.SQLITE_ERROR) & 0xFF
        if time.monotonic() - started >= _READ_TIMEOUT_S:
            self._paused_until = time.monotonic() + _PAUSE_S
        self._record_error(reason, slow=code in (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED))
        return None

    def _record_error(self, reason: str, *, slow: bool) -> None:
        """Count an error, and log it. A file that is slow or locked is intact, so deleting it would not help."""
        self._errors += 1
        if time.monotonic() - self._warned >= _WARN_EVERY:
            self._warned = time.monotonic()
            _log.warning(
                "The cache %s %s (%s): %s. %s, or name another %s. (logged at most once a minute)",
                self.path,
                "is slow or locked" if slow else "cannot be used",
                reason,
                self.loss,
                "Put it on a faster local disk" if slow else "Delete the file",
                self.option,
            )

    @contextlib.contextmanager
    def _transaction(self) -> Iterator[sqlite3.Connection]:
        connection = self._open()
        connection.execute("BEGIN IMMEDIATE")
        try:
            yield connection
        except BaseException:
            # A full disk may have ended the transaction already (https://www.sqlite.org/lang_transaction.html).
            if connection.in_transaction:
                connection.execute("ROLLBACK")
            raise
        connection.execute("COMMIT")

    def _open(self) -> sqlite3.Connection:
        if self._connection is not None:
            return self._connection
        if self.private:
            try:
                create_private(self.path)
            except (OSError, NotPrivate) as error:
                raise sqlite3.OperationalError(str(getattr(error, "strerror", None) or error)) from error
        # Only the worker uses the connection, but its thread may be replaced.
        connection = sqlite3.connect(self.path, timeout=_LOCK_TIMEOUT_S, isolation_level=None, check_same_thread=False)
        try:
            _switch_to_wal(connection)
            connection.execute("PRAGMA synchronous = NORMAL")
            for statement in self.schema:
                connection.execute(statement)
        except sqlite3.Error:
            connection.close()
            raise
        self._connection = connection
        self._closer = weakref.finalize(self, connection.close)
        return connection

    def _close(self) -> None:
        if self._connection is not None:
            self._closer()
            self._connection = None


def _switch_to_wal(connection: sqlite3.Connection) -> None:
    """Switch a new file to WAL mode, and wait if another process is doing so.

    SQLite calls no busy handler here, so its `timeout` has no effect: if two processes create the file at the same
    time, the second one gets SQLITE_BUSY immediately
    (https://www.sqlite.org/wal.html#sometimes_queries_return_sqlite_busy_in_wal_mode).
    """
    until = time.monotonic() + _LOCK_TIMEOUT_S
    while True:
        try:
            connection.execute("PRAGMA journal_mode = WAL")
            return
        except sqlite3.OperationalError as error:
            if error.sqlite_errorcode != sqlite3.SQLITE_BUSY or time.monotonic() >= until:
                raise
        time.sleep(0.01)
