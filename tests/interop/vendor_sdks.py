"""Record what vendors' own packages send, to compare it with what our presets send (`make interop`).

    python tests/interop/vendor_sdks.py [NAME …]

Each package sends one request to a server on loopback, which answers with the documented reply of
`tests/vendors/exchanges/`. The request is written to `tests/interop/sdks/NAME.json`, which
`tests/vendors/test_presets.py` compares with ours.
"""

from __future__ import annotations

import datetime as dt
import json
import subprocess
import sys
import threading
from collections.abc import Sequence
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[2]
sys.path[:0] = [str(ROOT), str(ROOT / "tests")]

from interop.environments import Environment, InstallFailed, installed  # noqa: E402
from interop.processes import child_environment  # noqa: E402

EXCHANGES = ROOT / "tests" / "vendors" / "exchanges"
RECORDINGS = Path(__file__).with_name("sdks")
SCRIPT = Path(__file__).with_name("client_scripts") / "vendor_sdk.py"
SENT = ("content-type", "authorization", "api-key", "x-pinecone-api-version", "x-goog-user-project")
TOKEN = "e30.eyJleHAiOiA0Mjk0OTY3Mjk2fQ.c2ln"
"""A token of the form of IBM's (RFC 7519), with `{"exp": 4294967296}`. It is recorded as KEY."""
SMALL = Environment(
    name="vendor-sdks",
    requirements=(
        "pinecone==10.2.0",
        "contextual-client==0.11.0",
        "isaacus==0.22.1",
        "dashscope==2.0.2",
        "together==3.1.1",
        "openai==3.57.0",
        "boto3==1.44.8",
        "langchain-fireworks==1.7.1",
        "langchain-nvidia-ai-endpoints==1.5.0",
        "google-cloud-discoveryengine==0.20.5",
        "langchain-google-community==5.1.1",
        "ibm-watsonx-ai==1.8.1",
        "langchain-ibm==1.1.2",
    ),
)
PACKAGES = {
    "pinecone": "pinecone",
    "contextual": "contextual-client",
    "isaacus": "isaacus",
    "dashscope": "dashscope",
    "together": "together",
    "openrouter": "openai",
    "bedrock": "boto3",
    "bedrock-agent": "boto3",
    "fireworks": "langchain-fireworks",
    "nvidia": "langchain-nvidia-ai-endpoints",
    "nvidia-nim": "langchain-nvidia-ai-endpoints",
    "google": "google-cloud-discoveryengine",
    "google-langchain": "langchain-google-community",
    "watsonx": "ibm-watsonx-ai",
    "watsonx-langchain": "langchain-ibm",
}
"""Recording → the package that sends the request."""


def preset_of(name: str) -> str:
    """Return the preset that a recording belongs to."""
    return name.removesuffix("-langchain")


def record(name: str, python: str) -> dict[str, Any]:
    """Return the request of the recording `name`, as its package sends it."""
    exchange = json.loads((EXCHANGES / f"{preset_of(name)}.json").read_text("utf-8"))
    requests: list[dict[str, Any]] = []

    class Record(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers.get("content-length") or 0))
            if self.path.endswith("/identity/token"):  # IBM's: the key is exchanged for a token
                self._reply({"access_token": TOKEN, "refresh_token": "no", "expires_in": 3600, "expiration": 2**32})
                return
            headers = {key.lower(): value for key, value in self.headers.items()}
            request: dict[str, Any] = {"path": self.path, "headers": {}}
            request["headers"] = {key: headers[key].replace(TOKEN, "KEY") for key in SENT if key in headers}
            requests.append({**request, "body": json.loads(body)})
            self._reply(exchange["reply"])

        def do_GET(self) -> None:
            self._reply(
                {
                    "entity": {
                        "compute": [{"type": "machine_learning", "crn": "crn:v1:1", "guid": "1"}],
                        "storage": {"type": "bmcos_object_storage"},
                    }
                }
            )

        def _reply(self, value: Any) -> None:
            content = json.dumps(value).encode()
            self.send_response(200)
            self.send_header("content-type", "application/json")
            self.send_header("content-length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)

        def log_message(self, *arguments: Any) -> None:
            """Print nothing."""

    model = exchange["spec"]["use"].partition(":")[2]
    with ThreadingHTTPServer(("127.0.0.1", 0), Record) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            call = {"sdk": name, "url": f"http://127.0.0.1:{server.server_port}", "model": model}
            call |= {"query": "QUERY", "documents": ["FIRST", "SECOND"]}
            done = subprocess.run(
                [python, str(SCRIPT)],
                input=json.dumps(call),
                capture_output=True,
                text=True,
                check=False,
                timeout=120,
                env=child_environment({}),
            )
        finally:
            server.shutdown()
            thread.join()
    if not requests:
        raise RuntimeError(f"{name}: no request came: {done.stderr[-2000:]}")
    return requests[-1]


def main(names: Sequence[str], python: str | None = None) -> int:
    """Make the recordings `names`, or all; return the number of failures."""
    if python is None:
        try:
            installed(SMALL)
        except InstallFailed as error:
            print(f"not run: {error}")
            return 1
        python = SMALL.python
    RECORDINGS.mkdir(exist_ok=True)
    failures = 0
    for name in names or PACKAGES:
        try:
            request = record(name, python)
        except RuntimeError as error:
            print(error)
            failures += 1
            continue
        code = f"import importlib.metadata as m; print(m.version({PACKAGES[name]!r}))"
        version = subprocess.run([python, "-c", code], capture_output=True, text=True, check=True).stdout.strip()
        today = dt.datetime.now(dt.UTC).date().isoformat()
        recording = {"preset": preset_of(name), "package": PACKAGES[name], "version": version, "date": today}
        recording["request"] = request
        (RECORDINGS / f"{name}.json").write_text(json.dumps(recording, indent=1) + "\n", "utf-8")
        print(f"{name}: {PACKAGES[name]} {version} {request['path']}")
    return failures


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
