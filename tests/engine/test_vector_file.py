"""The file of token vectors: who may change it, damage, its bound, and slow disks."""

from __future__ import annotations

import asyncio
import logging
import os
import sqlite3
import stat
import threading
from pathlib import Path

import pytest

from rerank_plugins import ConfigError, load_reranker
from rerank_plugins.core import sqlite_file
from rerank_plugins.engine.late_interaction import vector_file
from rerank_plugins.engine.late_interaction.vector_file import VectorFile

ENTRIES = {bytes([number]) * 16: bytes([number]) * 1000 for number in range(1, 9)}
posix = pytest.mark.skipif(os.name != "posix", reason="owner and mode are POSIX's")


@pytest.fixture(autouse=True)
def _no_time_limit(monkeypatch):
    """Let a slow disk change no result: a read that takes long is cut short, and counts as an error."""
    monkeypatch.setattr(sqlite_file, "_READ_TIMEOUT_S", 3600.0)


def filled(path: Path, entries=ENTRIES, max_bytes: int = 1_000_000) -> dict[bytes, bytes]:
    """Store entries in the file, and return what it then holds of them."""

    async def fill():
        file = VectorFile(path, max_bytes)
        file.put(entries)
        stored = await file.get(list(entries))
        assert not file.state()["errors"]
        await file.aclose()
        return dict(stored)

    return asyncio.run(fill())


def held(path: Path, entries=ENTRIES) -> dict[bytes, bytes]:
    async def read():
        file = VectorFile(path, 1_000_000)
        stored = await file.get(list(entries))
        await file.aclose()
        return dict(stored)

    return asyncio.run(read())


@posix
def test_the_file_and_those_beside_it_are_readable_by_their_owner_only(tmp_path):
    before = os.umask(0o022)
    try:

        async def modes():
            file = VectorFile(tmp_path / "vectors", 1_000_000)
            file.put(ENTRIES)
            await file.get(list(ENTRIES))
            modes = {path.name: stat.S_IMODE(path.stat().st_mode) for path in tmp_path.iterdir()}
            await file.aclose()
            return modes

        assert asyncio.run(modes()) == dict.fromkeys(("vectors", "vectors-wal", "vectors-shm"), 0o600)
    finally:
        os.umask(before)


@posix
@pytest.mark.parametrize("kind", ["link", "dangling", "group", "pipe"])
def test_a_file_that_others_can_change_is_refused(tmp_path, kind):
    path = tmp_path / "vectors"
    if kind in ("link", "dangling"):
        (tmp_path / "other").write_bytes(b"") if kind == "link" else None
        path.symlink_to(tmp_path / "other")
    elif kind == "group":
        filled(path)
        path.chmod(0o620)
    else:
        os.mkfifo(path)
    message = "chmod go-w" if kind == "group" else "is a link or a special file"
    with pytest.raises(ConfigError, match=rf"cache_path .* cannot be trusted \(.*{message}.*name a file that only you"):
        load_reranker({"use": "colbert:LateOn", "colbert": {"cache_path": str(path)}})
    assert not (tmp_path / "other").exists() or kind == "link"


@posix
@pytest.mark.skipif(os.name == "posix" and os.geteuid() != 0, reason="only root can give a file to another user")
def test_a_file_of_another_user_is_refused(tmp_path):
    filled(tmp_path / "vectors")
    os.chown(tmp_path / "vectors", 12345, -1)
    with pytest.raises(ConfigError, match="belongs to another user"):
        VectorFile(tmp_path / "vectors", 1_000_000)


@posix
def test_a_link_that_appears_later_costs_the_file_and_not_the_answer(tmp_path, caplog):
    async def replaced():
        file = VectorFile(tmp_path / "vectors", 1_000_000)
        (tmp_path / "vectors").symlink_to(tmp_path / "other")
        file.put(ENTRIES)
        stored = await file.get(list(ENTRIES))
        await file.aclose()
        return stored

    assert asyncio.run(replaced()) == {}
    assert not (tmp_path / "other").exists()
    assert "is a link or a special file" in caplog.text


def test_a_flipped_bit_is_noticed(tmp_path):
    path = tmp_path / "vectors"
    assert filled(path) == ENTRIES
    damaged, *intact = ENTRIES
    with sqlite3.connect(path) as connection:
        data = bytearray(ENTRIES[damaged])
        data[500] ^= 1
        connection.execute("UPDATE vectors SET data = ? WHERE name = ?", (bytes(data), damaged))
    connection.close()
    assert held(path) == {name: ENTRIES[name] for name in intact}
    assert filled(path, {damaged: ENTRIES[damaged]}) == {damaged: ENTRIES[damaged]}, "stored anew"


