"""The package as pip installs it: the size of the wheel, a base install without torch, a call without a network."""

from __future__ import annotations

import subprocess
import sys
import zipfile

import pytest

CALL = (
    "from rerank_plugins import load_reranker; "
    "print(load_reranker().rerank('what is a reranker?', "
    "['Bananas are yellow.', 'A reranker scores query and document together.'])[0].index)"
)
# Ends the process at any lookup of a name and any connection.
NO_NETWORK = (
    "import socket, sys; sys.addaudithook(lambda event, args: sys.exit(f'network: {event}') "
    "if event in ('socket.getaddrinfo', 'socket.gethostbyname', 'socket.connect') else None); "
)


@pytest.mark.slow  # a minute: builds a wheel, makes an environment, installs the base dependencies
def test_base_install_reranks_without_a_network(tmp_path, wheel):
    def python(*arguments: str) -> str:
        done = subprocess.run(arguments, capture_output=True, text=True, check=False, timeout=900, cwd=tmp_path)
        assert done.returncode == 0, done.stderr
        return done.stdout

    assert wheel.stat().st_size < 40_000_000
    names = zipfile.ZipFile(wheel).namelist()
    assert "rerank_plugins/py.typed" in names
    assert "rerank_plugins/backends/embedded_model/model.onnx" in names
    assert not [name for name in names if name.startswith(("tests/", "training/", "examples/"))]

    python(sys.executable, "-m", "venv", "fresh")
    fresh = str(tmp_path / "fresh" / "bin" / "python")
    python(fresh, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", str(wheel))
    assert python(fresh, "-c", NO_NETWORK + CALL).strip() == "1"
    installed = python(fresh, "-m", "pip", "list", "--format", "freeze").lower()
    for heavy in ("torch", "transformers", "langchain", "llama", "cohere", "voyage"):
        assert heavy not in installed
