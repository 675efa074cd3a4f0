"""Generates files from the option models: JSON Schema of `rerank.toml` and types of keywords.

`python -m rerank_plugins.config.generate` writes the committed files, and a test compares them with the models.
`docs/generate.py` makes the reference of options from the schema. The descriptions are the docstrings under the
models' attributes. They are read from the source here, because pydantic's `use_attribute_docstrings` parses the
source of each class at import.
"""

from __future__ import annotations

import ast
import dataclasses
import functools
import gc
import importlib
import inspect
import json
import re
import textwrap
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from pydantic import BaseModel
from pydantic.json_schema import models_json_schema

from ..core.scorer import Backend
from ..option_errors import find_model
from .registry import BackendEntry, backend_class, builtin_entries, entries, options_model
from .schema import HOSTED, LOCAL, NOT_OF_A_CASCADE, RerankerOptions

__all__ = ["json_schema", "keywords"]

DIALECT = "https://json-schema.org/draft/2020-12/schema"
SPEC = "Spec"
RERANKER = "RerankerOptions"
WIDTH = 120


def json_schema(*, plugins: bool = True) -> dict[str, Any]:
    """Return the JSON Schema (draft 2020-12) of a configuration file. Its `#/$defs/Spec` is the schema of one spec.

    Args:
        plugins: Whether to include installed backends of other packages.
    """
    tables = {name: _options(name, entry) for name, entry in _entries(plugins)}
    models: list[type[BaseModel]] = [RerankerOptions]
    models += dict.fromkeys(each for each in tables.values() if each is not None)
    inputs, schema = models_json_schema([(each, "validation") for each in models], ref_template="#/$defs/{model}")
    names = {model: reference["$ref"].rpartition("/")[2] for (model, _), reference in inputs.items()}
    definitions = schema["$defs"]
    for name, model in _models(models).items():
        if name in definitions:
            _describe(definitions[name], model)
    reranker = definitions[RERANKER]
    reranker["properties"]["use"] = {
        "type": "string",
        "pattern": _pattern(plugins),
        "description": reranker["properties"]["use"]["description"],
    }
    reranker["properties"]["long_documents"]["default"] = "truncate"
    own_first = sorted(reranker["properties"], key=lambda name: (name in LOCAL, name in HOSTED, name != "use"))
    reranker["properties"] = {name: reranker["properties"][name] for name in own_first}
    for name, options in tables.items():
        own = {"type": "object"} if options is None else {"$ref": f"#/$defs/{names[options]}"}
        reranker["properties"][name] = {**own, "description": f"Options of {name}: {entries()[name].summary}."}
    reranker["if"] = {"properties": {"cascade": {"type": "object"}}, "required": ["cascade"]}
    reranker["then"] = {"properties": {name: {"type": "null"} for name in NOT_OF_A_CASCADE}}
    reranker["else"] = {"required": ["use"]}
    reranker["allOf"] = [_no_instruction(tables)]
    definitions[SPEC] = {
        "description": "A backend, backend and model, the name of a reranker in the file, or a mapping.",
        "anyOf": [{"type": "string", "minLength": 1}, {"$ref": f"#/$defs/{RERANKER}"}],
    }
    return {
        "$schema": DIALECT,
        "title": "Named rerankers of rerank_plugins",
        "type": "object",
        "properties": {
            "rerankers": {"type": "object", "additionalProperties": {"$ref": f"#/$defs/{RERANKER}"}},
        },
        "required": ["rerankers"],
        "$defs": dict(sorted(definitions.items())),
    }


def _entries(plugins: bool) -> Iterator[tuple[str, BackendEntry]]:
    for name, entry in entries().items():
        if entry.kind != "plugin" or plugins:
            yield name, entry


def _class(name: str, entry: BackendEntry) -> type[Backend]:
    if entry.kind == "plugin":
        return backend_class(name)
    module, _, attribute = entry.path.partition(":")
    kind: type[Backend] = getattr(importlib.import_module(module), attribute)  # works without the backend's packages
    return kind


def _options(name: str, entry: BackendEntry) -> type[BaseModel] | None:
    try:
        return options_model(_class(name, entry))
    except Exception:  # a third party's module may raise anything; then its table may hold anything
        if entry.kind != "plugin":
            raise
        return None


def _pattern(plugins: bool) -> str:
    """Return the regular expression of `use`."""
    with_model: list[str] = []
    without_model: list[str] = []
    for name, entry in _entries(plugins):
        takes_model = entry.kind == "plugin" or _takes_model(name, entry)
        (with_model if takes_model else without_model).append(re.escape(name).replace(r"\-", "-"))
    return f"^(({'|'.join(sorted(with_model))})(:.*)?|({'|'.join(sorted(without_model))}):?)$"


