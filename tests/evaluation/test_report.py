"""The report in Chromium: charts, interaction, accessibility, an empty console; wide and narrow, light and dark."""

from __future__ import annotations

import json
import re
import sys
from pathlib import Path
from typing import Any

import pytest
from support.browser import VIEWPORTS, faults

from rerank_plugins.evaluation import Comparison, Dataset, Question, compare
from rerank_plugins.evaluation.charts import charts, pareto_front
from rerank_plugins.evaluation.data import Candidate
from rerank_plugins.evaluation.report import _chart_library
from rerank_plugins.testing.vendors import VENDORS

EVIL = "</script><script>document.title='owned'</script><img src=x onerror=\"document.title='owned'\">{{DATA}}"
CHARTS = ("lift", "latency", "cost", "depth")


def make_dataset() -> Dataset:
    """Return 32 questions: `lexical` improves the even ones, harms the odd ones, and does not change the last two.

    Their texts contain markup that tries to break the page.
    """
    questions, grades = [], {}
    for number in range(32):
        texts = [f"{EVIL} text {at}" for at in range(12)]
        texts[3 if number % 2 else 7] = f"{EVIL} honey {number}"
        candidates = tuple(Candidate(f"{number}-{at}", text) for at, text in enumerate(texts))
        questions.append(Question(str(number), f"honey {number} {EVIL}", candidates))
        relevant = 11 if number >= 30 else 0 if number % 2 else 7  # the cut at 10 never reaches the document 11
        grades[str(number)] = {f"{number}-{relevant}": 1}
    return Dataset.of("<b>made</b>", questions, grades)


@pytest.fixture(scope="module")
def comparison() -> Comparison:
    with VENDORS["cohere"]() as server:
        vendor = {"use": "cohere:rerank-v3.5", "base_url": server.url, "api_key": server.key}
        specs = ["passthrough", "lexical", {**vendor, "price": {"per_search_unit": 0.002}}]
        return compare(make_dataset(), specs, budget_ms=1000, budget_usd=1.0, depths=(2, 5, 10))


def test_report_never_parses_document_text_as_html(comparison):
    page = comparison.to_html().split('<script type="module">')[0]  # our code and the library's follow
    assert "<img" not in page
    assert "title='owned'</script>" not in page
    data = page.split('<script type="application/json" id="data">')[1].split("</script>")[0]
    assert json.loads(data)["documents"][0][1].startswith("</script><script>document.title='owned'")
    assert "<b>made" not in page


def test_pareto_front_holds_rows_that_no_other_row_beats(comparison):
    passthrough, lexical, vendor = comparison.rows
    price = {"passthrough": 1.0, "lexical": 2.0, "cohere:rerank-v3.5": 3.0}
    assert comparison.main == "nDCG@10"
    best = pareto_front(comparison.rows, comparison.main, lambda row: price[row.label])
    assert best[0] is passthrough
    assert (lexical in best) == (lexical.means["nDCG@10"] > passthrough.means["nDCG@10"])
    assert pareto_front(comparison.rows, comparison.main, lambda row: None) == []
    assert vendor in pareto_front([vendor], comparison.main, lambda row: 0.0)


def test_report_holds_abstention_and_agreement_as_tables(comparison):
    page = comparison.to_html().split('<script type="module">')[0]
    assert '<h2 id="abstention">Does its best score tell that nothing is relevant?</h2>' in page
    assert '<h2 id="agreement">Who moves what</h2>' in page
    assert 'id="groups"' not in page  # one data set
    (pair,) = [pair for pair in comparison.agreement if (pair.first, pair.second) == ("passthrough", "lexical")]
    cells = f'<th scope="row">passthrough / lexical</th><td class="number">{pair.tau:.2f}</td>'
    assert cells in page


def test_report_shows_the_first_stage_as_the_evaluators_print_it(comparison):
    """Of two relevant documents BM25 found one, and the evaluators count the other one too."""
    questions = [
        Question(f"{group}/q", "honey", tuple(Candidate(name, f"text {name}") for name in ("d1", "d2", "d4")), added=1)
        for group in ("NanoA", "NanoB")
    ]
    dataset = Dataset(
        "nano",
        questions,
        {question.id: {"d2": 1, "d3": 1, "d4": 1} for question in questions},
        protocol="sentence-transformers",
        groups={"NanoA": range(1), "NanoB": range(1, 2)},
    )
    nano = compare(dataset, ["lexical"], depths=())
    assert nano.first.base_means["MAP"] != pytest.approx(nano.first.means["MAP"], abs=1e-3)
    page = nano.to_html().split('<script type="module">')[0]
    assert '<h2 id="base">The first stage beside published figures</h2>' in page
    for label, means in (("as measured here", nano.first.means), ("base_* of the evaluators", nano.first.base_means)):
        cells = "".join(f'<td class="number">{value:.3f}</td>' for value in means.values())
        assert f'<th scope="row">{label}</th>{cells}' in page
    assert "base_* over NanoB" in page
    assert 'id="base"' not in comparison.to_html()  # trec_eval's rules


