"""The report's charts as Vega-Lite (https://vega.github.io/vega-lite/, version 6): plain data, no text of documents.

Colours are the page's CSS variables, so that the charts are dark where the page is. A reranker is its number in the legend.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from .comparing import Comparison
from .figures import Figures

__all__ = ["COLOURS", "charts", "front"]

COLOURS = 8
"""Rerankers with a colour of their own; the ninth has the first's again, and its number."""
HEIGHT = 300
DIGIT = 6
"""Pixels of a character in the labels, about."""
MUTED, TEXT, GRID, PAGE = (f"var(--{name})" for name in ("muted", "text", "grid", "page"))


def charts(comparison: Comparison) -> dict[str, dict[str, Any]]:
    """Return the charts by name: `lift`, `latency`, `cost` where a price is known, `depth` where there is more than one."""
    rows = [row for row in comparison.rows if row.error is None]
    found = {"lift": _lift(comparison, rows)}
    budget = comparison.budget
    if any(row.p95_ms for row in rows):
        title = "milliseconds for 95 of 100 calls (log)"
        found["latency"] = _against(comparison, rows, lambda row: row.p95_ms or None, title, "log", budget.ms)
    if any(row.usd_per_1000 for row in rows):
        title = "US dollars for 1,000 queries"
        found["cost"] = _against(comparison, rows, lambda row: row.usd_per_1000, title, "linear", budget.usd)
    if len(comparison.depths) > 1:
        found["depth"] = _depth(comparison, rows)
    return found


def front(rows: Sequence[Figures], main: str, price: Callable[[Figures], float | None]) -> list[Figures]:
    """Return the Pareto front, cheapest first: the rows that no other beats in quality at the same price or less."""
    priced = [(told, -row.means[main], at) for at, row in enumerate(rows) if (told := price(row)) is not None]
    kept: list[Figures] = []
    for _, _, at in sorted(priced):
        if not kept or rows[at].means[main] > kept[-1].means[main]:
            kept.append(rows[at])
    return kept


