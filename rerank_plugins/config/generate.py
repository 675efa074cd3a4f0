"""What is made of the option models: the JSON Schema of `rerank.toml`, the reference of options, and the types of keywords.

`python -m rerank_plugins.config.generate` writes the files that are committed; a test holds them to the models. Descriptions
are the docstrings under the models' attributes. They are read off the source here, because pydantic's own way
(`use_attribute_docstrings`) parses each class when it is imported.
"""

from __future__ import annotations

import ast
import functools
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
from ..option_errors import model_of
from .registry import BUILTIN, Entry, backend_class, entries
from .schema import HOSTED, LOCAL, NOT_OF_A_CASCADE, RerankerOptions

__all__ = ["json_schema", "keywords", "reference"]

DIALECT = "https://json-schema.org/draft/2020-12/schema"
SPEC = "Spec"
RERANKER = "RerankerOptions"
WIDTH = 120
INTRODUCTION = """# Options

Made of the option models by `python -m rerank_plugins.config.generate`: edit their docstrings, not this file.

`rerank-plugins schema > rerank.schema.json` writes the JSON Schema of a configuration file. An editor with Taplo completes
`rerank.toml` with it: write `#:schema ./rerank.schema.json` into its first line. `rerank-plugins check --config rerank.toml`
checks every table of the file.
"""
TABLES = """## Tables of backends

A table with the name of a backend holds options of that backend alone, and is inert under another. The shared options of
the first table may stand in it too, and win there.
"""


