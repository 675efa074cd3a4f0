"""The option `calibration`: which scorers it accepts, what it changes, and what it leaves alone."""

from __future__ import annotations

import gc
import json
import pickle

import pytest
from langchain_core.documents import Document
from llama_index.core.schema import NodeWithScore, TextNode

from rerank_plugins import ConfigError, Reranker, load_reranker
from rerank_plugins.calibration.file import Calibration, load_calibration, save_calibration
from rerank_plugins.config import identity
from rerank_plugins.core.calibration_curve import Curve
from rerank_plugins.langchain import RerankCompressor
from rerank_plugins.llama_index import RerankPostprocessor
from rerank_plugins.testing.cohere_like import CohereLike

QUERY = "red tea"
DOCUMENTS = ["red car", "red tea", "", "blue sky", "red tea", "tea"]
STEPS = Curve(method="isotonic", points=((0.0, 0.1), (0.1, 0.4), (1.0, 0.4)))
"""Every document with a word of the query gets the same probability."""
PLATT = Curve(method="platt", slope=8.0, intercept=-3.0)


@pytest.fixture
def make_calibration(tmp_path):
    """Return a function that writes a calibration for a spec's own scores and returns its path."""

    def make(spec, curve: Curve = STEPS) -> str:
        path = tmp_path / f"{abs(hash((str(spec), curve)))}.json"
        with load_reranker(spec) as reranker:
            save_calibration(Calibration(of=identity(reranker), curve=curve, held_out={}), path)
        return str(path)

    return make


@pytest.fixture
def server():
    with CohereLike(score=lambda _, text: 1.0 / (1.0 + len(text))) as running:
        yield running


def hosted(server: CohereLike, **options) -> dict:
    return {"use": "http:one", "base_url": server.url, "api_key": server.key, "retry": 1, **options}


async def test_raw_score_sorts_and_curve_gives_the_relevance(make_calibration):
    plain = load_reranker("lexical").rerank(QUERY, DOCUMENTS)
    reranker = load_reranker({"use": "lexical", "calibration": make_calibration("lexical")})
    response = reranker.rerank(QUERY, DOCUMENTS)
    assert [(result.index, result.raw_score) for result in response] == [
        (result.index, result.raw_score) for result in plain
    ]
    assert [result.relevance_score for result in response] == [0.4, 0.4, 0.4, 0.4, 0.1, None]
    # The probabilities are equal, and the order is still that of the raw scores.
    assert len({result.raw_score for result in response[:4]}) == 3
    assert (response.scale, response.degraded) == ("unit", False)
    assert (await reranker.arerank(QUERY, DOCUMENTS)).results == response.results


def test_threshold_applies_to_calibrated_scores_before_top_n(make_calibration):
    spec = {"use": "lexical", "calibration": make_calibration("lexical", PLATT)}
    every = load_reranker(spec).rerank(QUERY, DOCUMENTS)
    middle = every[2].relevance_score
    assert [result.index for result in load_reranker({**spec, "score_threshold": middle}).rerank(QUERY, DOCUMENTS)] == [
        result.index for result in every if result.relevance_score is not None and result.relevance_score >= middle
    ]
    assert len(load_reranker({**spec, "score_threshold": middle, "top_n": 1}).rerank(QUERY, DOCUMENTS)) == 1


def test_calibration_survives_pickle_and_reaches_both_adapters(make_calibration):
    path = make_calibration("lexical")
    reranker = load_reranker({"use": "lexical", "calibration": path})
    expected = reranker.rerank(QUERY, DOCUMENTS).results
    assert reranker.spec["calibration"] == path
    assert pickle.loads(pickle.dumps(reranker)).rerank(QUERY, DOCUMENTS).results == expected
    texts = [text for text in DOCUMENTS if text]
    documents = RerankCompressor(reranker=reranker).compress_documents([Document(text) for text in texts], QUERY)
    assert [document.metadata["relevance_score"] for document in documents] == [0.4, 0.4, 0.4, 0.4, 0.1]
    nodes = [NodeWithScore(node=TextNode(text=text), score=0.0) for text in texts]
    nodes = RerankPostprocessor(reranker=reranker).postprocess_nodes(nodes, query_str=QUERY)
    assert [node.score for node in nodes] == [0.4, 0.4, 0.4, 0.4, 0.1]


