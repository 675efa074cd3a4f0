"""The option `calibration`: whose scores it takes, what it changes, and what it leaves alone."""

from __future__ import annotations

import gc
import json
import pickle

import pytest
from langchain_core.documents import Document
from llama_index.core.schema import NodeWithScore, TextNode

from rerank_plugins import ConfigError, Reranker, load_reranker
from rerank_plugins.calibration.file import Calibration, read, write
from rerank_plugins.config import identity
from rerank_plugins.core.curve import Curve
from rerank_plugins.langchain import RerankCompressor
from rerank_plugins.llama_index import RerankPostprocessor
from rerank_plugins.testing.cohere_like import CohereLike

QUERY = "red tea"
DOCUMENTS = ["red car", "red tea", "", "blue sky", "red tea", "tea"]
STEPS = Curve(method="isotonic", points=((0.0, 0.1), (0.1, 0.4), (1.0, 0.4)))
"""All that hold a word of the query get the same probability."""
PLATT = Curve(method="platt", slope=8.0, intercept=-3.0)


@pytest.fixture
def made(tmp_path):
    """Write a calibration of a spec's own scores and return its path."""

    def make(spec, curve: Curve = STEPS) -> str:
        path = tmp_path / f"{abs(hash((str(spec), curve)))}.json"
        with load_reranker(spec) as reranker:
            write(Calibration(of=identity(reranker), curve=curve, held_out={}), path)
        return str(path)

    return make


@pytest.fixture
def server():
    with CohereLike(score=lambda _, text: 1.0 / (1.0 + len(text))) as running:
        yield running


def hosted(server: CohereLike, **options) -> dict:
    return {"use": "http:one", "base_url": server.url, "api_key": server.key, "retry": 1, **options}


async def test_the_raw_score_orders_and_the_curve_tells_the_relevance(made):
    plain = load_reranker("lexical").rerank(QUERY, DOCUMENTS)
    reranker = load_reranker({"use": "lexical", "calibration": made("lexical")})
    found = reranker.rerank(QUERY, DOCUMENTS)
    assert [(each.index, each.raw_score) for each in found] == [(each.index, each.raw_score) for each in plain]
    assert [each.relevance_score for each in found] == [0.4, 0.4, 0.4, 0.4, 0.1, None]
    assert len({each.raw_score for each in found[:4]}) == 3  # level, and still in the order of the raw scores
    assert (found.scale, found.degraded) == ("unit", False)
    assert (await reranker.arerank(QUERY, DOCUMENTS)).results == found.results


def test_threshold_before_top_n(made):
    spec = {"use": "lexical", "calibration": made("lexical", PLATT)}
    every = load_reranker(spec).rerank(QUERY, DOCUMENTS)
    middle = every[2].relevance_score
    assert [each.index for each in load_reranker({**spec, "score_threshold": middle}).rerank(QUERY, DOCUMENTS)] == [
        each.index for each in every if each.relevance_score is not None and each.relevance_score >= middle
    ]
    assert len(load_reranker({**spec, "score_threshold": middle, "top_n": 1}).rerank(QUERY, DOCUMENTS)) == 1


def test_through_dict_pickle_and_both_adapters(made):
    path = made("lexical")
    reranker = load_reranker({"use": "lexical", "calibration": path})
    expected = reranker.rerank(QUERY, DOCUMENTS).results
    assert reranker.spec["calibration"] == path
    assert pickle.loads(pickle.dumps(reranker)).rerank(QUERY, DOCUMENTS).results == expected
    texts = [text for text in DOCUMENTS if text]
    documents = RerankCompressor(reranker=reranker).compress_documents([Document(text) for text in texts], QUERY)
    assert [each.metadata["relevance_score"] for each in documents] == [0.4, 0.4, 0.4, 0.4, 0.1]
    nodes = [NodeWithScore(node=TextNode(text=text), score=0.0) for text in texts]
    nodes = RerankPostprocessor(reranker=reranker).postprocess_nodes(nodes, query_str=QUERY)
    assert [each.score for each in nodes] == [0.4, 0.4, 0.4, 0.4, 0.1]


def test_a_new_calibration_asks_a_filled_cache_nothing_again(made, server, tmp_path):
    spec = hosted(server, cache={"kind": "disk", "path": str(tmp_path / "scores.sqlite3")})
    with load_reranker(spec) as plain:
        raw = [each.raw_score for each in plain.rerank(QUERY, DOCUMENTS)]
    for curve in (STEPS, PLATT):
        with load_reranker({**spec, "calibration": made(spec, curve)}) as reranker:
            found = reranker.rerank(QUERY, DOCUMENTS)
        assert [each.raw_score for each in found] == raw
        assert found[0].relevance_score == curve.probability(raw[0], raw[0])
    assert len(server.requests) == 1


