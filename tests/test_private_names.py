"""No private name of another package is used where SDKs and frameworks are called: a release may change it.

The tests read the source of `FOLDERS`. A name with one leading underscore is private. A class may use its private names
on `self`, `cls` and `super()`; anywhere else, after a dot or in a string, a private name belongs to another object. A
class that extends one of another package may neither use nor replace its private names. Imported names must be exported
by the other package.
"""

from __future__ import annotations

import ast
import importlib
import inspect
import sys
import textwrap
from collections.abc import Iterator
from pathlib import Path

import pytest
from support.source import parse_source

import rerank_plugins

ROOT = Path(rerank_plugins.__file__).parent
FOLDERS = ("backends", "serving")
FILES = [ROOT / "transport.py", *(file for folder in FOLDERS for file in sorted((ROOT / folder).rglob("*.py")))]
TREES = {file: parse_source(file.read_text("utf-8")) for file in FILES}
BY_STRING = {"getattr", "hasattr", "setattr", "delattr", "attrgetter", "methodcaller"}
"""Functions that take the name of an attribute as a string."""
OF_NAMEDTUPLES = {"_replace", "_asdict", "_fields", "_make"}
"""Public names that start with an underscore so that they cannot be names of fields."""

for_each_file = pytest.mark.parametrize("file", FILES, ids=lambda file: file.relative_to(ROOT).as_posix())


def is_private(name: str) -> bool:
    return name.startswith("_") and not name.startswith("__") and name != "_" and name not in OF_NAMEDTUPLES


def is_own(node: ast.expr) -> bool:
    """Return whether an expression is `self`, `cls` or `super()`."""
    if isinstance(node, ast.Call):
        return isinstance(node.func, ast.Name) and node.func.id == "super"
    return isinstance(node, ast.Name) and node.id in ("self", "cls")


