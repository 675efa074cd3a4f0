"""The contract suite detects faulty backends, and passes correct ones."""

from __future__ import annotations

import re
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

pytestmark = pytest.mark.slow  # each starts a pytest of its own over a backend

ACME = """
import random
from rerank_plugins.core import Capabilities, LocalBackend


class Sound(LocalBackend):
    model = "acme-1"
    capabilities = Capabilities(scale="unit")

    def score(self, query, documents):
        return [len(set(query.split()) & set(text.split())) / (1 + len(text)) for text in documents]


class Sorts(Sound):
    def score(self, query, documents):
        return sorted(super().score(query, documents), reverse=True)


class Normalises(Sound):
    def score(self, query, documents):
        scores = super().score(query, documents)
        return [score / (max(scores) or 1.0) for score in scores]


class Cuts(Sound):
    def score(self, query, documents):
        return super().score(query, documents)[:3]


class Forgets(Sound):
    def score(self, query, documents):
        return [random.random() for _ in documents]


class Chokes(Sound):
    def score(self, query, documents):
        assert not any("\\0" in text for text in documents)
        return super().score(query, documents)


class Overflows(Sound):
    def score(self, query, documents):
        return [10.0 * len(text) for text in documents]


class Remembers(Sound):
    asked = None

    def score(self, query, documents):
        self.calls = self.calls or query
        return super().score(self.calls, documents)
"""

TESTS = """
import pytest
from rerank_plugins.config import registry
from rerank_plugins.testing.contract import BackendContract

for name in ("Sound", "Sorts", "Normalises", "Cuts", "Forgets", "Chokes", "Overflows", "Remembers"):
    registry.BUILTIN[name.lower()] = registry.BackendEntry(f"acme:{name}", "made by a test")


class TestSound(BackendContract):
    spec = "sound"


class TestSoundByFixture(BackendContract):
    @pytest.fixture
    def spec(self):
        return {"use": "sound"}


class TestSoundByProperty(BackendContract):
    @property
    def spec(self):
        return "sound"


class TestSorts(BackendContract):
    spec = "sorts"


class TestNormalises(BackendContract):
    spec = "normalises"


class TestCuts(BackendContract):
    spec = "cuts"


class TestForgets(BackendContract):
    spec = "forgets"


class TestChokes(BackendContract):
    spec = "chokes"


class TestOverflows(BackendContract):
    spec = "overflows"


class TestRemembers(BackendContract):
    spec = "remembers"


class TestOverrides(BackendContract):
    spec = "sound"

    def test_one_document(self):
        pass


class TestExcuses(BackendContract):
    spec = "chokes"

    @pytest.mark.parametrize("kind", ["NUL"])
    @pytest.mark.xfail(reason="the engine reads up to the first NUL")
    def test_odd_text_is_only_text(self, reranker, drive, capabilities, kind):
        super().test_odd_text_is_only_text(reranker, drive, capabilities, kind)


class TestNothing(BackendContract):
    pass
"""


@pytest.fixture(scope="module")
def failed(tmp_path_factory: pytest.TempPathFactory) -> dict[str, set[str]]:
    """Run the suite with correct and faulty backends; return the names of the failed tests by class."""
    folder: Path = tmp_path_factory.mktemp("acme")
    (folder / "acme.py").write_text(textwrap.dedent(ACME), "utf-8")
    (folder / "test_acme.py").write_text(textwrap.dedent(TESTS), "utf-8")
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-rfEX", "--tb=no", "-p", "no:cacheprovider", "test_acme.py"],
        cwd=folder,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    failures: dict[str, set[str]] = {"all": {done.stdout}}
    for kind, suite, law in re.findall(r"^(FAILED|ERROR|XPASS) test_acme\.py::(\w+)::(\w+)", done.stdout, re.MULTILINE):
        failures.setdefault(suite, set()).add(law if kind == "FAILED" else f"{kind} {law}")
    return failures


@pytest.mark.parametrize("suite", ["TestSound", "TestSoundByFixture", "TestSoundByProperty", "TestExcuses"])
def test_correct_backend_passes_the_contract(failed: dict[str, set[str]], suite: str) -> None:
    passing = {"TestExcuses": {"test_odd_text_as_the_query"}}
    assert failed.get(suite, set()) - passing.get(suite, set()) == set(), failed["all"]


@pytest.mark.parametrize(
    ("suite", "law"),
    [
        ("TestSorts", "test_permuted_documents_have_permuted_scores"),
        ("TestNormalises", "test_batch_mates_change_no_score"),
        ("TestCuts", "test_every_document_comes_back_once"),
        ("TestForgets", "test_the_answer_is_the_same_twice"),
        ("TestChokes", "test_odd_text_is_only_text"),
        ("TestOverflows", "test_relevance_follows_the_declared_scale"),
        ("TestRemembers", "test_concurrent_calls_do_not_mix"),
        ("TestRemembers", "test_threads_share_a_reranker"),
        ("TestOverrides", "test_laws_are_not_overridden"),
        ("TestNothing", "ERROR test_one_document"),
    ],
)
def test_faulty_backend_fails_the_expected_tests(failed: dict[str, set[str]], suite: str, law: str) -> None:
    assert law in failed.get(suite, set()), failed["all"]
