"""Calls on short-lived event loops, on threads, after forks, under Ctrl-C and at the end of the interpreter."""

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
from support.bounds import SAME_INPUT, near
from support.heartbeat import LONGEST_HOLD, smallest_hold

from rerank_plugins import BackendError, ConfigError, Reranker, TransientError, load_reranker
from rerank_plugins.core import Backend, LocalBackend
from rerank_plugins.core._runtime.background_loop import WorkCancelled, Workers, check_cancelled, run_sync
from rerank_plugins.core.call import record_attempts, response_metadata_scope
from rerank_plugins.testing.cohere_like import CohereLike
from rerank_plugins.testing.laws import raw_scores
from rerank_plugins.testing.server import VendorServer
from rerank_plugins.testing.vendors import CohereServer

pytestmark = pytest.mark.thorough

QUERY = "how do the tides work"
DOCUMENTS = ["The moon raises the tides.", "Bananas are yellow.", "The sun pulls the sea too."]


@pytest.fixture
def server() -> Iterator[VendorServer]:
    with CohereLike() as running:
        yield running


def http(server: VendorServer, **options) -> Reranker:
    return load_reranker({"use": "http", "base_url": server.url, "api_key": server.key, **options})


# --- work on threads ---


async def test_worker_job_ends_at_its_next_check_after_cancellation() -> None:
    """A cancelled job that does not end would occupy the only worker thread forever."""
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
    assert await workers.run(check_cancelled) is None  # the next job is not cancelled
    check_cancelled()  # the event loop is not cancelled either
    workers.close()


# --- event loops ---


def every_policy(folder: Path) -> dict[str, object]:
    """Return the options that hold state: a file, counters, a queue."""
    return {
        "limit": {"requests_per_minute": 10_000, "tokens_per_minute": 10**8},
        "breaker": True,
        "cache": {"kind": "disk", "path": str(folder / "scores.sqlite3"), "max_entries": 2},
        "deadline": 30.0,
        "fallback": ["lexical", "passthrough"],
    }


@pytest.mark.parametrize("policies", [False, True], ids=["plain", "every policy"])
def test_200_event_loops_leave_no_open_file_descriptor(policies: bool, server: VendorServer, tmp_path: Path) -> None:
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
    assert len(backend.transport._clients._slots) == 0  # no client is left either
    reranker.close()