def test_of_a_batch_above_the_bound_as_many_entries_are_stored_as_fit(tmp_path):
    entries = {bytes([number]) * 16: bytes(50_000) for number in range(30)}
    entries[b"large" * 3] = bytes(2_000_000)
    stored = filled(tmp_path / "vectors", entries)
    assert 15 <= len(stored) <= 19
    assert set(stored) == set(list(entries)[: len(stored)])
    again = filled(tmp_path / "vectors", {bytes([99, number]): bytes(50_000) for number in range(30)})
    assert 15 <= len(again) <= 19, "the older ones made way"
    assert (tmp_path / "vectors").stat().st_size < 2_000_000


def test_entries_that_no_thread_can_write_are_lost_and_do_not_count(tmp_path, monkeypatch):
    async def write():
        file = VectorFile(tmp_path / "vectors", 1_000_000)
        with monkeypatch.context() as patch:
            patch.setattr(threading.Thread, "start", _no_thread)
            file.put(ENTRIES)
        assert file._queued == 0
        file.put(ENTRIES)
        stored = await file.get(list(ENTRIES))
        await file.aclose()
        return dict(stored)

    assert asyncio.run(write()) == ENTRIES


def _no_thread(_):
    raise RuntimeError("can't start new thread")


def test_what_a_slow_file_gives_in_time_is_used(tmp_path, monkeypatch, caplog):
    path = tmp_path / "vectors"
    filled(path)
    ended, digests, digest = threading.Event(), [], vector_file.entry_digest
    limits, timeout = [], asyncio.timeout

    def recorded(seconds):
        limits.append(timeout(seconds))
        return limits[-1]

    monkeypatch.setattr(sqlite_file.asyncio, "timeout", recorded)

    async def read():
        loop = asyncio.get_running_loop()

        def slow(name, data):
            digests.append(name)
            if len(digests) == 4:  # the time is over now, and the file still hangs
                loop.call_soon_threadsafe(limits[0].reschedule, loop.time())
                assert ended.wait(60)
            return digest(name, data)

        monkeypatch.setattr(vector_file, "entry_digest", slow)
        file = VectorFile(path, 1_000_000)
        stored = await file.get(list(ENTRIES))
        ended.set()
        await file.aclose()
        return stored

    stored = asyncio.run(read())
    assert stored == {name: ENTRIES[name] for name in digests[:3]}
    assert len(digests) == 4, "the read ended with its caller"
    (warning,) = [record.getMessage() for record in caplog.records if record.levelno == logging.WARNING]
    assert "is slow or locked" in warning
    assert "local disk" in warning
    assert "Delete" not in warning


def test_a_locked_file_is_not_to_be_deleted(tmp_path, monkeypatch, caplog):
    monkeypatch.setattr("rerank_plugins.core.sqlite_file._LOCK_TIMEOUT_S", 0.05)
    path = tmp_path / "vectors"
    filled(path)
    writer = sqlite3.connect(path, isolation_level=None)
    writer.execute("BEGIN IMMEDIATE")

    async def write():
        file = VectorFile(path, 1_000_000)
        file.put(ENTRIES)
        await file.aclose()

    asyncio.run(write())
    writer.close()
    (warning,) = [record.getMessage() for record in caplog.records if record.levelno == logging.WARNING]
    assert "is slow or locked" in warning
    assert "Delete" not in warning


def test_a_read_that_takes_long_ends_with_what_it_has(tmp_path, monkeypatch, caplog):
    path = tmp_path / "vectors"
    filled(path)
    monkeypatch.setattr(vector_file, "_READ_SHARE", 0.0)
    assert len(held(path)) == 1
    assert not caplog.records


def test_the_path_is_checked_before_a_model_is_fetched(tmp_path):
    def load(path):
        load_reranker({"use": "colbert:LateOn", "colbert": {"cache_path": path}})

    with pytest.raises(ConfigError, match=r"cache_path: this user's home folder is not known .*name a file"):
        load("~nosuchuser/vectors")
    with pytest.raises(ConfigError, match="is a folder: name a file in it"):
        load(str(tmp_path))
    (tmp_path / "file").write_text("")
    with pytest.raises(ConfigError, match="cannot be created"):
        load(str(tmp_path / "file" / "vectors"))
