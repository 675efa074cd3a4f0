"""The examples over stores and in other frameworks, as processes in an environment of their own, offline."""

from __future__ import annotations

import contextlib
import json
import os
import re
import shutil
import stat
import subprocess
import sys
import tomllib
import venv
from collections.abc import Iterator

import httpx
import pytest
from filelock import FileLock
from support.environments import ROOT
from support.pages import blocks

EXAMPLES = ROOT / "examples"
HOME = ROOT / ".recipes"
ANSWER = "Succession to the British throne"
STORES = sorted(file.name for file in (EXAMPLES / "stores").glob("*_store.py"))
GUARD = """
import runpy, sys
from pathlib import Path

def refuse(event, arguments):
    if event == "socket.getaddrinfo" and arguments[0] not in ("127.0.0.1", "localhost", "::1", None):
        sys.exit(f"a lookup of {arguments[0]}")
    if event == "socket.connect" and isinstance(arguments[1], tuple) and arguments[1][0] not in ("127.0.0.1", "::1"):
        sys.exit(f"a connection to {arguments[1]}")

sys.addaudithook(refuse)
sys.argv = sys.argv[1:]
sys.path[0] = str(Path(sys.argv[0]).parent)
runpy.run_path(sys.argv[0], run_name="__main__")
"""
"""Runs a script, and ends it when it looks up or connects to another host."""


