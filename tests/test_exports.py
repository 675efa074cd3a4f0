"""`__all__` of all public modules: it exists, is sorted and complete, and its names can be imported."""

from __future__ import annotations

import ast
import importlib
import inspect
from pathlib import Path

import pytest
from support.source import parse_source

import rerank_plugins

ROOT = Path(rerank_plugins.__file__).parent
MODULES = sorted(
    ".".join(("rerank_plugins", *file.relative_to(ROOT).with_suffix("").parts)).removesuffix(".__init__")
    for file in ROOT.rglob("*.py")
    if file.name != "__main__.py"
)
ENGINES = ("causal_lm", "late_interaction", "listwise", "onnx", "torch")
WITHOUT_EXPORTS = {
    *(
        f"rerank_plugins.{name}"
        for name in ("backends", "calibration", "core._runtime", "engine", "policies", "serving", "testing")
    ),
    *(f"rerank_plugins.engine.{name}" for name in ENGINES),
}
"""Packages that only hold modules and export no names."""
PUBLIC_NAMES = {
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


def sort_key(name: str) -> tuple[int, str]:
    """Return the sort key of a name: constants, classes, then the rest, as ruff sorts (RUF022)."""
    return (0 if name.isupper() else 1 if name[0].isupper() else 2, name)


@pytest.mark.parametrize("module", MODULES)
def test_all_is_sorted_and_its_names_exist(module):
    loaded = importlib.import_module(module)
    if module in WITHOUT_EXPORTS:
        assert not hasattr(loaded, "__all__")
        return
    assert list(loaded.__all__) == sorted(set(loaded.__all__), key=sort_key)
    for name in loaded.__all__:
        assert getattr(loaded, name) is not None


@pytest.mark.parametrize("module", sorted(PUBLIC_NAMES))
def test_public_names_are_exported(module):
    assert set(importlib.import_module(module).__all__) >= PUBLIC_NAMES[module]


def test_package_exports_all_errors():
    assert set(rerank_plugins.__all__) >= ERRORS
    assert dir(rerank_plugins) == rerank_plugins.__all__
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        _ = rerank_plugins.nothing


def test_core_exports_the_names_for_authors_of_backends():
    """Authors of backends import from `rerank_plugins.core`, not from its modules."""
    core = importlib.import_module("rerank_plugins.core")
    for module in ("errors", "scorer"):
        assert set(importlib.import_module(f"rerank_plugins.core.{module}").__all__) <= set(core.__all__)


@pytest.mark.parametrize("module", [module for module in MODULES if module not in WITHOUT_EXPORTS])
def test_exported_classes_and_functions_have_docstrings(module):
    loaded = importlib.import_module(module)
    for name in loaded.__all__:
        value = getattr(loaded, name)
        if inspect.isclass(value) or inspect.isfunction(value):
            assert inspect.getdoc(value), f"{module}.{name} has no docstring"


@pytest.mark.parametrize("module", [module for module in MODULES if module not in WITHOUT_EXPORTS])
def test_no_module_imports_private_names_of_another(module):
    """Fails for `from .module import _name` inside the package."""
    file = Path(importlib.import_module(module).__file__)
    for node in ast.walk(parse_source(file.read_text("utf-8"))):
        if isinstance(node, ast.ImportFrom) and node.level:
            private = [alias.name for alias in node.names if alias.name.startswith("_") and alias.name != "__version__"]
            assert private == [], f"{module} takes {private} from {node.module}"
