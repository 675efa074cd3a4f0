"""Token vectors of documents in a SQLite file, which several processes and models can share."""

from __future__ import annotations

import contextlib
import hashlib
import sqlite3
import time
from array import array
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import ClassVar

from ...core._runtime.fork_hooks import Lock, reset_after_fork
from ...core._runtime.text_work import check_cancelled
from ...core.errors import TransientError
from ...core.sqlite_file import NAMES_PER_QUERY, SQLiteFile

__all__ = ["VectorFile", "vectors_key"]

_ENTRY_BYTES = 96
"""The approximate size of an entry in the file, beside its vectors."""
_SPARE = 0.1
"""The share of the bound that is written before the file is measured again."""
_MAX_QUEUED_BYTES = 64_000_000
"""Vectors that wait to be written. Above it new ones are not stored: the disk is slower than the model."""
_TABLE = """
CREATE TABLE IF NOT EXISTS vectors (name BLOB PRIMARY KEY, digest BLOB NOT NULL, made REAL NOT NULL, data BLOB NOT NULL)
"""
_READ_SHARE = 0.8
"""The share of the time of a read after which it ends with what it has read so far."""


def vectors_key(model: str, ids: Sequence[int]) -> bytes:
    """Return the key of a document's vectors: a hash of its tokens and of everything else that they depend on.

    Args:
        model: The fingerprint of the model's files, and how it is run.
        ids: The document's tokens.
    """
    secret = hashlib.blake2b(model.encode("utf-8", "surrogatepass"), digest_size=32).digest()
    return hashlib.blake2b(array("q", ids).tobytes(), digest_size=16, key=secret, person=b"vectors").digest()


def entry_digest(name: bytes, data: bytes) -> bytes:
    """Return the digest by which a damaged entry is recognised."""
    return hashlib.blake2b(data, digest_size=16, key=name[: hashlib.blake2b.MAX_KEY_SIZE]).digest()


class VectorFile(SQLiteFile):
    """A table of token vectors, bounded in bytes; the oldest are dropped first.

    It holds digests and vectors, and no text. (Vectors tell much about their text: Morris et al., EMNLP 2023,
    https://arxiv.org/abs/2310.06816.) So it is private to this user. `SQLiteFile` says what happens if the file is
    locked, damaged or on a full disk.
    """

    schema: ClassVar = (_TABLE, "CREATE INDEX IF NOT EXISTS vectors_by_age ON vectors (made)")
    option: ClassVar = "cache_path"
    loss: ClassVar = "documents are encoded again"
    example: ClassVar = "vectors.sqlite3"
    private: ClassVar = True

    def __init__(self, path: Path, max_bytes: int) -> None:
        """Set the file, which is created at its first use.

        Args:
            path: The file. Its folder is created here.
            max_bytes: The size of all entries, at most.

        Raises:
            ConfigError: See `check_path`.
        """
        super().__init__(path)
        self.max_bytes = max_bytes
        self._since_pruned = max_bytes  # so that the first write measures what other processes have left
        # Guards `_queued`: batches of several calls end on several threads.
        self._queue_lock = Lock()
        self._queued = 0
        reset_after_fork(self)

    def _reset(self) -> None:
        self._queued = 0  # what waited to be written is the parent's

    async def get(self, names: Sequence[bytes]) -> Mapping[bytes, bytes]:
        """Return the data of the names that the file holds, as far as they can be read in time."""
        entries: dict[bytes, bytes] = {}
        until = time.monotonic() + self._read_limit() * _READ_SHARE
        await self._in_time(partial(self._read, entries=entries, until=until), names)
        return dict(entries)

    def put(self, entries: Mapping[bytes, bytes]) -> None:
        """Store entries without waiting for the disk. A later `get` sees them: one thread runs all work in order.

        Of entries that exceed the bound together, as many are stored as fit.
        """
        selected: dict[bytes, bytes] = {}
        size = 0
        with self._queue_lock:
            limit = min(_MAX_QUEUED_BYTES - self._queued, self.max_bytes * (1.0 - _SPARE))
            for name, data in entries.items():
                if size + len(data) + _ENTRY_BYTES <= limit:
                    selected[name] = data
                    size += len(data) + _ENTRY_BYTES
            self._queued += size
        if selected:
            try:
                self._workers.submit(self._store, selected, size)
            except TransientError:  # no thread can be started: the entries are lost, and the call goes on
                with self._queue_lock:
                    self._queued -= size

    @staticmethod
    def _size(entries: Mapping[bytes, bytes]) -> int:
        return sum(len(data) + _ENTRY_BYTES for data in entries.values())

    def _store(self, entries: Mapping[bytes, bytes], size: int) -> None:
        try:
            self._run(self._write, entries)
        finally:
            with self._queue_lock:
                self._queued -= size

    def _read(self, names: Sequence[bytes], *, entries: dict[bytes, bytes], until: float) -> None:
        """Add the intact entries of the names to `entries`, until all are read or the time has come.

        If the caller stops waiting, `entries` holds what was read by then.
        """
        for first in range(0, len(names), NAMES_PER_QUERY):
            batch = names[first : first + NAMES_PER_QUERY]
            marks = ",".join("?" * len(batch))
            # S608: the inserted text consists of question marks.
            statement = f"SELECT name, digest, data FROM vectors WHERE name IN ({marks})"  # noqa: S608
            # An open cursor would hold a snapshot of the file, which then grows.
            with contextlib.closing(self._open().execute(statement, batch)) as rows:
                for name, digest, data in rows:
                    check_cancelled()
                    if isinstance(data, bytes) and digest == entry_digest(name, data):
                        entries[name] = data
                    if time.monotonic() >= until:
                        return

    def _write(self, entries: Mapping[bytes, bytes]) -> None:
        now = time.time()
        with self._transaction() as connection:
            size = self._size(entries)
            self._since_pruned += size
            if self._since_pruned > self.max_bytes * _SPARE:
                self._prune(connection, now, size)
            connection.executemany(
                "INSERT OR REPLACE INTO vectors VALUES (?, ?, ?, ?)",
                [(name, entry_digest(name, data), now, data) for name, data in entries.items()],
            )

    def _prune(self, connection: sqlite3.Connection, now: float, new_bytes: int) -> None:
        """Delete the oldest entries, so that `new_bytes` and then another `_SPARE` of the bound fit."""
        # If the clock was set back, new entries would count as the oldest ones and be dropped first.
        connection.execute("UPDATE vectors SET made = ? WHERE made > ?", (now, now))
        sizes = "SELECT coalesce(sum(length(data) + ?), 0) FROM vectors"
        (size,) = connection.execute(sizes, (_ENTRY_BYTES,)).fetchone()
        excess = size + new_bytes - self.max_bytes * (1.0 - _SPARE)
        if excess > 0:
            oldest = connection.execute("SELECT name, length(data) FROM vectors ORDER BY made").fetchall()
            dropped = []
            for name, length in oldest:
                if excess <= 0:
                    break
                excess -= length + _ENTRY_BYTES
                dropped.append((name,))
            connection.executemany("DELETE FROM vectors WHERE name = ?", dropped)
        self._since_pruned = 0
