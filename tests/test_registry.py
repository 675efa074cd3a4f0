"""Names → classes: ours, strangers', and what is said when one cannot be had."""

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
from rerank_plugins.config.registry import BUILTIN, Entry, backend_class, entries, unknown
from rerank_plugins.core import Backend, LocalBackend


class Stranger(LocalBackend):
    pass


def not_a_class():
    pass


@pytest.fixture
def plugin(monkeypatch):
    """Register an entry point as an installed package would."""

    def register(name: str, value: str) -> None:
        found = {name: EntryPoint(name, value, registry.GROUP)}
        monkeypatch.setattr(registry, "_plugins", lambda: found)

    return register


@pytest.mark.parametrize("name", sorted(BUILTIN))
def test_every_name_of_ours_leads_to_a_backend(name):
    entry = BUILTIN[name]
    if entry.missing():
        pytest.skip(f"{entry.missing()} is not installed")
    assert issubclass(backend_class(name), Backend)
    assert entry.kind in ("local", "hosted", "server")
    assert entry.summary


def test_every_extra_exists():
    import tomllib
    from pathlib import Path

    project = tomllib.loads((Path(__file__).parents[1] / "pyproject.toml").read_text("utf-8"))["project"]
    for name, entry in BUILTIN.items():
        assert entry.extra is None or entry.extra in project["optional-dependencies"], name
        assert bool(entry.packages) == bool(entry.extra), f"{name}: packages beyond the base install come by an extra"


def test_a_stranger_by_entry_point(plugin):
    plugin("stranger", f"{__name__}:Stranger")
    assert backend_class("stranger").__name__ == "Stranger"
    assert entries()["stranger"].kind == "plugin"
    assert set(BUILTIN) < set(entries())


def test_ours_win_over_a_stranger_of_the_same_name(plugin):
    plugin("lexical", f"{__name__}:Stranger")
    assert backend_class("lexical").__name__ == "Lexical"


@pytest.mark.parametrize(
    ("value", "told"),
    [
        ("no_such_module_at_all:Acme", "cannot be imported .*no_such_module_at_all"),
        (f"{__name__}:Missing", "cannot be imported .*Missing"),
        (f"{__name__}:not_a_class", "is no LocalBackend"),
        (f"{__name__}:ConfigError", "is no LocalBackend"),
    ],
)
def test_an_entry_point_that_leads_nowhere(value, told, plugin):
    plugin("stranger", value)
    with pytest.raises(ConfigError, match=told):
        backend_class("stranger")


def test_a_stranger_whose_module_fails(plugin, tmp_path, monkeypatch):
    (tmp_path / "broken_stranger.py").write_text("1 / 0", "utf-8")
    monkeypatch.syspath_prepend(tmp_path)
    plugin("stranger", "broken_stranger:Acme")
    with pytest.raises(ConfigError, match="ZeroDivisionError") as caught:
        backend_class("stranger")
    assert isinstance(caught.value.__cause__, ZeroDivisionError)


def test_unknown():
    assert str(unknown("colour", "bleu", ["green", "blue"])) == (
        "There is no colour 'bleu'. Did you mean 'blue'? Choose one of: blue, green."
    )
    assert "Did you mean" not in str(unknown("colour", "xyz", ["green", "blue"]))
    with pytest.raises(ConfigError, match="no backend 'lexicl'.*Did you mean 'lexical'"):  # noqa: RUF043
        backend_class("lexicl")


def test_missing_names_the_first_package_that_is_not_there():
    assert Entry("m:C", "").missing() is None
    assert Entry("m:C", "", packages=("json", "os.path")).missing() is None
    assert Entry("m:C", "", packages=("json", "nowhere_one", "nowhere_two")).missing() == "nowhere_one"
    assert Entry("m:C", "", packages=("nowhere_one.inside",)).missing() == "nowhere_one.inside"


def test_a_half_imported_package_is_missing(monkeypatch):
    half = types.ModuleType("half_way")
    monkeypatch.setitem(sys.modules, "half_way", half)
    assert importlib.import_module("half_way").__spec__ is None
    assert Entry("m:C", "", packages=("half_way",)).missing() == "half_way"


@pytest.mark.parametrize("name", sorted(name for name, entry in BUILTIN.items() if entry.packages))
def test_without_its_packages_a_backend_says_the_pip_command(name):
    """In a process of its own, where the package cannot be imported at all."""
    entry = BUILTIN[name]
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
