"""deploy/: the steps of the Containerfile, one by one, without an engine; and the compose file beside it."""

from __future__ import annotations

import json
import re
import shlex
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
import yaml
from support.environments import ROOT

TEXT = (ROOT / "deploy" / "Containerfile").read_text("utf-8")
COMPOSE = yaml.safe_load((ROOT / "deploy" / "compose.yaml").read_text("utf-8"))
LINES = [line for line in TEXT.splitlines() if line and not line.startswith("#")]
USER = 65532
KEY = "a-key-0123456789"


def instructions(name: str) -> list[str]:
    return [line.removeprefix(f"{name} ") for line in LINES if line.startswith(f"{name} ")]


def command(name: str) -> list[str]:
    """Return the arguments of ENTRYPOINT, of CMD, or of the health check."""
    (line,) = [line for line in LINES if re.match(rf"{name} ", line)]
    arguments: list[str] = json.loads(line[line.index("[") :])
    return arguments


def test_base_is_pinned_and_the_process_is_no_root():
    bases = instructions("FROM")
    assert len({base.split()[0] for base in bases}) == 1
    assert re.fullmatch(r"docker\.io/library/python:3\.\d+-slim-\w+", bases[-1])
    stages = "\n".join(LINES).split("FROM ")
    last = stages[-1]
    assert last.index(f"USER {USER}:{USER}") < last.index("ENTRYPOINT")
    assert not [line for line in last.splitlines() if line.startswith("RUN")]  # what root could do there is nothing


def test_no_key_is_in_the_image():
    assert not re.search(r"(?i)\b(ARG|ENV)\b.*(key|token|secret)", TEXT)
    assert "deploy/serve_key" in (ROOT / ".gitignore").read_text("utf-8").splitlines()


def test_copied_files_are_enough_for_the_build():
    sources = {source for line in instructions("COPY") if "--from" not in line for source in line.split()[:-1]}
    assert all((ROOT / source).exists() for source in sources)
    assert {"pyproject.toml", "README.md", "LICENSE", "rerank_plugins"} <= sources
    allowed = re.findall(r"^!(.*)$", (ROOT / ".dockerignore").read_text("utf-8"), re.MULTILINE)
    assert set(allowed) == sources


def test_compose_file_runs_the_same_server_behind_a_key():
    (server_settings,) = COMPOSE["services"].values()
    assert server_settings["build"] == {"context": "..", "dockerfile": "deploy/Containerfile"}
    default = command("CMD")
    assert server_settings["command"][: len(default)] == default
    (secret,) = server_settings["secrets"]
    assert server_settings["command"][len(default) :] == ["--api-key", f"file:/run/secrets/{secret}"]
    assert COMPOSE["secrets"][secret] == {"file": "./serve_key"}
    assert server_settings["read_only"] is True
    assert server_settings["cap_drop"] == ["ALL"]
    assert all(port.startswith("127.0.0.1:") for port in server_settings["ports"])


@pytest.fixture
def root() -> Iterator[Path]:
    """Return a folder that stands for the file system of the image. Another user may read it, unlike `tmp_path`."""
    folder = Path(tempfile.mkdtemp(prefix="container-"))
    folder.chmod(0o755)
    yield folder
    shutil.rmtree(folder)


def unprivileged(python: Path, folder: Path) -> dict[str, int]:
    """Return the arguments that start a process as the image's user, where this test may do that."""
    as_user = {"user": USER, "group": USER}
    try:
        subprocess.run([python, "-c", "import rerank_plugins"], check=True, capture_output=True, cwd=folder, **as_user)
    except (OSError, subprocess.CalledProcessError) as error:
        print(f"runs as the user of the test, since no process can run as user {USER} here: {error}")
        return {}
    return as_user


def snapshot(folder: Path) -> dict[str, tuple[int, int]]:
    return {
        str(path): (path.lstat().st_size, path.lstat().st_mtime_ns)
        for path in folder.rglob("*")
        if not path.is_dir() and "tmp" not in path.relative_to(folder).parts[:1]
    }


@pytest.mark.slow  # half a minute: an environment with the base dependencies, and the server in it
def test_steps_of_the_containerfile_build_and_serve(root: Path):
    """COPY, RUN, then the command of the compose file with its key in a file, the health check, a call, and SIGTERM."""

    def inside(text: str) -> str:
        """Return a step with the image's paths in the folder, and an address that only this machine reaches."""
        text = re.sub(r"(?<![\w.])/(source|opt|run)\b", rf"{root}/\1", text)
        return text.replace("0.0.0.0", "127.0.0.1").replace(":8000/", f":{port}/")

    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    for line in instructions("COPY"):
        if "--from" not in line:
            *sources, target = line.split()
            for source in sources:
                place = Path(inside(target)) / (Path(source).name if target.endswith("/") else "")
                copy = shutil.copytree if (ROOT / source).is_dir() else shutil.copy
                place.parent.mkdir(parents=True, exist_ok=True)
                copy(ROOT / source, place)
    (root / "opt").mkdir()
    for line in instructions("RUN"):
        step = shlex.split(inside(line).replace("--no-cache-dir ", ""))
        step[0] = sys.executable if step[0] == "python" else step[0]  # the image's Python is the one of the base
        done = subprocess.run(step, check=False, capture_output=True, text=True, timeout=600, cwd=root)
        assert done.returncode == 0, done.stderr

    shutil.rmtree(root / "source")  # the last stage has the environment only
    home = root / "tmp"
    home.mkdir()
    home.chmod(0o777)
    (server_settings,) = COMPOSE["services"].values()
    key = root / "run" / "secrets" / "serve_key"
    key.parent.mkdir(parents=True)
    key.write_text(f"{KEY}\n", "utf-8")
    as_user = unprivileged(root / "opt" / "venv" / "bin" / "python", home)
    variables = dict(pair.split("=") for pair in instructions("ENV")[0].split()) | {"HOME": str(home)}
    variables |= {"PATH": "/usr/bin:/bin", "TMPDIR": str(home)}
    before = snapshot(root)
    line = [inside(part) for part in [*command("ENTRYPOINT"), *server_settings["command"], "--port", str(port)]]
    health = [inside(part) for part in command("HEALTHCHECK")]
    with subprocess.Popen(line, cwd=home, env=variables, stderr=subprocess.PIPE, text=True, **as_user) as server:
        try:
            while "serving at" not in (said := server.stderr.readline()):
                assert said, f"it ended with {server.wait()}"
            assert subprocess.run(health, cwd=home, env=variables, check=False, **as_user).returncode == 0
            url, body = f"http://127.0.0.1:{port}/rerank", {"query": "cat", "documents": ["a dog", "a cat"]}
            assert httpx.post(url, json=body, trust_env=False, timeout=60).status_code == 401
            headers = {"authorization": f"Bearer {KEY}"}
            answer = httpx.post(url, json=body, headers=headers, trust_env=False, timeout=60)
            assert answer.json()["results"][0]["index"] == 1
        finally:
            server.send_signal(signal.SIGTERM)
            assert server.wait(20) in (0, -signal.SIGTERM)
    assert subprocess.run(health, cwd=home, env=variables, check=False, capture_output=True).returncode != 0
    assert snapshot(root) == before  # so the root file system may be read-only
