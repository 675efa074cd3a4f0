"""Downloads that somebody leaves: by Ctrl-C, by a deadline, or because the program ends."""

from __future__ import annotations

import asyncio
import signal
import subprocess
import sys
import threading
from pathlib import Path

import pytest
from hub import Hub, environment

from rerank_plugins.engine.downloads import Fetches

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
LEFT = f"""
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
        (("-c", LEFT), 0),
    ],
    ids=["fetch", "rerank", "sync", "async", "cancelled"],
)
def test_who_leaves_a_download_need_not_wait_for_it(arguments, code, cross_encoder_folder, tmp_path):
    hub = Hub()
    hub.put("acme/tiny", cross_encoder_folder, FIRST)
    under_way, gone = threading.Event(), threading.Event()

    def trickle(answer, status, headers, body):
        answer.send(status, {"Content-Length": str(len(body)), **headers}, body[:1000])
        under_way.set()
        try:
            for byte in body[1000:]:  # hours of it
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
        _, told = process.communicate("go on\n", timeout=60)
    finally:
        process.kill()
        gone.set()
        hub.close()
    assert process.returncode == code, told
    assert not list((tmp_path / "hf").rglob("*.incomplete")), "half a file is left"
    assert not list((tmp_path / "cache").rglob("*.json")), "what was not there is recorded"


def test_who_asks_while_it_runs_waits_for_the_same():
    fetches, runs, go_on = Fetches(), [], threading.Event()

    def work() -> Path:
        runs.append(threading.current_thread().name)
        assert go_on.wait(60)
        return Path("here")

    async def main() -> list[Path]:
        first, *others = [asyncio.create_task(fetches.run("model", work)) for _ in range(5)]
        await asyncio.sleep(0)
        first.cancel()  # which is nothing to the others
        await asyncio.sleep(0)
        go_on.set()
        return await asyncio.gather(*others)

    assert asyncio.run(main()) == [Path("here")] * 4
    assert runs == ["rerank-fetch"]
    assert asyncio.run(fetches.run("model", lambda: Path("later"))) == Path("later")


def test_what_fails_fails_for_who_waits_and_is_tried_anew():
    fetches = Fetches()

    def refused() -> Path:
        raise OSError("refused")

    for _ in range(2):
        with pytest.raises(OSError, match="refused"):
            asyncio.run(fetches.run("model", refused))
    assert asyncio.run(fetches.run("model", Path.cwd)) == Path.cwd()
