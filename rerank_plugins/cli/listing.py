"""`rerank-plugins list`: every backend, what is missing for it, and the models."""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterable, Iterator
from typing import Any

from .command import Command
from .terminal import columns

__all__ = ["COMMAND"]

INSTALL = "pip install 'rerank-plugins[{}]'"


def _options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--json", action="store_true", help="as a JSON array")
    parser.add_argument("--models", action="store_true", help="the local models that can be named instead")


def _run(arguments: argparse.Namespace) -> int:
    from ..registry import entries, models
    from ..spec import profiles

    if arguments.models:
        found = models()
        print(json.dumps(found, indent=2, ensure_ascii=False) if arguments.json else "\n".join(columns(found)))
        return 0
    kinds = ("local", "hosted", "server", "plugin")
    rows: list[dict[str, Any]] = []
    for name, entry in sorted(entries().items(), key=lambda item: (kinds.index(item[1].kind), item[0])):
        missing = entry.missing()
        install = INSTALL.format(entry.extra or "all") if missing else None
        told = {"installed": missing is None, "missing": missing, "install": install}
        rows.append({"name": name, "kind": entry.kind, "summary": entry.summary, **told})
    for name, settings in sorted(profiles(arguments.config).items()):
        told = {"installed": None, "missing": None, "install": None}
        rows.append({"name": name, "kind": "named", "summary": str(settings.get("use", "?")), **told})
    print(json.dumps(rows, indent=2, ensure_ascii=False) if arguments.json else "\n".join(_listing(rows)))
    return 0


def _listing(rows: Iterable[dict[str, Any]]) -> Iterator[str]:
    kind = None
    rows = list(rows)
    width = max(len(row["name"]) for row in rows)
    for row in rows:
        if row["kind"] != kind:
            kind = row["kind"]
            yield f"{kind}:"
        need = f" (missing {row['missing']}: {row['install']})" if row["missing"] else ""
        yield f"  {row['name']:<{width}}  {row['summary']}{need}"


COMMAND = Command(
    "list",
    "show every backend, and what is missing for it",
    _run,
    _options,
    """examples:
  rerank-plugins list
  rerank-plugins list --models
  rerank-plugins list --json | jq -r '.[] | select(.installed) | .name'""",
)
