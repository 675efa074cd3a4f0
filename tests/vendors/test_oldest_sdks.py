"""Older SDKs, in an environment of their own: langchain-cohere pins cohere<6, LlamaIndex's Voyage package voyageai<0.4."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import venv
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
HERE = Path(__file__).parent
FILES = [str(HERE / f"test_{name}.py") for name in ("contract", "sdks", "wire", "options")]

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(sys.version_info >= (3, 13), reason="voyageai 0.3.1 is for Python below 3.13"),
]


def run(python: str, *arguments: str) -> str:
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    done = subprocess.run(
        [python, "-m", *arguments], capture_output=True, text=True, check=False, cwd=ROOT, env=environment
    )
    assert done.returncode == 0, done.stdout[-8000:] + done.stderr[-4000:]
    return done.stdout


@pytest.fixture(scope="module")
def python(tmp_path_factory: pytest.TempPathFactory) -> str:
    home = tmp_path_factory.mktemp("environment")
    venv.create(home, with_pip=True)
    return str(home / ("Scripts" if os.name == "nt" else "bin") / "python")


@pytest.mark.parametrize(
    "versions",
    [
        ("cohere==5.13.0", "voyageai==0.3.1"),
        ("cohere==5.21.1", "voyageai==0.3.7"),
        ("cohere==6.1.0", "voyageai==0.4.1"),
    ],
    ids=" ".join,
)
def test_the_contract_holds_with_older_sdks(versions: tuple[str, ...], python: str) -> None:
    tools = ("pytest>=8.3", "pytest-asyncio>=0.25", "psutil>=6", "onnx>=1.17")
    run(python, "pip", "--disable-pip-version-check", "install", "--quiet", f"{ROOT}[cohere,voyage]", *versions, *tools)
    assert set(versions) <= set(run(python, "pip", "list", "--format=freeze").split())
    told = run(
        python,
        *("pytest", "-q", "-p", "no:cacheprovider", "-o", "addopts="),
        *("-k", "TestCohere or TestVoyage or test_sdks or test_wire or test_options"),
        *FILES,
    )
    summary = told.strip().splitlines()[-1]
    passed = re.search(r"(\d+) passed", summary)
    assert passed, summary
    assert int(passed[1]) > 600, summary
    assert "skipped" not in summary, told[-8000:]
