"""The newest Python on the machine, in an environment of its own: what it lets go of is found before a user finds it."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from environments import ROOT, Environment

# What needs neither torch nor a package that is only for tests.
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
    *("test_bad_day.py", "test_loop.py", "test_reranker.py", "test_spec.py", "test_tokens.py", "test_transport.py"),
)
OTHERS = (
    *("TestOnnx", "TestOpenVINO", "TestSentenceTransformers", "TestFamily", "TestFlashRank"),
    *("tokenizer", "at_the_limit", "forked", "interpreter_ends", "batch"),
)
NEWER = [f"3.{minor}" for minor in range(14, sys.version_info.minor, -1)]


def interpreter(version: str) -> str | None:
    """Return one on the path, or of pyenv, that runs: pyenv's own commands on the path may be switched off."""
    known = [shutil.which(f"python{version}"), *sorted(Path.home().glob(f".pyenv/versions/{version}.*/bin/python"))]
    for each in filter(None, known):
        told = subprocess.run([str(each), "--version"], capture_output=True, text=True, check=False)
        if told.stdout.startswith(f"Python {version}."):
            return str(each)
    return None


@pytest.mark.slow  # three minutes: an environment, and the tests that need no torch
def test_the_newest_python_that_is_here(tmp_path: Path, wheel: Path) -> None:
    here = next(filter(None, map(interpreter, NEWER)), None)
    if here is None:
        pytest.skip(f"no newer Python is on this machine: {', '.join(NEWER)}")
    environment = Environment(tmp_path, here)
    environment.install(
        f"{wheel}[all,calibration,cohere-aws,evaluation,serve]", "hypothesis>=6.100", "langchain-classic>=1.0"
    )
    environment.tests(
        *("-m", "not slow and not alone", "-k", " and ".join(f"not {each}" for each in OTHERS)),
        *("--ignore", str(ROOT / "tests/adapters/test_langchain_retriever.py")),
        *(str(ROOT / "tests" / name) for name in FILES),
        more_than=3000,
    )
