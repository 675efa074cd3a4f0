"""Families of models: presets over engines, whatever engine runs them."""

from __future__ import annotations

import json
import logging
import math
import shutil

import pytest
from bounds import OTHER_CODE, near
from checkpoints import checkpoint
from language_models import language_model, listwise
from models import SENTENCES, cross_encoder

from rerank_plugins import ConfigError, MissingExtra, cli, load_reranker
from rerank_plugins.backends import families
from rerank_plugins.backends.recipes import MODELS
from rerank_plugins.config import backends
from rerank_plugins.config.registry import BUILTIN
from rerank_plugins.engine.causal_lm.backend import CausalLM
from rerank_plugins.engine.onnx.backend import OnnxCrossEncoder
from rerank_plugins.engine.torch.backend import TorchCrossEncoder

QUERY = "how do the tides work"
FAMILIES = sorted({recipe.family for recipe in MODELS})
LANGUAGE_MODELS = {"bge": "bge-gemma", "mxbai": "mxbai", "qwen3": "qwen3", "zerank": "zerank"}


@pytest.fixture(scope="session")
def torch_folder(tmp_path_factory):
    return checkpoint(tmp_path_factory.mktemp("families") / "tiny", "xlm-r")


def raw(reranker):
    found = {each.index: each.raw_score for each in reranker.rerank(QUERY, SENTENCES)}
    return [found[index] for index in range(len(SENTENCES))]


@pytest.mark.parametrize("family", sorted({*FAMILIES} - {"qwen3", "zerank"}))
def test_a_folder_is_a_model_in_every_family(family, cross_encoder_folder, torch_folder):
    with (
        load_reranker(f"{family}:{cross_encoder_folder}") as reranker,
        load_reranker(f"onnx:{cross_encoder_folder}") as plain,
    ):
        assert isinstance(backends(reranker)[0].inner, OnnxCrossEncoder)
        assert raw(reranker) == raw(plain)
        response = reranker.rerank(QUERY, SENTENCES)
        assert response.model.startswith(f"{family}:")
        for each in response:
            assert each.relevance_score == pytest.approx(1 / (1 + math.exp(-each.raw_score)))
    with load_reranker(f"{family}:{torch_folder}") as reranker:
        assert isinstance(backends(reranker)[0].inner, TorchCrossEncoder)
    with load_reranker(f"{family}:{cross_encoder_folder}", runtime="torch") as reranker:
        assert isinstance(backends(reranker)[0].inner, TorchCrossEncoder)


