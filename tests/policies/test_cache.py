"""Cache: the same answer again without a request, and never the answer of another model, query or text."""

from __future__ import annotations

import asyncio
import os
import signal
import sqlite3
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from support.scripted import REQUEST, Scripted

from rerank_plugins import ConfigError, Reranker, RerankResponse, load_reranker
from rerank_plugins.core import Capabilities, RerankRequest, Span, TransientError
from rerank_plugins.policies.cache import Cache
from rerank_plugins.policies.memory_store import MemoryStore
from rerank_plugins.policies.sqlite_store import DiskStore
from rerank_plugins.testing.cohere_like import CohereLike
from rerank_plugins.testing.script import Declined, Status
from rerank_plugins.testing.vendors.chat import ChatServer

LOGPROBS = {"chat": {"mode": "logprobs"}}
QUERY, DOCUMENTS = "why are there tides", ["the moon", "bananas are yellow", "tides follow the moon", ""]


@pytest.fixture
def server() -> Iterator[CohereLike]:
    with CohereLike() as running:
        yield running


@pytest.fixture(params=["memory", "disk"])
def cache(request, tmp_path: Path) -> object:
    return {"kind": "disk", "path": str(tmp_path / "scores.sqlite3")} if request.param == "disk" else True


def spec(server: CohereLike, cache: object, **options) -> dict:
    return {"use": "http", "base_url": server.url, "api_key": server.key, "retry": 1, "cache": cache, **options}


def comparable(response: RerankResponse) -> RerankResponse:
    return replace(response, usage=None, latency_ms=0.0, attempts=())


def hit_rate(reranker: Reranker) -> float | None:
    (state,) = reranker.stats()["backends"].values()
    return state["cache"]["hit_rate"]


@pytest.mark.parametrize("face", ["sync", "async"])
def test_a_cached_answer_equals_the_first_one(server: CohereLike, cache, face: str):
    def ask(reranker: Reranker) -> RerankResponse:
        if face == "sync":
            return reranker.rerank(QUERY, DOCUMENTS)
        return asyncio.run(reranker.arerank(QUERY, DOCUMENTS))

    with load_reranker(spec(server, cache)) as reranker:
        first, second = ask(reranker), ask(reranker)
        assert hit_rate(reranker) == 0.5
    assert len(server.requests) == 1
    assert comparable(first) == comparable(second)
    assert (first.usage.requests, second.usage.requests) == (1, 0)
    assert second.usage.input_tokens == 0
    assert [(each.outcome, each.detail) for each in second.attempts] == [("cached", "3 of 3 documents")]


def test_only_documents_without_an_entry_are_sent(server: CohereLike, cache):
    with load_reranker(spec(server, cache)) as reranker:
        reranker.rerank(QUERY, DOCUMENTS[:2])
        mixed = reranker.rerank(QUERY, [*DOCUMENTS, "new"])
    assert [each.documents for each in server.requests] == [DOCUMENTS[:2], ["tides follow the moon", "new"]]
    with load_reranker(spec(server, None)) as reranker:
        assert comparable(mixed) == comparable(reranker.rerank(QUERY, [*DOCUMENTS, "new"]))


def test_another_query_text_instruction_model_or_dtype_is_a_miss(cache):
    """`dtype` and other options are part of the identity; see the test of it below."""

    def scored(identity: str, request: RerankRequest, model: str = "scripted") -> int:
        backend = Scripted(name=model)
        store = DiskStore(Path(cache["path"]), 100) if isinstance(cache, dict) else shared
        asyncio.run(Cache(backend, store, identity).ascore(request))
        if store is not shared:
            asyncio.run(store.aclose())  # the call does not wait for the write; the next store reads the file
        return len(backend.calls)

    shared = MemoryStore(100)
    assert [scored("model a, float32", REQUEST) for _ in range(2)] == [1, 0]
    assert scored("model a, bfloat16", REQUEST) == 1
    assert scored("model a, float32", replace(REQUEST, query="another")) == 1
    assert scored("model a, float32", replace(REQUEST, instruction="newest first")) == 1
    assert scored("model a, float32", replace(REQUEST, documents=("one", "three", "seventeen!"))) == 1
    assert scored("model a, float32", replace(REQUEST, fields=({"text": "one"}, None, None))) == 1
    assert scored("model a, float32", replace(REQUEST, documents=("seventeen", "one"))) == 0


