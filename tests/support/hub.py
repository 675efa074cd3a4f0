"""A small model hub on this machine: serves folders as repositories over the HTTP API of huggingface_hub 1.x."""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
import threading
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import unquote


class Answer(BaseHTTPRequestHandler):
    """One request to the hub."""

    hub: Hub
    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        path = unquote(self.path.partition("?")[0])
        request = f"{self.command} {path}"
        self.hub.requests.append(request)
        fault = next((each for end, each in self.hub.faults.items() if request.endswith(end)), None)
        if fault is None:
            self.send(*self.hub.answer(path))
        else:
            fault(self, *self.hub.answer(path))

    do_HEAD = do_GET

    def send(self, status: int, headers: dict[str, str], body: bytes) -> None:
        start = self.headers.get("Range", "").removeprefix("bytes=").removesuffix("-")
        if status == 200 and start:
            headers = {**headers, "Content-Range": f"bytes {start}-{len(body) - 1}/{len(body)}"}
            status, body = 206, body[int(start) :]
        self.send_response(status)
        for name, value in {"Content-Length": str(len(body)), **headers}.items():
            self.send_header(name, value)
        self.end_headers()
        if self.command == "GET":
            self.wfile.write(body)

    def log_message(self, *args: object) -> None:
        pass


Fault = Callable[[Answer, int, dict[str, str], bytes], None]
"""Takes the request, and status, headers and body of the correct response."""


class Hub:
    """`repositories[name][commit]` is a folder; `branches[name]` the commit of `main`.

    Data sets have names that start with `datasets/`.
    """

    def __init__(self) -> None:
        self.repositories: dict[str, dict[str, Path]] = {}
        self.branches: dict[str, str] = {}
        self.requests: list[str] = []
        self.faults: dict[str, Fault] = {}
        """Replies instead of the hub, by `METHOD path` or the end of one."""

        class Request(Answer):
            hub = self

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Request)
        self.address = f"http://127.0.0.1:{self._server.server_port}"
        threading.Thread(target=self._server.serve_forever, daemon=True).start()

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()

    def put(self, name: str, folder: Path, commit: str) -> None:
        """Publish a folder as a commit, and move `main` there."""
        self.repositories.setdefault(name, {})[commit] = folder
        self.branches[name] = commit

    def _commit(self, name: str, revision: str) -> str | None:
        commit = self.branches.get(name) if revision == "main" else revision
        return commit if commit in self.repositories.get(name, {}) else None

    def answer(self, path: str) -> tuple[int, dict[str, str], bytes]:
        for start, kind in (("/api/models/", ""), ("/api/datasets/", "datasets/")):
            if path.startswith(start):
                name, _, revision = path.removeprefix(start).partition("/revision/")
                return self._information(kind + name, revision or "main")
        if "/resolve/" not in path:
            return 404, {}, b""  # other requests of the hub's client
        name, _, rest = path.lstrip("/").partition("/resolve/")
        revision, *inside = rest.split("/")
        commit = self._commit(name, revision)
        file = self.repositories[name][commit].joinpath(*inside) if commit else None
        if file is None or not file.is_file():
            code = "EntryNotFound" if commit else "RevisionNotFound"
            return 404, {"X-Error-Code": code}, b""
        body = file.read_bytes()
        etag = hashlib.sha256(body).hexdigest()
        return 200, {"ETag": f'"{etag}"', "X-Repo-Commit": str(commit)}, body

    def _information(self, name: str, revision: str) -> tuple[int, dict[str, str], bytes]:
        if name not in self.repositories:
            return 401, {"X-Error-Code": "RepoNotFound"}, b"{}"
        commit = self._commit(name, revision)
        if commit is None:
            return 404, {"X-Error-Code": "RevisionNotFound"}, b"{}"
        folder = self.repositories[name][commit]
        names = sorted(each.relative_to(folder).as_posix() for each in folder.rglob("*") if each.is_file())
        information = {"id": name, "modelId": name, "sha": commit, "siblings": [{"rfilename": each} for each in names]}
        return 200, {"Content-Type": "application/json"}, json.dumps(information).encode()


def environment(hub: Hub, home: Path, **more: str) -> dict[str, str]:
    """Return the variables of a process that has this hub, and caches below `home`."""
    return os.environ | {
        "HF_ENDPOINT": hub.address,
        "HF_HOME": str(home / "hf"),
        "HF_HUB_OFFLINE": "0",
        "HF_HUB_ETAG_TIMEOUT": "5",
        "XDG_CACHE_HOME": str(home / "cache"),
        **more,
    }


def run_with(hub: Hub, home: Path, *arguments: str, **more: str) -> subprocess.CompletedProcess[str]:
    """Run Python in a process of its own, as users have it: with this hub, and caches below `home`."""
    return subprocess.run(
        [sys.executable, "-W", "ignore", *arguments],
        env=environment(hub, home, **more),
        input="Bananas are yellow.\nThe moon raises the tides.\n",
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