def test_report_without_prices_has_no_cost_chart():
    comparison = compare(make_dataset(), ["lexical"], depths=())
    assert list(charts(comparison)) == ["lift", "latency"]
    assert "undefined" not in comparison.to_html().split("<script")[0]


def test_chart_with_all_points_on_the_front_has_no_layer_for_others():
    """A screen reader would read an empty layer as a mark without a name."""
    latency = charts(compare(make_dataset(), ["lexical"], depths=()))["latency"]
    assert "!datum.front" not in json.dumps(latency)
    assert "datum.front" in json.dumps(latency)


def test_depth_chart_has_padding_for_labels_of_lines_that_end_together():
    depth = charts(compare(make_dataset(), ["passthrough"] * 9, depths=(2, 5)))["depth"]
    (label,) = depth["layer"][-1]["data"]["values"]
    assert label["number"] == "1, 2, 3, 4, 5, 6, 7, 8, 9"
    assert depth["padding"]["right"] > 5 * len(label["number"])


def test_table_has_one_aligned_line_per_reranker(comparison):
    heading, *lines = comparison.table().splitlines()
    assert heading.split()[:2] == ["reranker", "nDCG@10"]
    assert [line.split("  ")[0] for line in lines] == [
        "the order given",
        "passthrough",
        "lexical",
        "cohere:rerank-v3.5",
    ]
    assert len({len(line) for line in (heading, *lines)}) == 1
    assert f"{comparison.rows[1].means['nDCG@10']:.3f}" in lines[2]
    assert str(comparison) == f"{comparison.table()}\n\n{comparison.advice}"


def test_to_dict_is_json_without_document_text(comparison):
    text = json.dumps(comparison.to_dict())
    assert "honey" not in text
    assert json.loads(text)["rerankers"][1]["reranker"] == "lexical"


def test_repr_html_without_chart_library_is_advice_and_table(comparison, monkeypatch):
    monkeypatch.setitem(sys.modules, "vl_convert", None)
    _chart_library.cache_clear()
    fragment = comparison._repr_html_()
    assert fragment.startswith("<p><strong>")
    assert '<th scope="row">lexical</th>' in fragment
    assert "<script" not in fragment


def test_compare_accepts_the_former_name_of_answer_cache(tmp_path):
    with pytest.warns(DeprecationWarning, match="answer_cache"):
        compare(make_dataset(), ["lexical"], depths=(), kept=tmp_path / "answers.sqlite3")
    assert (tmp_path / "answers.sqlite3").is_file()
    with pytest.raises(TypeError, match="'keep'"):
        compare(make_dataset(), ["lexical"], keep=tmp_path / "answers.sqlite3")


def open_page(browser: Any, file: Path, viewport: str) -> tuple[Any, list[str], list[str]]:
    """Return a page that shows `file`, and two lists that fill: URLs requested, and console messages."""
    width, scheme = VIEWPORTS[viewport]
    page = browser.new_page(viewport={"width": width, "height": 900}, color_scheme=scheme)
    requests: list[str] = []
    messages: list[str] = []
    page.on("request", lambda request: requests.append(request.url))
    page.on("console", lambda message: messages.append(message.text))
    page.on("pageerror", lambda error: messages.append(str(error)))
    page.goto(file.as_uri())
    return page, requests, messages