def identity(options: dict) -> str:
    scorer = load_reranker({"cache": True, **options}).scorer
    while not isinstance(scorer, Cache):
        scorer = scorer.inner
    return asyncio.run(scorer.aidentity())


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    made = tmp_path / "model"
    made.mkdir()
    for name in ("model.onnx", "tokenizer.json"):
        (made / name).write_text("{}")
    return made


def test_every_option_that_changes_scores_changes_the_identity(folder: Path, monkeypatch):
    hosted = {"use": "http:a", "base_url": "http://127.0.0.1:1", "api_key": "secret-key-1"}
    local = {"use": f"onnx:{folder}"}
    differing = [
        identity(each)
        for each in (
            hosted,
            {**hosted, "use": "http:b"},
            {**hosted, "base_url": "http://127.0.0.1:2"},
            {**hosted, "http": {"max_tokens": 99}},
            {"use": "cohere", "api_key": "k"},
            {"use": "cohere", "api_key": "k", "cohere": {"max_tokens_per_doc": 99}},
            {"use": "embedded"},
            {"use": "embedded", "max_tokens": 128},
            local,
            {**local, "max_tokens": 128},
        )
    ]
    assert len(set(differing)) == len(differing)
    # The model's file was changed, the path is the same.
    before = identity(local)
    (folder / "model.onnx").write_text("{ }")
    assert identity(local) != before
    # And what it does not depend on is not.
    same = {**hosted, "api_key": "secret-key-2", "timeout": 1.0, "price": {"per_search_unit": 1.0}, "retry": 7}
    assert identity(same) == identity(hosted)
    assert "secret" not in "".join(differing)


def test_a_listwise_backend_is_cached_per_list(cache):
    with load_reranker({"use": "lexical", "cache": cache}) as reranker:
        first = reranker.rerank(QUERY, DOCUMENTS)
        assert comparable(reranker.rerank(QUERY, DOCUMENTS)) == comparable(first)
        assert hit_rate(reranker) == 0.5
        reranker.rerank(QUERY, DOCUMENTS[:2])
        reranker.rerank(QUERY, DOCUMENTS[::-1])
        assert hit_rate(reranker) == pytest.approx(3 / 11)  # of 3 + 3 + 2 + 3 documents


def test_scores_of_a_fallback_are_not_stored_for_the_failed_backend(server: CohereLike, cache):
    server.play(Status(500))
    with load_reranker(spec(server, cache, fallback=["lexical", "passthrough"])) as reranker:
        assert reranker.rerank(QUERY, DOCUMENTS).degraded
        answer = reranker.rerank(QUERY, DOCUMENTS)
        assert (answer.degraded, answer.model, len(server.requests)) == (False, "http", 2)


def test_errors_are_not_cached():
    backend = Scripted(TransientError("busy"))
    scorer = Cache(backend, MemoryStore(10), "x")
    with pytest.raises(TransientError):
        asyncio.run(scorer.ascore(REQUEST))
    assert len(asyncio.run(scorer.ascore(REQUEST)).values) == 3


def test_truncation_and_spans_are_cached(cache, tmp_path: Path):
    class Rich(Scripted):
        async def ascore(self, request):
            scores = await super().ascore(request)
            return replace(scores, truncated=(True, False, False), spans=((Span(0, 3, 0.1 + 0.2),), (), ()))

    store = DiskStore(tmp_path / "x", 9) if isinstance(cache, dict) else MemoryStore(9)
    scorer = Cache(Rich(), store, "x")
    first, second = (asyncio.run(scorer.ascore(REQUEST)) for _ in range(2))
    assert (second.values, second.truncated, second.spans) == (first.values, first.truncated, first.spans)


