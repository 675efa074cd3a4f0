"""FlashRank's models by name: zip files of one hub repository, which may be hostile."""

from __future__ import annotations

import errno
import json
import os
import re
import shutil
import stat
import threading
import zipfile
from functools import partial
from pathlib import Path

import pytest
from support.bounds import OTHER_CODE, near
from support.hub import Hub, run_with
from support.models import SENTENCES
from support.zipped import MODEL, ONNX, zip_of

from rerank_plugins.backends.recipes import MODELS
from rerank_plugins.core.errors import ConfigError
from rerank_plugins.engine import archive

pytestmark = pytest.mark.thorough  # many damaged and hostile files

FIRST, SECOND = "a" * 40, "b" * 40
REPOSITORY = "prithivida/flashrank"
QUERY = "how do the tides work"
CODE = """
import json, sys
from rerank_plugins import load_reranker
with load_reranker(sys.argv[1]) as reranker:
    response = reranker.rerank(sys.argv[2], json.loads(sys.argv[3]))
    print(json.dumps({result.index: result.relevance_score for result in response}))
"""
KILLED = """
import os, shutil, signal
from rerank_plugins.engine import archive
copy = shutil.copyfileobj
def killed(source, target, length):
    if target.name.endswith(".onnx"):
        target.write(source.read(100))
        target.flush()
        os.kill(os.getpid(), signal.SIGKILL)
    copy(source, target, length)
archive.shutil.copyfileobj = killed
from rerank_plugins import load_reranker
load_reranker("flashrank").warmup()
"""


@pytest.fixture
def zipped(cross_encoder_folder, tmp_path):
    return zip_of(cross_encoder_folder, tmp_path / f"{MODEL}.zip")


@pytest.fixture
def hub(zipped, tmp_path):
    running = Hub()
    published = tmp_path / "published"
    published.mkdir()
    shutil.copy(zipped, published)
    (published / "rank_zephyr_7b_v1_full.zip").write_bytes(b"seven billion")
    running.put(REPOSITORY, published, FIRST)
    yield running
    running.close()


@pytest.fixture
def run(hub, tmp_path):
    return partial(run_with, hub, tmp_path)


def scores(run, spec="flashrank", **more):
    done = run("-c", CODE, spec, QUERY, json.dumps(SENTENCES), **more)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def fetch(run, spec="flashrank", **more):
    return run("-m", "rerank_plugins", "fetch", spec, **more)


def cache_entries(tmp_path, kind) -> list[Path]:
    return sorted((tmp_path / "cache" / "rerank_plugins" / kind).iterdir())


def test_first_call_fetches_and_scores_like_flashrank_then_offline(run, hub, tmp_path):
    from flashrank import Ranker, RerankRequest

    expected = scores(run)
    assert not any("zephyr" in each and "resolve" in each for each in hub.requests), "only one zip file is downloaded"
    (record,) = cache_entries(tmp_path, "models")
    written = json.loads(record.read_text("utf-8"))
    assert written["commit"] == FIRST
    assert list(written["files"]) == [f"{MODEL}.zip"]
    (cache,) = cache_entries(tmp_path, "unpacked")
    ranker = Ranker(model_name=MODEL, cache_dir=str(cache))  # our folder has the layout that flashrank reads
    passages = [{"id": str(index), "text": text} for index, text in enumerate(SENTENCES)]
    flashrank_scores = {
        each["id"]: float(each["score"]) for each in ranker.rerank(RerankRequest(query=QUERY, passages=passages))
    }
    assert expected == near(flashrank_scores, OTHER_CODE)
    hub.requests.clear()
    for spec, more in (
        ("flashrank", {}),
        (f"flashrank:{MODEL}", {"HF_HUB_OFFLINE": "1"}),
        (f"flashrank:{cache / MODEL}", {}),
    ):
        assert scores(run, spec, **more) == expected
    assert hub.requests == [], "a local model needs no request"


@pytest.mark.slow
def test_fetch_prints_the_folder_of_every_flashrank_model(run, hub, tmp_path, cross_encoder_folder):
    recipes = [recipe for recipe in MODELS if recipe.family == "flashrank"]
    assert recipes[0].name == MODEL
    for recipe in recipes:
        zip_of(cross_encoder_folder, tmp_path / "published" / f"{recipe.name}.zip", recipe.name, recipe.onnx)
        done = fetch(run, f"flashrank:{recipe.name}")
        assert done.returncode == 0, done.stderr
        folder = Path(done.stdout.strip().partition(": ")[2])
        assert folder.name == recipe.name
        assert (folder / recipe.onnx).read_bytes() == (cross_encoder_folder / "model.onnx").read_bytes()
        # Each model has a record of its own: the commit of an earlier model may not contain one added later.
        assert FIRST in str(folder) or recipe is not recipes[0]
        hub.put(REPOSITORY, tmp_path / "published", SECOND)
    assert len(cache_entries(tmp_path, "models")) == len(recipes)


