"""The types of the public API, checked in a program that uses it: tests/typing/api.py."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

import rerank_plugins

HERE = Path(__file__).parent


@pytest.mark.slow  # mypy reads the package and pydantic
def test_public_api_passes_mypy_strict():
    """Uses the cache of `make lint`; without it, mypy needs a minute. Unused ignores fail too."""
    done = subprocess.run(
        [sys.executable, "-m", "mypy", "--strict", "--no-error-summary", "tests/typing/api.py"],
        cwd=HERE.parent,
        capture_output=True,
        text=True,
        check=False,
        timeout=300,
    )
    assert done.stdout + done.stderr == ""
    assert done.returncode == 0


@pytest.mark.slow  # pyright reads the host frameworks
def test_public_api_passes_pyright(tmp_path):
    project = tmp_path / "pyrightconfig.json"
    root = str(HERE.parent)
    project.write_text(
        json.dumps({"include": [str(HERE / "typing")], "extraPaths": [root], "typeCheckingMode": "standard"}), "utf-8"
    )
    done = subprocess.run(
        [sys.executable, "-m", "basedpyright", "-p", project, "--pythonpath", sys.executable],
        capture_output=True,
        text=True,
        check=False,
        timeout=300,
    )
    assert "0 errors" in done.stdout, done.stdout + done.stderr


def test_package_has_py_typed():
    assert (Path(rerank_plugins.__file__).parent / "py.typed").is_file()
