"""Environments of their own, for other versions of packages or of Python than the tests run on."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
TOOLS = ("pytest>=8.3", "pytest-asyncio>=0.25", "psutil>=6")


@pytest.fixture(scope="session")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Build the package once for all environments: from its folder, pip would fetch hatchling and build for each."""
    folder = tmp_path_factory.mktemp("wheel")
    command = [sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", str(folder), str(ROOT)]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=300)
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-4000:]
    (made,) = folder.glob("*.whl")
    return made


class Environment:
    """A new one, with nothing in it but pip."""

    def __init__(self, home: Path, interpreter: str = sys.executable) -> None:
        subprocess.run([interpreter, "-m", "venv", str(home)], check=True)
        self.python = str(home / ("Scripts" if os.name == "nt" else "bin") / "python")

    def run(self, *arguments: str) -> str:
        """Run a module, in the repository's folder; what it printed is told where it fails."""
        variables = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
        done = subprocess.run(
            [self.python, "-m", *arguments], capture_output=True, text=True, check=False, cwd=ROOT, env=variables
        )
        assert done.returncode == 0, done.stdout[-8000:] + done.stderr[-4000:]
        return done.stdout

    def install(self, *packages: str) -> list[str]:
        """Bring packages and what tests need, and return all that is there then, each as `name==version`."""
        self.run("pip", "--disable-pip-version-check", "install", "--quiet", *packages, *TOOLS)
        return self.run("pip", "list", "--format=freeze").lower().split()

    def tests(self, *arguments: str, more_than: int) -> str:
        """Run tests of this repository with what is installed, more than so many, and return the last line."""
        told = self.run("pytest", "-q", "-p", "no:cacheprovider", "-o", "addopts=", *arguments)
        summary = told.strip().splitlines()[-1]
        passed = re.search(r"(\d+) passed", summary)
        assert passed, told[-8000:]
        assert int(passed[1]) > more_than, told[-8000:]
        return summary
