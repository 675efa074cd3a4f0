"""All examples run offline, as processes."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
import venv
from pathlib import Path

import pytest

EXAMPLES = Path(__file__).parent.parent / "examples"


def run_example(name: str, *arguments: str, python: str = sys.executable) -> str:
    command = [python, str(EXAMPLES / name), *arguments]
    done = subprocess.run(command, capture_output=True, text=True, timeout=600, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.mark.slow  # a minute: 100 questions x 50 candidates, twice
def test_demo_improves_ndcg_in_both_frameworks():
    out = run_example("demo.py")
    rows = re.findall(r"^(LangChain|LlamaIndex) +(\w+) +([\d.]+) +([\d.]+)", out, re.MULTILINE)
    ndcg = {(framework, reranker): float(value) for framework, reranker, value, _ in rows}
    assert len(ndcg) == 6
    for framework in ("LangChain", "LlamaIndex"):
        assert ndcg[framework, "embedded"] > ndcg[framework, "passthrough"] + 0.04
        assert ndcg[framework, "embedded"] > ndcg[framework, "lexical"]
    assert ndcg["LangChain", "embedded"] == ndcg["LlamaIndex", "embedded"]


@pytest.mark.slow  # a separate process, a few seconds
def test_failover_prints_each_step():
    steps = run_example("failover.py").split("\n\n")
    assert "as asked for" in steps[0]
    for number, outcome in [
        (2, "RateLimited"),
        (3, "DeadlineExceeded"),
        (4, "breaker_open"),
        (5, "embedded [onnxruntime"),
    ]:
        step = next(step for step in steps if step.startswith(f"{number}. "))
        assert outcome in step
        assert "DEGRADED" in step
    assert "as asked for" in steps[-2]
    assert "'failed': 0" in steps[-1]


@pytest.mark.slow  # two minutes: a whole collection into a real S3 server, and 120 questions through four first stages
def test_object_storage_demo_two_stages_beat_one():
    out = run_example("object_storage/demo.py", "--queries", "120")
    row = re.compile(r"^(keywords|vectors|hybrid)\b.*? ([\d.]+) +([\d.]+) +\S+ \[([+-][\d.]+), ", re.MULTILINE)
    ndcg = {name: tuple(map(float, columns)) for name, *columns in row.findall(out.split("nDCG@10")[1])}
    for name in ("keywords", "hybrid"):
        alone, reranked, low = ndcg[name]
        assert reranked > alone
        assert low > 0
    (low,) = re.findall(r"against the best single one \(\w+\): \S+ \[([+-][\d.]+)", out)
    assert float(low) > 0
    assert len(re.findall(r"^  (?:embed|search|fetch|rerank) +[\d.]+", out, re.MULTILINE)) == 5


@pytest.mark.slow  # a separate process, a few seconds
def test_langchain_agent_gets_reranked_documents():
    first, second, answer = run_example("langchain_agent.py").splitlines()
    assert first.endswith("A refund takes five working days once the parcel is back. (page 12)")
    assert float(first[:5]) > float(second[:5])
    assert answer == "Five working days after the parcel is back."


@pytest.mark.slow  # a separate process, a few seconds
def test_llama_index_chat_reranks_each_turn():
    first, second = run_example("llama_index_chat.py").splitlines()
    assert "refund takes five working days" in first
    assert "warehouse in Ghent" in second


@pytest.mark.slow  # a separate process, a few seconds
def test_lancedb_search_reranks():
    first, second = run_example("lancedb_search.py").splitlines()
    assert "refund takes five working days" in first
    assert float(first[:5]) > float(second[:5])


@pytest.mark.slow  # a separate process, a few seconds
def test_serve_answers_the_cohere_sdk():
    first, _ = run_example("serve.py").splitlines()
    assert first.endswith("A refund takes five working days.")


@pytest.mark.slow  # a separate process, a few seconds
def test_tracing_prints_both_attempts():
    _, call, first, second = run_example("tracing.py").splitlines()
    assert call.startswith("  rerank http")
    assert first.startswith("    attempt 1  http.response.status_code=429")
    assert second.startswith("    attempt 2  http.response.status_code=200, gen_ai.usage.input_tokens=")


@pytest.mark.slow  # half a minute: a Ray cluster
def test_ray_dataset_reranks_each_row():
    lines = [line for line in run_example("ray_dataset.py").splitlines() if line.startswith("what has")]
    assert [line.partition(" → ")[2] for line in lines] == [f"{number} is a number " for number in range(20)]


def orders_are_equal(out: str) -> bool:
    """Return whether `before` and `after` printed the same order of three documents."""
    (after, before) = re.findall(r"^(?:after|before): +(.*)$", out, re.MULTILINE)
    return after == before and after.count("', '") == 2


@pytest.mark.slow  # half a minute: each imports torch and two stacks of packages
@pytest.mark.parametrize(
    "name", ["langchain_cross_encoder.py", "llama_index_sentence_transformer.py", "rerankers_library.py"]
)
def test_migration_of_a_local_model_keeps_the_order(name, cross_encoder_folder):
    assert orders_are_equal(run_example(f"migration/{name}", str(cross_encoder_folder)))


@pytest.mark.slow  # a separate process, a few seconds
def test_migration_from_flashrank_keeps_the_order(cross_encoder_folder, tmp_path):
    folder = tmp_path / "ms-marco-TinyBERT-L-2-v2"
    shutil.copytree(cross_encoder_folder, folder, ignore=shutil.ignore_patterns("*.safetensors"))
    (folder / "model.onnx").rename(folder / "flashrank-TinyBERT-L-2-v2.onnx")
    special = {"unk": "[UNK]", "pad": "[PAD]", "cls": "[CLS]", "sep": "[SEP]", "mask": "[MASK]"}
    tokens = json.dumps({f"{name}_token": token for name, token in special.items()})
    (folder / "special_tokens_map.json").write_text(tokens, "utf-8")
    assert orders_are_equal(run_example("migration/langchain_flashrank.py", str(folder)))


@pytest.mark.slow  # a separate process, a few seconds
def test_migration_from_voyage_keeps_the_order():
    assert orders_are_equal(run_example("migration/langchain_voyage_rerank.py"))


COHERE_EXAMPLES = ["langchain_cohere_rerank.py", "llama_index_cohere_rerank.py"]


@pytest.mark.slow  # a separate process, a few seconds
@pytest.mark.parametrize("name", COHERE_EXAMPLES)
def test_migration_from_cohere_runs_after(name):
    """The packages of `before` pin older SDKs than the ones installed here, so `before` runs in the next test."""
    out = run_example(f"migration/{name}")
    assert "after:  ['Bees make honey from nectar.'" in out
    assert "before: not run: No module named" in out


@pytest.mark.slow  # an environment of its own: langchain-cohere pins cohere<6
def test_migration_from_cohere_keeps_the_order(tmp_path, wheel):
    venv.create(tmp_path, with_pip=True)
    python = str(tmp_path / ("Scripts" if os.name == "nt" else "bin") / "python")
    ours = f"{wheel}[langchain,llama-index,cohere]"
    theirs = ("langchain-cohere", "llama-index-postprocessor-cohere-rerank")
    install = [python, "-m", "pip", "--disable-pip-version-check", "install", "--quiet", ours, *theirs]
    done = subprocess.run(install, capture_output=True, text=True, timeout=900, check=False)
    assert done.returncode == 0, done.stderr
    for name in COHERE_EXAMPLES:
        assert orders_are_equal(run_example(f"migration/{name}", python=python))


@pytest.mark.parametrize("file", sorted(EXAMPLES.rglob("*.py")), ids=lambda file: str(file.relative_to(EXAMPLES)))
def test_example_has_fewer_than_sixty_lines(file):
    lines = len(file.read_text("utf-8").splitlines())
    assert lines < 60


REQUIREMENTS = {
    "langchain_core": r"\[.*\blangchain\b.*\]",
    "langchain": r" langchain\b(?!-)",
    "llama_index": r"\[.*\bllama-index\b.*\]",
    "cohere": r"\[.*\bcohere\b.*\]",
    "lancedb": r"\[.*\bobject-storage\b.*\]",
    "collection": r"\[.*\bevaluation\b.*\]| bm25s\b",
    "opentelemetry": r"opentelemetry-sdk",
    "ray": r"\[.*\bray\b.*\]",
    "langchain_cohere": r" langchain-cohere\b",
    "langchain_classic": r" langchain-classic\b",
    "langchain_community": r" langchain-community\b",
    "flashrank": r" flashrank\b",
    "langchain_voyageai": r" langchain-voyageai\b",
    "rerankers": r" rerankers\b",
    **{
        module: rf" {package}\b"
        for module, package in (
            ("boto3", "boto3"),
            ("celery", "celery"),
            ("chromadb", "chromadb"),
            ("elasticsearch", "langchain-elasticsearch"),
            ("faiss", "faiss-cpu"),
            ("fastapi", "fastapi"),
            ("langchain_aws", "langchain-aws"),
            ("langchain_chroma", "langchain-chroma"),
            ("langchain_elasticsearch", "langchain-elasticsearch"),
            ("langchain_postgres", "langchain-postgres"),
            ("langchain_qdrant", "langchain-qdrant"),
            ("langgraph", "langgraph"),
            ("opensearchpy", "opensearch-py"),
            ("psycopg", "langchain-postgres"),
            ("qdrant_client", "qdrant-client"),
        )
    },
}
"""What the pip line of an example must contain, by the module that the example imports."""


@pytest.mark.parametrize(
    "file",
    [
        *sorted(EXAMPLES.glob("*.py")),
        *sorted((EXAMPLES / "migration").glob("*.py")),
        *sorted((EXAMPLES / "stores").glob("*_store.py")),
    ],
    ids=lambda file: file.stem,
)
def test_example_has_a_pip_line_for_its_imports(file):
    if file.stem in {"demo", "bm25", "collection", "compare"}:
        return  # installed by `make demo`, or imported by other examples
    text = file.read_text("utf-8")
    (pip_line,) = re.findall(r"^pip install (.*)$", text, re.MULTILINE)
    imported = set(re.findall(r"^ *(?:from|import) (\w+)", text, re.MULTILINE))
    imported -= {"rerank_plugins", "compare", "__future__", "numpy", "pydantic", "tqdm"} | set(sys.stdlib_module_names)
    if file.parent.name == "stores":
        imported -= {beside.stem for beside in file.parent.glob("*.py")}
    for name in imported:
        assert re.search(REQUIREMENTS[name], pip_line), name


def run_benchmark(name: str, *arguments: str) -> str:
    command = [sys.executable, str(EXAMPLES.parent / "benchmarks" / name), *arguments]
    return subprocess.run(command, capture_output=True, text=True, timeout=600, check=True).stdout


@pytest.mark.slow
def test_calibration_benchmark_prints_small_errors():
    """The command behind the calibration results in README, on a few queries and one reranker."""
    folder = str(EXAMPLES / "data" / "nq_qed")
    out = run_benchmark("calibration.py", folder, "--queries", "40", "--rerankers", "lexical", "lexical")
    assert "points apart: raw 0.0, calibrated 0.0" in out
    (error,) = re.findall(r"^all +lexical +[\d.]+ +\d+ +[\d.]+ +\d+ +([\d.]+)", out, re.MULTILINE)
    assert float(error) < 0.05


@pytest.mark.slow  # the embedded model over some thousand passages
def test_stages_benchmark_prints_cascade_and_fusion():
    """The command behind the results of cascades and fusions in README, on a few queries."""
    out = run_benchmark("stages.py", str(EXAMPLES / "data" / "nq_qed"), "--queries", "8", "--timed", "1")
    assert re.search(
        r"^mean( +[01]\.\d+){2} +\d+( +[01]\.\d+ +[+-]\d\.\d% +\d+\.\dx){2} +[01]\.\d+ ", out, re.MULTILINE
    )


@pytest.mark.slow  # a separate process, a few seconds
def test_depth_benchmark_recall_grows_with_depth():
    """The command behind the results by depth in README, on a few queries."""
    command = [
        sys.executable,
        str(EXAMPLES.parent / "benchmarks" / "depth.py"),
        "--queries",
        "20",
        "--rerankers",
        "lexical",
    ]
    done = subprocess.run(command, capture_output=True, text=True, timeout=600, check=True)
    rows = re.findall(r"^lexical +(\d+) +([\d.]+) +([\d.]+)", done.stdout, re.MULTILINE)
    assert [int(depth) for depth, _, _ in rows] == [20, 50, 100, 200]
    held = [float(share) for _, share, _ in rows]
    assert held == sorted(held)
    assert all(0 < float(mean) <= 1 for _, _, mean in rows)


@pytest.mark.slow  # a separate process, a few seconds
def test_llama_index_evaluation_prints_metrics():
    rows = run_example("llama_index_evaluation.py", "passthrough", "lexical").splitlines()
    means = {row[:14].strip(): [float(value) for value in re.findall(r"\d\.\d+", row)] for row in rows}
    assert means["passthrough"] == means["BM25 alone"]
    assert means["lexical"] != means["BM25 alone"]
    assert all(0.5 < value <= 1 for value in means["lexical"])
