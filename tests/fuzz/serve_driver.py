"""Drive `rerank-plugins serve` with random valid and hostile requests, and check invariants of the server.

    python tests/fuzz/serve_driver.py --seconds 180

A real process and real sockets: broken framing and JSON, large bodies, slow and cancelled clients, wrong keys.
Meanwhile one well-behaved client measures its own latency. The exit code is 1 when an invariant broke; the report
(JSON) says which:

- no request is answered with 500, and the server's log holds no traceback;
- every request of the well-behaved client is answered with 200;
- memory does not grow from the second window on, and stays below a bound;
- the server still answers at the end, with no call and no byte left inside;
- with `--strict-latency`: the well-behaved client's p95 is at most twice the quiet one.

The time is cut into windows. In each one the hostile clients pause first, while the well-behaved client measures the
quiet server, and go on then. So both figures of a ratio are of the same moment of the machine, and the smallest ratio
counts: what else the machine does makes some ratios larger, and a server that lets others wait makes all of them
larger.

`SERVE_DRIVER_SECONDS` and `SERVE_DRIVER_SEED` are the defaults of the options.
"""

from __future__ import annotations

import argparse
import collections
import contextlib
import http.client
import json
import os
import random
import re
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import psutil

KEY = "driver-key-0123456789"
WORDS = ["cat", "dog", "sofa", "é", "日本", "\u200b", "😀", '"', "\\", "\n", "a" * 300, "x1y2", "(", "  "]
PATHS = ["/v2/rerank", "/v1/rerank", "/rerank"]
GETS = [
    "/healthz",
    "/readyz",
    "/health",
    "/info",
    "/v1/models",
    "/metrics",
    "/openapi.json",
    "/docs",
    "/",
    "/nothing",
    "/%00",
]
LITERALS = [
    b"NaN", b"-Infinity", b"1e999", b"1" * 4_400, b"-0", b"[" * 20 + b"]" * 20, b'"\\ud800"', b"{}", b"[]", b"null",
    b'"\\u0000"', b'{"": [1, {"a": null}]}', b"tru", b'"\xff"', b"1" * 4_000,
]  # fmt: skip
MB_MORE = 500.0
"""Bytes of memory above that of the idle server: 64 MB of bodies and answers, with several copies of them."""
MB_GROWTH = 120.0
"""Bytes between the peaks of the second and the last window that are chance, not a leak."""


def text(rng: random.Random, words: int) -> str:
    return " ".join(rng.choices(WORDS, k=rng.randint(0, words)))


def document(rng: random.Random) -> Any:
    if rng.random() < 0.7:
        return text(rng, 30)
    values = [text(rng, 5), rng.random(), None, rng.randint(-9, 10**20), [1, text(rng, 2)], {"b": text(rng, 2)}]
    return {rng.choice(["text", "title", "a", ""]): rng.choice(values) for _ in range(rng.randint(0, 4))}


def valid(rng: random.Random) -> dict[str, Any]:
    """Return a valid body, or one with a blank query, which the server must refuse with a reason."""
    if rng.random() < 0.2:
        texts = [text(rng, 30) for _ in range(rng.randint(0, 40))]
        return {"query": text(rng, 5), "texts": texts, "return_text": rng.random() < 0.5}
    body = {"query": text(rng, 5), "documents": [document(rng) for _ in range(rng.randint(0, 60))]}
    options: list[dict[str, Any]] = [
        {"top_n": rng.randint(-1, 9)}, {"return_documents": True}, {"max_tokens_per_doc": rng.randint(1, 9)},
        {"rank_fields": ["text", "a"]}, {"model": rng.choice(["lexical", "other"])}, {"raw_scores": True},
        {"instruction": "no"}, {"nonsense": 1}, {"user": "u"}, {"relevant_spans": {}},
    ]  # fmt: skip
    for option in rng.sample(options, rng.choice([0, 0, 1, 2])):
        body |= option
    return body


