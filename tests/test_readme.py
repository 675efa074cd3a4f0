"""The code of README and docs/ runs, what it prints is what it says, and its commands are those that there are."""

from __future__ import annotations

import ast
import json
import logging
import re
import shlex
import tomllib
from pathlib import Path
from typing import Any

import pytest
from langchain_core.documents import Document
from support.pages import README, ROOT, TEXTS, Block, blocks, command_lines, documented
from support.source import parse_source
from test_plugin import BACKEND, CONTRACT, PYPROJECT

import rerank_plugins
from rerank_plugins import cli, load_reranker
from rerank_plugins.backends.presets import PRESETS
from rerank_plugins.langchain import RerankCompressor
from rerank_plugins.llama_index import RerankPostprocessor

PYTHON = [
    pytest.param(block, id=str(block), marks=[pytest.mark.slow] if block.mark == "slow" else [])
    for block in blocks("python")
    if not block.mark.startswith("run by: ")
]


def execute(block: Block) -> None:
    exec(compile(block.text, str(block), "exec"), {"__name__": "page"})


@pytest.fixture
def logging_restored():
    root, ours = logging.getLogger(), logging.getLogger("rerank_plugins")
    before = root.level, list(root.handlers), ours.level
    yield
    root.setLevel(before[0])
    root.handlers[:] = before[1]
    ours.setLevel(before[2])


@pytest.mark.parametrize("block", PYTHON)
@pytest.mark.usefixtures("logging_restored")
def test_python_block_runs(block: Block, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    execute(block)


def test_marks_of_blocks_are_known():
    for block in blocks():
        if block.mark.startswith("run by: "):
            file, _, name = block.mark.removeprefix("run by: ").partition("::")
            assert f"def {name}(" in (ROOT / file).read_text("utf-8"), block
        else:
            assert block.mark in ("", "slow") or block.mark.startswith(("generated: ", "end: ")), block


def test_framework_blocks_print_what_readme_says(capsys):
    expected = blocks("text", "README.md")[0].text
    langchain, llama_index = blocks("python", "README.md")[:2]
    for block in (langchain, llama_index):
        execute(block)
        assert capsys.readouterr().out == expected
    assert f"# {expected}" in llama_index.text


def test_tutorial_shows_readmes_blocks():
    tutorial = {block.text for block in blocks("python", "docs/tutorial/first-result.md")}
    assert {block.text for block in blocks("python", "README.md")[:2]} <= tutorial


def test_both_lines_of_the_vendor_diff_run(monkeypatch):
    monkeypatch.setenv("CO_API_KEY", "a-key-of-the-test")
    (diff,) = {block.text for block in blocks("diff")}
    old, new = (eval(line[1:], {"RerankPostprocessor": RerankPostprocessor}) for line in diff.splitlines())
    assert (old.top_n, new.top_n) == (5, 5)
    assert new.reranker == "cohere:rerank-v4.0-fast"


KEYS = [preset.key_variables[0] for preset in PRESETS.values() if preset.key_variables] + [
    "CO_API_KEY",
    "VOYAGE_API_KEY",
]
"""Environment variables of keys."""
TOML = [block for block in blocks("toml") if "[rerankers." in block.text]


@pytest.mark.parametrize("block", TOML, ids=map(str, TOML))
def test_configuration_file_loads(block: Block, tmp_path, monkeypatch):
    file = tmp_path / "rerank.toml"
    file.write_text(block.text, "utf-8")
    for name in (*KEYS, "AZURE_COHERE_KEY", "MY_KEY", "OPENAI_API_KEY", "TYPESAFE_API_KEY"):
        monkeypatch.setenv(name, "a-key-of-the-test")
    for name, table in tomllib.loads(block.text)["rerankers"].items():
        with load_reranker(name, config=file) as reranker:
            assert reranker.top_n == table.get("top_n")
            assert table["use"].partition(":")[0] in reranker.scorer.label


ELSEWHERE = {
    "compare": "tests/test_readme.py",
    "calibrate": "tests/calibration/test_command.py",
    "fetch": "tests/engine/test_hub.py",
    "serve": "tests/serving/test_serve_process.py",
    "batch": "tests/serving/test_serve_process.py",
}
"""Commands whose line needs files, a hub or a process of its own, and the file whose test runs it."""


def test_every_block_is_of_a_known_kind():
    """Every block is of a kind that some test reads; every command in one is known to a test."""
    assert {block.language for block in blocks()} == {"python", "console", "toml", "text", "diff"}
    for name, text in TEXTS.items():
        assert text.count("\n```") == 2 * len(blocks(page=name)), name
    for line in command_lines():
        assert re.match(r"pip install '|make [a-z]|rerank-plugins [a-z]", line), line
    for command, file in ELSEWHERE.items():
        assert f'documented("{command}")' in (ROOT / file).read_text("utf-8"), command


def test_the_extras_exist():
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]["optional-dependencies"]
    texts = "".join([*TEXTS.values(), *(file.read_text("utf-8") for file in (ROOT / "examples").rglob("*.py"))])
    named = re.findall(r"pip\s+install\s+'(?:rerank-plugins|\.)\[([\w,-]+)\]'", texts)
    named += re.findall(r"extra `([\w-]+)`", texts)
    assert len(named) > 20
    assert {extra for names in named for extra in names.split(",")} <= set(extras)


