"""Families of models: the engine, the scale and the limits that each preset gets."""

from __future__ import annotations

import json
import logging
import math
import shutil

import pytest
from support.bounds import OTHER_CODE, near
from support.checkpoints import checkpoint
from support.language_models import language_model, listwise
from support.models import SENTENCES, cross_encoder

from rerank_plugins import ConfigError, MissingExtra, cli, load_reranker
from rerank_plugins.backends import recipes
from rerank_plugins.backends.recipes import MODELS
from rerank_plugins.config import backends
from rerank_plugins.config.registry import BUILTIN
from rerank_plugins.engine.causal_lm.backend import CausalLM
from rerank_plugins.engine.model_backend import UNKNOWN_LENGTH
from rerank_plugins.engine.onnx.cross_encoder import OnnxCrossEncoder
from rerank_plugins.engine.torch.cross_encoder import TorchCrossEncoder

QUERY = "how do the tides work"
FAMILIES = sorted({recipe.family for recipe in MODELS})
LANGUAGE_MODELS = {"bge": "bge-gemma", "ctxl": "ctxl", "mxbai": "mxbai", "qwen3": "qwen3", "zerank": "zerank"}


@pytest.fixture(scope="session")
def torch_folder(tmp_path_factory):
    return checkpoint(tmp_path_factory.mktemp("families") / "tiny", "xlm-r")


def raw(reranker):
    scores = {each.index: each.raw_score for each in reranker.rerank(QUERY, SENTENCES)}
    return [scores[index] for index in range(len(SENTENCES))]


@pytest.mark.parametrize("family", sorted({*FAMILIES} - {"colbert", "ctxl", "qwen3", "zerank"}))
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
            late = recipe.engine == "colbert"
            assert (known.max_document_tokens if late else known.max_tokens) == (recipe.max_tokens or UNKNOWN_LENGTH)
            assert known.instructions == (recipe.engine in ("causal-lm", "listwise"))
            assert known.listwise == (recipe.engine == "listwise")
            assert (known.scale == "cosine") == (recipe.engine in ("listwise", "colbert"))
            with pytest.raises(ConfigError, match=f"rerank-plugins fetch {recipe.family}:{recipe.name}"):
                reranker.warmup()


def test_a_family_without_a_model_takes_its_first():
    for family in FAMILIES:
        first = next(recipe for recipe in MODELS if recipe.family == family)
        assert load_reranker(family).scorer.label == f"{family}:{first.name}"


def test_non_commercial_licence_is_logged_once(caplog, monkeypatch):
    monkeypatch.setattr(recipes, "_warned", set())
    with caplog.at_level(logging.WARNING, "rerank_plugins"):
        load_reranker("jina:jina-reranker-v2-base-multilingual")
        load_reranker("jina:jina-reranker-v2-base-multilingual")
        load_reranker("jina")
    assert [record.getMessage() for record in caplog.records] == [
        (
            "jina-reranker-v2-base-multilingual is licensed CC-BY-NC-4.0: not for commercial use without its maker's "
            "permission."
        )
    ]


@pytest.mark.parametrize(
    ("spec", "options", "message"),
    [
        ("bge:nothing", {}, "no model 'nothing'. Choose one of: bge-reranker-v2-m3"),
        ("onnx:just-a-name", {}, "neither a folder nor a hub's org/name"),
        ("onnx", {}, "onnx needs a model"),
        ("sentence-transformers:/no/such/folder", {}, "There is no folder"),
        ("jina", {"runtime": "torch"}, "runs only from its ONNX file"),
        ("qwen3:Qwen3-Reranker-1B", {}, "Choose one of: Qwen3-Reranker-0.6B"),
        (
            "jina",
            {"dtype": "float16"},
            "dtype 'float16' is not offered here; choose one of: float32, auto, bfloat16, int8",
        ),
        ("flashrank", {"device": "cuda"}, "device 'cuda' is not offered here"),
        (
            "bge:bge-reranker-large",
            {"dtype": "int8"},
            "rerank-plugins export BAAI/bge-reranker-large ./folder; name it bge:./folder",
        ),
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
        ("flashrank", {"runtime": "torch"}, "flashrank:ms-marco-TinyBERT-L-2-v2 runs only from its ONNX file"),
        ("sentence-transformers:a/b", {"sentence-transformers": {"trust_remote_code": True}}, "40 digits"),
        (
            "sentence-transformers:a/b",
            {"revision": "main", "sentence-transformers": {"trust_remote_code": True}},
            "40 digits",
        ),
    ],
)
def test_unavailable_model_names_the_remedy(spec, options, message):
    with pytest.raises(ConfigError, match=message):
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
        load_reranker("ettin")


@pytest.mark.parametrize("options", [{"runtime": "onnxruntime"}, {"runtime": "openvino"}, {"dtype": "int8"}, None])
def test_converted_onnx_file_is_fetched_where_it_is_selected_or_torch_is_missing(options, monkeypatch, tmp_path):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    if options is None:
        monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with load_reranker("bge", **options or {}) as reranker, pytest.raises(ConfigError) as caught:
        reranker.warmup()
    assert str(caught.value).startswith("onnx-community/bge-reranker-v2-m3-ONNX is not on this machine")
    command = """rerank-plugins fetch '{"use": "bge:bge-reranker-v2-m3", "runtime": "onnxruntime"}'"""
    assert str(caught.value).endswith(command)


