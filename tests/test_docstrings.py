"""The docstrings of the public API: they are complete, and their examples run.

To see what is missing: `python tests/test_docstrings.py` prints it in the form of `MISSING`.
"""

from __future__ import annotations

import ast
import doctest
import importlib
import inspect
import pkgutil
import re
import textwrap
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from support.source import parse_source

import rerank_plugins

ROOT = Path(rerank_plugins.__file__).parent
PUBLIC_MODULES = (
    "rerank_plugins",
    "rerank_plugins.core",
    "rerank_plugins.evaluation",
    "rerank_plugins.lancedb",
    "rerank_plugins.langchain",
    "rerank_plugins.llama_index",
    "rerank_plugins.options",
    "rerank_plugins.serving.ray_data",
    "rerank_plugins.serving.ray_serve",
    "rerank_plugins.testing.cohere_like",
    "rerank_plugins.testing.contract",
    "rerank_plugins.testing.server",
)
MISSING: dict[str, set[str]] = {}
"""What is not written yet, by public name. It only shrinks: write the docstring, then take the entry out."""
FRAGMENTS: dict[str, str] = {
    "rerank_plugins.evaluation.ray_pool": "a Ray cluster; tests/evaluation/test_scale.py makes the same calls on one",
    "rerank_plugins.serving.ray_data": "a Ray cluster; tests/serving/test_ray.py makes the same calls on one",
    "rerank_plugins.serving.ray_serve": "a Ray cluster; tests/serving/test_ray.py makes the same calls on one",
}
"""Modules whose fenced examples are not executed, and why."""
_ENVIRONMENT = ("RERANK_PLUGINS_RERANKER", "RERANK_PLUGINS_CONFIG")


def modules() -> Iterator[str]:
    """Yield the name of every module of the package whose source may hold an example."""
    names = ["rerank_plugins"]
    names += [module.name for module in pkgutil.walk_packages([str(ROOT)], "rerank_plugins.", onerror=lambda _: None)]
    for name in names:
        path = ROOT.joinpath(*name.split(".")[1:])
        source = (path / "__init__.py" if path.is_dir() else path.with_suffix(".py")).read_text("utf-8")
        if ">>>" in source or "```python" in source:
            yield name


def docstrings(module: str) -> Iterator[tuple[str, int, str]]:
    """Yield (name, line, docstring) of every module, class and function in the source of `module`."""
    path = Path(inspect.getsourcefile(importlib.import_module(module)) or "")
    kinds = (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)
    for node in ast.walk(parse_source(path.read_text("utf-8"))):
        if isinstance(node, kinds) and (text := ast.get_docstring(node)):
            yield getattr(node, "name", module), getattr(node, "lineno", 1), text


