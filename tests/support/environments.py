"""Separate virtual environments, for other versions of packages or of Python than those of the tests."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
TOOLS = ("pytest>=8.3", "pytest-asyncio>=0.25", "psutil>=6")


@pytest.fixture(scope="session")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Build the package once for all environments: from the folder, pip would download hatchling and build it again."""
    folder = tmp_path_factory.mktemp("wheel")
    command = [sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", str(folder), str(ROOT)]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=300)
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-4000:]
    (file,) = folder.glob("*.whl")
    return file


class Environment:
    """A new virtual environment that contains only pip."""

    def __init__(self, home: Path, interpreter: str = sys.executable) -> None:
        subprocess.run([interpreter, "-m", "venv", str(home)], check=True)
        self.python = str(home / ("Scripts" if os.name == "nt" else "bin") / "python")

    def run(self, *arguments: str) -> str:
        """Run a module in the folder of the repository and return its stdout; a failure shows the output."""
        variables = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
        done = subprocess.run(
            [self.python, "-m", *arguments], capture_output=True, text=True, check=False, cwd=ROOT, env=variables
        )
        assert done.returncode == 0, done.stdout[-8000:] + done.stderr[-4000:]
        return done.stdout

    def install(self, *packages: str) -> list[str]:
        """Install packages and the tools of the tests, and return all installed packages as `name==version`."""
        self.run("pip", "--disable-pip-version-check", "install", "--quiet", *packages, *TOOLS)
        return self.run("pip", "list", "--format=freeze").lower().split()

    def tests(self, *arguments: str, more_than: int) -> str:
        """Run tests of this repository in the environment and return the last line; `more_than` of them must pass."""
        output = self.run("pytest", "-q", "-p", "no:cacheprovider", "-o", "addopts=", *arguments)
        summary = output.strip().splitlines()[-1]
        passed = re.search(r"(\d+) passed", summary)
        assert passed, output[-8000:]
        assert int(passed[1]) > more_than, output[-8000:]
        return summary