def test_an_estimated_truncation_is_reported_for_cached_answers(server: CohereLike, cache):
    """The vendor does not tell what it cut: the policy around the cache estimates it, each time."""
    documents = ["the moon", "tides " * 500]
    with load_reranker(spec(server, cache, http={"max_tokens": 50})) as reranker:
        first, second, mixed = (reranker.rerank(QUERY, each) for each in (documents, documents, [*documents, "new"]))
    assert {result.index: result.truncated for result in first} == {0: False, 1: True}
    assert comparable(second) == comparable(first)
    assert {result.index: result.truncated for result in mixed} == {0: False, 1: True, 2: False}


@pytest.mark.parametrize("listwise", [True, False])
def test_the_model_and_a_lists_reason_are_cached(cache, tmp_path: Path, listwise: bool):
    class Loads(Scripted):
        """Knows its dtype, and so its label, once it has answered; reads in blocks, and says so."""

        dtype = None

        @property
        def model_id(self):
            return replace(super().model_id, dtype=self.dtype)

        async def ascore(self, request):
            self.dtype = "bfloat16"
            return replace(await super().ascore(request), reason="read in 2 blocks" if listwise else None)

    store = DiskStore(tmp_path / "x", 9) if isinstance(cache, dict) else MemoryStore(9)
    backends = [Loads(capabilities=Capabilities(listwise=listwise)) for _ in range(2)]
    first, second = (asyncio.run(Cache(each, store, "x").ascore(REQUEST)) for each in backends)
    assert backends[1].calls == []
    assert (second.model, second.reason) == (first.model, first.reason) == ("scripted [bfloat16]", first.reason)


def test_the_memory_store_drops_the_least_recently_used_entry():
    async def work():
        store = MemoryStore(2)
        store.put({b"a": "1", b"b": "2"})
        await store.get([b"a"])
        store.put({b"c": "3"})
        return await store.get([b"a", b"b", b"c"]), store.state()

    assert asyncio.run(work()) == (["1", None, "3"], {"entries": 2})


def test_the_disk_store_drops_the_oldest_entries(tmp_path: Path):
    async def work():
        store = DiskStore(tmp_path / "scores", 40)
        for number in range(100):
            store.put({bytes([number]): str(number)})
        texts = await store.get([bytes([number]) for number in range(100)])
        await store.aclose()
        return [text for text in texts if text is not None]

    entries = asyncio.run(work())
    assert 40 <= len(entries) <= 42  # pruned after every twentieth of the limit
    assert entries[-1] == "99"


def test_an_expired_entry_is_a_miss(cache, tmp_path: Path, monkeypatch):
    store = DiskStore(tmp_path / "x", 9, ttl_s=60.0) if isinstance(cache, dict) else MemoryStore(9, ttl_s=60.0)
    backend = Scripted()
    scorer = Cache(backend, store, "x")
    asyncio.run(scorer.ascore(REQUEST))
    asyncio.run(scorer.ascore(REQUEST))
    assert len(backend.calls) == 1
    clock, monotonic = time.time, time.monotonic
    monkeypatch.setattr("time.time", lambda: clock() + 61.0)
    monkeypatch.setattr("time.monotonic", lambda: monotonic() + 61.0)
    asyncio.run(scorer.ascore(REQUEST))
    assert len(backend.calls) == 2
    monkeypatch.undo()
    asyncio.run(scorer.aclose())


def test_the_memory_store_works_on_a_machine_up_for_less_than_ttl_s(monkeypatch):
    """A monotonic clock counts from the machine's start."""
    store = MemoryStore(9, ttl_s=3600.0)
    store.put({b"known": "entry"})
    monotonic = time.monotonic()
    monkeypatch.setattr("time.monotonic", lambda: monotonic)
    assert asyncio.run(store.get([b"known", b"unknown"])) == ["entry", None]
    monkeypatch.setattr("time.monotonic", lambda: 5.0)
    store.put({b"new": "entry"})
    assert asyncio.run(store.get([b"new", b"unknown"])) == ["entry", None]


