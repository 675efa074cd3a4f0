"""`rerank-plugins list`: list all backends, the packages they lack, the models and the published prices."""

from __future__ import annotations

import argparse
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from ..core.errors import MissingExtra, RerankError
from .command import WRONG_USE, Command
from .terminal import json_text, printable, say, table_lines

__all__ = ["COMMAND"]

INSTALL = "pip install 'rerank-plugins[{}]'"


def _add_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--json", action="store_true", help="print a JSON array")
    others = parser.add_mutually_exclusive_group()
    others.add_argument("--models", action="store_true", help="list the models by name instead of the backends")
    others.add_argument(
        "--prices", action="store_true", help="list the published prices in US dollars, with the day they were read"
    )


_NEVER_RUN = (
    "None of these was run with its own weights by the authors of this package. Exactness was tested on tiny "
    "checkpoints of the same architectures."
)


def _run(arguments: argparse.Namespace) -> int:
    from ..config.registry import entries, list_prices, local_models, remote_models
    from ..config.sources import profiles

    if arguments.models:
        local, remote = local_models(), remote_models()
        tables = "\n".join([*table_lines(local), _NEVER_RUN, "", *table_lines(remote)])
        say(json_text([*local, *remote], indent=2) if arguments.json else tables)
        return 0
    if arguments.prices:
        prices = list_prices()
        say(json_text(prices, indent=2) if arguments.json else "\n".join(table_lines(prices)))
        return 0
    kinds = ("local", "hosted", "server", "plugin")
    rows: list[dict[str, Any]] = []
    for name, entry in sorted(entries().items(), key=lambda item: (kinds.index(item[1].kind), item[0])):
        missing = entry.missing_package()
        install = INSTALL.format(entry.extra or "all") if missing else None
        installation = {"installed": missing is None, "missing": missing, "install": install}
        about = {"summary": entry.summary, "confirmed": entry.confirmed or None, "notice": entry.notice or None}
        rows.append({"name": name, "kind": entry.kind, **about, **installation})
    named_rerankers = sorted(profiles(arguments.config).items())
    rows += [_row_of_named_reranker(name, settings, arguments.config) for name, settings in named_rerankers]
    say(json_text(rows, indent=2) if arguments.json else "\n".join(_lines(rows)))
    return WRONG_USE if any(row.get("error") for row in rows) else 0


def _row_of_named_reranker(name: str, settings: Mapping[str, Any], config: str | None) -> dict[str, Any]:
    """Return the row of a reranker of the configuration file. It is built to find errors; no model is loaded."""
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


def _lines(rows: Iterable[dict[str, Any]]) -> Iterator[str]:
    kind = None
    rows = list(rows)
    width = max(len(row["name"]) for row in rows)
    for row in rows:
        if row["kind"] != kind:
            kind = row["kind"]
            yield f"{kind}:"
        missing = f" (missing {row['missing']}: {row['install']})" if row["missing"] else ""
        broken = f" (broken: {printable(row['error'])})" if row.get("error") and not missing else ""
        confirmed = f" [{row['confirmed']}]" if row.get("confirmed") else ""
        notice = f" (note: {row['notice']})" if row.get("notice") else ""
        yield f"  {row['name']:<{width}}  {row['summary']}{confirmed}{notice}{missing}{broken}"


COMMAND = Command(
    "list",
    "list all backends, and the packages that they lack",
    _run,
    _add_options,
    """examples:
  rerank-plugins list
  rerank-plugins list --models
  rerank-plugins list --prices
  rerank-plugins list --json | jq -r '.[] | select(.installed) | .name'""",
    "The rerankers of the configuration file are built, but no model is loaded. The exit code is 2 if one of them is\n"
    "broken. In brackets stands what the format of a vendor or server was checked against: a run against the real\n"
    "server, the vendor's own package (sdk), or documentation only (docs).",
)
