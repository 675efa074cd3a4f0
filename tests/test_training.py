"""The scripts of `training/`, from sources to a model, with a few texts and steps."""

from __future__ import annotations

import gzip
import importlib
import json
import os
import pydoc_data.topics
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest

ROOT = Path(__file__).parent.parent
MODEL = ROOT / "rerank_plugins" / "backends" / "embedded_model" / "model.onnx"


def write_sources(folder: Path) -> None:
    """Write two sources from Python's own manual. The query of a passage consists of words of the passage."""
    words = " ".join(text for _, text in sorted(pydoc_data.topics.topics.items())).split()
    for number, name in enumerate(("squad", "manual")):
        passages, queries = [], []
        for pid in range(90):
            first = (number * 90 + pid) * 20
            passages.append({"pid": pid, "title": "", "text": " ".join(words[first : first + 20])})
            words_of_passage = " ".join(words[first + 7 : first + 15])
            queries.append({"qid": pid, "query": f"what is {words_of_passage}", "pos": [pid], "ignore": [], "neg": []})
        for kind, rows in (("passages", passages), ("queries", queries)):
            with gzip.open(folder / f"{name}.{kind}.jsonl.gz", "wt", encoding="utf-8") as file:
                file.writelines(json.dumps(row) + "\n" for row in rows)


@pytest.fixture
def depth_script(monkeypatch: pytest.MonkeyPatch) -> Iterator[ModuleType]:
    """Import `training/depth.py`, and forget its modules afterwards: their names are common."""
    monkeypatch.syspath_prepend(ROOT / "training")
    before = set(sys.modules)
    yield importlib.import_module("depth")
    for name in ("depth", "features", "fit", "collection"):
        if name not in before:
            sys.modules.pop(name, None)


def test_depth_script_knows_what_reading_one_more_document_adds(depth_script: ModuleType) -> None:
    added = 0.5 / np.log2(3)  # the third document becomes the second one of the first two
    gains = np.array([1.0, 0.0, 0.5, 0.0])
    assert depth_script.marginal_gains(gains, 2, 2) == pytest.approx([added / (1 + added), 0.0])
    rows = np.array([[1.0, value] for value in np.linspace(-3, 3, 200)])
    shares = 1 / (1 + np.exp(-(rows @ [0.5, -2.0])))
    assert depth_script.fit_weights(rows, shares) == pytest.approx([0.5, -2.0], abs=0.01)
    order = depth_script.policy_order(np.array([2, 0, 1, 3]), np.array([0.1, 9.0, 0.2, 8.0]), 3)
    assert order.tolist() == [1, 2, 0, 3]


