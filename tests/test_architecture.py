"""Rules about the source itself: which package may import which, how long a file may be, and which names are not used.

The rules are checked on the syntax tree, so imports inside functions count too.
"""

from __future__ import annotations

import ast
import collections
import re
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path

import pytest
from support.source import parse_source

import rerank_plugins
from rerank_plugins.config.registry import builtin_entries

ROOT = Path(rerank_plugins.__file__).parent
REPOSITORY = Path(__file__).parents[1]
FILES = sorted(ROOT.rglob("*.py"))
TREES = {file: parse_source(file.read_text("utf-8")) for file in FILES}
FOLDERS = ("rerank_plugins", "tests", "benchmarks", "training", "examples")
ALL_FILES = sorted(file for folder in FOLDERS for file in (REPOSITORY / folder).rglob("*.py"))

MAY_IMPORT: dict[str, set[str]] = {
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
    "structured_documents": {"core", "yaml_text"},
    "documents": {"core", "structured_documents"},
    "reranker": {
        "core",
        "config",
        "documents",
        "structured_documents",
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
    "jsonl": {"core"},
    "ray_cluster": {"core"},
    "_adapter": {"config", "core", "documents", "reranker"},
    "_langchain_candidates": set(),
    "_chat_model": {"config", "core", "reranker"},
    "_langchain_chat": {"_chat_model", "core", "reranker"},
    "_llama_index_chat": {"_chat_model", "core", "reranker"},
    "_langchain_configurable": {"config"},
    "langchain": {
        "_langchain_candidates",
        "_langchain_chat",
        "_langchain_configurable",
        "_adapter",
        "config",
        "core",
        "documents",
        "reranker",
        "telemetry",
    },  # its spans
    "llama_index": {"_adapter", "_llama_index_chat", "config", "core", "documents", "reranker"},
    "lancedb": {"_adapter", "core", "documents", "reranker"},
    # The version, and of engine the client of the hub.
    "evaluation": {"__init__", "config", "core", "engine", "reranker", "jsonl", "ray_cluster"},
    "serving": {"__init__", "config", "core", "documents", "reranker", "jsonl", "ray_cluster"},  # the version
    "cli": {
        "__init__",
        "calibration",
        "config",
        "core",
        "engine",
        "evaluation",
        "reranker",
        "jsonl",
        "serving",
    },
    "testing": {"config", "core", "reranker"},
    "__init__": {"config", "core", "reranker"},
    "__main__": {"cli"},
}
SHARED_BY_BACKENDS = {
    "access_tokens",
    "cohere_aws",
    "embedded_options",
    "formats",
    "preset_backend",
    "preset_options",
    "presets",
    "prices",
    "recipes",
    "server_info",
}
"""Modules of `backends/` that others there may import: data (`recipes` of `families`, `presets`, `prices`), what `http`
and the presets share, what servers say about themselves, the base of the presets with a token or a signature, a
part of `cohere`, and the options of `embedded`, which loads without them."""
ADAPTERS = (
    "_langchain_candidates",
    "_langchain_configurable",
    "_langchain_chat",
    "_llama_index_chat",
    "_chat_model",
    "_adapter",
    "lancedb",
    "langchain",
    "llama_index",
)
THIRD_PARTY_AT_THE_TOP = {*ADAPTERS, "serving", "testing"}
"""Packages that need their third-party package to be imported at all. All others import it inside functions."""
MAY_IMPORT_PYDANTIC = {"backends", "config", "option_errors", "options", "policies"}
"""Packages that are imported when a spec is parsed: their options are pydantic models."""
LONGEST = 400
LONGER = {
    "config/keywords.py": 1120,
    "_adapter.py": 440,
    "config/sources.py": 425,
    "core/_runtime/background_loop.py": 430,
    "core/scorer.py": 410,
    "documents.py": 410,
    "engine/checkpoint.py": 405,
    "engine/onnx/cross_encoder.py": 430,
    "engine/tokenizer.py": 425,
    "langchain.py": 440,
    "options.py": 540,
    "reranker.py": 470,
    "serving/app.py": 410,
    "testing/hosted_laws.py": 470,
    "testing/laws.py": 490,
}
"""Files above `LONGEST`: they may shrink but not grow.

`keywords` is generated, one line per option. A third of `options` is docstrings and examples of its public models.
`sources` reads specs and writes them back as plain data: each form of a spec that it reads is one that it writes.
`reranker`, `langchain` and `_adapter` hold a few public classes each, whose docstrings describe every
argument. `hosted_laws` is one suite. `serving/app` holds every route of the server.
`documents` also says what to pass instead of other objects. `checkpoint` holds every reason to refuse a folder.
`cross_encoder` is all that runs an ONNX file on onnxruntime. `tokenizer` also reads the tokenizer's file and the
model's maximum length: nothing else needs either.
"""
VAGUE_WORDS = {"provider", "service", "handler", "helper", "util", "utils", "manager"}
NOT_IN_THE_API = {"docs", "texts", "res"}
PUBLIC_PACKAGES = {"__init__", "config", "core", "lancedb", "langchain", "llama_index", "reranker"}
"""Packages whose parameter names users write: there a document is called `document`."""
BANNED_NAMES = {"told", "asked", "found", "given", "noted", "kept", "most", "each", "who", "room"}
"""Names that say nothing about the value: a reader cannot search for them. `each` may be the target of a loop."""
MOST_DEFINITIONS = 4
"""In how many modules of the package a module-level function of one name may be defined."""


def name(file: Path) -> str:
    return file.relative_to(ROOT).as_posix()


def package_of(file: Path) -> str:
    return file.relative_to(ROOT).parts[0].removesuffix(".py")


def imports(file: Path, nodes: Iterator[ast.AST] | None = None) -> Iterator[str]:
    """Yield the full name of every module that a file imports: `rerank_plugins.core.types`, `numpy.linalg`."""
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
            else:  # from . import a, b
                for alias in node.names:
                    path = ROOT.joinpath(*base[1:], alias.name)
                    is_module = path.is_dir() or path.with_suffix(".py").is_file()
                    yield ".".join([*base, alias.name]) if is_module else ".".join([*base, "__init__"])


def path_in_package(module: str) -> list[str]:
    """Return the parts of a module's name below our package, or nothing for another package's module."""
    top, *rest = module.split(".")
    return (rest or ["__init__"]) if top == "rerank_plugins" else []


def statements_run_at_import(file: Path) -> Iterator[ast.AST]:
    """Yield the statements that run when a file is imported: no function bodies, no `if TYPE_CHECKING` bodies."""

    def walk(body: list[ast.stmt]) -> Iterator[ast.AST]:
        for node in body:
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                continue
            if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test):
                yield from walk(node.orelse)
                continue
            yield node
            for part in ("body", "orelse", "finalbody"):
                yield from walk(getattr(node, part, []))
            for except_clause in getattr(node, "handlers", []):
                yield from walk(except_clause.body)

    return walk(TREES[file].body)


