"""Random requests to `serve` for some seconds; `python tests/fuzz/serve_driver.py` runs them for longer."""

from __future__ import annotations

import runpy
from pathlib import Path

import pytest

DRIVER = runpy.run_path(str(Path(__file__).parents[1] / "fuzz" / "serve_driver.py"))


@pytest.mark.slow  # 20 s of random requests
def test_random_requests_do_not_break_the_server():
    report = DRIVER["drive"](15.0, seed=20_261_130)
    assert report["broken"] == []
    assert report["statuses"]["polite 200"] > 10
    assert {"200", "400", "401", "422"} <= set(report["statuses"])


@pytest.mark.slow
@pytest.mark.alone
def test_hostile_clients_do_not_delay_a_valid_one():
    report = DRIVER["drive"](20.0, seed=7, clients=2)
    assert report["broken"] == []
    assert report["p95_ratio"] <= 2, report
