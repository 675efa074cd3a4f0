"""No private name of another package is used where SDKs and frameworks are called: each release may change those.

Read off the source, folder by folder (`FOLDERS`). A name with one leading underscore is private. A class may use its own on
`self`, `cls` and `super()`; on anything else, by a dot or in a string, it is somebody else's. A class that extends one of another
package may neither use nor replace what is private there. And what is imported has to be exported where it comes from.
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

import rerank_plugins

ROOT = Path(rerank_plugins.__file__).parent
FOLDERS = ("backends", "serving")
FILES = [ROOT / "transport.py", *(file for folder in FOLDERS for file in sorted((ROOT / folder).rglob("*.py")))]
TREES = {file: ast.parse(file.read_text("utf-8")) for file in FILES}
BY_STRING = {"getattr", "hasattr", "setattr", "delattr", "attrgetter", "methodcaller"}
"""Functions that take the name of an attribute as a string."""
OF_NAMEDTUPLES = {"_replace", "_asdict", "_fields", "_make"}
"""Public names, underscored so that they cannot meet a field's."""

of_each_file = pytest.mark.parametrize("file", FILES, ids=lambda file: file.relative_to(ROOT).as_posix())


def is_private(name: str) -> bool:
    return name.startswith("_") and not name.startswith("__") and name != "_" and name not in OF_NAMEDTUPLES


def is_own(node: ast.expr) -> bool:
    """Tell whether an expression is `self`, `cls` or `super()`."""
    if isinstance(node, ast.Call):
        return isinstance(node.func, ast.Name) and node.func.id == "super"
    return isinstance(node, ast.Name) and node.id in ("self", "cls")


def private_attributes(tree: ast.AST, *, own: bool) -> Iterator[tuple[int, str]]:
    """Yield line and name of every private attribute of `self` and the like, or of everything else."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Attribute) and is_private(node.attr) and is_own(node.value) is own:
            yield node.lineno, node.attr
        elif isinstance(node, ast.Call) and node.args and is_own(node.args[0]) is own:
            called = node.func.attr if isinstance(node.func, ast.Attribute) else getattr(node.func, "id", "")
            texts = [each.value for each in node.args if isinstance(each, ast.Constant) and isinstance(each.value, str)]
            if called in BY_STRING:
                yield from ((node.lineno, name) for text in texts for name in text.split(".") if is_private(name))


def imported(tree: ast.AST) -> dict[str, tuple[str, str]]:
    """Return what the names of a file stand for that come from other packages: module, and name there ("": itself)."""
    names: dict[str, tuple[str, str]] = {}
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            for alias in node.names:
                top = alias.name.partition(".")[0]
                names[alias.asname or top] = (alias.name if alias.asname else top, "")
        elif isinstance(node, ast.ImportFrom) and not node.level:
            names |= {alias.asname or alias.name: (node.module or "", alias.name) for alias in node.names}
    return {name: found for name, found in names.items() if is_foreign(found[0])}


def foreign_names(tree: ast.AST) -> Iterator[tuple[str, str]]:
    """Yield module and name of everything taken from another package: `voyageai.aiosession` is ("voyageai", "aiosession")."""
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
    """Tell whether a name is public, in the module, and in its `__all__` where it has one; submodules are exported."""
    if any(map(is_private, [*module.split("."), name])):
        return False
    loaded = importlib.import_module(module)
    try:
        return not name or bool(importlib.import_module(f"{module}.{name}"))
    except ImportError:
        return hasattr(loaded, name) and name in getattr(loaded, "__all__", [name])


def foreign_bases(node: ast.ClassDef, tree: ast.AST) -> Iterator[type]:
    """Yield the classes of other packages that a class extends, and what those extend."""
    names = imported(tree)
    for base in node.bases:
        path = ast.unparse(base).split("[")[0].split(".")
        if path[0] in names:
            module, name = names[path[0]]
            value = importlib.import_module(module)
            for part in [name, *path[1:]] if name else path[1:]:
                value = getattr(value, part)
            if inspect.isclass(value):  # `TypedDict` is none
                yield from (each for each in inspect.getmro(value) if is_foreign(each.__module__))


def private_names_of(kind: type) -> set[str]:
    """Return the private names of a class: its attributes, and what its methods use."""
    names = {name for name in vars(kind) if is_private(name)}
    for member in vars(kind).values():
        function = inspect.unwrap(getattr(member, "__func__", None) or getattr(member, "fget", None) or member)
        if inspect.isfunction(function) and is_foreign(function.__module__):
            source = ast.parse(textwrap.dedent(inspect.getsource(function)))
            names |= {name for _, name in private_attributes(source, own=True)}
    return names


def inherited_private_names(tree: ast.AST) -> list[str]:
    """Return `class: name` of what is private in a class of another package and used or replaced in one that extends it."""
    wrong = []
    for node in ast.walk(tree):
        if isinstance(node, ast.ClassDef):
            theirs = {name for base in foreign_bases(node, tree) for name in private_names_of(base)}
            used = {name for _, name in private_attributes(node, own=True)}
            defined = (each for each in node.body if isinstance(each, ast.FunctionDef | ast.AsyncFunctionDef))
            wrong += [f"{node.name}: {name}" for name in sorted((used | {each.name for each in defined}) & theirs)]
    return wrong


def test_the_folders_are_there() -> None:
    assert {file.relative_to(ROOT).parts[0] for file in FILES} == {"transport.py", *FOLDERS}


@of_each_file
def test_no_private_attribute_of_another_object(file: Path) -> None:
    assert [f"{line}: {name}" for line, name in private_attributes(TREES[file], own=False)] == []


@of_each_file
def test_nothing_private_of_a_class_of_another_package(file: Path) -> None:
    assert inherited_private_names(TREES[file]) == []


@of_each_file
def test_names_of_other_packages_are_exported_there(file: Path) -> None:
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
def test_private_attributes_are_seen(code: str, names: list[str]) -> None:
    assert [name for _, name in private_attributes(ast.parse(code), own=False)] == names


@pytest.mark.parametrize(
    ("body", "wrong"),
    [
        ("def send(self): return self._transport", ["Mine: _transport"]),
        ("def _init_transport(self): ...", ["Mine: _init_transport"]),
        ("def send(self): return self._mine", []),
    ],
)
def test_what_is_private_in_a_base_is_seen(body: str, wrong: list[str]) -> None:
    assert inherited_private_names(ast.parse(f"import httpx\nclass Mine(httpx.AsyncClient):\n {body}")) == wrong


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
def test_names_that_are_not_exported_are_seen(code: str, exported: bool) -> None:
    names = list(foreign_names(ast.parse(code)))
    assert names
    assert all(is_exported(module, name) for module, name in names) is exported
