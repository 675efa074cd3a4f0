"""A comparison as one HTML page that needs no network and no other file."""

from __future__ import annotations

import functools
import importlib.util
import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from html import escape
from importlib import resources
from typing import Any

from ..core.errors import MissingExtra
from .charts import COLOURS, charts, pareto_front
from .comparison_data import ComparisonData
from .data import Question
from .results import EvaluationResult, Rankings
from .table import abstention_rows, agreement_rows, base_rows, group_rows, result_rows

__all__ = ["render_report", "render_summary", "require_chart_library"]

VEGA_LITE = "6.4"
MAX_QUESTIONS = 500
"""Number of queries on the page. The results count all queries."""
SNIPPET = 180
"""Characters of a query or document on the page."""
NUMBER = ' class="number"'
ABSTENTION = (
    "Each query counts twice: with its relevant documents, and without them. AUROC is the probability that the best "
    "score is higher with them; 0.5 is chance. Precision: of the lists whose best score reaches the threshold, the "
    "share that has a relevant document. Recall: of the lists with a relevant document, the share that reaches it."
)
BASE = (
    "What sentence-transformers' evaluators print as base_* of the first stage counts relevant documents that are no "
    "candidates. No reranker can place these, so lifts are measured without them."
)
AGREEMENT = (
    "Of each pair the same candidates, in both orders. tau: 1 is the same order, -1 the reverse. RBO: the same for the "
    "top, 1 to 0. Then: queries with the same first document, documents that are new at the top, places by which a "
    "candidate is elsewhere, and queries on which the second of the pair is better or worse."
)
CAPTIONS = {
    "lift": "The change against the retriever's own order, with its 95 % interval. An interval that touches the dashed "
    "line proves nothing.",
    "latency": "Filled: nothing here is better and faster (the Pareto front, grey). Dashed: the retriever alone. "
    "Dotted: your budget.",
    "cost": "Filled: nothing here is better and cheaper (the Pareto front, grey). No vendor is paid for a local "
    "reranker.",
    "depth": "Quality by the number of candidates that each reranker gets. Dashed: the retriever alone.",
}
TITLES = {
    "lift": "What each adds",
    "latency": "Quality against time",
    "cost": "Quality against cost",
    "depth": "Quality by depth",
}


def require_chart_library() -> None:
    """Check that a report can be made, before any answer is paid for.

    Raises:
        MissingExtra: vl-convert-python, which contains the charts' library, is not installed.
    """
    if importlib.util.find_spec("vl_convert") is None:
        raise MissingExtra("The HTML report", extra="evaluation", package="vl-convert-python")


def render_report(comparison: ComparisonData) -> str:
    """Return the page. Text of queries and documents is escaped; the browser never parses it as HTML.

    Raises:
        MissingExtra: vl-convert-python, which contains the charts' library, is not installed.
    """
    specifications = charts(comparison)
    measured = [row for row in comparison.rows if row.lift is not None]
    best = max(measured, key=lambda row: row.lift.mean if row.lift is not None else 0.0)
    selected = next((row for row in measured if row.label == comparison.advice.choice), best)
    parts = {
        "TITLE": f"{escape(comparison.dataset.name)}: which reranker, and is it worth it?",
        "FACTS": escape(_describe_dataset(comparison)),
        "DECISION": escape(comparison.advice.lines[0]),
        "REASONS": _reasons(comparison),
        "LEGEND": "".join(_legend(comparison)),
        "CHARTS": "".join(_figure(name) for name in specifications),
        "UNPRICED": escape(_unpriced(comparison)),
        "TABLE": _table(comparison),
        "SECTIONS": "".join(_sections(comparison)),
        "OPTIONS": "".join(
            f'<option value="{at}"{" selected" if row is selected else ""}>{escape(row.label)}</option>'
            for at, row in enumerate(comparison.rows)
            if row.error is None
        ),
        "STYLE": _page_file("page.css"),
        "DATA": _script_safe_json({"charts": specifications, **_question_data(comparison)}),
        "LIBRARY": _chart_library(),
        "SCRIPT": _page_file("page.js"),
    }
    before, *marked = _page_file("page.html").split("{{")
    pieces = [before]
    for piece in marked:  # one pass: a placeholder inside a document's text is never replaced
        name, _, rest = piece.partition("}}")
        pieces += [parts[name], rest]
    return "".join(pieces)


