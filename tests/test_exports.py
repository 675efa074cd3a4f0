"""What each public module says it gives: `__all__` is there, sorted, complete, and true."""

from __future__ import annotations

import ast
import importlib
import inspect
from pathlib import Path

import pytest

import rerank_plugins

ROOT = Path(rerank_plugins.__file__).parent
MODULES = sorted(
    ".".join(("rerank_plugins", *file.relative_to(ROOT).with_suffix("").parts)).removesuffix(".__init__")
    for file in ROOT.rglob("*.py")
    if file.name != "__main__.py"
)
ENGINES = ("causal_lm", "late_interaction", "listwise", "onnx", "torch")
PAGES = {
    *(f"rerank_plugins.{name}" for name in ("backends", "calibration", "engine", "policies", "serving", "testing")),
    *(f"rerank_plugins.engine.{name}" for name in ENGINES),
}
"""Packages that only hold modules: nothing is imported from them themselves."""
PROMISED = {
    "rerank_plugins": {"load_reranker", "Reranker", "RerankResponse", "RerankResult", "Usage", "RerankError"},
    "rerank_plugins.core": {"Capabilities", "HostedBackend", "LocalBackend", "SDKBackend", "Scorer", "Scores"},
    "rerank_plugins.lancedb": {"LanceDBReranker"},
    "rerank_plugins.langchain": {"RerankCompressor", "RerankRetriever"},
    "rerank_plugins.llama_index": {"RerankPostprocessor"},
    "rerank_plugins.testing.contract": {"BackendContract", "HostedContract"},
}
ERRORS = {
    "AllBackendsFailed",
    "AuthenticationFailed",
    "BackendError",
    "BadResponse",
    "ConfigError",
    "DeadlineExceeded",
    "InputError",
    "MissingExtra",
    "RateLimited",
    "Rejected",
    "RerankError",
    "TransientError",
}


def order(name: str) -> tuple[int, str]:
    """Constants, classes, then the rest: the order that ruff keeps (RUF022)."""
    return (0 if name.isupper() else 1 if name[0].isupper() else 2, name)


@pytest.mark.parametrize("module", MODULES)
def test_all_is_sorted_and_everything_in_it_can_be_imported(module):
    found = importlib.import_module(module)
    if module in PAGES:
        assert not hasattr(found, "__all__")
        return
    assert list(found.__all__) == sorted(set(found.__all__), key=order)
    for name in found.__all__:
        assert getattr(found, name) is not None


@pytest.mark.parametrize("module", sorted(PROMISED))
def test_what_is_promised_is_exported(module):
    assert set(importlib.import_module(module).__all__) >= PROMISED[module]


def test_the_package_names_every_error_and_shows_what_it_has():
    assert set(rerank_plugins.__all__) >= ERRORS
    assert dir(rerank_plugins) == rerank_plugins.__all__
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        _ = rerank_plugins.nothing


def test_core_exports_everything_its_modules_do_for_authors():
    """Nobody who writes a backend has to import from a module inside core."""
    core = importlib.import_module("rerank_plugins.core")
    for module in ("errors", "scorer"):
        assert set(importlib.import_module(f"rerank_plugins.core.{module}").__all__) <= set(core.__all__)


@pytest.mark.parametrize("module", [each for each in MODULES if each not in PAGES])
def test_every_public_class_is_exported_and_every_export_is_explained(module):
    found = importlib.import_module(module)
    for name in found.__all__:
        value = getattr(found, name)
        if inspect.isclass(value) or inspect.isfunction(value):
            assert inspect.getdoc(value), f"{module}.{name} has no docstring"


@pytest.mark.parametrize("module", [each for each in MODULES if each not in PAGES])
def test_what_others_import_by_name_is_exported_or_shared_on_purpose(module):
    """`from x import y` inside the package takes no `_private` name of another module."""
    file = Path(importlib.import_module(module).__file__)
    for node in ast.walk(ast.parse(file.read_text("utf-8"))):
        if isinstance(node, ast.ImportFrom) and node.level:
            private = [alias.name for alias in node.names if alias.name.startswith("_") and alias.name != "__version__"]
            assert private == [], f"{module} takes {private} from {node.module}"