def test_the_commands_run(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    Path("notes.txt").write_text("Bananas are yellow.\nA reranker scores query and document together.\n", "utf-8")
    lines = [line.partition(" > ") for line in command_lines() if line.startswith("rerank-plugins ")]
    lines = [line for line in lines if line[0].split()[1] not in ELSEWHERE]
    assert len(lines) == 6
    for line, _, file in lines:
        assert cli.main(shlex.split(line)[1:]) == 0, line
        out = capsys.readouterr().out
        assert out
        assert not file or json.loads(out)


@pytest.mark.slow  # half a minute: the embedded model over 1,200 pairs
def test_the_comparison_prints_what_it_says(tmp_path, monkeypatch, capsys):
    """Everything but the times, which are the machine's."""
    page = TEXTS["docs/tutorial/real-data.md"]
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    (tmp_path / "examples").symlink_to(ROOT / "examples")
    assert cli.main(documented("compare")) == 0
    out = capsys.readouterr().out

    def quality(text: str) -> dict[str, list[str]]:
        rows = re.findall(r"^(BM25|lexical|embedded) +(\d\.\d{3} +[-+].*)$", text, re.MULTILINE)
        return {label: figures.split()[: 6 if label == "BM25" else 8] for label, figures in rows}

    assert len(quality(page)) == 3
    assert quality(out) == quality(page)
    short = re.findall(
        r"^(BM25|lexical|embedded) +(\d\.\d{3}) +(-|[-+]\S+ \[.*?\])", README.read_text("utf-8"), re.MULTILINE
    )
    assert len(short) == 3
    assert all(
        re.search(rf"^{label} +{re.escape(ndcg)} +{re.escape(lift)}", page, re.MULTILINE) for label, ndcg, lift in short
    )
    (decision,) = re.findall(r"^Use embedded: .* retriever\.", page, re.MULTILINE)
    assert decision in out
    assert (tmp_path / "report.html").stat().st_size > 900_000


def test_the_filter_of_the_guide_keeps_what_has_no_score_and_what_a_stand_in_ordered():
    names: dict[str, Any] = {}
    exec(blocks("python", "docs/guides/thresholds.md")[1].text, names)
    metadata: list[dict[str, Any]] = [
        {"relevance_score": 0.5},
        {"relevance_score": 0.1},
        {"relevance_score": None},
        {"relevance_score": 0.1, "rerank_degraded": True},
    ]
    documents = [Document("text", metadata=each) for each in metadata]
    assert names["filtered"](documents, 0.3) == [documents[0], documents[2], documents[3]]


def test_lancedbs_block_puts_the_right_passage_first(capsys):
    (block,) = blocks("python", "docs/guides/object-storage.md")
    execute(block)
    assert capsys.readouterr().out.startswith("A reranker scores query and document together.")


def migrations() -> list[tuple[str, str]]:
    """The table's `before` and `after`."""
    rows = [row for row in TEXTS["docs/guides/migrating.md"].splitlines() if re.match(r"\| (?!from)", row)]
    return [tuple(cell.strip(" |`") for cell in row.split(" | ")[1:]) for row in rows]


@pytest.mark.parametrize("after", [after for _, after in migrations()])
def test_what_migrations_come_to_runs(after: str, cross_encoder_folder, monkeypatch):
    """The table's right column; `before` and `after` of each run in test_examples.py."""
    monkeypatch.setenv("COHERE_API_KEY", "a-key-of-the-test")
    monkeypatch.setenv("VOYAGE_API_KEY", "a-key-of-the-test")
    names: dict[str, Any] = {"query": "query", "docs": ["one", "two"], "load_reranker": load_reranker}
    names |= {"RerankCompressor": RerankCompressor, "RerankPostprocessor": RerankPostprocessor}
    folder = str(cross_encoder_folder)
    made = eval(after.replace("CACHE/NAME", folder).replace("FOLDER", folder), names)
    assert len(made) == 2 if "load_reranker" in after else made.top_n == 3


def test_every_migration_is_one_that_a_file_runs_both_ways():
    """All names, models and numbers of the table's `before` and `after` stand in the functions of one file each."""
    files = [file for file in (ROOT / "examples" / "migration").glob("*.py") if file.name != "compare.py"]
    functions = [
        {each.name: ast.unparse(each) for each in parse_source(file.read_text("utf-8")).body if hasattr(each, "name")}
        for file in files
    ]

    def words(text: str) -> set[str]:
        return set(re.findall(r"[\w-]+(?:\.\d+)?", text)) - {"FOLDER", "CACHE", "NAME", "query", "docs"}

    for pair in migrations():
        wanted = dict(zip(("before", "after"), pair, strict=True))
        (fit,) = (each for each in functions if all(words(wanted[name]) <= words(each[name]) for name in wanted))
        functions.remove(fit)
    assert functions == []


def test_the_files_it_names_exist():
    named = re.findall(
        r"(?:examples|benchmarks|training)/[\w/.]*\w|(?:examples|benchmarks|training)/", "".join(TEXTS.values())
    )
    assert len(named) > 20
    for each in named:
        assert (ROOT / each).exists(), each


def test_the_make_targets_exist():
    makefile = (ROOT / "Makefile").read_text("utf-8")
    for target in re.findall(r"(?:^|`)make ([a-z0-9-]+)", "".join(TEXTS.values()), re.MULTILINE):
        assert re.search(rf"^{target}:", makefile, re.MULTILINE), target


def test_the_strangers_backend_is_the_one_that_is_tested():
    page = "docs/guides/backends.md"
    assert [block.text for block in blocks("python", page)] == [BACKEND, CONTRACT]
    assert [block.text for block in blocks("toml", page)] == [PYPROJECT]


def test_changelog_and_package_agree_on_the_version():
    version = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]["version"]
    assert rerank_plugins.__version__ == version
    changelog = (ROOT / "CHANGELOG.md").read_text("utf-8")
    assert "## [Unreleased]" in changelog or f"## [{version}]" in changelog
