"""Where work runs: loops that come and go, threads, forks, Ctrl-C, and the end of the interpreter."""

from __future__ import annotations

import asyncio
import contextlib
import contextvars
import itertools
import os
import signal
import subprocess
import sys
import textwrap
import threading
import traceback
from collections.abc import Callable, Iterator, Sequence
from contextvars import ContextVar
from pathlib import Path

import psutil
import pytest
from bounds import SAME_INPUT, near
from heartbeat import LONGEST_HOLD, smallest_hold

from rerank_plugins import BackendError, ConfigError, Reranker, TransientError, load_reranker
from rerank_plugins.core import Backend, LocalBackend
from rerank_plugins.core.call import bind_response_metadata, record_attempts
from rerank_plugins.core.loop import WorkCancelled, Workers, check_cancelled, run_sync
from rerank_plugins.testing.cohere_like import CohereLike
from rerank_plugins.testing.laws import raw_scores
from rerank_plugins.testing.server import VendorServer
from rerank_plugins.testing.vendors import CohereServer

QUERY = "how do the tides work"
DOCUMENTS = ["The moon raises the tides.", "Bananas are yellow.", "The sun pulls the sea too."]


@pytest.fixture
def server() -> Iterator[VendorServer]:
    with CohereLike() as running:
        yield running


def http(server: VendorServer, **options) -> Reranker:
    return load_reranker({"use": "http", "base_url": server.url, "api_key": server.key, **options})


# Work on threads ------------------------------------------------------------------------------------------------------


async def test_work_whose_caller_stopped_waiting_ends_at_its_next_check() -> None:
    workers, started, ended = Workers(1, "test"), threading.Event(), threading.Event()

    def work() -> None:
        started.set()
        try:
            while True:
                check_cancelled()
        except WorkCancelled:
            ended.set()
            raise

    task = asyncio.create_task(workers.run(work))
    while not started.is_set():
        await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert await workers.run(ended.wait, 10)  # the only thread is free again
    assert await workers.run(check_cancelled) is None  # another job is not stopped by it
    check_cancelled()  # nor the event loop
    workers.close()


# Loops ----------------------------------------------------------------------------------------------------------------


def every_policy(folder: Path) -> dict[str, object]:
    """The options that hold state: a file, counts, a queue."""
    return {
        "limit": {"requests_per_minute": 10_000, "tokens_per_minute": 10**8},
        "breaker": True,
        "cache": {"kind": "disk", "path": str(folder / "scores.sqlite3"), "max_entries": 2},
        "deadline": 30.0,
        "fallback": ["lexical", "passthrough"],
    }


@pytest.mark.parametrize("policies", [False, True], ids=["plain", "every policy"])
def test_200_loops_leave_no_descriptor_behind(policies: bool, server: VendorServer, tmp_path: Path) -> None:
    reranker, process = http(server, **(every_policy(tmp_path) if policies else {})), psutil.Process()
    asyncio.run(reranker.arerank(QUERY, DOCUMENTS))
    assert server.wait_until(lambda: server.connections == 0)
    before = process.num_fds()
    for number in range(200):
        asyncio.run(reranker.arerank(f"{QUERY} {number}", DOCUMENTS))
    assert server.wait_until(lambda: server.connections == 0)
    assert process.num_fds() <= before
    assert len(server.requests) == 201
    backend = reranker.scorer
    while not isinstance(backend, Backend):
        (backend, *_) = backend.children
    assert len(backend.transport._clients._slots) == 0  # nor a client
    reranker.close()