def test_import_walk_sees_imports_at_the_top_and_inside_functions():
    """The other tests rely on the walk: check it on known imports of one file."""
    build = ROOT / "config" / "build.py"
    assert "rerank_plugins.core.errors" in set(imports(build))
    assert "rerank_plugins.transport" in set(imports(build))
    assert "rerank_plugins.transport" not in set(imports(build, statements_run_at_import(build)))
    assert path_in_package("rerank_plugins.core.types") == ["core", "types"]


@pytest.mark.parametrize("file", FILES, ids=name)
def test_package_imports_only_what_it_may(file):
    package = package_of(file)
    assert package in MAY_IMPORT, f"{package} is a new package: add to MAY_IMPORT what it may import"
    for module in imports(file):
        target = path_in_package(module)
        if target and target[0] != package:
            assert target[0] in MAY_IMPORT[package], f"{name(file)} imports {module}"


@pytest.mark.parametrize("file", [file for file in FILES if package_of(file) == "backends"], ids=name)
def test_backend_imports_no_other_backend(file):
    for module in imports(file):
        target = path_in_package(module)
        if target[:1] == ["backends"] and len(target) > 1:
            assert SHARED_BY_BACKENDS & {file.stem, target[1]}, f"{name(file)} imports {module}"


@pytest.mark.parametrize("file", [file for file in FILES if package_of(file) not in THIRD_PARTY_AT_THE_TOP], ids=name)
def test_third_party_packages_are_imported_inside_functions(file):
    allowed = {"rerank_plugins", *({"pydantic", "pydantic_core"} if package_of(file) in MAY_IMPORT_PYDANTIC else ())}
    for module in imports(file, statements_run_at_import(file)):
        top = module.split(".")[0]
        assert top in sys.stdlib_module_names or top in allowed, f"{name(file)} imports {module} at its top"