@pytest.mark.parametrize("ttl_s", [60.0, None])
def test_entries_dated_in_the_future_expire_and_are_dropped_first(ttl_s, tmp_path: Path, monkeypatch):
    clock = time.time

    async def work() -> tuple[list[str | None], list[str | None]]:
        store = DiskStore(tmp_path / "scores", 20, ttl_s)
        monkeypatch.setattr("time.time", lambda: clock() + 10**6)
        store.put({bytes([number]): "future" for number in range(20)})
        monkeypatch.setattr("time.time", clock)  # the clock was set back
        before = await store.get([bytes([number]) for number in range(20)])
        for number in range(100, 140):
            store.put({bytes([number]): "now"})
        after = await store.get([bytes([number]) for number in range(100, 140)])
        await store.aclose()
        return before, after

    before, after = asyncio.run(work())
    assert before == [None if ttl_s else "future"] * 20
    assert after[-15:] == ["now"] * 15


def test_a_ttl_longer_than_the_uptime_works(cache, tmp_path: Path):
    """The monotonic clock starts near 0 at boot. A missing entry must be a miss all the same."""
    ttl = time.monotonic() + 1000.0
    store = DiskStore(tmp_path / "x", 9, ttl_s=ttl) if isinstance(cache, dict) else MemoryStore(9, ttl_s=ttl)
    backend = Scripted()
    scorer = Cache(backend, store, "x")
    asyncio.run(scorer.ascore(REQUEST))
    asyncio.run(scorer.ascore(REQUEST))
    assert len(backend.calls) == 1
    asyncio.run(scorer.aclose())


def test_the_file_contains_no_text_and_no_key(server: CohereLike, tmp_path: Path):
    path = tmp_path / "scores.sqlite3"
    with load_reranker(spec(server, {"kind": "disk", "path": str(path)})) as reranker:
        reranker.rerank(QUERY, DOCUMENTS)
    content = b"".join(each.read_bytes() for each in tmp_path.iterdir())
    assert len(content) > 1000
    assert not [word for word in (b"moon", b"bananas", b"tides", server.key.encode()) if word in content]


def test_a_file_that_is_no_database_disables_the_cache_only(server: CohereLike, tmp_path: Path, caplog):
    path = tmp_path / "scores.sqlite3"
    path.write_bytes(b"this is no database" * 1000)
    with load_reranker(spec(server, {"kind": "disk", "path": str(path)})) as reranker:
        for _ in range(3):
            assert len(reranker.rerank(QUERY, DOCUMENTS)) == 4
        (state,) = reranker.stats()["backends"].values()
    assert state["cache"]["errors"] >= 3
    (warning,) = [record.getMessage() for record in caplog.records if "cannot be used" in record.getMessage()]
    assert str(path) in warning
    assert "Delete the file" in warning
    assert path.read_bytes().startswith(b"this is no database")


@pytest.mark.alone
def test_a_file_locked_by_another_process_delays_no_call(server: CohereLike, tmp_path: Path, monkeypatch):
    """Another process holds the write lock: a write waits for it, and a later read waits behind that write."""
    path = tmp_path / "scores.sqlite3"
    options = {"deadline": 1.0, "fallback": ["passthrough"]}
    with load_reranker(spec(server, {"kind": "disk", "path": str(path)}, **options)) as reranker:
        assert not reranker.rerank(QUERY, DOCUMENTS).degraded
        reranker.close()  # written
        writer = sqlite3.connect(path, isolation_level=None)
        writer.execute("BEGIN IMMEDIATE")
        answers = [reranker.rerank(f"{QUERY} {number}", DOCUMENTS) for number in range(4)]
        assert not any(answer.degraded for answer in answers)
        assert min(answer.latency_ms for answer in answers[2:]) < 400.0  # one waited for half its deadline, no more
        assert reranker.stats()["backends"]["http"]["cache"]["errors"] >= 6
        writer.execute("ROLLBACK")
        writer.close()
        clock = time.monotonic
        monkeypatch.setattr("time.monotonic", lambda: clock() + 11.0)
        assert [each.outcome for each in reranker.rerank(QUERY, DOCUMENTS).attempts] == ["cached"]