@pytest.mark.parametrize("policies", [False, True], ids=["plain", "every policy"])
def test_two_loops_in_two_threads(policies: bool, server: VendorServer, tmp_path: Path) -> None:
    reranker = http(server, **(every_policy(tmp_path) if policies else {}))
    expected = raw_scores(reranker.rerank(QUERY, DOCUMENTS))
    both, found = threading.Barrier(2), []

    async def several() -> list[list[float]]:
        both.wait()
        answers = await asyncio.gather(*(reranker.arerank(QUERY, DOCUMENTS) for _ in range(20)))
        return [raw_scores(answer) for answer in answers]

    threads = [threading.Thread(target=lambda: found.extend(asyncio.run(several()))) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    assert found == [expected] * 40
    reranker.close()


@pytest.mark.parametrize("stays", [True, False], ids=["a loop that goes on", "a loop that ends"])
def test_a_sync_close_on_the_loop_that_has_the_connections_does_not_wait_for_it(stays: bool) -> None:
    """`with load_reranker(…)` in an `async def`, or a notebook: the loop cannot close them while it waits for the close."""
    done = in_a_new_interpreter(
        """
        import asyncio, faulthandler, gc, sys
        from rerank_plugins import load_reranker
        from rerank_plugins.testing.cohere_like import CohereLike

        faulthandler.dump_traceback_later(20, exit=True)

        async def main():
            with load_reranker({"use": "http", "base_url": server.url, "api_key": server.key}) as reranker:
                await asyncio.gather(*(reranker.arerank("tides", ["the moon"]) for _ in range(9)))
            again = await reranker.arerank("tides", ["the moon"])  # a later call makes a client anew
            while sys.argv[1] == "True" and server.connections > 1:
                await asyncio.sleep(0.01)
            reranker.close()
            return len(again)

        with CohereLike() as server:
            print(asyncio.run(main()))
            gc.collect()
            print(server.wait_until(lambda: server.connections == 0))
        """,
        str(stays),
    )
    assert (done.stdout.split(), done.stderr, done.returncode) == (["1", "True"], "", 0)


@pytest.mark.parametrize("name", ["http", "cohere"])
def test_the_sync_close_works_inside_the_loop_that_was_used(name: str, server: VendorServer) -> None:
    pytest.importorskip("cohere", reason="needs the extra cohere")
    found: list[object] = []

    async def cell(address: str, key: str) -> None:
        with load_reranker({"use": name, "base_url": address, "api_key": key}) as reranker:
            await reranker.arerank(QUERY, DOCUMENTS)
            reranker.rerank(QUERY, DOCUMENTS)
        found.append(len(await reranker.arerank(QUERY, DOCUMENTS)))
        await reranker.aclose()

    with CohereServer() if name == "cohere" else contextlib.nullcontext(server) as asked:
        work = cell(asked.url, asked.key)
        thread = threading.Thread(target=asyncio.run, args=(work,), daemon=True)  # one that waits for ever, say
        thread.start()
        thread.join(30)
        assert found == [3]
        assert asked.wait_until(lambda: not asked._http.open), "a connection outlived its loop and close()"


def test_the_sync_face_on_our_own_loop_is_refused_rather_than_waited_for_ever() -> None:
    async def inside() -> None:
        load_reranker("passthrough").rerank(QUERY, DOCUMENTS)

    with pytest.raises(RuntimeError, match="await the async one"):
        run_sync(inside())


class Lazy(LocalBackend):
    """Gives what is computed only as it is read; notes where."""

    def __init__(self, *broken: str) -> None:
        super().__init__()
        self.broken = broken
        self.seen: set[str] = set()

    def score(self, query: str, documents: Sequence[str]) -> Iterator[float]:  # type: ignore[override]
        for document in documents:
            self.seen.add(threading.current_thread().name)
            if document in self.broken:
                raise LookupError(document)
            yield 0.5


async def test_a_generator_is_read_on_the_worker_and_its_error_is_ours() -> None:
    backend = Lazy()
    assert len(await Reranker(backend).arerank(QUERY, DOCUMENTS)) == 3
    assert backend.seen == {"rerank-lazy_0"}
    with pytest.raises(BackendError, match="LookupError"):
        await Reranker(Lazy(DOCUMENTS[1])).arerank(QUERY, DOCUMENTS)
    await backend.aclose()


class Fails(LocalBackend):
    """Raises what it was made with, once."""

    def __init__(self, error: BaseException) -> None:
        super().__init__()
        self.errors = [error]

    def score(self, query: str, documents: Sequence[str]) -> Sequence[float]:
        if self.errors:
            raise self.errors.pop()
        return [0.5] * len(documents)


@pytest.mark.parametrize(
    ("error", "told"),
    [(StopIteration(3), BackendError), (SystemExit(3), SystemExit), (KeyboardInterrupt(), KeyboardInterrupt)],
    ids=["StopIteration", "SystemExit", "KeyboardInterrupt"],
)
def test_what_ends_an_event_loop_ends_one_call_and_no_other(error: BaseException, told: type[BaseException]) -> None:
    reranker, found = Reranker(Fails(error)), list[object]()

    def ask() -> None:
        try:
            reranker.rerank(QUERY, DOCUMENTS)
        except BaseException as caught:
            found.append(type(caught))
        found.append(len(reranker.rerank(QUERY, DOCUMENTS)))

    thread = threading.Thread(target=ask, daemon=True)  # a call that waits for ever must not stop the tests
    thread.start()
    thread.join(30)
    assert found == [told, 3]
    reranker.close()


def test_a_first_call_that_gets_no_thread_does_not_make_the_next_one_wait_for_ever() -> None:
    done = in_a_new_interpreter("""
        import faulthandler, threading
        from rerank_plugins import TransientError, load_reranker

        faulthandler.dump_traceback_later(20, exit=True)
        start = threading.Thread.start

        def none_left(thread):
            raise RuntimeError("can't start new thread")

        threading.Thread.start = none_left
        try:
            load_reranker("passthrough").rerank("tides", ["the moon"])
        except TransientError as error:
            print(error.__cause__)
        threading.Thread.start = start
        print(len(load_reranker("passthrough").rerank("tides", ["the moon"])))
    """)
    assert (done.stdout.splitlines(), done.stderr, done.returncode) == (["can't start new thread", "1"], "", 0)


def test_a_model_that_gets_no_thread_says_so_as_our_error_and_the_next_call_is_answered(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def none_left(_thread: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    async def call() -> None:
        reranker = Reranker(Lazy())
        with monkeypatch.context() as patch:
            patch.setattr(threading.Thread, "start", none_left)
            with pytest.raises(TransientError, match=r"no thread.*can't start new thread"):
                await reranker.arerank(QUERY, DOCUMENTS)
        assert len(await reranker.arerank(QUERY, DOCUMENTS)) == 3
        await reranker.aclose()

    asyncio.run(call())


def test_a_call_after_the_main_thread_ended_says_so_as_our_error() -> None:
    done = in_a_new_interpreter("""
        import concurrent.futures.thread
        from rerank_plugins import TransientError, load_reranker

        reranker = load_reranker("embedded:fast")
        reranker.rerank("tides", ["the moon"])
        concurrent.futures.thread._python_exit()  # as the interpreter does, before it waits for the threads that go on
        try:
            reranker.rerank("tides", ["the moon"])
        except TransientError as error:
            print(error)
    """)
    assert "no thread" in done.stdout
    assert "after" in done.stdout
    assert "shutdown" in done.stdout
    assert (done.stderr, done.returncode) == ("", 0)


@pytest.mark.parametrize("enclosing", [record_attempts, bind_response_metadata])
def test_the_collector_may_end_a_call_in_another_context(
    enclosing: Callable[[], contextlib.AbstractContextManager[object]],
) -> None:
    async def call() -> None:
        with enclosing():
            await asyncio.sleep(0)

    work = call()
    contextvars.copy_context().run(work.send, None)
    work.close()


trace: ContextVar[str] = ContextVar("trace", default="lost")


class Traced(LocalBackend):
    """Says in which context it was asked."""

    def __init__(self) -> None:
        super().__init__()
        self.seen: list[str] = []

    def score(self, query: str, documents: Sequence[str]) -> Sequence[float]:
        self.seen.append(trace.get())
        return [0.5] * len(documents)


def test_context_variables_travel_to_a_backend() -> None:
    backend = Traced()
    reranker = Reranker(backend)

    async def asynchronously() -> None:
        trace.set("async")
        await reranker.arerank(QUERY, DOCUMENTS)

    token = trace.set("sync")
    reranker.rerank(QUERY, DOCUMENTS)
    trace.reset(token)
    asyncio.run(asynchronously())
    assert backend.seen == ["sync", "async"]
    reranker.close()


@pytest.mark.alone
@pytest.mark.parametrize("name", ["onnx", "embedded"])
async def test_a_heartbeat_goes_on_during_32_calls(name: str, cross_encoder_folder: Path) -> None:
    spec = f"onnx:{cross_encoder_folder}" if name == "onnx" else "embedded"
    numbers = itertools.count()
    # Enough that a fast machine is busy for many beats.
    copies = 48 if name == "onnx" else 12

    async with load_reranker(spec) as reranker:
        await reranker.arerank(QUERY, DOCUMENTS)

        async def calls() -> None:
            attempt = next(numbers)  # `embedded` remembers passages
            documents = [f"{document} {attempt} {number}" for document in DOCUMENTS for number in range(copies)]
            await asyncio.gather(*(reranker.arerank(f"{QUERY} {call}", documents) for call in range(32)))

        assert await smallest_hold(calls) < LONGEST_HOLD


# Forks ----------------------------------------------------------------------------------------------------------------

forks = pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork here")


def in_child(work: Callable[[], None]) -> int:
    """Run `work` in a forked child; return its exit code, or -9 where it had to be ended."""
    child = os.fork()
    if child == 0:
        try:
            work()
        except BaseException:
            traceback.print_exc()
            os._exit(1)
        os._exit(0)
    codes: list[int] = []
    waiter = threading.Thread(target=lambda: codes.append(os.waitpid(child, 0)[1]), daemon=True)
    waiter.start()
    waiter.join(30)
    if waiter.is_alive():
        os.kill(child, signal.SIGKILL)
        waiter.join(5)
        return -9
    return os.waitstatus_to_exitcode(codes[0])


@forks
@pytest.mark.parametrize("used", [False, True], ids=["before the first call", "after it"])
@pytest.mark.parametrize("face", ["sync", "async"])
@pytest.mark.parametrize("name", ["lexical", "http", "every policy", "onnx", "embedded"])
def test_a_forked_child_reranks(
    name: str, face: str, used: bool, server: VendorServer, cross_encoder_folder: Path, tmp_path: Path
) -> None:
    spec = {
        "every policy": {
            "use": "http",
            "base_url": server.url,
            "api_key": server.key,
            **every_policy(tmp_path),
        },
        "http": {"use": "http", "base_url": server.url, "api_key": server.key},
        "onnx": f"onnx:{cross_encoder_folder}",
    }.get(name, name)
    expected = raw_scores(load_reranker(spec).rerank(QUERY, DOCUMENTS)) if used else None
    reranker = load_reranker(spec)
    if used:
        reranker.rerank(QUERY, DOCUMENTS)

    def child() -> None:
        call = reranker.arerank(QUERY, DOCUMENTS) if face == "async" else None
        found = raw_scores(reranker.rerank(QUERY, DOCUMENTS) if call is None else asyncio.run(call))
        assert len(found) == 3
        if expected is not None:
            assert found == near(expected, SAME_INPUT)

    assert in_child(child) == 0
    assert len(reranker.rerank(QUERY, DOCUMENTS)) == 3  # and so does the parent, still
    reranker.close()


# Ctrl-C and the end ---------------------------------------------------------------------------------------------------


def in_a_new_interpreter(code: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-W", "error", "-c", textwrap.dedent(code), *arguments],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


def test_ctrl_c_ends_a_sync_call_and_its_request() -> None:
    done = in_a_new_interpreter("""
        import os, signal, threading
        from rerank_plugins import load_reranker
        from rerank_plugins.testing.cohere_like import CohereLike
        from rerank_plugins.testing.script import Hang

        with CohereLike() as server:
            server.always(Hang())
            reranker = load_reranker({"use": "http", "base_url": server.url, "api_key": server.key})

            def interrupt():
                assert server.wait_until(lambda: server.requests)
                os.kill(os.getpid(), signal.SIGINT)

            threading.Thread(target=interrupt).start()
            try:
                reranker.rerank("tides", ["the moon"])
            except KeyboardInterrupt:
                print("interrupted", server.wait_until(lambda: server.requests[0].disconnected))
    """)
    assert (done.stdout.strip(), done.stderr, done.returncode) == ("interrupted True", "", 0)


def test_ctrl_c_ends_a_wait_for_the_limit_and_leaves_the_queue_to_others() -> None:
    done = in_a_new_interpreter("""
        import os, signal, threading
        from rerank_plugins import load_reranker
        from rerank_plugins.testing.cohere_like import CohereLike

        with CohereLike() as server:
            spec = {"use": "http", "base_url": server.url, "api_key": server.key, "limit": {"requests_per_minute": 1}}
            reranker = load_reranker(spec)

            def waiting():
                return reranker.stats()["backends"]["http"]["limit"]["waiting"]

            def interrupt():
                while not waiting():
                    pass
                os.kill(os.getpid(), signal.SIGINT)

            reranker.rerank("tides", ["the moon"])
            threading.Thread(target=interrupt).start()
            try:
                reranker.rerank("tides", ["the moon"])
            except KeyboardInterrupt:
                while waiting():
                    pass
                print("interrupted", len(server.requests))
    """)
    assert (done.stdout.strip(), done.stderr, done.returncode) == ("interrupted 1", "", 0)


ENDINGS = {
    "sync": "reranker.rerank('tides', ['the moon', 'bananas'])",
    "async": "asyncio.run(reranker.arerank('tides', ['the moon', 'bananas']))",
    "sync inside a loop": "asyncio.run(cell())",
    "after close": "reranker.rerank('tides', ['the moon', 'bananas']); reranker.close()",
    "under way in a thread": "threading.Thread(target=hang, daemon=True).start(); server.wait_until(lambda: server.requests)",
    "never used": "pass",
}


@pytest.mark.parametrize("ending", ENDINGS)
@pytest.mark.parametrize("name", ["http", "onnx"])
def test_the_interpreter_ends_without_a_word(ending: str, name: str, cross_encoder_folder: Path) -> None:
    """No warning, no traceback, no hanging thread, although nobody closed the reranker."""
    done = in_a_new_interpreter(
        f"""
        import asyncio, sys, threading
        from rerank_plugins import load_reranker
        from rerank_plugins.testing.cohere_like import CohereLike
        from rerank_plugins.testing.script import Hang

        async def cell():
            return reranker.rerank("tides", ["the moon", "bananas"])

        def hang():
            server.always(Hang())
            http.rerank("tides", ["the moon", "bananas"])

        server = CohereLike().__enter__()
        http = load_reranker({{"use": "http", "base_url": server.url, "api_key": server.key}})
        reranker = http if sys.argv[1] == "http" else load_reranker("onnx:" + sys.argv[2])
        {ENDINGS[ending]}
        print("done")
        """,
        name,
        str(cross_encoder_folder),
    )
    assert (done.stdout.strip(), done.stderr, done.returncode) == ("done", "", 0)


def test_a_sync_call_while_the_interpreter_ends_raises_and_does_not_hang() -> None:
    """A `__del__` of a module's global runs when no other thread does any more."""
    script = """
        from rerank_plugins import load_reranker

        class Late:
            def __init__(self):
                self.reranker = load_reranker("lexical")
                self.calls = [lambda: self.reranker.rerank("moon", ["the moon"]), self.reranker.close]
            def __del__(self):
                for call in self.calls:
                    try:
                        call()
                        print("answered", flush=True)
                    except Exception as error:
                        print(type(error).__name__, flush=True)

        late = Late()
        late.calls[0]()
        """
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(script)], capture_output=True, text=True, timeout=60, check=False
    )
    assert (done.stdout, done.stderr, done.returncode) == ("TransientError\nTransientError\n", "", 0)


@pytest.mark.parametrize("call", ["arerank", "awarmup", "aclose"])
def test_the_async_face_outside_of_asyncio_says_what_it_needs(call: str) -> None:
    """Driven by hand, as any other event loop would do it."""
    reranker = load_reranker("embedded:fast")
    work = reranker.arerank("moon", ["the moon"]) if call == "arerank" else getattr(reranker, call)()
    with pytest.raises(ConfigError, match=rf"{call}\(\) needs asyncio.*{call[1:]}\(\) on a thread"):
        work.send(None)


def test_the_async_face_under_trio_says_what_it_needs_and_the_sync_one_works() -> None:
    trio = pytest.importorskip("trio", reason="trio is not installed")
    reranker = load_reranker({"use": "embedded:fast", "on_error": "degrade"})

    async def work() -> int:
        with pytest.raises(ConfigError, match="needs asyncio"):
            await reranker.arerank("moon", ["the moon"])
        answer = await trio.to_thread.run_sync(reranker.rerank, "moon", ["bananas", "the moon"])
        return answer[0].index

    assert trio.run(work) == 1