def requirements() -> list[str]:
    """Return what the extra `recipes` installs beside this package."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]
    extras = project["optional-dependencies"]
    wanted = [*project["dependencies"], *extras["langchain"], *extras["llama-index"], *extras["recipes"]]
    return [requirement for requirement in wanted if not requirement.startswith("rerank-plugins")]


@pytest.fixture(scope="session")
def python() -> str:
    """Return the interpreter of the environment. It is kept in .recipes/ until the requirements change."""
    interpreter = HOME / ("Scripts" if os.name == "nt" else "bin") / "python"
    stamp, wanted = HOME / "installed.txt", "\n".join([sys.version, *requirements()])
    with FileLock(f"{HOME}.lock"):  # other processes of pytest-xdist wait for the one that installs
        if not stamp.exists() or stamp.read_text("utf-8") != wanted:
            shutil.rmtree(HOME, ignore_errors=True)
            venv.create(HOME)
            # Without bytecode for thousands of modules that no example imports.
            install = ["-m", "pip", "--python", str(interpreter), "install", "--quiet", "--no-compile"]
            done = subprocess.run(
                [sys.executable, *install, *requirements()], capture_output=True, text=True, timeout=600, check=False
            )
            assert done.returncode == 0, done.stderr
            stamp.write_text(wanted, "utf-8")
    return str(interpreter)


def environment() -> dict[str, str]:
    return os.environ | {"PYTHONPATH": str(ROOT), "PYTHONDONTWRITEBYTECODE": ""}


def run(python: str, name: str, *arguments: str, status: int = 0) -> str:
    command = [python, "-c", GUARD, str(EXAMPLES / name), *arguments]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False, env=environment())
    assert done.returncode == status, done.stdout + done.stderr
    return done.stdout


@pytest.fixture
def permissions_restored() -> Iterator[None]:
    """Take back what the package of PostgreSQL does for root: it makes the folders above itself readable for all."""
    modes = {folder: folder.stat().st_mode for folder in HOME.parents}
    yield
    for folder, mode in modes.items():
        if folder.stat().st_mode != mode:
            folder.chmod(stat.S_IMODE(mode))


@pytest.mark.slow  # a separate process, a few seconds; the first one waits for the environment
@pytest.mark.parametrize("name", STORES)
@pytest.mark.usefixtures("permissions_restored")
def test_store_recipe_reranks(name, python):
    """LangChain, LlamaIndex and the client of the store give the same passages, and every candidate is read."""
    out = run(python, f"stores/{name}")
    (line,) = re.findall(r"^  1\. (.*)$", out, re.MULTILINE)
    before, after = line[:46], line[47:]
    assert after.startswith(ANSWER)
    assert not before.startswith(ANSWER)
    assert re.search(r"^The same through LangChain, LlamaIndex, .+\.$", out, re.MULTILINE)
    rows = re.findall(r"^.{24} {8}(10|50) +(\d+) +\d+\.\d +\d+\.\d  (.*)$", out, re.MULTILINE)
    assert [(candidates, read) for candidates, read, _ in rows] == [("10", "10"), ("50", "50")] * 3
    assert [title == ANSWER for _, _, title in rows] == [False, True] * 3  # it is the 41st of the store


@contextlib.contextmanager
def serving(python: str) -> Iterator[str]:
    """Run the FastAPI example under uvicorn, and yield its address."""
    command = [python, "-m", "uvicorn", "fastapi_app:app", "--app-dir", str(EXAMPLES), "--port", "0"]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True, env=environment()) as process:
        try:
            yield next(match[1] for line in process.stderr if (match := re.search(r"running on (http\S+)", line)))
        finally:
            process.terminate()


@pytest.mark.slow  # a separate process, a few seconds
def test_fastapi_answers_over_a_real_connection(python):
    with serving(python) as url, httpx.Client(base_url=url, timeout=30) as client:
        answer = client.post("/search", json={"query": "how long does a refund take?"}).json()
        assert answer["degraded"] is False
        assert answer["results"][0]["text"] == "A refund takes five working days once the parcel is back."
        scores = [result["score"] for result in answer["results"]]
        assert scores == sorted(scores, reverse=True)
        assert client.post("/search", json={"query": " "}).status_code == 422
        health = client.get("/health").json()
        assert (health["answered"], health["failed"], health["documents"]) == (1, 1, 3)


@pytest.mark.slow  # a separate process, a few seconds
def test_langgraph_rewrites_the_question(python):
    first, second = run(python, "langgraph_agent.py").splitlines()
    assert first == "2 searches; at last: how long until I get a refund?"
    assert second.endswith("A refund takes five working days once the parcel is back.")


@pytest.mark.slow  # a separate process, a few seconds
def test_llama_index_workflow_reranks(python):
    first, second = run(python, "llama_index_workflow.py").splitlines()
    assert first.endswith("A refund takes five working days once the parcel is back.")
    assert float(first[:5]) > float(second[:5])


@pytest.mark.slow  # a worker with two processes, some ten seconds
def test_celery_worker_reranks(python):
    lines = [line.strip() for line in run(python, "celery_tasks.py").splitlines()]
    refund = lines.index("how long does a refund take?")
    parcels = lines.index("where are parcels sent from?")
    assert lines[refund + 1].endswith("A refund takes five working days.")
    assert lines[parcels + 1].endswith("Parcels are sent from Ghent.")


@pytest.mark.slow  # two separate processes, a few seconds
def test_async_batch_goes_on_where_it_was_stopped(python, tmp_path):
    """A line that was half written when the job was killed is written anew; the lines before it stay as they are."""
    results = tmp_path / "results.jsonl"
    run(python, "async_batch.py", str(results), "20")
    complete = results.read_text("utf-8").splitlines(keepends=True)
    assert len(complete) == 20
    results.write_text("".join(complete[:12]) + complete[12][:30], "utf-8")
    run(python, "async_batch.py", str(results), "20")
    again = results.read_text("utf-8").splitlines(keepends=True)
    assert again[:12] == complete[:12]
    assert sorted(again) == sorted(complete)
    assert all(len(json.loads(line)["documents"]) == 10 for line in again)


@pytest.mark.parametrize("name", STORES)
def test_page_of_a_store_has_the_pip_line_of_its_example(name):
    page = f"docs/guides/stores/{name.removesuffix('_store.py').replace('_', '-')}.md"
    (command,) = [block.text for block in blocks("console", page)]
    text = (EXAMPLES / "stores" / name).read_text("utf-8")
    assert f"\n{command}" in re.sub(r" \\\n +", " ", text)


@pytest.fixture
def stand_ins(monkeypatch):
    """Make the stand-ins of stores importable, as they are for the examples beside them."""
    monkeypatch.syspath_prepend(EXAMPLES / "stores")


@pytest.mark.usefixtures("stand_ins")
def test_s3_vectors_stand_in_refuses_what_aws_documents_as_too_much():
    import boto3
    import s3_vectors_server
    from botocore.exceptions import ClientError

    client = boto3.client(
        "s3vectors",
        endpoint_url=s3_vectors_server.start(),
        region_name="eu-west-1",
        aws_access_key_id="key",
        aws_secret_access_key="secret",
    )
    where = {"vectorBucketName": "bucket", "indexName": "index"}
    vector = {"key": "a", "data": {"float32": [1.0, 0.0]}, "metadata": {"text": "x" * 3000}}
    with pytest.raises(ClientError, match="NotFoundException"):
        client.put_vectors(**where, vectors=[vector])
    client.create_index(**where, dataType="float32", dimension=2, distanceMetric="cosine")
    with pytest.raises(ClientError, match="at most 2048 bytes"):
        client.put_vectors(**where, vectors=[vector])
    vector["metadata"] = {"text": "short"}
    with pytest.raises(ClientError, match="at most 500"):
        client.put_vectors(**where, vectors=[vector] * 501)
    client.put_vectors(**where, vectors=[vector])
    query = {"queryVector": {"float32": [1.0, 0.0]}, "returnMetadata": True, "returnDistance": True}
    with pytest.raises(ClientError, match="topK"):
        client.query_vectors(**where, **query, topK=101)
    (result,) = client.query_vectors(**where, **query, topK=100)["vectors"]
    assert result == {"key": "a", "metadata": {"text": "short"}, "distance": 0.0}


@pytest.mark.usefixtures("stand_ins")
def test_search_stand_in_refuses_fewer_candidates_than_neighbours():
    import search_server

    knn = {"field": "vector", "query_vector": [1.0], "k": 60, "num_candidates": 50}
    with httpx.Client(base_url=search_server.start()) as client:
        assert client.post("/notes/_search", json={"knn": knn}).status_code == 404
        client.put("/notes")
        reply = client.post("/notes/_search", json={"knn": knn})
    assert reply.status_code == 400
    assert "[num_candidates] cannot be less than [k]" in reply.json()["error"]["reason"]