def test_core_imports_only_itself_and_the_standard_library():
    """`typing_extensions` is for type checkers alone: the test above holds that no file imports it at run time."""
    for file in FILES:
        if package_of(file) == "core":
            tops = {module.split(".")[0] for module in imports(file)} - {"rerank_plugins", "typing_extensions"}
            assert tops <= set(sys.stdlib_module_names), name(file)


def test_only_transport_imports_httpx():
    users = {name(file) for file in FILES if any(module.split(".")[0] == "httpx" for module in imports(file))}
    assert users == {"transport.py"}


def names_and_strings(file: Path) -> Iterator[str]:
    """Yield every name and every string of a file except docstrings."""
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
def test_adapter_names_no_vendor(adapter):
    vendors = [
        vendor.removesuffix("-api") for vendor, entry in builtin_entries().items() if entry.kind in ("hosted", "server")
    ]
    for other_meaning in ("chat", "contextual", "http", "together"):
        vendors.remove(other_meaning)
    pattern = re.compile("|".join(map(re.escape, vendors)), re.IGNORECASE)
    assert pattern.search("Cohere")
    assert [text for text in names_and_strings(ROOT / f"{adapter}.py") if pattern.search(text)] == []


def test_only_the_cli_prints():
    printing = {
        name(file)
        for file, tree in TREES.items()
        for node in ast.walk(tree)
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "print"
    }
    assert {file.split("/")[0] for file in printing} == {"cli"}


@pytest.mark.parametrize("file", FILES, ids=name)
def test_file_is_not_longer_than_its_limit(file):
    lines = len(file.read_text("utf-8").splitlines())
    assert lines <= LONGER.get(name(file), LONGEST), f"{name(file)} has {lines} lines: it holds more than one idea"


def words(identifier: str) -> set[str]:
    return {word.lower() for word in re.findall(r"[A-Z]+(?![a-z])|[A-Z]?[a-z]+", identifier)}


def public_names(file: Path) -> Iterator[str]:
    """Yield the public names of a file: modules, classes, functions, methods, parameters, constants."""
    yield from (part for part in name(file).removesuffix(".py").split("/") if not part.startswith("_"))

    def walk(body: list[ast.stmt]) -> Iterator[str]:
        for node in body:
            if isinstance(node, ast.ClassDef) and not node.name.startswith("_"):
                yield node.name
                yield from walk(node.body)
            elif isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                if node.name.startswith("_") and node.name != "__init__":
                    continue
                yield node.name
                arguments = node.args
                yield from (
                    argument.arg for argument in (*arguments.posonlyargs, *arguments.args, *arguments.kwonlyargs)
                )
            elif isinstance(node, ast.Assign | ast.AnnAssign):
                targets = node.targets if isinstance(node, ast.Assign) else [node.target]
                yield from (target.id for target in targets if isinstance(target, ast.Name))

    yield from (identifier for identifier in walk(TREES[file].body) if not identifier.startswith("_"))


@pytest.mark.parametrize("file", FILES, ids=name)
def test_public_names_have_no_vague_word(file):
    assert words("HTTPHandlerOf_my_utils") >= {"handler", "utils"}
    forbidden = VAGUE_WORDS | NOT_IN_THE_API if package_of(file) in PUBLIC_PACKAGES else VAGUE_WORDS
    assert [identifier for identifier in public_names(file) if words(identifier) & forbidden] == []


