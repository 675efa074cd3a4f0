"""The site of `make docs` in Chromium: nothing overflows, axe finds nothing, and the search finds the right page."""

from __future__ import annotations

import functools
import http.server
import os
import threading
from collections.abc import Iterator
from typing import Any

import pytest
from support.browser import VIEWPORTS, faults
from support.pages import ROOT, TEXTS

SITE = ROOT / "site"
PAGES = ("guides/failures", "reference/backends", "benchmarks")
"""Pages with all kinds of parts: code, links in code, wide tables, a chart, generated text."""

FIRST = {
    "timeout": {"guides/failures", "reference/options"},
    "proxy": {"guides/network"},
    "None": {"reference/metadata"},
    "fetch_k": {"guides/choosing", "guides/stores", "tutorial/first-result"},
    "warmup": {"guides/failures", "tutorial/production"},
    "price": {"reference/prices", "guides/caching-and-cost", "reference/options"},
    "Bedrock": {"guides/aws-and-azure", "guides/presets"},  # the second says which of the three ways to take
}
"""Word that a reader types → the pages of which one must be the first result."""

pytestmark = pytest.mark.slow  # a browser


class QuietHandler(http.server.SimpleHTTPRequestHandler):
    def log_message(self, *arguments: Any) -> None:
        """Print nothing."""


@pytest.fixture(scope="module")
def url() -> Iterator[str]:
    """Serve the built site: the search is a worker, which browsers do not start from a file."""
    if not (SITE / "index.html").is_file():
        assert not os.environ.get("CI"), "CI builds the site before: see .ci/run"
        pytest.skip("the site is not built: make docs")
    requests_of_site = functools.partial(QuietHandler, directory=str(SITE))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), requests_of_site) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}/"
        server.shutdown()
        thread.join()


@pytest.mark.parametrize("viewport", VIEWPORTS)
def test_pages_do_not_overflow_and_pass_axe(viewport, browser, url):
    width, scheme = VIEWPORTS[viewport]
    page = browser.new_page(viewport={"width": width, "height": 900}, color_scheme=scheme)
    requests: list[str] = []
    page.on("request", lambda request: requests.append(request.url))
    lines = []
    for name in PAGES:
        page.goto(f"{url}{name}.html")
        lines += faults(page)
    page.close()
    assert lines == []
    assert all(request.startswith((url, "data:", "blob:")) for request in requests)  # nothing of another host


def test_no_page_overflows_a_phone(browser, url):
    width, _ = VIEWPORTS["phone"]
    page = browser.new_page(viewport={"width": width, "height": 900})
    wide = []
    for name in sorted(path.removeprefix("docs/").removesuffix(".md") for path in TEXTS if path.startswith("docs/")):
        page.goto(f"{url}{name}.html", wait_until="domcontentloaded")
        if page.evaluate("document.documentElement.scrollWidth") > width:
            wide.append(name)
    page.close()
    assert wide == []


def test_search_finds_the_right_page_first(browser, url):
    page = browser.new_page(viewport={"width": 1280, "height": 900})
    first = {}
    for word in FIRST:
        page.goto(f"{url}index.html?q={word}")  # as typed, but without results for its first letters
        link = page.locator(".md-search-result__item a").first
        link.wait_for(state="attached")
        first[word] = link.get_attribute("href").partition(".html")[0].removeprefix(url)
    page.close()
    assert {word: page for word, page in first.items() if page not in FIRST[word]} == {}
