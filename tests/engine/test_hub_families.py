"""Every cross-encoder of a family: the files fetched from a repository with its maker's layout, then a run offline."""

from __future__ import annotations

import json
import shutil
from functools import partial
from pathlib import Path

import pytest
from support.checkpoints import checkpoint
from support.hub import Hub, run_with
from support.late_interaction import export, late_interaction
from support.zipped import zip_of

from rerank_plugins.backends.recipes import MODELS, ONNX, TORCH, Recipe

COMMIT = "a" * 40
ENCODERS = [recipe for recipe in MODELS if recipe.engine in (ONNX, TORCH)]
CONVERTED = [recipe for recipe in MODELS if recipe.onnx_repository]
BESIDE = ("README.md", ".gitattributes", "pytorch_model.bin", "vocab.txt", "modeling.py", "flax_model.msgpack")
OFFLINE = """
import json, sys
from rerank_plugins import load_reranker
for spec in json.loads(sys.argv[1]):
    with load_reranker(spec, local_files_only=True) as reranker:
        found = reranker.rerank("how do the tides work", ["Bananas are yellow.", "The moon raises the tides."])
        print(json.dumps([spec, len(found), found.model]))
"""


def spec_of(recipe: Recipe) -> str:
    return f"{recipe.family}:{recipe.name}"


def published(recipe: Recipe, folder: Path, tiny: Path) -> Path:
    """Write a tiny model with the layout of a hub repository."""
    folder.mkdir(parents=True, exist_ok=True)
    if recipe.zipped:
        zip_of(tiny, folder / f"{recipe.name}.zip", recipe.name, str(recipe.onnx))
        return folder
    for name in ("config.json", "tokenizer.json", "tokenizer_config.json"):
        shutil.copy(tiny / name, folder)
    if recipe.native:
        shutil.copy(tiny / "model.safetensors", folder)
    if recipe.onnx and not recipe.onnx_repository:
        (folder / recipe.onnx).parent.mkdir(exist_ok=True)
        for name in (recipe.onnx, "onnx/model_quantized.onnx", "onnx/model_O3.onnx"):
            shutil.copy(tiny / "model.onnx", folder / name)
    for name in BESIDE:
        (folder / name).write_text("not wanted", "utf-8")
    return folder


def published_conversion(recipe: Recipe, folder: Path, tiny: Path) -> Path:
    """Write a tiny model with the layout of a repository of onnx-community: weights in a file of their own."""
    import onnx

    for name in ("config.json", "tokenizer.json", "tokenizer_config.json"):
        (folder / "onnx").mkdir(parents=True, exist_ok=True)
        shutil.copy(tiny / name, folder)
    outside = {"save_as_external_data": True, "location": "model.onnx_data", "size_threshold": 0}
    onnx.save_model(onnx.load(str(tiny / "model.onnx")), str(folder / str(recipe.onnx)), **outside)
    shutil.copy(tiny / "model.onnx", folder / "onnx" / "model_int8.onnx")
    return folder


@pytest.fixture
def hub(tmp_path, cross_encoder_folder):
    running = Hub()
    for recipe in CONVERTED:
        folder = published_conversion(recipe, tmp_path / "converted" / recipe.name, cross_encoder_folder)
        running.put(str(recipe.onnx_repository), folder, COMMIT)
    for recipe in ENCODERS:
        folder = published(recipe, tmp_path / "published" / recipe.repository, cross_encoder_folder)
        running.put(recipe.repository, folder, COMMIT)
    yield running
    running.close()


@pytest.fixture
def run(hub, tmp_path):
    return partial(run_with, hub, tmp_path)


def fetched(run, hub, specs) -> dict[str, Path]:
    first, *others = specs
    done = run("-m", "rerank_plugins", "fetch", json.dumps({"use": first, "fallback": others}))
    assert done.returncode == 0, done.stderr
    paths = dict(line.split(": ", 1) for line in done.stdout.splitlines())
    hub.requests.clear()
    return {spec.partition(" [")[0]: Path(folder) for spec, folder in paths.items()}


@pytest.mark.slow  # several subprocesses, seconds each
def test_files_fetched_for_each_family(run, hub):
    folders = fetched(run, hub, map(spec_of, ENCODERS))
    small = {"config.json", "tokenizer.json", "tokenizer_config.json"}
    for recipe in ENCODERS:
        folder = folders[spec_of(recipe)]
        held = {each.relative_to(folder).as_posix() for each in folder.rglob("*") if each.is_file()}
        weights = recipe.onnx if recipe.engine == ONNX else "model.safetensors"
        zipped = {"special_tokens_map.json", ".unpacked.json"} if recipe.zipped else set()
        assert held == {*small, weights, *zipped}, spec_of(recipe)


