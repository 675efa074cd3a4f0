"""The engine of `onnx` and `embedded`: what goes through the model together, what is cut, what is kept, what is said."""

from __future__ import annotations

import json
import shutil
import threading
import traceback
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from bounds import SAME_INPUT, near
from hypothesis import given
from hypothesis import strategies as st
from models import SENTENCES

from rerank_plugins import load_reranker
from rerank_plugins.core.errors import BackendError, ConfigError
from rerank_plugins.core.loop import Workers
from rerank_plugins.engine.late_interaction.passage_cache import PassageCache
from rerank_plugins.engine.late_interaction.scoring import Passage
from rerank_plugins.engine.onnx import model as onnx_model
from rerank_plugins.engine.onnx.model import OnnxModel, model_file
from rerank_plugins.engine.onnx.runtimes import Session, open_session
from rerank_plugins.engine.scheduling import plan
from rerank_plugins.engine.tokenizer import Encoded, Limits, PairTokenizer

QUERY = "how do the tides work"
LONG = "the moon and the sun pull the sea " * 100
LONGEST = 128


# Batches --------------------------------------------------------------------------------------------------------------


@given(st.lists(st.integers(1, 600), max_size=200), st.sampled_from([16, 128, 512]))
def test_longest_first_within_the_budget_and_with_next_to_no_padding(lengths: list[int], budget: int) -> None:
    batches = plan(lengths, budget)
    assert sorted(position for batch in batches for position in batch) == list(range(len(lengths)))
    by_length = [[lengths[position] for position in batch] for batch in batches]
    assert [length for batch in by_length for length in batch] == sorted(lengths, reverse=True)
    for batch in by_length:
        assert len(batch) == 1 or batch[0] * len(batch) <= budget
        assert batch[-1] >= 0.875 * batch[0]


# Texts ----------------------------------------------------------------------------------------------------------------


@pytest.fixture
def encoder(cross_encoder_folder: Path) -> PairTokenizer:
    return PairTokenizer(cross_encoder_folder / "tokenizer.json")


def test_only_the_document_is_cut_and_its_beginning_stays(encoder: PairTokenizer) -> None:
    (query,), (document,) = encoder.texts([QUERY], LONGEST), encoder.texts([LONG], 10_000)
    first, last = encoder.token("[CLS]"), encoder.token("[SEP]")
    cut, whole = encoder.pairs(QUERY, [LONG, SENTENCES[0]], LONGEST)
    assert cut.ids == [first, *query, last, *document[: LONGEST - 3 - len(query)], last]
    assert cut.types == [0] * (len(query) + 2) + [1] * (LONGEST - len(query) - 2)
    assert (len(cut.ids), cut.truncated, whole.truncated) == (LONGEST, True, False)


def test_a_query_too_long_leaves_a_quarter_and_every_result_says_so(encoder: PairTokenizer) -> None:
    (document,) = encoder.texts(["the moon"], LONGEST)
    row, other = encoder.pairs(LONG, ["the moon", LONG], LONGEST)
    assert row.ids[-len(document) - 1 : -1] == document
    assert other.types.count(1) == LONGEST - LONGEST * 3 // 4 - 2
    assert row.truncated
    assert other.truncated


def test_no_text_can_pose_as_a_special_token(encoder: PairTokenizer) -> None:
    last = encoder.token("[SEP]")
    (row,) = encoder.pairs("[SEP] tides", ["[SEP] [CLS] the moon [PAD] [MASK]"], LONGEST)
    assert row.ids.count(last) == 2, "after the query and at the end, and nowhere else"
    assert row.ids.count(encoder.token("[CLS]")) == 1
    assert encoder.token("[PAD]") not in row.ids


# A folder -------------------------------------------------------------------------------------------------------------


@pytest.fixture
def folder(cross_encoder_folder: Path, tmp_path: Path) -> Path:
    """Its own copy of the model, to be spoilt."""
    return Path(shutil.copytree(cross_encoder_folder, tmp_path / "copy"))


def changed(file: Path, **entries: Any) -> None:
    file.write_text(json.dumps(json.loads(file.read_text("utf-8")) | entries), "utf-8")


def test_where_tokenizer_and_model_disagree_the_shorter_counts_and_a_warning_says_so(
    folder: Path, caplog: pytest.LogCaptureFixture
) -> None:
    changed(folder / "tokenizer_config.json", model_max_length=96)
    with load_reranker(f"onnx:{folder}") as reranker:
        assert "tokenizer says at most 96 tokens and its model 128; 96 are used. Set max_tokens" in caplog.text
        assert reranker.scorer.capabilities.max_tokens == 96
        assert reranker.rerank(QUERY, [LONG])[0].truncated
    caplog.clear()
    assert Limits.read(folder).max_tokens == 96
    assert caplog.text


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
        ({"max_position_embeddings": 128}, {"model_max_length": 10**30}, 128),  # transformers' word for "not known"
        ({"max_position_embeddings": 128}, {}, 128),
        ({}, {"model_max_length": 96}, 96),
        ({}, {}, 512),
    ],
)
def test_where_they_agree_or_one_is_silent_nothing_is_said(
    config: dict[str, Any], tokenizer: dict[str, Any], longest: int, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "config.json").write_text(json.dumps(config), "utf-8")
    (tmp_path / "tokenizer_config.json").write_text(json.dumps(tokenizer), "utf-8")
    assert Limits.read(tmp_path).max_tokens == longest
    assert caplog.text == ""


