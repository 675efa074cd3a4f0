"""A comparison as one HTML file that needs nothing else: no network, no other file."""

from __future__ import annotations

import functools
import importlib.util
import json
from collections.abc import Iterable, Iterator, Mapping
from html import escape
from importlib import resources
from typing import Any

from ..core.errors import MissingExtra
from .charts import COLOURS, charts, front
from .comparing import Comparison
from .table import rows

__all__ = ["drawable", "html"]

VEGA_LITE = "6.4"
QUESTIONS = 500
"""On the page; the figures are of all."""
SNIPPET = 180
NUMBER = ' class="number"'
CAPTIONS = {
    "lift": "The change against the retriever's own order, with its 95 % interval. One that touches the dashed line proves nothing.",
    "latency": "Filled: nothing here is better and faster (the Pareto front, grey). Dashed: the retriever alone; dotted: your budget.",
    "cost": "Filled: nothing here is better and cheaper (the Pareto front, grey). Local rerankers cost no vendor anything.",
    "depth": "How many candidates each reranker gets. Dashed: the retriever alone.",
}
TITLES = {
    "lift": "What each adds",
    "latency": "Quality against time",
    "cost": "Quality against cost",
    "depth": "Quality by depth",
}


def drawable() -> None:
    """See, before anything is paid for, that a report can be made.

    Raises:
        MissingExtra: vl-convert-python, which brings the charts' library, is not installed.
    """
    if importlib.util.find_spec("vl_convert") is None:
        raise MissingExtra("The HTML report", extra="evaluation", package="vl-convert-python")


def html(comparison: Comparison) -> str:
    """Return the page. All text of queries and documents in it is escaped, and none of it is ever read as HTML.

    Raises:
        MissingExtra: vl-convert-python, which brings the charts' library, is not installed.
    """
    drawn = charts(comparison)
    known = [row for row in comparison.rows if row.lift is not None]
    best = max(known, key=lambda row: row.lift.mean if row.lift is not None else 0.0)
    opened = next((row for row in known if row.label == comparison.advice.choice), best)
    parts = {
        "TITLE": f"{escape(comparison.dataset.name)}: which reranker, and is it worth it?",
        "FACTS": escape(_facts(comparison)),
        "DECISION": escape(comparison.advice.lines[0]),
        "REASONS": "".join(f"<li>{escape(line)}</li>" for line in comparison.advice.lines[1:]),
        "LEGEND": "".join(_legend(comparison)),
        "CHARTS": "".join(_figure(name) for name in drawn),
        "UNPRICED": escape(_unpriced(comparison)),
        "TABLE": _table(comparison),
        "OPTIONS": "".join(
            f'<option value="{at}"{" selected" if row is opened else ""}>{escape(row.label)}</option>'
            for at, row in enumerate(comparison.rows)
            if row.error is None
        ),
        "STYLE": _file("page.css"),
        "DATA": _inert({"charts": drawn, **_questions(comparison)}),
        "LIBRARY": _library(),
        "SCRIPT": _file("page.js"),
    }
    before, *marked = _file("page.html").split("{{")
    pieces = [before]
    for each in marked:  # in one pass: what a document holds is never taken for a mark
        name, _, rest = each.partition("}}")
        pieces += [parts[name], rest]
    return "".join(pieces)


@functools.cache
def _library() -> str:
    """Return Vega-Embed and all it needs as one script, 0.9 MB, as vl-convert brings it."""
    drawable()
    import vl_convert

    return str(vl_convert.javascript_bundle("window.vegaEmbed = vegaEmbed;", VEGA_LITE))


def _file(name: str) -> str:
    return (resources.files(__package__) / "page" / name).read_text("utf-8")


def _inert(value: Any) -> str:
    """Return JSON that cannot end the script element it stands in."""
    text = json.dumps(value, ensure_ascii=True, separators=(",", ":"))
    return text.replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026")


def _facts(comparison: Comparison) -> str:
    dataset = comparison.dataset
    unjudged = f" ({dataset.unjudged:,} more have no judgement)" if dataset.unjudged else ""
    return (
        f"{len(dataset.questions):,} queries{unjudged}, up to {dataset.depth} candidates each; "
        f"first stage: {dataset.first_stage}, {comparison.main} {comparison.first.means[comparison.main]:.3f}"
    )