def bound_names(tree: ast.AST) -> Iterator[tuple[str, int]]:
    """Yield (name, line) of everything that a file binds, except the targets of loops and comprehensions."""
    loops = [node.target for node in ast.walk(tree) if isinstance(node, ast.For | ast.AsyncFor | ast.comprehension)]
    targets = {id(node) for target in loops for node in ast.walk(target)}
    for node in ast.walk(tree):
        if isinstance(node, ast.Name | ast.Attribute) and isinstance(node.ctx, ast.Store):
            identifier = node.id if isinstance(node, ast.Name) else node.attr
            if id(node) not in targets or identifier != "each":
                yield identifier, node.lineno
        elif isinstance(node, ast.arg):
            yield node.arg, node.lineno
        elif isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            yield node.name, node.lineno
        elif isinstance(node, ast.alias) and node.asname:
            yield node.asname, 0
        elif isinstance(node, ast.ExceptHandler | ast.MatchAs | ast.MatchStar) and node.name:
            yield node.name, node.lineno


def banned(tree: ast.AST) -> list[tuple[str, int]]:
    return [bound for bound in bound_names(tree) if bound[0].strip("_").lower() in BANNED_NAMES | VAGUE_WORDS]


def test_banned_names_are_seen_in_every_kind_of_binding():
    source = "def asked(told, *, _kept=1):\n    for each in told: found = each\n    with open(given) as most: pass\n"
    source += "import json as utils\neach = 1\n"
    source += "try: pass\nexcept OSError as given: self.noted = {each for each in ()}\n"
    seen = sorted(identifier.strip("_") for identifier, _ in banned(parse_source(source)))
    assert seen == ["asked", "each", "found", "given", "kept", "most", "noted", "told", "utils"]


@pytest.mark.parametrize("file", ALL_FILES, ids=lambda file: file.relative_to(REPOSITORY).as_posix())
def test_file_binds_no_banned_name(file):
    assert banned(parse_source(file.read_text("utf-8"))) == []


def test_function_names_are_not_defined_in_many_modules():
    """A name that many modules define says too little: a search for it does not lead to one function."""
    modules: dict[str, set[str]] = collections.defaultdict(set)
    for file, tree in TREES.items():
        if package_of(file) != "cli":
            for node in ast.iter_child_nodes(tree):
                if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) and not node.name.startswith("__"):
                    modules[node.name].add(name(file))
    assert {function: sorted(files) for function, files in modules.items() if len(files) > MOST_DEFINITIONS} == {}


@pytest.mark.parametrize("file", FILES, ids=name)
def test_method_that_subclasses_must_define_is_abstract(file):
    """A bare `raise NotImplementedError` is found by the first call; an abstract method, when the object is made."""
    raised = [node.exc for node in ast.walk(TREES[file]) if isinstance(node, ast.Raise)]
    assert not [exc.lineno for exc in raised if isinstance(exc, ast.Name) and exc.id == "NotImplementedError"]


def documents() -> Iterable[Path]:
    texts = [file for file in ALL_FILES if file != Path(__file__)]
    return [*texts, *REPOSITORY.glob("*.md"), *(REPOSITORY / "docs").rglob("*.md"), REPOSITORY / "pyproject.toml"]


def test_no_text_refers_to_a_file_outside_of_the_repository():
    pattern = re.compile(r"\b(?:DESIGN|peers|speed|faults|redesign|landscape)\.md\b")
    assert pattern.search("see DESIGN.md, Words")
    files = [file.relative_to(REPOSITORY).as_posix() for file in documents() if pattern.search(file.read_text("utf-8"))]
    assert files == []


def test_clock_tests_are_where_make_test_looks_for_them():
    """`make test` collects the tests marked `alone` from the files that name the mark, and deselects them elsewhere."""
    tests = Path(__file__).parent
    marked = [
        file
        for folder in (tests, ROOT)
        for file in folder.rglob("*.py")
        if "mark." + "alone" in file.read_text("utf-8")
    ]
    assert marked
    assert [file.name for file in marked if not file.name.startswith("test_") or not file.is_relative_to(tests)] == []