def test_queued_work_on_a_locked_file_is_dropped_together(tmp_path: Path, monkeypatch):
    """64 calls leave 64 queued writes. Closing must not wait for the lock 64 times."""
    monkeypatch.setattr("rerank_plugins.core.sqlite_file._LOCK_TIMEOUT_S", 0.2)
    monkeypatch.setattr("rerank_plugins.core.sqlite_file._READ_TIMEOUT_S", 0.1)
    store = DiskStore(tmp_path / "scores", 100)
    asyncio.run(store.get([b"made"]))
    writer = sqlite3.connect(store.path, isolation_level=None)
    writer.execute("BEGIN IMMEDIATE")
    writes, write = [], store._write
    monkeypatch.setattr(store, "_write", lambda entries: (writes.append(entries), write(entries)))
    for number in range(64):
        store.put({bytes([number]): "1"})
    asyncio.run(store.aclose())
    assert (len(writes), store.state()["errors"]) == (1, 64)
    writer.close()


@pytest.mark.parametrize("listwise", [True, False])
@pytest.mark.parametrize(
    "damage",
    [
        *("", "nonsense", "{}", "7", "null", "[" * 5000, b"\xff", '["m", null, 7]', '["m", null, []]'),
        *('["m", null, [[NaN, null, []]]]', '["m", null, [["1", null, []]]]', '["m", null, [[1, null, [7]]]]'),
        "[7, null, [[1, null, []]]]",
        *(
            f'["m", null, [[{"9" * 400}, null, []]]]',
            '["m", null, [[true, null, []]]]',
            '["m", null, [[1e999, null, []]]]',
        ),
        *('["m", null, [[1, 0, []]]]', '["m", 7, [[1, null, []]]]', '["m", null, [[1, null, [["a", 2, 1.0]]]]]'),
        *('["m", null, [[1, null, [[0, 9999, 1.0]]]]]', '["m", null, [[1, null, [[2, 1, 1.0]]]]]'),
        *('["m", null, [[1, null, [[0, 1, "x"]]]]]', f'["m", null, [[1, null, [[0, 1, {"9" * 400}]]]]]'),
    ],
    ids=lambda damage: repr(damage)[:30],
)
def test_a_damaged_entry_is_a_miss(tmp_path: Path, damage: object, listwise: bool):
    path = tmp_path / "scores.sqlite3"

    def ask() -> tuple[object, int]:
        backend = Scripted(capabilities=Capabilities(listwise=listwise))
        scorer = Cache(backend, DiskStore(path, 100), "x")
        values = asyncio.run(scorer.ascore(replace(REQUEST, documents=("one",)))).values
        asyncio.run(scorer.aclose())
        return values, len(backend.calls)

    whole = ask()
    assert whole[1] == 1
    with sqlite3.connect(path) as connection:
        assert connection.execute("UPDATE scores SET entry = ?", (damage,)).rowcount == 1
    connection.close()
    assert ask() == whole
    assert ask() == (whole[0], 0)  # mended


@pytest.mark.parametrize(
    ("value", "message"),
    [
        ("disk", "^cache must be True, False or a mapping, got a string"),
        ({"kind": "redis"}, "^cache.kind must be one of disk or memory"),
        ({"size": 3}, "max_entries"),
        ({"max_entries": 0}, "at least 1"),
        ({"ttl_s": -1}, "seconds above 0"),
        ({"path": "/tmp/x"}, r"^cache\.path belongs to kind 'disk'"),
        ({"kind": "disk", "path": 7}, "path of a file"),
    ],
)
def test_invalid_options_raise(value, message: str):
    with pytest.raises(ConfigError, match=message):
        load_reranker({"use": "lexical", "cache": value})


def test_a_folder_as_path_raises(tmp_path: Path):
    with pytest.raises(ConfigError, match="is a folder: name a file in it"):
        load_reranker({"use": "lexical", "cache": {"kind": "disk", "path": str(tmp_path)}})
    (tmp_path / "file").write_text("")
    with pytest.raises(ConfigError, match="cannot be created"):
        load_reranker({"use": "lexical", "cache": {"kind": "disk", "path": str(tmp_path / "file" / "scores")}})