@pytest.mark.slow  # a browser, four times
@pytest.mark.parametrize("viewport", VIEWPORTS)
def test_report_works_in_a_browser(viewport, comparison, browser, tmp_path):
    from playwright.sync_api import expect

    file: Path = tmp_path / "report.html"
    file.write_text(comparison.to_html(), "utf-8")
    width, _ = VIEWPORTS[viewport]
    page, requests, messages = open_page(browser, file, viewport)

    for name in CHARTS:
        marks = page.locator(f"#chart-{name} svg.marks .mark-symbol path")
        expect(marks.first).to_be_visible()
        assert marks.count() >= len(comparison.rows), name
        box = page.locator(f"#chart-{name} svg").bounding_box()
        assert 200 < box["width"] <= width
    assert page.evaluate("document.documentElement.scrollWidth") <= width  # only the table scrolls sideways
    chart = page.locator("#chart-depth svg").bounding_box()
    for label in page.locator("#chart-depth svg .mark-text text").all():
        box = label.bounding_box()
        assert box["x"] + box["width"] <= chart["x"] + chart["width"]  # not cut off

    hint, frame = page.locator("#scroll-hint"), page.locator("#results-frame")
    if width < 1000:
        expect(hint).to_be_visible()
        expect(hint).to_contain_text("scrolls sideways")
        expect(frame).to_have_class(re.compile("more-to-the-right"))
        frame.evaluate("element => element.scrollTo(element.scrollWidth, 0)")
        expect(frame).not_to_have_class(re.compile("more-to-the-right"))
    else:
        expect(hint).to_be_hidden()  # the whole table is visible

    for section, rows in (("abstention", 3), ("agreement", 6)):
        table = page.locator(f"section[aria-labelledby={section}] table")
        expect(table.locator("tbody tr")).to_have_count(rows)
        table_frame = page.locator(f"section[aria-labelledby={section}] .wide")
        wider = table_frame.evaluate("element => element.scrollWidth > element.clientWidth + 1")
        assert wider == (table_frame.get_attribute("class") == "wide more-to-the-right")
    expect(page.locator("section[aria-labelledby=abstention] tbody")).to_contain_text("its scores are only an order")

    page.select_option("#reranker", label="lexical")
    expect(page.locator("#change-counts")).to_contain_text("32 queries: 15 worse, 15 better, 2 the same")
    changes = page.locator("#changed-list > details .change")
    values = [float(text.replace("−", "-")) for text in changes.all_inner_texts()]
    assert values == sorted(values)
    assert values[0] < 0
    assert len(values) == 20
    page.click("#more")
    expect(page.locator("#changed-list > details")).to_have_count(30)
    page.locator("#changed-list summary").first.click()
    expect(page.locator("details[open] .orders ol")).to_have_count(2)
    expect(page.locator("details[open] li.relevant").first).to_be_visible()
    expect(page.locator("details[open] .facts")).to_contain_text(re.compile("document: 1 before, [23] after"))
    page.select_option("#order", "-1")
    expect(changes.first).to_contain_text("+")
    page.locator("#changed-list summary").first.click()
    expect(page.locator("details[open] .orders")).to_be_visible()

    expect(page.locator("#unchanged-count")).to_have_text("2 queries without a change")
    expect(page.locator("#unchanged-list details")).to_have_count(0)  # folded away
    page.click("#unchanged-count")
    expect(page.locator("#unchanged-list details")).to_have_count(2)
    page.locator("#unchanged-list summary").first.click()
    expect(page.locator("#unchanged-list .orders")).to_be_visible()

    assert faults(page) == []
    page.screenshot(path=tmp_path / f"{viewport}.png", full_page=True)
    assert page.title().startswith("<b>made</b>")
    page.select_option("#reranker", label="passthrough")
    expect(page.locator("#unchanged-count")).to_have_text("32 queries without a change")
    expect(page.locator("#changed-list details")).to_have_count(0)
    expect(page.locator("#more")).to_be_hidden()
    page.close()
    assert requests == [file.as_uri()]
    assert messages == []
    assert (tmp_path / f"{viewport}.png").stat().st_size > 50_000


SHAPES: dict[str, dict[str, Any]] = {
    "one reranker": {"rerankers": ["lexical"], "depths": ()},
    "one depth, no change": {"rerankers": ["passthrough"], "depths": (2,)},
    "nine rerankers": {"rerankers": ["passthrough", "lexical"] * 4 + ["lexical"], "budget_ms": 0.001},
    "no budget left": {"rerankers": ["lexical"], "budget_ms": 0, "budget_usd": 0},
}


@pytest.mark.slow  # a browser, four times
@pytest.mark.parametrize("shape", SHAPES)
def test_report_of_any_shape_writes_nothing_to_the_console(shape, browser, tmp_path):
    """Vega warns in the console about empty data and infinite extents."""
    from playwright.sync_api import expect

    file: Path = tmp_path / "report.html"
    file.write_text(compare(make_dataset(), **SHAPES[shape]).to_html(), "utf-8")
    page, _, messages = open_page(browser, file, "desktop")
    for chart in page.locator(".chart").all():
        expect(chart.locator("svg.marks")).to_be_visible()
    page.set_viewport_size({"width": 390, "height": 900})
    for point in page.locator(".mark-symbol path").all()[:3]:
        point.hover(force=True)
    page.close()
    assert messages == []


@pytest.mark.slow  # a browser
def test_repr_html_shows_the_report_inside_a_notebook_page(comparison, browser, tmp_path):
    from playwright.sync_api import expect

    file: Path = tmp_path / "notebook.html"
    cell = (
        f"<!doctype html><title>notebook</title><meta charset=utf-8><div class=output>{comparison._repr_html_()}</div>"
    )
    file.write_text(cell, "utf-8")
    page, requests, messages = open_page(browser, file, "desktop")
    frame = page.frame_locator("iframe")
    expect(frame.locator("#decision")).to_contain_text(comparison.advice.lines[0][:30])
    expect(frame.locator("#chart-lift svg.marks")).to_be_visible()
    assert page.title() == "notebook"  # the frame is sandboxed
    page.close()
    assert [url for url in requests if url != "about:srcdoc"] == [file.as_uri()]
    assert messages == []
