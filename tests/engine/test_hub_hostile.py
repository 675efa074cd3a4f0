"""A hub or mirror whose responses name paths elsewhere: nothing is written outside the hub's cache."""

from __future__ import annotations

import json
import shutil
from functools import partial

import pytest
from support.hub import Hub, run_with

from rerank_plugins.core.errors import ConfigError
from rerank_plugins.engine.hub_answers import is_commit, refuse_names, stays_inside
from rerank_plugins.engine.pins import Record

pytestmark = pytest.mark.thorough  # many hostile replies

FIRST, SECOND = "a" * 40, "b" * 40


@pytest.fixture
def hub(cross_encoder_folder, tmp_path):
    running = Hub()
    running.put("acme/tiny", shutil.copytree(cross_encoder_folder, tmp_path / "published"), FIRST)
    yield running
    running.close()


@pytest.fixture
def fetch(hub, tmp_path):
    return partial(run_with, hub, tmp_path, "-m", "rerank_plugins", "fetch", "onnx:acme/tiny")


def changed(only_from=0, **entries):
    """Return a fault that changes headers of a response, from request number `only_from` on."""
    seen = []

    def fault(answer, status, headers, body):
        seen.append(answer.path)
        more = entries if len(seen) > only_from else {}
        answer.send(status, headers | {name.replace("_", "-"): each for name, each in more.items()}, body)

    return fault


@pytest.mark.parametrize(
    ("headers", "error", "once_right"),
    [
        ({"ETag": '"../../../../escaped"'}, "ETag", False),
        ({"ETag": '"../../../../escaped"'}, "ETag", True),
        ({"ETag": '"{outside}"'}, "ETag", False),
        ({"X_Linked_Etag": 'W/"../../../../escaped"'}, "ETag", False),
        ({"X_Repo_Commit": "../../../../escaped"}, "as the commit", False),
    ],
)
def test_headers_with_foreign_paths_are_refused(headers, error, once_right, hub, fetch, tmp_path):
    outside = tmp_path / "escaped"
    headers = {name: each.replace("{outside}", str(outside)) for name, each in headers.items()}
    hub.faults["HEAD /acme/tiny/resolve/" + FIRST + "/tokenizer.json"] = changed(int(once_right), **headers)
    done = fetch()
    if once_right and done.returncode == 0:  # the file was requested once
        assert sum("HEAD" in each and "tokenizer.json" in each for each in hub.requests) == 1
    else:
        assert done.returncode != 0
        assert error in done.stderr
        assert "HF_ENDPOINT" in done.stderr
        assert "Traceback" not in done.stderr
    assert not list(tmp_path.rglob("*escaped*"))


def test_etag_of_a_redirect_is_validated(hub, fetch, tmp_path):
    def elsewhere(answer, *_):
        answer.send(302, {"Location": f"{hub.address}/x", "ETag": '"../../../../escaped"', "X-Repo-Commit": FIRST}, b"")

    hub.faults["HEAD /acme/tiny/resolve/" + FIRST + "/tokenizer.json"] = elsewhere
    done = fetch()
    assert done.returncode != 0
    assert "ETag" in done.stderr
    assert not list(tmp_path.rglob("*escaped*"))


@pytest.mark.parametrize(
    ("change", "error"),
    [
        ({"sha": "../../../../escaped"}, "as the commit"),
        ({"siblings": [{"rfilename": "../model.onnx"}]}, "leads out of it"),
    ],
)
def test_file_list_with_foreign_paths_is_refused(change, error, hub, fetch, tmp_path):
    def listed(answer, status, headers, body):
        body_of_mirror = json.dumps(json.loads(body) | change).encode()
        answer.send(status, {**headers, "Content-Length": str(len(body_of_mirror))}, body_of_mirror)

    hub.faults["/api/models/acme/tiny/revision/main"] = listed
    done = fetch()
    assert done.returncode != 0
    assert error in done.stderr
    assert not list(tmp_path.rglob("*escaped*"))


@pytest.mark.parametrize("entry", [{"commit": "../../x"}, {"all": ["../x.onnx"]}, {"all": [1]}])
def test_record_with_foreign_paths_is_refused(entry, tmp_path):
    file = tmp_path / "record.json"
    file.write_text(json.dumps({"commit": FIRST, "all": ["a.onnx"], "files": {}, "seen": {}} | entry), "utf-8")
    with pytest.raises(ConfigError, match="delete it"):
        Record.read(file)


def test_valid_commits_and_file_names_are_recognized():
    assert is_commit(FIRST)
    assert not any(map(is_commit, ("", "main", "../" + FIRST, FIRST + "/", "g" * 40)))
    assert all(map(stays_inside, ("model.onnx", "onnx/model.onnx", "1_Pooling/config.json", "..model", "a..b")))
    assert not any(map(stays_inside, ("", "/model.onnx", "a\\..\\..\\model.onnx", "..", "a/../b")))
    with pytest.raises(ConfigError, match=r"lists 'C:/x'"):
        refuse_names(["model.onnx", "C:/x"], "acme/tiny")