def test_a_path_where_no_file_can_be_raises(tmp_path: Path, monkeypatch):
    for path in (tmp_path / ("x" * 300) / "scores", tmp_path / "a\0b", "~no-such-user-here/scores"):
        with pytest.raises(ConfigError, match=r"cache\.path"):
            load_reranker({"use": "lexical", "cache": {"kind": "disk", "path": path}})

    def homeless() -> Path:
        raise RuntimeError("Could not determine home directory.")

    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    monkeypatch.setattr(Path, "home", homeless)  # a container's user that is in no list
    with pytest.raises(ConfigError, match="home folder is not known"):
        load_reranker({"use": "lexical", "cache": {"kind": "disk"}})


def test_a_file_that_cannot_be_created_disables_the_cache_only(tmp_path: Path):
    path = tmp_path / "scores"
    path.symlink_to(tmp_path / "gone" / "scores")  # even root cannot write there
    with load_reranker({"use": "lexical", "cache": {"kind": "disk", "path": path}}) as reranker:
        assert len(reranker.rerank(QUERY, DOCUMENTS)) == 4
        assert reranker.stats()["backends"]["lexical"]["cache"]["errors"] >= 1


def test_a_disk_cache_with_a_users_client_raises():
    import cohere

    client = cohere.AsyncClientV2("key")
    with pytest.raises(ConfigError, match="cache = true"):
        load_reranker({"use": "cohere", "cohere": {"client": client}, "cache": {"kind": "disk"}})


def test_an_instant_backend_is_not_cached():
    assert load_reranker({"use": "passthrough", "cache": True}).stats()["backends"] == {}
    assert load_reranker({"use": "lexical", "cache": False}).stats()["backends"] == {}


WRITER = """
import asyncio, itertools, sys
from pathlib import Path
from rerank_plugins.policies.sqlite_store import DiskStore

async def main():
    store = DiskStore(Path(sys.argv[1]), 5_000)
    mark = sys.argv[2]
    for number in itertools.count():
        names = [f"{mark} {number} {each}".encode() for each in range(50)]
        store.put({name: name.decode() for name in names})
        found = await store.get(names)
        assert found == [name.decode() for name in names], found
        assert not store.state()["errors"]
        if number in (5, 60):
            print(number, flush=True)
        if number == 60:
            await store.aclose()
            return

asyncio.run(main())
"""


def test_two_processes_share_the_file_and_one_may_be_killed(tmp_path: Path):
    path = tmp_path / "scores.sqlite3"

    def start(mark: str) -> subprocess.Popen[str]:
        arguments = [sys.executable, "-c", WRITER, str(path), mark]
        return subprocess.Popen(arguments, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)

    killed, survivor = start("a"), start("b")
    assert killed.stdout.readline() == "5\n"  # in the middle of its work
    killed.send_signal(signal.SIGKILL)
    output, errors = survivor.communicate(timeout=60)
    killed.communicate(timeout=60)
    assert (output, survivor.returncode) == ("5\n60\n", 0), errors
    assert killed.returncode == -signal.SIGKILL
    with sqlite3.connect(path) as connection:
        assert connection.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
        for name, entry in connection.execute("SELECT name, entry FROM scores"):
            assert name.decode() == entry
    connection.close()