@pytest.mark.slow  # several subprocesses
def test_models_with_onnx_files_run_offline_without_torch(run, hub):
    specs = [spec_of(recipe) for recipe in ENCODERS if recipe.engine == ONNX]
    fetched(run, hub, specs)
    done = run("-c", f"import sys; sys.modules['torch'] = None\n{OFFLINE}", json.dumps(specs), HF_HUB_OFFLINE="1")
    assert done.returncode == 0, done.stderr
    results = [json.loads(line) for line in done.stdout.splitlines()]
    assert results == [[spec, 2, f"{spec} [onnxruntime float32]"] for spec in specs]
    assert hub.requests == []


@pytest.mark.slow  # two subprocesses
def test_converted_onnx_files_run_offline_without_torch(run, hub):
    specs = [{"use": spec_of(recipe), "runtime": "onnxruntime"} for recipe in CONVERTED]
    done = run("-m", "rerank_plugins", "fetch", json.dumps(specs[0] | {"fallback": specs[1:]}))
    assert done.returncode == 0, done.stderr
    for recipe, line in zip(CONVERTED, done.stdout.splitlines(), strict=True):
        folder = Path(line.split(": ", 1)[1])
        held = {each.relative_to(folder).as_posix() for each in folder.rglob("*") if each.is_file()}
        assert held == {"config.json", "tokenizer.json", "tokenizer_config.json", *recipe.onnx_parts}
    hub.requests.clear()
    plain = [spec_of(recipe) for recipe in CONVERTED]
    blocked = "import sys\nfor name in ('torch', 'sentence_transformers'): sys.modules[name] = None\n"
    missing = "import importlib.util as u\nfind = u.find_spec\n"
    missing += "u.find_spec = lambda name, *more: None if name == 'sentence_transformers' else find(name, *more)\n"
    done = run("-c", f"{blocked}{missing}{OFFLINE}", json.dumps(plain), HF_HUB_OFFLINE="1")
    assert done.returncode == 0, done.stderr
    results = [json.loads(line) for line in done.stdout.splitlines()]
    assert results == [[spec, 2, f"{spec} [onnxruntime float32]"] for spec in plain]
    assert hub.requests == []


@pytest.mark.slow  # an interpreter that imports torch
def test_models_on_torch_run_offline(run, hub, tmp_path, cross_encoder_folder):
    modular = checkpoint(tmp_path / "modular", "modular")
    for recipe in ENCODERS:
        if recipe.family == "ettin":
            hub.put(recipe.repository, modular, COMMIT)
    specs = [spec_of(recipe) for recipe in ENCODERS if recipe.engine == TORCH]
    folders = fetched(run, hub, specs)
    assert list(folders["ettin:ettin-reranker-32m-v1"].glob("*_Dense/model.safetensors"))
    done = run("-c", OFFLINE, json.dumps(specs), HF_HUB_OFFLINE="1")
    assert done.returncode == 0, done.stderr
    results = [json.loads(line) for line in done.stdout.splitlines()]
    assert results == [[spec, 2, f"{spec} [torch float32]"] for spec in specs]
    assert hub.requests == []


@pytest.mark.slow  # two subprocesses
def test_late_interaction_models_run_offline_from_their_onnx_files(run, hub, tmp_path):
    published_as = {
        "answerdotai/answerai-colbert-small-v1": ("stanford", "vespa_colbert.onnx"),
        "lightonai/LateOn": ("pylate", "model.onnx"),
    }
    for repository, (layout, file) in published_as.items():
        folder = export(
            late_interaction(tmp_path / layout, layout), tmp_path / repository, projected=layout == "stanford"
        )
        (folder / "model.onnx").rename(folder / file)
        for name in BESIDE:
            (folder / name).write_text("not wanted", "utf-8")
        hub.put(repository, folder, COMMIT)
    specs = ["colbert:answerai-colbert-small-v1", "colbert:lightonai/LateOn"]
    folders = fetched(run, hub, specs)
    first, second = folders.values()
    assert {file.name for file in first.iterdir()} >= {"vespa_colbert.onnx", "artifact.metadata"}
    assert not (first / "model.safetensors").exists()
    assert (second / "2_Dense" / "model.safetensors").is_file()
    done = run("-c", f"import sys; sys.modules['torch'] = None\n{OFFLINE}", json.dumps(specs), HF_HUB_OFFLINE="1")
    assert done.returncode == 0, done.stderr
    results = [json.loads(line) for line in done.stdout.splitlines()]
    assert [(count, model.partition(" [")[2]) for _, count, model in results] == [(2, "onnxruntime float32]")] * 2
    assert hub.requests == []
