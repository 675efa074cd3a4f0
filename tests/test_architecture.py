"""The rooms of DESIGN.md and who may look at whom, read off the source itself: imports inside functions count too."""

from __future__ import annotations

import ast
import re
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

import rerank_plugins
from rerank_plugins.config.registry import BUILTIN

ROOT = Path(rerank_plugins.__file__).parent
FILES = sorted(ROOT.rglob("*.py"))
TREES = {file: ast.parse(file.read_text("utf-8")) for file in FILES}

MAY_LOOK_AT: dict[str, set[str]] = {
    "core": set(),
    "transport": {"core"},
    "engine": {"core"},
    "backends": {"core", "engine", "options", "transport"},  # an SDK that takes an HTTP client gets one from there
    "option_errors": {"core"},
    "options": {"core", "option_errors"},
    "policies": {"calibration", "core", "options"},
    "calibration": {"core"},
    "telemetry": {"__init__", "core"},  # the version
    "yaml_text": {"core"},
    "fields": {"core", "yaml_text"},
    "documents": {"core", "fields"},
    "reranker": {
        "core",
        "config",
        "documents",
        "fields",
        "telemetry",
    },  # config only to say in a pickle who makes it anew
    "config": {
        "__init__",  # the version
        "calibration",
        "core",
        "option_errors",
        "options",
        "policies",
        "reranker",
        "transport",
    },
    "rows": {"core"},
    "adapting": {"config", "core", "documents", "reranker"},
    "_langchain_candidates": set(),
    "langchain": {
        "_langchain_candidates",
        "adapting",
        "config",
        "core",
        "documents",
        "reranker",
        "telemetry",
    },  # its spans
    "llama_index": {"adapting", "config", "core", "documents", "reranker"},
    "lancedb": {"adapting", "core", "documents", "reranker"},
    "evaluation": {"config", "core", "reranker", "rows"},
    "serving": {"__init__", "config", "core", "documents", "reranker", "rows"},  # the version
    "cli": {
        "__init__",
        "calibration",
        "config",
        "core",
        "engine",
        "evaluation",
        "reranker",
        "rows",
        "serving",
    },
    "testing": {"config", "core", "reranker"},
    "__init__": {"config", "core", "reranker"},
    "__main__": {"cli"},
}
SEES_EVERYTHING_OF_OTHERS = {"cohere_aws", "recipes"}
"""The data that `families` makes backends of; and the part of one backend in a file of its own."""
ADAPTERS = ("_langchain_candidates", "adapting", "lancedb", "langchain", "llama_index")
THIRD_PARTY_AT_THE_TOP = {*ADAPTERS, "serving", "testing"}
"""Rooms that nobody enters without the package they need: all others import such packages inside functions."""
DECLARES_OPTIONS = {"backends", "config", "option_errors", "options", "policies"}
"""Rooms that are entered when a spec is parsed: their options are pydantic models."""
LONGEST = 400
LONGER = {
    "config/keywords.py": 700,
    "engine/tokenizer.py": 420,
    "testing/laws.py": 490,
    "testing/server.py": 440,
}
"""Files that are past the limit, and may shrink but not grow; `keywords` is generated, one line an option; `tokenizer` holds with the
tokenizer how its file is read and how many tokens a model takes, which nobody needs apart."""
NOT_OUR_WORDS = {"provider", "service", "handler", "helper", "util", "utils", "manager"}
NOT_FOR_USERS = {"docs", "texts", "res"}
FOR_USERS = {"__init__", "config", "core", "lancedb", "langchain", "llama_index", "reranker"}
"""Rooms whose parameters people write: there a document is a document."""


def name(file: Path) -> str:
    return file.relative_to(ROOT).as_posix()


def room(file: Path) -> str:
    return file.relative_to(ROOT).parts[0].removesuffix(".py")


def imports(file: Path, nodes: Iterator[ast.AST] | None = None) -> Iterator[str]:
    """Yield every module that a file imports, in full: `rerank_plugins.core.types`, `numpy.linalg`."""
    package = ["rerank_plugins", *file.relative_to(ROOT).parent.parts]
    for node in ast.walk(TREES[file]) if nodes is None else nodes:
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and not node.level:
            yield node.module or ""
        elif isinstance(node, ast.ImportFrom):
            base = package[: len(package) - node.level + 1]
            if node.module:
                yield ".".join([*base, node.module])
            else:  # from . import this, that
                for alias in node.names:
                    inside = ROOT.joinpath(*base[1:], alias.name)
                    known = inside.is_dir() or inside.with_suffix(".py").is_file()
                    yield ".".join([*base, alias.name]) if known else ".".join([*base, "__init__"])


def own(module: str) -> list[str]:
    """Return the rooms and files of one of our modules: `rerank_plugins.core.types` is `["core", "types"]`."""
    top, *inside = module.split(".")
    return (inside or ["__init__"]) if top == "rerank_plugins" else []


def outermost(file: Path) -> Iterator[ast.AST]:
    """Yield what runs when a file is imported: no function bodies, nothing only for type checkers."""

    def inside(body: list[ast.stmt]) -> Iterator[ast.AST]:
        for node in body:
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                continue
            if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test):
                yield from inside(node.orelse)
                continue
            yield node
            for part in ("body", "orelse", "finalbody"):
                yield from inside(getattr(node, part, []))
            for caught in getattr(node, "handlers", []):
                yield from inside(caught.body)

    return inside(TREES[file].body)


def test_the_walk_sees_imports():
    """What the other tests stand on: a known import inside a function, and one at the top."""
    assert "rerank_plugins.core.errors" in set(imports(ROOT / "config" / "build.py"))
    assert "rerank_plugins.transport" in set(imports(ROOT / "config" / "build.py"))
    assert "rerank_plugins.transport" not in set(
        imports(ROOT / "config" / "build.py", outermost(ROOT / "config" / "build.py"))
    )
    assert own("rerank_plugins.core.types") == ["core", "types"]


