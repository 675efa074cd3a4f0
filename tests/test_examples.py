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


@pytest.mark.slow  # two minutes: a whole collection into a real S3 server, and 100 questions through four first stages
def test_two_stages_over_object_storage_beat_one():
    out = run("object_storage/demo.py")
    row = re.compile(r"^(keywords|vectors|hybrid)\b.*? ([\d.]+) +([\d.]+) +\S+ \[([+-][\d.]+), ", re.MULTILINE)
    found = {name: tuple(map(float, figures)) for name, *figures in row.findall(out.split("nDCG@10")[1])}
    for name in ("keywords", "hybrid"):
        alone, reranked, low = found[name]
        assert reranked > alone
        assert low > 0
    (low,) = re.findall(r"against the best single one \(\w+\): \S+ \[([+-][\d.]+)", out)
    assert float(low) > 0
    assert len(re.findall(r"^  (?:embed|search|fetch|rerank) +[\d.]+", out, re.MULTILINE)) == 5


@pytest.mark.parametrize("file", sorted(EXAMPLES.rglob("*.py")), ids=lambda file: str(file.relative_to(EXAMPLES)))
def test_examples_are_short(file):
    lines = len(file.read_text("utf-8").splitlines())
    assert lines < 60
