"""Keys that change while the process runs: from files and functions, against servers that accept one key only."""

from __future__ import annotations

import asyncio
import json
import logging
import os
import pickle
import threading
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from support.virtual_time import virtually

from rerank_plugins import AuthenticationFailed, ConfigError, DeadlineExceeded, TransientError, load_reranker
from rerank_plugins.config import shared
from rerank_plugins.core import AccessToken, FunctionKey
from rerank_plugins.core.key_file import file_key
from rerank_plugins.core.secret import Secret
from rerank_plugins.langchain import RerankCompressor
from rerank_plugins.testing.cohere_like import CohereLike
from rerank_plugins.testing.vendors import VENDORS

OLD, NEW = "old-key-0123456789", "new-key-0123456789"
QUERY, DOCUMENTS = "red apple", ["a red car", "a red apple", "bananas"]
WORKER = "rerank-plugins-key-function"


@pytest.fixture
def server() -> Iterator[CohereLike]:
    with CohereLike(key=NEW) as running:
        yield running


def spec_of(server: Any, api_key: Any, **options: Any) -> dict[str, Any]:
    return {"use": "http", "base_url": server.url, "api_key": api_key, **options}


def keys_sent(server: Any) -> list[str]:
    return [request.headers["authorization"].removeprefix("Bearer ") for request in server.requests]


class Counted:
    """A key function that returns one key after the other, and the last one again and again."""

    def __init__(self, *keys: Any) -> None:
        self.keys = list(keys)
        self.threads: list[str] = []

    @property
    def calls(self) -> int:
        return len(self.threads)

    def __call__(self) -> Any:
        self.threads.append(threading.current_thread().name)
        key = self.keys[min(self.calls, len(self.keys)) - 1]
        if isinstance(key, BaseException):
            raise key
        return key


def module_key() -> str:
    return NEW


# --- files ---


def test_a_rotated_key_file_is_used_by_the_next_request_of_the_same_reranker(server, tmp_path):
    file = tmp_path / "key"
    file.write_text(NEW + "\n", "utf-8")
    reranker = shared(spec_of(server, f"file:{file}"))
    assert reranker.rerank(QUERY, DOCUMENTS)[0].index == 1
    server.key = "a third key"
    replacement = tmp_path / "..data"
    replacement.write_text("a third key\r\n", "utf-8")
    replacement.replace(file)  # as Kubernetes does
    assert shared(spec_of(server, f"file:{file}")) is reranker
    response = reranker.rerank(QUERY, DOCUMENTS)
    assert keys_sent(server) == [NEW, "a third key"]
    assert [attempt.outcome for attempt in response.attempts] == ["answered"]


def test_a_refused_key_is_read_again_although_the_file_looks_unchanged(server, tmp_path):
    file = tmp_path / "key"
    file.write_text(OLD, "utf-8")
    reranker = load_reranker(spec_of(server, f"file:{file}"))
    before = file.stat()
    with file.open("r+", encoding="utf-8") as opened:  # the same file, size and time
        opened.write(NEW)
    os.utime(file, ns=(before.st_atime_ns, before.st_mtime_ns))
    response = reranker.rerank(QUERY, DOCUMENTS)
    assert keys_sent(server) == [OLD, NEW]
    assert [(each.outcome, each.status, each.remote) for each in response.attempts] == [
        ("AuthenticationFailed", 401, True),
        ("answered", 200, True),
    ]
    assert response.usage.requests == 2


def test_a_key_that_is_refused_and_unchanged_is_sent_once(server, tmp_path):
    file = tmp_path / "key"
    file.write_text(OLD, "utf-8")
    with pytest.raises(AuthenticationFailed):
        load_reranker(spec_of(server, f"file:{file}")).rerank(QUERY, DOCUMENTS)
    assert keys_sent(server) == [OLD]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "which is empty"),
        (b"\n \n", "which is empty"),
        (b"k" * 70_000, "more than 65,536 bytes"),
        (b"\x7fELF\x02\x01\x00\x00", "not text"),
        (b"key\xff", "not text"),
        (b"first-key\nsecond-key\n", "more than one line"),
    ],
)
def test_a_file_that_holds_no_key_is_refused_by_name(content, message, tmp_path):
    file = tmp_path / "key"
    file.write_bytes(content)
    with pytest.raises(ConfigError, match=message) as caught:
        load_reranker({"use": "jina-api", "api_key": f"file:{file}"})
    assert str(file) in str(caught.value)
    assert "first-key" not in str(caught.value)