def render_summary(comparison: ComparisonData) -> str:
    """Return the advice and the table as an HTML fragment without scripts and styles."""
    return (
        f"<p><strong>{escape(comparison.advice.lines[0])}</strong></p><ul>{_reasons(comparison)}</ul>"
        f"<p>{escape(_describe_dataset(comparison))}</p>{_table(comparison)}"
    )


@functools.cache
def _chart_library() -> str:
    """Return Vega-Embed and its dependencies as one script of 0.9 MB, as vl-convert bundles it."""
    require_chart_library()
    import vl_convert

    return str(vl_convert.javascript_bundle("window.vegaEmbed = vegaEmbed;", VEGA_LITE))


def _page_file(name: str) -> str:
    return (resources.files(__package__) / "page" / name).read_text("utf-8")


def _script_safe_json(value: Any) -> str:
    """Return JSON that cannot close the script element around it."""
    text = json.dumps(value, ensure_ascii=True, separators=(",", ":"))
    return text.replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026")


def _describe_dataset(comparison: ComparisonData) -> str:
    dataset = comparison.dataset
    unjudged = f" ({dataset.unjudged:,} more have no judgement)" if dataset.unjudged else ""
    judgements = comparison.judgements
    judged = f"; {judgements.queries:,} judged by {judgements.judge}, not by people" if judgements is not None else ""
    return (
        f"{len(dataset.questions):,} queries{unjudged}, up to {dataset.depth} candidates each{judged}; "
        f"first stage: {dataset.first_stage}, {comparison.main} {comparison.first.means[comparison.main]:.3f}"
    )


def _reasons(comparison: ComparisonData) -> str:
    return "".join(f"<li>{escape(line)}</li>" for line in comparison.advice.lines[1:])


def _legend(comparison: ComparisonData) -> Iterator[str]:
    for at, row in enumerate(comparison.rows):
        failed = " (given up)" if row.error is not None else ""
        yield f'<li><span class="dot c{at % COLOURS}" aria-hidden="true"></span>{escape(row.label)}{failed}</li>'


def _figure(name: str) -> str:
    return (
        f'<figure><h3>{escape(TITLES[name])}</h3><div class="chart" id="chart-{name}"></div>'
        f"<figcaption>{escape(CAPTIONS[name])}</figcaption></figure>"
    )


def _unpriced(comparison: ComparisonData) -> str:
    labels = [row.label for row in comparison.rows if row.usd_per_1000 is None and row.error is None]
    if not labels:
        return ""
    return f"Not in the chart of costs, because the price is unknown: {', '.join(labels)}. Give the spec a `price`."


def _table(comparison: ComparisonData) -> str:
    rows = result_rows(comparison)
    measured = [row for row in comparison.rows if row.error is None]
    fronts = {
        "latency": pareto_front(measured, comparison.main, lambda row: row.p95_ms),
        "cost": pareto_front(measured, comparison.main, lambda row: row.usd_per_1000),
    }
    headings = ["#", *rows[0], "Pareto front"]
    body = []
    for at, cells in enumerate(rows):
        result = comparison.rows[at - 1] if at else None
        on_front = ", ".join(name for name, front in fronts.items() if any(row is result for row in front)) or "-"
        label, *values = cells.values()
        columns = [f'<td class="number">{at or ""}</td>', f'<th scope="row">{escape(label)}</th>']
        columns += [f'<td class="number">{escape(value)}</td>' for value in values]
        chosen = ' class="chosen"' if result is not None and result.label == comparison.advice.choice else ""
        body.append(f"<tr{chosen}>{''.join(columns)}<td>{on_front}</td></tr>")
    head = "".join(
        f'<th scope="col"{"" if heading in ("reranker", "Pareto front") else NUMBER}>{escape(heading)}</th>'
        for heading in headings
    )
    return f"<table><thead><tr>{head}</tr></thead><tbody>{''.join(body)}</tbody></table>"


