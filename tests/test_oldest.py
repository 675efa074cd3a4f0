"""The lower bounds in pyproject.toml are versions that work: all of them at once, in an environment of their own."""

from __future__ import annotations

import re
import sys
import tomllib
from pathlib import Path

import pytest
from environments import ROOT, Environment

# What needs no torch to make a model, no vendor's SDK and no installed script; langchain-tests wants a newer httpx.
FILES = [
    "adapters",
    "contract",
    "engine/test_hub_client.py",
    "test_reranker.py",
    "test_tokens.py",
    "test_transport.py",
    "test_bad_day.py",
]
CHOSEN = " and ".join(
    f"not Test{name}"
    for name in ("Onnx", "OpenVINO", "SentenceTransformers", "Family", "FlashRank", "Cohere", "Voyage")
)
CHOSEN += " and not cohere and not voyage"  # the same tests over a vendor whose SDK is not installed


def oldest() -> list[str]:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]
    extras = project["optional-dependencies"]
    wanted = [*project["dependencies"], *extras["langchain"], *extras["llama-index"]]
    assert all(">=" in each for each in wanted)
    # The host frameworks want a newer pydantic and tqdm than the package does, so theirs are taken.
    return [each.replace(">=", "==") for each in wanted if not each.startswith(("pydantic", "tqdm"))]


@pytest.mark.slow  # two minutes: an environment, and the tests of adapters, contract and core in it
@pytest.mark.skipif(sys.version_info >= (3, 13), reason="numpy 1.26 is for Python below 3.13")
def test_the_oldest_versions_of_everything_work_together(tmp_path: Path, wheel: Path) -> None:
    environment = Environment(tmp_path)
    installed = environment.install(str(wheel), *oldest(), "hypothesis>=6.100", "langchain-classic>=1.0")
    for each in oldest():
        assert any(re.fullmatch(rf"{re.escape(each)}(\.0)*", version) for version in installed), each
    environment.tests(
        *("-m", "not slow", "-k", CHOSEN),
        *("--ignore", str(ROOT / "tests/adapters/test_langchain_retriever.py")),
        *(str(ROOT / "tests" / name) for name in FILES),
        more_than=1000,
    )