@pytest.mark.parametrize("policies", [False, True], ids=["plain", "every policy"])
def test_loops_in_two_threads_share_a_reranker_and_get_equal_scores(
    policies: bool, server: VendorServer, tmp_path: Path
) -> None:
    """A client or lock bound to one loop would fail on the other one."""
    reranker = http(server, **(every_policy(tmp_path) if policies else {}))
    expected = raw_scores(reranker.rerank(QUERY, DOCUMENTS))
    both, scores = threading.Barrier(2), []

    async def twenty_calls() -> list[list[float]]:
        both.wait()
        answers = await asyncio.gather(*(reranker.arerank(QUERY, DOCUMENTS) for _ in range(20)))
        return [raw_scores(answer) for answer in answers]

    threads = [threading.Thread(target=lambda: scores.extend(asyncio.run(twenty_calls()))) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    assert scores == [expected] * 40
    reranker.close()


@pytest.mark.parametrize("stays", [True, False], ids=["running loop", "ended loop"])
def test_close_inside_the_loop_of_open_connections_does_not_deadlock(stays: bool) -> None:
    """As in a notebook: the event loop is blocked by `close` and cannot close its own clients meanwhile."""
    done = in_a_new_interpreter(
        """
        import asyncio, faulthandler, gc, sys
        from rerank_plugins import load_reranker
        from rerank_plugins.testing.cohere_like import CohereLike

        faulthandler.dump_traceback_later(20, exit=True)

        async def main():
            with load_reranker({"use": "http", "base_url": server.url, "api_key": server.key}) as reranker:
                await asyncio.gather(*(reranker.arerank("tides", ["the moon"]) for _ in range(9)))
            again = await reranker.arerank("tides", ["the moon"])  # a later call creates a new client
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
def test_close_inside_a_used_loop_closes_its_connections(name: str, server: VendorServer) -> None:
    pytest.importorskip("cohere", reason="needs the extra cohere")
    responses: list[object] = []

    async def cell(address: str, key: str) -> None:
        with load_reranker({"use": name, "base_url": address, "api_key": key}) as reranker:
            await reranker.arerank(QUERY, DOCUMENTS)
            reranker.rerank(QUERY, DOCUMENTS)
        responses.append(len(await reranker.arerank(QUERY, DOCUMENTS)))
        await reranker.aclose()

    with CohereServer() if name == "cohere" else contextlib.nullcontext(server) as target:
        work = cell(target.url, target.key)
        thread = threading.Thread(
            target=asyncio.run, args=(work,), daemon=True
        )  # a daemon, so that a deadlock does not hang the tests
        thread.start()
        thread.join(30)
        assert responses == [3]
        assert target.wait_until(lambda: not target._http.open), "a connection outlived its loop and close()"


def test_rerank_on_the_background_loop_raises_instead_of_deadlocking() -> None:
    """The sync method would wait for the loop on which it runs."""

    async def inside() -> None:
        load_reranker("passthrough").rerank(QUERY, DOCUMENTS)

    with pytest.raises(RuntimeError, match="Await the async method"):
        run_sync(inside())


class GeneratorBackend(LocalBackend):
    """A backend whose `score` is a generator. It records the names of the threads that read it."""

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


async def test_generator_of_scores_is_read_on_the_worker_thread() -> None:
    backend = GeneratorBackend()
    assert len(await Reranker(backend).arerank(QUERY, DOCUMENTS)) == 3
    assert backend.seen == {"rerank-generatorbackend_0"}
    with pytest.raises(BackendError, match="LookupError"):
        await Reranker(GeneratorBackend(DOCUMENTS[1])).arerank(QUERY, DOCUMENTS)
    await backend.aclose()


class FailsOnce(LocalBackend):
    """A backend whose first call raises the error of the constructor."""

    def __init__(self, error: BaseException) -> None:
        super().__init__()
        self.errors = [error]

    def score(self, query: str, documents: Sequence[str]) -> Sequence[float]:
        if self.errors:
            raise self.errors.pop()
        return [0.5] * len(documents)


@pytest.mark.parametrize(
    ("error", "expected"),
    [(StopIteration(3), BackendError), (SystemExit(3), SystemExit), (KeyboardInterrupt(), KeyboardInterrupt)],
    ids=["StopIteration", "SystemExit", "KeyboardInterrupt"],
)
def test_base_exception_of_a_backend_ends_only_its_own_call(
    error: BaseException, expected: type[BaseException]
) -> None:
    """StopIteration, SystemExit and KeyboardInterrupt would end the background loop if they reached it."""
    reranker, outcomes = Reranker(FailsOnce(error)), list[object]()

    def call_twice() -> None:
        try:
            reranker.rerank(QUERY, DOCUMENTS)
        except BaseException as caught:
            outcomes.append(type(caught))
        outcomes.append(len(reranker.rerank(QUERY, DOCUMENTS)))

    thread = threading.Thread(target=call_twice, daemon=True)  # a deadlock must not hang the tests
    thread.start()
    thread.join(30)
    assert outcomes == [expected, 3]
    reranker.close()


def test_first_call_without_a_thread_fails_and_the_next_succeeds() -> None:
    """A background loop recorded as started although its thread never ran would block every later call."""
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


def test_worker_thread_that_cannot_start_raises_a_transient_error(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """An executor that counts the thread that failed would never start another one."""

    def none_left(_thread: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    async def call() -> None:
        reranker = Reranker(GeneratorBackend())
        with monkeypatch.context() as patch:
            patch.setattr(threading.Thread, "start", none_left)
            with pytest.raises(TransientError, match=r"No thread.*can't start new thread"):
                await reranker.arerank(QUERY, DOCUMENTS)
        assert len(await reranker.arerank(QUERY, DOCUMENTS)) == 3
        await reranker.aclose()

    asyncio.run(call())


def test_call_after_executor_shutdown_raises_a_transient_error() -> None:
    done = in_a_new_interpreter("""
        import concurrent.futures.thread
        from rerank_plugins import TransientError, load_reranker

        reranker = load_reranker("embedded:fast")
        reranker.rerank("tides", ["the moon"])
        concurrent.futures.thread._python_exit()  # as the interpreter does before it joins running threads
        try:
            reranker.rerank("tides", ["the moon"])
        except TransientError as error:
            print(error)
    """)
    assert "No thread" in done.stdout
    assert "after" in done.stdout
    assert "shutdown" in done.stdout
    assert (done.stderr, done.returncode) == ("", 0)


@pytest.mark.parametrize("enclosing", [record_attempts, response_metadata_scope])
def test_garbage_collector_may_close_a_call_in_another_context(
    enclosing: Callable[[], contextlib.AbstractContextManager[object]],
) -> None:
    """Resetting a context variable in a foreign context raises ValueError, which must not escape."""

    async def call() -> None:
        with enclosing():
            await asyncio.sleep(0)

    work = call()
    contextvars.copy_context().run(work.send, None)
    work.close()


trace: ContextVar[str] = ContextVar("trace", default="lost")


class Traced(LocalBackend):
    """A backend that records the value of a context variable."""

    def __init__(self) -> None:
        super().__init__()
        self.seen: list[str] = []

    def score(self, query: str, documents: Sequence[str]) -> Sequence[float]:
        self.seen.append(trace.get())
        return [0.5] * len(documents)


def test_context_variables_of_the_caller_are_set_in_a_backend() -> None:
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
async def test_event_loop_stays_responsive_during_32_calls(name: str, cross_encoder_folder: Path) -> None:
    spec = f"onnx:{cross_encoder_folder}" if name == "onnx" else "embedded"
    numbers = itertools.count()
    # So many documents that a fast machine is busy for many heartbeats.
    copies = 48 if name == "onnx" else 12

    async with load_reranker(spec) as reranker:
        await reranker.arerank(QUERY, DOCUMENTS)

        async def calls() -> None:
            attempt = next(numbers)  # new texts, because `embedded` caches passages
            documents = [f"{document} {attempt} {number}" for document in DOCUMENTS for number in range(copies)]
            await asyncio.gather(*(reranker.arerank(f"{QUERY} {call}", documents) for call in range(32)))

        assert await smallest_hold(calls) < LONGEST_HOLD


# --- forks ---

forks = pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork here")


def in_child(work: Callable[[], None]) -> int:
    """Run `work` in a forked child. Returns its exit code, or -9 if it did not end in time and was killed."""
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
@pytest.mark.parametrize("used", [False, True], ids=["before the first call", "after the first call"])
@pytest.mark.parametrize("method", ["sync", "async"])
@pytest.mark.parametrize("name", ["lexical", "http", "every policy", "onnx", "embedded"])
def test_forked_child_reranks(
    name: str, method: str, used: bool, server: VendorServer, cross_encoder_folder: Path, tmp_path: Path
) -> None:
    """A child has none of its parent's threads: loop, workers and connections must be created anew."""
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
        call = reranker.arerank(QUERY, DOCUMENTS) if method == "async" else None
        scores = raw_scores(reranker.rerank(QUERY, DOCUMENTS) if call is None else asyncio.run(call))
        assert len(scores) == 3
        if expected is not None:
            assert scores == near(expected, SAME_INPUT)

    assert in_child(child) == 0
    assert len(reranker.rerank(QUERY, DOCUMENTS)) == 3  # the parent still works too
    reranker.close()


# --- Ctrl-C and the end of the interpreter ---


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


def test_ctrl_c_ends_a_wait_for_the_rate_limit_and_leaves_its_queue() -> None:
    """An entry left in the queue would block all later calls of the account."""
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
    "under way in a thread": "threading.Thread(target=hang, daemon=True).start(); "
    "server.wait_until(lambda: server.requests)",
    "never used": "pass",
}


@pytest.mark.parametrize("ending", ENDINGS)
@pytest.mark.parametrize("name", ["http", "onnx"])
def test_interpreter_ends_silently_although_nothing_was_closed(
    ending: str, name: str, cross_encoder_folder: Path
) -> None:
    """No warning, no traceback and no hanging thread, although the reranker was never closed."""
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


CALLED_IN_A_DAEMON_THREAD = """
    import asyncio, atexit, sys, threading

    def call():
        try:
            http.rerank("tides", ["the moon"])
        except Exception as error:
            print(type(error).__name__, len(server.requests), flush=True)
            raise

    thread = threading.Thread(target=call, daemon=True)
    if sys.argv[1] == "joined":
        atexit.register(thread.join)  # before the import: `atexit` calls the last function first
    from rerank_plugins import load_reranker
    from rerank_plugins.core._runtime.background_loop import PerLoop, run_sync
    from rerank_plugins.testing.cohere_like import CohereLike
    from rerank_plugins.testing.script import Hang

    server = CohereLike().__enter__()
    server.always(Hang())
    http = load_reranker({"use": "http", "base_url": server.url, "api_key": server.key})
    run_sync(PerLoop(dict, close=lambda _: asyncio.sleep(0.3)).get())  # keeps the loop running after the connection
    thread.start()
    server.wait_until(lambda: server.requests)
    print("done", flush=True)
    """


def test_call_of_a_daemon_thread_prints_nothing_although_the_interpreter_closes_its_connection() -> None:
    done = in_a_new_interpreter(CALLED_IN_A_DAEMON_THREAD, "forgotten")
    assert (done.stdout.splitlines(), done.stderr, done.returncode) == (["done"], "", 0)


def test_daemon_thread_that_the_program_joins_at_exit_gets_an_error_and_sends_nothing_again() -> None:
    done = in_a_new_interpreter(CALLED_IN_A_DAEMON_THREAD, "joined")
    assert (done.stdout.splitlines(), done.returncode) == (["done", "TransientError 1"], 0)
    assert "the interpreter is shutting down" in done.stderr


def test_sync_call_while_the_interpreter_ends_raises_an_error() -> None:
    """`__del__` of a global runs after other threads have stopped, so waiting for the background loop would hang."""
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
def test_async_call_outside_asyncio_raises_a_config_error(call: str) -> None:
    """The coroutine is driven by `send`, as an event loop other than asyncio's would do."""
    reranker = load_reranker("embedded:fast")
    work = reranker.arerank("moon", ["the moon"]) if call == "arerank" else getattr(reranker, call)()
    with pytest.raises(ConfigError, match=rf"{call}\(\) needs asyncio.*{call[1:]}\(\) on a thread"):
        work.send(None)


def test_async_call_under_trio_raises_and_the_sync_call_works() -> None:
    trio = pytest.importorskip("trio", reason="trio is not installed")
    reranker = load_reranker({"use": "embedded:fast", "on_error": "degrade"})

    async def work() -> int:
        with pytest.raises(ConfigError, match="needs asyncio"):
            await reranker.arerank("moon", ["the moon"])
        answer = await trio.to_thread.run_sync(reranker.rerank, "moon", ["bananas", "the moon"])
        return answer[0].index

    assert trio.run(work) == 1