@pytest.mark.slow  # several subprocesses, seconds each
def test_missing_or_changed_unpacked_folder_is_unpacked_again(run, hub, tmp_path):
    expected = scores(run)
    (cache,) = cache_entries(tmp_path, "unpacked")
    shutil.rmtree(cache)
    hub.requests.clear()
    assert scores(run, HF_HUB_OFFLINE="1") == expected
    (cache / MODEL / ONNX).write_bytes(b"another model")
    assert scores(run) == expected
    (cache / MODEL / "tokenizer.json").unlink()
    assert scores(run) == expected
    assert hub.requests == []
    assert [each.name for each in cache.iterdir()] == [MODEL]


@pytest.mark.slow  # several subprocesses, seconds each
def test_zip_file_other_than_the_recorded_one_is_refused(run, hub, tmp_path, cross_encoder_folder):
    assert fetch(run).returncode == 0
    shutil.rmtree(tmp_path / "hf")
    zip_of(cross_encoder_folder, tmp_path / "published" / f"{MODEL}.zip", more={f"{MODEL}/vocab.txt": b"x"})
    done = fetch(run)
    assert done.returncode == 2
    assert f"{MODEL}.zip of {REPOSITORY} is not the file of the first use" in done.stderr
    (record,) = cache_entries(tmp_path, "models")
    (cache,) = cache_entries(tmp_path, "unpacked")
    assert not (cache / MODEL / "vocab.txt").exists()
    record.unlink()
    assert fetch(run).returncode == 0
    assert (cache / MODEL / "vocab.txt").exists(), "once accepted, it replaces the former file"
    (left,) = (tmp_path / "hf").rglob(f"{MODEL}.zip")
    left.resolve().write_bytes(b"not what it was")
    done = run("-c", CODE, "flashrank", QUERY, json.dumps(SENTENCES))
    assert "is not the file of the first use" in done.stderr


@pytest.mark.slow  # several subprocesses, seconds each
def test_process_killed_while_unpacking_leaves_no_partial_folder(run, hub, tmp_path):
    """A partial folder under the final name would be loaded as a model by the next process."""
    done = run("-c", KILLED)
    assert done.returncode == -9, done.stderr
    (cache,) = cache_entries(tmp_path, "unpacked")
    (half,) = cache.iterdir()
    assert half.name != MODEL
    assert list(half.rglob(ONNX))
    assert scores(run)
    assert [each.name for each in cache.iterdir()] == [MODEL]


@pytest.mark.parametrize(
    ("spec", "more", "message"),
    [
        ("flashrank", {"HF_HUB_OFFLINE": "1"}, f"run: rerank-plugins fetch flashrank:{MODEL}"),
        ('{"use": "flashrank", "local_files_only": true}', {}, f"run: rerank-plugins fetch flashrank:{MODEL}"),
        ('{"use": "flashrank", "revision": "v9"}', {}, "no revision 'v9'"),
        ("flashrank:ce-esci-MiniLM-L12-v2", {}, "it has no ce-esci-MiniLM-L12-v2.zip"),
        ("flashrank", {"HF_ENDPOINT": "http://127.0.0.1:9"}, "could not be fetched"),
    ],
)
def test_error_about_a_failed_fetch_has_advice(spec, more, message, run):
    done = fetch(run, spec, **more)
    assert done.returncode in (1, 2)
    assert message in done.stderr


def test_fetch_command_refuses_a_zip_file_with_path_traversal(run, tmp_path, cross_encoder_folder):
    zip_of(cross_encoder_folder, tmp_path / "published" / f"{MODEL}.zip", more={"../../outside.txt": b"x"})
    done = fetch(run)
    assert done.returncode == 2
    assert "Traceback" not in done.stderr
    (record,) = cache_entries(tmp_path, "models")
    assert re.search(r"flashrank:\S+ cannot be used: .*'\.\./\.\./outside\.txt' leads out of the folder", done.stderr)
    assert str(record) in done.stderr
    assert not list((tmp_path / "cache").rglob("*.onnx"))
    assert not list(tmp_path.rglob("outside.txt"))


# --- without a hub ---


def member(name: str, kind: int = 0) -> zipfile.ZipInfo:
    info = zipfile.ZipInfo(name)
    info.external_attr = (kind | 0o644) << 16
    return info


