"""Cached scores of one commit of a model are never used for another commit."""

from __future__ import annotations

import json
import shutil
from functools import partial
from pathlib import Path

import pytest
from support.hub import Hub, run_with

FIRST, SECOND = "a" * 40, "b" * 40
RERANKED = """
import json, sys
from rerank_plugins import load_reranker
with load_reranker({"use": "onnx:acme/tiny", "cache": {"kind": "disk", "path": sys.argv[1]}}) as reranker:
    documents = ["Bananas are yellow.", "The moon raises the tides.", "A clock."]
    response = reranker.rerank("how do the tides work", documents)
    scores = {result.index: result.raw_score for result in response}
    print(json.dumps([[scores[index] for index in range(3)], [each.outcome for each in response.attempts]]))
"""
COMPARED = """
import sys
from rerank_plugins.evaluation import Dataset, Question, compare
from rerank_plugins.evaluation.data import Candidate
texts = ["Bananas are yellow.", "The moon raises the tides.", "A clock."]
question = Question("1", "how do the tides work", tuple(Candidate(str(at), text) for at, text in enumerate(texts)))
(row,) = compare(Dataset.of("made", [question], {"1": {"1": 1}}), ["onnx:acme/tiny"], answer_cache=sys.argv[1]).rows
print(row.p50_ms)
"""


pytestmark = pytest.mark.slow  # nearly all start subprocesses


@pytest.fixture
def hub(cross_encoder_folder, tmp_path):
    running = Hub()
    running.put("acme/tiny", shutil.copytree(cross_encoder_folder, tmp_path / "first"), FIRST)
    yield running
    running.close()


@pytest.fixture
def run(hub, tmp_path):
    return partial(run_with, hub, tmp_path, "-c")


def move(hub: Hub, tmp_path: Path) -> None:
    """Move `main` to another commit, and delete the record, as the error advises."""
    import onnx
    from onnx import numpy_helper

    folder = shutil.copytree(tmp_path / "first", tmp_path / "second")
    model = onnx.load(folder / "model.onnx")
    for tensor in model.graph.initializer:
        if tensor.data_type == onnx.TensorProto.FLOAT:
            values = numpy_helper.to_array(tensor)
            tensor.CopyFrom(numpy_helper.from_array(values[::-1].copy() if values.ndim else values, tensor.name))
    onnx.save(model, folder / "model.onnx")
    hub.put("acme/tiny", folder, SECOND)
    shutil.rmtree(tmp_path / "cache" / "rerank_plugins" / "models")
    shutil.rmtree(tmp_path / "hf")


def test_disk_cache_separates_commits(hub, run, tmp_path):
    scores = tmp_path / "scores.sqlite3"

    def scores_and_requests() -> tuple[list[float], list[str]]:
        done = run(RERANKED, str(scores))
        assert done.returncode == 0, done.stderr
        values, outcomes = json.loads(done.stdout)
        return values, outcomes

    first, outcomes = scores_and_requests()
    assert "cached" not in outcomes
    assert scores_and_requests() == (first, ["cached"])
    shutil.rmtree(tmp_path / "hf")
    assert scores_and_requests() == (first, ["cached"]), "the same commit, fetched again, is the same model"
    move(hub, tmp_path)
    second, outcomes = scores_and_requests()
    assert "cached" not in outcomes
    assert second != pytest.approx(first, abs=1e-3)


def test_answer_cache_of_compare_separates_commits(hub, run, tmp_path):
    def latency() -> str:
        done = run(COMPARED, str(tmp_path / "answers.sqlite3"))
        assert done.returncode == 0, done.stderr
        return done.stdout

    first = latency()
    assert latency() == first, "answered from the cache"
    move(hub, tmp_path)
    assert latency() != first