def test_new_calibration_reuses_cached_raw_scores(make_calibration, server, tmp_path):
    spec = hosted(server, cache={"kind": "disk", "path": str(tmp_path / "scores.sqlite3")})
    with load_reranker(spec) as plain:
        raw = [result.raw_score for result in plain.rerank(QUERY, DOCUMENTS)]
    for curve in (STEPS, PLATT):
        with load_reranker({**spec, "calibration": make_calibration(spec, curve)}) as reranker:
            response = reranker.rerank(QUERY, DOCUMENTS)
        assert [result.raw_score for result in response] == raw
        assert response[0].relevance_score == curve.probability(raw[0], raw[0])
    assert len(server.requests) == 1


# --- the identity of the scorer ---


@pytest.mark.parametrize(
    ("other", "message"),
    [
        ("embedded", "its backend is lexical, and here it is embedded"),
        ({"use": "http:two"}, "its backend is lexical"),
    ],
)
def test_calibration_of_another_backend_is_refused(make_calibration, server, other, message):
    path = make_calibration("lexical")
    other = hosted(server, **other) if isinstance(other, dict) else {"use": other}
    with pytest.raises(ConfigError, match=f"fitted to the scores of lexical.*{message}.*rerank-plugins calibrate"):
        load_reranker({**other, "calibration": path})


def test_calibration_of_another_model_weights_or_recipe_is_refused(
    make_calibration, server, cross_encoder_folder, tmp_path
):
    path = make_calibration(hosted(server))
    with pytest.raises(ConfigError, match="its model is one, and here it is two"):
        load_reranker({**hosted(server), "use": "http:two", "calibration": path})
    with pytest.raises(ConfigError, match="recipe"):
        load_reranker({**hosted(server, http={"scale": "logit"}), "calibration": path})
    load_reranker(
        {**hosted(server, timeout=5.0, max_in_flight=2), "calibration": path}
    )  # options of the connection do not matter
    onnx = f"onnx:{cross_encoder_folder}"
    path = make_calibration(onnx)
    fitted = json.loads((tmp_path / path).read_text("utf-8"))["of"]
    assert (fitted["model"], fitted["runtime"], fitted["dtype"]) == (
        cross_encoder_folder.name,
        "onnxruntime",
        "float32",
    )
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


def test_dtype_is_checked_when_the_model_is_loaded(make_calibration, cross_encoder_folder, tmp_path):
    spec = f"sentence-transformers:{cross_encoder_folder}"
    path = tmp_path / "loaded.json"
    with load_reranker(spec) as reranker:
        reranker.warmup()
        of = identity(reranker)
    assert (of["runtime"], of["dtype"]) == ("torch", "float32")
    save_calibration(Calibration(of={**of, "dtype": "bfloat16"}, curve=PLATT, held_out={}), path)
    # If another reranker of the process has loaded the model, the dtype is known and refused at once.
    for ask in (Reranker.warmup, lambda reranker: reranker.rerank(QUERY, DOCUMENTS)):
        with pytest.raises(ConfigError, match="its dtype is bfloat16, and here it is float32"):
            ask(load_reranker({"use": spec, "calibration": str(path)}))


def test_cached_answer_before_loading_does_not_fail_the_dtype_check(cross_encoder_folder, tmp_path):
    """The dtype is unknown until the model is loaded; a difference is an error only then."""
    spec = {
        "use": f"sentence-transformers:{cross_encoder_folder}",
        "cache": {"kind": "disk", "path": tmp_path / "scores"},
    }
    with load_reranker(spec) as reranker:
        reranker.rerank(QUERY, DOCUMENTS)
        of = identity(reranker)
    del reranker
    gc.collect()  # unloads the model
    for dtype, matches in (("float32", True), ("bfloat16", False)):
        path = tmp_path / f"{dtype}.json"
        save_calibration(Calibration(of={**of, "dtype": dtype}, curve=PLATT, held_out={}), path)
        with load_reranker({**spec, "calibration": str(path)}) as reranker:
            assert [attempt.outcome for attempt in reranker.rerank(QUERY, DOCUMENTS).attempts] == ["cached"]
            if matches:
                reranker.warmup()
            else:
                with pytest.raises(ConfigError, match="its dtype is bfloat16, and here it is float32"):
                    reranker.warmup()
        del reranker
        gc.collect()


