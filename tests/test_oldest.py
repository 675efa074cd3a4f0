"""The tests pass with the oldest versions that pyproject.toml allows, all in one separate environment."""

from __future__ import annotations

import re
import sys
import tomllib
from pathlib import Path

import pytest
from support.environments import ROOT, Environment

# Tests without torch, vendors' SDKs and installed scripts. langchain-tests, which needs a newer httpx, is left out.
FILES = [
    "adapters",
    "contract",
    "engine/test_hub_client.py",
    "test_reranker.py",
    "core/test_tokens.py",
    "test_transport.py",
    "test_bad_day.py",
]
SELECTION = " and ".join(
    f"not Test{name}"
    for name in ("Onnx", "OpenVINO", "SentenceTransformers", "Family", "FlashRank", "Cohere", "Voyage")
)
SELECTION += " and not cohere and not voyage"  # the same tests over a vendor whose SDK is not installed


def oldest_versions() -> list[str]:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]
    extras = project["optional-dependencies"]
    requirements = [*project["dependencies"], *extras["langchain"], *extras["llama-index"]]
    assert all(">=" in requirement for requirement in requirements)
    # Without pydantic and tqdm: the host frameworks need newer versions of them than this package.
    pinned = [requirement.replace(">=", "==") for requirement in requirements]
    return [requirement for requirement in pinned if not requirement.startswith(("pydantic", "tqdm"))]


@pytest.mark.slow  # two minutes: an environment, and the tests of adapters, contract and core in it
@pytest.mark.skipif(sys.version_info >= (3, 13), reason="numpy 1.26 is for Python below 3.13")
def test_suite_passes_with_the_oldest_versions(tmp_path: Path, wheel: Path) -> None:
    environment = Environment(tmp_path)
    installed = environment.install(str(wheel), *oldest_versions(), "hypothesis>=6.100", "langchain-classic>=1.0")
    for pinned in oldest_versions():
        assert any(re.fullmatch(rf"{re.escape(pinned)}(\.0)*", version) for version in installed), pinned
    environment.tests(
        *("-m", "not slow", "-k", SELECTION),
        *("--ignore", str(ROOT / "tests/adapters/test_langchain_retriever.py")),
        *(str(ROOT / "tests" / name) for name in FILES),
        more_than=1000,
    )
