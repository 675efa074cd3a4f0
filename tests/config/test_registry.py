"""The registry: from names to classes, built-in and of plugins, and the errors."""

from __future__ import annotations

import importlib
import json
import subprocess
import sys
import types
from importlib.metadata import EntryPoint

import pytest

from rerank_plugins import ConfigError, MissingExtra
from rerank_plugins.config import registry
from rerank_plugins.config.registry import BackendEntry, backend_class, builtin_entries, entries, unknown
from rerank_plugins.core import Backend, LocalBackend


class ThirdParty(LocalBackend):
    pass


def not_a_class():
    pass


@pytest.fixture
def plugin(monkeypatch):
    """Register an entry point as an installed package would."""

    def register(name: str, value: str) -> None:
        plugins = {name: EntryPoint(name, value, registry.ENTRY_POINT_GROUP)}
        monkeypatch.setattr(registry, "_plugins", lambda: plugins)

    return register


@pytest.mark.parametrize("name", sorted(builtin_entries()))
def test_every_builtin_name_is_a_backend(name):
    entry = builtin_entries()[name]
    if entry.missing_package():
        pytest.skip(f"{entry.missing_package()} is not installed")
    assert issubclass(backend_class(name), Backend)
    assert entry.kind in ("local", "hosted", "server")
    assert entry.summary


def test_every_extra_exists():
    import tomllib
    from pathlib import Path

    project = tomllib.loads((Path(__file__).parents[2] / "pyproject.toml").read_text("utf-8"))["project"]
    for name, entry in builtin_entries().items():
        assert entry.extra is None or entry.extra in project["optional-dependencies"], name
        assert bool(entry.packages) == bool(entry.extra), f"{name}: packages beyond the base install come by an extra"


def test_a_plugin_is_found_by_its_entry_point(plugin):
    plugin("stranger", f"{__name__}:ThirdParty")
    assert backend_class("stranger").__name__ == "ThirdParty"
    assert entries()["stranger"].kind == "plugin"
    assert set(builtin_entries()) < set(entries())


def test_a_builtin_has_precedence_over_a_plugin(plugin):
    plugin("lexical", f"{__name__}:ThirdParty")
    assert backend_class("lexical").__name__ == "Lexical"


@pytest.mark.parametrize(
    ("value", "message"),
    [
        ("no_such_module_at_all:Acme", "cannot be imported .*no_such_module_at_all"),
        (f"{__name__}:Missing", "cannot be imported .*Missing"),
        (f"{__name__}:not_a_class", "must be a LocalBackend"),
        (f"{__name__}:ConfigError", "must be a LocalBackend"),
    ],
)
def test_an_entry_point_that_is_not_a_backend_raises(value, message, plugin):
    plugin("stranger", value)
    with pytest.raises(ConfigError, match=message):
        backend_class("stranger")


def test_a_plugin_whose_module_fails_raises(plugin, tmp_path, monkeypatch):
    (tmp_path / "broken_stranger.py").write_text("1 / 0", "utf-8")
    monkeypatch.syspath_prepend(tmp_path)
    plugin("stranger", "broken_stranger:Acme")
    with pytest.raises(ConfigError, match="ZeroDivisionError") as caught:
        backend_class("stranger")
    assert isinstance(caught.value.__cause__, ZeroDivisionError)


def test_unknown_lists_the_valid_names_and_the_nearest():
    assert str(unknown("colour", "bleu", ["green", "blue"])) == (
        "There is no colour 'bleu'. Did you mean 'blue'? Choose one of: blue, green."
    )
    assert "Did you mean" not in str(unknown("colour", "xyz", ["green", "blue"]))
    with pytest.raises(ConfigError, match="no backend 'lexicl'.*Did you mean 'lexical'"):  # noqa: RUF043
        backend_class("lexicl")


def test_missing_names_the_first_missing_package():
    assert BackendEntry("m:C", "").missing_package() is None
    assert BackendEntry("m:C", "", packages=("json", "os.path")).missing_package() is None
    assert BackendEntry("m:C", "", packages=("json", "nowhere_one", "nowhere_two")).missing_package() == "nowhere_one"
    assert BackendEntry("m:C", "", packages=("nowhere_one.inside",)).missing_package() == "nowhere_one.inside"


def test_a_partially_imported_package_is_missing(monkeypatch):
    half = types.ModuleType("half_way")
    monkeypatch.setitem(sys.modules, "half_way", half)
    assert importlib.import_module("half_way").__spec__ is None
    assert BackendEntry("m:C", "", packages=("half_way",)).missing_package() == "half_way"


@pytest.mark.parametrize("name", sorted(name for name, entry in builtin_entries().items() if entry.packages))
def test_a_backend_without_its_packages_names_the_pip_command(name):
    """Runs in a process of its own, in which the package cannot be imported."""
    entry = builtin_entries()[name]
    code = f"""
import sys
for package in {entry.packages!r}:
    sys.modules[package] = None
from rerank_plugins import MissingExtra, load_reranker
try:
    load_reranker({json.dumps(name)})
except MissingExtra as error:
    print(error)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60)
    assert f"pip install 'rerank-plugins[{entry.extra}]'" in done.stdout
    assert repr(entry.packages[0]) in done.stdout


def test_missing_extra_is_an_import_error():
    assert issubclass(MissingExtra, ImportError)
