"""The tests pass on the newest Python of the machine, in a separate environment: it removes old APIs first."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from support.environments import ROOT, Environment

# Tests that need neither torch nor a package that is only for tests.
FILES = (
    *(
        "adapters",
        "contract",
        "evaluation",
        "policies",
        "serving/test_serve.py",
        "serving/test_serve_process.py",
        "vendors",
    ),
    *(
        "test_bad_day.py",
        "core/test_background_loop.py",
        "test_reranker.py",
        "config/test_spec.py",
        "core/test_tokens.py",
        "test_transport.py",
    ),
)
DESELECTED = (
    *("TestOnnx", "TestOpenVINO", "TestSentenceTransformers", "TestFamily", "TestFlashRank", "TestColBERT"),
    *("tokenizer", "above_the_limit", "forked", "interpreter_ends", "batch"),
    "test_preset_contract",  # the same code for each preset: three minutes for nothing new
)
NEWER = [f"3.{minor}" for minor in range(14, sys.version_info.minor, -1)]


def find_interpreter(version: str) -> str | None:
    """Return a Python of `version` that runs, from PATH or pyenv; pyenv's commands on PATH may be disabled."""
    candidates = [
        shutil.which(f"python{version}"),
        *sorted(Path.home().glob(f".pyenv/versions/{version}.*/bin/python")),
    ]
    for path in filter(None, candidates):
        done = subprocess.run([str(path), "--version"], capture_output=True, text=True, check=False)
        if done.stdout.startswith(f"Python {version}."):
            return str(path)
    return None


@pytest.mark.slow  # three minutes: an environment, and the tests that need no torch
def test_suite_passes_on_the_newest_python(tmp_path: Path, wheel: Path) -> None:
    newest = next(filter(None, map(find_interpreter, NEWER)), None)
    if newest is None:
        pytest.skip(f"no newer Python is on this machine: {', '.join(NEWER)}")
    environment = Environment(tmp_path, newest)
    environment.install(
        f"{wheel}[all,aws,calibration,cohere-aws,evaluation,google,serve]",
        "hypothesis>=6.100",
        "langchain-classic>=1.0",
    )
    environment.tests(
        *("-m", "not slow and not alone", "-k", " and ".join(f"not {name}" for name in DESELECTED)),
        *("--ignore", str(ROOT / "tests/adapters/test_langchain_retriever.py")),
        *(str(ROOT / "tests" / name) for name in FILES),
        more_than=3000,
    )
