"""The system's Chromium, for tests of pages: where it is, and what is wrong with a page that it shows."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from typing import Any

import pytest

__all__ = ["VIEWPORTS", "browser", "faults"]

VIEWPORTS = {
    "desktop": (1280, "light"),
    "desktop-dark": (1280, "dark"),
    "phone": (390, "light"),
    "phone-dark": (390, "dark"),
}
"""Width in pixels, and colour scheme."""


def find_chromium() -> str:
    path = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
    if path is None and not os.environ.get("CI"):
        pytest.skip("no Chromium here: apt-get install chromium")
    assert path, "CI has no Chromium: see .ci/run"
    return path


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    """Start Chromium without a window."""
    path = find_chromium()
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        chromium = playwright.chromium.launch(executable_path=path, args=["--no-sandbox"])
        yield chromium
        chromium.close()


def faults(page: Any) -> list[str]:
    """Return what overflows the page to the side, and what axe finds: contrast, names, keyboard."""
    from axe_playwright_python.sync_playwright import Axe

    wide = page.evaluate("document.documentElement.scrollWidth - document.documentElement.clientWidth")
    lines = [f"{page.url}: {wide} pixels wider than the window"] if wide > 0 else []
    for violation in Axe().run(page).response["violations"]:
        node = violation["nodes"][0]
        lines.append(f"{page.url}: {violation['id']}: {node['html'][:200]} {node['failureSummary'][:300]}")
    return lines
