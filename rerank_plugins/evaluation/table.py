"""A comparison as rows of text."""

from __future__ import annotations

from .comparing import Comparison
from .figures import Figures

__all__ = ["depth_rows", "rows"]

NONE = "-"


def rows(comparison: Comparison) -> list[dict[str, str]]:
    """Return one row of text per reranker, the first stage on top; the same keys in each."""
    return [_row(comparison, each) for each in (comparison.first, *comparison.rows)]


def depth_rows(comparison: Comparison) -> list[dict[str, str]]:
    """Return the main measure of each reranker at each number of candidates."""
    return [
        {"reranker": each.label}
        | {str(depth): f"{each.depths[depth]:.3f}" if depth in each.depths else NONE for depth in comparison.depths}
        for each in comparison.rows
        if each.error is None
    ]


def _row(comparison: Comparison, each: Figures) -> dict[str, str]:
    lift = each.lift
    cells = {"reranker": each.label}
    for name in comparison.first.means:
        cells[name] = f"{each.means[name]:.3f}" if name in each.means else NONE
        if name == comparison.main:
            cells["lift [95 %]"] = f"{lift.mean:+.3f} [{lift.low:+.3f}, {lift.high:+.3f}]" if lift else NONE
            cells["p"] = f"{lift.p:.4f}" if lift else NONE
    cells["p50 ms"] = milliseconds(each.p50_ms)
    cells["p95 ms"] = milliseconds(each.p95_ms)
    cells["documents/s"] = NONE if each.documents_per_second is None else f"{each.documents_per_second:,.0f}"
    cells["$/1,000"] = NONE if each.usd_per_1000 is None else f"{each.usd_per_1000:.2f}"
    cells["degraded"] = NONE if each.lift is None else f"{each.degraded:.0%}"
    return cells


def milliseconds(value: float | None) -> str:
    """Return a time in digits that can be compared."""
    if value is None:
        return NONE
    return f"{value:,.0f}" if value >= 10 else f"{value:.1f}"