def without(name: str) -> Callable[[Path], object]:
    return lambda folder: (folder / name).unlink()


@pytest.mark.parametrize(
    ("spoil", "told"),
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
def test_a_folder_that_is_no_models_says_what_is_missing(
    spoil: Callable[[Path], object], told: str, folder: Path
) -> None:
    spoil(folder)
    with pytest.raises(ConfigError, match=told):
        load_reranker(f"onnx:{folder}")


@pytest.mark.parametrize(
    ("file", "content", "told"),
    [
        ("model.onnx", b"no model", "cannot be loaded as an ONNX model"),
        ("tokenizer.json", b"{", "cannot be read as a tokenizer"),
    ],
)
def test_a_broken_file_is_told_at_the_first_call(file: str, content: bytes, told: str, folder: Path) -> None:
    (folder / file).write_bytes(content)
    with load_reranker(f"onnx:{folder}") as reranker, pytest.raises(ConfigError, match=told):
        reranker.rerank(QUERY, SENTENCES)


def test_the_only_onnx_file_is_the_model_whatever_its_name(folder: Path) -> None:
    (folder / "model.onnx").rename(folder / "quite_another.onnx")
    assert model_file(folder).name == "quite_another.onnx"


def test_a_file_instead_of_its_folder_is_not_looked_for_on_a_hub(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(folder.parent)
    with pytest.raises(ConfigError, match=r"no folder copy/model\.onnx: name a folder"):
        load_reranker("onnx:copy/model.onnx")


def test_rerankers_of_one_folder_load_it_once(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    opened: list[Path] = []

    def counted(runtime: str, dtype: str, file: Path, cores: int) -> Session:
        opened.append(file)
        return open_session(runtime, dtype, file, cores)

    monkeypatch.setattr(onnx_model, "open_session", counted)
    (folder.parent / "link").symlink_to(folder)
    first, second = load_reranker(f"onnx:{folder}"), load_reranker(f"onnx:{folder.parent / 'link'}", batch_tokens=64)
    first.warmup()
    second.warmup()
    first.close()
    assert len(second.rerank(QUERY, SENTENCES)) == len(SENTENCES)
    assert opened == [folder / "model.onnx"]
    second.close()


def cached(model: Path, repository: Path, commit: str) -> Path:
    """Lay `model` out as a hub's cache has it: a revision's files are links, and so are the weights outside of the ONNX file."""
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
def test_weights_outside_of_the_file_are_found_in_a_hub_s_cache(
    runtime: str, cross_encoder_folder: Path, tmp_path: Path
) -> None:
    """Both lie there under the names of hashes, and are called as the file says by the links of a revision only."""
    snapshot = cached(cross_encoder_folder, tmp_path, "one")
    before = sorted(tmp_path.rglob("*"))
    with load_reranker(f"onnx:{cross_encoder_folder}", runtime=runtime) as plain:
        expected = [each.raw_score for each in plain.rerank(QUERY, SENTENCES)]
    with load_reranker(f"onnx:{snapshot}", runtime=runtime) as reranker:
        assert [each.raw_score for each in reranker.rerank(QUERY, SENTENCES)] == expected
    assert sorted(tmp_path.rglob("*")) == before


def test_revisions_that_share_an_onnx_file_are_two_models(cross_encoder_folder: Path, tmp_path: Path) -> None:
    """A tokenizer was mended, say; the cache holds the same bytes once, and both revisions link there."""
    first, second = (cached(cross_encoder_folder, tmp_path, commit) for commit in ("one", "two"))
    assert (first / "onnx/model.onnx").resolve() == (second / "onnx/model.onnx").resolve()
    told = json.loads((second / "tokenizer.json").read_text("utf-8"))
    vocabulary = told["model"]["vocab"]
    vocabulary["moon"], vocabulary["sea"] = vocabulary["sea"], vocabulary["moon"]
    (second / "tokenizer.json").unlink()
    (second / "tokenizer.json").write_text(json.dumps(told), "utf-8")
    with load_reranker(f"onnx:{first}") as one, load_reranker(f"onnx:{second}") as other:
        score = one.rerank(QUERY, ["the moon"])[0].raw_score
        assert other.rerank(QUERY, ["the sea"])[0].raw_score == score != other.rerank(QUERY, ["the moon"])[0].raw_score


class _Stub:
    """A session that does as it is told."""

    rows = length = None

    def __init__(self, run: Callable[[], None], inputs: frozenset[str] = frozenset({"input_ids"})) -> None:
        self._run, self.inputs = run, inputs

    def run(self, feed: Mapping[str, np.ndarray]) -> np.ndarray:
        self._run()
        return np.zeros((len(feed["input_ids"]), 1), np.float32)


async def test_every_core_has_a_batch_and_the_tokenizer_is_read_once(folder: Path) -> None:
    model = OnnxModel.shared(folder)
    model.workers, both = Workers(2, "two cores"), threading.Barrier(2, timeout=30)
    model._network = _Stub(lambda: both.wait() and None)
    assert model.tokenizer is model.tokenizer
    rows = model.tokenizer.pairs(QUERY, SENTENCES[:4], 64)
    done: list[int] = []
    await model.map(rows, 16, lambda positions, _: done.extend(positions))
    assert sorted(done) == [0, 1, 2, 3]


async def test_what_a_runtime_raises_is_an_error_of_ours_and_tells_nothing_of_how_batches_are_dealt_out(
    folder: Path,
) -> None:
    def broken(*_: object) -> None:
        raise ValueError("broken")

    model = OnnxModel.shared(folder)
    rows = model.tokenizer.pairs(QUERY, SENTENCES, 64)
    model._network = _Stub(broken)
    with pytest.raises(BackendError, match="ValueError: broken") as told:
        await model.map(rows, 16, lambda *_: None)
    assert isinstance(told.value.__cause__, ValueError)
    model._network = _Stub(lambda: None)
    with pytest.raises(ValueError, match="broken") as plain:
        await model.map(rows, 16, broken)
    assert "Group" not in "".join(traceback.format_exception(plain.value))


def test_shorter_rows_are_padded_with_the_model_s_own_token_which_is_masked(folder: Path) -> None:
    changed(folder / "config.json", pad_token_id=7)
    session = _Stub(lambda: None, frozenset({"input_ids", "attention_mask"}))
    feed = OnnxModel.shared(folder)._feed([Encoded([2], [1], False), Encoded([3, 4], [0, 1], False)], session)
    assert feed["input_ids"].tolist() == [[2, 7], [3, 4]]
    assert feed["attention_mask"].tolist() == [[1, 0], [1, 1]]
    assert "token_type_ids" not in feed


# Vectors of passages seen before --------------------------------------------------------------------------------------


def passage(tokens: int) -> Passage:
    return Passage(np.zeros((tokens, 8), np.float32), np.zeros(tokens, np.uint16), np.zeros(8, np.float32))


def test_the_cache_is_bounded_and_the_least_used_goes_first() -> None:
    size = passage(10).size + 300
    cache = PassageCache(3 * size)

    def put(name: bytes, tokens: bytes, count: int) -> None:
        cache.put(name, tokens, passage(count), truncated=False)

    for name in (b"a", b"b", b"c"):
        put(name, name.upper(), 10)
    assert cache.get(b"a") is not None
    put(b"d", b"D", 10)
    assert [cache.get(name) is not None for name in (b"a", b"b", b"c", b"d")] == [True, False, True, True]
    assert [cache.of_tokens(name) is not None for name in (b"A", b"B", b"C", b"D")] == [True, False, True, True]
    put(b"large", b"LARGE", 100)
    assert cache.get(b"large") is None
    assert cache.size == 3 * size
    put(b"e", b"E", 20)
    assert cache.size <= 3 * size
    # However many texts have the same tokens, their keys count too, and go with the passage.
    for number in range(100):
        put(f"text {number}".encode(), b"E", 20)
    assert cache.size <= 3 * size
    assert len(cache._texts) == sum(len(texts) for (_, texts), _ in cache._passages._entries.values()) < 20


def test_texts_of_the_same_tokens_share_a_passage() -> None:
    cache = PassageCache(10_000)
    cache.put(b"Moon", b"moon", first := passage(10), truncated=False)
    cache.put(b"MOON", b"moon", passage(10), truncated=True)
    assert cache.get(b"Moon") == (b"moon", first, False)
    assert cache.get(b"MOON") == (b"moon", first, True)
    assert cache.of_tokens(b"moon") is first


@pytest.mark.parametrize(("options", "again"), [({}, 0), ({"cache_mb": 0}, len(SENTENCES))])
def test_a_passage_seen_before_is_not_encoded_again(
    options: dict[str, Any], again: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    encoded: list[int] = []
    run = OnnxModel.map

    async def counted(self: OnnxModel, rows: Any, *arguments: Any) -> None:
        encoded.append(len(rows))
        await run(self, rows, *arguments)

    monkeypatch.setattr(OnnxModel, "map", counted)
    with load_reranker("embedded", embedded=options) as reranker:
        first = reranker.rerank(QUERY, SENTENCES)
        second = reranker.rerank(QUERY, SENTENCES)
        reranker.rerank("another question", [*SENTENCES, "one more"])
    query, passages = encoded[::2], encoded[1::2]
    assert query == [1, 1, 1]
    assert passages == [len(SENTENCES), again, again + 1]
    assert [each.index for each in first] == [each.index for each in second]
    assert [each.raw_score for each in first] == near([each.raw_score for each in second], SAME_INPUT)
