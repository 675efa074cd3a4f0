"""The report's charts as Vega-Lite specifications (https://vega.github.io/vega-lite/, version 6): plain data.

They hold no text of documents. Colours are the page's CSS variables, so the charts follow the page's dark mode. A point
stands for a reranker and shows its number in the legend.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from .comparison_data import ComparisonData
from .results import EvaluationResult

__all__ = ["COLOURS", "charts", "pareto_front"]

COLOURS = 8
"""Number of colours. The ninth reranker has the first one's colour, but its own number."""
HEIGHT = 300
DIGIT = 6
"""Approximate width of a character in the labels, in pixels."""
MUTED, TEXT, GRID, PAGE = (f"var(--{name})" for name in ("muted", "text", "grid", "page"))


def charts(comparison: ComparisonData) -> dict[str, dict[str, Any]]:
    """Return the charts by name.

    `lift` is always there; `latency` where a call was made; `cost` where a price is known; `depth` where quality was
    measured at more than one number of candidates.
    """
    rows = [row for row in comparison.rows if row.error is None]
    specifications = {"lift": _lift_chart(comparison, rows)}
    budget = comparison.budget
    if any(row.p95_ms for row in rows):
        title = "milliseconds for 95 of 100 calls (log)"
        specifications["latency"] = _quality_chart(
            comparison, rows, lambda row: row.p95_ms or None, title, "log", budget.ms
        )
    if any(row.usd_per_1000 for row in rows):
        title = "US dollars for 1,000 queries"
        specifications["cost"] = _quality_chart(
            comparison, rows, lambda row: row.usd_per_1000, title, "linear", budget.usd
        )
    if len(comparison.depths) > 1:
        specifications["depth"] = _depth_chart(comparison, rows)
    return specifications


def pareto_front(
    rows: Sequence[EvaluationResult], main: str, price: Callable[[EvaluationResult], float | None]
) -> list[EvaluationResult]:
    """Return the Pareto front, cheapest first: the rows that no other row beats in quality at the same price or less.

    Args:
        rows: The results.
        main: The metric of quality.
        price: Function from a result to what it costs; `None` leaves the row out.
    """
    priced = [(cost, -row.means[main], at) for at, row in enumerate(rows) if (cost := price(row)) is not None]
    front: list[EvaluationResult] = []
    for _, _, at in sorted(priced):
        if not front or rows[at].means[main] > front[-1].means[main]:
            front.append(rows[at])
    return front


def _quality_chart(
    comparison: ComparisonData,
    rows: Sequence[EvaluationResult],
    price: Callable[[EvaluationResult], float | None],
    title: str,
    scale: str,
    budget: float | None,
) -> dict[str, Any]:
    main = comparison.main
    best = pareto_front(rows, main, price)
    points = [
        {**_reranker_fields(comparison, row), "x": price(row), "y": row.means[main], "front": row in best}
        for row in rows
        if price(row) is not None
    ]
    x = {"field": "x", "type": "quantitative", "title": title, "scale": {"type": scale, "nice": True, "padding": 16}}
    if scale == "log":
        x["axis"] = {"format": ",~g", "tickCount": 5}
    else:  # the padding left of 0 is not a price
        x["axis"] = {"labelExpr": "datum.value < 0 ? '' : datum.label"}
    layers: list[dict[str, Any]] = [
        _baseline(comparison),
        {
            "transform": [{"filter": "datum.front"}],
            "mark": {"type": "line", "color": MUTED, "strokeWidth": 2, "interpolate": "step-after", "aria": False},
        },
        {
            "mark": {"type": "point", "filled": True, "size": 380, "opacity": 1, "stroke": PAGE, "strokeWidth": 1},
            "transform": [{"filter": "datum.front"}],
            "encoding": {"color": _colour(comparison)},
        },
    ]
    numbers = [{**_number_labels(PAGE), "transform": [{"filter": "datum.front"}]}]
    # A screen reader would read a layer without points as a mark without a name.
    if not all(point["front"] for point in points):
        layers.append(
            {
                "mark": {"type": "point", "filled": True, "size": 380, "opacity": 1, "fill": PAGE, "strokeWidth": 2.5},
                "transform": [{"filter": "!datum.front"}],
                "encoding": {"stroke": _colour(comparison)},
            }
        )
        numbers.append({**_number_labels(TEXT), "transform": [{"filter": "!datum.front"}]})
    layers += numbers
    if budget is not None and (scale != "log" or budget > 0):
        layers.append(
            {
                "data": {"values": [{"x": budget}]},
                "mark": {"type": "rule", "color": MUTED, "strokeDash": [2, 3], "strokeWidth": 2, "aria": False},
                "encoding": {"x": {**x, "type": "quantitative"}, "y": None, "tooltip": {"value": "your budget"}},
            }
        )
    tooltip = [
        _tooltip_field("reranker"),
        _tooltip_field("y", main, ".3f"),
        _tooltip_field("x", title.removesuffix(" (log)"), ",.4~g"),
    ]
    return _chart(
        f"{main} against {title}: one point per reranker, filled where it is on the Pareto front.",
        points,
        {"x": x, "y": _quality_axis(comparison, rows), "tooltip": tooltip},
        layers,
    )


