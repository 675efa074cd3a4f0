"""Compare scores, and show the verdicts of a run as a table, as Markdown and as JSON."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

__all__ = ["Row", "compare", "incomplete", "markdown", "merge", "table"]

INTRODUCTION = """\
`make interop` runs real servers and real clients on one machine, and compares order and scores with this package's own
engine on the same tiny checkpoint. A chat model of random weights has no order to compare: such a row is right if each
document of a call has a score. It wrote this page."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """One server or client, and how it did."""

    kind: str
    """`server` or `client`."""
    name: str
    through: str
    """Our backend that asked the server, or the path of ours that the client called."""
    version: str
    verdict: str
    """`right`, `wrong: …`, `their fault: …` or `not run: …`."""
    difference: float | None = None
    """The largest difference of a score to that of our own engine."""
    date: str = ""

    @property
    def failed(self) -> bool:
        """Whether the fault may be ours."""
        return self.verdict.startswith("wrong")


def compare(expected: Sequence[Sequence[float]], scored: Sequence[Sequence[tuple[int, float]]]) -> tuple[float, str]:
    """Compare ranked results with the scores of our own engine.

    Args:
        expected: For each query the score of each document, in the documents' order.
        scored: For each query (index, score) of each document, best first.

    Returns:
        The largest difference, and what is wrong with the order ("" where nothing is).
    """
    largest, problem = 0.0, ""
    for scores, results in zip(expected, scored, strict=True):
        order = sorted(range(len(scores)), key=lambda index: -scores[index])
        if sorted(index for index, _ in results) != sorted(order):
            return float("inf"), f"the documents {sorted(index for index, _ in results)} came back"
        if [index for index, _ in results] != order:
            problem = f"order {[index for index, _ in results]} instead of {order}"
        largest = max([largest, *(abs(scores[index] - score) for index, score in results)])
    return largest, problem


def incomplete(counts: Sequence[int], scored: Sequence[Sequence[tuple[int, float | None]]]) -> str:
    """Return what is wrong with results whose order means nothing ("" where nothing is).

    Args:
        counts: For each query the number of documents.
        scored: For each query (index, score) of each document.
    """
    for count, results in zip(counts, scored, strict=True):
        if sorted(index for index, _ in results) != list(range(count)):
            return f"the documents {sorted(index for index, _ in results)} came back"
        if unscored := [index for index, score in results if score is None or not 0 <= score <= 1]:
            return f"the documents {unscored} have no score"
    return ""


def _cells(row: Row) -> tuple[str, ...]:
    difference = "" if row.difference is None else f"{row.difference:.1e}" if row.difference else "0"
    return (row.name, row.version, row.through, row.verdict, difference)


def table(rows: Sequence[Row]) -> str:
    """Return the rows as aligned text."""
    lines = [("server or client", "version", "through", "verdict", "largest difference"), *map(_cells, rows)]
    widths = [max(len(line[column]) for line in lines) for column in range(len(lines[0]))]
    return "\n".join(
        "  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip() for line in lines
    )


def markdown(rows: Sequence[Row]) -> str:
    """Return the page of the documentation."""
    parts = [
        "# Interoperability",
        "",
        INTRODUCTION,
    ]
    for kind, title, first in (
        ("server", "Servers, asked by our backends", "Server"),
        ("client", "Clients, asking `rerank-plugins serve`", "Client"),
    ):
        chosen = [row for row in rows if row.kind == kind]
        if not chosen:
            continue
        through = "Our backend" if kind == "server" else "Path"
        parts += ["", f"## {title}", "", f"| {first} | Version | {through} | Verdict | Largest difference | Run on |"]
        parts.append("| --- | --- | --- | --- | --- | --- |")
        for row in chosen:
            cells = [cell.replace("|", "\\|") for cell in _cells(row)]
            cells[2] = f"`{cells[2]}`" if cells[2] else ""
            parts.append("| " + " | ".join([*cells, row.date]) + " |")
    return "\n".join(parts) + "\n"


def merge(file: Path, rows: Sequence[Row]) -> list[Row]:
    """Replace in the JSON file the rows that ran, and return all."""
    known = [Row(**row) for row in json.loads(file.read_text("utf-8"))] if file.is_file() else []
    ran = {(row.kind, row.name) for row in rows}
    merged = [row for row in known if (row.kind, row.name) not in ran] + list(rows)
    merged.sort(key=lambda row: (row.kind != "server", row.name.lower(), row.through))
    text = json.dumps([dataclasses.asdict(row) for row in merged], indent=1, ensure_ascii=False)
    file.write_text(text + "\n", "utf-8")
    return merged
