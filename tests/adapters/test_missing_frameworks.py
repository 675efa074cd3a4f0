"""What a person sees who imports an adapter without its framework."""

from __future__ import annotations

import subprocess
import sys

import pytest

pytestmark = pytest.mark.thorough

SCRIPT = """
import sys
sys.modules[{blocked!r}] = None
from rerank_plugins import MissingExtra
try:
    import rerank_plugins.{adapter}
except ImportError as error:
    assert type(error) is MissingExtra
    print(error)
"""


@pytest.mark.parametrize(
    ("adapter", "blocked", "package", "extra"),
    [
        ("langchain", "langchain_core", "langchain-core", "langchain"),
        ("llama_index", "llama_index.core", "llama-index-core", "llama-index"),
        ("llama_index", "llama_index", "llama-index-core", "llama-index"),
        ("lancedb", "lancedb", "lancedb", "object-storage"),
    ],
)
def test_the_sentence_is_the_pip_command(adapter: str, blocked: str, package: str, extra: str) -> None:
    script = SCRIPT.format(blocked=blocked, adapter=adapter)
    ran = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert ran.stdout.strip() == (
        f"rerank_plugins.{adapter} needs the package {package!r}, which is not installed. "
        f"Run: pip install 'rerank-plugins[{extra}]'"
    )


@pytest.mark.parametrize(("adapter", "other"), [("langchain", "llama_index"), ("llama_index", "langchain_core")])
def test_an_adapter_loads_its_own_framework_only(adapter: str, other: str) -> None:
    script = f"import sys, rerank_plugins.{adapter}; print({other!r} in sys.modules)"
    ran = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert ran.stdout.strip() == "False"
