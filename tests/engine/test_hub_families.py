"""Every encoder by its name: what is taken of a repository laid out as its maker's, and that it then runs offline."""

from __future__ import annotations

import json
import shutil
from functools import partial
from pathlib import Path

import pytest
from checkpoints import checkpoint
from hub import Hub, run_with
from zipped import zip_of

from rerank_plugins.backends.recipes import MODELS, ONNX, TORCH, Recipe

COMMIT = "a" * 40
ENCODERS = [recipe for recipe in MODELS if recipe.engine in (ONNX, TORCH)]
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
    """Lay a tiny model out as a repository of the hub."""
    folder.mkdir(parents=True, exist_ok=True)
    if recipe.zipped:
        zip_of(tiny, folder / f"{recipe.name}.zip", recipe.name, str(recipe.onnx))
        return folder
    for name in ("config.json", "tokenizer.json", "tokenizer_config.json"):
        shutil.copy(tiny / name, folder)
    if recipe.native:
        shutil.copy(tiny / "model.safetensors", folder)
    if recipe.onnx:
        (folder / recipe.onnx).parent.mkdir(exist_ok=True)
        for name in (recipe.onnx, "onnx/model_quantized.onnx", "onnx/model_O3.onnx"):
            shutil.copy(tiny / "model.onnx", folder / name)
    for name in BESIDE:
        (folder / name).write_text("not wanted", "utf-8")
    return folder


@pytest.fixture
def hub(tmp_path, cross_encoder_folder):
    running = Hub()
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
    told = dict(line.split(": ", 1) for line in done.stdout.splitlines())
    hub.asked.clear()
    return {spec.partition(" [")[0]: Path(folder) for spec, folder in told.items()}


@pytest.mark.slow  # several processes of their own, seconds each
def test_what_is_taken_of_each_repository(run, hub):
    found = fetched(run, hub, map(spec_of, ENCODERS))
    small = {"config.json", "tokenizer.json", "tokenizer_config.json"}
    for recipe in ENCODERS:
        folder = found[spec_of(recipe)]
        held = {each.relative_to(folder).as_posix() for each in folder.rglob("*") if each.is_file()}
        weights = recipe.onnx if recipe.engine == ONNX else "model.safetensors"
        zipped = {"special_tokens_map.json", ".unpacked.json"} if recipe.zipped else set()
        assert held == {*small, weights, *zipped}, spec_of(recipe)


@pytest.mark.slow  # several processes of their own
def test_what_has_an_onnx_file_runs_offline_without_torch(run, hub):
    specs = [spec_of(recipe) for recipe in ENCODERS if recipe.engine == ONNX]
    fetched(run, hub, specs)
    done = run("-c", f"import sys; sys.modules['torch'] = None\n{OFFLINE}", json.dumps(specs), HF_HUB_OFFLINE="1")
    assert done.returncode == 0, done.stderr
    told = [json.loads(line) for line in done.stdout.splitlines()]
    assert told == [[spec, 2, f"{spec} [onnxruntime float32]"] for spec in specs]
    assert hub.asked == []


@pytest.mark.slow  # an interpreter that imports torch
def test_what_runs_on_torch_runs_offline(run, hub, tmp_path, cross_encoder_folder):
    modular = checkpoint(tmp_path / "modular", "modular")
    for recipe in ENCODERS:
        if recipe.family == "ettin":
            hub.put(recipe.repository, modular, COMMIT)
    specs = [spec_of(recipe) for recipe in ENCODERS if recipe.engine == TORCH]
    found = fetched(run, hub, specs)
    assert list(found["ettin:ettin-reranker-32m-v1"].glob("*_Dense/model.safetensors"))
    done = run("-c", OFFLINE, json.dumps(specs), HF_HUB_OFFLINE="1")
    assert done.returncode == 0, done.stderr
    told = [json.loads(line) for line in done.stdout.splitlines()]
    assert told == [[spec, 2, f"{spec} [torch float32]"] for spec in specs]
    assert hub.asked == []