def _takes_model(name: str, entry: BackendEntry) -> bool:
    return "model" in inspect.signature(_class(name, entry)).parameters


def _no_instruction(tables: Iterable[str]) -> dict[str, Any]:
    """Return a condition: an `instruction` needs a backend that may follow one.

    Only backends without models are listed, because others depend on the model. A fusion may follow an instruction by
    another of its parts.
    """
    builtin = builtin_entries()
    names = [
        re.escape(name)
        for name in tables
        if name in builtin
        and not _takes_model(name, builtin[name])
        and not _class(name, builtin[name]).capabilities.instructions
    ]
    return {
        "if": {
            "properties": {"use": {"pattern": f"^({'|'.join(names)}):?$"}, "fuse": {"type": "null"}},
            "required": ["use"],
        },
        "then": {"properties": {"instruction": {"enum": [None, ""]}}},
    }


def _models(models: Iterable[type[BaseModel]]) -> dict[str, type[BaseModel]]:
    """Return the models and the models inside them, by name."""
    by_name: dict[str, type[BaseModel]] = {}
    waiting = list(models)
    while waiting:
        model = waiting.pop()
        if model.__name__ not in by_name:
            by_name[model.__name__] = model
            waiting += [
                inner for each in model.model_fields.values() if (inner := find_model(each.annotation)) is not None
            ]
    return by_name


def _describe(definition: dict[str, Any], model: type[BaseModel]) -> None:
    definition.pop("title", None)
    # The example in a docstring is for readers of the source.
    text, *_ = re.split(r"\n\s*(?:Example:|>>>|```)", inspect.getdoc(model) or "")
    definition["description"] = _one_line(text)
    described = descriptions(model)
    for name, field in model.model_fields.items():
        option = definition["properties"].get(field.alias or name)
        if option is None:
            continue
        if name == "client":  # a live object, which a file cannot contain
            del definition["properties"][name]
            continue
        option.pop("title", None)
        if name in described:
            option["description"] = described[name]


@functools.cache
def descriptions(model: type[BaseModel]) -> dict[str, str]:
    """Return the docstrings under the attributes of `model` and its bases, each as one line."""
    texts: dict[str, str] = {}
    for kind in reversed(model.__mro__):
        if kind is BaseModel or not (issubclass(kind, BaseModel) or dataclasses.is_dataclass(kind)):
            continue
        tree = _parse_class(kind)
        for node, after in zip(tree.body, tree.body[1:], strict=False):
            if (
                isinstance(node, ast.AnnAssign)
                and isinstance(after, ast.Expr)
                and isinstance(after.value, ast.Constant)
            ):
                texts[ast.unparse(node.target)] = _one_line(str(after.value.value))
    return texts


def _parse_class(kind: type) -> ast.ClassDef:
    """Return the syntax tree of a class.

    `inspect.getsource` parses too. CPython 3.11 raises SystemError if a garbage collection during a parse runs a
    finalizer that parses (https://github.com/python/cpython/issues/106905), so there is none in between.
    """
    collects = gc.isenabled()
    gc.disable()
    try:
        (tree,) = ast.parse(textwrap.dedent(inspect.getsource(kind))).body
    finally:
        if collects:
            gc.enable()
    assert isinstance(tree, ast.ClassDef)
    return tree


def _one_line(text: str) -> str:
    return " ".join(text.split())


def _references(schema: Any) -> list[str]:
    if isinstance(schema, Mapping):
        own = [schema["$ref"].rpartition("/")[2]] if "$ref" in schema else []
        return own + [name for key, each in schema.items() if key != "$ref" for name in _references(each)]
    return [name for each in schema for name in _references(each)] if isinstance(schema, list) else []


# --- the types of keywords ---


def keywords() -> str:
    """Return the module with `RerankerKeywords` and `KnownReranker`."""
    schema = json_schema(plugins=False)
    definitions = schema["$defs"]
    tables = [options for name, entry in builtin_entries().items() if (options := _options(name, entry))]
    models = _models([RerankerOptions, *tables])
    # A definition comes after the definitions that it refers to.
    ordered: dict[str, None] = {}

    def visit(name: str) -> None:
        if name in ordered or name == SPEC:
            return
        for inner in _references(definitions[name].get("properties", {})):
            visit(inner)
        ordered[name] = None

    visit(RERANKER)
    known = sorted({*builtin_entries(), *(f"{each.family}:{each.name}" for each in _recipes())})
    lines = [
        '"""The options of a spec as keyword arguments, for type checkers and editors.',
        "",
        "Generated from the option models by `python -m rerank_plugins.config.generate`: to change it, edit those.",
        '"""',
        "",
        "from __future__ import annotations",
        "",
        "import os",
        "from collections.abc import Callable, Mapping, Sequence",
        "from typing import Any, Literal, TypedDict",
        "",
        '__all__ = ["KnownReranker", "RerankerKeywords"]',
        "",
        "KnownReranker = Literal[",
        *(f"    {json.dumps(each)}," for each in known),
        "]",
        '"""Backends, and local models with a name. Other strings may be specs too."""',
    ]
    for name in ordered:
        lines += ["", "", *_typed_dict(name, definitions[name], models[name])]
    return "\n".join(lines) + "\n"