def _against(
    comparison: Comparison,
    rows: Sequence[Figures],
    price: Callable[[Figures], float | None],
    title: str,
    scale: str,
    budget: float | None,
) -> dict[str, Any]:
    main = comparison.main
    best = front(rows, main, price)
    points = [
        {**_named(comparison, row), "x": price(row), "y": row.means[main], "front": row in best}
        for row in rows
        if price(row) is not None
    ]
    x = {"field": "x", "type": "quantitative", "title": title, "scale": {"type": scale, "nice": True, "padding": 16}}
    if scale == "log":
        x["axis"] = {"format": ",~g", "tickCount": 5}
    else:  # room to the left of 0 is no price
        x["axis"] = {"labelExpr": "datum.value < 0 ? '' : datum.label"}
    layers: list[dict[str, Any]] = [
        _first(comparison),
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
    numbers = [{**_numbers(PAGE), "transform": [{"filter": "datum.front"}]}]
    # A layer without points would be a mark without a name to a screen reader.
    if not all(point["front"] for point in points):
        layers.append(
            {
                "mark": {"type": "point", "filled": True, "size": 380, "opacity": 1, "fill": PAGE, "strokeWidth": 2.5},
                "transform": [{"filter": "!datum.front"}],
                "encoding": {"stroke": _colour(comparison)},
            }
        )
        numbers.append({**_numbers(TEXT), "transform": [{"filter": "!datum.front"}]})
    layers += numbers
    if budget is not None and (scale != "log" or budget > 0):
        layers.append(
            {
                "data": {"values": [{"x": budget}]},
                "mark": {"type": "rule", "color": MUTED, "strokeDash": [2, 3], "strokeWidth": 2, "aria": False},
                "encoding": {"x": {**x, "type": "quantitative"}, "y": None, "tooltip": {"value": "your budget"}},
            }
        )
    tooltip = [_cell("reranker"), _cell("y", main, ".3f"), _cell("x", title.removesuffix(" (log)"), ",.4~g")]
    return _chart(
        f"{main} against {title}: one point a reranker, filled where it is on the Pareto front.",
        points,
        {"x": x, "y": _quality(comparison, rows), "tooltip": tooltip},
        layers,
    )


def _lift(comparison: Comparison, rows: Sequence[Figures]) -> dict[str, Any]:
    points = [
        {**_named(comparison, row), "mean": row.lift.mean, "low": row.lift.low, "high": row.lift.high, "p": row.lift.p}
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
                _cell("reranker"),
                *(_cell(each, each, "+.3f") for each in ("mean", "low", "high")),
                _cell("p"),
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


def _depth(comparison: Comparison, rows: Sequence[Figures]) -> dict[str, Any]:
    points = [
        {**_named(comparison, row), "x": str(depth), "y": value} for row in rows for depth, value in row.depths.items()
    ]
    quality = _quality(comparison, rows, [value for row in rows for value in row.depths.values()])
    low, high = quality["scale"]["domain"]
    ends = _ends(points, str(comparison.depths[-1]), (high - low) / 20)
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
            "tooltip": [_cell("reranker"), _cell("x", "candidates"), _cell("y", comparison.main, ".3f")],
        },
        [
            _first(comparison),
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
    # Room for the numbers of lines that end together: on a phone they would be cut off.
    return {**chart, "padding": {"left": 5, "top": 5, "bottom": 5, "right": max(5, DIGIT * longest - 5)}}


def _ends(points: Sequence[dict[str, Any]], depth: str, near: float) -> list[dict[str, Any]]:
    """Return the numbers at the ends of the lines; those of lines that end nearly together as one label."""
    ends: list[list[dict[str, Any]]] = []
    for point in sorted((each for each in points if each["x"] == depth), key=lambda each: each["y"]):
        if ends and point["y"] - ends[-1][0]["y"] < near:
            ends[-1].append(point)
        else:
            ends.append([point])
    return [
        {
            "x": depth,
            "y": sum(each["y"] for each in end) / len(end),
            "number": ", ".join(each["number"] for each in end),
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
        "$schema": "https://vega.github.io/schema/vega-lite/v6.json",  # a name: nothing is fetched
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


def _first(comparison: Comparison) -> dict[str, Any]:
    """Return a line at what the retriever reaches alone."""
    return {
        "data": {"values": [{"y": comparison.first.means[comparison.main]}]},
        "mark": {"type": "rule", "color": TEXT, "strokeDash": [5, 4], "aria": False},
        "encoding": {
            "y": {"field": "y", "type": "quantitative"},
            "x": None,
            "tooltip": {"value": "the retriever alone"},
        },
    }


def _numbers(colour: str) -> dict[str, Any]:
    mark = {"type": "text", "fontWeight": "bold", "fontSize": 12, "color": colour, "aria": False, "tooltip": None}
    return {"mark": mark, "encoding": {"text": {"field": "number"}}}


def _named(comparison: Comparison, row: Figures) -> dict[str, Any]:
    return {"number": str(comparison.rows.index(row) + 1), "reranker": row.label}


def _colour(comparison: Comparison) -> dict[str, Any]:
    numbers = [str(number) for number in range(1, len(comparison.rows) + 1)]
    colours = [f"var(--c{at % COLOURS})" for at in range(len(numbers))]
    return {"field": "number", "type": "nominal", "legend": None, "scale": {"domain": numbers, "range": colours}}


def _quality(comparison: Comparison, rows: Sequence[Figures], more: Sequence[float] = ()) -> dict[str, Any]:
    main = comparison.main
    told = [comparison.first.means[main], *(row.means[main] for row in rows), *more]
    room = max(0.01, (max(told) - min(told)) * 0.15)
    domain = [max(0.0, min(told) - room), min(1.0 + room / 2, max(told) + room)]
    return {
        "field": "y",
        "type": "quantitative",
        "title": main,
        "scale": {"domain": domain, "nice": False, "zero": False},
    }


def _cell(field: str, title: str | None = None, form: str | None = None) -> dict[str, Any]:
    told = {"field": field, "title": title or field}
    return told if form is None else {**told, "type": "quantitative", "format": form}
