"""Limits of the server: numbers that JSON lacks, long requests, clients that read slowly, wrong limits."""

from __future__ import annotations

import contextlib
import json
import math
import re
import socket
import sys
import threading
import time

import httpx
import psutil
import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.local_server import served
from support.scripted import HANG, Scripted
from test_serve_process import process

from rerank_plugins.cli import main
from rerank_plugins.core.errors import ConfigError
from rerank_plugins.reranker import Reranker
from rerank_plugins.serving.limits import ByteBudget, Limits, Refusal
from rerank_plugins.serving.response_writer import encode_json

JSON = {"content-type": "application/json"}


@pytest.fixture(scope="module")
def client():
    with served("lexical") as url, httpx.Client(base_url=url, trust_env=False, timeout=30) as client:
        yield client


# --- what JSON and Python disagree about ---


@pytest.mark.parametrize("path", ["/v2/rerank", "/rerank"])
@pytest.mark.parametrize(
    ("document", "place"),
    [
        (b'{"a": 1e999}', "documents.1.a"),
        (b'{"a": -1e999}', "documents.1.a"),
        (b'{"a": NaN}', "documents.1.a"),
        (b'{"text": "cat", "b": {"c": [0, Infinity]}}', "documents.1.b.c.1"),
        (b'{"text": "cat", "b": -Infinity}', "documents.1.b"),
    ],
)
def test_nan_or_infinity_is_refused_by_its_location(client, path, document, place):
    for shown in (b"true", b"false"):
        body = b'{"query": "cat", "documents": ["a", ' + document + b'], "return_documents": ' + shown + b"}"
        answer = client.post(path, content=body, headers=JSON)
        assert answer.status_code == 422
        assert f"{place} must be a finite number" in answer.json()["message"]


@pytest.mark.parametrize(
    ("document", "statuses"),
    [
        (b'{"a": ' + b"1" * 4_000 + b"}", {400}),
        (b'{"a": ' + b"1" * 4_301 + b"}", {400}),  # Python does not parse longer integers
        (b'{"a": ' + b"1" * 5_000 + b".5}", {200, 400, 422}),
        (b'{"a": 1e308, "b": -0.0, "c": 5e-324}', {200}),
        (b'{"a": "\\ud800"}', {400}),
        (b'{"\\udfff": 1}', {400}),
        (b'{"a": "\\ud83d\\ude00"}', {200}),
        (b'{"a": "\\u0000"}', {200}),
        (b'{"": ""}', {200}),
        (b'{"a": 1, "a": 2}', {200}),
        (b'{"a": ' + b"[" * 13 + b"]" * 13 + b"}", {200}),
        (b'{"a": ' + b"[" * 14 + b"]" * 14 + b"}", {400}),
        (b'"a", "documents", "a"', {200}),
        (b'"a"], "documents": ["b"', {200}),  # the last of two equal names counts, as in most parsers
    ],
)
def test_accepted_values_can_be_returned(client, document, statuses):
    body = b'{"query": "cat", "documents": [' + document + b'], "return_documents": true}'
    answer = client.post("/v2/rerank", content=body, headers=JSON)
    assert answer.status_code in statuses
    answer.json()


def test_lone_surrogate_in_a_backend_message_does_not_fail():
    """JSON replies of vendors can have lone surrogates as escapes."""
    from dataclasses import replace

    class Odd(Scripted):
        async def ascore(self, request):
            return replace(await super().ascore(request), degraded=True, reason="\ud800 said \x1b[1m the vendor")

    with served(Reranker(Odd())) as url:
        answer = httpx.post(f"{url}/v2/rerank", json={"query": "q", "documents": ["a"]}, trust_env=False)
    assert answer.status_code == 200
    assert answer.json()["meta"]["warnings"] == ["degraded:   said  [1m the vendor"]


plain = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=20,
)


@given(plain)
def test_streamed_pieces_join_to_the_json_answer(value):
    assert json.loads(b"".join(encode_json(value))) == json.loads(json.dumps(value).encode("utf-8", "replace"))


def test_streamed_pieces_have_a_bounded_size():
    value = {"documents": ['"\n\\é😀' * 50_000, {"a" * 200_000: [1.5, None, True]}]}
    pieces = encode_json(value)
    assert json.loads(b"".join(pieces)) == value
    assert len(pieces) > 10
    assert max(map(len, pieces)) < 200_000


# --- time ---


