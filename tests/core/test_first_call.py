"""The first call imports no library on the thread of the event loop, with or without `warmup`: an import blocks it."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
from support.vendor_process import SERVERS, vendor_process

SCRIPT = """
import asyncio, json, sys, threading

from rerank_plugins import load_reranker

spec, warm = json.loads(sys.argv[1])
imported = set()
running = False


def record(event, arguments):
    if event == "import" and running and threading.current_thread() is threading.main_thread():
        imported.add(arguments[0].partition(".")[0])


async def main():
    global running
    running = True
    response = await reranker.arerank("where is the cat", ["The cat sleeps on the mat.", "The dog is outside."])
    running = False
    return len(response.results)


with load_reranker(spec) as reranker:
    if warm:
        reranker.warmup()
    sys.addaudithook(record)
    count = asyncio.run(main())
print(json.dumps([count, sorted(imported - sys.stdlib_module_names)]))
"""


def libraries_imported(spec: dict[str, str], *, warm: bool) -> list[str]:
    """Return the libraries that a first call imports on the main thread, in a fresh process."""
    command = [sys.executable, "-c", SCRIPT, json.dumps([spec, warm])]
    done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=Path(__file__).parents[2])
    assert done.returncode == 0, done.stderr
    count, imported = json.loads(done.stdout)
    assert count == 2
    return imported


@pytest.mark.thorough
@pytest.mark.parametrize("warm", [False, True], ids=["cold", "warm"])
@pytest.mark.parametrize(
    "name", ["lexical", "embedded", "embedded:balanced", "embedded:fast", "http", "tei", "cohere", "voyage"]
)
def test_first_call_imports_no_library_on_the_event_loop(name: str, warm: bool) -> None:
    if name not in SERVERS:
        assert libraries_imported({"use": name}, warm=warm) == []
        return
    with vendor_process(name) as (url, key):
        assert libraries_imported({"use": name, "base_url": url, "api_key": key}, warm=warm) == []
