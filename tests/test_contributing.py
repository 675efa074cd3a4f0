"""The vendor in CONTRIBUTING.md is complete: its three code blocks pass the contract suite as they are printed."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from rerank_plugins.config.registry import BackendEntry

ROOT = Path(__file__).parents[1]
TEXT = (ROOT / "CONTRIBUTING.md").read_text("utf-8")
BLOCKS = re.findall(r"^```python\n# (\S+)\n(.*?)^```$", TEXT, re.DOTALL | re.MULTILINE)


def test_every_python_block_belongs_to_the_vendor():
    assert TEXT.count("```python\n") == len(BLOCKS) == 3


def test_vendor_backend_has_at_most_forty_lines():
    assert len(BLOCKS[0][1].splitlines()) <= 40


@pytest.mark.slow
def test_vendor_in_contributing_passes_the_contract_suite(tmp_path):
    backend, server, contract = (code for _, code in BLOCKS)
    (tmp_path / "acme_backend.py").write_text(backend, "utf-8")
    (tmp_path / "acme_server.py").write_text(server, "utf-8")
    path = "rerank_plugins.testing.vendors.acme"
    assert path in contract
    (tmp_path / "test_acme.py").write_text(contract.replace(path, "acme_server"), "utf-8")
    # An entry point instead of the row in config/registry.py, so that the test changes no file of the package.
    information = tmp_path / "acme-1.0.dist-info"
    information.mkdir()
    (information / "METADATA").write_text("Metadata-Version: 2.1\nName: acme\nVersion: 1.0\n", "utf-8")
    (information / "entry_points.txt").write_text("[rerank_plugins.backends]\nacme = acme_backend:Acme\n", "utf-8")
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-o", "asyncio_mode=auto"]
    done = subprocess.run(
        [*command, "--rootdir", str(tmp_path), str(tmp_path / "test_acme.py")],
        env=os.environ | {"PYTHONPATH": os.pathsep.join([str(tmp_path), str(ROOT)])},
        capture_output=True,
        text=True,
        check=False,
        timeout=300,
    )
    assert done.returncode == 0, done.stdout[-4000:]
    passed = re.search(r"(\d+) passed", done.stdout)
    assert passed
    assert int(passed[1]) > 100


@pytest.mark.parametrize("path", sorted(set(re.findall(r"`((?:\w+/)+\w*\.?\w*)`", TEXT))))
def test_paths_in_contributing_exist(path):
    assert (ROOT / path).exists() or (ROOT / "rerank_plugins" / path).exists(), path


def test_registry_row_in_contributing_is_a_row_of_the_registry():
    (row,) = re.findall(r"^```text\n(\"acme\": .*)\n```$", TEXT, re.MULTILINE)
    (entry,) = eval(f"{{{row}}}", {"BackendEntry": BackendEntry}).values()
    assert (entry.path, entry.kind) == ("rerank_plugins.backends.acme:Acme", "hosted")


PROSE = re.sub(r"^```.*?^```$", "", TEXT, flags=re.DOTALL | re.MULTILINE)
SOURCE = "\n".join(file.read_text("utf-8") for file in (ROOT / "rerank_plugins").rglob("*.py"))


@pytest.mark.parametrize("name", sorted(set(re.findall(r"`((?:\w+\.)?_[a-z]\w*|[a-z]+_\w+)`", PROSE))))
def test_names_in_contributing_exist(name):
    """A function that is renamed has to be renamed in the description of a call too."""
    assert re.search(rf"\b{name.split('.')[-1]}\b", SOURCE)