def test_depth_script_fits_and_shows_the_scores_that_it_wrote(
    depth_script: ModuleType, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = " ".join(text for _, text in sorted(pydoc_data.topics.topics.items())).split()
    documents = [" ".join(words[first : first + 15]) for first in range(0, 12 * 300, 300)]
    queries = [
        depth_script.JudgedQuery(f"made/{at}", documents[at], documents, [int(at == place) for place in range(12)], [1])
        for at in range(4)
    ]
    file = tmp_path / "depth.jsonl"
    depth_script.write_scores(file, queries[:2])
    first = file.read_text("utf-8")
    depth_script.write_scores(file, queries)  # goes on where it was stopped
    assert file.read_text("utf-8").startswith(first)
    scored = depth_script.read_scores(file)
    assert [item.judged.name for item in scored] == [query.name for query in queries]
    everything = depth_script.show(scored, "combined", depth_script.Depth(10, 0.0, 3))
    assert everything[:, 0].tolist() == [1.0] * 4  # all documents are read
    assert everything[:, 1] == pytest.approx([0.0] * 4)
    assert everything[:, 2].tolist() == everything[:, 3].tolist() == [1.0] * 4
    few = depth_script.show(scored, "combined", depth_script.Depth(10, 1.0, 3))
    assert few[:, 0] == pytest.approx([depth_script.depth_model.FIRST / 12] * 4)
    weights = depth_script.fit(scored, depth_script.FITTED)
    assert len(weights) == len(depth_script.depth_model.WEIGHTS)
    assert np.isfinite(weights).all()
    assert "by estimate and in truth" in capsys.readouterr().out


DISTIL_TWICE = """
import pathlib, sys
sys.path.insert(0, "training")
import distill
work, outs = sys.argv[1], [f"{sys.argv[1]}/{name}" for name in ("whole", "resumed")]
for out, until in zip((outs[0], outs[1], outs[1]), (2, 1, 2)):
    sys.argv = ["distill.py", work, "--steps", "2", "--until", str(until), "--threads", "1", "--out", out]
    distill.main()
"""


def test_passages_of_a_source_are_joined_as_the_package_joins_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    passages = [{"pid": 1, "title": "Bees", "text": "make honey."}, {"pid": 2, "title": None, "text": "A bank."}]
    for kind, rows in (("passages", passages), ("queries", [])):
        with gzip.open(tmp_path / f"bees.{kind}.jsonl.gz", "wt", encoding="utf-8") as file:
            file.writelines(json.dumps(row) + "\n" for row in rows)
    monkeypatch.syspath_prepend(ROOT / "training")
    try:
        sources = importlib.import_module("sources")
        assert sources.read_source(tmp_path, "bees").passages == ["Bees make honey.", "A bank."]
    finally:
        sys.modules.pop("sources", None)


@pytest.mark.slow  # a minute and a half: runs every script once on the CPU
def test_training_scripts_make_a_model_from_sources(tmp_path: Path) -> None:
    write_sources(tmp_path)
    environment = os.environ | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}

    def run_script(script: str, *arguments: object) -> str:
        file = script if script == "-c" else ROOT / "training" / script
        command = [sys.executable, str(file), *map(str, arguments)]
        done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=ROOT, env=environment)
        assert done.returncode == 0, done.stdout[-4000:] + done.stderr[-4000:]
        return done.stdout

    work = tmp_path / "work"
    work.mkdir()
    run_script("mine.py", tmp_path, work)
    run_script("background.py", tmp_path, work)
    run_script("make_embedded.py", work / "untrained", "--float")
    features = ("--model", work / "untrained" / "float.onnx", "--dtype", "float32")
    run_script("features.py", work, "fit", "dev", *features)

    steps = ("--look-every", 2, "--save-every", 2, "--out", work / "trained")
    assert "'step': 2" in run_script("train.py", work, "--steps", 4, "--until", 2, *steps)
    output = run_script("train.py", work, "--steps", 4, *steps)
    assert "resuming at step 2" in output
    assert "'step': 4" in output
    run_script(
        "train.py",
        work,
        "--steps",
        1,
        "--taught",
        "--begin",
        work / "trained" / "step-2.safetensors",
        "--out",
        work / "taught",
    )
    curve = json.loads((work / "trained" / "curve.json").read_text("utf-8"))
    assert [point["step"] for point in curve] == [0, 2, 4]
    assert curve[-1]["loss"] < 5
    run_script("blend.py", work / "trained" / "step-4.safetensors", 0.4, work / "blend.safetensors")

    # A run that stopped and resumed makes the same weights as one that did not.
    run_script("-c", DISTIL_TWICE, work)
    for name in ("step-2.safetensors", "latest.safetensors"):
        assert (work / "resumed" / name).read_bytes() == (work / "whole" / name).read_bytes()
    halves = json.loads((work / "resumed" / "curve.json").read_text("utf-8"))
    assert [point["step"] for point in halves] == [0, 1, 2]
    assert 0 < halves[-1]["tokens"] < 1
    run_script("make_embedded.py", work / "half", "--weights", work / "resumed" / "step-2.safetensors", "--float")
    for name, model in (("half", work / "half" / "float.onnx"), ("embedded", MODEL)):
        run_script("features.py", work, "dev", "--model", model, "--name", name, "--dtype", "float32")
    assert "mean of the sets" in run_script("compare.py", work, "half", "dev")

    assert "best window" in run_script("long_documents.py", tmp_path, "--queries", 2)

    run_script("train_fast.py", work, "--steps", 20, "--look-every", 10)
    table = np.load(work / "fast.npy")
    assert (table.dtype, table.shape) == (np.int8, (30522, 128))
    run_script("fit.py", work, "untrained", "embedded")
    run_script("fit.py", work, "table", "fast", "--table", work / "fast.npy")
    fitted = json.loads((work / "score.json").read_text("utf-8"))
    assert fitted["embedded"]["divisor"] > 0
    assert fitted["fast"]["divisor"] > 0
    run_script("make_embedded.py", work / "shipped", "--weights", work / "blend.safetensors")
    assert (work / "shipped" / "model.onnx").stat().st_size < 25_000_000