@pytest.mark.parametrize("recipe", MODELS, ids=lambda recipe: f"{recipe.family}:{recipe.name}")
def test_every_model_can_be_named_and_needs_no_network_to_be_made(recipe, tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert recipe.family in BUILTIN
    assert (recipe.repository in recipe.names) != recipe.zipped, "a repository of many models names none of them"
    for name in recipe.names:
        with load_reranker(f"{recipe.family}:{name}") as reranker:
            assert reranker.scorer.label == f"{recipe.family}:{recipe.name}"
            known = reranker.scorer.capabilities
            assert known.max_tokens == recipe.max_tokens
            assert known.instructions == (recipe.engine in ("causal-lm", "listwise"))
            assert known.listwise == (known.scale == "cosine") == (recipe.engine == "listwise")
            with pytest.raises(ConfigError, match=f"rerank-plugins fetch {recipe.family}:{recipe.name}"):
                reranker.warmup()


def test_a_family_without_a_model_takes_its_first():
    for family in FAMILIES:
        first = next(recipe for recipe in MODELS if recipe.family == family)
        assert load_reranker(family).scorer.label == f"{family}:{first.name}"


def test_a_licence_that_is_not_for_commerce_is_told_once(caplog, monkeypatch):
    monkeypatch.setattr(families, "_warned", set())
    with caplog.at_level(logging.WARNING, "rerank_plugins"):
        load_reranker("jina:jina-reranker-v2-base-multilingual")
        load_reranker("jina:jina-reranker-v2-base-multilingual")
        load_reranker("jina")
    assert [record.getMessage() for record in caplog.records] == [
        "jina-reranker-v2-base-multilingual is licensed CC-BY-NC-4.0: not for commercial use without its maker's leave."
    ]


@pytest.mark.parametrize(
    ("spec", "options", "told"),
    [
        ("bge:nothing", {}, "no model 'nothing'. Choose one of: bge-reranker-v2-m3"),
        ("onnx:just-a-name", {}, "neither a folder nor a hub's org/name"),
        ("onnx", {}, "onnx needs a model"),
        ("sentence-transformers:/no/such/folder", {}, "There is no folder"),
        ("jina", {"runtime": "torch"}, "runs from its ONNX file only"),
        ("qwen3:Qwen3-Reranker-1B", {}, "Choose one of: Qwen3-Reranker-0.6B"),
        (
            "jina",
            {"dtype": "float16"},
            "dtype 'float16' is not offered here; choose one of: float32, auto, bfloat16, int8",
        ),
        ("flashrank", {"device": "cuda"}, "device 'cuda' is not offered here"),
        ("bge", {"dtype": "int8"}, "rerank-plugins export BAAI/bge-reranker-v2-m3 ./folder; name it bge:./folder"),
        ("ettin", {"runtime": "openvino"}, "no ONNX file, which that runtime or dtype needs: make one"),
        ("mxbai:mxbai-rerank-base-v2", {"dtype": "int8"}, "dtype 'int8' is not offered"),
        ("jina:jina-reranker-v3", {"device": ["cuda:0", "cuda:1"]}, "runs on one device"),
        ("onnx:a/b", {"runtime": "torch"}, "^runtime must be one of auto, onnxruntime or openvino"),
        ("sentence-transformers:a/b", {"dtype": "int8"}, "^dtype must be one of auto, bfloat16, float16 or float32"),
        ("qwen3", {"max_tokens": 3}, "at least 16"),
        (
            "causal-lm:a/b",
            {"causal-lm": {"template": "qwen3"}, "runtime": "openvino"},
            "^runtime must be one of auto or torch",
        ),
        ("causal-lm:a/b", {}, "needs the template that the model was trained with"),
        ("flashrank:rank-T5-flan", {}, "no model 'rank-T5-flan'. Choose one of: ms-marco-TinyBERT-L-2-v2"),
        ("flashrank:prithivida/flashrank", {}, "Choose one of: ms-marco-TinyBERT-L-2-v2"),
        ("flashrank", {"runtime": "torch"}, "flashrank:ms-marco-TinyBERT-L-2-v2 runs from its ONNX file only"),
        ("sentence-transformers:a/b", {"sentence-transformers": {"trust_remote_code": True}}, "40 digits"),
        (
            "sentence-transformers:a/b",
            {"revision": "main", "sentence-transformers": {"trust_remote_code": True}},
            "40 digits",
        ),
    ],
)
def test_what_cannot_be_had_says_what_to_do(spec, options, told):
    with pytest.raises(ConfigError, match=told):
        load_reranker(spec, **options)


@pytest.mark.parametrize("family", LANGUAGE_MODELS)
def test_a_folder_with_a_language_model_is_one_in_its_family(family, tmp_path):
    template = LANGUAGE_MODELS[family]
    folder = language_model(tmp_path / family, template)
    with (
        load_reranker(f"{family}:{folder}", device="cpu") as reranker,
        load_reranker({"use": f"causal-lm:{folder}", "device": "cpu", "causal-lm": {"template": template}}) as plain,
    ):
        assert isinstance(backends(reranker)[0].inner, CausalLM)
        assert raw(reranker) == raw(plain)
        response = reranker.rerank(QUERY, SENTENCES)
        assert response.model.startswith(f"{family}:")
        assert response.model.endswith("[torch float32]")
        assert plain.rerank(QUERY, SENTENCES, instruction="Only the sea.")[0].raw_score != response[0].raw_score
        offset, divisor = {"mxbai": (6.0, 1.0), "zerank": (0.0, 5.0)}.get(family, (0.0, 1.0))
        for each in response:
            assert each.relevance_score == pytest.approx(1 / (1 + math.exp(-(each.raw_score - offset) / divisor)))


def test_the_scale_of_each_model_is_its_makers():
    """mxbai-rerank's sigmoid(x - m / 2), m = 9 and 12; zerank's sigmoid(x / 5)."""
    for spec, raw_score in (
        ("mxbai:mxbai-rerank-base-v2", 4.5),
        ("mxbai:mxbai-rerank-large-v2", 6.0),
        ("zerank:zerank-2", 0.0),
    ):
        assert load_reranker(spec).scorer.capabilities.relevance(raw_score) == 0.5
    assert load_reranker("zerank").scorer.capabilities.relevance(5.0) == pytest.approx(1 / (1 + math.exp(-1)))


def test_without_torch_a_family_that_needs_it_says_the_pip_command(monkeypatch):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(MissingExtra, match=r"pip install 'rerank-plugins\[sentence-transformers\]'"):
        load_reranker("bge")


def test_a_folder_that_is_named_as_a_model_is_scaled_and_cut_as_that_model(tmp_path):
    scores = []
    for name in (
        "mxbai-rerank-base-v2",
        "models--mixedbread-ai--mxbai-rerank-base-v2/snapshots/4f2a",
        "mxbai-rerank-large-v2",
        "own",
    ):
        folder = language_model(tmp_path / name, "mxbai")
        with load_reranker(f"mxbai:{folder}", device="cpu") as reranker:
            best = reranker.rerank(QUERY, SENTENCES)[0]
            scores.append(math.log(best.relevance_score / (1 - best.relevance_score)) - best.raw_score)
    assert scores == pytest.approx([-4.5, -4.5, -6.0, -6.0])
    for name, query, document in (
        ("jina-reranker-v3", 512, 2048),
        ("jina-reranker-v3.5", 1024, 8192),
        ("own", 512, 2048),
    ):
        with load_reranker(f"jina:{listwise(tmp_path / 'jina' / name)}", device="cpu") as reranker:
            limits = reranker.scorer.capabilities
            assert (limits.max_query_tokens, limits.max_document_tokens) == (query, document)


def flashrank_folder(folder, file, labels=1):
    """A model in the layout of flashrank's own (0.2.10, Config.py and Ranker.py)."""
    cross_encoder(folder, labels=labels)
    shutil.move(folder / "model.onnx", folder / file)
    names = {name: f"[{name[:3].upper()}]" for name in ("unk_token", "pad_token", "cls_token", "sep_token")}
    told = json.dumps(names | {"mask_token": "[MASK]"})
    (folder / "special_tokens_map.json").write_text(told, "utf-8")
    return folder


def their_scores(ranker, sentences):
    from flashrank import RerankRequest

    passages = [{"id": index, "text": text} for index, text in enumerate(sentences)]
    found = ranker.rerank(RerankRequest(query=QUERY, passages=passages))
    return {each["id"]: float(each["score"]) for each in found}


@pytest.mark.parametrize("labels", [1, 2])
def test_flashrank_folders_score_as_flashrank_does(labels, tmp_path):
    from flashrank import Ranker

    folder = flashrank_folder(tmp_path / "ms-marco-TinyBERT-L-2-v2", "flashrank-TinyBERT-L-2-v2.onnx", labels)
    theirs = their_scores(Ranker(model_name=folder.name, cache_dir=str(tmp_path)), SENTENCES)
    with load_reranker(f"flashrank:{folder}") as reranker:
        ours = {each.index: each.relevance_score for each in reranker.rerank(QUERY, SENTENCES)}
    assert ours == near(theirs, OTHER_CODE)


def test_flashrank_models_in_int8_score_as_flashrank_does_text_by_text(tmp_path):
    """Theirs puts all texts into one batch, whose scale they share; ours is what they give for each alone."""
    from flashrank import Ranker
    from onnxruntime.quantization import QuantType, quantize_dynamic

    file = "flashrank-MiniLM-L-12-v2_Q.onnx"
    folder = flashrank_folder(tmp_path / "ms-marco-MiniLM-L-12-v2", "float.onnx")
    quantize_dynamic(folder / "float.onnx", folder / file, weight_type=QuantType.QInt8)
    (folder / "float.onnx").unlink()
    ranker = Ranker(model_name=folder.name, cache_dir=str(tmp_path))
    alone = {index: their_scores(ranker, [text])[0] for index, text in enumerate(SENTENCES)}
    with load_reranker(f"flashrank:{folder}") as reranker:
        ours = {each.index: each.relevance_score for each in reranker.rerank(QUERY, SENTENCES)}
    assert ours == near(alone, OTHER_CODE)


def test_list_models(capsys):
    assert cli.main(["list", "--models"]) == 0
    shown = capsys.readouterr().out
    assert all(f"{recipe.family}:{recipe.name}" in shown for recipe in MODELS)
    assert cli.main(["list", "--models", "--json"]) == 0
    rows = {row["spec"].partition(":")[2]: row for row in json.loads(capsys.readouterr().out)}
    assert len(rows) == len(MODELS)
    assert {
        name: rows[name]["scale"]
        for name in ("bge-reranker-base", "mxbai-rerank-base-v2", "zerank-2", "jina-reranker-v3")
    } == {
        "bge-reranker-base": "sigmoid(x)",
        "mxbai-rerank-base-v2": "sigmoid(x - 4.5)",
        "zerank-2": "sigmoid(x / 5)",
        "jina-reranker-v3": "(x + 1) / 2",
    }
    assert rows["bge-reranker-base"]["ONNX file"] == "onnx/model.onnx"
    assert rows["ms-marco-MiniLM-L-12-v2"]["ONNX file"] == "flashrank-MiniLM-L-12-v2_Q.onnx"


def test_fetch_of_what_has_no_files_says_so(capsys, cross_encoder_folder):
    assert cli.main(["fetch", json.dumps({"use": f"onnx:{cross_encoder_folder}", "fallback": ["lexical"]})]) == 0
    first, second = capsys.readouterr().out.splitlines()
    assert first.endswith(f": {cross_encoder_folder}")
    assert second == "lexical: needs no files"
