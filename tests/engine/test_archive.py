"""FlashRank's models by name: zip files of one repository, from a hub on this machine, unpacked without trust."""

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
from bounds import OTHER_CODE, near
from hub import Hub, run_with
from models import SENTENCES
from zipped import MODEL, ONNX, zip_of

from rerank_plugins.backends.recipes import MODELS
from rerank_plugins.core.errors import ConfigError
from rerank_plugins.engine import archive

FIRST, SECOND = "a" * 40, "b" * 40
REPOSITORY = "prithivida/flashrank"
QUERY = "how do the tides work"
CODE = """
import json, sys
from rerank_plugins import load_reranker
with load_reranker(sys.argv[1]) as reranker:
    print(json.dumps({each.index: each.relevance_score for each in reranker.rerank(sys.argv[2], json.loads(sys.argv[3]))}))
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


def held(tmp_path, kind) -> list[Path]:
    return sorted((tmp_path / "cache" / "rerank_plugins" / kind).iterdir())


def test_the_first_call_fetches_and_scores_as_flashrank_then_without_a_network(run, hub, tmp_path):
    from flashrank import Ranker, RerankRequest

    ours = scores(run)
    assert not any("zephyr" in each and "resolve" in each for each in hub.asked), "one zip file, and no other"
    (record,) = held(tmp_path, "models")
    told = json.loads(record.read_text("utf-8"))
    assert told["commit"] == FIRST
    assert list(told["files"]) == [f"{MODEL}.zip"]
    (cache,) = held(tmp_path, "unpacked")
    ranker = Ranker(model_name=MODEL, cache_dir=str(cache))  # the layout is its own
    passages = [{"id": str(index), "text": text} for index, text in enumerate(SENTENCES)]
    theirs = {each["id"]: float(each["score"]) for each in ranker.rerank(RerankRequest(query=QUERY, passages=passages))}
    assert ours == near(theirs, OTHER_CODE)
    hub.asked.clear()
    for spec, more in (
        ("flashrank", {}),
        (f"flashrank:{MODEL}", {"HF_HUB_OFFLINE": "1"}),
        (f"flashrank:{cache / MODEL}", {}),
    ):
        assert scores(run, spec, **more) == ours
    assert hub.asked == [], "a model that is at hand asks nobody"


@pytest.mark.slow
def test_fetch_tells_the_folder_and_any_of_the_models_is_had(run, hub, tmp_path, cross_encoder_folder):
    recipes = [recipe for recipe in MODELS if recipe.family == "flashrank"]
    assert recipes[0].name == MODEL
    for recipe in recipes:
        zip_of(cross_encoder_folder, tmp_path / "published" / f"{recipe.name}.zip", recipe.name, recipe.onnx)
        done = fetch(run, f"flashrank:{recipe.name}")
        assert done.returncode == 0, done.stderr
        folder = Path(done.stdout.strip().partition(": ")[2])
        assert folder.name == recipe.name
        assert (folder / recipe.onnx).read_bytes() == (cross_encoder_folder / "model.onnx").read_bytes()
        # Whose commit is whose: a model that its author adds later is not looked for in what an earlier one has recorded.
        assert FIRST in str(folder) or recipe is not recipes[0]
        hub.put(REPOSITORY, tmp_path / "published", SECOND)
    assert len(held(tmp_path, "models")) == len(recipes)


@pytest.mark.slow  # several processes of their own, seconds each
def test_a_folder_that_is_gone_or_touched_is_made_anew(run, hub, tmp_path):
    ours = scores(run)
    (cache,) = held(tmp_path, "unpacked")
    shutil.rmtree(cache)
    hub.asked.clear()
    assert scores(run, HF_HUB_OFFLINE="1") == ours
    (cache / MODEL / ONNX).write_bytes(b"another model")
    assert scores(run) == ours
    (cache / MODEL / "tokenizer.json").unlink()
    assert scores(run) == ours
    assert hub.asked == []
    assert [each.name for each in cache.iterdir()] == [MODEL]


@pytest.mark.slow  # several processes of their own, seconds each
def test_another_zip_file_is_refused(run, hub, tmp_path, cross_encoder_folder):
    assert fetch(run).returncode == 0
    shutil.rmtree(tmp_path / "hf")
    zip_of(cross_encoder_folder, tmp_path / "published" / f"{MODEL}.zip", more={f"{MODEL}/vocab.txt": b"x"})
    done = fetch(run)
    assert done.returncode == 2
    assert f"{MODEL}.zip of {REPOSITORY} is not the file of the first use" in done.stderr
    (record,) = held(tmp_path, "models")
    (cache,) = held(tmp_path, "unpacked")
    assert not (cache / MODEL / "vocab.txt").exists()
    record.unlink()
    assert fetch(run).returncode == 0
    assert (cache / MODEL / "vocab.txt").exists(), "accepted, it takes the former's place"
    (left,) = (tmp_path / "hf").rglob(f"{MODEL}.zip")
    left.resolve().write_bytes(b"not what it was")
    done = run("-c", CODE, "flashrank", QUERY, json.dumps(SENTENCES))
    assert "is not the file of the first use" in done.stderr


@pytest.mark.slow  # several processes of their own, seconds each
def test_killed_half_way_nothing_half_is_left(run, hub, tmp_path):
    done = run("-c", KILLED)
    assert done.returncode == -9, done.stderr
    (cache,) = held(tmp_path, "unpacked")
    (half,) = cache.iterdir()
    assert half.name != MODEL
    assert list(half.rglob(ONNX))
    assert scores(run)
    assert [each.name for each in cache.iterdir()] == [MODEL]


@pytest.mark.parametrize(
    ("spec", "more", "told"),
    [
        ("flashrank", {"HF_HUB_OFFLINE": "1"}, f"run: rerank-plugins fetch flashrank:{MODEL}"),
        ('{"use": "flashrank", "local_files_only": true}', {}, f"run: rerank-plugins fetch flashrank:{MODEL}"),
        ('{"use": "flashrank", "revision": "v9"}', {}, "no revision 'v9'"),
        ("flashrank:ce-esci-MiniLM-L12-v2", {}, "it has no ce-esci-MiniLM-L12-v2.zip"),
        ("flashrank", {"HF_ENDPOINT": "http://127.0.0.1:9"}, "could not be fetched"),
    ],
)
def test_what_cannot_be_fetched_says_what_to_do(spec, more, told, run):
    done = fetch(run, spec, **more)
    assert done.returncode in (1, 2)
    assert told in done.stderr


def test_a_hostile_zip_file_is_refused_by_the_command_too(run, tmp_path, cross_encoder_folder):
    zip_of(cross_encoder_folder, tmp_path / "published" / f"{MODEL}.zip", more={"../../outside.txt": b"x"})
    done = fetch(run)
    assert done.returncode == 2
    assert "Traceback" not in done.stderr
    (record,) = held(tmp_path, "models")
    assert re.search(r"flashrank:\S+ cannot be used: .*'\.\./\.\./outside\.txt' leads out of the folder", done.stderr)
    assert str(record) in done.stderr
    assert not list((tmp_path / "cache").rglob("*.onnx"))
    assert not list(tmp_path.rglob("outside.txt"))


# --- without a hub ---


def member(name: str, kind: int = 0) -> zipfile.ZipInfo:
    made = zipfile.ZipInfo(name)
    made.external_attr = (kind | 0o644) << 16
    return made


def unpack(zipped: Path, tmp_path: Path) -> Path:
    return archive.unpacked(zipped, MODEL, ONNX, tmp_path / "unpacked" / "at" / MODEL)


@pytest.mark.parametrize(
    ("entry", "told"),
    [
        (member("../x"), "leads out"),
        (member(f"{MODEL}/../../x.json"), "leads out"),
        (member("..\\x"), "leads out"),
        (member("/x.json"), "leads out"),
        (member("C:/x.json"), "leads out"),
        (member("\\\\host\\share\\x.json"), "leads out"),
        (member(f"{MODEL}/vocab.txt", stat.S_IFLNK), "is a link"),
        (member(f"{MODEL}/other", stat.S_IFLNK), "is a link"),
        (member(f"{MODEL}/vocab.txt", stat.S_IFIFO), "is a link, or no file"),
    ],
    ids=lambda value: value.filename if isinstance(value, zipfile.ZipInfo) else "",
)
def test_a_zip_file_that_could_do_harm_is_refused_as_a_whole(entry, told, zipped, tmp_path):
    with zipfile.ZipFile(zipped, "a") as written:
        written.writestr(entry, b"/etc/passwd")
    before = {each for each in tmp_path.rglob("*") if each.is_file()}
    with pytest.raises(ConfigError, match=told):
        unpack(zipped, tmp_path)
    assert {each for each in tmp_path.rglob("*") if each.is_file()} == before


def test_a_bomb_is_refused_unwritten(zipped, tmp_path, monkeypatch):
    written = []
    monkeypatch.setattr(archive.shutil, "copyfileobj", lambda *arguments: written.append(arguments))
    monkeypatch.setattr(archive, "MOST_BYTES", 10_000_000)
    with zipfile.ZipFile(zipped, "a", zipfile.ZIP_DEFLATED) as bomb:
        bomb.writestr(f"{MODEL}/vocab.txt", bytes(10_000_000))
    assert zipped.stat().st_size < 1_000_000
    with pytest.raises(ConfigError, match=r"would unpack to 10,\d{3},\d{3} bytes, and 10,000,000 are the most"):
        unpack(zipped, tmp_path)
    assert not written


def test_a_bomb_that_lies_about_its_size_writes_no_more_than_it_says(zipped, tmp_path, monkeypatch):
    size = 10_000_000
    with zipfile.ZipFile(zipped, "a", zipfile.ZIP_DEFLATED) as bomb:
        bomb.writestr(f"{MODEL}/vocab.txt", bytes(size))
    data = zipped.read_bytes()
    assert data.count(size.to_bytes(4, "little")) == 2, "beside the member, and in the directory"
    zipped.write_bytes(data.replace(size.to_bytes(4, "little"), (5).to_bytes(4, "little")))
    sizes = []
    copy = shutil.copyfileobj

    def copied(source, target, length):
        try:
            copy(source, target, length)
        finally:
            sizes.append(target.tell())

    monkeypatch.setattr(archive.shutil, "copyfileobj", copied)
    with pytest.raises(ConfigError, match="no zip file that can be read"):
        unpack(zipped, tmp_path)
    assert sizes[-1] <= 5


def test_only_the_models_files_are_taken(cross_encoder_folder, tmp_path):
    more = ("vocab.txt", "._" + ONNX, "other.onnx", "run.py", "deep/config.json")
    more = {f"{MODEL}/{name}": b"x" for name in more} | {f"__MACOSX/{MODEL}/._config.json": b"x", "config.json": b"x"}
    folder = unpack(zip_of(cross_encoder_folder, tmp_path / "a.zip", more=more), tmp_path)
    small = {"config.json", "tokenizer.json", "tokenizer_config.json", "special_tokens_map.json", "vocab.txt"}
    assert {each.name for each in folder.iterdir()} == {ONNX, *small, ".unpacked.json"}
    assert (folder / "config.json").read_bytes() == (cross_encoder_folder / "config.json").read_bytes()


def test_what_is_no_such_zip_file_says_so(zipped, tmp_path, cross_encoder_folder):
    with pytest.raises(ConfigError, match=rf"holds no {MODEL}/{ONNX}"):
        unpack(zip_of(cross_encoder_folder, tmp_path / "a.zip", onnx="other.onnx"), tmp_path)
    data = zipped.read_bytes()
    for broken in (b"<html>", data[:-30], data.replace(data[500:600], bytes(100))):
        zipped.write_bytes(broken)
        with pytest.raises(ConfigError, match=r"a?\.zip is no zip file that can be read"):
            unpack(zipped, tmp_path)
    assert not (tmp_path / "unpacked" / "at" / MODEL).exists()


def test_a_cache_that_cannot_be_written_says_which_variable_to_set(zipped, tmp_path):
    (tmp_path / "unpacked").write_text("a file", "utf-8")
    with pytest.raises(ConfigError, match="set XDG_CACHE_HOME"):
        unpack(zipped, tmp_path)


def test_a_folder_that_was_copied_and_cannot_be_written_is_used_if_it_is_the_same(zipped, tmp_path, monkeypatch):
    """An image's layers have other times, and may be for reading only."""

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


