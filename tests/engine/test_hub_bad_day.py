"""A hub that fails, truncates, lies or hangs, and caches that other programs filled, changed or made read-only."""

from __future__ import annotations

import hashlib
import json
import os
import re
import shlex
import shutil
import socket
import subprocess
import sys
import threading
from functools import partial
from pathlib import Path

import onnx
import pytest
from support.hub import Answer, Hub, environment, run_with
from support.language_models import language_model

from rerank_plugins.core.errors import ConfigError
from rerank_plugins.engine.pins import Record

FIRST, SECOND = "a" * 40, "b" * 40
SPEC = "onnx:acme/tiny"
CODE = """
import sys
from rerank_plugins import load_reranker
reranker = load_reranker(sys.argv[1])
response = reranker.rerank("how do the tides work", ["Bananas are yellow.", "The moon raises the tides."])
print([result.index for result in response])
"""
ERRORS = """
import json, sys
from rerank_plugins import load_reranker
from rerank_plugins.core.errors import RerankError
for name in sys.argv[1:]:
    try:
        load_reranker(f"onnx:acme/{name}").warmup()
    except RerankError as error:
        attributes = {name: getattr(error, name, None) for name in ("status", "retry_after", "backend")}
        print(json.dumps({"type": type(error).__name__, "message": str(error), **attributes}))
"""
DOWNLOAD = """
import sys
from huggingface_hub import hf_hub_download
for name in sys.argv[2:]:
    hf_hub_download(sys.argv[1], name)
"""
PRINT_FETCHED = """
import json, sys
from rerank_plugins import load_reranker
from rerank_plugins.config import backends
reranker = load_reranker(json.loads(sys.argv[1]))
(backend,) = backends(reranker)
print(backend.fetched)
reranker.warmup()
"""
SMALL = ("config.json", "tokenizer.json", "tokenizer_config.json")


pytestmark = pytest.mark.slow  # nearly all start subprocesses


@pytest.fixture
def hub(cross_encoder_folder, tmp_path):
    running = Hub()
    running.put("acme/tiny", shutil.copytree(cross_encoder_folder, tmp_path / "published"), FIRST)
    yield running
    running.close()


@pytest.fixture
def run(hub, tmp_path):
    return partial(run_with, hub, tmp_path)


def fetch(run, spec=SPEC, **more):
    return run("-m", "rerank_plugins", "fetch", spec, **more)


def records(tmp_path) -> list[dict]:
    folder = tmp_path / "cache" / "rerank_plugins" / "models"
    return [json.loads(each.read_text("utf-8")) for each in folder.glob("*")] if folder.is_dir() else []


def folder_of(done) -> Path:
    assert done.returncode == 0, done.stderr
    return Path(done.stdout.strip().partition(": ")[2])


# --- responses of a hub ---


def respond_with_status(status: int, **headers: str):
    fields = {name.replace("_", "-"): value for name, value in headers.items()}
    return lambda answer, *_: answer.send(status, fields, b"")


def test_interrupted_download_is_resumed(run, hub, tmp_path):
    weights = os.urandom(12_000_000)  # the hub's client saves its progress every 10 MiB
    (tmp_path / "published" / "model.onnx_data").write_bytes(weights)
    ranges = []

    def cut(answer: Answer, status: int, headers: dict[str, str], body: bytes) -> None:
        ranges.append(answer.headers.get("Range"))
        if len(ranges) > 1:
            answer.send(status, headers, body)
            return
        answer.send(status, {"Content-Length": str(len(body)), **headers}, body[:11_000_000])
        answer.close_connection = True
        answer.connection.shutdown(socket.SHUT_RDWR)

    hub.faults[f"GET /acme/tiny/resolve/{FIRST}/model.onnx_data"] = cut
    folder = folder_of(fetch(run))
    assert ranges[0] is None
    assert re.fullmatch(r"bytes=\d{7,}-", ranges[1])
    assert (folder / "model.onnx_data").read_bytes() == weights


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda body: body[:-100], "Consistency check failed"),
        (lambda body: bytes([body[0] ^ 1]) + body[1:], "model.onnx of acme/tiny is damaged"),
    ],
    ids=["short", "other bytes of the same length"],
)
def test_damaged_download_is_not_used_recorded_or_cached(damage, message, run, hub, tmp_path):
    hub.faults[f"GET /acme/tiny/resolve/{FIRST}/model.onnx"] = lambda answer, status, headers, body: answer.send(
        status, headers, damage(body)
    )
    done = fetch(run)
    assert done.returncode == 1
    assert message in done.stderr
    assert f"rerank-plugins fetch {SPEC}" in done.stderr
    assert records(tmp_path) == []
    hub.faults.clear()
    assert fetch(run).returncode == 0, "nothing has to be deleted first"
    assert run("-c", CODE, SPEC, HF_HUB_OFFLINE="1").returncode == 0


