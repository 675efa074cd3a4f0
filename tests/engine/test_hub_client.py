"""The hub's client, for every supported version: it fetches, and its errors are distinguished.

Needs no torch, so that it can run with the oldest supported packages.
"""

from __future__ import annotations

import json
from functools import partial
from pathlib import Path

import pytest
from support.hub import Hub, run_with

import rerank_plugins

MODEL = Path(rerank_plugins.__file__).parent / "backends" / "embedded_model"
COMMIT, SPEC = "a" * 40, "onnx:acme/tiny"
PINNED = json.dumps({"use": SPEC, "revision": "v9"})


@pytest.fixture
def hub():
    running = Hub()
    running.put("acme/tiny", MODEL, COMMIT)
    yield running
    running.close()


@pytest.fixture
def run(hub, tmp_path):
    return partial(run_with, hub, tmp_path)


def fetch(run, spec=SPEC, **more):
    return run("-m", "rerank_plugins", "fetch", spec, **more)


def test_fetch_records_the_model_and_then_needs_no_network(run, hub, tmp_path):
    done = fetch(run)
    assert done.returncode == 0, done.stderr
    (record,) = (tmp_path / "cache" / "rerank_plugins" / "models").iterdir()
    assert json.loads(record.read_text("utf-8"))["commit"] == COMMIT
    hub.requests.clear()
    for variables in ({}, {"HF_HUB_OFFLINE": "1"}, {"HF_HUB_OFFLINE": "1", "XDG_CACHE_HOME": str(tmp_path / "new")}):
        done = fetch(run, **variables)
        assert done.returncode == 0, done.stderr
        assert COMMIT in done.stdout
    assert hub.requests == []


@pytest.mark.thorough
@pytest.mark.parametrize(
    ("spec", "fault", "variables", "code", "message"),
    [
        (SPEC, None, {"HF_HUB_OFFLINE": "1"}, 2, f"run: rerank-plugins fetch {SPEC}"),
        (SPEC, None, {"HF_ENDPOINT": "http://127.0.0.1:9"}, 1, "could not be fetched (Conn"),
        (SPEC, (503, {}), {}, 1, "could not be fetched (HfHubHTTPError"),
        (SPEC, (429, {"Retry-After": "7"}), {}, 1, "could not be fetched (HfHubHTTPError"),
        (SPEC, (403, {"X-Error-Code": "GatedRepo"}), {}, 2, "acme/tiny is gated (403)"),
        (
            SPEC,
            (401, {"X-Error-Message": "Invalid credentials in Authorization header"}),
            {"HF_TOKEN": "hf_expired"},
            2,
            "refuses the token",
        ),
        ("onnx:acme/none", None, {}, 2, "The hub has no acme/none"),
        ("onnx:acme/two--dashes", None, {}, 2, "acme/two--dashes is not a valid name on the hub"),
        (PINNED, None, {}, 2, "no revision 'v9'"),
    ],
    ids=["offline", "unreachable", "503", "429", "gated", "token", "none", "name", "revision"],
)
def test_each_client_error_has_its_own_message(spec, fault, variables, code, message, run, hub):
    if fault:
        hub.faults["/revision/main"] = lambda answer, *_: answer.send(*fault, b"")
    done = fetch(run, spec, **variables)
    assert message in done.stderr
    assert done.returncode == code
    assert "Traceback" not in done.stderr