def json_schema(*, plugins: bool = True) -> dict[str, Any]:
    """Return the JSON Schema (draft 2020-12) of a configuration file; `#/$defs/Spec` in it is that of one spec.

    Args:
        plugins: Whether the backends of other packages that are installed here are valid too.
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


def _entries(plugins: bool) -> Iterator[tuple[str, Entry]]:
    for name, entry in entries().items():
        if entry.kind != "plugin" or plugins:
            yield name, entry


def _class(name: str, entry: Entry) -> type[Backend]:
    if entry.kind == "plugin":
        return backend_class(name)
    module, _, attribute = entry.path.partition(":")
    found: type[Backend] = getattr(importlib.import_module(module), attribute)  # its package may be missing here
    return found


def _options(name: str, entry: Entry) -> type[BaseModel] | None:
    try:
        return _class(name, entry).Options
    except Exception:  # a stranger's module may fail in any way; its table passes unread
        if entry.kind != "plugin":
            raise
        return None


def _pattern(plugins: bool) -> str:
    """Return what `use` may be."""
    named: list[str] = []
    alone: list[str] = []
    for name, entry in _entries(plugins):
        takes_model = entry.kind == "plugin" or "model" in inspect.signature(_class(name, entry)).parameters
        (named if takes_model else alone).append(re.escape(name).replace(r"\-", "-"))
    return f"^(({'|'.join(sorted(named))})(:.*)?|{'|'.join(sorted(alone))}:?)$"


def _models(models: Iterable[type[BaseModel]]) -> dict[str, type[BaseModel]]:
    """Return the models, and those inside them, by the names of their definitions."""
    found: dict[str, type[BaseModel]] = {}
    waiting = list(models)
    while waiting:
        model = waiting.pop()
        if model.__name__ not in found:
            found[model.__name__] = model
            waiting += [
                inner for each in model.model_fields.values() if (inner := model_of(each.annotation)) is not None
            ]
    return found


def _describe(definition: dict[str, Any], model: type[BaseModel]) -> None:
    definition.pop("title", None)
    definition["description"] = _one_line(inspect.getdoc(model) or "")
    described = descriptions(model)
    for name, field in model.model_fields.items():
        option = definition["properties"].get(field.alias or name)
        if option is None:
            continue
        if name == "client":  # a live object, which no file holds
            del definition["properties"][name]
            continue
        option.pop("title", None)
        if name in described:
            option["description"] = described[name]


@functools.cache
def descriptions(model: type[BaseModel]) -> dict[str, str]:
    """Return the docstrings under the attributes of `model` and of its bases, as one line each."""
    found: dict[str, str] = {}
    for kind in reversed(model.__mro__):
        if not issubclass(kind, BaseModel) or kind is BaseModel:
            continue
        (tree,) = ast.parse(textwrap.dedent(inspect.getsource(kind))).body
        assert isinstance(tree, ast.ClassDef)
        for node, after in zip(tree.body, tree.body[1:], strict=False):
            if (
                isinstance(node, ast.AnnAssign)
                and isinstance(after, ast.Expr)
                and isinstance(after.value, ast.Constant)
            ):
                found[ast.unparse(node.target)] = _one_line(str(after.value.value))
    return found


def _one_line(text: str) -> str:
    return " ".join(text.split())


# --- the reference ---


def reference() -> str:
    """Return the reference of all options, in Markdown."""
    schema = json_schema(plugins=False)
    definitions = schema["$defs"]
    reranker = definitions[RERANKER]["properties"]
    tables = {name for name in reranker if name in BUILTIN}
    shared = {name: each for name, each in reranker.items() if name not in tables}
    parts = [INTRODUCTION, f"## A reranker\n\n{_table(shared)}"]
    inner: list[str] = []
    for each in reranker.values():
        inner += [name for name in _references(each) if name not in (SPEC, RERANKER) and name not in inner]
    parents: dict[str, list[str]] = {}
    for name in sorted(tables):
        parents.setdefault(next(iter(_references(reranker[name]))), []).append(name)
    for name in (each for each in inner if each not in parents):
        owners = [option for option, each in reranker.items() if name in _references(each)]
        parts.append(
            f"## `{', '.join(owners)}`\n\n{definitions[name]['description']}\n\n{_table(definitions[name]['properties'])}"
        )
    parts.append(TABLES)
    for definition, names in parents.items():
        own = {
            name: each
            for name, each in definitions[definition]["properties"].items()
            if name not in shared or each != shared[name]
        }
        title = ", ".join(f"`{name}`" for name in names)
        text = definitions[definition]["description"]
        parts.append(f"### {title}\n\n{text}\n\n{_table(own) if own else 'It has the shared options only.'}")
        for name in dict.fromkeys(name for each in own.values() for name in _references(each)):
            if name not in inner:
                owners = [option for option, each in own.items() if name in _references(each)]
                parts.append(f"#### `{', '.join(owners)}`\n\n{_table(definitions[name]['properties'])}")
    return "\n".join(part.rstrip() + "\n" for part in parts)


def _table(properties: Mapping[str, Any]) -> str:
    rows = ["| option | value | default | |", "|---|---|---|---|"]
    for name, each in properties.items():
        default = "" if each.get("default") is None else f"`{json.dumps(each['default'])}`"
        rows.append(
            f"| `{name}` | {_value(each).replace('|', chr(92) + '|')} | {default} | {each.get('description', '').replace('|', chr(92) + '|')} |"
        )
    return "\n".join(rows) + "\n"


def _value(schema: Mapping[str, Any]) -> str:
    """Return a schema in words."""
    if "anyOf" in schema:
        return " or ".join(dict.fromkeys(_value(each) for each in schema["anyOf"] if each.get("type") != "null"))
    if "$ref" in schema:
        return "spec" if schema["$ref"].endswith(f"/{SPEC}") else "mapping"
    if "const" in schema:
        return f"`{json.dumps(schema['const'])}`"
    if "enum" in schema:
        return ", ".join(f"`{json.dumps(each)}`" for each in schema["enum"])
    kind = schema.get("type")
    if kind == "array":
        return f"list of {_value(schema.get('items', {}))}"
    words = {"object": "mapping", "integer": "integer", "number": "number", "string": "string", "boolean": "boolean"}
    text = words.get(str(kind), "any value")
    if "minimum" in schema and schema.get("maximum", 1e9) < 1e6:
        return f"{text} from {schema['minimum']} to {schema['maximum']}"
    if "exclusiveMinimum" in schema:
        return f"{text} above {schema['exclusiveMinimum']}"
    return f"{text} of at least {schema['minimum']}" if "minimum" in schema else text


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
    models = _models([RerankerOptions, *(each for name, entry in BUILTIN.items() if (each := _options(name, entry)))])
    # A definition comes after those that it names.
    ordered: dict[str, None] = {}

    def visit(name: str) -> None:
        if name in ordered or name == SPEC:
            return
        for inner in _references(definitions[name].get("properties", {})):
            visit(inner)
        ordered[name] = None

    visit(RERANKER)
    known = sorted({*BUILTIN, *(f"{each.family}:{each.name}" for each in _recipes())})
    lines = [
        '"""The options of a spec as keywords, for type checkers and editors.',
        "",
        "Made of the option models by `python -m rerank_plugins.config.generate`: edit those, not this file.",
        '"""',
        "",
        "from __future__ import annotations",
        "",
        "import os",
        "from collections.abc import Mapping, Sequence",
        "from typing import Any, Literal, TypedDict",
        "",
        '__all__ = ["KnownReranker", "RerankerKeywords"]',
        "",
        "KnownReranker = Literal[",
        *(f"    {json.dumps(each)}," for each in known),
        "]",
        '"""Backends, and models that are known by name; any other string may be a spec too."""',
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
    for own in model.model_fields.keys() & {"client", "similarity"}:  # live objects, which no file holds
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
    # Some of its names are words of Python, so it cannot be written as a class.
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
    """Return the type that a checker is to see."""
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
    """Return the text of every committed file, by its path in the repository at `root`."""
    return {
        root / "rerank_plugins" / "config" / "keywords.py": keywords(),
        root / "docs" / "options.md": reference(),
        root / "docs" / "rerank.schema.json": json.dumps(json_schema(plugins=False), indent=2) + "\n",
    }


if __name__ == "__main__":
    for path, text in files(Path(__file__).parents[2]).items():
        path.parent.mkdir(exist_ok=True)
        path.write_text(text, "utf-8")
