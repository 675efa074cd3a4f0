"""`training/` from sources to a model, with a few texts and steps."""

from __future__ import annotations

import gzip
import json
import os
import pydoc_data.topics
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

ROOT = Path(__file__).parent.parent


def sources(folder: Path) -> None:
    """Write two sources out of Python's own manual: a passage's own words ask for it."""
    words = " ".join(text for _, text in sorted(pydoc_data.topics.topics.items())).split()
    for number, name in enumerate(("squad", "manual")):
        passages, queries = [], []
        for pid in range(90):
            first = (number * 90 + pid) * 45
            passages.append({"pid": pid, "title": "", "text": " ".join(words[first : first + 45])})
            asked = " ".join(words[first + 7 : first + 15])
            queries.append({"qid": pid, "query": f"what is {asked}", "pos": [pid], "ignore": [], "neg": []})
        for kind, rows in (("passages", passages), ("queries", queries)):
            with gzip.open(folder / f"{name}.{kind}.jsonl.gz", "wt", encoding="utf-8") as file:
                file.writelines(json.dumps(row) + "\n" for row in rows)


@pytest.mark.slow  # a minute and a half: every script once, on a processor
def test_the_recipe_runs_from_sources_to_a_file(tmp_path: Path) -> None:
    sources(tmp_path)
    environment = os.environ | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}

    def run(script: str, *arguments: object) -> str:
        command = [sys.executable, str(ROOT / "training" / script), *map(str, arguments)]
        done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=ROOT, env=environment)
        assert done.returncode == 0, done.stdout[-4000:] + done.stderr[-4000:]
        return done.stdout

    work = tmp_path / "work"
    work.mkdir()
    run("mine.py", tmp_path, work)
    run("background.py", tmp_path, work)
    run("make_embedded.py", work / "untrained", "--float")
    features = ("--model", work / "untrained" / "float.onnx", "--dtype", "float32")
    run("features.py", work, "fit", "dev", *features)

    steps = ("--look-every", 2, "--save-every", 2, "--out", work / "trained")
    assert "'step': 2" in run("train.py", work, "--steps", 4, "--until", 2, *steps)
    told = run("train.py", work, "--steps", 4, *steps)
    assert "going on at step 2" in told
    assert "'step': 4" in told
    run(
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
    run("blend.py", work / "trained" / "step-4.safetensors", 0.4, work / "blend.safetensors")

    run("train_fast.py", work, "--steps", 20, "--look-every", 10)
    table = np.load(work / "fast.npy")
    assert (table.dtype, table.shape) == (np.int8, (30522, 128))
    run("fit.py", work, "untrained", "embedded")
    run("fit.py", work, "table", "fast", "--table", work / "fast.npy")
    fitted = json.loads((work / "score.json").read_text("utf-8"))
    assert fitted["embedded"]["divisor"] > 0
    assert fitted["fast"]["divisor"] > 0
    run("make_embedded.py", work / "shipped", "--weights", work / "blend.safetensors")
    assert (work / "shipped" / "model.onnx").stat().st_size < 25_000_000
