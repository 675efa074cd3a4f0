"""`rerank-plugins serve` as a process: its start, its end, and the death of a worker."""

from __future__ import annotations

import contextlib
import json
import os
import re
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx
import psutil
import pytest
from support.pages import documented

from rerank_plugins.cli import main
from rerank_plugins.testing.cohere_like import CohereLike

BODY = {"query": "cat", "documents": ["a dog", "a cat"]}


@contextlib.contextmanager
def process(*arguments: str, **environment: str) -> Iterator[tuple[subprocess.Popen[str], str]]:
    """Run the command; yield its process and the URL that it serves."""
    command = [sys.executable, "-m", "rerank_plugins", "serve", "--port", "0", *arguments]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True, env=os.environ | environment) as served:
        try:
            address = None
            while address is None:
                line = served.stderr.readline()
                assert line, f"it ended with {served.wait()}"
                address = re.search(r"serving at (\S+)", line)
            yield served, address[1]
        finally:
            served.terminate()
            served.wait(20)


def test_sigterm_finishes_calls_in_flight():
    with CohereLike(key="a-key-0123456789") as vendor:
        vendor.delay = 0.5
        spec = f'{{"use": "http", "base_url": "{vendor.url}", "api_key": "env:VENDOR_KEY"}}'
        with process(spec, VENDOR_KEY=vendor.key) as (served, url), ThreadPoolExecutor(1) as thread:
            future = thread.submit(lambda: httpx.post(f"{url}/rerank", json=BODY, trust_env=False, timeout=20))
            while not vendor.requests:
                pass
            served.send_signal(signal.SIGTERM)
            assert future.result().json()["results"][0]["index"] == 1
            served.wait(20)
            with pytest.raises(httpx.ConnectError):
                httpx.get(f"{url}/healthz", trust_env=False)


@pytest.mark.slow  # 6 s: three interpreters
def test_killed_worker_is_replaced_and_metrics_sum_all_workers():
    with process("lexical", "--workers", "2") as (served, url):

        def ask() -> httpx.Response:
            while True:
                # A connection that the killed worker had taken is broken, which a client may send again.
                with contextlib.suppress(httpx.TransportError):
                    return httpx.post(f"{url}/rerank", json=BODY, trust_env=False, timeout=20)

        assert ask().json()["results"][0]["index"] == 1
        workers = []
        while len(workers) < 2:
            with contextlib.suppress(psutil.Error):  # a process that has not started yet
                children = psutil.Process(served.pid).children()
                workers = [each for each in children if "spawn_main" in " ".join(each.cmdline())]
        workers[0].kill()
        for _ in range(20):
            assert ask().status_code == 200
        while not [each for each in psutil.Process(served.pid).children() if each not in workers]:
            pass
        metrics = httpx.get(f"{url}/metrics", trust_env=False).text
    counted = float(re.search(r'rerank_requests_total\{status="200"\} ([\d.]+)', metrics)[1])
    assert counted >= 20


@pytest.mark.slow  # 6 s: three interpreters
def test_calls_in_a_killed_worker_leave_the_gauge():
    with CohereLike(key="a-key-0123456789") as vendor, ThreadPoolExecutor(4) as pool:
        vendor.delay = 60.0
        spec = f'{{"use": "http", "base_url": "{vendor.url}", "api_key": "env:VENDOR_KEY"}}'
        with process(spec, "--workers", "2", VENDOR_KEY=vendor.key) as (served, url):

            def inside() -> float:
                while True:
                    with contextlib.suppress(httpx.TransportError):
                        metrics = httpx.get(f"{url}/metrics", trust_env=False).text
                        return sum(map(float, re.findall(r"^rerank_inside ([\d.]+)", metrics, re.MULTILINE)))

            futures = [
                pool.submit(httpx.post, f"{url}/rerank", json=BODY, trust_env=False, timeout=60) for _ in range(4)
            ]
            while inside() < 4:
                pass
            for each in psutil.Process(served.pid).children():
                if "spawn_main" in " ".join(each.cmdline()):
                    each.kill()
            while inside():
                pass
            assert all(isinstance(each.exception(), httpx.TransportError) for each in futures)


def test_a_second_server_does_not_share_the_port_of_the_first(capsys, monkeypatch):
    monkeypatch.setattr("rerank_plugins.serving.server.Multiprocess", lambda *_: pytest.fail("it serves"))
    with socket.socket() as first:
        first.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        first.bind(("127.0.0.1", 0))
        first.listen()
        assert main(["serve", "lexical", "--workers", "2", "--port", str(first.getsockname()[1])]) == 2
    assert "Cannot listen on" in capsys.readouterr().err


@pytest.mark.slow  # 4 s: three interpreters
def test_workers_that_cannot_start_end_the_command_with_an_error(tmp_path):
    """Errors that come only when the model is loaded."""
    (tmp_path / "model.onnx").write_bytes(b"no model")
    (tmp_path / "tokenizer.json").write_text("{}", "utf-8")
    command = [sys.executable, "-m", "rerank_plugins", "serve", f"onnx:{tmp_path}", "--port", "0", "--workers", "2"]
    done = subprocess.run(command, check=False, capture_output=True, text=True, timeout=60)
    assert done.returncode == 1
    # Both files are read at the same time.
    assert re.search(r"tokenizer\.json cannot be read|model\.onnx cannot be loaded", done.stderr)


def test_errors_are_reported_before_the_server_listens(capsys, monkeypatch):
    for arguments, words in [
        (["lexikal"], "lexical"),
        (["lexical", "--api-key", "a-plain-key"], "env:NAME"),
        (["lexical", "--api-key", "env:NO_SUCH"], "NO_SUCH is not set"),
        (["lexical", "--api-key", "file:/no/such/key"], "/no/such/key, which cannot be read"),
        (["lexical", "--workers", "0"], "at least 1"),
        (["lexical", "--max-queue", "-1"], "max_queue"),
        (["lexical", "--host", "203.0.113.1", "--port", "0"], "Cannot listen on"),
    ]:
        assert main(["serve", *arguments]) == 2
        assert words in capsys.readouterr().err


@pytest.mark.slow  # 4 s: three interpreters
def test_the_documented_server_starts(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("rerank.toml").write_text('[rerankers.production]\nuse = "lexical"\n', "utf-8")
    with process(*documented("serve")[1:], SERVE_KEY="a-key-0123456789") as (_, url):
        assert httpx.post(f"{url}/rerank", json=BODY, trust_env=False, timeout=20).status_code == 401
        headers, body = {"authorization": "Bearer a-key-0123456789"}, BODY | {"model": "production"}
        assert httpx.post(f"{url}/rerank", json=body, headers=headers, trust_env=False, timeout=20).status_code == 200


def test_the_documented_batch_runs(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    Path("questions.jsonl").write_text(json.dumps(BODY), "utf-8")
    assert main(documented("batch")) == 0
    assert "1 rows reranked into reranked" in capsys.readouterr().out


def test_serving_without_a_key_logs_a_warning(monkeypatch, capsys):
    monkeypatch.setattr("rerank_plugins.serving.server.run", lambda *_, **__: None)
    assert main(["serve", "lexical", "--host", "0.0.0.0"]) == 0
    assert "without --api-key" in capsys.readouterr().err
