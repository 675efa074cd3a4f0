"""Every engine logs the load of a model: its name, the time, the runtime, the dtype and the device."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

CODE = """
import json, logging, sys
from rerank_plugins import load_reranker

class Keep(logging.Handler):
    def emit(self, record):
        kept.append((record.levelname, record.getMessage()))

kept = []
log = logging.getLogger("rerank_plugins")
log.setLevel(logging.INFO)
log.addHandler(Keep())
with load_reranker(json.loads(sys.argv[1])) as reranker:
    for _ in range(2):
        reranker.rerank("a private query", ["a private document", "another"])
print(json.dumps(kept))
"""


@pytest.mark.parametrize(
    ("spec", "loaded", "settings"),
    [
        ("embedded", "embedded_model", "onnxruntime, float32, cpu"),
        ("embedded:fast", "fast.npy", "numpy, float32, cpu"),
        ("onnx:{folder}", "{folder}", "onnxruntime, float32, cpu"),
        ({"use": "onnx:{folder}", "runtime": "openvino"}, "{folder}", "openvino, float32, cpu"),
        pytest.param(
            *({"use": "sentence-transformers:{folder}", "device": "cpu"}, "{folder}", "torch, float32, cpu"),
            marks=pytest.mark.slow,  # it imports torch and its packages
        ),
    ],
    ids=["embedded", "embedded:fast", "onnx", "openvino", "torch"],
)
def test_each_engine_logs_its_load_once(spec, loaded: str, settings: str, cross_encoder_folder: Path) -> None:
    folder = str(cross_encoder_folder)
    argument = json.dumps(spec).replace("{folder}", folder)
    # In a subprocess, because models of this process may be loaded and shared already.
    done = subprocess.run(
        [sys.executable, "-c", CODE, argument], capture_output=True, text=True, env=os.environ, check=False
    )
    assert done.returncode == 0, done.stderr
    lines = json.loads(done.stdout.splitlines()[-1])
    ((level, message),) = [each for each in lines if each[1].startswith("Loaded ")]
    assert level == "INFO"
    shown = re.escape(loaded.replace("{folder}", folder))
    assert re.fullmatch(rf"Loaded \S*{shown} in \d+\.\d\d s \({settings}\)", message)
    assert "private" not in done.stdout