def test_opening_waits_for_a_process_that_creates_the_file(tmp_path: Path, monkeypatch):
    """If two processes create the file at once, SQLite refuses the second one's switch to WAL without waiting."""
    path = tmp_path / "scores.sqlite3"
    other = sqlite3.connect(path, isolation_level=None, check_same_thread=False)
    other.execute("BEGIN IMMEDIATE")
    waits = []

    def wait(seconds: float) -> None:
        waits.append(seconds)
        if other.in_transaction:
            other.execute("ROLLBACK")

    monkeypatch.setattr("rerank_plugins.core.sqlite_file.time.sleep", wait)
    store = DiskStore(path, 100)

    async def write_and_read() -> list[str | None]:
        store.put({b"name": "entry"})
        return list(await store.get([b"name"]))

    assert asyncio.run(write_and_read()) == ["entry"]
    assert store.state()["errors"] == 0
    assert waits
    asyncio.run(store.aclose())
    other.close()


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system has no fork")
def test_a_forked_child_opens_its_own_connection(tmp_path: Path):
    """A child that uses its parent's connection takes the parent's locks for its own, and may corrupt the file."""
    options = {"use": "lexical", "cache": {"kind": "disk", "path": str(tmp_path / "scores")}}
    with load_reranker(options) as reranker:
        first = reranker.rerank(QUERY, DOCUMENTS)
        child = os.fork()
        if not child:
            again = reranker.rerank(QUERY, DOCUMENTS)
            fresh = reranker.rerank("another query", DOCUMENTS)
            reranker.close()  # waits for the write, which the call does not wait for
            os._exit(0 if comparable(again) == comparable(first) and not fresh.degraded else 1)
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
        seen = reranker.rerank("another query", DOCUMENTS)
    assert [each.outcome for each in seen.attempts] == ["cached"]


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system has no fork")
@pytest.mark.parametrize("begun", [False, True])
def test_a_fork_during_a_write_loses_no_entry(tmp_path: Path, begun: bool):
    """The fork waits for the write under way; without that the child starts with the lock held, and hangs."""
    store = DiskStore(tmp_path / "scores", 100_000)
    if begun:
        asyncio.run(store.get([b"nothing"]))
    store.put({str(number).encode(): "e" * 50 for number in range(20_000)})
    child = os.fork()
    if not child:
        store.put({b"the child's": "1"})
        asyncio.run(store.aclose())
        os._exit(store.state()["errors"])
    store.put({b"the parent's": "2"})
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    assert asyncio.run(store.get([b"0", b"19999", b"the child's", b"the parent's"])) == ["e" * 50, "e" * 50, "1", "2"]
    assert store.state()["errors"] == 0
    asyncio.run(store.aclose())


def test_degraded_answers_and_those_of_other_models_are_not_cached():
    class Weak(Scripted):
        async def ascore(self, request):
            scores = await super().ascore(request)
            return (
                replace(scores, degraded=True, reason="tired") if len(self.calls) == 1 else replace(scores, model="x")
            )

    backend = Weak()
    scorer = Cache(backend, MemoryStore(10), "x")
    first, second = (asyncio.run(scorer.ascore(REQUEST)) for _ in range(2))
    assert (first.degraded, first.reason, second.model) == (True, "tired", "x")
    asyncio.run(scorer.ascore(REQUEST))
    assert len(backend.calls) == 3


@pytest.mark.parametrize(
    ("capabilities", "sent_again"),
    [
        (Capabilities(refuses=True), ["a refused one"]),
        (Capabilities(refuses=True, joint=True), ["the moon", "a refused one", "tides"]),
        (Capabilities(refuses=True, listwise=True), ["the moon", "a refused one", "tides"]),
        (Capabilities(), ["the moon", "a refused one", "tides"]),  # a cascade behind the server skipped it
    ],
    ids=["pointwise", "joint", "listwise", "skipped"],
)
def test_a_refused_document_keeps_only_itself_out_of_the_cache(capabilities: Capabilities, sent_again: list[str]):
    class Refuses(Scripted):
        async def ascore(self, request):
            scores = await super().ascore(request)
            refused = ["refused" in text for text in request.documents]
            values = tuple(None if no else value for no, value in zip(refused, scores.values, strict=True))
            return replace(scores, values=values, reasons=tuple("declined" if no else None for no in refused))

    backend = Refuses(capabilities=capabilities)
    scorer = Cache(backend, MemoryStore(10), "x")
    request = RerankRequest(query="q", documents=("the moon", "a refused one", "tides"))
    first, second = (asyncio.run(scorer.ascore(request)) for _ in range(2))
    assert [list(sent.documents) for _, sent in backend.calls] == [list(request.documents), sent_again]
    assert (second.values, second.reasons) == (first.values, first.reasons)


def test_a_call_of_which_all_but_a_refused_document_is_cached_has_an_answer():
    with ChatServer() as server:
        server.always(Declined(1), when=lambda request: request.documents == ["bananas are yellow"])
        reranker = load_reranker(
            {"use": "chat:m", "base_url": server.url, "cache": True, "retry": 1, "api_key": server.key, **LOGPROBS}
        )
        first, second = (reranker.rerank(QUERY, DOCUMENTS) for _ in range(2))
        assert [each.documents for each in server.requests[3:]] == [["bananas are yellow"]]
    assert comparable(first).results == comparable(second).results