def _lift_chart(comparison: ComparisonData, rows: Sequence[EvaluationResult]) -> dict[str, Any]:
    points = [
        {
            **_reranker_fields(comparison, row),
            "mean": row.lift.mean,
            "low": row.lift.low,
            "high": row.lift.high,
            "p": row.lift.p,
        }
        for row in rows
        if row.lift is not None
    ]
    x = {"type": "quantitative", "title": f"change of {comparison.main} against the retriever"}
    return _chart(
        f"The lift of each reranker in {comparison.main}, with its 95 % interval.",
        points,
        {
            "y": {
                "field": "number",
                "type": "nominal",
                "title": None,
                "sort": None,
                "axis": {"labelFontWeight": "bold"},
            },
            "tooltip": [
                _tooltip_field("reranker"),
                *(_tooltip_field(name, name, "+.3f") for name in ("mean", "low", "high")),
                _tooltip_field("p"),
            ],
        },
        [
            {
                "data": {"values": [{"x": 0}]},
                "mark": {"type": "rule", "color": TEXT, "strokeDash": [5, 4], "aria": False},
                "encoding": {"x": {"field": "x", "type": "quantitative"}, "y": None, "tooltip": None},
            },
            {
                "mark": {"type": "rule", "strokeWidth": 3, "aria": False},
                "encoding": {"x": {**x, "field": "low"}, "x2": {"field": "high"}, "color": _colour(comparison)},
            },
            {
                "mark": {"type": "point", "filled": True, "size": 140, "opacity": 1},
                "encoding": {"x": {**x, "field": "mean"}, "color": _colour(comparison)},
            },
        ],
        height=max(120, 36 * len(points)),
    )


def _depth_chart(comparison: ComparisonData, rows: Sequence[EvaluationResult]) -> dict[str, Any]:
    points = [
        {**_reranker_fields(comparison, row), "x": str(depth), "y": value}
        for row in rows
        for depth, value in row.depths.items()
    ]
    quality = _quality_axis(comparison, rows, [value for row in rows for value in row.depths.values()])
    low, high = quality["scale"]["domain"]
    ends = _line_end_labels(points, str(comparison.depths[-1]), (high - low) / 20)
    longest = max((len(end["number"]) for end in ends), default=0)
    chart = _chart(
        f"{comparison.main} by the number of candidates that each reranker gets.",
        points,
        {
            "x": {
                "field": "x",
                "type": "ordinal",
                "title": "candidates",
                "sort": [str(depth) for depth in comparison.depths],
                "axis": {"labelAngle": 0},
            },
            "y": quality,
            "tooltip": [
                _tooltip_field("reranker"),
                _tooltip_field("x", "candidates"),
                _tooltip_field("y", comparison.main, ".3f"),
            ],
        },
        [
            _baseline(comparison),
            {"mark": {"type": "line", "strokeWidth": 2.5, "aria": False}, "encoding": {"color": _colour(comparison)}},
            {
                "mark": {"type": "point", "filled": True, "size": 60, "opacity": 1},
                "encoding": {"color": _colour(comparison)},
            },
            {
                "data": {"values": ends},
                "mark": {"type": "text", "dx": 10, "align": "left", "fontWeight": "bold", "color": TEXT, "aria": False},
                "encoding": {"text": {"field": "number"}, "tooltip": None},
            },
        ],
    )
    # Padding for the numbers of lines that end together. On a phone they would be cut off.
    return {**chart, "padding": {"left": 5, "top": 5, "bottom": 5, "right": max(5, DIGIT * longest - 5)}}