@pytest.mark.parametrize("options", [{}, {"device": "cpu"}, {"runtime": "torch"}])
def test_makers_weights_are_fetched_where_torch_is_installed(options, monkeypatch, tmp_path):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    with load_reranker("bge", **options) as reranker, pytest.raises(ConfigError, match=r"^BAAI/bge-reranker-v2-m3 is"):
        reranker.warmup()


@pytest.mark.parametrize(
    ("spec", "options", "message"),
    [
        ("cross-encoder:bce-reranker-base_v1", {}, "pickled weights only .* revision = 'refs/pr/1'"),
        ("sentence-transformers:maidalun1020/bce-reranker-base_v1", {}, "pickled weights only"),
        ("ctxl:ctxl-rerank-v2-instruct-multilingual-6b", {}, "it is a Mistral"),
        (
            "causal-lm:ContextualAI/ctxl-rerank-v2-instruct-multilingual-6b",
            {"causal-lm": {"template": "ctxl"}},
            "it is a Mistral",
        ),
        ("cross-encoder:nvidia/llama-nemotron-rerank-1b-v2", {}, "'question:QUERY .n .n passage:DOCUMENT'"),
        (
            "sentence-transformers:nvidia/llama-nemotron-rerank-1b-v2",
            {"revision": "a" * 40, "sentence-transformers": {"trust_remote_code": True}},
            "Serve it .vllm, with that prompt as its chat template, or nvidia-nim., or use NVIDIA's API .nvidia.",
        ),
    ],
)
def test_reranker_that_is_not_offered_says_what_is_missing(spec, options, message):
    with pytest.raises(ConfigError, match=f"does not offer '.*': .*{message}"):
        load_reranker(spec, **options)


def test_other_revision_of_a_refused_model_may_be_named():
    spec = "sentence-transformers:maidalun1020/bce-reranker-base_v1"
    with load_reranker(spec, revision="refs/pr/1") as reranker:
        assert reranker.scorer.label == spec


def test_folder_with_a_models_name_has_its_scale_and_limits(tmp_path):
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
    """A model in flashrank's layout (0.2.10, Config.py and Ranker.py)."""
    cross_encoder(folder, labels=labels)
    shutil.move(folder / "model.onnx", folder / file)
    names = {name: f"[{name[:3].upper()}]" for name in ("unk_token", "pad_token", "cls_token", "sep_token")}
    special_tokens = json.dumps(names | {"mask_token": "[MASK]"})
    (folder / "special_tokens_map.json").write_text(special_tokens, "utf-8")
    return folder


def their_scores(ranker, sentences):
    from flashrank import RerankRequest

    passages = [{"id": index, "text": text} for index, text in enumerate(sentences)]
    results = ranker.rerank(RerankRequest(query=QUERY, passages=passages))
    return {each["id"]: float(each["score"]) for each in results}


@pytest.mark.parametrize("labels", [1, 2])
def test_flashrank_folders_score_as_flashrank_does(labels, tmp_path):
    from flashrank import Ranker

    folder = flashrank_folder(tmp_path / "ms-marco-TinyBERT-L-2-v2", "flashrank-TinyBERT-L-2-v2.onnx", labels)
    theirs = their_scores(Ranker(model_name=folder.name, cache_dir=str(tmp_path)), SENTENCES)
    with load_reranker(f"flashrank:{folder}") as reranker:
        ours = {each.index: each.relevance_score for each in reranker.rerank(QUERY, SENTENCES)}
    assert ours == near(theirs, OTHER_CODE)


def test_flashrank_models_in_int8_score_as_flashrank_does_text_by_text(tmp_path):
    """flashrank puts all texts in one batch with one scale; our scores equal its scores for single texts."""
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
    assert "None of these was run with its own weights" in shown
    assert cli.main(["list", "--models", "--json"]) == 0
    printed = json.loads(capsys.readouterr().out)
    rows = {row["spec"].partition(":")[2]: row for row in printed if "engine" in row}  # others are of vendors
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
    assert rows["bge-reranker-base"]["card"] == "https://huggingface.co/BAAI/bge-reranker-base"
    converted = rows["bge-reranker-v2-m3"]
    assert converted["ONNX file"] == "onnx-community/bge-reranker-v2-m3-ONNX: onnx/model.onnx"
    assert converted["engine"] == "sentence-transformers"
    assert rows["ms-marco-MiniLM-L-12-v2"]["ONNX file"] == "flashrank-MiniLM-L-12-v2_Q.onnx"


def test_fetch_of_what_has_no_files_says_so(capsys, cross_encoder_folder):
    assert cli.main(["fetch", json.dumps({"use": f"onnx:{cross_encoder_folder}", "fallback": ["lexical"]})]) == 0
    first, second = capsys.readouterr().out.splitlines()
    assert first.endswith(f": {cross_encoder_folder}")
    assert second == "lexical: needs no files"