def broken(rng: random.Random) -> bytes:
    """Return JSON with a few changed bytes, or with a value on which parsers disagree."""
    body = bytearray(json.dumps(valid(rng), ensure_ascii=rng.random() < 0.5).encode())
    if rng.random() < 0.5:
        at = body.find(b"[") + 1
        body[at:at] = rng.choice(LITERALS) + (b"," if body[at : at + 1] != b"]" else b"")
        return bytes(body)
    for _ in range(rng.randint(1, 4)):
        at = rng.randrange(len(body))
        match rng.randrange(4):
            case 0:
                body[at] = rng.randrange(256)
            case 1:
                del body[at : at + rng.randint(1, 9)]
            case 2:
                body[at:at] = rng.choice(LITERALS)
            case _:
                body = body[:at] or bytearray(b"{")
    return bytes(body)


def large(rng: random.Random) -> bytes:
    """Return a body of up to 9 MB: long texts, many texts, many fields, many escapes, or one long word."""
    size = rng.choice([300_000, 2_000_000, 7_900_000, 9_000_000])
    match rng.randrange(5):
        case 0:
            documents: list[Any] = ["word " * (size // 5_000)] * 1_000
        case 1:
            documents = ["a" * size + "1"]
        case 2:
            documents = [{f"f{each}": "x" * (size // 9_000) for each in range(9)}] * 1_000
        case 3:
            documents = ["\n" * (size // 4), "é" * (size // 4)]
        case _:
            documents = ["a b"] * rng.choice([999, 1_001, 100_000])
    body = {"query": "word", "documents": documents, "return_documents": rng.random() < 0.5}
    if rng.random() < 0.3:
        body["max_tokens_per_doc"] = 5
    return json.dumps(body, ensure_ascii=False).encode()


def head(rng: random.Random, length: int | None, path: str | None = None) -> bytes:
    lines = [f"POST {path or rng.choice(PATHS)} HTTP/1.1", "host: h", "content-type: application/json"]
    key = rng.choice([KEY] * 8 + ["wrong", None])
    if key is not None:
        lines.append(f"authorization: Bearer {key}")
    if length is not None:
        lines.append(f"content-length: {length}")
    return "\r\n".join(lines).encode() + b"\r\n\r\n"


def posted(rng: random.Random, body: bytes) -> bytes:
    return head(rng, len(body)) + body


def framed(rng: random.Random) -> bytes:
    """Return a request whose framing is wrong, odd, or the start of another one."""
    body = json.dumps(valid(rng)).encode()
    start = head(rng, None)[:-2]
    match rng.randrange(9):
        case 0:
            return start + b"content-length: %d\r\n\r\n" % rng.choice([0, len(body) // 2, len(body) * 2]) + body
        case 1:
            return start + b"content-length: 4\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n" + body
        case 2:
            cut = rng.randint(0, len(body))
            parts = b"".join(b"%x\r\n%s\r\n" % (len(part), part) for part in (body[:cut], body[cut:]) if part)
            return start + b"transfer-encoding: chunked\r\n\r\n" + parts + rng.choice([b"0\r\n\r\n", b"", b"zz\r\n"])
        case 3:
            return rng.randbytes(rng.randint(1, 2_000))
        case 4:
            return start + b"x-long: " + b"a" * rng.choice([1_000, 70_000, 300_000]) + b"\r\n\r\n"
        case 5:
            return b"".join(head(rng, len(body)) + body for _ in range(rng.randint(2, 6)))
        case 6:
            return b"%s %s HTTP/1.%d\r\nhost: h\r\n\r\n" % (
                rng.choice([b"GET", b"HEAD", b"PUT", b"OPTIONS", b"X" * 50]),
        rng.choice(GETS).encode(),
        rng.randrange(2)
            )  # fmt: skip
        case 7:
            return start + b"content-encoding: gzip\r\ncontent-length: %d\r\n\r\n" % len(body) + body
        case _:
            return start + b"expect: 100-continue\r\ncontent-length: %d\r\n\r\n" % len(body) + body


class Driver:
    """Runs the clients and records their results. `lock` guards the counts."""

    def __init__(self, port: int, seed: int) -> None:
        self.port, self.seed = port, seed
        self.lock = threading.Lock()
        self.stop = threading.Event()
        self.going = threading.Event()
        """Cleared while the hostile clients pause."""
        self.acting = 0
        """The number of hostile clients with a request in progress; guarded by `lock`."""
        self.statuses: collections.Counter[str] = collections.Counter()
        self.failed: list[str] = []

    def count(self, what: str, detail: bytes = b"", number: int = 1) -> None:
        with self.lock:
            self.statuses[what] += number
            if what == "500" and len(self.failed) < 5:
                self.failed.append(detail[:300].decode("utf-8", "replace"))

    @contextlib.contextmanager
    def connected(self, seconds: float = 5.0) -> Iterator[socket.socket]:
        with socket.socket() as made:
            made.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 65_536)
            made.settimeout(seconds)
            made.connect(("127.0.0.1", self.port))
            yield made

    def status(self, connection: socket.socket, sent: bytes) -> None:
        """Count the status of the answer."""
        first = connection.recv(65_536)
        match = re.match(rb"HTTP/1\.1 (?:100 [^\r]*\r\n\r\nHTTP/1\.1 )?(\d{3})", first)
        self.count(match[1].decode() if match else "closed", sent)

    def whole(self, rng: random.Random, sent: bytes) -> None:
        with self.connected() as connection:
            connection.sendall(sent)
            self.status(connection, sent)
            connection.settimeout(0.05)
            with contextlib.suppress(TimeoutError):  # it waits for the next request
                while connection.recv(65_536):
                    pass

    def cancelled(self, rng: random.Random, sent: bytes) -> None:
        with self.connected() as connection:
            connection.sendall(sent[: rng.randint(0, len(sent))] if rng.random() < 0.5 else sent)
        self.count("cancelled")

    def dripping(self, rng: random.Random, sent: bytes) -> None:
        with self.connected(0.2) as connection:
            for at in range(min(20, len(sent))):
                connection.sendall(sent[at : at + 1])
                if self.stop.wait(0.1) or not self.going.is_set():
                    return
        self.count("dripped")

    def slow_reading(self, rng: random.Random, sent: bytes) -> None:
        with self.connected() as connection:
            connection.sendall(sent)
            self.status(connection, sent)
            for _ in range(rng.randint(0, 20)):
                if self.stop.wait(0.5) or not self.going.is_set() or not connection.recv(4_096):
                    return

    def hostile(self, number: int) -> None:
        """Send random requests until the end."""
        rng = random.Random(self.seed * 1_000 + number)
        makers: list[Callable[[], bytes]] = [
            lambda: framed(rng),
            lambda: posted(rng, broken(rng)),
            lambda: posted(rng, json.dumps(valid(rng)).encode()),
            lambda: posted(rng, large(rng)),
        ]
        ways = [self.whole, self.cancelled, self.dripping, self.slow_reading]
        while not self.stop.is_set():
            # Begin with a large body after each pause: a window without one would prove little.
            paused = not self.going.is_set()
            sent = makers[-1]() if paused else rng.choices(makers, [4, 4, 6, 1])[0]()
            way = self.whole if paused else rng.choices(ways, [20, 4, 1, 1])[0]
            self.going.wait()
            with self.lock:
                self.acting += 1
            try:
                way(rng, sent)
            except OSError as error:
                self.count(type(error).__name__)
            finally:
                with self.lock:
                    self.acting -= 1
            self.stop.wait(rng.random() * 0.02)

    def pause(self) -> None:
        """Stop the hostile clients, and wait until the server has no request of theirs."""
        self.going.clear()
        until = time.monotonic() + 60
        while time.monotonic() < until:
            with self.lock:
                acting = self.acting
            health = ask(self.port, "/healthz")
            if not (acting or health["inside"] or health["bytes_in_flight"]):
                return
            time.sleep(0.05)

    def polite(self, seconds: float) -> list[float]:
        """Send valid requests for some seconds; return the milliseconds of each answer.

        The client is a process of its own: in a thread of this one it would wait for the interpreter lock of the
        hostile clients, and that time would count as the server's.
        """
        command = [sys.executable, __file__, "--polite", str(self.port), "--seconds", str(seconds)]
        done = subprocess.run(command, stdout=subprocess.PIPE, check=True)
        report = json.loads(done.stdout)
        for outcome, number in report["outcomes"].items():
            self.count(f"polite {outcome}", number=number)
        return report["milliseconds"]


def polite(port: int, seconds: float) -> dict[str, Any]:
    """Send the same valid request again and again, for some seconds."""
    documents = [f"document {each} of the cat on the sofa " * 12 for each in range(50)]
    body = json.dumps({"query": "where is the cat", "documents": documents, "top_n": 5}).encode()
    headers = {"authorization": f"Bearer {KEY}", "content-type": "application/json"}
    outcomes: collections.Counter[str] = collections.Counter()
    milliseconds, end = [], time.monotonic() + seconds
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=30)
    while time.monotonic() < end:
        begun = time.perf_counter()
        try:
            connection.request("POST", "/v2/rerank", body, headers)
            response = connection.getresponse()
            response.read()
        except (OSError, http.client.HTTPException) as error:
            connection.close()
            outcomes[type(error).__name__] += 1
            continue
        milliseconds.append((time.perf_counter() - begun) * 1_000.0)
        outcomes[str(response.status)] += 1
        time.sleep(0.01)
    connection.close()
    return {"milliseconds": milliseconds, "outcomes": outcomes}


def p95(milliseconds: list[float]) -> float:
    return sorted(milliseconds)[int(len(milliseconds) * 0.95)] if milliseconds else float("inf")


def ask(port: int, path: str) -> Any:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=30)
    connection.request("GET", path, headers={"authorization": f"Bearer {KEY}"})
    body = json.loads(connection.getresponse().read())
    connection.close()
    return body


def drive(seconds: float, seed: int, clients: int = 8, spec: str = "lexical") -> dict[str, Any]:
    """Run the server and all clients for some seconds; return the report, with violated invariants in `broken`."""
    command = [sys.executable, "-m", "rerank_plugins", "serve", spec, "--port", "0", "--api-key", "env:DRIVER_KEY"]
    log: list[str] = []
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True, env=os.environ | {"DRIVER_KEY": KEY}) as served:
        try:
            port = None
            while port is None:
                line = served.stderr.readline()
                if not line:
                    raise RuntimeError(f"the server ended with {served.wait()}: {''.join(log)[-2_000:]}")
                log.append(line)
                port = re.search(r"serving at http://127\.0\.0\.1:(\d+)", line)
            threading.Thread(target=lambda: log.extend(served.stderr), daemon=True).start()
            report = _drive(Driver(int(port[1]), seed), psutil.Process(served.pid), seconds, clients)
            if served.poll() is not None:
                report["broken"].append(f"the server ended with {served.returncode}")
        finally:
            served.terminate()
            served.wait(40)
    said = "".join(log)
    if "Traceback" in said or "The server failed" in said:
        report["broken"].append(f"the log holds a traceback: {said[said.find('Traceback') :][:3_000]}")
    return report | {"seed": seed, "seconds": seconds}


WINDOWS = 5
QUIET = 0.25
"""The share of a window in which the hostile clients pause."""


def _drive(driver: Driver, process: psutil.Process, seconds: float, clients: int) -> dict[str, Any]:
    driver.polite(1.0)
    idle = process.memory_info().rss
    threads = [threading.Thread(target=driver.hostile, args=(each,), daemon=True) for each in range(clients)]
    for thread in threads:
        thread.start()
    windows = [_window(driver, process, seconds / WINDOWS) for _ in range(WINDOWS)]
    driver.stop.set()
    driver.going.set()
    for thread in threads:
        thread.join(60)
    driver.pause()
    health = ask(driver.port, "/healthz")
    time.sleep(2.0)  # the time after which freed memory is given back
    after = process.memory_info().rss

    peak = max(window["rss_mb"]["peak"] for window in windows)
    growth = max(window["rss_mb"]["peak"] for window in windows[1:]) - windows[1]["rss_mb"]["peak"]
    broken = [f"500 was answered to {sent!r}" for sent in driver.failed]
    if driver.statuses["500"] or driver.statuses["polite 500"]:
        broken.append(f"{driver.statuses['500']} requests were answered with 500")
    if wrong := {each: count for each, count in driver.statuses.items() if "polite" in each and each != "polite 200"}:
        broken.append(f"the well-behaved client got {wrong}")
    if peak > idle / 1e6 + MB_MORE:
        broken.append(f"memory rose from {idle / 1e6:.0f} to {peak:.0f} MB")
    # Compare the last window, not the highest: a peak by chance is not a leak.
    if seconds >= 60 and windows[-1]["rss_mb"]["peak"] > windows[1]["rss_mb"]["peak"] + MB_GROWTH:
        broken.append(f"memory grew by {growth:.0f} MB: {[window['rss_mb'] for window in windows]}")
    if health["inside"] or health["bytes_in_flight"]:
        broken.append(f"{health['inside']} calls and {health['bytes_in_flight']:,} bytes are left inside")
    return {
        "broken": broken,
        "statuses": dict(driver.statuses.most_common()),
        "memory_mb": {"idle": round(idle / 1e6), "peak": round(peak), "after": round(after / 1e6)},
        "windows": windows,
        "p95_ratio": min(window["p95_ratio"] for window in windows),
        "load": os.getloadavg()[0] if hasattr(os, "getloadavg") else None,
    }


def _window(driver: Driver, process: psutil.Process, seconds: float) -> dict[str, Any]:
    """Measure the well-behaved client without the hostile ones and among them, and the server's memory meanwhile."""

    def megabytes() -> float:
        return round(process.memory_info().rss / 1e6, 1)

    driver.pause()
    start = megabytes()
    quiet = driver.polite(max(1.0, seconds * QUIET))
    driver.going.set()
    busy: list[float] = []
    good = threading.Thread(target=lambda: busy.extend(driver.polite(seconds * (1 - QUIET))), daemon=True)
    good.start()
    memory = [start]
    while good.is_alive():
        memory.append(megabytes())
        good.join(0.2)
    driver.pause()
    memory.append(megabytes())
    return {
        "rss_mb": {"start": start, "peak": max(memory), "end": memory[-1]},
        "p95_ms": {"quiet": round(p95(quiet), 1), "busy": round(p95(busy), 1)},
        "p95_ratio": round(p95(busy) / p95(quiet), 2),
    }


def main() -> int:
    """Run the driver, print the report, and return the exit code."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--seconds", type=float, default=float(os.environ.get("SERVE_DRIVER_SECONDS", "180")))
    parser.add_argument("--seed", type=int, default=int(os.environ.get("SERVE_DRIVER_SEED", str(int(time.time())))))
    parser.add_argument("--clients", type=int, default=8)
    parser.add_argument("--spec", default="lexical")
    parser.add_argument("--strict-latency", action="store_true")
    parser.add_argument("--polite", type=int, metavar="PORT", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.polite:
        print(json.dumps(polite(arguments.polite, arguments.seconds)))
        return 0
    report = drive(arguments.seconds, arguments.seed, arguments.clients, arguments.spec)
    if arguments.strict_latency and report["p95_ratio"] > 2:
        report["broken"].append(f"the well-behaved client's p95 rose {report['p95_ratio']} times, at least")
    print(json.dumps(report, indent=2))
    for number, window in enumerate(report["windows"], start=1):
        print(f"window {number}: RSS {window['rss_mb']} MB, p95 {window['p95_ms']} ms", file=sys.stderr)
    return bool(report["broken"])


if __name__ == "__main__":
    sys.exit(main())
