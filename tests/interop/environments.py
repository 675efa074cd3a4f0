"""An environment for each server and family of clients, under `.interop/`: their packages contradict each other."""

from __future__ import annotations

import contextlib
import json
import os
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

__all__ = ["HOME", "Environment", "InstallFailed", "installed"]

ROOT = Path(__file__).parents[2]
HOME = ROOT / ".interop"
CONSTRAINTS = Path(__file__).with_name("constraints.txt")


class InstallFailed(Exception):
    """A package cannot be installed here; the text is the installer's reason."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Environment:
    """What to install, and where."""

    name: str
    requirements: tuple[str, ...] = ()
    """Installed in one call."""
    overrides: tuple[str, ...] = ()
    """Requirements that replace those of the same packages, whoever asks for them."""
    variables: Mapping[str, str] = field(default_factory=dict)
    """For a package that is built here."""
    finish: Callable[[Path], None] | None = None
    """Called with the environment's folder after the installation."""
    npm: tuple[str, ...] = ()
    """For npm; then there is no Python in the environment."""

    @property
    def folder(self) -> Path:
        """The folder of the environment."""
        return HOME / "environments" / self.name

    @property
    def python(self) -> str:
        """The interpreter of the environment."""
        return str(self.folder / "bin" / "python")

    def program(self, name: str) -> str:
        """Return the path of a program that a package installed."""
        return str(self.folder / "bin" / name)

    def version(self, package: str) -> str:
        """Return the version of an installed package."""
        if self.npm:
            text = (self.folder / "node_modules" / package / "package.json").read_text("utf-8")
            return str(json.loads(text)["version"])
        code = f"import importlib.metadata as m; print(m.version({package!r}))"
        return subprocess.run([self.python, "-c", code], capture_output=True, text=True, check=True).stdout.strip()

    def remove(self) -> None:
        """Delete the environment, for the sake of the disk."""
        shutil.rmtree(self.folder, ignore_errors=True)


def installed(environment: Environment) -> float:
    """Install what is not installed yet, and return the seconds that it took.

    Raises:
        InstallFailed: With the reason of uv or npm.
    """
    stamp = environment.folder / "installed.json"
    wish = [environment.requirements, environment.overrides, environment.npm, CONSTRAINTS.read_text("utf-8")]
    with contextlib.suppress(OSError, ValueError):
        if json.loads(stamp.read_text("utf-8")) == json.loads(json.dumps(wish)):
            return 0.0
    start = time.monotonic()
    environment.remove()
    environment.folder.mkdir(parents=True)
    if environment.npm:
        _install(
            ["npm", "install", "--no-audit", "--no-fund", "--ignore-scripts", *environment.npm], environment.folder
        )
    else:
        overrides = environment.folder / "overrides.txt"
        uv = _uv()
        _install([uv, "venv", "--quiet", "--python", sys.executable, "--allow-existing", str(environment.folder)], HOME)
        overrides.write_text("\n".join(environment.overrides) + "\n", "utf-8")
        options = ["--constraints", str(CONSTRAINTS), "--overrides", str(overrides), "--python", environment.python]
        command = [uv, "pip", "install", "--quiet", *options, *environment.requirements]
        _install(command, environment.folder, environment.variables)
    if environment.finish is not None:
        environment.finish(environment.folder)
    stamp.write_text(json.dumps(wish), "utf-8")
    return time.monotonic() - start


def _uv() -> str:
    """Return the path of uv, installed on first use: for a dozen environments pip takes five times as long."""
    program = HOME / "tools" / "bin" / "uv"
    if not program.is_file():
        subprocess.run([sys.executable, "-m", "venv", str(HOME / "tools")], check=True)
        pip = [str(HOME / "tools" / "bin" / "python"), "-m", "pip", "--disable-pip-version-check", "install", "--quiet"]
        _install([*pip, "uv>=0.9"], HOME)
    return str(program)


def _uv_settings() -> dict[str, str]:
    """Return for uv what pip reads from its own variables: wheels on the disk and the registry's certificate."""
    settings = {"UV_CACHE_DIR": str(HOME / "cache"), "UV_NO_CONFIG": "1"}
    if "PIP_FIND_LINKS" in os.environ:
        settings["UV_FIND_LINKS"] = os.environ["PIP_FIND_LINKS"].replace(" ", ",")
    if "PIP_INDEX_URL" in os.environ:
        settings["UV_DEFAULT_INDEX"] = os.environ["PIP_INDEX_URL"]
    if "PIP_CERT" in os.environ:
        settings["SSL_CERT_FILE"] = os.environ["PIP_CERT"]
    return settings


def _install(command: Sequence[str], folder: Path, extra: Mapping[str, str] | None = None) -> None:
    if shutil.which(command[0]) is None:
        raise InstallFailed(f"{command[0]} is not on this machine")
    variables = (
        {name: value for name, value in os.environ.items() if name != "PYTHONPATH"} | _uv_settings() | dict(extra or {})
    )
    done = subprocess.run(
        ["nice", "-n", "15", *command], capture_output=True, text=True, check=False, env=variables, cwd=folder
    )
    if done.returncode:
        lines = [line.strip(" \t│├╰─▶×").removeprefix("npm error ") for line in done.stderr.splitlines()]
        noise = re.compile(r"warning|npm warn|hint|A complete log|$", re.IGNORECASE)
        reasons = [line.removeprefix("error: ") for line in lines if not noise.match(line)]
        raise InstallFailed(" ".join(reasons or ["no reason was printed"])[:400])