def test_a_full_disk_is_not_the_zip_files_fault(run, tmp_path):
    assert fetch(run).returncode == 0
    shutil.rmtree(tmp_path / "cache" / "rerank_plugins" / "unpacked")
    (tmp_path / "cache" / "rerank_plugins" / "unpacked").write_text("a file", "utf-8")
    done = fetch(run)
    assert done.returncode == 2
    assert done.stderr.strip().endswith("set XDG_CACHE_HOME to a folder that can.")


@pytest.mark.slow  # several processes of their own, seconds each
def test_four_processes_at_once_share_one_folder(run, tmp_path):
    found: list[object] = []
    threads = [threading.Thread(target=lambda: found.append(scores(run))) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert found == [found[0]] * 4
    (cache,) = held(tmp_path, "unpacked")
    assert [each.name for each in cache.iterdir()] == [MODEL]


@pytest.mark.parametrize("keep", [0, 100, -40])
def test_a_zip_file_that_the_hub_itself_has_broken(keep, run, hub, tmp_path, cross_encoder_folder):
    published = tmp_path / "published" / f"{MODEL}.zip"
    published.write_bytes(published.read_bytes()[:keep])
    done = fetch(run)
    assert done.returncode == 2
    assert "is no zip file that can be read" in done.stderr
    (record,) = held(tmp_path, "models")
    assert done.stderr.strip().endswith(f"To try what the hub has now, delete {record}.")
    record.unlink()
    mended = tmp_path / "mended"
    mended.mkdir()
    zip_of(cross_encoder_folder, mended / f"{MODEL}.zip")
    hub.put(REPOSITORY, mended, SECOND)
    assert scores(run)


def test_who_comes_second_takes_what_the_first_has_made(zipped, tmp_path, monkeypatch):
    extract = archive._extract

    def slowly(*arguments):
        extract(*arguments)
        monkeypatch.setattr(archive, "_extract", extract)
        first.append(unpack(zipped, tmp_path))  # another process, in the meantime; it sweeps this one's beginning away

    first: list[Path] = []
    monkeypatch.setattr(archive, "_extract", slowly)
    assert unpack(zipped, tmp_path) == first[0]
    assert [each.name for each in first[0].parent.iterdir()] == [MODEL]


def test_two_models_of_one_repository_are_unpacked_at_the_same_time(
    cross_encoder_folder, zipped, tmp_path, monkeypatch
):
    """As the stages of a cascade are, at its first call: who is done first leaves the other's beginning alone."""
    extract = archive._extract
    longer = zip_of(cross_encoder_folder, tmp_path / "longer.zip", f"{MODEL}-longer")
    beside = tmp_path / "unpacked" / "at" / f"{MODEL}-longer"

    def slowly(*arguments):
        monkeypatch.setattr(archive, "_extract", extract)
        unpack(zipped, tmp_path)
        extract(*arguments)

    monkeypatch.setattr(archive, "_extract", slowly)
    assert archive.unpacked(longer, f"{MODEL}-longer", ONNX, beside) == beside
    assert sorted(each.name for each in beside.parent.iterdir()) == [MODEL, f"{MODEL}-longer"]