def _legend(comparison: Comparison) -> Iterator[str]:
    for at, row in enumerate(comparison.rows):
        failed = " (given up)" if row.error is not None else ""
        yield f'<li><span class="dot c{at % COLOURS}" aria-hidden="true"></span>{escape(row.label)}{failed}</li>'


def _figure(name: str) -> str:
    return (
        f'<figure><h3>{escape(TITLES[name])}</h3><div class="chart" id="chart-{name}"></div>'
        f"<figcaption>{escape(CAPTIONS[name])}</figcaption></figure>"
    )


def _unpriced(comparison: Comparison) -> str:
    unknown = [row.label for row in comparison.rows if row.usd_per_1000 is None and row.error is None]
    return f"Price not known, so in no chart of costs: {', '.join(unknown)}. Give the spec a price." if unknown else ""


def _table(comparison: Comparison) -> str:
    told = rows(comparison)
    known = [row for row in comparison.rows if row.error is None]
    fronts = {
        "latency": front(known, comparison.main, lambda row: row.p95_ms),
        "cost": front(known, comparison.main, lambda row: row.usd_per_1000),
    }
    head = ["#", *told[0], "Pareto front"]
    body = []
    for at, cells in enumerate(told):
        row = comparison.rows[at - 1] if at else None
        on = ", ".join(name for name, rows_on in fronts.items() if any(each is row for each in rows_on)) or "-"
        values = list(cells.values())
        columns = [f'<td class="number">{at or ""}</td>', f'<th scope="row">{escape(values[0])}</th>']
        columns += [f'<td class="number">{escape(value)}</td>' for value in values[1:]]
        chosen = ' class="chosen"' if row is not None and row.label == comparison.advice.choice else ""
        body.append(f"<tr{chosen}>{''.join(columns)}<td>{on}</td></tr>")
    heads = "".join(
        f'<th scope="col"{"" if each in ("reranker", "Pareto front") else NUMBER}>{escape(each)}</th>' for each in head
    )
    return f"<table><thead><tr>{heads}</tr></thead><tbody>{''.join(body)}</tbody></table>"


def _questions(comparison: Comparison) -> dict[str, Any]:
    """Return every question's order before and after, the documents by number: a text stands there once."""
    main = comparison.main
    known = [(at, row) for at, row in enumerate(comparison.rows) if row.error is None]
    places = range(len(comparison.dataset.questions))
    before = comparison.first.values[main]
    # Those where most was lost come first, whoever lost it; each reranker's own order is made on the page.
    losses = [min((row.values[main][at] - before[at] for _, row in known), default=0.0) for at in places]
    chosen = sorted(places, key=lambda at: losses[at])[:QUESTIONS]
    numbers: dict[str, int] = {}
    texts: list[list[str]] = []
    questions = []
    for at in chosen:
        question = comparison.dataset.questions[at]
        held = {each.id: each.text for each in question.candidates}

        def numbered(order: Iterable[str], held: dict[str, str] = held) -> list[int]:
            found = []
            for name in list(order)[: comparison.k]:
                if name not in numbers:
                    numbers[name] = len(texts)
                    texts.append([name, _snippet(held[name])])
                found.append(numbers[name])
            return found

        grades = comparison.dataset.grades.get(question.id, {})
        ranked = comparison.first.rankings[question.id]
        questions.append(
            {
                "text": _snippet(question.text),
                "value": round(before[at], 4),
                "order": numbered(ranked),
                "relevant": _relevant(grades, ranked),
                "after": {
                    str(place): {
                        "value": round(row.values[main][at], 4),
                        "order": numbered(row.rankings[question.id]),
                        "relevant": _relevant(grades, row.rankings[question.id]),
                    }
                    for place, row in known
                },
                "grades": {numbers[name]: grade for name, grade in grades.items() if name in numbers and grade > 0},
            }
        )
    return {"main": main, "documents": texts, "questions": questions, "all": len(places)}


def _relevant(grades: Mapping[str, int], ranked: Iterable[str]) -> int | None:
    """Return the place, from 1, of the first relevant document; `None` where the list holds none."""
    return next((place for place, name in enumerate(ranked, start=1) if grades.get(name, 0) > 0), None)


def _snippet(text: str) -> str:
    text = " ".join(text.split())
    return text if len(text) <= SNIPPET else f"{text[: SNIPPET - 1]}…"