@pytest.mark.parametrize("use", ["passthrough", "vllm"])
def test_ordinal_scorer_cannot_be_calibrated(make_calibration, server, use):
    spec = {"use": use} if use == "passthrough" else hosted(server, vllm={"scale": "ordinal"}) | {"use": "vllm:m"}
    with pytest.raises(ConfigError, match="only orders"):
        load_reranker({**spec, "calibration": make_calibration("lexical")})


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda text: "", "is not a calibration, or is damaged"),
        (lambda text: text[: len(text) // 2], "damaged"),
        (lambda text: "[]", "must have exactly"),
        (lambda text: text.replace("0.4", "0.5"), "was changed after it was written"),
        (lambda text: text.replace('"format": 1', '"format": 2'), "this version reads 1"),
        (lambda text: "\ud800", "damaged"),
    ],
)
def test_damaged_file_error_names_the_command_to_refit(make_calibration, tmp_path, change, message):
    path = make_calibration("lexical")
    text = (tmp_path / path).read_text("utf-8")
    (tmp_path / path).write_bytes(change(text).encode("utf-8", "surrogatepass"))
    with pytest.raises(ConfigError, match=f"{message}.*rerank-plugins calibrate"):
        load_reranker({"use": "lexical", "calibration": path})


@pytest.mark.parametrize(
    ("path", "message"),
    [
        ("nowhere.json", "rerank-plugins calibrate"),
        ("", r"^calibration\.path must be the path of a file, got an empty string"),
        (7, r"^calibration\.path must be the path of a file, got 7"),
    ],
)
def test_missing_or_wrong_path_is_a_config_error(path, message):
    with pytest.raises(ConfigError, match=message):
        load_reranker({"use": "lexical", "calibration": path})


@pytest.mark.parametrize("curve", [STEPS, PLATT, Curve(method="temperature", slope=1 / 3)])
def test_saved_calibration_loads_equal(tmp_path, curve):
    calibration = Calibration(of={"backend": "x"}, curve=curve, held_out={"folds": 5})
    save_calibration(calibration, tmp_path / "it.json")
    assert load_calibration(tmp_path / "it.json") == calibration


# --- with other policies ---


def test_cascade_stages_have_their_own_calibrations(make_calibration, server):
    last = hosted(server, calibration=make_calibration(hosted(server), PLATT))
    stages = [{"use": "lexical", "calibration": make_calibration("lexical")}, last]
    with load_reranker({"cascade": {"stages": stages, "keep": [2]}, "score_threshold": 0.1}) as reranker:
        response = reranker.rerank(QUERY, DOCUMENTS)
    assert [result.relevance_score for result in response] == [
        PLATT.probability(result.raw_score, 0.0) for result in response
    ]
    with pytest.raises(ConfigError, match="no calibration of its own"):
        load_reranker({"cascade": {"stages": stages, "keep": [2]}, "calibration": "it.json"})


def test_weighted_fusion_joins_calibrated_scores(make_calibration):
    spec = {
        "use": "lexical",
        "calibration": make_calibration("lexical"),
        "fuse": {"with": ["lexical"], "method": "weighted"},
    }
    plain = load_reranker("lexical").rerank(QUERY, DOCUMENTS)
    response = load_reranker(spec).rerank(QUERY, DOCUMENTS)
    assert response[0].relevance_score == pytest.approx((plain[0].relevance_score + 0.4) / 2)


def test_fallback_uses_its_own_calibration_or_none(make_calibration, server):
    dead = {"use": "http:one", "base_url": "http://127.0.0.1:9", "api_key": "key", "retry": 1}
    path, own = make_calibration(hosted(server), PLATT), make_calibration("lexical")
    threshold = {"calibration": path, "score_threshold": 0.3}
    with pytest.raises(ConfigError, match=r"mean different things for http:one \(probability\), lexical \(unit\)"):
        load_reranker({**dead, **threshold, "fallback": ["lexical"]})
    with load_reranker({**dead, "calibration": path, "fallback": ["lexical"]}) as reranker:
        response = reranker.rerank(QUERY, DOCUMENTS)
    assert response.degraded
    assert [result.relevance_score for result in response] == [result.raw_score for result in response]
    stand_in = {"use": "lexical", "calibration": own}
    with load_reranker({**dead, **threshold, "fallback": [stand_in, "passthrough"]}) as reranker:
        response = reranker.rerank(QUERY, DOCUMENTS)
    assert (response.degraded, response[0].relevance_score, len(response)) == (True, 0.4, len(DOCUMENTS))


def test_calibration_of_whole_documents_is_refused_for_chunks(make_calibration, server):
    chunked = hosted(server, long_documents={"mode": "chunk", "tokens": 4, "overlap": 0})
    with pytest.raises(ConfigError, match="recipe"):
        load_reranker({**chunked, "calibration": make_calibration(hosted(server))})
    with load_reranker({**chunked, "calibration": make_calibration(chunked, PLATT)}) as reranker:
        (response,) = reranker.rerank(QUERY, ["one two three four five six seven eight nine ten"])
    assert response.spans
    assert response.relevance_score == PLATT.probability(response.raw_score, 0.0)
