"""The public surface has the types that DESIGN.md promises, seen from a program of somebody else."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

import rerank_plugins

HERE = Path(__file__).parent


@pytest.mark.slow  # mypy reads the package and pydantic
def test_the_public_surface_under_mypy_strict():
    """With the cache that `make lint` has filled: cold, mypy reads the host frameworks for a minute. Unused ignores fail too."""
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


def test_the_package_says_that_it_is_typed():
    assert (Path(rerank_plugins.__file__).parent / "py.typed").is_file()