def test_each_error_status_of_the_hub_has_its_error_and_advice(run, hub, cross_encoder_folder):
    expected_errors = {
        "500": ("TransientError", "could not be fetched"),
        "503": ("TransientError", "could not be fetched"),
        "429": ("RateLimited", "could not be fetched"),
        "401": ("ConfigError", "set HF_TOKEN"),
        "403": ("ConfigError", "set HF_TOKEN"),
        "404": ("ConfigError", "The hub has no acme/404"),
        "gated401": ("ConfigError", "is gated (401): accept its terms on the hub, and set HF_TOKEN"),
        "gated403": ("ConfigError", "is gated (403): accept its terms on the hub, and set HF_TOKEN"),
        "file403": ("ConfigError", "set HF_TOKEN"),
    }
    for name in expected_errors:
        hub.put(f"acme/{name}", cross_encoder_folder, FIRST)
        status = int(name[-3:])
        if name.isdigit():
            hub.faults[f"/acme/{name}/revision/main"] = respond_with_status(status, Retry_After="7")
        else:  # the file list of a gated repository is public, its files are not
            more = {"X_Error_Code": "GatedRepo"} if name.startswith("gated") else {}
            hub.faults[f"/acme/{name}/resolve/{FIRST}/tokenizer_config.json"] = respond_with_status(status, **more)
    done = run("-c", ERRORS, *expected_errors)
    assert done.returncode == 0, done.stderr
    for (name, (kind, message)), line in zip(expected_errors.items(), done.stdout.splitlines(), strict=True):
        error = json.loads(line)
        assert error["type"] == kind, name
        assert message in error["message"]
        assert "\n" not in error["message"]
        if kind != "ConfigError":
            assert f"rerank-plugins fetch onnx:acme/{name}" in error["message"]
            assert (error["status"], error["backend"]) == (int(name), f"onnx:acme/{name}")
            assert error["retry_after"] == (7.0 if name == "429" else None)


def test_hub_that_does_not_answer_times_out(run, hub):
    hub.faults["/revision/main"] = lambda answer, *_: answer.connection.recv(1)  # blocks until the client disconnects
    done = fetch(run, HF_HUB_ETAG_TIMEOUT="1")
    assert done.returncode == 1
    assert "could not be fetched (ReadTimeout" in done.stderr


@pytest.mark.parametrize("answer", [b"<html>Log in to this network</html>", b"[]"])
def test_server_other_than_a_hub_raises_an_error_without_traceback(answer, run, hub):
    hub.faults["/revision/main"] = lambda request, *_: request.send(200, {}, answer)
    done = fetch(run)
    assert done.returncode == 1
    assert "could not be fetched" in done.stderr
    assert "Traceback" not in done.stderr


def test_redirected_download_does_not_send_the_token_to_the_other_host(run, hub, cross_encoder_folder):
    elsewhere, tokens = Hub(), []
    elsewhere.put("acme/tiny", cross_encoder_folder, FIRST)

    def stored(answer, status, headers, body):
        tokens.append(answer.headers.get("Authorization"))
        answer.send(status, {}, body)  # a file store sends neither commits nor hashes

    def redirected(answer, status, headers, body):
        assert answer.headers["Authorization"] == "Bearer secret"
        linked = {"X-Linked-ETag": headers["ETag"], "X-Linked-Size": str(len(body)), "X-Repo-Commit": FIRST}
        location = f"{elsewhere.address.replace('127.0.0.1', 'localhost')}{answer.path}"
        answer.send(302, {"Location": location, **linked}, b"")

    elsewhere.faults["model.onnx"], hub.faults["model.onnx"] = stored, redirected
    try:
        folder = folder_of(fetch(run, HF_TOKEN="secret"))
    finally:
        elsewhere.close()
    assert hashlib.sha256((folder / "model.onnx").read_bytes()).hexdigest() == (folder / "model.onnx").readlink().name
    assert tokens
    assert set(tokens) == {None}, "the token is not sent to another host"


