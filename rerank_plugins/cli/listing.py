"""`rerank-plugins list`: every backend, what is missing for it, and the models."""

from __future__ import annotations

import argparse
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from ..core.errors import MissingExtra, RerankError
from .command import WRONG_USE, Command
from .terminal import columns, json_text, printable, say

__all__ = ["COMMAND"]

INSTALL = "pip install 'rerank-plugins[{}]'"


def _options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--json", action="store_true", help="as a JSON array")
    parser.add_argument("--models", action="store_true", help="the local models that can be named instead")


def _run(arguments: argparse.Namespace) -> int:
    from ..config.registry import entries, models
    from ..config.sources import profiles

    if arguments.models:
        found = models()
        say(json_text(found, indent=2) if arguments.json else "\n".join(columns(found)))
        return 0
    kinds = ("local", "hosted", "server", "plugin")
    rows: list[dict[str, Any]] = []
    for name, entry in sorted(entries().items(), key=lambda item: (kinds.index(item[1].kind), item[0])):
        missing = entry.missing()
        install = INSTALL.format(entry.extra or "all") if missing else None
        told = {"installed": missing is None, "missing": missing, "install": install}
        rows.append({"name": name, "kind": entry.kind, "summary": entry.summary, **told})
    rows += [_named(name, each, arguments.config) for name, each in sorted(profiles(arguments.config).items())]
    say(json_text(rows, indent=2) if arguments.json else "\n".join(_listing(rows)))
    return WRONG_USE if any(row.get("error") for row in rows) else 0


def _named(name: str, settings: Mapping[str, Any], config: str | None) -> dict[str, Any]:
    """Return the row of a reranker of the configuration file; building it shows what is wrong, and loads no model."""
    from ..config import load_reranker

    cascade = settings.get("cascade")
    stages = cascade.get("stages") if isinstance(cascade, Mapping) else None
    summary = f"cascade of {len(stages)} stages" if isinstance(stages, list) else str(settings.get("use", "?"))
    row: dict[str, Any] = {"name": name, "kind": "named", "summary": summary}
    try:
        load_reranker(name, config=config).close()
    except MissingExtra as error:
        missing = {"installed": False, "missing": error.package, "install": INSTALL.format(error.extra)}
        return {**row, **missing, "error": str(error)}
    except RerankError as error:
        return {**row, "installed": None, "missing": None, "install": None, "error": str(error)}
    return {**row, "installed": None, "missing": None, "install": None, "error": None}


def _listing(rows: Iterable[dict[str, Any]]) -> Iterator[str]:
    kind = None
    rows = list(rows)
    width = max(len(row["name"]) for row in rows)
    for row in rows:
        if row["kind"] != kind:
            kind = row["kind"]
            yield f"{kind}:"
        need = f" (missing {row['missing']}: {row['install']})" if row["missing"] else ""
        wrong = f" (broken: {printable(row['error'])})" if row.get("error") and not need else ""
        yield f"  {row['name']:<{width}}  {row['summary']}{need}{wrong}"


COMMAND = Command(
    "list",
    "show every backend, and what is missing for it",
    _run,
    _options,
    """examples:
  rerank-plugins list
  rerank-plugins list --models
  rerank-plugins list --json | jq -r '.[] | select(.installed) | .name'""",
    "The rerankers of the configuration file are built, but no model is loaded; the exit code is 2 if one of them is broken.",
)
