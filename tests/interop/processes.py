"""Start servers on loopback, wait until they answer, and end them with everything that they started."""

from __future__ import annotations

import contextlib
import os
import socket
import subprocess
import time
import urllib.error
import urllib.request
import uuid
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import psutil

__all__ = ["StartFailed", "end_all", "free_port", "running"]

MARK = "RERANK_PLUGINS_INTEROP"
"""Each started process inherits this variable, so that a process which left its group is found too."""
_RUN = uuid.uuid4().hex


class StartFailed(Exception):
    """A server ended, or did not answer in time."""


def free_port() -> int:
    """Return a port of loopback that nobody listens at."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return listener.getsockname()[1]


def child_environment(extra: Mapping[str, str] | None = None) -> dict[str, str]:
    """Return the environment of a child process: marked, without hubs, keys and paths of this interpreter."""
    dropped = ("PYTHONPATH", "VIRTUAL_ENV", "PYTHONDONTWRITEBYTECODE")
    inherited = {
        name: value for name, value in os.environ.items() if name not in dropped and not name.endswith("_API_KEY")
    }
    offline = {"HF_HUB_OFFLINE": "1", "TRANSFORMERS_OFFLINE": "1", "TOKENIZERS_PARALLELISM": "false"}
    return {**inherited, **offline, "NO_PROXY": "127.0.0.1,localhost", MARK: _RUN, **(extra or {})}


@contextlib.contextmanager
def running(
    command: Sequence[str], *, ready: str, log: Path, seconds: float, environment: Mapping[str, str] | None = None
) -> Iterator[None]:
    """Run a server until the block ends.

    Args:
        command: The program and its arguments.
        ready: A URL that answers 200 as soon as the server works.
        log: The file for its output.
        seconds: How long it may take to be ready.
        environment: Variables beside those of this process.

    Raises:
        StartFailed: With the last lines of the log.
    """
    log.parent.mkdir(parents=True, exist_ok=True)
    with log.open("w") as output:
        process = subprocess.Popen(
            ["nice", "-n", "10", *command],
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            env=child_environment(environment),
            cwd=log.parent,
            start_new_session=True,  # Ctrl-C reaches the runner alone, which then ends the server
        )
        try:
            _wait_until_ready(process, ready, log, seconds)
            yield
        finally:
            end_all()
            process.wait()  # it has ended; without this, Python warns of a process that nobody waited for


def _wait_until_ready(process: subprocess.Popen[bytes], ready: str, log: Path, seconds: float) -> None:
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        with contextlib.suppress(OSError, urllib.error.URLError), urllib.request.urlopen(ready, timeout=5) as reply:
            if reply.status == 200:
                return
        try:
            code = process.wait(0.3)
        except subprocess.TimeoutExpired:
            continue
        raise StartFailed(f"it ended with exit code {code}: {_last_line(log)}")
    raise StartFailed(f"it did not answer at {ready} within {seconds:.0f} s: {_last_line(log)}")


def _last_line(log: Path) -> str:
    lines = [line.strip() for line in log.read_text("utf-8", "replace").splitlines() if line.strip()]
    errors = [line for line in lines if "Error" in line]
    return (errors or lines or ["no output"])[-1][:300]


def end_all(seconds: float = 15) -> None:
    """End every process that this run started, wherever it went, and wait until none is left."""
    started = _started()
    for process in started:
        with contextlib.suppress(psutil.Error):
            process.terminate()
    psutil.wait_procs(started, timeout=seconds)
    # What refused to end, and what a dying supervisor started meanwhile.
    while started := _started():
        for process in started:
            with contextlib.suppress(psutil.Error):
                process.kill()
        psutil.wait_procs(started, timeout=5)


def _started() -> list[psutil.Process]:
    processes = []
    for process in psutil.process_iter():
        # A process of another user, or one that ended meanwhile, has no environment to read.
        with contextlib.suppress(psutil.Error, OSError):
            if process.status() != psutil.STATUS_ZOMBIE and process.environ().get(MARK) == _RUN:
                processes.append(process)
    return processes
