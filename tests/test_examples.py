"""Every example runs, offline, as a user runs it."""

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


def run(name: str, *arguments: str, python: str = sys.executable) -> str:
    command = [python, str(EXAMPLES / name), *arguments]
    done = subprocess.run(command, capture_output=True, text=True, timeout=600, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
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


@pytest.mark.slow  # a process of its own, seconds each
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


@pytest.mark.slow  # two minutes: a whole collection into a real S3 server, and 250 questions through four first stages
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


@pytest.mark.slow  # a process of its own, seconds each
def test_an_agents_search_tool_reranks():
    first, second, answer = run("langchain_agent.py").splitlines()
    assert first.endswith("A refund takes five working days once the parcel is back. (page 12)")
    assert float(first[:5]) > float(second[:5])
    assert answer == "Five working days after the parcel is back."


@pytest.mark.slow  # a process of its own, seconds each
def test_a_chat_engine_reranks_for_each_turn():
    first, second = run("llama_index_chat.py").splitlines()
    assert "refund takes five working days" in first
    assert "warehouse in Ghent" in second


@pytest.mark.slow  # a process of its own, seconds each
def test_lancedb_reranks():
    first, second = run("lancedb_search.py").splitlines()
    assert "refund takes five working days" in first
    assert float(first[:5]) > float(second[:5])


@pytest.mark.slow  # a process of its own, seconds each
def test_a_server_is_asked_through_coheres_sdk():
    first, _ = run("serve.py").splitlines()
    assert first.endswith("A refund takes five working days.")


@pytest.mark.slow  # a process of its own, seconds each
def test_a_trace_shows_both_attempts():
    _, call, first, second = run("tracing.py").splitlines()
    assert call.startswith("  rerank http")
    assert first.startswith("    attempt 1  http.response.status_code=429")
    assert second.startswith("    attempt 2  http.response.status_code=200, gen_ai.usage.input_tokens=")


@pytest.mark.slow  # half a minute: a Ray cluster
def test_a_dataset_is_reranked_on_ray():
    lines = [line for line in run("ray_dataset.py").splitlines() if line.startswith("what has")]
    assert [line.partition(" → ")[2] for line in lines] == [f"{number} is a number " for number in range(20)]


def ran_both_ways(out: str) -> bool:
    """`compare` has failed already where the orders differ."""
    (after, before) = re.findall(r"^(?:after|before): +(.*)$", out, re.MULTILINE)
    return after == before and after.count("', '") == 2


@pytest.mark.slow  # half a minute: each imports torch and two stacks of packages
@pytest.mark.parametrize(
    "name", ["langchain_cross_encoder.py", "llama_index_sentence_transformer.py", "rerankers_library.py"]
)
def test_a_local_model_keeps_its_order(name, cross_encoder_folder):
    assert ran_both_ways(run(f"migration/{name}", str(cross_encoder_folder)))


@pytest.mark.slow  # a process of its own, seconds each
def test_flashranks_own_folder_keeps_its_order(cross_encoder_folder, tmp_path):
    folder = tmp_path / "ms-marco-TinyBERT-L-2-v2"
    shutil.copytree(cross_encoder_folder, folder, ignore=shutil.ignore_patterns("*.safetensors"))
    (folder / "model.onnx").rename(folder / "flashrank-TinyBERT-L-2-v2.onnx")
    special = {"unk": "[UNK]", "pad": "[PAD]", "cls": "[CLS]", "sep": "[SEP]", "mask": "[MASK]"}
    told = json.dumps({f"{name}_token": token for name, token in special.items()})
    (folder / "special_tokens_map.json").write_text(told, "utf-8")
    assert ran_both_ways(run("migration/langchain_flashrank.py", str(folder)))


@pytest.mark.slow  # a process of its own, seconds each
def test_voyage_keeps_its_order():
    assert ran_both_ways(run("migration/langchain_voyage_rerank.py"))


COHERES = ["langchain_cohere_rerank.py", "llama_index_cohere_rerank.py"]


@pytest.mark.slow  # a process of its own, seconds each
@pytest.mark.parametrize("name", COHERES)
def test_cohere_after(name):
    """Their packages pin older SDKs than ours are tested with here, so `before` runs in the next test."""
    out = run(f"migration/{name}")
    assert "after:  ['Bees make honey from nectar.'" in out
    assert "before: not run: No module named" in out


@pytest.mark.slow  # an environment of its own: langchain-cohere pins cohere<6
def test_cohere_before_and_after_in_one_environment(tmp_path, wheel):
    venv.create(tmp_path, with_pip=True)
    python = str(tmp_path / ("Scripts" if os.name == "nt" else "bin") / "python")
    ours = f"{wheel}[langchain,llama-index,cohere]"
    theirs = ("langchain-cohere", "llama-index-postprocessor-cohere-rerank")
    install = [python, "-m", "pip", "--disable-pip-version-check", "install", "--quiet", ours, *theirs]
    done = subprocess.run(install, capture_output=True, text=True, timeout=900, check=False)
    assert done.returncode == 0, done.stderr
    for name in COHERES:
        assert ran_both_ways(run(f"migration/{name}", python=python))


@pytest.mark.parametrize("file", sorted(EXAMPLES.rglob("*.py")), ids=lambda file: str(file.relative_to(EXAMPLES)))
def test_examples_are_short(file):
    lines = len(file.read_text("utf-8").splitlines())
    assert lines < 60


NEEDS = {
    "langchain_core": r"\[.*\blangchain\b.*\]",
    "langchain": r" langchain\b(?!-)",
    "llama_index": r"\[.*\bllama-index\b.*\]",
    "cohere": r"\[.*\bcohere\b.*\]",
    "lancedb": r"\[.*\bobject-storage\b.*\]",
    "collection": r"\[.*\bevaluation\b.*\]",
    "opentelemetry": r"opentelemetry-sdk",
    "ray": r"\[.*\bray\b.*\]",
    "langchain_cohere": r" langchain-cohere\b",
    "langchain_classic": r" langchain-classic\b",
    "langchain_community": r" langchain-community\b",
    "flashrank": r" flashrank\b",
    "langchain_voyageai": r" langchain-voyageai\b",
    "rerankers": r" rerankers\b",
}
"""What an import wants in the example's line of pip."""


@pytest.mark.parametrize(
    "file",
    [*sorted(EXAMPLES.glob("*.py")), *sorted((EXAMPLES / "migration").glob("*.py"))],
    ids=lambda file: file.stem,
)
def test_an_example_says_what_to_install(file):
    if file.stem in {"demo", "bm25", "collection", "compare"}:
        return  # `make demo` installs; and parts of others
    text = file.read_text("utf-8")
    (told,) = re.findall(r"^pip install (.*)$", text, re.MULTILINE)
    imported = set(re.findall(r"^ *(?:from|import) (\w+)", text, re.MULTILINE))
    imported -= {"rerank_plugins", "compare", "__future__"} | set(sys.stdlib_module_names)
    for name in imported:
        assert re.search(NEEDS[name], told), name


def benchmark(name: str, *arguments: str) -> str:
    command = [sys.executable, str(EXAMPLES.parent / "benchmarks" / name), *arguments]
    return subprocess.run(command, capture_output=True, text=True, timeout=600, check=True).stdout


@pytest.mark.slow
def test_one_threshold_under_two_rerankers():
    """The command behind README's figures of calibration, on a few queries and one reranker."""
    folder = str(EXAMPLES / "data" / "nq_qed")
    out = benchmark("calibration.py", folder, "--queries", "40", "--rerankers", "lexical", "lexical")
    assert "points apart: raw 0.0, calibrated 0.0" in out
    (error,) = re.findall(r"^all +lexical +[\d.]+ +\d+ +[\d.]+ +\d+ +([\d.]+)", out, re.MULTILINE)
    assert float(error) < 0.05


@pytest.mark.slow  # the embedded model over some thousand passages
def test_a_cascade_and_a_fusion_are_measured():
    """The command behind README's figures of both, on a few queries."""
    out = benchmark("stages.py", str(EXAMPLES / "data" / "nq_qed"), "--queries", "8", "--timed", "1")
    assert re.search(
        r"^mean( +[01]\.\d+){2} +\d+( +[01]\.\d+ +[+-]\d\.\d% +\d+\.\dx){2} +[01]\.\d+ ", out, re.MULTILINE
    )


@pytest.mark.slow  # a process of its own, seconds each
def test_more_candidates_hold_no_fewer_answers():
    """The command behind README's figures, on a few queries."""
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


@pytest.mark.slow  # a process of its own, seconds each
def test_llama_indexs_evaluator_takes_the_postprocessor():
    rows = run("llama_index_evaluation.py", "passthrough", "lexical").splitlines()
    figures = {row[:14].strip(): [float(each) for each in re.findall(r"\d\.\d+", row)] for row in rows}
    assert figures["passthrough"] == figures["BM25 alone"]
    assert figures["lexical"] != figures["BM25 alone"]
    assert all(0.5 < value <= 1 for value in figures["lexical"])