def _sections(comparison: ComparisonData) -> Iterator[str]:
    """Yield the sections with a table each: first stage, by data set, abstention, agreement."""
    for name, title, caption, rows in (
        ("base", "The first stage beside published figures", BASE, base_rows(comparison)),
        ("groups", f"{comparison.main} by data set", "The mean counts each data set the same.", group_rows(comparison)),
        ("abstention", "Does its best score tell that nothing is relevant?", ABSTENTION, abstention_rows(comparison)),
        ("agreement", "Who moves what", AGREEMENT, agreement_rows(comparison)),
    ):
        if rows:
            yield (
                f'<section aria-labelledby="{name}"><h2 id="{name}">{escape(title)}</h2>'
                f'<p class="facts">{escape(caption)}</p><div class="wide" role="region" '
                f'aria-label="Table: {escape(title)}" tabindex="0">{_plain_table(rows)}</div></section>'
            )


def _plain_table(rows: Sequence[Mapping[str, str]]) -> str:
    """Return a table whose first column names the row. Columns of words are aligned left, those of numbers right."""
    first, *rest = rows[0]
    head = f'<th scope="col">{escape(first)}</th>' + "".join(
        f'<th scope="col"{"" if name == "why not" else NUMBER}>{escape(name)}</th>' for name in rest
    )
    body = "".join(
        f'<tr><th scope="row">{escape(row[first])}</th>'
        + "".join(f"<td{'' if name == 'why not' else NUMBER}>{escape(row[name])}</td>" for name in rest)
        + "</tr>"
        for row in rows
    )
    return f"<table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>"


def _question_data(comparison: ComparisonData) -> dict[str, Any]:
    """Return every question's order before and after, as document numbers: each text is stored once."""
    main = comparison.main
    measured = [(at, row) for at, row in enumerate(comparison.rows) if row.error is None]
    positions = range(len(comparison.dataset.questions))
    before = comparison.first.values[main]
    # The questions with the largest loss of any reranker. The page sorts them for the selected reranker.
    losses = [min((row.values[main][at] - before[at] for _, row in measured), default=0.0) for at in positions]
    chosen = sorted(positions, key=lambda at: losses[at])[:MAX_QUESTIONS]
    documents = _DocumentNumbers(comparison.k)
    questions = []
    for at in chosen:
        question = comparison.dataset.questions[at]
        texts = {candidate.id: candidate.text for candidate in question.candidates}
        grades = comparison.dataset.grades.get(question.id, {})
        ranking = _ranking(comparison.first, at, question)
        questions.append(
            {
                "text": _snippet(question.text),
                "value": round(before[at], 4),
                "order": documents.number(ranking, texts),
                "relevant": _first_relevant(grades, ranking),
                "after": {
                    str(place): {
                        "value": round(row.values[main][at], 4),
                        "order": documents.number(after := _ranking(row, at, question), texts),
                        "relevant": _first_relevant(grades, after),
                    }
                    for place, row in measured
                },
                "grades": {
                    documents.numbers[name]: grade
                    for name, grade in grades.items()
                    if name in documents.numbers and grade > 0
                },
            }
        )
    return {"main": main, "documents": documents.snippets, "questions": questions, "all": len(positions)}


def _ranking(result: EvaluationResult, at: int, question: Question) -> tuple[str, ...]:
    """Return the ranking of the question at a position, without reading that question again."""
    rankings = result.rankings
    return rankings.ranking(at, question) if isinstance(rankings, Rankings) else rankings[question.id]


class _DocumentNumbers:
    """Numbers the documents of the page in the order of their first appearance."""

    def __init__(self, k: int) -> None:
        self.k = k
        self.numbers: dict[str, int] = {}
        self.snippets: list[list[str]] = []
        """[id, beginning of the text] by number."""

    def number(self, ranking: Iterable[str], texts: Mapping[str, str]) -> list[int]:
        """Return the numbers of the first `k` documents of a ranking."""
        order = []
        for name in list(ranking)[: self.k]:
            if name not in self.numbers:
                self.numbers[name] = len(self.snippets)
                self.snippets.append([name, _snippet(texts[name])])
            order.append(self.numbers[name])
        return order


def _first_relevant(grades: Mapping[str, int], ranking: Iterable[str]) -> int | None:
    """Return the position, from 1, of the first relevant document; `None` if there is none."""
    return next((place for place, name in enumerate(ranking, start=1) if grades.get(name, 0) > 0), None)


def _snippet(text: str) -> str:
    text = " ".join(text.split())
    return text if len(text) <= SNIPPET else f"{text[: SNIPPET - 1]}…"
