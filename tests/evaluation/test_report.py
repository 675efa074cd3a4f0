"""The report in a real browser: drawn, clicked, silent, accessible; wide, narrow and dark."""

from __future__ import annotations

import json
import os
import re
import shutil
from pathlib import Path

import pytest

from rerank_plugins.evaluation import Comparison, Dataset, Question, compare
from rerank_plugins.evaluation.charts import charts, front
from rerank_plugins.evaluation.data import Candidate
from rerank_plugins.evaluation.report import html
from rerank_plugins.testing.vendors import VENDORS

EVIL = "</script><script>document.title='owned'</script><img src=x onerror=\"document.title='owned'\">{{DATA}}"
CHARTS = ("lift", "latency", "cost", "depth")
LOOKS = {"desktop": (1280, "light"), "phone": (390, "light"), "dark": (1280, "dark")}


def dataset() -> Dataset:
    """Return questions that `lexical` helps (even ones) and harms (odd ones), in texts that mean to break the page."""
    questions, grades = [], {}
    for number in range(30):
        texts = [f"{EVIL} text {at}" for at in range(12)]
        texts[3 if number % 2 else 7] = f"{EVIL} honey {number}"
        found = tuple(Candidate(f"{number}-{at}", text) for at, text in enumerate(texts))
        questions.append(Question(str(number), f"honey {number} {EVIL}", found))
        grades[str(number)] = {f"{number}-{0 if number % 2 else 7}": 1}
    return Dataset.of("<b>made</b>", questions, grades)


@pytest.fixture(scope="module")
def comparison() -> Comparison:
    with VENDORS["cohere"]() as server:
        vendor = {"use": "cohere:rerank-v3.5", "base_url": server.url, "api_key": server.key}
        specs = ["passthrough", "lexical", {**vendor, "price": {"per_search_unit": 0.002}}]
        return compare(dataset(), specs, budget_ms=1000, budget_usd=1.0, depths=(2, 5, 10))


def test_nothing_of_a_text_is_read_as_html(comparison):
    page = html(comparison).split('<script type="module">')[0]  # what follows is our code, and the library's
    assert "<img" not in page
    assert "title='owned'</script>" not in page
    told = page.split('<script type="application/json" id="data">')[1].split("</script>")[0]
    assert json.loads(told)["documents"][0][1].startswith("</script><script>document.title='owned'")
    assert "<b>made" not in page


def test_the_pareto_front_is_what_nothing_beats(comparison):
    passthrough, lexical, vendor = comparison.rows
    price = {"passthrough": 1.0, "lexical": 2.0, "cohere:rerank-v3.5": 3.0}
    assert comparison.main == "nDCG@10"
    best = front(comparison.rows, comparison.main, lambda row: price[row.label])
    assert best[0] is passthrough
    assert (lexical in best) == (lexical.means["nDCG@10"] > passthrough.means["nDCG@10"])
    assert front(comparison.rows, comparison.main, lambda row: None) == []
    assert vendor in front([vendor], comparison.main, lambda row: 0.0)


def test_no_chart_of_costs_without_a_price():
    comparison = compare(dataset(), ["lexical"], depths=())
    assert list(charts(comparison)) == ["lift", "latency"]
    assert "undefined" not in html(comparison).split("<script")[0]


def test_a_chart_without_points_off_the_front_has_no_layer_for_them():
    """A screen reader would meet a mark without a name."""
    latency = charts(compare(dataset(), ["lexical"], depths=()))["latency"]
    assert "!datum.front" not in json.dumps(latency)
    assert "datum.front" in json.dumps(latency)


def test_there_is_room_for_the_numbers_of_lines_that_end_together():
    depth = charts(compare(dataset(), ["passthrough"] * 9, depths=(2, 5)))["depth"]
    (label,) = depth["layer"][-1]["data"]["values"]
    assert label["number"] == "1, 2, 3, 4, 5, 6, 7, 8, 9"
    assert depth["padding"]["right"] > 5 * len(label["number"])


def chromium() -> str:
    found = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
    if found is None and not os.environ.get("CI"):
        pytest.skip("no Chromium here: apt-get install chromium")
    assert found, "CI has no Chromium: see .ci/run"
    return found


@pytest.mark.slow  # a browser, three times
@pytest.mark.parametrize("look", LOOKS)
def test_in_a_browser(look, comparison, tmp_path):
    from axe_playwright_python.sync_playwright import Axe
    from playwright.sync_api import expect, sync_playwright

    file: Path = tmp_path / "report.html"
    file.write_text(html(comparison), "utf-8")
    width, scheme = LOOKS[look]
    asked: list[str] = []
    said: list[str] = []
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chromium(), args=["--no-sandbox"])
        page = browser.new_page(viewport={"width": width, "height": 900}, color_scheme=scheme)
        page.on("request", lambda request: asked.append(request.url))
        page.on("console", lambda message: said.append(message.text))
        page.on("pageerror", lambda error: said.append(str(error)))
        page.goto(file.as_uri())

        for name in CHARTS:
            marks = page.locator(f"#chart-{name} svg.marks .mark-symbol path")
            expect(marks.first).to_be_visible()
            assert marks.count() >= len(comparison.rows), name
            box = page.locator(f"#chart-{name} svg").bounding_box()
            assert 200 < box["width"] <= width
        assert page.evaluate("document.documentElement.scrollWidth") <= width  # only the table scrolls sideways
        right = page.locator("#chart-depth svg").bounding_box()
        for label in page.locator("#chart-depth svg .mark-text text").all():
            box = label.bounding_box()
            assert box["x"] + box["width"] <= right["x"] + right["width"]  # not cut off

        page.select_option("#which", label="lexical")
        expect(page.locator("#count")).to_contain_text("30 queries: 15 worse, 15 better, 0 the same")
        changes = [float(each.replace("−", "-")) for each in page.locator("summary .change").all_inner_texts()]
        assert changes == sorted(changes)
        assert changes[0] < 0
        assert len(changes) == 20
        page.click("#more")
        expect(page.locator("summary")).to_have_count(30)
        page.locator("summary").first.click()
        expect(page.locator("details[open] .orders ol")).to_have_count(2)
        expect(page.locator("details[open] li.relevant").first).to_be_visible()
        expect(page.locator("details[open] .facts")).to_contain_text(re.compile("document: 1 before, [23] after"))
        page.select_option("#sort", "-1")
        expect(page.locator("summary .change").first).to_contain_text("+")
        page.locator("summary").first.click()
        expect(page.locator("details[open] .orders")).to_be_visible()

        results = Axe().run(page)
        assert results.violations_count == 0, results.generate_report()
        page.screenshot(path=tmp_path / f"{look}.png", full_page=True)
        assert page.title().startswith("<b>made</b>")
        browser.close()
    assert asked == [file.as_uri()]
    assert said == []
    assert (tmp_path / f"{look}.png").stat().st_size > 50_000