def _line_end_labels(points: Sequence[dict[str, Any]], depth: str, near: float) -> list[dict[str, Any]]:
    """Return the labels at the ends of the lines. Lines that end close together share a label."""
    ends: list[list[dict[str, Any]]] = []
    for point in sorted((point for point in points if point["x"] == depth), key=lambda point: point["y"]):
        if ends and point["y"] - ends[-1][0]["y"] < near:
            ends[-1].append(point)
        else:
            ends.append([point])
    return [
        {
            "x": depth,
            "y": sum(point["y"] for point in end) / len(end),
            "number": ", ".join(point["number"] for point in end),
        }
        for end in ends
    ]


def _chart(
    description: str,
    values: Sequence[dict[str, Any]],
    encoding: dict[str, Any],
    layers: Sequence[dict[str, Any]],
    *,
    height: int = HEIGHT,
) -> dict[str, Any]:
    axis = {"labelColor": MUTED, "titleColor": TEXT, "gridColor": GRID, "domainColor": GRID, "tickColor": GRID}
    return {
        "$schema": "https://vega.github.io/schema/vega-lite/v6.json",  # an identifier; nothing is downloaded
        "description": description,
        "width": "container",
        "height": height,
        "background": None,
        "data": {"values": list(values)},
        "encoding": encoding,
        "layer": list(layers),
        "config": {
            "font": "system-ui, sans-serif",
            "view": {"stroke": None},
            "axis": {**axis, "labelFontSize": 12, "titleFontSize": 13, "titleFontWeight": "normal", "titlePadding": 8},
        },
    }


def _baseline(comparison: ComparisonData) -> dict[str, Any]:
    """Return the layer of a dashed line at the quality of the retriever alone."""
    return {
        "data": {"values": [{"y": comparison.first.means[comparison.main]}]},
        "mark": {"type": "rule", "color": TEXT, "strokeDash": [5, 4], "aria": False},
        "encoding": {
            "y": {"field": "y", "type": "quantitative"},
            "x": None,
            "tooltip": {"value": "the retriever alone"},
        },
    }


def _number_labels(colour: str) -> dict[str, Any]:
    mark = {"type": "text", "fontWeight": "bold", "fontSize": 12, "color": colour, "aria": False, "tooltip": None}
    return {"mark": mark, "encoding": {"text": {"field": "number"}}}


def _reranker_fields(comparison: ComparisonData, row: EvaluationResult) -> dict[str, Any]:
    return {"number": str(comparison.rows.index(row) + 1), "reranker": row.label}


def _colour(comparison: ComparisonData) -> dict[str, Any]:
    numbers = [str(number) for number in range(1, len(comparison.rows) + 1)]
    colours = [f"var(--c{at % COLOURS})" for at in range(len(numbers))]
    return {"field": "number", "type": "nominal", "legend": None, "scale": {"domain": numbers, "range": colours}}


def _quality_axis(
    comparison: ComparisonData, rows: Sequence[EvaluationResult], more: Sequence[float] = ()
) -> dict[str, Any]:
    main = comparison.main
    values = [comparison.first.means[main], *(row.means[main] for row in rows), *more]
    margin = max(0.01, (max(values) - min(values)) * 0.15)
    domain = [max(0.0, min(values) - margin), min(1.0 + margin / 2, max(values) + margin)]
    return {
        "field": "y",
        "type": "quantitative",
        "title": main,
        "scale": {"domain": domain, "nice": False, "zero": False},
    }


def _tooltip_field(field: str, title: str | None = None, number_format: str | None = None) -> dict[str, Any]:
    line = {"field": field, "title": title or field}
    return line if number_format is None else {**line, "type": "quantitative", "format": number_format}