def test_repository_of_only_pickles_is_refused_without_a_download(run, hub, tmp_path, cross_encoder_folder):
    published = tmp_path / "pickled"
    published.mkdir()
    for name in SMALL:
        shutil.copy(cross_encoder_folder / name, published)
    for name in ("pytorch_model.bin", "model.pt", "model.pkl"):
        (published / name).write_bytes(b"pickled")
    hub.put("acme/pickled", published, FIRST)
    for engine, message in (
        ("sentence-transformers", "has no safetensors weights"),
        ("onnx", "it has no ONNX file"),
    ):
        done = fetch(run, f"{engine}:acme/pickled")
        assert done.returncode == 2
        assert message in done.stderr
    assert not any("resolve" in each for each in hub.requests)


def test_recorded_commit_missing_on_the_hub_is_reported_with_advice(run, hub, tmp_path, cross_encoder_folder):
    assert fetch(run).returncode == 0
    shutil.rmtree(tmp_path / "hf")
    hub.repositories["acme/tiny"].clear()
    hub.put("acme/tiny", cross_encoder_folder, SECOND)
    done = fetch(run)
    assert done.returncode == 2
    (record,) = (tmp_path / "cache" / "rerank_plugins" / "models").iterdir()
    assert "no longer has the commit of acme/tiny that was used first (aaaaaaaaaaaa)" in done.stderr
    assert done.stderr.strip().endswith(f"delete {record}.")
    record.unlink()
    assert SECOND in fetch(run).stdout


# --- concurrent processes ---


