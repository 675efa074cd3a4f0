"""Downloads that are interrupted: by Ctrl-C, by a deadline, or by the end of the program."""

from __future__ import annotations

import asyncio
import signal
import subprocess
import sys
import threading
from pathlib import Path

import pytest
from support.hub import Hub, environment

from rerank_plugins.engine.downloads import Downloads

pytestmark = pytest.mark.thorough  # each test starts an interpreter

FIRST = "a" * 40
SPEC = "onnx:acme/tiny"
SYNC = f"from rerank_plugins import load_reranker\nload_reranker({SPEC!r}).rerank('tides', ['the moon', 'bananas'])"
ASYNC = f"""
import asyncio
from rerank_plugins import load_reranker
async def main():
    await load_reranker({SPEC!r}).arerank('tides', ['the moon', 'bananas'])
asyncio.run(main())
"""
CANCELLED = f"""
import asyncio, contextlib, sys
from rerank_plugins import load_reranker
async def main():
    call = asyncio.create_task(load_reranker({SPEC!r}).arerank('tides', ['the moon', 'bananas']))
    await asyncio.to_thread(sys.stdin.readline)
    call.cancel()  # as a deadline does
    with contextlib.suppress(asyncio.CancelledError):
        await call
asyncio.run(main())
"""


@pytest.mark.skipif(sys.platform == "win32", reason="Ctrl-C is another thing there")
@pytest.mark.parametrize(
    ("arguments", "code"),
    [
        (("-m", "rerank_plugins", "fetch", SPEC), 130),
        (("-m", "rerank_plugins", "rerank", "tides", __file__, "--reranker", SPEC), 130),
        (("-c", SYNC), -signal.SIGINT),
        (("-c", ASYNC), -signal.SIGINT),
        (("-c", CANCELLED), 0),
    ],
    ids=["fetch", "rerank", "sync", "async", "cancelled"],
)
def test_cancelled_caller_does_not_wait_for_its_download(arguments, code, cross_encoder_folder, tmp_path):
    """A download thread that cannot be interrupted would keep the process alive for hours."""
    hub = Hub()
    hub.put("acme/tiny", cross_encoder_folder, FIRST)
    under_way, gone = threading.Event(), threading.Event()

    def trickle(answer, status, headers, body):
        answer.send(status, {"Content-Length": str(len(body)), **headers}, body[:1000])
        under_way.set()
        try:
            for byte in body[1000:]:  # one byte at a time: hours
                if gone.wait(0.05):
                    return
                answer.wfile.write(bytes([byte]))
        except OSError:
            return
        finally:
            answer.close_connection = True

    hub.faults[f"GET /acme/tiny/resolve/{FIRST}/model.onnx"] = trickle
    started = [sys.executable, "-W", "ignore", *arguments]
    process = subprocess.Popen(
        started,
        env=environment(hub, tmp_path),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        assert under_way.wait(60)
        if code:
            process.send_signal(signal.SIGINT)
        _, errors = process.communicate("go on\n", timeout=60)
    finally:
        process.kill()
        gone.set()
        hub.close()
    assert process.returncode == code, errors
    assert not list((tmp_path / "hf").rglob("*.incomplete")), "a partial file is left"
    assert not list((tmp_path / "cache").rglob("*.json")), "an incomplete download is recorded"


def test_callers_with_one_key_share_a_download():
    """The cancelled first caller must not take the download of the others with it."""
    downloads, runs, go_on = Downloads(), [], threading.Event()

    def work() -> Path:
        runs.append(threading.current_thread().name)
        assert go_on.wait(60)
        return Path("here")

    async def main() -> list[Path]:
        first, *others = [asyncio.create_task(downloads.run("model", work)) for _ in range(5)]
        await asyncio.sleep(0)
        first.cancel()  # must not cancel the download of the others
        await asyncio.sleep(0)
        go_on.set()
        return await asyncio.gather(*others)

    assert asyncio.run(main()) == [Path("here")] * 4
    assert runs == ["rerank-fetch"]
    assert asyncio.run(downloads.run("model", lambda: Path("later"))) == Path("later")


def test_failed_download_raises_in_all_callers_and_is_retried():
    downloads = Downloads()

    def refused() -> Path:
        raise OSError("refused")

    for _ in range(2):
        with pytest.raises(OSError, match="refused"):
            asyncio.run(downloads.run("model", refused))
    assert asyncio.run(downloads.run("model", Path.cwd)) == Path.cwd()