def unpack(zipped: Path, tmp_path: Path) -> Path:
    return archive.unpack(zipped, MODEL, ONNX, tmp_path / "unpacked" / "at" / MODEL)


@pytest.mark.parametrize(
    ("entry", "message"),
    [
        (member("../x"), "leads out"),
        (member(f"{MODEL}/../../x.json"), "leads out"),
        (member("..\\x"), "leads out"),
        (member("/x.json"), "leads out"),
        (member("C:/x.json"), "leads out"),
        (member("\\\\host\\share\\x.json"), "leads out"),
        (member(f"{MODEL}/vocab.txt", stat.S_IFLNK), "is a link"),
        (member(f"{MODEL}/other", stat.S_IFLNK), "is a link"),
        (member(f"{MODEL}/vocab.txt", stat.S_IFIFO), "is a link or a special file"),
    ],
    ids=lambda value: value.filename if isinstance(value, zipfile.ZipInfo) else "",
)
def test_zip_file_with_a_hostile_member_is_refused_entirely(entry, message, zipped, tmp_path):
    with zipfile.ZipFile(zipped, "a") as written:
        written.writestr(entry, b"/etc/passwd")
    before = {each for each in tmp_path.rglob("*") if each.is_file()}
    with pytest.raises(ConfigError, match=message):
        unpack(zipped, tmp_path)
    assert {each for each in tmp_path.rglob("*") if each.is_file()} == before


def test_zip_bomb_is_refused_before_anything_is_written(zipped, tmp_path, monkeypatch):
    written = []
    monkeypatch.setattr(archive.shutil, "copyfileobj", lambda *arguments: written.append(arguments))
    monkeypatch.setattr(archive, "MAX_BYTES", 10_000_000)
    with zipfile.ZipFile(zipped, "a", zipfile.ZIP_DEFLATED) as bomb:
        bomb.writestr(f"{MODEL}/vocab.txt", bytes(10_000_000))
    assert zipped.stat().st_size < 1_000_000
    with pytest.raises(ConfigError, match=r"would unpack to 10,\d{3},\d{3} bytes, and at most 10,000,000 are allowed"):
        unpack(zipped, tmp_path)
    assert not written


def test_zip_bomb_with_a_forged_size_writes_at_most_that_size(zipped, tmp_path, monkeypatch):
    size = 10_000_000
    with zipfile.ZipFile(zipped, "a", zipfile.ZIP_DEFLATED) as bomb:
        bomb.writestr(f"{MODEL}/vocab.txt", bytes(size))
    data = zipped.read_bytes()
    assert data.count(size.to_bytes(4, "little")) == 2, "in the header of the member and in the central directory"
    zipped.write_bytes(data.replace(size.to_bytes(4, "little"), (5).to_bytes(4, "little")))
    sizes = []
    copy = shutil.copyfileobj

    def copied(source, target, length):
        try:
            copy(source, target, length)
        finally:
            sizes.append(target.tell())

    monkeypatch.setattr(archive.shutil, "copyfileobj", copied)
    with pytest.raises(ConfigError, match="cannot be read as a zip file"):
        unpack(zipped, tmp_path)
    assert sizes[-1] <= 5


def test_unpack_extracts_only_the_files_of_the_model(cross_encoder_folder, tmp_path):
    more = ("vocab.txt", "._" + ONNX, "other.onnx", "run.py", "deep/config.json")
    more = {f"{MODEL}/{name}": b"x" for name in more} | {f"__MACOSX/{MODEL}/._config.json": b"x", "config.json": b"x"}
    folder = unpack(zip_of(cross_encoder_folder, tmp_path / "a.zip", more=more), tmp_path)
    small = {"config.json", "tokenizer.json", "tokenizer_config.json", "special_tokens_map.json", "vocab.txt"}
    assert {each.name for each in folder.iterdir()} == {ONNX, *small, ".unpacked.json"}
    assert (folder / "config.json").read_bytes() == (cross_encoder_folder / "config.json").read_bytes()


def test_wrong_zip_file_is_refused(zipped, tmp_path, cross_encoder_folder):
    with pytest.raises(ConfigError, match=rf"holds no {MODEL}/{ONNX}"):
        unpack(zip_of(cross_encoder_folder, tmp_path / "a.zip", onnx="other.onnx"), tmp_path)
    data = zipped.read_bytes()
    for broken in (b"<html>", data[:-30], data.replace(data[500:600], bytes(100))):
        zipped.write_bytes(broken)
        with pytest.raises(ConfigError, match=r"a?\.zip cannot be read as a zip file"):
            unpack(zipped, tmp_path)
    assert not (tmp_path / "unpacked" / "at" / MODEL).exists()