@pytest.mark.parametrize("module", list(modules()))
def test_examples_in_docstrings_run(module, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for variable in _ENVIRONMENT:
        monkeypatch.delenv(variable, raising=False)
    namespace = vars(importlib.import_module(module))
    parser = doctest.DocTestParser()
    for name, line, text in docstrings(module):
        runner = doctest.DocTestRunner(optionflags=doctest.ELLIPSIS | doctest.NORMALIZE_WHITESPACE)
        output: list[str] = []
        runner.run(parser.get_doctest(text, dict(namespace), name, module, line), out=output.append)
        assert not runner.failures, "".join(output)
        if module not in FRAGMENTS:
            for code in re.findall(r"```python\n(.*?)```", text, re.DOTALL):
                exec(compile(textwrap.dedent(code), f"<docstring of {module}.{name}>", "exec"), dict(namespace))


def public_objects() -> Iterator[tuple[str, Any]]:
    """Yield (qualified name, object) of each public class and function that is the package's own, once each."""
    seen: set[int] = set()
    for module in PUBLIC_MODULES:
        loaded = importlib.import_module(module)
        own = [name for name, value in vars(loaded).items() if getattr(value, "__module__", None) == module]
        for name in getattr(loaded, "__all__", own):
            value = getattr(loaded, name)
            is_documented = inspect.isclass(value) or inspect.isfunction(value)
            if name.startswith("_") or not is_documented or id(value) in seen:
                continue
            if value.__module__.partition(".")[0] == "rerank_plugins":
                seen.add(id(value))
                yield f"{module}.{name}", value


def test_examples_and_public_names_are_found():
    """What the other tests stand on: neither list is empty."""
    assert "rerank_plugins.core.response" in list(modules())
    names = dict(public_objects())
    assert {"rerank_plugins.Reranker", "rerank_plugins.load_reranker", "rerank_plugins.core.Scorer"} <= set(names)
    assert problems("f", lambda top_n: top_n) == {"docstring", "example"}


def problems(name: str, value: Any) -> set[str]:
    """Return what the docstrings of a public class or function lack."""
    text = inspect.getdoc(value) if not inspect.isclass(value) else value.__doc__
    if not text:
        return {"docstring", "example"}
    missing = set()
    is_error = inspect.isclass(value) and issubclass(value, Exception)
    if ">>>" not in text and "```" not in text and not is_error:  # core/errors.py shows how errors are caught
        missing.add("example")
    if not inspect.isclass(value):
        return missing | sections(value)
    missing |= {f"Args: {field}" for field in undocumented_fields(value)}
    own_init = vars(value).get("__init__")
    if inspect.isfunction(own_init) and "." in own_init.__qualname__ and not is_generated(value):
        missing |= sections(own_init, text)
    for method_name, method in vars(value).items():
        function = method.__func__ if isinstance(method, classmethod | staticmethod) else method
        if method_name.startswith(("_", "test_")) or not inspect.isfunction(
            function
        ):  # pytest passes fixtures to tests
            continue
        if any(hasattr(base, method_name) for base in value.__mro__[1:]):  # documented where it is declared
            continue
        missing |= {f"{method_name}: {problem}" for problem in sections(function)}
    return missing


def is_generated(kind: type) -> bool:
    """Return whether the constructor follows from the fields: a dataclass, a pydantic model, a TypedDict."""
    return hasattr(kind, "__dataclass_fields__") or hasattr(kind, "model_fields") or hasattr(kind, "__total__")


def undocumented_fields(kind: type) -> Iterator[str]:
    """Yield the annotated public attributes of a class that neither a string below them nor `Args:` describes."""
    try:
        (node,) = (
            child
            for child in ast.walk(parse_source(textwrap.dedent(inspect.getsource(kind))))
            if isinstance(child, ast.ClassDef) and child.name == kind.__name__
        )
    except (OSError, TypeError):  # a generated class
        return
    text = kind.__doc__ or ""
    for statement, following in zip(node.body, [*node.body[1:], None], strict=True):
        if not (isinstance(statement, ast.AnnAssign) and isinstance(statement.target, ast.Name)):
            continue
        name = statement.target.id
        is_described = isinstance(following, ast.Expr) and isinstance(following.value, ast.Constant)
        if not name.startswith("_") and not is_described and not names_argument(text, name):
            yield name


def names_argument(text: str, name: str) -> bool:
    return re.search(rf"^ *\*{{0,2}}{re.escape(name)}(?: \(.*?\))?:", text, re.MULTILINE) is not None


def sections(function: Callable[..., Any], class_text: str = "") -> set[str]:
    """Return which of the sections Args, Returns and Raises the docstring of a function lacks."""
    text = f"{class_text}\n{inspect.getdoc(function) or ''}"
    parameters = inspect.signature(function).parameters
    documented = {name for name in parameters if names_argument(text, name)}
    missing = {
        f"Args: {name}"
        for name in parameters
        # A method of one argument says what it is in its first sentence, in backquotes.
        if name not in ("self", "cls")
        and not name.startswith("_")
        and name not in documented
        and f"`{name}`" not in text
    }
    annotation = str(inspect.signature(function).return_annotation)
    returns = annotation not in ("None", "Self", str(inspect.Signature.empty)) and function.__name__ != "__init__"
    if returns and not re.search(r"^\s*(?:Returns|Yields):|^\s*(?:Return|Yield)\b", text, re.MULTILINE):
        missing.add("Returns")
    if raises(function) and "Raises:" not in text:
        missing.add("Raises")
    return missing


def raises(function: Callable[..., Any]) -> bool:
    """Return whether a function itself raises an error; `NotImplementedError` and bare `raise` do not count."""
    tree = parse_source(textwrap.dedent(inspect.getsource(inspect.unwrap(function))))
    raised = [ast.unparse(node.exc) for node in ast.walk(tree) if isinstance(node, ast.Raise) and node.exc]
    return any(re.match(r"[A-Z]\w+\(", text) and not text.startswith("NotImplementedError") for text in raised)


def all_problems() -> dict[str, set[str]]:
    return {name: missing for name, value in public_objects() if (missing := problems(name, value))}


def test_public_names_are_documented_with_examples():
    missing = {name: lacking - MISSING.get(name, set()) for name, lacking in all_problems().items()}
    assert {name: sorted(lacking) for name, lacking in missing.items() if lacking} == {}


if __name__ == "__main__":
    for public_name, lacking in all_problems().items():
        print(f'    "{public_name}": {{{", ".join(map(repr, sorted(lacking)))}}},')