def _recipes() -> Iterable[Any]:
    recipes: Iterable[Any] = importlib.import_module("rerank_plugins.backends.recipes").MODELS
    return recipes


def _typed_dict(name: str, definition: Mapping[str, Any], model: type[BaseModel]) -> Iterator[str]:
    described = descriptions(model)
    fields: dict[str, tuple[str, str]] = {}
    for option, schema in definition["properties"].items():
        if option.isidentifier() or name != RERANKER:  # a name with a hyphen is no keyword
            fields[option] = (_type(schema), schema.get("description", ""))
    if "api_key" in fields:  # a file cannot contain a function
        kind, about = fields["api_key"]
        fields["api_key"] = f"{kind.removesuffix(' | None')} | Callable[[], Any] | None", about
    for own in model.model_fields.keys() & {"client", "similarity"}:  # live objects, which a file cannot contain
        fields[own] = ("Any", described[own])
    called = _keywords_name(name)
    text = definition["description"]
    if not {"lambda", "with"} & fields.keys():
        yield f"class {called}(TypedDict, total=False):"
        yield from _docstring(re.split(r"[.;] ", text)[0].rstrip(".") + ".")
        if fields:
            yield ""
        for option, (kind, about) in fields.items():
            yield f"    {option}: {kind}"
            yield from _docstring(about) if about else ()
        return
    # Some of its names are keywords of Python, so it cannot be written as a class.
    yield f"{called} = TypedDict("
    yield f'    "{called}",'
    yield "    {"
    for option, (kind, _) in fields.items():
        quote = "'" if '"' in kind else '"'
        yield f'        "{option}": {quote}{kind}{quote},'
    yield "    },"
    yield "    total=False,"
    yield ")"
    yield from _docstring(text, "")


def _docstring(text: str, indent: str = "    ") -> Iterator[str]:
    text = text.replace("\\", "\\\\")
    if len(indent) + len(text) + 6 <= WIDTH:
        yield f'{indent}"""{text}"""'
        return
    lines = textwrap.wrap(f'"""{text}"""', WIDTH - len(indent), break_long_words=False, break_on_hyphens=False)
    yield from (indent + line for line in lines)


def _keywords_name(definition: str) -> str:
    return f"{definition.removesuffix('Options')}Keywords"


def _type(schema: Mapping[str, Any]) -> str:
    """Return the Python type of a schema as source text."""
    if "anyOf" in schema:
        kinds = dict.fromkeys(kind for each in schema["anyOf"] for kind in _type(each).split(" | "))
        if "float" in kinds:
            kinds.pop("int", None)
        return " | ".join([each for each in kinds if each != "None"] + ["None"] * ("None" in kinds))
    if "$ref" in schema:
        name = schema["$ref"].rpartition("/")[2]
        return "str | Mapping[str, Any]" if name == SPEC else _keywords_name(name)
    if "const" in schema:
        return _literal([schema["const"]])
    if "enum" in schema:
        return _literal(schema["enum"])
    if schema.get("type") == "array":
        return f"Sequence[{_type(schema.get('items', {}))}]"
    if schema.get("type") == "object":
        inner = schema.get("additionalProperties", {})
        return f"Mapping[str, {_type(inner) if isinstance(inner, Mapping) else 'Any'}]"
    if schema.get("format") == "path":
        return "str | os.PathLike[str]"
    plain = {"integer": "int", "number": "float", "string": "str", "boolean": "bool", "null": "None"}
    return plain.get(str(schema.get("type")), "Any")


def _literal(values: Iterable[Any]) -> str:
    return f"Literal[{', '.join(json.dumps(each) if isinstance(each, str) else repr(each) for each in values)}]"


def files(root: Path) -> dict[Path, str]:
    """Return the text of every generated file, by its path in the repository at `root`."""
    return {
        root / "rerank_plugins" / "config" / "keywords.py": keywords(),
        root / "docs" / "rerank.schema.json": json.dumps(json_schema(plugins=False), indent=2) + "\n",
    }


if __name__ == "__main__":
    for path, text in files(Path(__file__).parents[2]).items():
        path.parent.mkdir(exist_ok=True)
        path.write_text(text, "utf-8")
