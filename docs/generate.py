"""Writes the parts of README.md and docs/ that are made of the code; a test fails where they are out of date.

`python docs/generate.py` replaces what stands between `<!-- generated: NAME -->` and `<!-- end: NAME -->` in a page.
"""

from __future__ import annotations

import argparse
import importlib
import inspect
import json
import math
import re
import tomllib
from collections.abc import Iterable, Mapping
from functools import partial
from pathlib import Path
from typing import Any

from rerank_plugins.backends.presets import PRESETS
from rerank_plugins.backends.presets.row import Setting
from rerank_plugins.backends.prices import PRICES
from rerank_plugins.cli import COMMANDS
from rerank_plugins.config.generate import json_schema
from rerank_plugins.config.registry import BackendEntry, builtin_entries, list_prices, local_models
from rerank_plugins.core import Backend, Capabilities

ROOT = Path(__file__).parents[1]
BUILTIN = builtin_entries()
PAGES = (ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md")))
EXCHANGES = ROOT / "tests" / "vendors" / "exchanges"
CONFIRMED = {
    "docs": "by documentation only",
    "sdk": "by a package that sends the same",
    "server": "by a run against the server",
}
"""What `confirmed` means, by its value."""
KEYS = {
    "key": "",
    "aws": "none: the credentials that botocore finds",
    "google": "none: the application's default credentials; or an access token as `api_key`",
    "ibm": "",
}
"""What stands in place of the variables of the key, by the authentication of a preset."""
BLOCK = re.compile(r"(<!-- generated: ([\w-]+) -->\n).*?(<!-- end: \2 -->)", re.DOTALL)
RERANKER = "RerankerOptions"
KINDS = {
    "wheel": "in the wheel",
    "family": "local, by family",
    "checkpoint": "local, any checkpoint",
    "hosted": "hosted",
    "server": "a server of yours",
    "preset": "a vendor or server as a preset",
}


def table(header: Iterable[str], rows: Iterable[Iterable[str]]) -> str:
    """Return a Markdown table."""
    header = list(header)
    lines = [header, ["---"] * len(header), *(list(row) for row in rows)]
    return "\n".join("| " + " | ".join(cell.replace("|", r"\|") for cell in line) + " |" for line in lines) + "\n"


def code(text: object) -> str:
    """Return `text` as inline code; nothing for nothing."""
    return f"`{text}`" if text not in (None, "") else ""


# --- backends and models ---


def backend(entry: BackendEntry) -> type[Backend]:
    """Return the class behind an entry of the registry, whether or not its extra is installed."""
    module, _, attribute = entry.path.partition(":")
    kind: type[Backend] = getattr(importlib.import_module(module), attribute)
    return kind


def group(name: str, entry: BackendEntry) -> str:
    """Return the key of `KINDS` for a backend."""
    if entry.preset:
        return "preset"
    if entry.kind != "local":
        return entry.kind
    if name in ("embedded", "lexical", "passthrough"):
        return "wheel"
    named = any(row["spec"].startswith(f"{name}:") for row in local_models())
    return "family" if named else "checkpoint"


def backends_by_kind() -> str:
    """Return the short table of README: one row a kind."""
    rows = []
    for key, title in KINDS.items():
        entries = {name: entry for name, entry in BUILTIN.items() if group(name, entry) == key}
        extras = sorted({code(entry.extra) for entry in entries.values() if entry.extra})
        rows.append((title, ", ".join(map(code, entries)), ", ".join(extras)))
    return table(("kind", "backends", "extra that some of them need"), rows)


def backends_table() -> str:
    """Return the table of all backends."""
    rows = [
        (
            code(name) if entry.kind == "local" else f"[`{name}`]({'presets.md' if entry.preset else ''}#{name})",
            KINDS[group(name, entry)],
            entry.summary + (f"; {entry.notice}" if entry.notice else ""),
            entry.confirmed,
            code(entry.extra),
        )
        for name, entry in BUILTIN.items()
    ]
    return table(("backend", "kind", "what it is", "confirmed", "extra"), rows)


def limits(capabilities: Capabilities) -> str:
    """Return the limits of a backend or of one model, in words."""
    words = {
        "max_documents": "{:,} documents a request",
        "max_tokens": "{:,} tokens of query and document",
        "max_query_tokens": "{:,} tokens of the query",
        "max_document_tokens": "{:,} tokens of a document",
        "max_total_tokens": "{:,} tokens a request",
        "max_bytes": "{:,} bytes a request",
    }
    parts = [text.format(value) for name, text in words.items() if (value := getattr(capabilities, name)) is not None]
    parts += ["all documents in one request"] if capabilities.listwise else []
    return "; ".join(parts) or "none declared"


def remote_backends() -> str:
    """Return a section for every backend that leaves the process."""
    parts = []
    for name, entry in BUILTIN.items():
        if entry.kind == "local" or entry.preset:
            continue
        kind: Any = backend(entry)
        by_model: Mapping[str, Capabilities] = getattr(kind, "by_model", {})
        rows = [
            ("default model", code(getattr(kind, "model", None)) or "none: name the server's"),
            ("key", ", ".join(map(code, kind.key_variables)) or f"{code('api_key')} in the spec"),
            ("key needed", "yes" if kind.key_required else "only where the server was started with one"),
            ("address", address(entry, kind)),
            ("variable of the address", ", ".join(map(code, kind.base_url_variables)) or "none"),
            ("scale", code(kind.capabilities.scale)),
            ("limits", limits(kind.capabilities)),
            *((f"limits of {code(model)}", limits(own)) for model, own in by_model.items()),
            ("follows an `instruction`", instructions(kind.capabilities, by_model)),
            ("price", price_source(kind)),
            ("format confirmed", entry.confirmed),
            *((f"model {code(model)}", state) for model, state in kind.retired.items()),
            *((("notice", entry.notice),) if entry.notice else ()),
            ("options of its own", f"[{code(name)}](options.md#table-{name})"),
        ]
        wire = inspect.getdoc(importlib.import_module(kind.__module__)) or ""
        parts.append(
            f"### {name} {{ #{name} }}\n\n{entry.summary[0].upper()}{entry.summary[1:]}.\n\n"
            f"{table(('property', 'value'), rows)}\n"
            f"What is sent and read, and where that was confirmed:\n\n{wire}\n"
        )
    return "\n".join(parts)


def price_source(kind: Any) -> str:
    """Return where the price of a backend comes from."""
    option = f"what you write in [{code('price')}](options.md#price)"
    return f"{option}, or a [list price](prices.md)" if kind.list_prices else option


def prices_table() -> str:
    """Return the table of published prices, one row a model."""
    titles = {
        "per_million_tokens": "million input tokens",
        "per_million_output_tokens": "million output tokens",
        "per_million_cached_tokens": "million cached tokens",
        "per_search_unit": "search",
    }
    rows = [
        {"model": code(row["spec"])}
        | {title: f"${row[name]}" if row[name] else "" for name, title in titles.items() if name in row}
        | {"read on": row["date"], "page": f"[{page_name(row['source'])}]({row['source']})"}
        for row in list_prices()
    ]
    return table(rows[0], (row.values() for row in rows))


def page_name(url: str) -> str:
    """Return the host of a URL, or name and version of the source that it leads to."""
    _, _, host, *path = url.split("/")
    return f"{path[1]} {path[3].removeprefix('v')}" if host == "github.com" and path[2:3] == ["tree"] else host


def presets_table() -> str:
    """Return the table of presets: how each is confirmed."""
    rows = [
        (f"[`{name}`](#{name})", preset.title, KINDS[preset.kind], preset.confirmed, preset.confirmed_by)
        for name, preset in PRESETS.items()
    ]
    return table(("preset", "what it is", "kind", "confirmed", "by"), rows)


def presets() -> str:
    """Return a section for every preset: its row, and the documented exchange that the tests hold it against."""
    parts = []
    for name, preset in PRESETS.items():
        exchange = json.loads((EXCHANGES / f"{name}.json").read_text("utf-8"))
        rows = [
            ("default model", code(preset.model) or ("none: name one" if preset.model_required else "none needed")),
            ("key", KEYS[preset.authentication] or ", ".join(map(code, preset.key_variables))),
            ("address", code(preset.base_url) or f"{code('base_url')} in the spec"),
            ("variable of the address", ", ".join(map(code, preset.base_url_variables)) or "none"),
            *((f"option {code(key)}", setting_source(setting)) for key, setting in preset.settings.items()),
            ("scale", code(preset.limits.scale)),
            *((f"scale of models with {code(part)} in the name", code(scale)) for part, scale in preset.scales.items()),
            ("limits", limits(preset.limits)),
            *((f"limits of {code(model)}", limits(own)) for model, own in preset.models.items()),
            ("follows an `instruction`", "yes" if preset.format.instruction_field else "no"),
            ("extra", code(preset.extra) or "none"),
            *((f"model {code(model)}", what) for model, what in preset.retired.items()),
            ("price" if preset.kind == "hosted" else "licence or price", preset.price),
            *((("list price", f"[of {', '.join(map(code, PRICES[name]))}](prices.md)"),) if name in PRICES else ()),
            ("format read in", f"{preset.source}, on {preset.read}"),
            (
                "format confirmed",
                CONFIRMED[preset.confirmed] + (f": {preset.confirmed_by}" if preset.confirmed_by else ""),
            ),
        ]
        headers = "".join(f"\n{key}: {value}" for key, value in exchange["request"]["headers"].items())
        parts.append(
            f"### {name} {{ #{name} }}\n\n{preset.title[0].upper()}{preset.title[1:]}. {preset.notes}".rstrip()
            + f"\n\n{table(('property', 'value'), rows)}\n"
            f"Options of its own: [`{name}`](options.md#table-{name}). Request and reply:\n\n"
            f"```text\nPOST {exchange['request']['path']}{headers}\n\n{json.dumps(exchange['request']['body'])}\n```\n"
            f"\n```text\n{json.dumps(exchange['reply'])}\n```\n"
        )
    return "\n".join(parts)


def setting_source(setting: Setting) -> str:
    """Return what is taken where the spec does not have the option of a preset."""
    variables = ", ".join(map(code, setting.variables))
    default = f"default {code(setting.default)}" if setting.default else ""
    sources = [f"in the spec, or in the variable {variables}" if variables else "in the spec", default]
    return "; ".join(filter(None, sources))


def address(entry: BackendEntry, kind: Any) -> str:
    """Return where requests go unless the spec says otherwise."""
    if kind.base_url:
        return code(kind.base_url)
    return "the SDK's own" if entry.kind == "hosted" else f"{code('base_url')} in the spec, required"


def instructions(capabilities: Capabilities, by_model: Mapping[str, Capabilities]) -> str:
    """Return which models of a backend follow an instruction."""
    some = [model for model, own in by_model.items() if own.instructions != capabilities.instructions]
    word = "yes" if capabilities.instructions else "no"
    return f"{word}, except {', '.join(map(code, some))}" if some else word


def models_table() -> str:
    """Return the table of local models by name."""
    rows = [row | {"spec": code(row["spec"]), "card": f"[card]({row['card']})"} for row in local_models()]
    return table(rows[0], (row.values() for row in rows))


def key_variables() -> str:
    """Return the variables of each vendor's key and address."""
    rows = []
    for name, entry in BUILTIN.items():
        if entry.kind == "local":
            continue
        kind: Any = backend(entry)
        if kind.key_variables or kind.base_url_variables:
            rows.append(
                (code(name), ", ".join(map(code, kind.key_variables)), ", ".join(map(code, kind.base_url_variables)))
            )
    return table(("backend", "key; the first that is set counts", "address"), rows)


# --- supported versions ---

FRAMEWORKS = ("langchain", "llama-index", "cohere", "cohere-aws", "voyage")
"""Extras whose packages a user may have pinned for other reasons."""


def supported_versions() -> str:
    """Return the table of the oldest versions, as pyproject.toml has them."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]
    prefix = "Programming Language :: Python :: "
    minors = [name.removeprefix(prefix) for name in project["classifiers"] if re.fullmatch(prefix + r"3\.\d+", name)]
    rows = [("Python", project["requires-python"].removeprefix(">="), f"always; tested up to {minors[-1]}")]
    for extra in FRAMEWORKS:
        rows += [oldest(requirement, code(extra)) for requirement in project["optional-dependencies"][extra]]
    rows += [oldest(requirement, "always") for requirement in project["dependencies"]]
    return table(("package", "oldest version", "extra"), rows)


def oldest(requirement: str, extra: str) -> tuple[str, str, str]:
    """Return the row of one requirement."""
    name, version = requirement.split(">=")
    return code(name), version, extra


# --- options ---


def references(schema: Any) -> list[str]:
    """Return the names of the definitions that a schema points at."""
    if isinstance(schema, Mapping):
        own = [schema["$ref"].rpartition("/")[2]] if "$ref" in schema else []
        return own + [name for key, inner in schema.items() if key != "$ref" for name in references(inner)]
    return [name for inner in schema for name in references(inner)] if isinstance(schema, list) else []


def value(schema: Mapping[str, Any]) -> str:
    """Return a schema in words."""
    if "anyOf" in schema:
        return " or ".join(dict.fromkeys(value(branch) for branch in schema["anyOf"] if branch.get("type") != "null"))
    if "$ref" in schema:
        return "spec" if schema["$ref"].endswith("/Spec") else "mapping"
    if "const" in schema:
        return f"`{json.dumps(schema['const'])}`"
    if "enum" in schema:
        return ", ".join(f"`{json.dumps(choice)}`" for choice in schema["enum"])
    kind = schema.get("type")
    if kind == "array":
        return f"list of {value(schema.get('items', {}))}"
    text = "mapping" if kind == "object" else str(kind or "any value")
    low, above, high = schema.get("minimum"), schema.get("exclusiveMinimum"), schema.get("maximum")
    if above is not None:
        return f"{text} above {above:g}"
    if low is None:
        return text
    return f"{text} from {low:g} to {high:g}" if high is not None and high < 1e6 else f"{text} of at least {low:g}"


def option(title: str, anchor: str, schema: Mapping[str, Any], owners: str, level: int = 3) -> str:
    """Return one option: a heading with an anchor, its type and default, who has it, and what it does."""
    about = schema.get("description", "")
    if title.endswith(".scale"):
        about += " See [Scale](../guides/presets.md#scale)."
    default = f"Default: `{json.dumps(schema['default'])}`." if schema.get("default") is not None else "No default."
    lines = [
        f"{'#' * level} `{title}` {{ #{anchor} }}",
        f"{about}\n",
        f"- Value: {value(schema)}\n- {default}",
    ]
    if owners:
        lines[-1] += f"\n- Valid for: {owners}"
    return "\n\n".join(line.rstrip() for line in lines) + "\n"


def options() -> str:
    """Return the reference of all options."""
    definitions = json_schema(plugins=False)["$defs"]
    reranker = definitions[RERANKER]["properties"]
    own = {name: definitions[references(reranker[name])[0]]["properties"] for name in BUILTIN}
    shared = {name: schema for name, schema in reranker.items() if name not in BUILTIN}
    remote = [name for name, entry in BUILTIN.items() if entry.kind != "local"]
    of_presets = definitions["PresetOptions"]["properties"]

    def owners(name: str) -> str:
        having = [backend_name for backend_name, properties in own.items() if name in properties]
        if not having:
            return "every reranker"
        if having == remote:
            return "every hosted backend and server"
        names = [code(owner) for owner in having if not BUILTIN[owner].preset]
        return ", ".join([*names, *(["every [preset](#presets)"] if len(names) < len(having) else [])])

    parts = ["## A reranker\n"]
    inner: dict[str, str] = {}
    for name, schema in shared.items():
        parts.append(option(name, name, schema, owners(name)))
        inner |= {definition: name for definition in references(schema) if definition not in ("Spec", RERANKER)}
    for definition, parent in inner.items():
        parts.append(f"## Keys of `{parent}` {{ #keys-{parent} }}\n\n{definitions[definition]['description']}\n")
        parts += [
            option(f"{parent}.{name}", f"{parent}.{name}", schema, "")
            for name, schema in definitions[definition]["properties"].items()
        ]
    parts.append("## Tables of presets { #presets }\n\nThe table of each [preset](presets.md) has these options.\n")
    parts += [
        option(f"preset.{key}", f"preset.{key}", schema, "", level=4)
        for key, schema in of_presets.items()
        if schema != shared.get(key)
    ]
    parts.append(
        "## Tables of backends\n\nA table with the name of a backend holds options of that backend alone. It does "
        "nothing under another backend. The shared options above may stand in such a table too, and win there.\n"
    )
    for name, properties in own.items():
        parts.append(
            f"### Table `{name}` {{ #table-{name} }}\n\n{definitions[references(reranker[name])[0]]['description']}\n"
        )
        special = {key: schema for key, schema in properties.items() if schema != shared.get(key)}
        if BUILTIN[name].preset:
            special = {key: schema for key, schema in special.items() if schema != of_presets.get(key)}
            parts.append("It has the shared options, and those of [every preset](#presets).\n")
        elif not special:
            parts.append("It has the shared options only.\n")
        for key, schema in special.items():
            parts.append(option(f"{name}.{key}", f"{name}.{key}", schema, "", level=4))
            for definition in references(schema):
                if definition not in inner:
                    parts += [
                        option(f"{name}.{key}.{deep}", f"{name}.{key}.{deep}", deeper, "", level=4)
                        for deep, deeper in definitions[definition]["properties"].items()
                    ]
    return "\n".join(parts)


def option_anchors() -> set[str]:
    """Return the anchor of every option that the schema has."""
    definitions = json_schema(plugins=False)["$defs"]
    reranker = definitions[RERANKER]["properties"]
    anchors = set()
    for name, schema in reranker.items():
        anchors.add(f"table-{name}" if name in BUILTIN else name)
        for definition in set(references(schema)) - {"Spec", RERANKER}:
            for key, deeper in definitions[definition]["properties"].items():
                anchors.add(key if name in BUILTIN and deeper == reranker.get(key) else f"{name}.{key}")
    of_presets = definitions["PresetOptions"]["properties"].keys()
    for name in PRESETS:  # what all presets have is described once
        anchors -= {f"{name}.{key}" for key in of_presets}
        anchors |= {f"preset.{key}" for key in of_presets if key not in reranker or key == "max_tokens"}
    return anchors


# --- the command line ---


def commands() -> str:
    """Return the reference of the command line."""
    parts = []
    for command in COMMANDS:
        parser = argparse.ArgumentParser(add_help=False)
        command.add_options(parser)
        rows = []
        for action in parser._actions:
            names = ", ".join(map(code, action.option_strings)) or code(action.metavar or action.dest)
            if action.option_strings and action.nargs != 0:
                names += f" {code(action.metavar or action.dest.upper())}"
            choices = f"one of {', '.join(map(code, action.choices))}. " if action.choices else ""
            rows.append((names, choices + (action.help or "").replace("%%", "%")))
        examples = command.examples.removeprefix("examples:\n")
        lines = "\n".join(line.removeprefix("  ") for line in examples.splitlines())
        parts.append(
            f"## rerank-plugins {command.name} {{ #{command.name} }}\n\n"
            f"{command.summary[0].upper()}{command.summary[1:]}. {' '.join(command.details.split())}".rstrip()
            + f"\n\n{table(('argument', 'meaning'), rows) if rows else 'It has no arguments of its own.' + chr(10)}\n"
            f"Examples:\n\n```text\n{lines}\n```\n"
        )
    return "\n".join(parts)


# --- the pictures ---

PICTURE = ROOT / "docs" / "images" / "quality.svg"
_SHAPES = """<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 720 {height}" role="img" aria-labelledby="title">
<title id="title">nDCG@10 of BM25's order, and of the same 100 candidates reranked by embedded</title>
<style>
text {{ font: 15px system-ui, sans-serif; fill: #24292f }}
.before {{ fill: #8c959f }} .after {{ fill: #4051b5 }}
@media (prefers-color-scheme: dark)
{{ text {{ fill: #d1d7e0 }} .before {{ fill: #8b949e }} .after {{ fill: #8fa2ff }} }}
</style>
{rows}
</svg>
"""


def picture() -> str:
    """Return the chart of README as SVG, made of the table under "Quality" in docs/benchmarks.md."""
    page = (ROOT / "docs" / "benchmarks.md").read_text("utf-8")
    measured = re.findall(r"^\| (\w+) \| [\d,]+ \| (0\.\d+) \| (0\.\d+) \|", page, re.MULTILINE)
    rows, top = [], 24
    rows.append('<text x="120" y="16">nDCG@10:</text>')
    rows.append('<rect class="before" x="220" y="4" width="14" height="14"/><text x="240" y="16">BM25</text>')
    rows.append(
        '<rect class="after" x="300" y="4" width="14" height="14"/><text x="320" y="16">reranked by embedded</text>'
    )
    for name, before, after in measured:
        top += 12
        rows.append(f'<text x="112" y="{top + 25}" text-anchor="end">{name}</text>')
        for kind, score in (("before", before), ("after", after)):
            width = round(float(score) * 540)
            rows.append(f'<rect class="{kind}" x="120" y="{top}" width="{width}" height="18"/>')
            rows.append(f'<text x="{128 + width}" y="{top + 14}">{score}</text>')
            top += 20
    return _SHAPES.format(height=top + 8, rows="\n".join(rows))


LATENCY_PICTURE = ROOT / "docs" / "images" / "latency.svg"
LATENCY_CANDIDATES = "50"
_LATENCY_SHAPES = """<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 720 {height}" role="img" \
aria-labelledby="latency">
<title id="latency">Milliseconds of a call over {candidates} passages, by package and model, on a logarithmic scale\
</title>
<style>
text {{ font: 15px system-ui, sans-serif; fill: #24292f }}
.grid {{ stroke: #d0d7de }} .range {{ stroke-width: 4; stroke: #8c959f }}
.other {{ fill: #8c959f }} .own {{ fill: #4051b5 }}
@media (prefers-color-scheme: dark)
{{ text {{ fill: #d1d7e0 }} .grid {{ stroke: #3d444d }} .own {{ fill: #8fa2ff }} .other {{ fill: #8b949e }} }}
</style>
{rows}
</svg>
"""


def latency_picture() -> str | None:
    """Return the chart of latencies as SVG, made of the table in docs/guides/latency.md; `None` before it is measured.

    A dot is the p50 and the end of its line the p95, on a logarithmic scale.
    """
    page = (ROOT / "docs" / "guides" / "latency.md").read_text("utf-8")
    number = r"([\d,]+)"
    line = rf"^\| {LATENCY_CANDIDATES} \| ([^|]+) \| {number} / {number} \|[^|]*\|[^|]*\| ([\d.]*) ?\|"
    measured = [
        (name.strip("` "), int(p50.replace(",", "")), int(p95.replace(",", "")), quality)
        for name, p50, p95, quality in re.findall(line, page, re.MULTILINE)
    ]
    if not measured:
        return None
    left, width, decades = 250, 380, 4

    def place(milliseconds: int) -> int:
        return left + round(width * math.log10(max(1, milliseconds)) / decades)

    rows, bottom = [], 40 + 30 * len(measured)
    for decade, title in enumerate(("1 ms", "10 ms", "100 ms", "1 s", "10 s")):
        x = place(10**decade)
        rows.append(f'<line class="grid" x1="{x}" y1="24" x2="{x}" y2="{bottom}"/>')
        rows.append(f'<text x="{x}" y="16" text-anchor="middle">{title}</text>')
    for row, (name, p50, p95, quality) in enumerate(measured):
        y = 48 + 30 * row
        kind = "own" if quality else "other"
        rows.append(f'<text x="{left - 14}" y="{y + 5}" text-anchor="end">{name}</text>')
        rows.append(f'<line class="range" x1="{place(p50)}" y1="{y}" x2="{place(p95)}" y2="{y}"/>')
        rows.append(f'<circle class="{kind}" cx="{place(p50)}" cy="{y}" r="7"/>')
        rows.append(f'<text x="{place(p95) + 14}" y="{y + 5}">{p50:,} ms</text>')
    return _LATENCY_SHAPES.format(height=bottom + 8, candidates=LATENCY_CANDIDATES, rows="\n".join(rows))


# --- recipes ---

EXAMPLES = ROOT / "examples"
RECIPES = {
    **{f"stores/{file.name}": "test_store_recipe_reranks" for file in (EXAMPLES / "stores").glob("*_store.py")},
    "fastapi_app.py": "test_fastapi_answers_over_a_real_connection",
    "langgraph_agent.py": "test_langgraph_rewrites_the_question",
    "llama_index_workflow.py": "test_llama_index_workflow_reranks",
    "celery_tasks.py": "test_celery_worker_reranks",
    "async_batch.py": "test_async_batch_goes_on_where_it_was_stopped",
}
"""The test in tests/test_recipes.py that runs each of the examples that a page shows."""


def recipe(name: str) -> str:
    """Return an example, without its docstring, as a block of code."""
    _, _, text = (EXAMPLES / name).read_text("utf-8").split('"""', 2)
    return f"<!-- run by: tests/test_recipes.py::{RECIPES[name]} -->\n```python\n{text.strip()}\n```\n"


GENERATED = {
    "backends-by-kind": backends_by_kind,
    "backends": backends_table,
    "remote-backends": remote_backends,
    "presets-table": presets_table,
    "presets": presets,
    "models": models_table,
    "prices": prices_table,
    "supported-versions": supported_versions,
    "key-variables": key_variables,
    "options": options,
    "commands": commands,
    **{f"recipe-{Path(name).stem}": partial(recipe, name) for name in RECIPES},
}
"""What makes each part, by the name in its comments."""


def up_to_date(text: str) -> str:
    """Return a page with every generated part made anew."""
    return BLOCK.sub(lambda match: f"{match[1]}{GENERATED[match[2]]()}{match[3]}", text)


if __name__ == "__main__":
    PICTURE.parent.mkdir(exist_ok=True)
    PICTURE.write_text(picture(), "utf-8")
    if (drawn := latency_picture()) is not None:
        LATENCY_PICTURE.write_text(drawn, "utf-8")
    for page in PAGES:
        before = page.read_text("utf-8")
        after = up_to_date(before)
        if after != before:
            page.write_text(after, "utf-8")
            print(f"wrote {page.relative_to(ROOT)}")
