"""The engine of `onnx` and `embedded`: batches, truncation, the passage cache and error messages."""

from __future__ import annotations

import json
import shutil
import sys
import threading
import traceback
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import hypothesis
import numpy as np
import pytest
from hypothesis import strategies as st
from support.bounds import SAME_INPUT, near
from support.models import SENTENCES

from rerank_plugins import load_reranker
from rerank_plugins.core._runtime.background_loop import Workers
from rerank_plugins.core.errors import BackendError, ConfigError
from rerank_plugins.engine import no_telemetry
from rerank_plugins.engine.files import onnx_file
from rerank_plugins.engine.hub import Repository
from rerank_plugins.engine.hub_files import onnx_files
from rerank_plugins.engine.late_interaction.passage_cache import PassageCache
from rerank_plugins.engine.late_interaction.scoring import Passage
from rerank_plugins.engine.onnx import cross_encoder
from rerank_plugins.engine.onnx.cross_encoder import OnnxModel, Session, open_session
from rerank_plugins.engine.pins import Record, stat_signature
from rerank_plugins.engine.shared_model import length_batches
from rerank_plugins.engine.tokenizer import Encoded, Limits, PairTokenizer

QUERY = "how do the tides work"
LONG = "the moon and the sun pull the sea " * 100
LONGEST = 128


# --- batches ---


@hypothesis.given(st.lists(st.integers(1, 600), max_size=200), st.sampled_from([16, 128, 512]))
def test_length_batches_are_longest_first_with_little_padding(lengths: list[int], budget: int) -> None:
    batches = length_batches(lengths, budget)
    assert sorted(position for batch in batches for position in batch) == list(range(len(lengths)))
    by_length = [[lengths[position] for position in batch] for batch in batches]
    assert [length for batch in by_length for length in batch] == sorted(lengths, reverse=True)
    for batch in by_length:
        assert len(batch) == 1 or batch[0] * len(batch) <= budget
        assert batch[-1] >= 0.875 * batch[0]


# --- texts ---


@pytest.fixture
def pair_tokenizer(cross_encoder_folder: Path) -> PairTokenizer:
    return PairTokenizer(cross_encoder_folder / "tokenizer.json")


def test_truncation_keeps_the_query_and_the_start_of_the_document(pair_tokenizer: PairTokenizer) -> None:
    (query,), (document,) = pair_tokenizer.ids([QUERY], LONGEST), pair_tokenizer.ids([LONG], 10_000)
    first, last = pair_tokenizer.token("[CLS]"), pair_tokenizer.token("[SEP]")
    cut, whole = pair_tokenizer.pairs(QUERY, [LONG, SENTENCES[0]], LONGEST)
    assert cut.ids == [first, *query, last, *document[: LONGEST - 3 - len(query)], last]
    assert cut.types == [0] * (len(query) + 2) + [1] * (LONGEST - len(query) - 2)
    assert (len(cut.ids), cut.truncated, whole.truncated) == (LONGEST, True, False)


def test_too_long_query_leaves_a_quarter_and_marks_every_result(pair_tokenizer: PairTokenizer) -> None:
    (document,) = pair_tokenizer.ids(["the moon"], LONGEST)
    row, other = pair_tokenizer.pairs(LONG, ["the moon", LONG], LONGEST)
    assert row.ids[-len(document) - 1 : -1] == document
    assert other.types.count(1) == LONGEST - LONGEST * 3 // 4 - 2
    assert row.truncated
    assert other.truncated


def test_special_tokens_in_texts_are_not_parsed(pair_tokenizer: PairTokenizer) -> None:
    last = pair_tokenizer.token("[SEP]")
    (row,) = pair_tokenizer.pairs("[SEP] tides", ["[SEP] [CLS] the moon [PAD] [MASK]"], LONGEST)
    assert row.ids.count(last) == 2, "only after the query and at the end"
    assert row.ids.count(pair_tokenizer.token("[CLS]")) == 1
    assert pair_tokenizer.token("[PAD]") not in row.ids


# --- folders ---


@pytest.fixture
def folder(cross_encoder_folder: Path, tmp_path: Path) -> Path:
    """Return a copy of the model that a test may change."""
    return Path(shutil.copytree(cross_encoder_folder, tmp_path / "copy"))


def changed(file: Path, **entries: Any) -> None:
    file.write_text(json.dumps(json.loads(file.read_text("utf-8")) | entries), "utf-8")