def test_a_missing_file_a_folder_and_a_pipe_are_refused_by_name(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    cases = ((tmp_path / "none", "No such file"), (tmp_path, "not a regular file"))
    for path, message in (*cases, (tmp_path / "pipe", "not a regular file")):
        with pytest.raises(ConfigError, match=message) as caught:
            load_reranker({"use": "jina-api", "api_key": f"file:{path}"})
        assert str(path) in str(caught.value)


def test_the_byte_order_mark_and_the_end_of_the_line_are_no_part_of_the_key(server, tmp_path):
    file = tmp_path / "key"
    file.write_bytes(b"\xef\xbb\xbf" + NEW.encode() + b"\r\n")
    load_reranker(spec_of(server, f"file:{file}")).rerank(QUERY, DOCUMENTS)
    assert keys_sent(server) == [NEW]


def test_the_last_key_is_used_while_the_file_is_being_replaced(server, tmp_path, caplog):
    file = tmp_path / "key"
    file.write_text(NEW, "utf-8")
    reranker = load_reranker(spec_of(server, f"file:{file}"))
    file.unlink()
    with caplog.at_level(logging.WARNING, "rerank_plugins"):
        assert reranker.rerank(QUERY, DOCUMENTS)[0].index == 1
        reranker.rerank(QUERY, DOCUMENTS)
    assert len(caplog.records) == 1
    assert "The last key is used" in caplog.text
    assert NEW not in caplog.text


# --- functions ---


async def test_concurrent_calls_and_parts_of_a_call_share_one_call_of_the_function(server):
    function = Counted(NEW)
    documents = [f"a red apple {number}" for number in range(12)]
    reranker = load_reranker(spec_of(server, function, http={"max_documents": 2}))
    responses = await asyncio.gather(*(reranker.arerank(QUERY, documents) for _ in range(5)))
    assert [len(response) for response in responses] == [12] * 5
    assert len(server.requests) == 30
    assert function.calls == 1
    await asyncio.gather(*(asyncio.to_thread(reranker.rerank, QUERY, DOCUMENTS) for _ in range(5)))
    assert function.calls == 1


async def test_a_blocking_function_runs_off_the_event_loop(server):
    """The function waits for the event loop: on the loop it would wait for ever."""
    may_return = threading.Event()
    threads = []

    def function() -> str:
        threads.append(threading.current_thread().name)
        assert may_return.wait(30)
        return NEW

    reranker = load_reranker(spec_of(server, function))
    call = asyncio.create_task(reranker.arerank(QUERY, DOCUMENTS))
    while not threads:
        await asyncio.sleep(0)
    may_return.set()
    assert (await call)[0].index == 1
    assert threads[0].startswith(WORKER)


async def test_a_coroutine_function_runs_on_the_event_loop_of_the_caller(server):
    loops = []

    async def function() -> str:
        loops.append(asyncio.get_running_loop())
        await asyncio.sleep(0)
        return NEW

    for form in (function, partial(function), lambda: function()):  # noqa: PLW0108 (it is not a coroutine function)
        await load_reranker(spec_of(server, form)).arerank(QUERY, DOCUMENTS)
    assert loops == [asyncio.get_running_loop()] * 3


async def test_a_refused_key_is_fetched_once_for_all_callers(server):
    function = Counted(OLD, NEW)
    reranker = load_reranker(spec_of(server, function))
    responses = await asyncio.gather(*(reranker.arerank(QUERY, DOCUMENTS) for _ in range(8)))
    assert {response[0].index for response in responses} == {1}
    assert function.calls == 2
    assert sorted(keys_sent(server)) == [NEW] * 8 + [OLD] * 8


def test_a_function_that_returns_the_refused_key_again_is_not_called_by_every_request(server):
    function = Counted(OLD)
    reranker = load_reranker(spec_of(server, function))
    for _ in range(5):
        with pytest.raises(AuthenticationFailed):
            reranker.rerank(QUERY, DOCUMENTS)
    assert function.calls == 2
    assert len(server.requests) == 5


@pytest.mark.parametrize(
    ("returned", "kind", "message"),
    [
        (OSError("the key store is down"), TransientError, "raised OSError: the key store is down"),
        (ValueError("not JSON"), TransientError, "raised ValueError"),
        (TypeError("no such argument"), ConfigError, "raised TypeError.*Correct the function"),
        (None, ConfigError, "must return a key.*got None"),
        ("", ConfigError, "got an empty string"),
        (b"bytes", ConfigError, "got bytes"),
        ("two\nlines", ConfigError, "line break"),
        (AccessToken(None), ConfigError, "got None"),  # type: ignore[arg-type]
        (AccessToken(NEW, expires_at=float("nan")), ConfigError, "Counted: AccessToken.expires_at must be a finite"),
        (AccessToken(NEW, expires_at=float("inf")), ConfigError, "got inf.*or None if the end is unknown"),
        (DeadlineExceeded("too slow"), DeadlineExceeded, "too slow"),
    ],
    ids=repr,
)
def test_what_a_function_raises_or_returns_is_a_typed_error(server, returned, kind, message):
    with pytest.raises(kind, match=message):
        load_reranker(spec_of(server, Counted(returned), retry=1)).rerank(QUERY, DOCUMENTS)
    assert server.requests == []


@pytest.mark.parametrize("is_async", [False, True])
@pytest.mark.parametrize("error", [asyncio.CancelledError(), SystemExit(1), KeyboardInterrupt()], ids=repr)
def test_an_exception_that_is_no_error_of_the_function_is_a_typed_error_too(server, error, is_async):
    """A function that awaits a shared task raises `CancelledError` if that was cancelled, but nobody cancelled it."""
    function = Counted(error)

    async def coroutine_function() -> Any:
        return function()

    spec = spec_of(server, coroutine_function if is_async else function, retry=1, timeout=5.0)
    with pytest.raises(TransientError, match=f"raised {type(error).__name__}"):
        load_reranker(spec).rerank(QUERY, DOCUMENTS)
    assert function.calls == 1


def test_an_error_of_the_function_shows_no_text_that_looks_like_a_key(server):
    function = Counted(RuntimeError(f"refused {OLD}"))
    with pytest.raises(TransientError) as caught:
        load_reranker(spec_of(server, function, retry=1)).rerank(QUERY, DOCUMENTS)
    assert OLD not in str(caught.value)
    assert caught.value.__cause__ is None


def test_a_fallback_answers_while_the_function_fails_and_not_after(server):
    function = Counted(OSError("down"), NEW)
    reranker = load_reranker(spec_of(server, function, retry=1, fallback=["lexical"]))
    assert reranker.rerank(QUERY, DOCUMENTS).model == "lexical"
    assert reranker.rerank(QUERY, DOCUMENTS).model == "http"


async def test_a_function_that_hangs_does_not_hold_up_other_keys(tmp_path):
    """Callers that give up leave its threads behind. Files and other functions have threads of their own."""
    (tmp_path / "key").write_text(NEW, "utf-8")
    may_return, started = threading.Event(), threading.Semaphore(0)

    def hanging() -> str:
        started.release()
        assert may_return.wait(60)
        return NEW

    source = FunctionKey(hanging)

    async def give_up(number: int) -> None:
        caller = asyncio.create_task(source.aget())
        for _ in range(5):  # the steps until the function is queued
            await asyncio.sleep(0)
        if number < 2:
            assert started.acquire(timeout=30)
        caller.cancel()

    try:
        for number in range(12):
            await asyncio.to_thread(asyncio.run, give_up(number))
        async with asyncio.timeout(30):
            assert await file_key(str(tmp_path / "key")).aget() == Secret(NEW)
            assert await FunctionKey(Counted(OLD)).aget() == Secret(OLD)
    finally:
        may_return.set()
    assert await source.aget() == Secret(NEW), "its threads are free again"


async def test_a_caller_that_gives_up_does_not_end_the_call_for_the_others(server):
    """Both wait for one call of the function: cancelling one must not cancel what the other waits for."""
    may_return, calls = threading.Event(), []

    def function() -> str:
        calls.append(1)
        assert may_return.wait(30)
        return NEW

    patient = asyncio.create_task(load_reranker(spec_of(server, function)).arerank(QUERY, DOCUMENTS))
    hurried = asyncio.create_task(load_reranker(spec_of(server, function, deadline=0.05)).arerank(QUERY, DOCUMENTS))
    with pytest.raises(DeadlineExceeded):
        await hurried
    may_return.set()
    assert (await patient)[0].index == 1
    assert len(calls) == 1


def test_a_function_that_does_not_return_is_an_error_after_the_timeout(server):
    may_return = threading.Event()
    with pytest.raises(TransientError, match=r"the function .*wait.* returned no key within 0\.05 s"):
        load_reranker(spec_of(server, may_return.wait, timeout=0.05, retry=1)).rerank(QUERY, DOCUMENTS)
    may_return.set()


def test_an_event_loop_that_ends_does_not_leave_other_callers_waiting(server):
    started: list[int] = []

    async def function() -> str:
        started.append(1)
        if len(started) == 1:
            await asyncio.Event().wait()
        return NEW

    reranker = load_reranker(spec_of(server, function))

    async def give_up() -> None:
        task = asyncio.create_task(reranker.arerank(QUERY, DOCUMENTS))
        while not started:
            await asyncio.sleep(0)
        task.cancel()

    asyncio.run(give_up())
    assert reranker.rerank(QUERY, DOCUMENTS)[0].index == 1


async def test_a_call_that_ends_before_the_function_starts_leaves_no_caller_waiting():
    """A task that is cancelled before its first step runs no `finally`."""
    function = Counted(NEW)
    source = FunctionKey(function)

    waiter = asyncio.create_task(source.aget())
    await asyncio.sleep(0)  # it has started the call of the function, which has not taken its first step
    fetch = source._fetch
    for task in list(source._tasks):
        task.cancel()
    assert await waiter == Secret(NEW), "the waiting caller called the function itself"
    assert fetch.outcome.result() is None
    assert function.calls == 1


async def test_a_sync_call_does_not_wait_for_a_function_on_the_event_loop_that_it_blocks(server):
    """As in a notebook: the coroutine function cannot go on before the sync call returns."""
    started: list[int] = []
    may_return = asyncio.Event()

    async def function() -> str:
        started.append(1)
        if len(started) == 1:
            await may_return.wait()
        return NEW

    reranker = load_reranker(spec_of(server, function, timeout=20))
    first = asyncio.create_task(reranker.arerank(QUERY, DOCUMENTS))
    while not started:
        await asyncio.sleep(0)
    assert reranker.rerank(QUERY, DOCUMENTS)[0].index == 1
    may_return.set()
    assert (await first)[0].index == 1


# --- tokens that expire ---


def timeline(returned: Callable[[int], Any], moments: list[float]) -> list[Any]:
    """Ask a source for its key at some moments (virtual seconds), and return the keys, and the number of calls."""
    calls: list[int] = []

    async def function() -> Any:
        calls.append(1)
        result = returned(len(calls))
        if isinstance(result, Exception):
            raise result
        return result

    async def work() -> list[Any]:
        source, seen = FunctionKey(function), []
        loop = asyncio.get_running_loop()
        started = loop.time()
        for moment in moments:
            await asyncio.sleep(started + moment - loop.time())
            try:
                seen.append((await source.aget()).reveal())
            except TransientError:
                seen.append("error")
            await asyncio.sleep(0.001)  # a call that runs beside the requests ends
        return [seen, len(calls)]

    result, _ = virtually(work)
    assert isinstance(result, list), result
    return result


def test_a_token_is_refreshed_before_its_end_beside_the_requests():
    hour = 3_600.0
    wall = time.time()
    seen, calls = timeline(
        lambda call: AccessToken(f"token {call}", expires_at=wall + call * hour), [0.0, 3_290.0, 3_310.0, 3_311.0]
    )
    # At 3,310 s the first token has 290 s left: it is used once more, while the next one is fetched.
    assert (seen, calls) == (["token 1", "token 1", "token 1", "token 2"], 2)


def test_a_short_token_is_refreshed_when_a_fifth_of_its_life_is_left():
    wall = time.time()
    seen, calls = timeline(
        lambda call: AccessToken(f"token {call}", expires_at=wall + 60.0 * call), [0.0, 47.0, 49.0, 50.0]
    )
    assert (seen, calls) == (["token 1", "token 1", "token 1", "token 2"], 2)


def test_a_valid_token_is_used_while_it_cannot_be_refreshed_and_an_expired_one_is_not(caplog):
    wall = time.time()
    with caplog.at_level(logging.WARNING, "rerank_plugins"):
        seen, calls = timeline(
            lambda call: AccessToken("token 1", expires_at=wall + 60.0) if call == 1 else OSError("down"),
            [0.0, 50.0, 50.1, 50.2, 55.0, 61.0],
        )
    assert seen == ["token 1"] * 5 + ["error"]
    assert calls == 4, "a request within a second of a failure does not call the function again"
    assert len(caplog.records) == 1


def test_a_token_that_has_ended_is_fetched_once_a_second():
    """The clock of the token server may be behind, or the function may return a stored token."""
    wall = time.time()
    seen, calls = timeline(lambda call: AccessToken(f"token {call}", expires_at=wall - 5.0), [0.0, 0.1, 0.9, 1.1])
    assert (seen, calls) == (["token 1", "token 1", "token 1", "token 2"], 2)


def test_keys_that_are_all_refused_are_fetched_once_a_second():
    """The vendor refuses each token, since the account has no access: each call must not fetch one more."""
    calls: list[int] = []

    async def function() -> str:
        calls.append(1)
        return f"token {len(calls)}"

    async def work() -> list[str]:
        source = FunctionKey(function)
        seen = [await source.aget()]
        for _ in range(3):
            seen.append(await source.arefresh(seen[-1]))
        await asyncio.sleep(1.1)
        seen.append(await source.arefresh(seen[-1]))
        return [key.reveal() for key in seen]

    async def cut() -> Secret:
        """A caller whose deadline ends during the refresh counts too."""
        source = FunctionKey(function)
        first = await source.aget()
        waiter = asyncio.create_task(source.arefresh(first))
        await asyncio.sleep(0)
        waiter.cancel()
        await asyncio.sleep(0.001)
        return await source.arefresh(await source.aget())

    assert virtually(work)[0] == ["token 1", "token 2", "token 2", "token 2", "token 3"]
    assert virtually(cut)[0] == Secret("token 5")
    assert len(calls) == 5


def test_a_plain_string_is_fetched_again_after_a_minute_and_kept_if_that_fails():
    assert timeline(lambda call: f"key {call}", [0.0, 59.0, 61.0]) == [["key 1", "key 1", "key 2"], 2]
    seen, calls = timeline(lambda call: "key 1" if call == 1 else OSError("down"), [0.0, 61.0])
    assert (seen, calls) == (["key 1", "key 1"], 2)


# --- SDKs, sharing, secrecy ---


@pytest.mark.parametrize("name", VENDORS)
async def test_every_vendor_takes_a_key_that_rotates(name, tmp_path):
    """Vendors behind an SDK too: their client is built once, and must not hold the first key."""
    file = tmp_path / "key"
    file.write_text(OLD, "utf-8")
    with VENDORS[name](key=NEW) as server:
        for api_key in (Counted(OLD, NEW), f"file:{file}"):
            reranker = load_reranker({"use": name, "base_url": server.url, "api_key": api_key})
            if isinstance(api_key, str):
                with pytest.raises(AuthenticationFailed):
                    await reranker.arerank(QUERY, DOCUMENTS)
                file.write_text(NEW, "utf-8")
            assert (await reranker.arerank(QUERY, DOCUMENTS))[0].index == 1
            await reranker.aclose()


def test_an_atlas_key_of_a_function_goes_to_the_address_of_atlas(monkeypatch):
    """The address of Voyage depends on the key, which is not known when the reranker is built."""
    with VENDORS["voyage"](key="al-key-0123456789") as server:
        monkeypatch.setattr("rerank_plugins.backends.voyage.ATLAS", server.url)
        reranker = load_reranker("voyage", api_key=Counted("al-key-0123456789"), retry=1)
        assert reranker.rerank(QUERY, DOCUMENTS)[0].index == 1
        reranker.close()


def test_rerankers_with_the_same_function_share_its_key_and_the_process_wide_table(server):
    function = Counted(NEW)
    first, second = load_reranker(spec_of(server, function)), load_reranker(spec_of(server, function, top_n=1))
    first.rerank(QUERY, DOCUMENTS)
    second.rerank(QUERY, DOCUMENTS)
    assert function.calls == 1

    class Store:
        def key(self) -> str:
            return NEW

    store = Store()
    assert shared(spec_of(server, store.key)) is shared(spec_of(server, store.key))
    assert shared(spec_of(server, store.key)) is not shared(spec_of(server, Store().key))


def test_a_function_of_a_module_is_pickled_by_name_and_others_are_refused(server):
    reranker = load_reranker(spec_of(server, module_key))
    reranker.rerank(QUERY, DOCUMENTS)
    pickled = pickle.dumps(reranker)
    assert NEW.encode() not in pickled
    assert pickle.loads(pickled).rerank(QUERY, DOCUMENTS)[0].index == 1
    adapter = RerankCompressor(reranker=spec_of(server, module_key))
    assert pickle.loads(pickle.dumps(adapter)).reranker["api_key"] == FunctionKey(module_key)
    nested = load_reranker({"use": "lexical", "fallback": [spec_of(server, module_key)]})
    assert pickle.loads(pickle.dumps(nested)).spec == nested.spec
    for function in (lambda: NEW, partial(str, NEW), Counted(NEW)):
        for holder in (load_reranker(spec_of(server, function)), RerankCompressor(reranker=spec_of(server, function))):
            with pytest.raises(TypeError, match="cannot be pickled by its name"):
                pickle.dumps(holder)


def test_a_key_from_a_function_or_a_file_is_shown_nowhere(server, tmp_path):
    file = tmp_path / "key"
    file.write_text(NEW, "utf-8")
    for api_key in (partial(str, NEW), f"file:{file}"):
        reranker = load_reranker(spec_of(server, api_key))
        response = reranker.rerank(QUERY, DOCUMENTS)
        adapter = RerankCompressor(reranker=spec_of(server, api_key))
        (backend,) = [scorer for scorer in reranker.scorer.walk() if not scorer.children]
        shown = [reranker, reranker.spec, vars(backend), backend.label, backend.fingerprint, adapter, response.attempts]
        shown += [adapter.model_dump_json(), json.dumps(reranker.stats()), json.dumps(reranker.check().to_dict())]
        assert NEW not in repr(shown)
        assert backend.account == backend.account


def test_a_function_is_no_value_of_other_options(server):
    with pytest.raises(ConfigError, match="base_url"):
        load_reranker({"use": "http", "base_url": module_key})
    for place in ({"body": {"api_key": module_key}}, {"headers": {"x-key": module_key}}):
        with pytest.raises(ConfigError, match=r"http\.(body|headers)"):
            load_reranker(spec_of(server, NEW, http=place))
    with pytest.raises(ConfigError, match=r"api_key.*got 5"):
        load_reranker(spec_of(server, 5))


def test_a_forked_child_fetches_its_own_key(server):
    function = Counted(OLD, NEW)
    reranker = load_reranker(spec_of(server, function))
    assert reranker.rerank(QUERY, DOCUMENTS)[0].index == 1
    if (child := os.fork()) == 0:
        code = 1
        try:
            code = 0 if reranker.rerank(QUERY, DOCUMENTS)[0].index == 1 else 2
        finally:
            os._exit(code)
    assert os.waitpid(child, 0)[1] == 0


def test_a_relative_path_is_that_of_the_working_folder_when_the_reranker_is_built(server, tmp_path, monkeypatch):
    (tmp_path / "key").write_text(NEW, "utf-8")
    monkeypatch.chdir(tmp_path)
    reranker = load_reranker(spec_of(server, "file:key"))
    monkeypatch.chdir(Path("/"))
    assert reranker.rerank(QUERY, DOCUMENTS)[0].index == 1
