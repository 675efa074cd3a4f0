"""The lower bounds in pyproject.toml are versions that work: all of them at once, in an environment of their own."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import tomllib
import venv
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
# What needs no torch to make a model, no vendor's SDK and no installed script; langchain-tests wants a newer httpx.
FILES = ["adapters", "contract", "test_reranker.py", "test_tokens.py", "test_transport.py", "test_bad_day.py"]
CHOSEN = " and ".join(
    f"not Test{name}"
    for name in ("Onnx", "OpenVINO", "SentenceTransformers", "Family", "FlashRank", "Cohere", "Voyage")
)


def oldest() -> list[str]:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]
    extras = project["optional-dependencies"]
    wanted = [*project["dependencies"], *extras["langchain"], *extras["llama-index"]]
    assert all(">=" in each for each in wanted)
    return [each.replace(">=", "==") for each in wanted]


@pytest.mark.slow  # two minutes: an environment, and the tests of adapters, contract and core in it
@pytest.mark.skipif(sys.version_info >= (3, 13), reason="numpy 1.26 is for Python below 3.13")
def test_the_oldest_versions_of_everything_work_together(tmp_path: Path) -> None:
    venv.create(tmp_path, with_pip=True)
    python = str(tmp_path / ("Scripts" if os.name == "nt" else "bin") / "python")

    def run(*arguments: str) -> str:
        environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
        done = subprocess.run(
            [python, "-m", *arguments], capture_output=True, text=True, check=False, cwd=ROOT, env=environment
        )
        assert done.returncode == 0, done.stdout[-8000:] + done.stderr[-4000:]
        return done.stdout

    tools = ("pytest>=8.3", "pytest-asyncio>=0.25", "psutil>=6", "hypothesis>=6.100", "langchain-classic>=1.0")
    run("pip", "--disable-pip-version-check", "install", "--quiet", str(ROOT), *oldest(), *tools)
    installed = run("pip", "list", "--format=freeze").lower()
    for each in oldest():
        assert re.search(rf"^{re.escape(each)}(\.0)*$", installed, re.MULTILINE), each
    told = run(
        *("pytest", "-q", "-p", "no:cacheprovider", "-o", "addopts=", "-m", "not slow", "-k", CHOSEN),
        *("--ignore", str(ROOT / "tests/adapters/test_langchain_retriever.py")),
        *(str(ROOT / "tests" / name) for name in FILES),
    )
    passed = re.search(r"(\d+) passed", told.strip().splitlines()[-1])
    assert passed, told[-2000:]
    assert int(passed[1]) > 1000
