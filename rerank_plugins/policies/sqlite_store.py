"""SQLite store of a cache, which several processes can share."""

from __future__ import annotations

import sqlite3
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import ClassVar

from ..core.sqlite_file import NAMES_PER_QUERY, SQLiteFile

__all__ = ["DiskStore"]

_TABLE = (
    "CREATE TABLE IF NOT EXISTS scores (name BLOB PRIMARY KEY, entry TEXT NOT NULL, made REAL NOT NULL) WITHOUT ROWID"
)
_NEVER = 1e300


class DiskStore(SQLiteFile):
    """A table of at most `max_entries` entries, the oldest dropped first, each of which expires after `ttl_s` seconds.

    `SQLiteFile` says what happens if the file is locked, damaged or on a full disk.
    """

    schema: ClassVar = (_TABLE, "CREATE INDEX IF NOT EXISTS scores_by_age ON scores (made)")
    option: ClassVar = "cache.path"
    loss: ClassVar = "scores are computed and paid for again"
    example: ClassVar = "scores.sqlite3"

    def __init__(self, path: Path, max_entries: int, ttl_s: float | None = None) -> None:
        """Set the file, which is created at its first use.

        Args:
            path: The file. Its folder is created here.
            max_entries: Maximum number of entries.
            ttl_s: Lifetime of an entry in seconds; `None` means that entries do not expire.

        Raises:
            ConfigError: The folder cannot be created, or the path is a folder.
        """
        super().__init__(path)
        self.max_entries = max_entries
        self.ttl_s = ttl_s
        self._since_pruned = max_entries

    async def get(self, names: Sequence[bytes]) -> Sequence[str | None]:
        """Return the entry of each name, `None` for a missing or expired one and if the file cannot be read."""
        entries = await self._in_time(self._read, names)
        return [None] * len(names) if entries is None else [entries.get(name) for name in names]

    def put(self, entries: Mapping[bytes, str]) -> None:
        """Store entries without waiting for the disk. A later `get` sees them: one thread runs all work in order."""
        self._submit(self._write, entries)

    def _read(self, names: Sequence[bytes]) -> dict[bytes, str]:
        now = time.time()
        # An entry dated in the future (the clock was set back) could outlive `ttl_s`, because its age is not known.
        oldest, newest = (0.0, _NEVER) if self.ttl_s is None else (now - self.ttl_s, now)
        entries: dict[bytes, str] = {}
        for first in range(0, len(names), NAMES_PER_QUERY):
            batch = names[first : first + NAMES_PER_QUERY]
            marks = ",".join("?" * len(batch))
            # S608: the inserted text consists of question marks.
            statement = f"SELECT name, entry FROM scores WHERE name IN ({marks}) AND made BETWEEN ? AND ?"  # noqa: S608
            entries.update(self._open().execute(statement, (*batch, oldest, newest)))
        return entries

    def _write(self, entries: Mapping[bytes, str]) -> None:
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
        # If the clock was set back, new entries would count as the oldest ones and be dropped first.
        connection.execute("UPDATE scores SET made = ? WHERE made > ?", (now, now))
        (count,) = connection.execute("SELECT count(*) FROM scores").fetchone()
        if count > self.max_entries:
            connection.execute(
                "DELETE FROM scores WHERE name IN (SELECT name FROM scores ORDER BY made LIMIT ?)",
                (count - self.max_entries,),
            )
        self._since_pruned = 0