@pytest.mark.parametrize("file", FILES, ids=name)
def test_direction(file):
    here = room(file)
    assert here in MAY_LOOK_AT, f"{here} is a new room: say in MAY_LOOK_AT what it may look at"
    for module in imports(file):
        looked_at = own(module)
        if looked_at and looked_at[0] != here:
            assert looked_at[0] in MAY_LOOK_AT[here], f"{name(file)} imports {module}"


@pytest.mark.parametrize("file", [file for file in FILES if room(file) == "backends"], ids=name)
def test_no_backend_imports_another(file):
    for module in imports(file):
        looked_at = own(module)
        if looked_at[:1] == ["backends"] and len(looked_at) > 1:
            assert SEES_EVERYTHING_OF_OTHERS & {file.stem, looked_at[1]}, f"{name(file)} imports {module}"


@pytest.mark.parametrize("file", [file for file in FILES if room(file) not in THIRD_PARTY_AT_THE_TOP], ids=name)
def test_what_is_heavy_is_imported_where_it_is_used(file):
    allowed = {"rerank_plugins", *({"pydantic", "pydantic_core"} if room(file) in DECLARES_OPTIONS else ())}
    for module in imports(file, outermost(file)):
        top = module.split(".")[0]
        assert top in sys.stdlib_module_names or top in allowed, f"{name(file)} imports {module} at its top"


def test_core_is_the_standard_library_and_itself():
    for file in FILES:
        if room(file) == "core":
            tops = {module.split(".")[0] for module in imports(file)} - {"rerank_plugins"}
            assert tops <= set(sys.stdlib_module_names), name(file)


def test_one_file_knows_the_http_client():
    users = {name(file) for file in FILES if any(module.split(".")[0] == "httpx" for module in imports(file))}
    assert users == {"transport.py"}


def identifiers(file: Path) -> Iterator[str]:
    """Yield every name and every text of a file except docstrings."""
    documented = (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)
    docstrings = {
        id(node.body[0].value)
        for node in ast.walk(TREES[file])
        if isinstance(node, documented) and node.body and isinstance(node.body[0], ast.Expr)
    }
    for node in ast.walk(TREES[file]):
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and id(node) not in docstrings:
            yield node.value
        for field in ("id", "attr", "arg", "name", "module"):
            if isinstance(value := getattr(node, field, None), str):
                yield value


@pytest.mark.parametrize("adapter", ADAPTERS)
def test_adapters_know_no_vendor(adapter):
    vendors = [vendor.removesuffix("-api") for vendor, entry in BUILTIN.items() if entry.kind in ("hosted", "server")]
    vendors.remove("http")
    pattern = re.compile("|".join(map(re.escape, vendors)), re.IGNORECASE)
    assert pattern.search("Cohere")
    found = [text for text in identifiers(ROOT / f"{adapter}.py") if pattern.search(text)]
    assert found == []


def test_only_the_command_prints():
    printing = {
        name(file)
        for file, tree in TREES.items()
        for node in ast.walk(tree)
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "print"
    }
    assert {file.split("/")[0] for file in printing} == {"cli"}


@pytest.mark.parametrize("file", FILES, ids=name)
def test_files_stay_small(file):
    lines = len(file.read_text("utf-8").splitlines())
    assert lines <= LONGER.get(name(file), LONGEST), f"{name(file)} has {lines} lines: it holds more than one idea"


def words(identifier: str) -> set[str]:
    return {word.lower() for word in re.findall(r"[A-Z]+(?![a-z])|[A-Z]?[a-z]+", identifier)}


def public(file: Path) -> Iterator[str]:
    """Yield the public names that a file gives the world: modules, classes, functions, methods, parameters, constants."""
    yield from (part for part in name(file).removesuffix(".py").split("/") if not part.startswith("_"))

    def inside(body: list[ast.stmt]) -> Iterator[str]:
        for node in body:
            if isinstance(node, ast.ClassDef) and not node.name.startswith("_"):
                yield node.name
                yield from inside(node.body)
            elif isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                if node.name.startswith("_") and node.name != "__init__":
                    continue
                yield node.name
                arguments = node.args
                yield from (each.arg for each in (*arguments.posonlyargs, *arguments.args, *arguments.kwonlyargs))
            elif isinstance(node, ast.Assign | ast.AnnAssign):
                targets = node.targets if isinstance(node, ast.Assign) else [node.target]
                yield from (target.id for target in targets if isinstance(target, ast.Name))

    yield from (each for each in inside(TREES[file].body) if not each.startswith("_"))


@pytest.mark.parametrize("file", FILES, ids=name)
def test_house_words(file):
    assert words("HTTPHandlerOf_my_utils") >= {"handler", "utils"}
    forbidden = NOT_OUR_WORDS | NOT_FOR_USERS if room(file) in FOR_USERS else NOT_OUR_WORDS
    wrong = [each for each in public(file) if words(each) & forbidden]
    assert wrong == [], f"{name(file)}: DESIGN.md, Words"


def test_tests_that_ask_a_clock_stand_where_make_looks_for_them():
    """`make test` collects them from the files that name the mark, and leaves them out everywhere else."""
    tests = Path(__file__).parent
    marked = [
        file
        for folder in (tests, ROOT)
        for file in folder.rglob("*.py")
        if "mark." + "alone" in file.read_text("utf-8")
    ]
    assert marked
    assert [file.name for file in marked if not file.name.startswith("test_") or not file.is_relative_to(tests)] == []
