"""The server uses other packages through what they export: no name with an underscore, nothing from an inner module.

Stricter than tests/test_private_names.py in two things: where a package lists its exports, a name from an inner module
has to be among them (uvicorn exports its supervisor, and no protocol); and no argument is passed by a private name.
"""

from __future__ import annotations

import ast
import importlib
import importlib.util
import inspect
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import pytest
from support.source import parse_source

import rerank_plugins

ROOT = Path(rerank_plugins.__file__).parent
FILES = sorted((ROOT / "serving").glob("*.py"))
DOCUMENTED = {
    # https://prometheus.github.io/client_python/multiprocess/
    "prometheus_client.multiprocess": {"MultiProcessCollector", "mark_process_dead"},
}
"""Modules that the documentation of their package names, although no package exports them."""


def private(name: str) -> bool:
    return name.startswith("_") and not (name.startswith("__") and name.endswith("__"))


def foreign(module: str) -> bool:
    top = module.partition(".")[0]
    return top not in sys.stdlib_module_names and top not in ("rerank_plugins", "__future__")


def loaded(module: str) -> ModuleType:
    if module.startswith("ray"):
        pytest.importorskip("ray")
    return importlib.import_module(module)


def exported(module: str, name: str) -> bool:
    """Return whether a module or a package above it exports a name; without `__all__`, whether it defines the name."""
    if name in DOCUMENTED.get(module, ()):
        return True
    if importlib.util.find_spec(f"{module}.{name}") if hasattr(loaded(module), "__path__") else None:
        return True  # a module
    parts = module.split(".")
    packages = [loaded(".".join(parts[:count])) for count in range(len(parts), 0, -1)]
    lists = [package.__all__ for package in packages if hasattr(package, "__all__")]
    if lists:
        return any(name in each for each in lists)
    return name in defined(parse_source(inspect.getsource(packages[0])))


def defined(tree: ast.Module) -> set[str]:
    """Return the names that a module defines, without those that it imports."""
    names = {node.name for node in ast.walk(tree) if isinstance(node, ast.ClassDef | ast.FunctionDef)}
    return names | {
        node.id for node in ast.walk(tree) if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store)
    }


def faults(tree: ast.Module) -> Iterator[str]:
    """Yield each name that a file uses although its package does not export it."""
    own = {node.name for node in ast.walk(tree) if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)}
    for node in ast.walk(tree):
        if isinstance(node, ast.Assign | ast.AnnAssign):
            for target in node.targets if isinstance(node, ast.Assign) else [node.target]:
                own |= {each.id for each in ast.walk(target) if isinstance(each, ast.Name)}
                own |= {
                    each.attr
                    for each in ast.walk(target)
                    if isinstance(each, ast.Attribute) and isinstance(each.value, ast.Name) and each.value.id == "self"
                }
    for node in ast.walk(tree):
        match node:
            case ast.Import():
                yield from (alias.name for alias in node.names if any(map(private, alias.name.split("."))))
            case ast.ImportFrom(module=str(module), level=0) if foreign(module):
                for alias in node.names:
                    if any(map(private, [*module.split("."), alias.name])) or not exported(module, alias.name):
                        yield f"{module}.{alias.name}"
            case ast.Attribute(attr=name) if private(name) and name not in own:
                yield ast.unparse(node)
            case ast.Call(keywords=keywords):
                yield from (f"{each.arg}=" for each in keywords if each.arg is not None and private(each.arg))
                match node:
                    case ast.Call(func=ast.Name(id="getattr" | "setattr"), args=[_, ast.Constant(value=str(name)), *_]):
                        if private(name):
                            yield ast.unparse(node)


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.stem)
def test_only_exported_names_of_other_packages_are_used(file):
    assert list(faults(parse_source(file.read_text("utf-8")))) == []


@pytest.mark.parametrize(
    ("source", "fault"),
    [
        ("from uvicorn.protocols.http.h11_impl import H11Protocol", "uvicorn.protocols.http.h11_impl.H11Protocol"),
        ("from uvicorn.config import STARTUP_FAILURE", "uvicorn.config.STARTUP_FAILURE"),
        ("from uvicorn._types import ASGI3Application", "uvicorn._types.ASGI3Application"),
        ("from starlette.routing import Request", "starlette.routing.Request"),
        ("import h11._connection", "h11._connection"),
        ("server._captured_signals", "server._captured_signals"),
        ("getattr(server, '_captured_signals')", "getattr(server, '_captured_signals')"),
        ("protocol(config=config, _loop=loop)", "_loop="),
    ],
)
def test_private_name_is_reported(source, fault):
    assert list(faults(parse_source(source))) == [fault]


def test_exported_or_own_name_is_not_reported():
    source = """
from uvicorn.supervisors import Multiprocess
from starlette.responses import JSONResponse
import h11
class Own:
    def __init__(self): self._mine = 1
    def other(self, another): return another._mine
"""
    assert list(faults(parse_source(source))) == []