def test_request_timeout_is_504():
    with served(Reranker(Scripted(HANG)), limits=Limits(request_timeout=0.3)) as url:
        answer = httpx.post(f"{url}/v2/rerank", json={"query": "q", "documents": ["a"]}, trust_env=False)
        assert answer.status_code == 504
        assert answer.headers["retry-after"]
        assert "within 0.3 s" in answer.json()["message"]
        again = httpx.post(f"{url}/v2/rerank", json={"query": "q", "documents": ["a"]}, trust_env=False)
        assert again.status_code == 200


def connected(url: str) -> socket.socket:
    host, _, port = url.removeprefix("http://").partition(":")
    made = socket.socket()
    made.setsockopt(
        socket.SOL_SOCKET, socket.SO_RCVBUF, 65536
    )  # small, so that the server must hold what it cannot send
    made.settimeout(30)
    made.connect((host, int(port)))
    return made


def request(body: bytes) -> bytes:
    return (
        b"POST /v2/rerank HTTP/1.1\r\nhost: h\r\ncontent-type: application/json\r\n"
        b"content-length: %d\r\n\r\n" % len(body)
    ) + body


def large(size: int) -> bytes:
    documents = ["word " * (size // 5_000) for _ in range(1_000)]
    return json.dumps({"query": "word", "documents": documents, "return_documents": True}).encode()


def test_a_call_is_cancelled_while_its_documents_are_cut(monkeypatch):
    """When a client disconnects, its place in the queue is free again, whatever the request waits for."""
    from rerank_plugins.serving.truncation import DocumentTruncator

    async def stuck(self, documents, limit):
        begun.set()
        await never.wait()

    import asyncio

    begun, never = threading.Event(), asyncio.Event()
    monkeypatch.setattr(DocumentTruncator, "cut", stuck)
    with served("lexical") as url, httpx.Client(base_url=url, trust_env=False) as client:
        with connected(url) as waiting:
            waiting.sendall(request(large(5_000)))
            assert begun.wait(20)
            assert client.get("/healthz").json()["inside"] == 1
        while client.get("/healthz").json()["inside"]:
            pass


@pytest.mark.parametrize("start", [b"POST /v2/rerank", b"POST /nothing"])
@pytest.mark.parametrize("pause", [False, True])
def test_a_body_of_broken_chunks_is_answered_once_and_logs_nothing(start, pause, caplog):
    """If the application answered too, each such request would log a traceback."""
    with served("lexical", limits=Limits(body_timeout=0.5)) as url, connected(url) as broken:
        broken.sendall(
            start + b" HTTP/1.1\r\nhost: h\r\ncontent-type: application/json\r\ntransfer-encoding: chunked\r\n\r\n"
        )
        answer = b""
        if pause and start.endswith(b"nothing"):  # the answer comes before the body is complete
            answer = broken.recv(65_536)
        broken.sendall(b"2\r\n{}\r\nzz\r\n")
        with contextlib.suppress(ConnectionResetError):
            while chunk := broken.recv(65_536):
                answer += chunk
        assert answer.startswith((b"HTTP/1.1 400", b"HTTP/1.1 404"))
        assert answer.count(b"HTTP/1.1 ") == 1
    assert not [each for each in caplog.records if each.exc_info]


# --- memory ---


def test_slow_readers_are_dropped_when_memory_is_needed():
    """Their answers are dropped, the oldest first, when other requests need the memory."""
    limits = Limits(max_body_mb=2.0, max_in_flight_mb=4.0, body_timeout=3.0)
    body = large(1_900_000)
    with served("lexical", limits=limits) as url, contextlib.ExitStack() as crowd:
        slow = crowd.enter_context(connected(url))
        slow.sendall(request(body))
        assert slow.recv(4) == b"HTTP"
        refused = 0
        with httpx.Client(base_url=url, trust_env=False, timeout=30) as client:
            while True:
                answer = client.post("/v2/rerank", content=body, headers=JSON)
                small = client.post("/v2/rerank", json={"query": "q", "documents": ["a"]})
                assert small.status_code == 200  # small requests have a reserve
                if answer.status_code == 200:
                    break
                assert answer.status_code == 429
                assert "Try again later" in answer.json()["message"]
                refused += 1
        assert refused  # the unread answer counts
        assert len(answer.json()["results"]) == 1_000


def test_stalled_reader_is_dropped_without_memory_pressure():
    limits = Limits(body_timeout=0.5, request_timeout=300.0)
    with served("lexical", limits=limits) as url, connected(url) as slow:
        slow.sendall(request(large(1_900_000)))
        assert slow.recv(4) == b"HTTP"
        with httpx.Client(base_url=url, trust_env=False) as client:
            while client.get("/healthz").json()["bytes_in_flight"]:
                pass


def test_steady_slow_reader_is_dropped_under_memory_pressure():
    """Its connection is never idle long enough to be closed; it is dropped because other requests need the memory."""
    limits = Limits(max_body_mb=8.0, max_in_flight_mb=16.0, body_timeout=2.0)
    body = large(7_000_000)
    with served("lexical", limits=limits) as url, connected(url) as slow:
        slow.sendall(request(body))
        answer = slow.recv(65_536)
        length = answer.index(b"\r\n\r\n") + 4 + int(re.search(rb"content-length: (\d+)", answer)[1])
        due, goal = time.monotonic(), len(answer)
        with (
            httpx.Client(base_url=url, trust_env=False, timeout=30) as client,
            contextlib.suppress(ConnectionResetError),
        ):
            while client.post("/v2/rerank", content=body, headers=JSON).status_code != 200:
                if time.monotonic() < due:
                    continue
                due, goal = time.monotonic() + 0.2, goal + 131_072  # 11 s for all of it; after 3 s others fit in
                while len(answer) < goal and (chunk := slow.recv(65_536)):
                    answer += chunk
            while chunk := slow.recv(65_536):
                answer += chunk
        assert len(answer) < length


def test_bytes_in_flight_are_bounded_and_released():
    import asyncio

    async def play() -> None:
        budget = ByteBudget(Limits(max_body_mb=2, max_in_flight_mb=8))
        shares = [budget.share() for _ in range(4)]
        for share in shares[:3]:
            share.grow(2_000_000)
        with pytest.raises(Refusal) as refusal:
            shares[3].grow(1_000_000)
        assert refusal.value.status == 429
        shares[3].grow(100_000)  # a small request
        dropped = []
        shares[0].start_sending(lambda: dropped.append(0))
        budget.drop_slow_readers(asyncio.get_running_loop().time())
        assert dropped == []
        budget.drop_slow_readers(asyncio.get_running_loop().time() + 11)
        assert dropped == [0]
        for share in shares:
            share.close()
            share.close()
        assert (budget.held, budget.readers) == (0, {})

    asyncio.run(play())


@pytest.mark.slow  # 25 s: clients that read slowly
def test_memory_under_slow_readers_is_bounded_and_released():
    """Without the bound, forty clients that read answers of 7 MB at 8 KB a second took 0.9 GB."""
    body = large(7_000_000)
    with process("lexical") as (running, url):
        httpx.post(f"{url}/v2/rerank", content=body, headers=JSON, trust_env=False, timeout=30)
        measured = psutil.Process(running.pid)
        peak = before = measured.memory_info().rss
        end = time.monotonic() + 20

        def read_slowly() -> None:
            while time.monotonic() < end:
                with contextlib.suppress(OSError), connected(url) as slow:
                    slow.sendall(request(body))
                    while time.monotonic() < end and slow.recv(8_192):
                        never.wait(1)

        never = threading.Event()
        threads = [threading.Thread(target=read_slowly) for _ in range(40)]
        for thread in threads:
            thread.start()
        while time.monotonic() < end:
            peak = max(peak, measured.memory_info().rss)
            answer = httpx.post(f"{url}/rerank", json={"query": "q", "documents": ["a"]}, trust_env=False, timeout=30)
            assert answer.status_code == 200
        for thread in threads:
            thread.join()
        assert peak < before + 250_000_000
        if sys.platform == "linux":
            while measured.memory_info().rss > before + 60_000_000:  # the runner's own timeout ends this
                pass


# --- limits ---


@pytest.mark.parametrize("value", [math.inf, -math.inf, math.nan, 0, -1, 1e300, 10**400, True, "8"])
@pytest.mark.parametrize("name", ["max_body_mb", "max_queue", "body_timeout", "request_timeout", "max_in_flight_mb"])
def test_a_limit_is_a_finite_number_in_range(name, value):
    with pytest.raises(ConfigError, match=name):
        Limits(**{name: value})


def test_a_limit_of_counts_is_an_integer():
    with pytest.raises(ConfigError, match=r"max_documents must be an integer, got 2\.5"):
        Limits(max_documents=2.5)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--port", "99999"], "--port must be from 0 to 65535, got 99999"),
        (["--port", "-1"], "--port must be"),
        (["--max-body-mb", "inf"], "max_body_mb"),
        (["--max-body-mb", "nan"], "max_body_mb"),
        (["--request-timeout", "inf"], "request_timeout"),
        (["--max-in-flight-mb", "-3"], "max_in_flight_mb"),
        (["--host", "é" * 100], "Cannot listen on"),
    ],
)
def test_invalid_serve_arguments_are_reported_at_once(arguments, words, capsys):
    assert main(["serve", "lexical", *arguments]) == 2
    assert words in capsys.readouterr().err