def private_attributes(tree: ast.AST, *, own: bool) -> Iterator[tuple[int, str]]:
    """Yield line and name of each private attribute of `self`, `cls` and `super()`, or of all other objects."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Attribute) and is_private(node.attr) and is_own(node.value) is own:
            yield node.lineno, node.attr
        elif isinstance(node, ast.Call) and node.args and is_own(node.args[0]) is own:
            called = node.func.attr if isinstance(node.func, ast.Attribute) else getattr(node.func, "id", "")
            texts = [word.value for word in node.args if isinstance(word, ast.Constant) and isinstance(word.value, str)]
            if called in BY_STRING:
                yield from ((node.lineno, name) for text in texts for name in text.split(".") if is_private(name))


def imported(tree: ast.AST) -> dict[str, tuple[str, str]]:
    """Return (module, name in it) of each name that a file imports from another package; "" is the module itself."""
    names: dict[str, tuple[str, str]] = {}
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            for alias in node.names:
                top = alias.name.partition(".")[0]
                names[alias.asname or top] = (alias.name if alias.asname else top, "")
        elif isinstance(node, ast.ImportFrom) and not node.level:
            names |= {alias.asname or alias.name: (node.module or "", alias.name) for alias in node.names}
    return {name: origin for name, origin in names.items() if is_foreign(origin[0])}


def foreign_names(tree: ast.AST) -> Iterator[tuple[str, str]]:
    """Yield module and name of each use of another package: `voyageai.error` is ("voyageai", "error")."""
    names = imported(tree)
    yield from names.values()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from ((alias.name, "") for alias in node.names if is_foreign(alias.name))
        elif isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id in names:
            module, name = names[node.value.id]
            if not name:
                yield module, node.attr


def is_foreign(module: str) -> bool:
    top = module.partition(".")[0]
    return top not in sys.stdlib_module_names and top != "rerank_plugins"


def is_exported(module: str, name: str) -> bool:
    """Return whether a name is public, in the module, and in its `__all__` if it has one; submodules are exported."""
    if any(map(is_private, [*module.split("."), name])):
        return False
    loaded = importlib.import_module(module)
    try:
        return not name or bool(importlib.import_module(f"{module}.{name}"))
    except ImportError:
        return hasattr(loaded, name) and name in getattr(loaded, "__all__", [name])


def foreign_bases(node: ast.ClassDef, tree: ast.AST) -> Iterator[type]:
    """Yield the classes of other packages that a class extends, and their bases."""
    names = imported(tree)
    for base in node.bases:
        path = ast.unparse(base).split("[")[0].split(".")
        if path[0] in names:
            module, name = names[path[0]]
            value = importlib.import_module(module)
            for part in [name, *path[1:]] if name else path[1:]:
                value = getattr(value, part)
            if inspect.isclass(value):  # `TypedDict` is none
                yield from (parent for parent in inspect.getmro(value) if is_foreign(parent.__module__))


def private_names_of(kind: type) -> set[str]:
    """Return the private names of a class: its attributes, and those that its methods use."""
    names = {name for name in vars(kind) if is_private(name)}
    for member in vars(kind).values():
        function = inspect.unwrap(getattr(member, "__func__", None) or getattr(member, "fget", None) or member)
        if inspect.isfunction(function) and is_foreign(function.__module__):
            source = parse_source(textwrap.dedent(inspect.getsource(function)))
            names |= {name for _, name in private_attributes(source, own=True)}
    return names


def inherited_private_names(tree: ast.AST) -> list[str]:
    """Return `class: name` for each private name of a base in another package that a class uses or replaces."""
    violations = []
    for node in ast.walk(tree):
        if isinstance(node, ast.ClassDef):
            private = {name for base in foreign_bases(node, tree) for name in private_names_of(base)}
            used = {name for _, name in private_attributes(node, own=True)}
            methods = (member for member in node.body if isinstance(member, ast.FunctionDef | ast.AsyncFunctionDef))
            names = used | {method.name for method in methods}
            violations += [f"{node.name}: {name}" for name in sorted(names & private)]
    return violations


def test_folders_exist() -> None:
    assert {file.relative_to(ROOT).parts[0] for file in FILES} == {"transport.py", *FOLDERS}


@for_each_file
def test_file_uses_no_private_attribute_of_another_object(file: Path) -> None:
    assert [f"{line}: {name}" for line, name in private_attributes(TREES[file], own=False)] == []


@for_each_file
def test_file_uses_no_private_name_of_a_foreign_base(file: Path) -> None:
    assert inherited_private_names(TREES[file]) == []


@for_each_file
def test_file_imports_only_exported_names(file: Path) -> None:
    assert [f"{module}.{name}" for module, name in foreign_names(TREES[file]) if not is_exported(module, name)] == []


@pytest.mark.parametrize(
    ("code", "names"),
    [
        ("client._client_wrapper", ["_client_wrapper"]),
        ("client._params['api_base'] = url", ["_params"]),
        ("self.client._token", ["_token"]),
        ("getattr(client, '_token', None)", ["_token"]),
        ("operator.attrgetter('raw._raw_token')(client)", ["_raw_token"]),
        ("self._clients.get(); super()._ask(); value._replace(a=1); client.__aexit__(); _", []),
    ],
)
def test_private_attributes_finds_each_form(code: str, names: list[str]) -> None:
    assert [name for _, name in private_attributes(parse_source(code), own=False)] == names


@pytest.mark.parametrize(
    ("body", "wrong"),
    [
        ("def send(self): return self._transport", ["Mine: _transport"]),
        ("def _init_transport(self): ...", ["Mine: _init_transport"]),
        ("def send(self): return self._mine", []),
    ],
)
def test_inherited_private_names_are_found(body: str, wrong: list[str]) -> None:
    assert inherited_private_names(parse_source(f"import httpx\nclass Mine(httpx.AsyncClient):\n {body}")) == wrong


@pytest.mark.parametrize(
    ("code", "exported"),
    [
        ("from cohere.core import ApiError", True),
        ("import voyageai\nvoyageai.aiosession", True),
        ("import voyageai.error", True),
        ("from httpx._client import AsyncClient", False),
        ("from httpx import _client", False),
        ("import voyageai\nvoyageai._base", False),
        ("from cohere.core import convert_nothing", False),
        ("import aiohttp\naiohttp.sys", False),
    ],
)
def test_is_exported_recognises_private_modules_and_names(code: str, exported: bool) -> None:
    names = list(foreign_names(parse_source(code)))
    assert names
    assert all(is_exported(module, name) for module, name in names) is exported
