"""A backend of another package: one short module and one entry point, installed by pip, used from a process."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from rerank_plugins.testing.cohere_like import CohereLike

BACKEND = '''\
"""Two rerankers: one in this process, one over HTTP."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from rerank_plugins.core import Capabilities, HostedBackend, LocalBackend, RerankRequest


class Acme(LocalBackend):
    """The share of the query's words that a document holds."""

    model = "acme-1"
    capabilities = Capabilities(scale="unit")

    def score(self, query: str, documents: Sequence[str]) -> Sequence[float]:
        words = set(query.lower().split())
        return [len(words & set(document.lower().split())) / len(words) for document in documents]


class AcmeCloud(HostedBackend):
    """POST https://api.acme.example/v1/rerank, at most 100 documents a call; the core splits what is more."""

    base_url = "https://api.acme.example"
    key_variables = ("ACME_API_KEY",)
    model = "acme-cloud-1"
    capabilities = Capabilities(scale="unit", max_documents=100)

    def encode(self, request: RerankRequest) -> tuple[str, Mapping[str, Any]]:
        return "/v1/rerank", {"model": self.model, "query": request.query, "documents": list(request.documents)}

    def decode(self, body: Any) -> Iterable[tuple[int, float]]:
        return ((each["index"], each["relevance_score"]) for each in body["results"])
'''

PYPROJECT = """\
[build-system]
requires = ["hatchling"]
build-backend = "hatchling.build"

[project]
name = "acme-rerank"
version = "1.0"
dependencies = ["rerank-plugins"]

[project.entry-points."rerank_plugins.backends"]
acme = "acme_rerank:Acme"
acme-cloud = "acme_rerank:AcmeCloud"

[tool.hatch.build.targets.wheel]
include = ["acme_rerank.py"]
"""

CONTRACT = """\
from rerank_plugins.testing.contract import BackendContract


class TestAcme(BackendContract):
    spec = "acme"
"""


@pytest.fixture(scope="module")
def installed(tmp_path_factory) -> Path:
    """Build the package and install it into a folder of its own, without a network."""
    source, target = tmp_path_factory.mktemp("acme"), tmp_path_factory.mktemp("site")
    (source / "acme_rerank.py").write_text(BACKEND, "utf-8")
    (source / "pyproject.toml").write_text(PYPROJECT, "utf-8")
    options = ["--quiet", "--no-build-isolation", "--no-deps", "--no-index", "--disable-pip-version-check"]
    subprocess.run(
        [sys.executable, "-m", "pip", "install", *options, "--target", str(target), str(source)],
        check=True,
        capture_output=True,
        timeout=300,
    )
    return target


def run_python(installed: Path, *argv: str, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, *argv],
        env={**os.environ, "PYTHONPATH": str(installed), **environment},
        capture_output=True,
        text=True,
        check=False,
        timeout=300,
    )


def test_backend_has_fewer_than_forty_lines():
    assert len(BACKEND.splitlines()) < 40


def test_spec_names_the_local_backend(installed):
    code = """
from rerank_plugins import load_reranker
with load_reranker("acme:m", top_n=1) as reranker:
    response = reranker.rerank("green tea", ["black coffee", "tea that is green", "green paint"])
print(response.model, [result.index for result in response], response[0].relevance_score)
"""
    done = run_python(installed, "-c", code)
    assert done.stdout == "acme:m [1] 1.0\n", done.stderr


def test_spec_names_the_hosted_backend(installed):
    code = """
import json, os, sys
from rerank_plugins import load_reranker
documents = [f"document {number}" for number in range(250)]
spec = {"use": "acme-cloud", "base_url": os.environ["ADDRESS"], "retry": 1, "fallback": ["acme", "passthrough"]}
response = load_reranker(spec).rerank("document 7", documents)
print(json.dumps([response.model, response.usage.requests, response[0].index, response.degraded]))
"""
    with CohereLike() as server:
        done = run_python(installed, "-c", code, ADDRESS=server.url, ACME_API_KEY=server.key)
        assert done.stderr == ""
        assert json.loads(done.stdout) == ["acme-cloud:acme-cloud-1", 3, 7, False]
        assert [len(request.documents) for request in server.requests] in (
            [100, 100, 50],
            [100, 50, 100],
            [50, 100, 100],
        )
        assert server.refused == []
    done = run_python(installed, "-c", code, ADDRESS="http://127.0.0.1:9", ACME_API_KEY="key")
    assert json.loads(done.stdout)[0::3] == ["acme:acme-1", True]


def test_missing_key_names_the_variable_of_the_backend(installed):
    done = run_python(installed, "-m", "rerank_plugins", "check", "acme-cloud")
    assert done.returncode == 2
    assert done.stderr.startswith("rerank-plugins: acme-cloud needs a key: set the environment variable ACME_API_KEY")


def test_list_and_check_work_with_the_backend(installed):
    done = run_python(installed, "-m", "rerank_plugins", "list")
    plugins = done.stdout.split("plugin:\n")[1].splitlines()
    assert [line.split() for line in plugins] == [
        ["acme", "from", "the", "package", "acme-rerank"],
        ["acme-cloud", "from", "the", "package", "acme-rerank"],
    ]
    done = run_python(installed, "-m", "rerank_plugins", "check", "acme")
    assert done.returncode == 0
    assert done.stdout.startswith("ok: acme:acme-1 put the right document first")


@pytest.mark.slow
def test_backend_passes_the_contract_suite(installed, tmp_path):
    (tmp_path / "test_acme.py").write_text(CONTRACT, "utf-8")
    done = run_python(
        installed, "-m", "pytest", "-q", "-p", "no:cacheprovider", "--rootdir", str(tmp_path), str(tmp_path)
    )
    assert done.returncode == 0, done.stdout
    assert " passed" in done.stdout
