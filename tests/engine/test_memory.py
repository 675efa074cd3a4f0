"""Memory of long calls is returned to the system; measured in a process of its own."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest
from support.models import cross_encoder

CALLS = """
import gc, json, sys
import psutil
from rerank_plugins import load_reranker

def resident():
    gc.collect()
    return psutil.Process().memory_info().rss

plain = "the tides work by the pull of the moon "
documents = [f"{number} {plain}" * (1 + number % 5) for number in range(1000)]
documents[500] = plain * 12_500
seen = []
with load_reranker(json.loads(sys.argv[1])) as reranker:
    for call in range(11):
        response = reranker.rerank("how do the tides work", documents, top_n=1000)
        assert sorted(each.index for each in response) == list(range(1000))
        raw = [each.raw_score for each in response]
        assert raw == sorted(raw, reverse=True)
        (long,) = [each for each in response if each.index == 500]
        assert long.truncated and not all(each.truncated for each in response)
        seen.append(resident())
print(json.dumps(seen))
"""


@pytest.mark.slow
@pytest.mark.parametrize(
    "spec",
    [
        {"use": "onnx:{folder}"},
        pytest.param({"use": "onnx:{folder}", "runtime": "openvino"}, marks=pytest.mark.slow),
        pytest.param({"use": "sentence-transformers:{folder}", "device": "cpu"}, marks=pytest.mark.slow),
        pytest.param({"use": "embedded"}, marks=pytest.mark.slow),
    ],
    ids=["onnxruntime", "openvino", "torch", "embedded"],
)
def test_memory_does_not_grow_over_ten_calls(spec, cross_encoder_folder):
    """1,000 documents, one of 100,000 tokens: scored in order, truncation reported, memory grows by at most a tenth."""
    filled = json.dumps(spec).replace("{folder}", str(cross_encoder_folder))
    ran = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", CALLS, filled], capture_output=True, text=True, check=False
    )
    assert ran.returncode == 0, ran.stderr[-2000:]
    first, *others = json.loads(ran.stdout.splitlines()[-1])
    assert others[-1] <= 1.1 * first


SHAPES = """
import json, random, sys
import psutil
from rerank_plugins import load_reranker

chance, seen = random.Random(0), []
with load_reranker({"use": f"onnx:{sys.argv[1]}", "dtype": "bfloat16"}) as reranker:
    for call in range(24):
        documents = ["tide " * chance.randrange(20, 500) for _ in range(50)]
        reranker.rerank("how do the tides work", documents)
        seen.append(psutil.Process().memory_info().rss / 2**20)
print(json.dumps(seen))
"""


@pytest.mark.slow
def test_memory_does_not_grow_with_new_input_lengths(tmp_path):
    """OpenVINO generates code for each input shape, and its cache of that code stays small."""
    folder = cross_encoder(tmp_path, longest=512, hidden=384)
    command = [sys.executable, "-W", "ignore", "-c", SHAPES, str(folder)]
    ran = subprocess.run(command, capture_output=True, text=True, check=False)
    assert ran.returncode == 0, ran.stderr[-2000:]
    seen = json.loads(ran.stdout.splitlines()[-1])
    assert seen[-1] - seen[11] < 24.0, seen  # megabytes in the second half; 35 if all generated code is cached
