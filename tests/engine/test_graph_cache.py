"""The cached graph of onnxruntime: what is read, what is refused and written anew, and processes that share it."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnxruntime
import pytest
from support.bounds import SAME_INPUT

from rerank_plugins import load_reranker
from rerank_plugins.backends.embedded import FOLDER
from rerank_plugins.engine.no_telemetry import onnxruntime_version
from rerank_plugins.engine.onnx import graph_cache as module
from rerank_plugins.engine.onnx.cross_encoder import open_session
from rerank_plugins.engine.onnx.graph_cache import GRAPH, VARIABLE, GraphCache, graph_cache
from rerank_plugins.engine.shared_model import SharedModel
from rerank_plugins.engine.weights_digest import digest

FEED = {
    "input_ids": np.array([[2, 5, 7, 3], [2, 6, 3, 0]]),
    "attention_mask": np.array([[1, 1, 1, 1], [1, 1, 1, 0]]),
    "token_type_ids": np.zeros((2, 4), dtype=np.int64),
}
KEY = {"format": "1", "model": "m", "installation": "p", "instructions": "i"}

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="the cache is off on other systems")


@pytest.fixture
def cache(tmp_path: Path) -> GraphCache:
    return GraphCache(tmp_path / "graphs", KEY, onnxruntime_version)


@pytest.fixture
def unloaded(monkeypatch: pytest.MonkeyPatch) -> None:
    """Share no model with other tests of this process: each reranker of `embedded` loads its own."""
    monkeypatch.setattr(SharedModel, "shared", classmethod(lambda cls, folder, options: cls(folder, options)))


@pytest.fixture
def scores(cross_encoder_folder: Path) -> Callable[[GraphCache | None], list[list[float]]]:
    """Return the scores of the tiny model, opened with a cache."""

    def run(cache: GraphCache | None) -> list[list[float]]:
        return open_session("onnxruntime", "float32", cross_encoder_folder / "model.onnx", 1, cache).run(FEED).tolist()

    return run


def is_used(cache: GraphCache) -> bool:
    """Tell whether a process that starts now reads the entry."""
    return cache.load(lambda graph: graph) is not None


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_cached_graph_gives_the_same_scores_to_the_last_bit(cache, scores):
    plain = scores(None)
    assert not is_used(cache)
    assert scores(cache) == plain  # this one writes
    assert is_used(cache)
    assert scores(cache) == plain  # this one reads


@pytest.mark.usefixtures("unloaded")
def test_embedded_gives_the_same_scores_from_the_cache(tmp_path, monkeypatch):
    texts = ["The moon makes the tides.", "Cars have wheels.", "tides " * 300]
    answers = []
    for value in ("off", str(tmp_path), str(tmp_path)):
        monkeypatch.setenv(VARIABLE, value)
        with load_reranker("embedded") as reranker:
            response = reranker.rerank("what makes the tides?", texts)
            answers.append({result.index: result.raw_score for result in response})
    off, written, read = answers
    assert written == off
    assert read == off
    (entry,) = (path for path in (tmp_path / "rerank_plugins-graphs").iterdir() if path.is_dir())
    assert names(entry) == ["graph.onnx", "manifest.json", "weights.bin"]


@pytest.mark.usefixtures("unloaded")
def test_only_embedded_is_cached(tmp_path, monkeypatch, cross_encoder_folder):
    """Another model may have gigabytes, which nothing would ever delete."""
    monkeypatch.setenv(VARIABLE, str(tmp_path / "graphs"))
    with load_reranker(f"onnx:{cross_encoder_folder}") as reranker:
        reranker.rerank("tide", ["moon", "sea"])
    with load_reranker("embedded:fast") as reranker:
        reranker.rerank("tide", ["moon", "sea"])
    assert not (tmp_path / "graphs").exists()


@pytest.mark.parametrize("name", [GRAPH, "weights.bin", "manifest.json"])
@pytest.mark.parametrize("damage", ["flip", "cut", "empty", "delete"])
def test_damaged_file_is_reported_and_written_anew(name, damage, cache, scores, caplog):
    plain = scores(cache)
    file = cache.folder / name
    content = bytearray(file.read_bytes())
    if damage == "flip":
        content[len(content) // 2] ^= 1
        file.write_bytes(content)
    elif damage == "cut":
        file.write_bytes(content[:-1])
    elif damage == "empty":
        file.write_bytes(b"")
    else:
        file.unlink()
    assert not is_used(cache)
    if damage != "delete":
        assert "is not used" in caplog.text
    assert scores(cache) == plain
    assert is_used(cache)
    assert names(cache.root) == [".lock", cache.folder.name]


def test_entry_of_another_key_is_not_used(cache, scores):
    """A copied folder has the right name, owner and digests, but it is of another model."""
    other = GraphCache(cache.root, KEY | {"model": "other"}, onnxruntime_version)
    scores(other)
    other.folder.rename(cache.folder)
    assert not is_used(cache)
    plain = scores(cache)
    assert is_used(cache)
    assert scores(cache) == plain


def test_entry_of_another_version_of_onnxruntime_is_not_used(cache, scores, caplog):
    """The version is not in the name of the entry: it is known only after the import, when the weights are hashed."""
    plain = scores(GraphCache(cache.root, KEY, lambda: "1.0 of another build"))
    assert not is_used(cache)
    assert "another version of onnxruntime" in caplog.text
    assert scores(cache) == plain
    assert is_used(cache)


@pytest.mark.parametrize("changed", ["format", "model", "installation", "instructions"])
def test_every_part_of_the_key_names_another_entry(changed, cache):
    assert GraphCache(cache.root, KEY | {changed: "another"}, onnxruntime_version).folder != cache.folder


def test_entry_of_another_user_is_not_used(cache, scores, caplog, monkeypatch):
    scores(cache)
    own = os.geteuid()
    monkeypatch.setattr(os, "geteuid", lambda: own + 1)
    assert not is_used(cache)
    assert "belongs to another user" in caplog.text
    assert cache.write(lambda graph: graph) is None  # nor is anything written to a folder of another user


@pytest.mark.parametrize("part", [".", "entry", GRAPH, "weights.bin", "manifest.json"])
def test_entry_that_others_may_write_to_is_not_used(part, cache, scores, caplog):
    scores(cache)
    path = cache.root if part == "." else cache.folder if part == "entry" else cache.folder / part
    path.chmod(path.stat().st_mode | 0o020)
    assert not is_used(cache)
    assert "others may write" in caplog.text
    path.chmod(path.stat().st_mode & ~0o020)
    assert is_used(cache)


@pytest.mark.parametrize("part", ["entry", GRAPH, "weights.bin", "manifest.json"])
def test_link_is_not_followed(part, cache, scores, tmp_path):
    scores(cache)
    path = cache.folder if part == "entry" else cache.folder / part
    path.rename(tmp_path / "elsewhere")
    path.symlink_to(tmp_path / "elsewhere")
    assert not is_used(cache)


def test_modes_do_not_depend_on_the_umask(cache, scores):
    before = os.umask(0)
    try:
        scores(cache)
    finally:
        os.umask(before)
    assert [path.stat().st_mode & 0o777 for path in (cache.root, cache.folder)] == [0o700, 0o700]
    assert {path.stat().st_mode & 0o777 for path in cache.folder.iterdir()} == {0o600}


def test_unwritable_folder_costs_nothing_but_the_cache(tmp_path, scores, caplog):
    (tmp_path / "file").touch()
    cache = GraphCache(
        tmp_path / "file" / "graphs", KEY, onnxruntime_version
    )  # root may write to every folder, but to none below a file
    assert scores(cache) == scores(None)
    assert [record.levelname for record in caplog.records] == []  # INFO is not captured: no warning


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write to every folder")
def test_read_only_folder_costs_nothing_but_the_cache(tmp_path, scores):
    (tmp_path / "graphs").mkdir(mode=0o500)
    assert scores(GraphCache(tmp_path / "graphs", KEY, onnxruntime_version)) == scores(None)


def test_failed_write_leaves_the_session_and_no_files(cache):
    def build(graph: Path) -> str:
        graph.mkdir()  # a folder cannot be hashed
        return "session"

    assert cache.write(build) == "session"
    assert names(cache.root) == [".lock"]

    def fail(graph: Path) -> str:
        graph.write_bytes(b"half")
        raise OSError(28, "No space left on device")

    assert cache.write(fail) is None
    assert names(cache.root) == [".lock"]


def test_second_writer_leaves_the_entry_to_the_first(cache, scores):
    with cache_locked(cache):
        assert cache.write(lambda graph: graph) is None
        assert scores(cache) == scores(None)
    assert not is_used(cache)


def test_child_of_a_fork_does_not_keep_the_lock(cache):
    code = (
        "import os, signal, sys, time; from pathlib import Path\n"
        "from rerank_plugins.engine.onnx.graph_cache import _exclusive\n"
        "with _exclusive(Path(sys.argv[1])):\n"
        "    child = os.fork()\n"
        "    if child == 0:\n"
        "        time.sleep(60)\n"
        "        os._exit(0)\n"
        "try:\n"
        "    with _exclusive(Path(sys.argv[1])):\n"
        "        print('free')\n"
        "finally:\n"
        "    os.kill(child, signal.SIGKILL)\n"
        "    os.waitpid(child, 0)\n"
    )
    cache.root.mkdir(parents=True)
    done = subprocess.run(
        [sys.executable, "-c", code, str(cache.root / ".lock")], capture_output=True, text=True, check=False
    )
    assert done.stdout == "free\n", done.stderr


def cache_locked(cache: GraphCache):
    cache.root.mkdir(mode=0o700, parents=True)
    return module._exclusive(cache.root / ".lock")


def test_killed_writer_leaves_nothing_that_is_read_and_the_next_one_cleans_up(cache, scores):
    code = (
        "import os, signal, sys, json; from pathlib import Path\n"
        "from rerank_plugins.engine.onnx.graph_cache import GraphCache\n"
        "def build(graph):\n"
        "    graph.write_bytes(b'half of a graph')\n"
        "    os.kill(os.getpid(), signal.SIGKILL)\n"
        "GraphCache(Path(sys.argv[1]), json.loads(sys.argv[2]), lambda: 'v').write(build)\n"
    )
    killed = subprocess.run([sys.executable, "-c", code, str(cache.root), json.dumps(KEY)], check=False)
    assert killed.returncode == -signal.SIGKILL
    assert [name[:11] for name in names(cache.root)] == [".lock", ".new-graph-"]
    assert not is_used(cache)
    plain = scores(cache)
    assert names(cache.root) == [".lock", cache.folder.name]
    assert scores(cache) == plain


def test_four_entries_stay_and_the_oldest_go(cache, scores):
    entries = [GraphCache(cache.root, KEY | {"model": str(number)}, onnxruntime_version) for number in range(6)]
    for age, entry in enumerate(entries):
        scores(entry)
        os.utime(entry.folder, (age, age))
    assert [is_used(entry) for entry in entries] == [False, False, True, True, True, True]


def test_folders_of_the_user_stay_when_old_entries_go(cache, scores):
    for number in range(7):
        name = f"{number:032x}" if number % 2 else f"project{number}"  # one that looks like an entry, one that does not
        folder = cache.root / name
        folder.mkdir(parents=True)
        (folder / "manifest.json").write_text("{}")
        os.utime(folder, (number, number))
    cache.root.chmod(0o700)
    before = names(cache.root)
    scores(cache)
    assert is_used(cache)
    assert names(cache.root) == sorted([*before, ".lock", cache.folder.name])


def test_environment_moves_the_cache_or_turns_it_off(tmp_path, monkeypatch):
    monkeypatch.delenv(VARIABLE, raising=False)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert graph_cache("m").root == tmp_path / "rerank_plugins" / "graphs"
    monkeypatch.setenv(VARIABLE, str(tmp_path / "here"))
    assert graph_cache("m").root == tmp_path / "here" / "rerank_plugins-graphs"
    assert graph_cache("m").folder != graph_cache("n").folder
    for on in ("1", "on", "TRUE", "yes"):
        monkeypatch.setenv(VARIABLE, on)
        assert graph_cache("m").root == tmp_path / "rerank_plugins" / "graphs"
    for off in ("off", "0", "OFF", "no", "false"):
        monkeypatch.setenv(VARIABLE, off)
        assert graph_cache("m") is None


def test_without_a_home_folder_there_is_no_cache(monkeypatch):
    monkeypatch.delenv(VARIABLE, raising=False)
    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)

    def no_home() -> Path:
        raise RuntimeError("Could not determine home directory.")

    monkeypatch.setattr(Path, "home", no_home)
    assert graph_cache("m") is None


def test_three_processes_at_once_on_an_empty_cache_answer_alike(tmp_path):
    """They wait for a line on stdin, so that all of them load at the same time."""
    code = (
        "import sys; from rerank_plugins import load_reranker\n"
        "reranker = load_reranker('embedded')\n"
        "print('ready', flush=True); sys.stdin.readline()\n"
        "print([r.raw_score for r in reranker.rerank('what makes tides?', ['cars', 'the moon makes tides', 'sea'])])\n"
    )
    environment = {**os.environ, VARIABLE: str(tmp_path)}
    processes = [
        subprocess.Popen(
            [sys.executable, "-c", code],
            env=environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        )
        for _ in range(3)
    ]  # fmt: skip
    for process in processes:
        assert process.stdout.readline() == "ready\n"
    for process in processes:
        process.stdin.write("go\n")
        process.stdin.flush()
    replies = [process.communicate(timeout=120) for process in processes]
    assert [process.returncode for process in processes] == [0, 0, 0], replies
    assert len({output for output, _ in replies}) == 1
    assert [errors for _, errors in replies] == ["", "", ""]
    entries = [path for path in (tmp_path / "rerank_plugins-graphs").iterdir() if path.is_dir()]
    assert [names(entry) for entry in entries] == [["graph.onnx", "manifest.json", "weights.bin"]]
    with_cache = json.loads(replies[0][0])
    with load_reranker("embedded") as reranker:
        response = reranker.rerank("what makes tides?", ["cars", "the moon makes tides", "sea"])
    assert [result.raw_score for result in response] == pytest.approx(with_cache, rel=SAME_INPUT)


@pytest.mark.usefixtures("unloaded")
def test_key_names_the_model_the_runtime_and_the_processor(tmp_path, monkeypatch):
    monkeypatch.setenv(VARIABLE, str(tmp_path))
    with load_reranker("embedded") as reranker:
        reranker.warmup()
    (entry,) = (path for path in (tmp_path / "rerank_plugins-graphs").iterdir() if path.is_dir())
    manifest = json.loads((entry / "manifest.json").read_text("utf-8"))
    key = manifest["key"]
    assert sorted(key) == ["format", "installation", "instructions", "model"]
    assert key["model"] == digest([FOLDER / "model.onnx"])
    assert onnxruntime.__file__ in key["installation"]
    assert manifest["version"].startswith(onnxruntime.__version__)
    assert key["instructions"].startswith(os.uname().machine)
