"""The parts of `make interop`: nothing that it starts is left, and what it compares and records is right."""

from __future__ import annotations

import http.server
import sys
import threading
import urllib.request
from pathlib import Path

import psutil
import pytest

from interop.processes import StartFailed, free_port, running
from interop.recorder import recording
from interop.results import Row, compare, incomplete, markdown, merge
from interop.servers import SERVERS

SERVER = """
import http.server, subprocess, sys
# A child in a session of its own, as supervisors start their workers.
child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"], start_new_session=True)
print(child.pid, flush=True)
http.server.ThreadingHTTPServer(("127.0.0.1", int(sys.argv[1])), http.server.SimpleHTTPRequestHandler).serve_forever()
"""


def test_block_that_fails_leaves_no_process(tmp_path: Path) -> None:
    children: list[int] = []

    def interrupt_server() -> None:
        port, log = free_port(), tmp_path / "server.log"
        command = [sys.executable, "-u", "-c", SERVER, str(port)]
        with running(command, ready=f"http://127.0.0.1:{port}/", log=log, seconds=60):
            children.append(int(log.read_text("utf-8").split()[0]))
            assert psutil.pid_exists(children[0])
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupt_server()
    assert not psutil.pid_exists(children[0])


def test_server_that_ends_at_once_is_reported_with_its_error(tmp_path: Path) -> None:
    command = [sys.executable, "-c", "raise ValueError('no such checkpoint')"]
    with (
        pytest.raises(StartFailed, match=r"exit code 1: ValueError: no such checkpoint"),
        running(command, ready=f"http://127.0.0.1:{free_port()}/", log=tmp_path / "log", seconds=60),
    ):
        pass


def test_server_that_never_answers_is_reported_and_ended(tmp_path: Path) -> None:
    command = [sys.executable, "-c", "import time; time.sleep(600)"]
    with (
        pytest.raises(StartFailed, match="did not answer"),
        running(command, ready=f"http://127.0.0.1:{free_port()}/", log=tmp_path / "log", seconds=0.5),
    ):
        pass
    assert [process for process in psutil.Process().children(recursive=True) if "600" in process.cmdline()[-1]] == []


def test_recording_holds_the_exchange_without_the_key() -> None:
    class Echo(http.server.BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            content = self.rfile.read(int(self.headers["content-length"]))
            self.send_response(201)
            self.send_header("content-type", "application/json")
            self.send_header("x-compute-tokens", "7")
            self.send_header("content-length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)

        def log_message(self, *arguments: object) -> None:
            """Print nothing."""

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Echo) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            with recording(f"http://127.0.0.1:{server.server_port}") as recorder:
                headers = {"authorization": "Bearer secret", "content-type": "application/json", "cookie": "secret"}
                request = urllib.request.Request(f"{recorder.url}/rerank?a=b", b'{"query": "q"}', headers)
                with urllib.request.urlopen(request) as reply:
                    assert (reply.status, reply.read()) == (201, b'{"query": "q"}')
                (exchange,) = recorder.take()
        finally:
            server.shutdown()
            thread.join()
    assert "secret" not in str(exchange)
    assert exchange["request"]["path"] == "/rerank?a=b"
    assert exchange["request"]["headers"]["authorization"] == "Bearer KEY"
    assert exchange["request"]["body"] == {"query": "q"}
    assert exchange["response"] == {
        "status": 201,
        "headers": {"content-type": "application/json", "x-compute-tokens": "7"},
        "body": {"query": "q"},
    }


@pytest.mark.parametrize(
    ("results", "difference", "problem"),
    [
        ([(1, 0.9), (0, 0.5), (2, 0.1)], 0.0, ""),
        ([(1, 0.9), (0, 0.25), (2, 0.1)], 0.25, ""),
        ([(0, 0.5), (1, 0.9), (2, 0.1)], 0.0, "order [0, 1, 2] instead of [1, 0, 2]"),
        ([(1, 0.9), (0, 0.5)], float("inf"), "the documents [0, 1] came back"),
    ],
)
def test_compare_finds_wrong_scores_order_and_documents(
    results: list[tuple[int, float]], difference: float, problem: str
) -> None:
    assert compare([[0.5, 0.9, 0.1]], [results]) == (difference, problem)


@pytest.mark.parametrize(
    ("results", "problem"),
    [
        ([(1, 0.9), (0, 0.0)], ""),
        ([(1, 0.9), (0, None)], "the documents [0] have no score"),
        ([(1, 1.1), (0, 0.5)], "the documents [1] have no score"),
        ([(1, 0.9)], "the documents [1] came back"),
        ([(1, 0.9), (1, 0.5)], "the documents [1, 1] came back"),
    ],
)
def test_results_without_an_order_must_be_complete(results: list[tuple[int, float | None]], problem: str) -> None:
    assert incomplete([2], [results]) == problem


def test_every_server_with_a_preset_is_asked_through_it() -> None:
    backends = {spec["use"].partition(":")[0] for server in SERVERS for spec in server.specs.values()}
    assert {"llama-cpp", "xinference", "litellm", "infinity", "vllm", "chat"} <= backends
    modes = {spec["chat"]["mode"] for server in SERVERS if server.chats for spec in server.specs.values()}
    assert modes == {"graded", "logprobs"}


def test_merge_replaces_only_the_rows_that_ran(tmp_path: Path) -> None:
    file = tmp_path / "rows.json"
    old = {"kind": "server", "version": "1", "verdict": "right", "difference": 0.0, "date": "2026-01-01"}
    merge(file, [Row(name="A", through="http", **old), Row(name="B", through="http", **old)])
    rows = merge(file, [Row(**{**old, "name": "B", "through": "vllm", "date": "2026-02-02"})])
    assert [(row.name, row.through, row.date) for row in rows] == [
        ("A", "http", "2026-01-01"),
        ("B", "vllm", "2026-02-02"),
    ]
    assert "| B | 1 | `vllm` | right | 0 | 2026-02-02 |" in markdown(rows)
