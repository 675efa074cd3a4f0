"""A comparison as rows of text."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from .comparison_data import ComparisonData
from .results import EvaluationResult

__all__ = [
    "abstention_rows",
    "agreement_rows",
    "base_rows",
    "depth_rows",
    "format_table",
    "group_rows",
    "result_rows",
]

EMPTY_CELL = "-"


def result_rows(comparison: ComparisonData) -> list[dict[str, str]]:
    """Return one row per reranker below the first stage's row: column → text, with the same columns in all rows."""
    return [_result_row(comparison, result) for result in (comparison.first, *comparison.rows)]


def depth_rows(comparison: ComparisonData) -> list[dict[str, str]]:
    """Return one row per reranker with the main metric at each number of candidates."""
    return [
        {"reranker": result.label}
        | {
            str(depth): f"{result.depths[depth]:.3f}" if depth in result.depths else EMPTY_CELL
            for depth in comparison.depths
        }
        for result in comparison.rows
        if result.error is None
    ]


def group_rows(comparison: ComparisonData) -> list[dict[str, str]]:
    """Return one row per data set with the main metric of each reranker; none where one data set was read."""
    results = [result for result in (comparison.first, *comparison.rows) if result.error is None]
    return [
        {"data set": group} | {result.label: f"{result.groups[group][comparison.main]:.3f}" for result in results}
        for group in comparison.first.groups
    ]


def base_rows(comparison: ComparisonData) -> list[dict[str, str]]:
    """Return the first stage as it is measured here, and as sentence-transformers' evaluators print it.

    None where the data set does not follow their rules.
    """
    first = comparison.first
    if not first.base_means:
        return []
    rows = {"as measured here": first.means, "base_* of the evaluators": first.base_means}
    rows |= {f"base_* over {group}": means for group, means in first.base_groups.items()}
    return [
        {"first stage": label} | {name: f"{value:.3f}" for name, value in means.items()}
        for label, means in rows.items()
    ]


def abstention_rows(comparison: ComparisonData) -> list[dict[str, str]]:
    """Return one row per reranker that tells how well its best score separates lists without a relevant document."""
    rows = []
    for result in comparison.rows:
        if (figures := result.abstention) is None:
            continue
        chosen = " (chosen here)" if figures.chosen else ""
        rows.append(
            {
                "reranker": result.label,
                "AUROC": _decimals(figures.auroc, 3),
                "threshold": EMPTY_CELL if figures.threshold is None else f"{figures.threshold:.3f}{chosen}",
                "precision": _decimals(figures.precision, 3),
                "recall": _decimals(figures.recall, 3),
                "queries": f"{figures.queries:,}" if figures.missing is None else EMPTY_CELL,
                "why not": figures.missing or "",
            }
        )
    if all(not row["why not"] for row in rows):
        for row in rows:
            del row["why not"]
    return rows


def agreement_rows(comparison: ComparisonData) -> list[dict[str, str]]:
    """Return one row per pair of rerankers, the first stage among them."""
    return [
        {
            "pair": f"{pair.first} / {pair.second}",
            "tau": _decimals(pair.tau, 2),
            "RBO": _decimals(pair.rbo, 2),
            "same first": f"{pair.same_first:.0%}",
            f"new in {comparison.k}": _decimals(pair.changed, 1),
            "places moved": _decimals(pair.moved, 1),
            "second better": f"{pair.wins:,}",
            "second worse": f"{pair.losses:,}",
        }
        for pair in comparison.agreement
    ]


def _decimals(value: float | None, digits: int) -> str:
    return EMPTY_CELL if value is None else f"{value:.{digits}f}"


def format_table(rows: Sequence[Mapping[str, str]]) -> str:
    """Return rows as lines of text with a heading: the first column aligned left, the others right."""
    columns = list(rows[0])
    widths = [max(len(column), *(len(row[column]) for row in rows)) for column in columns]
    lines = []
    for cells in (columns, *(list(row.values()) for row in rows)):
        first, *numbers = (f"{cell:>{width}}" for cell, width in zip(cells, widths, strict=True))
        lines.append("  ".join([f"{cells[0]:<{len(first)}}", *numbers]))
    return "\n".join(lines)


def _result_row(comparison: ComparisonData, result: EvaluationResult) -> dict[str, str]:
    lift = result.lift
    cells = {"reranker": result.label}
    for name in comparison.first.means:
        cells[name] = f"{result.means[name]:.3f}" if name in result.means else EMPTY_CELL
        if name == comparison.main:
            cells["lift [95 %]"] = f"{lift.mean:+.3f} [{lift.low:+.3f}, {lift.high:+.3f}]" if lift else EMPTY_CELL
            cells["p"] = f"{lift.p:.4f}" if lift else EMPTY_CELL
    cells["p50 ms"] = format_milliseconds(result.p50_ms)
    cells["p95 ms"] = format_milliseconds(result.p95_ms)
    rate = result.documents_per_second
    cells["documents/s"] = EMPTY_CELL if rate is None else f"{rate:,.0f}"
    cells["$/1,000"] = EMPTY_CELL if result.usd_per_1000 is None else f"{result.usd_per_1000:.2f}"
    cells["degraded"] = EMPTY_CELL if lift is None else f"{result.degraded:.0%}"
    return cells


def format_milliseconds(value: float | None) -> str:
    """Return a time with one decimal below 10 ms and none above."""
    if value is None:
        return EMPTY_CELL
    return f"{value:,.0f}" if value >= 10 else f"{value:.1f}"