def test_two_concurrent_processes_both_update_the_record(run, hub, tmp_path):
    """Without a lock the later write of the record would drop the files of the earlier one."""
    barrier = threading.Barrier(2, timeout=60)

    def together(answer, *right):
        barrier.wait()
        answer.send(*right)

    hub.faults["/revision/main"] = together
    outcomes: dict[str, int] = {}
    specs = (SPEC, "sentence-transformers:acme/tiny")
    threads = [
        threading.Thread(target=lambda spec=spec: outcomes.update({spec: fetch(run, spec).returncode}))
        for spec in specs
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert outcomes == dict.fromkeys(specs, 0)
    (record,) = records(tmp_path)
    assert set(record["files"]) == {*SMALL, "model.onnx", "model.safetensors"}
    hub.requests.clear()
    for spec in specs:
        assert fetch(run, spec).returncode == 0
    assert hub.requests == []


def test_first_recorded_commit_counts_for_all_processes(run, hub, tmp_path, cross_encoder_folder):
    """A process that asked the hub earlier must not overwrite the commit that another one recorded first."""

    def overtaken(answer, *right):
        hub.faults.clear()
        hub.put("acme/tiny", cross_encoder_folder, SECOND)  # the branch moves
        assert SECOND in fetch(run).stdout  # and another process is faster
        answer.send(*right)

    hub.faults["/revision/main"] = overtaken
    assert SECOND in fetch(run, HF_HUB_ETAG_TIMEOUT="60").stdout
    assert [each["commit"] for each in records(tmp_path)] == [SECOND]


def test_mirror_that_reports_one_commit_for_all_ends_without_a_loop(run, hub, cross_encoder_folder):
    assert run("-c", DOWNLOAD, "acme/tiny", *SMALL, "model.onnx").returncode == 0
    assert FIRST in fetch(run, HF_HUB_OFFLINE="1").stdout
    hub.put("acme/tiny", cross_encoder_folder, SECOND)
    reply = hub.answer("/api/models/acme/tiny/revision/main")
    hub.faults[f"/revision/{FIRST}"] = lambda answer, *_: answer.send(*reply)
    done = fetch(run)
    assert done.returncode == 0, done.stderr
    assert FIRST in done.stdout


# --- caches ---


def test_fetched_model_works_offline_without_its_record(run, tmp_path):
    """As with a cache copied into a container image or shared with another user."""
    assert fetch(run).returncode == 0
    done = run("-c", CODE, SPEC, HF_HUB_OFFLINE="1", XDG_CACHE_HOME=str(tmp_path / "another"))
    assert done.returncode == 0, done.stderr


def test_cache_without_symbolic_links_works_offline(run):
    assert fetch(run, HF_HUB_DISABLE_SYMLINKS="1").returncode == 0
    done = run("-c", CODE, SPEC, HF_HUB_DISABLE_SYMLINKS="1", HF_HUB_OFFLINE="1")
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize(
    ("filled", "spec", "missing"),
    [
        (SMALL[:1], SPEC, "it has no ONNX file"),
        (SMALL, SPEC, "it has no ONNX file"),
        (SMALL, "sentence-transformers:acme/tiny", "no safetensors weights"),
        ((*SMALL[:1], "model.onnx"), SPEC, r"no tokenizer\.json"),
        (
            (*SMALL, "model-1.safetensors", "model.safetensors.index.json"),
            "sentence-transformers:acme/tiny",
            "it lacks model-2",
        ),
    ],
)
@pytest.mark.slow  # several subprocesses, seconds each
def test_incomplete_model_offline_advises_the_fetch_command(filled, spec, missing, run, hub, tmp_path):
    published = tmp_path / "published"
    shutil.copy(published / "model.safetensors", published / "model-1.safetensors")
    (published / "model-2.safetensors").write_bytes(b"the rest")
    index = {"weight_map": {"a": "model-1.safetensors", "b": "model-2.safetensors"}}
    (published / "model.safetensors.index.json").write_text(json.dumps(index), "utf-8")
    assert run("-c", DOWNLOAD, "acme/tiny", *filled).returncode == 0
    done = fetch(run, spec, HF_HUB_OFFLINE="1")
    assert done.returncode == 2
    assert re.search(rf"is incomplete on this machine \(.*{missing}", done.stderr)
    assert done.stderr.strip().endswith(f"run: rerank-plugins fetch {spec}")
    assert records(tmp_path) == []
    assert fetch(run, spec).returncode == 0
    assert fetch(run, spec, HF_HUB_OFFLINE="1").returncode == 0


def test_deleted_file_offline_is_named_in_the_error(run):
    folder = folder_of(fetch(run))
    (folder / "model.onnx").resolve().unlink()
    done = fetch(run, HF_HUB_OFFLINE="1")
    assert done.returncode == 2
    assert "it lacks model.onnx" in done.stderr
    assert fetch(run).returncode == 0


def test_cache_filled_for_one_engine_does_not_hide_files_of_another(run, hub):
    assert run("-c", DOWNLOAD, "acme/tiny", *SMALL, "model.safetensors").returncode == 0
    assert fetch(run, "sentence-transformers:acme/tiny", HF_HUB_OFFLINE="1").returncode == 0
    assert fetch(run).returncode == 0


def test_files_missing_in_a_foreign_cache_are_fetched_online(run, hub, tmp_path):
    (tmp_path / "published" / "model.onnx_data").write_bytes(b"weights that lie outside")
    assert run("-c", DOWNLOAD, "acme/tiny", *SMALL, "model.onnx").returncode == 0
    assert fetch(run, HF_HUB_OFFLINE="1").returncode == 0, "a missing optional file is not noticed offline"
    hub.requests.clear()
    assert run("-c", CODE, SPEC).returncode == 0
    assert hub.requests == [], "the model is local"
    assert fetch(run, HF_ENDPOINT="http://127.0.0.1:9").returncode == 0
    folder = folder_of(fetch(run))
    assert (folder / "model.onnx_data").is_file()
    (record,) = records(tmp_path)
    assert record["complete"]


def test_damaged_file_in_a_foreign_cache_is_refused(run, tmp_path):
    assert run("-c", DOWNLOAD, "acme/tiny", *SMALL, "model.onnx").returncode == 0
    (file,) = (tmp_path / "hf").rglob("model.onnx")
    blob = file.resolve()
    blob.write_bytes(blob.read_bytes()[:-1] + b"?")
    done = fetch(run, HF_HUB_OFFLINE="1")
    assert done.returncode == 2
    assert "model.onnx of acme/tiny is damaged" in done.stderr
    assert f"delete {blob}, and run: rerank-plugins fetch {SPEC}" in done.stderr
    blob.unlink()
    assert fetch(run).returncode == 0


def test_changed_file_with_its_old_size_and_mtime_is_refused(run):
    """The content changes; size and mtime stay the same."""
    file = (folder_of(fetch(run)) / "model.onnx").resolve()
    was = file.stat()
    file.write_bytes(file.read_bytes()[:-1] + b"?")
    os.utime(file, ns=(was.st_atime_ns, was.st_mtime_ns))
    for done in (fetch(run), run("-c", CODE, SPEC, HF_HUB_OFFLINE="1")):
        assert done.returncode != 0
        assert "model.onnx of acme/tiny is not the file of the first use" in done.stderr
    assert f"To fetch it again, delete {file};" in done.stderr
    file.unlink()
    assert fetch(run).returncode == 0


@pytest.mark.parametrize("runtime", ["onnxruntime", "openvino"])
@pytest.mark.slow  # several subprocesses, seconds each
def test_loading_external_weights_does_not_cause_another_hash(runtime, run, tmp_path):
    """OpenVINO gets hard links to the weights, which changes their ctime."""
    published = tmp_path / "published"
    model = onnx.load(str(published / "model.onnx"))
    outside = {"save_as_external_data": True, "location": "model.onnx_data", "size_threshold": 0}
    (published / "model.onnx").unlink()
    onnx.save_model(model, str(published / "model.onnx"), **outside)
    spec = json.dumps({"use": SPEC, "runtime": runtime})
    for hashed_before in (False, True, True):
        done = run("-c", PRINT_FETCHED, spec)
        assert done.returncode == 0, done.stderr
        assert done.stdout.strip() == str(hashed_before)
    (weights,) = (tmp_path / "hf").rglob("model.onnx_data")
    was = weights.stat()
    weights.write_bytes(weights.read_bytes()[:-1] + b"?")
    os.utime(weights, ns=(was.st_atime_ns, was.st_mtime_ns))
    done = run("-c", PRINT_FETCHED, spec)
    assert done.stdout.strip() == "False"
    assert "model.onnx_data of acme/tiny is not the file of the first use" in done.stderr


def test_read_only_cache_is_used_and_not_extended(run, tmp_path):
    folder = folder_of(fetch(run))
    locks = tmp_path / "cache" / "rerank_plugins" / "locks"
    shutil.rmtree(locks)
    locks.write_text("a file in place of the folder: no user can write a lock", "utf-8")
    for file in folder.iterdir():
        os.utime(file, ns=(1, 1))  # as after a copy into an image: hashed again, with the same result
    done = run("-c", CODE, SPEC, HF_HUB_OFFLINE="1")
    assert done.returncode == 0, done.stderr
    done = fetch(run, "sentence-transformers:acme/tiny")
    assert done.returncode == 2
    assert "set XDG_CACHE_HOME to a writable folder" in done.stderr
    (folder / "config.json").resolve().write_text("{}", "utf-8")
    assert "is not the file of the first use" in fetch(run).stderr


@pytest.mark.parametrize(
    "failure", ["unreachable", "503", "429", "401", "403", "404"]
)  # 401 to 404: gated or deleted in the meantime
def test_filled_cache_is_used_while_the_hub_fails(failure, run, hub):
    assert run("-c", DOWNLOAD, "acme/tiny", *SMALL, "model.onnx").returncode == 0
    if failure != "unreachable":
        hub.faults["/revision/main"] = respond_with_status(int(failure))
    done = run("-c", CODE, SPEC, **({"HF_ENDPOINT": "http://127.0.0.1:9"} if failure == "unreachable" else {}))
    assert done.returncode == 0, done.stderr


@pytest.mark.slow  # several subprocesses, seconds each
def test_local_folder_makes_no_request(run, hub, tmp_path):
    for engine in ("onnx", "sentence-transformers", "bge"):
        done = run("-c", CODE, f"{engine}:{tmp_path / 'published'}")
        assert done.returncode == 0, done.stderr
    assert hub.requests == []


@pytest.mark.parametrize(
    "broken",
    ["", "[]", "{}", '{"commit": "a", "all": [], "files": 1, "seen": {}}', '{"commit": "aaaa', "\xff"],
    ids=["empty", "list", "nothing", "types", "cut", "bytes"],
)
def test_unreadable_record_raises_a_config_error(broken, tmp_path):
    file = tmp_path / "acme--tiny@main.json"
    assert Record.read(file) is None
    file.write_bytes(broken.encode("latin-1"))
    with pytest.raises(
        ConfigError, match=rf"{re.escape(str(file))} cannot be read .* delete it to trust the model anew"
    ):
        Record.read(file)


UNREADABLE_FILES = """
import sys
from rerank_plugins.cli import main
from rerank_plugins.engine import hub
def refused(file):
    raise PermissionError(13, "Permission denied", str(file))  # simulated, because root can read every file
hub._sha256 = refused
sys.exit(main(["fetch", sys.argv[1]]))
"""


def test_unreadable_cache_raises_an_error_with_advice(run):
    done = run("-c", UNREADABLE_FILES, SPEC)
    assert done.returncode == 2
    assert re.search(r"\(Permission denied: .*model\.onnx\): make room, or set HF_HOME", done.stderr)


FULL_DISK = """
import errno, sys
import huggingface_hub.file_download
from rerank_plugins.cli import main
def full(*arguments, **options):
    raise OSError(errno.ENOSPC, "No space left on device")
huggingface_hub.file_download.http_get = full
sys.exit(main(["fetch", sys.argv[1]]))
"""


def test_unwritable_cache_error_names_the_variable(run, tmp_path):
    done = run("-c", FULL_DISK, SPEC)
    assert done.returncode == 2
    assert "(No space left on device): make room, or set HF_HOME" in done.stderr
    no_folder = tmp_path / "file"
    no_folder.write_text("a file", "utf-8")
    for variable in ("HF_HOME", "XDG_CACHE_HOME"):
        done = fetch(run, **{variable: str(no_folder)})
        assert done.returncode == 2
        assert f"set {variable} to a writable folder" in done.stderr


# --- the command in the error ---


@pytest.mark.parametrize(
    "spec",
    [
        SPEC,
        {"use": SPEC, "revision": FIRST, "local_files_only": True},
        {"use": "sentence-transformers:acme/tiny", "max_tokens": 64},
        {"use": "mxbai:mxbai-rerank-xsmall-v1", "runtime": "torch"},
        {"use": "causal-lm:acme/tiny", "causal-lm": {"template": "qwen3"}},
        {
            "use": "sentence-transformers:acme/tiny",
            "revision": FIRST,
            "sentence-transformers": {"trust_remote_code": True},
        },
    ],
    ids=["name", "revision", "engine", "runtime", "template", "code"],
)
def test_command_in_the_offline_error_fetches_the_missing_files(spec, run, hub, tmp_path, cross_encoder_folder):
    published = tmp_path / "published"
    (published / "own.py").write_text("raise SystemExit", "utf-8")
    hub.put("mixedbread-ai/mxbai-rerank-xsmall-v1", published, FIRST)
    if "causal-lm" in spec:
        hub.put("acme/tiny", language_model(tmp_path / "language-model", "qwen3"), FIRST)
    if isinstance(spec, dict) and "revision" in spec:
        hub.put("acme/tiny", shutil.copytree(cross_encoder_folder, tmp_path / "later"), SECOND)
    typed = spec if isinstance(spec, str) else json.dumps(spec)
    done = fetch(run, typed, HF_HUB_OFFLINE="1")
    assert done.returncode == 2
    command = shlex.split(done.stderr.strip().rpartition("run: ")[2])
    assert command[:2] == ["rerank-plugins", "fetch"]
    done = run("-m", "rerank_plugins", *command[1:])
    assert done.returncode == 0, done.stderr
    done = fetch(run, typed, HF_HUB_OFFLINE="1")
    assert done.returncode == 0, done.stderr
    assert FIRST in done.stdout
    if "trust_remote_code" in typed:
        assert (folder_of(done) / "own.py").is_file()


@pytest.mark.skipif(sys.platform == "win32", reason="there is no pseudo-terminal")
def test_fetch_on_a_terminal_shows_a_progress_bar_for_each_file(hub, tmp_path):
    import fcntl
    import pty
    import struct
    import termios

    parent_end, child_end = pty.openpty()
    fcntl.ioctl(child_end, termios.TIOCSWINSZ, struct.pack("HHHH", 24, 120, 0, 0))
    command = [sys.executable, "-m", "rerank_plugins", "fetch", SPEC]
    done = subprocess.run(
        command, env=environment(hub, tmp_path), stdout=subprocess.PIPE, stderr=child_end, check=True, timeout=60
    )
    os.close(child_end)
    shown = os.read(parent_end, 65536).decode()
    os.close(parent_end)
    assert done.stdout
    for name in (*SMALL, "model.onnx"):
        assert re.search(rf"{re.escape(name)}: 100%\|█+", shown), shown