def test_different_limits_use_the_shorter_one_with_a_warning(folder: Path, caplog: pytest.LogCaptureFixture) -> None:
    changed(folder / "tokenizer_config.json", model_max_length=96)
    with load_reranker(f"onnx:{folder}") as reranker:
        assert "tokenizer declares at most 96 tokens and its model 128; 96 are used. Set max_tokens" in caplog.text
        assert reranker.scorer.capabilities.max_tokens == 96
        assert reranker.rerank(QUERY, [LONG])[0].truncated
    assert caplog.text.count("declares at most") == 1
    caplog.clear()
    with load_reranker(f"onnx:{folder}", max_tokens=100) as reranker:
        assert reranker.scorer.capabilities.max_tokens == 100
    assert caplog.text == "", "the advice was followed"


@pytest.mark.parametrize(("options", "warnings", "longest"), [({}, 1, 96), ({"max_tokens": 100}, 0, 100)])
def test_family_warns_once_of_different_limits(
    options: dict[str, Any],
    warnings: int,
    longest: int,
    folder: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    changed(folder / "tokenizer_config.json", model_max_length=96)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    (folder / "onnx").mkdir()
    (folder / "model.onnx").rename(folder / "onnx/model.onnx")
    cached_repository(folder, "ms-marco", "cross-encoder/ms-marco-MiniLM-L6-v2", monkeypatch)
    with load_reranker("ms-marco", **options) as reranker:
        assert reranker.rerank(QUERY, [LONG])[0].truncated
        assert reranker.scorer.capabilities.max_tokens == longest
    assert caplog.text.count("declares at most") == warnings


@pytest.mark.parametrize(
    ("config", "tokenizer", "longest"),
    [
        ({"max_position_embeddings": 128}, {"model_max_length": 128}, 128),
        (
            {"max_position_embeddings": 514, "model_type": "xlm-roberta", "pad_token_id": 1},
            {"model_max_length": 512},
            512,
        ),
        ({"max_position_embeddings": 514, "model_type": "xlm-roberta-xl"}, {"model_max_length": 512}, 512),
        ({"max_position_embeddings": 513, "model_type": "roberta", "pad_token_id": 0}, {}, 512),
        ({"max_position_embeddings": 128}, {"model_max_length": 10**30}, 128),  # transformers' value for "unknown"
        ({"max_position_embeddings": 128}, {}, 128),
        ({}, {"model_max_length": 96}, 96),
        ({}, {}, 512),
    ],
)
def test_agreeing_or_missing_limits_log_no_warning(
    config: dict[str, Any], tokenizer: dict[str, Any], longest: int, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "config.json").write_text(json.dumps(config), "utf-8")
    (tmp_path / "tokenizer_config.json").write_text(json.dumps(tokenizer), "utf-8")
    assert Limits.read(tmp_path).longest(None) == longest
    assert caplog.text == ""


def without(name: str) -> Callable[[Path], object]:
    return lambda folder: (folder / name).unlink()


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (shutil.rmtree, "There is no folder"),
        (without("model.onnx"), "holds no ONNX file"),
        (without("tokenizer.json"), "holds no tokenizer.json"),
        (
            lambda folder: (folder / "model.onnx").rename(folder / "a.onnx").with_name("b.onnx").touch(),
            "several ONNX files",
        ),
        (lambda folder: (folder / "config.json").write_text("{", "utf-8"), "config.json cannot be read"),
    ],
)
def test_error_about_an_incomplete_folder_says_what_is_missing(
    damage: Callable[[Path], object], message: str, folder: Path
) -> None:
    damage(folder)
    with pytest.raises(ConfigError, match=message):
        load_reranker(f"onnx:{folder}")


@pytest.mark.parametrize(
    ("file", "content", "message"),
    [
        ("model.onnx", b"no model", "cannot be loaded as an ONNX model"),
        ("tokenizer.json", b"{", "cannot be read as a tokenizer"),
    ],
)
def test_broken_file_is_reported_at_the_first_call(file: str, content: bytes, message: str, folder: Path) -> None:
    (folder / file).write_bytes(content)
    with load_reranker(f"onnx:{folder}") as reranker, pytest.raises(ConfigError, match=message):
        reranker.rerank(QUERY, SENTENCES)


def test_only_onnx_file_of_a_folder_is_used_under_any_name(folder: Path) -> None:
    (folder / "model.onnx").rename(folder / "quite_another.onnx")
    assert onnx_file(folder).name == "quite_another.onnx"