def test_unwritable_unpack_folder_error_names_the_variable(zipped, tmp_path):
    (tmp_path / "unpacked").write_text("a file", "utf-8")
    with pytest.raises(ConfigError, match="set XDG_CACHE_HOME"):
        unpack(zipped, tmp_path)


def test_copied_read_only_folder_is_used_if_its_content_is_the_same(zipped, tmp_path, monkeypatch):
    """As in the layers of a container image, which have other file times and may be read-only."""

    def read_only(*arguments, **options):
        raise OSError(errno.EROFS, "Read-only file system")

    folder = unpack(zipped, tmp_path)
    monkeypatch.setattr(archive.tempfile, "TemporaryDirectory", read_only)
    for file in folder.iterdir():
        os.utime(file, ns=(1, 1))
    assert unpack(zipped, tmp_path) == folder
    weights = (folder / ONNX).read_bytes()
    for name, data in (
        (ONNX, weights[:-1] + b"?"),
        (ONNX, weights + b"?"),
        (ONNX, weights[:-1]),
        ("vocab.txt", b"of another"),
    ):
        (folder / name).write_bytes(data)
        with pytest.raises(ConfigError, match=r"Read-only file system\): set XDG_CACHE_HOME"):
            unpack(zipped, tmp_path)
        (folder / ONNX).write_bytes(weights)


def test_fetch_into_an_unwritable_cache_does_not_blame_the_zip_file(run, tmp_path):
    assert fetch(run).returncode == 0
    shutil.rmtree(tmp_path / "cache" / "rerank_plugins" / "unpacked")
    (tmp_path / "cache" / "rerank_plugins" / "unpacked").write_text("a file", "utf-8")
    done = fetch(run)
    assert done.returncode == 2
    assert done.stderr.strip().endswith("set XDG_CACHE_HOME to a writable folder.")


@pytest.mark.slow  # several subprocesses, seconds each
def test_four_concurrent_processes_share_one_unpacked_folder(run, tmp_path):
    """Without an atomic rename one process could read the half-written folder of another."""
    folders: list[object] = []
    threads = [threading.Thread(target=lambda: folders.append(scores(run))) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert folders == [folders[0]] * 4
    (cache,) = cache_entries(tmp_path, "unpacked")
    assert [each.name for each in cache.iterdir()] == [MODEL]


@pytest.mark.parametrize("keep", [0, 100, -40])
def test_truncated_zip_file_of_the_hub_is_refused_with_advice(keep, run, hub, tmp_path, cross_encoder_folder):
    published = tmp_path / "published" / f"{MODEL}.zip"
    published.write_bytes(published.read_bytes()[:keep])
    done = fetch(run)
    assert done.returncode == 2
    assert "cannot be read as a zip file" in done.stderr
    (record,) = cache_entries(tmp_path, "models")
    assert done.stderr.strip().endswith(f"To fetch the hub's present file, delete {record}.")
    record.unlink()
    mended = tmp_path / "mended"
    mended.mkdir()
    zip_of(cross_encoder_folder, mended / f"{MODEL}.zip")
    hub.put(REPOSITORY, mended, SECOND)
    assert scores(run)


def test_second_process_uses_the_folder_of_the_first(zipped, tmp_path, monkeypatch):
    """The second rename of a race would fail, or replace a folder that is in use."""
    extract = archive._extract

    def slowly(*arguments):
        extract(*arguments)
        monkeypatch.setattr(archive, "_extract", extract)
        first.append(unpack(zipped, tmp_path))  # as another process would; it deletes this one's temporary folder

    first: list[Path] = []
    monkeypatch.setattr(archive, "_extract", slowly)
    assert unpack(zipped, tmp_path) == first[0]
    assert [each.name for each in first[0].parent.iterdir()] == [MODEL]


def test_two_models_of_one_repository_can_be_unpacked_concurrently(cross_encoder_folder, zipped, tmp_path, monkeypatch):
    """As at the first call of a cascade. The first one to finish must not delete the temporary folder of the other."""
    extract = archive._extract
    longer = zip_of(cross_encoder_folder, tmp_path / "longer.zip", f"{MODEL}-longer")
    beside = tmp_path / "unpacked" / "at" / f"{MODEL}-longer"

    def slowly(*arguments):
        monkeypatch.setattr(archive, "_extract", extract)
        unpack(zipped, tmp_path)
        extract(*arguments)

    monkeypatch.setattr(archive, "_extract", slowly)
    assert archive.unpack(longer, f"{MODEL}-longer", ONNX, beside) == beside
    assert sorted(each.name for each in beside.parent.iterdir()) == [MODEL, f"{MODEL}-longer"]