# --- whose scores ---


@pytest.mark.parametrize(
    ("other", "why"),
    [
        ("embedded", "its backend is lexical, and here it is embedded"),
        ({"use": "http:two"}, "its backend is lexical"),
    ],
)
def test_anothers_scores_are_refused(made, server, other, why):
    path = made("lexical")
    other = hosted(server, **other) if isinstance(other, dict) else {"use": other}
    with pytest.raises(ConfigError, match=f"fitted to the scores of lexical.*{why}.*rerank-plugins calibrate"):
        load_reranker({**other, "calibration": path})


def test_another_model_dtype_weights_or_recipe_is_refused(made, server, cross_encoder_folder, tmp_path):
    path = made(hosted(server))
    with pytest.raises(ConfigError, match="its model is one, and here it is two"):
        load_reranker({**hosted(server), "use": "http:two", "calibration": path})
    with pytest.raises(ConfigError, match="recipe"):
        load_reranker({**hosted(server, http={"scale": "logit"}), "calibration": path})
    load_reranker({**hosted(server, timeout=5.0, max_in_flight=2), "calibration": path})  # of the way there only
    onnx = f"onnx:{cross_encoder_folder}"
    path = made(onnx)
    told = json.loads((tmp_path / path).read_text("utf-8"))["of"]
    assert (told["model"], told["runtime"], told["dtype"]) == (cross_encoder_folder.name, "onnxruntime", "float32")
    moved = tmp_path / "elsewhere" / cross_encoder_folder.name
    moved.mkdir(parents=True)
    for name in ("model.onnx", "tokenizer.json", "config.json"):
        (moved / name).write_bytes((cross_encoder_folder / name).read_bytes())
    load_reranker({"use": f"onnx:{moved}", "calibration": path})
    with pytest.raises(ConfigError, match="its recipe is"):
        load_reranker({"use": onnx, "calibration": path, "max_tokens": 20})
    weights = bytearray((moved / "model.onnx").read_bytes())
    weights[len(weights) // 2] ^= 1
    (moved / "model.onnx").write_bytes(weights)
    with pytest.raises(ConfigError, match="its revision is sampled-sha256"):
        load_reranker({"use": f"onnx:{moved}", "calibration": path})


def test_what_is_known_only_when_loaded_is_checked_then(made, cross_encoder_folder, tmp_path):
    spec = f"sentence-transformers:{cross_encoder_folder}"
    path = tmp_path / "loaded.json"
    with load_reranker(spec) as reranker:
        reranker.warmup()
        of = identity(reranker)
    assert (of["runtime"], of["dtype"]) == ("torch", "float32")
    write(Calibration(of={**of, "dtype": "bfloat16"}, curve=PLATT, held_out={}), path)
    # Where another reranker of the process holds the model already, it is known at once, and refused at once.
    for ask in (Reranker.warmup, lambda reranker: reranker.rerank(QUERY, DOCUMENTS)):
        with pytest.raises(ConfigError, match="its dtype is bfloat16, and here it is float32"):
            ask(load_reranker({"use": spec, "calibration": str(path)}))


def test_a_cache_that_answers_before_the_model_is_loaded_holds_nothing_against_it(cross_encoder_folder, tmp_path):
    """Its dtype is known later; what differs then is refused then."""
    spec = {
        "use": f"sentence-transformers:{cross_encoder_folder}",
        "cache": {"kind": "disk", "path": tmp_path / "scores"},
    }
    with load_reranker(spec) as reranker:
        reranker.rerank(QUERY, DOCUMENTS)
        of = identity(reranker)
    del reranker
    gc.collect()  # the model is gone
    for dtype, right in (("float32", True), ("bfloat16", False)):
        path = tmp_path / f"{dtype}.json"
        write(Calibration(of={**of, "dtype": dtype}, curve=PLATT, held_out={}), path)
        with load_reranker({**spec, "calibration": str(path)}) as reranker:
            assert [each.outcome for each in reranker.rerank(QUERY, DOCUMENTS).attempts] == ["cached"]
            if right:
                reranker.warmup()
            else:
                with pytest.raises(ConfigError, match="its dtype is bfloat16, and here it is float32"):
                    reranker.warmup()
        del reranker
        gc.collect()


@pytest.mark.parametrize("use", ["passthrough", "vllm"])
def test_what_only_orders_has_nothing_to_calibrate(made, server, use):
    spec = {"use": use} if use == "passthrough" else hosted(server, vllm={"scale": "ordinal"}) | {"use": "vllm:m"}
    with pytest.raises(ConfigError, match="only orders"):
        load_reranker({**spec, "calibration": made("lexical")})


@pytest.mark.parametrize(
    ("change", "why"),
    [
        (lambda text: "", "no calibration, or a broken one"),
        (lambda text: text[: len(text) // 2], "broken"),
        (lambda text: "[]", "needs exactly"),
        (lambda text: text.replace("0.4", "0.5"), "was changed since it was written"),
        (lambda text: text.replace('"format": 1', '"format": 2'), "this version reads 1"),
        (lambda text: "\ud800", "broken"),
    ],
)
def test_a_broken_file_is_told_with_a_way_out(made, tmp_path, change, why):
    path = made("lexical")
    text = (tmp_path / path).read_text("utf-8")
    (tmp_path / path).write_bytes(change(text).encode("utf-8", "surrogatepass"))
    with pytest.raises(ConfigError, match=f"{why}.*rerank-plugins calibrate"):
        load_reranker({"use": "lexical", "calibration": path})


@pytest.mark.parametrize(
    ("path", "why"),
    [
        ("nowhere.json", "rerank-plugins calibrate"),
        ("", r"^calibration\.path must be the path of a file, got an empty string"),
        (7, r"^calibration\.path must be the path of a file, got 7"),
    ],
)
def test_no_file(path, why):
    with pytest.raises(ConfigError, match=why):
        load_reranker({"use": "lexical", "calibration": path})


@pytest.mark.parametrize("curve", [STEPS, PLATT, Curve(method="temperature", slope=1 / 3)])
def test_to_the_file_and_back(tmp_path, curve):
    told = Calibration(of={"backend": "x"}, curve=curve, held_out={"folds": 5})
    write(told, tmp_path / "it.json")
    assert read(tmp_path / "it.json") == told


# --- with other policies ---


def test_in_a_cascade_each_stage_has_its_own(made, server):
    last = hosted(server, calibration=made(hosted(server), PLATT))
    stages = [{"use": "lexical", "calibration": made("lexical")}, last]
    with load_reranker({"cascade": {"stages": stages, "keep": [2]}, "score_threshold": 0.1}) as reranker:
        found = reranker.rerank(QUERY, DOCUMENTS)
    assert [each.relevance_score for each in found] == [PLATT.probability(each.raw_score, 0.0) for each in found]
    with pytest.raises(ConfigError, match="no calibration of its own"):
        load_reranker({"cascade": {"stages": stages, "keep": [2]}, "calibration": "it.json"})


def test_weighted_fusion_joins_calibrated_scores(made):
    spec = {"use": "lexical", "calibration": made("lexical"), "fuse": {"with": ["lexical"], "method": "weighted"}}
    plain = load_reranker("lexical").rerank(QUERY, DOCUMENTS)
    found = load_reranker(spec).rerank(QUERY, DOCUMENTS)
    assert found[0].relevance_score == pytest.approx((plain[0].relevance_score + 0.4) / 2)


def test_a_stand_in_has_its_own_calibration_or_none(made, server):
    dead = {"use": "http:one", "base_url": "http://127.0.0.1:9", "api_key": "key", "retry": 1}
    path, own = made(hosted(server), PLATT), made("lexical")
    threshold = {"calibration": path, "score_threshold": 0.3}
    with pytest.raises(ConfigError, match=r"mean different things for http:one \(probability\), lexical \(unit\)"):
        load_reranker({**dead, **threshold, "fallback": ["lexical"]})
    with load_reranker({**dead, "calibration": path, "fallback": ["lexical"]}) as reranker:
        found = reranker.rerank(QUERY, DOCUMENTS)
    assert found.degraded
    assert [each.relevance_score for each in found] == [each.raw_score for each in found]
    stand_in = {"use": "lexical", "calibration": own}
    with load_reranker({**dead, **threshold, "fallback": [stand_in, "passthrough"]}) as reranker:
        found = reranker.rerank(QUERY, DOCUMENTS)
    assert (found.degraded, found[0].relevance_score, len(found)) == (True, 0.4, len(DOCUMENTS))


def test_chunks_are_part_of_the_recipe(made, server):
    chunked = hosted(server, long_documents={"mode": "chunk", "tokens": 4, "overlap": 0})
    with pytest.raises(ConfigError, match="recipe"):
        load_reranker({**chunked, "calibration": made(hosted(server))})
    with load_reranker({**chunked, "calibration": made(chunked, PLATT)}) as reranker:
        (found,) = reranker.rerank(QUERY, ["one two three four five six seven eight nine ten"])
    assert found.spans
    assert found.relevance_score == PLATT.probability(found.raw_score, 0.0)