def cached_repository(folder: Path, use: str, repository: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Make a folder the hub's cache of a repository, and record its files."""
    names = [file.relative_to(folder).as_posix() for file in folder.rglob("*") if file.is_file()]
    monkeypatch.setattr(Repository, "_cached", lambda self, revision: folder)
    record = Repository(repository, use, onnx_files).record
    record.parent.mkdir(parents=True, exist_ok=True)
    seen = {str(folder / name): stat_signature(folder / name) for name in names}
    Record("a" * 40, names, {}, seen).write(record)


@pytest.mark.parametrize(
    ("use", "repository", "listed", "stray"),
    [
        ("onnx:acme/tiny", "acme/tiny", "only.onnx", "other.onnx"),
        ("onnx:acme/tiny", "acme/tiny", "onnx/model.onnx", "model.onnx"),
        ("onnx:acme/tiny", "acme/tiny", "fp32/model.onnx", "model.onnx"),
        ("ms-marco", "cross-encoder/ms-marco-MiniLM-L6-v2", "onnx/model.onnx", "model.onnx"),
    ],
)
def test_file_that_the_repository_lists_is_run_whatever_else_lies_in_its_folder(
    use: str, repository: str, listed: str, stray: str, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Another program may have put an ONNX file there, which nothing has checked."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    with load_reranker(f"onnx:{folder}") as reranker:
        expected = [result.raw_score for result in reranker.rerank(QUERY, SENTENCES)]
    (folder / listed).parent.mkdir(exist_ok=True)
    (folder / "model.onnx").rename(folder / listed)
    cached_repository(folder, use, repository, monkeypatch)
    (folder / stray).write_bytes(b"of another program")
    with load_reranker(use) as reranker:
        assert [result.raw_score for result in reranker.rerank(QUERY, SENTENCES)] == expected


def test_path_of_a_file_is_refused_without_a_hub_request(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(folder.parent)
    with pytest.raises(ConfigError, match=r"no folder copy/model\.onnx: name a folder"):
        load_reranker("onnx:copy/model.onnx")


def test_rerankers_of_one_folder_load_it_once(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    opened: list[Path] = []

    def counting(runtime: str, dtype: str, file: Path, cores: int, *rest: Any) -> Session:
        opened.append(file)
        return open_session(runtime, dtype, file, cores, *rest)

    monkeypatch.setattr(cross_encoder, "open_session", counting)
    (folder.parent / "link").symlink_to(folder)
    first, second = load_reranker(f"onnx:{folder}"), load_reranker(f"onnx:{folder.parent / 'link'}", batch_tokens=64)
    first.warmup()
    second.warmup()
    first.close()
    assert len(second.rerank(QUERY, SENTENCES)) == len(SENTENCES)
    assert opened == [folder / "model.onnx"]
    second.close()


def test_tokenizer_is_read_once_onnxruntime_is_imported(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Before the import it would delay that: both hold the interpreter lock."""
    steps: list[str] = []
    import_runtime, read = no_telemetry.onnxruntime, PairTokenizer.__init__

    def importing() -> Any:
        runtime = import_runtime()
        steps.append("import")
        return runtime

    def reading(self: PairTokenizer, *arguments: Any) -> None:
        steps.append("tokenizer")
        read(self, *arguments)

    monkeypatch.setattr(no_telemetry, "onnxruntime", importing)
    monkeypatch.setattr(PairTokenizer, "__init__", reading)
    with load_reranker(f"onnx:{folder}") as reranker:
        reranker.warmup()
    assert "import" in steps[: steps.index("tokenizer")]


def test_warmup_reports_that_onnxruntime_cannot_be_imported(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    reranker = load_reranker(f"onnx:{folder}")
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    with pytest.raises(ConfigError, match=r"model\.onnx cannot be loaded as an ONNX model"):
        reranker.warmup()


def hub_cache_of(model: Path, repository: Path, commit: str) -> Path:
    """Copy `model` into the layout of a hub cache: all files of a revision are links to blobs, external weights too."""
    import onnx

    snapshot = repository / "snapshots" / commit
    (snapshot / "onnx").mkdir(parents=True)
    made = repository / "blobs"
    made.mkdir(exist_ok=True)
    onnx.save_model(
        onnx.load(str(model / "model.onnx")),
        str(made / "model.onnx"),
        save_as_external_data=True,
        location="model.onnx_data",
        size_threshold=0,
    )
    for name in ("config.json", "tokenizer.json", "tokenizer_config.json"):
        shutil.copyfile(model / name, made / name)
    for number, file in enumerate(sorted(each for each in made.iterdir() if each.suffix)):
        blob = file.rename(made / f"{number}of{commit}" if file.suffix == ".json" else made / str(number))
        inside = "" if file.suffix == ".json" else "onnx/"
        (snapshot / f"{inside}{file.name}").symlink_to(blob)
    return snapshot


@pytest.mark.parametrize("runtime", ["onnxruntime", "openvino"])
def test_external_weights_in_a_hub_cache_are_found(runtime: str, cross_encoder_folder: Path, tmp_path: Path) -> None:
    """Blobs in a hub cache are named by hashes; only the links have the names that the ONNX file contains."""
    snapshot = hub_cache_of(cross_encoder_folder, tmp_path, "one")
    before = sorted(tmp_path.rglob("*"))
    with load_reranker(f"onnx:{cross_encoder_folder}", runtime=runtime) as plain:
        expected = [each.raw_score for each in plain.rerank(QUERY, SENTENCES)]
    with load_reranker(f"onnx:{snapshot}", runtime=runtime) as reranker:
        assert [each.raw_score for each in reranker.rerank(QUERY, SENTENCES)] == expected
    assert sorted(tmp_path.rglob("*")) == before


@pytest.mark.parametrize("runtime", ["onnxruntime", "openvino"])
def test_linked_external_weights_need_no_home_folder(
    runtime: str, cross_encoder_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    snapshot = hub_cache_of(cross_encoder_folder, tmp_path, "one")

    def no_home() -> Path:
        raise RuntimeError("Could not determine home directory.")

    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    monkeypatch.setattr(Path, "home", no_home)
    with load_reranker(f"onnx:{snapshot}", runtime=runtime) as reranker:
        assert len(reranker.rerank(QUERY, SENTENCES)) == len(SENTENCES)


def test_revisions_that_share_an_onnx_file_are_separate_models(cross_encoder_folder: Path, tmp_path: Path) -> None:
    """Two revisions differ only in the tokenizer, so both link to one ONNX file in the cache."""
    first, second = (hub_cache_of(cross_encoder_folder, tmp_path, commit) for commit in ("one", "two"))
    assert (first / "onnx/model.onnx").resolve() == (second / "onnx/model.onnx").resolve()
    settings = json.loads((second / "tokenizer.json").read_text("utf-8"))
    vocabulary = settings["model"]["vocab"]
    vocabulary["moon"], vocabulary["sea"] = vocabulary["sea"], vocabulary["moon"]
    (second / "tokenizer.json").unlink()
    (second / "tokenizer.json").write_text(json.dumps(settings), "utf-8")
    with load_reranker(f"onnx:{first}") as one, load_reranker(f"onnx:{second}") as other:
        score = one.rerank(QUERY, ["the moon"])[0].raw_score
        assert other.rerank(QUERY, ["the sea"])[0].raw_score == score != other.rerank(QUERY, ["the moon"])[0].raw_score


class _Stub:
    """A session with a given result."""

    rows = length = None

    def __init__(self, run: Callable[[], None], inputs: frozenset[str] = frozenset({"input_ids"})) -> None:
        self._run, self.inputs = run, inputs

    def run(self, feed: Mapping[str, np.ndarray]) -> np.ndarray:
        self._run()
        return np.zeros((len(feed["input_ids"]), 1), np.float32)


async def test_each_core_runs_a_batch_and_the_tokenizer_is_loaded_once(folder: Path) -> None:
    model = OnnxModel.shared(folder)
    model.workers, both = Workers(2, "two cores"), threading.Barrier(2, timeout=30)
    model._network = _Stub(lambda: both.wait() and None)
    assert model.tokenizer is model.tokenizer
    rows = model.tokenizer.pairs(QUERY, SENTENCES[:4], 64)
    done: list[int] = []
    await model.run_rows(rows, 16, lambda positions, _: done.extend(positions))
    assert sorted(done) == [0, 1, 2, 3]


async def test_runtime_exception_becomes_a_backend_error_without_batch_details(
    folder: Path,
) -> None:
    def broken(*_: object) -> None:
        raise ValueError("broken")

    model = OnnxModel.shared(folder)
    rows = model.tokenizer.pairs(QUERY, SENTENCES, 64)
    model._network = _Stub(broken)
    with pytest.raises(BackendError, match="ValueError: broken") as caught:
        await model.run_rows(rows, 16, lambda *_: None)
    assert isinstance(caught.value.__cause__, ValueError)
    model._network = _Stub(lambda: None)
    with pytest.raises(ValueError, match="broken") as plain:
        await model.run_rows(rows, 16, broken)
    assert "Group" not in "".join(traceback.format_exception(plain.value))


def test_shorter_rows_are_padded_with_the_padding_token_and_masked(folder: Path) -> None:
    changed(folder / "config.json", pad_token_id=7)
    session = _Stub(lambda: None, frozenset({"input_ids", "attention_mask"}))
    feed = OnnxModel.shared(folder)._feed([Encoded([2], [1], False), Encoded([3, 4], [0, 1], False)], session)
    assert feed["input_ids"].tolist() == [[2, 7], [3, 4]]
    assert feed["attention_mask"].tolist() == [[1, 0], [1, 1]]
    assert "token_type_ids" not in feed


# --- passage cache ---


def passage(tokens: int) -> Passage:
    return Passage(np.zeros((tokens, 8), np.float32), np.zeros(tokens, np.uint16), np.zeros(8, np.float32))


def test_passage_cache_is_bounded_and_evicts_the_least_used() -> None:
    size = passage(10).size + 300
    cache = PassageCache(3 * size)

    def put(name: bytes, tokens: bytes, count: int) -> None:
        cache.put(name, tokens, passage(count), truncated=False)

    for name in (b"a", b"b", b"c"):
        put(name, name.upper(), 10)
    assert cache.get(b"a") is not None
    put(b"d", b"D", 10)
    assert [cache.get(name) is not None for name in (b"a", b"b", b"c", b"d")] == [True, False, True, True]
    assert [cache.get_by_tokens(name) is not None for name in (b"A", b"B", b"C", b"D")] == [True, False, True, True]
    put(b"large", b"LARGE", 100)
    assert cache.get(b"large") is None
    assert cache.size == 3 * size
    put(b"e", b"E", 20)
    assert cache.size <= 3 * size
    # The keys of texts with equal tokens count towards the size and are evicted with the passage.
    for number in range(100):
        put(f"text {number}".encode(), b"E", 20)
    assert cache.size <= 3 * size
    assert len(cache._texts) == sum(len(texts) for (_, texts), _ in cache._passages._entries.values()) < 20


def test_texts_with_equal_tokens_share_a_cached_passage() -> None:
    cache = PassageCache(10_000)
    cache.put(b"Moon", b"moon", first := passage(10), truncated=False)
    cache.put(b"MOON", b"moon", passage(10), truncated=True)
    assert cache.get(b"Moon") == (b"moon", first, False)
    assert cache.get(b"MOON") == (b"moon", first, True)
    assert cache.get_by_tokens(b"moon") is first


@pytest.mark.parametrize(("options", "again"), [({}, 0), ({"cache_mb": 0}, len(SENTENCES))])
def test_cached_passage_is_not_encoded_again(
    options: dict[str, Any], again: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    encoded: list[int] = []
    run = OnnxModel.run_rows

    async def counting(self: OnnxModel, rows: Any, *arguments: Any) -> None:
        encoded.append(len(rows))
        await run(self, rows, *arguments)

    monkeypatch.setattr(OnnxModel, "run_rows", counting)
    with load_reranker("embedded", embedded=options) as reranker:
        first = reranker.rerank(QUERY, SENTENCES)
        second = reranker.rerank(QUERY, SENTENCES)
        reranker.rerank("another question", [*SENTENCES, "one more"])
    query, passages = encoded[::2], encoded[1::2]
    assert query == [1, 1, 1]
    assert passages == [len(SENTENCES), again, again + 1]
    assert [each.index for each in first] == [each.index for each in second]
    assert [each.raw_score for each in first] == near([each.raw_score for each in second], SAME_INPUT)


def test_documents_with_the_same_tokens_are_one_row_of_a_cross_encoder(
    monkeypatch: pytest.MonkeyPatch, cross_encoder_folder: Path
) -> None:
    """Texts that differ only in what the tokenizer ignores, or behind the cut, are scored once and tie."""
    texts = ["the moon", "The  MOON ", LONG + "and more", SENTENCES[0], LONG, "the moon\t"]
    rows_of_calls: list[int] = []
    run = OnnxModel.run_rows

    async def counting(self: OnnxModel, rows: Any, *arguments: Any) -> None:
        rows_of_calls.append(len(rows))
        await run(self, rows, *arguments)

    monkeypatch.setattr(OnnxModel, "run_rows", counting)
    with load_reranker(f"onnx:{cross_encoder_folder}") as reranker:
        response = reranker.rerank(QUERY, texts)
        scores = {result.index: result.raw_score for result in response}
        alone = [reranker.rerank(QUERY, [text])[0].raw_score for text in texts]
    assert rows_of_calls[0] == 3
    assert scores[0] == scores[1] == scores[5]
    assert scores[2] == scores[4]
    assert [scores[index] for index in range(len(texts))] == near(alone)
    assert {result.index for result in response if result.truncated} == {2, 4}
