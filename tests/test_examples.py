"""Every example runs, offline, as a user runs it."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

EXAMPLES = Path(__file__).parent.parent / "examples"


def run(name: str) -> str:
    done = subprocess.run(
        [sys.executable, str(EXAMPLES / name)], capture_output=True, text=True, timeout=600, check=False
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.slow  # a minute: 100 questions x 50 candidates, twice
def test_the_demo_shows_that_reranking_is_worth_it():
    out = run("demo.py")
    rows = re.findall(r"^(LangChain|LlamaIndex) +(\w+) +([\d.]+) +([\d.]+)", out, re.MULTILINE)
    ndcg = {(framework, reranker): float(value) for framework, reranker, value, _ in rows}
    assert len(ndcg) == 6
    for framework in ("LangChain", "LlamaIndex"):
        assert ndcg[framework, "embedded"] > ndcg[framework, "passthrough"] + 0.04
        assert ndcg[framework, "embedded"] > ndcg[framework, "lexical"]
    assert ndcg["LangChain", "embedded"] == ndcg["LlamaIndex", "embedded"]


def test_the_failover_shows_every_step():
    steps = run("failover.py").split("\n\n")
    assert "as asked for" in steps[0]
    for number, told in [
        (2, "RateLimited"),
        (3, "DeadlineExceeded"),
        (4, "breaker_open"),
        (5, "embedded [onnxruntime"),
    ]:
        step = next(each for each in steps if each.startswith(f"{number}. "))
        assert told in step
        assert "DEGRADED" in step
    assert "as asked for" in steps[-2]
    assert "'failed': 0" in steps[-1]
