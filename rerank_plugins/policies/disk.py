"""A cache's entries in a SQLite file, shared by processes."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import sqlite3
import threading
import time
import weakref
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

from ..core.errors import ConfigError
from ..core.fork import rests_while_forking
from ..core.loop import Workers
from .deadline import seconds_left

__all__ = ["DiskStore"]

T = TypeVar("T")

_TABLE = (
    "CREATE TABLE IF NOT EXISTS scores (name BLOB PRIMARY KEY, entry TEXT NOT NULL, made REAL NOT NULL) WITHOUT ROWID"
)
_BY_AGE = "CREATE INDEX IF NOT EXISTS scores_by_age ON scores (made)"
_AT_ONCE = 500  # names in one question: SQLite takes 32,766, older builds 999
_NEVER = 1e300
_WAIT_S = 5.0
"""For another process to end its writing."""
_PATIENCE_S = 1.0
"""That a call waits for the file; at most half of what its deadline leaves."""
_REST_S = 10.0
"""That the file is left alone after it made a call wait so long."""
_WARN_EVERY = 60.0
_log = logging.getLogger("rerank_plugins")


class DiskStore:
    """At most `max_entries`, the oldest dropped first, each for `ttl_s` at most.

    SQLite in WAL mode (https://www.sqlite.org/wal.html): any number of processes on one machine read and write, and one
    that is killed leaves the file whole. Not for network file systems, where WAL does not work. Work is done on a thread
    of its own. A file that cannot be read or written costs the cache and no call: one warning a minute says so. Nor does
    one that another process keeps locked, or a slow disk, hold calls up: see `_PATIENCE_S`.
    """

    def __init__(self, path: Path, max_entries: int, ttl_s: float | None = None) -> None:
        """Point at a file; it is made when first needed.

        Raises:
            ConfigError: Its folder cannot be made, or the path is a folder.
        """
        try:
            if "\0" in str(path):
                raise ValueError("a NUL in its name")
            folder = path.is_dir()
            path.parent.mkdir(parents=True, exist_ok=True)
        except (OSError, ValueError) as error:
            told = getattr(error, "strerror", None) or error
            raise ConfigError(
                f"The folder of cache.path {path} cannot be made ({told}): name another place."
            ) from error
        if folder:
            raise ConfigError(f"cache.path {path} is a folder: name a file in it, such as {path / 'scores.sqlite3'}.")
        self.path = path
        self.max_entries = max_entries
        self.ttl_s = ttl_s
        self._workers = Workers(1, "rerank-cache")
        self._connection: sqlite3.Connection | None = None
        self._at_work = threading.Lock()
        rests_while_forking(self)
        self._since_pruned = max_entries
        self._errors = 0
        self._rests_until = 0.0
        self._warned = -_WARN_EVERY

    async def get(self, names: Sequence[bytes]) -> Sequence[str | None]:
        """Return the entry of each name, `None` where there is none, it is too old, or the file cannot be read."""
        found = None if self._rests() else await self._in_time(names)
        return [None] * len(names) if found is None else [found.get(name) for name in names]

    def put(self, entries: Mapping[bytes, str]) -> None:
        """Keep entries; nobody waits for the disk. A later `get` sees them: the thread does one after the other."""
        if not self._rests():
            self._workers.submit(self._safely, self._put, entries)

    def state(self) -> Mapping[str, Any]:
        """Return where it is and how often the file failed."""
        return {"path": str(self.path), "errors": self._errors}

    async def aclose(self) -> None:
        """Close the file."""
        await self._workers.run(self._shut)
        self._workers.close()

    def _shut(self) -> None:
        with self._at_work:
            self._close()

    def _rest(self) -> None:
        # SQLite counts a process's locks and open files in that process: a child that opens a file which its parent had
        # open takes the parent's locks for its own (https://www.sqlite.org/howtocorrupt.html, 2.6). So a fork finds the
        # file closed; closing it waits for what is being written.
        self._at_work.acquire()
        self._close()

    def _go_on(self) -> None:
        self._at_work.release()

    def _rests(self) -> bool:
        resting = time.monotonic() < self._rests_until
        self._errors += resting
        return resting

    async def _in_time(self, names: Sequence[bytes]) -> dict[bytes, str] | None:
        left = seconds_left()
        patience = _PATIENCE_S if left is None else min(_PATIENCE_S, left / 2)
        try:
            async with asyncio.timeout(patience) as clock:
                return await self._workers.run(self._safely, self._get, names)
        except TimeoutError:
            if not clock.expired():
                raise
        self._rests_until = time.monotonic() + _REST_S
        self._failed(f"it did not answer within {patience:.3g} s")
        return None

    def _safely(self, work: Callable[[Any], T], argument: Any) -> T | None:
        with self._at_work:
            if self._rests():  # what was queued behind something that took too long
                return None
            began = time.monotonic()
            try:
                return work(argument)
            except sqlite3.Error as error:
                self._close()
                told = str(error)
        if time.monotonic() - began >= _PATIENCE_S:
            self._rests_until = time.monotonic() + _REST_S
        self._failed(told)
        return None

    def _failed(self, told: str) -> None:
        self._errors += 1
        if time.monotonic() - self._warned >= _WARN_EVERY:
            self._warned = time.monotonic()
            _log.warning(
                "The cache %s cannot be used (%s): answers are right, and paid for again. Delete the file, or "
                "name another cache.path. (said at most once a minute)",
                self.path,
                told,
            )

    def _get(self, names: Sequence[bytes]) -> dict[bytes, str]:
        now = time.time()
        # What is dated in the future (the clock was set back) would outlive `ttl_s`: its age is not known.
        oldest, newest = (0.0, _NEVER) if self.ttl_s is None else (now - self.ttl_s, now)
        found: dict[bytes, str] = {}
        for first in range(0, len(names), _AT_ONCE):
            some = names[first : first + _AT_ONCE]
            marks = ",".join("?" * len(some))
            statement = f"SELECT name, entry FROM scores WHERE name IN ({marks}) AND made BETWEEN ? AND ?"  # noqa: S608 (marks only)
            found.update(self._open().execute(statement, (*some, oldest, newest)))
        return found

    def _put(self, entries: Mapping[bytes, str]) -> None:
        made = time.time()
        rows = [(name, text, made) for name, text in entries.items()]
        with self._transaction() as connection:
            connection.executemany("INSERT OR REPLACE INTO scores VALUES (?, ?, ?)", rows)
            self._since_pruned += len(rows)
            if self._since_pruned * 20 >= self.max_entries:
                self._prune(connection)

    def _prune(self, connection: sqlite3.Connection) -> None:
        now = time.time()
        if self.ttl_s is not None:
            connection.execute("DELETE FROM scores WHERE made NOT BETWEEN ? AND ?", (now - self.ttl_s, now))
        # After the clock was set back, what is made now would be the oldest, and dropped first.
        connection.execute("UPDATE scores SET made = ? WHERE made > ?", (now, now))
        (count,) = connection.execute("SELECT count(*) FROM scores").fetchone()
        if count > self.max_entries:
            connection.execute(
                "DELETE FROM scores WHERE name IN (SELECT name FROM scores ORDER BY made LIMIT ?)",
                (count - self.max_entries,),
            )
        self._since_pruned = 0

    @contextlib.contextmanager
    def _transaction(self) -> Iterator[sqlite3.Connection]:
        connection = self._open()
        connection.execute("BEGIN IMMEDIATE")
        try:
            yield connection
        except BaseException:
            connection.execute("ROLLBACK")
            raise
        connection.execute("COMMIT")

    def _open(self) -> sqlite3.Connection:
        if self._connection is not None:
            return self._connection
        # Only this store's one worker uses it, though not always the same thread.
        connection = sqlite3.connect(self.path, timeout=_WAIT_S, isolation_level=None, check_same_thread=False)
        try:
            _switch_to_wal(connection)
            connection.execute("PRAGMA synchronous = NORMAL")
            connection.execute(_TABLE)
            connection.execute(_BY_AGE)
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
    """Switch a new file to WAL mode, and wait where another process is doing so.

    SQLite calls no busy handler here, so that `timeout` does not help: the second of two processes that make the file at the
    same moment gets SQLITE_BUSY at once (https://www.sqlite.org/wal.html#sometimes_queries_return_sqlite_busy_in_wal_mode).
    """
    until = time.monotonic() + _WAIT_S
    while True:
        try:
            connection.execute("PRAGMA journal_mode = WAL")
            return
        except sqlite3.OperationalError as error:
            if error.sqlite_errorcode != sqlite3.SQLITE_BUSY or time.monotonic() >= until:
                raise
        time.sleep(0.01)
