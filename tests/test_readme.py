"""README's code runs, its tables are what the code says, and its commands are those that there are."""

from __future__ import annotations

import ast
import re
import shlex
import tomllib
from pathlib import Path
from typing import Any

import pytest
from test_plugin import BACKEND, CONTRACT, PYPROJECT

import rerank_plugins
from rerank_plugins import cli, load_reranker
from rerank_plugins.config.registry import BUILTIN, models
from rerank_plugins.langchain import RerankCompressor
from rerank_plugins.llama_index import RerankPostprocessor

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text("utf-8")


def blocks(language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```$", README, re.DOTALL | re.MULTILINE)


def table() -> str:
    rows = ["| backend | kind | what | extra |", "|---|---|---|---|"]
    rows += [f"| `{name}` | {each.kind} | {each.summary} | {each.extra or ''} |" for name, each in BUILTIN.items()]
    return "\n".join(rows)


@pytest.mark.parametrize("number", range(len(blocks("python"))))
def test_python_runs(number: int, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    exec(compile(blocks("python")[number], f"README python block {number}", "exec"), {"__name__": "readme"})


def test_the_frameworks_blocks_print_what_it_says(capsys):
    told = blocks("text")[0]
    for number in (0, 1):
        exec(compile(blocks("python")[number], "README", "exec"), {"__name__": "readme"})
        assert capsys.readouterr().out == told
    assert f"# {told}" in blocks("python")[1]


def test_both_lines_of_the_vendors_diff_run(monkeypatch):
    monkeypatch.setenv("CO_API_KEY", "a-key-of-the-test")
    (diff,) = blocks("diff")
    old, new = (eval(line[1:], {"RerankPostprocessor": RerankPostprocessor}) for line in diff.splitlines())
    assert (old.top_n, new.top_n) == (5, 5)
    assert new.reranker == "cohere:rerank-v4.0-fast"


def test_the_file_of_the_configuration_section_loads(tmp_path, monkeypatch):
    file = tmp_path / "rerank.toml"
    file.write_text(blocks("toml")[0], "utf-8")
    monkeypatch.setenv("CO_API_KEY", "a-key-of-the-test")
    with load_reranker("production", config=file) as reranker:
        assert reranker.top_n == 5
        assert reranker.scorer.label == "cohere:rerank-v4.0-fast"


ELSEWHERE = {
    "compare": "test_the_comparison_prints_what_it_says",
    "calibrate": "calibration/test_command.py",
    "fetch": "engine/test_hub.py",
    "serve": "serving/test_serve_process.py",
    "batch": "serving/test_serve_process.py",
}
"""Subcommands whose line here needs files, a hub or a process of its own, and who runs it."""


def test_no_block_is_left_out():
    """Every block is of a kind that some test reads; every command in one is known to a test."""
    fences = re.findall(r"^```(.*)$", README, re.MULTILINE)
    assert set(fences[::2]) == {"python", "console", "toml", "text", "diff"}
    assert set(fences[1::2]) == {""}
    for line in "".join(blocks("console")).splitlines():
        assert re.match(r"pip install '|make [a-z]|rerank-plugins [a-z]", line), line
    for command, where in ELSEWHERE.items():
        file = Path(__file__) if where.startswith("test_") else ROOT / "tests" / where
        assert re.search(rf'documented\("{command}"\)|{where}', file.read_text("utf-8")), command


def test_the_extras_exist():
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]["optional-dependencies"]
    texts = [README, *(file.read_text("utf-8") for file in (ROOT / "examples").rglob("*.py"))]
    named = re.findall(r"pip install '(?:rerank-plugins|\.)\[([\w,-]+)\]'", "".join(texts))
    named += re.findall(r"\(extra `([\w-]+)`", README)
    assert len(named) > 8
    assert {each for names in named for each in names.split(",")} <= set(extras)


def test_the_links_inside_lead_somewhere():
    """GitHub's rule: lower case, spaces become hyphens, punctuation goes."""
    titles = re.findall(r"^#+ (.*)$", re.sub(r"^```.*?^```$", "", README, flags=re.DOTALL | re.MULTILINE), re.MULTILINE)
    anchors = {re.sub(r"[^\w -]", "", title.lower()).replace(" ", "-") for title in titles}
    linked = re.findall(r"\]\(#([^)]*)\)", README)
    assert len(linked) > 8
    assert set(linked) <= anchors


def test_the_commands_run(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    Path("notes.txt").write_text("Bananas are yellow.\nA reranker scores query and document together.\n", "utf-8")
    lines = [line for block in blocks("console") for line in block.splitlines() if line.startswith("rerank-plugins ")]
    lines = [line for line in lines if line.split()[1] not in ELSEWHERE]
    assert len(lines) == 4
    for line in lines:
        assert cli.main(shlex.split(line)[1:]) == 0, line
    assert "A reranker scores" in capsys.readouterr().out


@pytest.mark.slow  # half a minute: the embedded model over 1,200 pairs
def test_the_comparison_prints_what_it_says(tmp_path, monkeypatch, capsys):
    """Everything but the times, which are the machine's."""
    section = README.split("## Which reranker, and is it worth it?")[1].split("\n## ")[0]
    command = re.search(r"^rerank-plugins (compare .*)$", section, re.MULTILINE)[1]
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    (tmp_path / "examples").symlink_to(ROOT / "examples")
    assert cli.main(shlex.split(command)) == 0
    out = capsys.readouterr().out

    def quality(text: str) -> dict[str, list[str]]:
        rows = re.findall(r"^(BM25|lexical|embedded) +(\d\.\d{3} +[-+].*)$", text, re.MULTILINE)
        return {label: told.split()[: 6 if label == "BM25" else 8] for label, told in rows}

    assert len(quality(section)) == 3
    assert quality(out) == quality(section)
    (decision,) = re.findall(r"^Use embedded: .* retriever\.", section, re.MULTILINE)
    assert decision in out
    assert (tmp_path / "report.html").stat().st_size > 900_000


def test_lancedbs_block_puts_the_right_passage_first(capsys):
    (block,) = (each for each in blocks("python") if "LanceDBReranker" in each)
    exec(compile(block, "README", "exec"), {"__name__": "readme"})
    assert capsys.readouterr().out.startswith("A reranker scores query and document together.")


def migrations() -> list[tuple[str, str]]:
    """The table's `before` and `after`."""
    section = README.split("## Coming from another reranker")[1].split("\n## ")[0]
    rows = [row for row in section.splitlines() if re.match(r"\| (?!from)", row)]
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
        {each.name: ast.unparse(each) for each in ast.parse(file.read_text("utf-8")).body if hasattr(each, "name")}
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
    named = re.findall(r"(?:examples|benchmarks|training)/[\w/.]*\w|(?:examples|benchmarks|training)/", README)
    assert len(named) > 8
    for each in named:
        assert (ROOT / each).exists(), each


def test_the_make_targets_exist():
    makefile = (ROOT / "Makefile").read_text("utf-8")
    for target in re.findall(r"(?:^|`)make ([a-z0-9-]+)", README, re.MULTILINE):
        assert re.search(rf"^{target}:", makefile, re.MULTILINE), target


def test_the_table_of_backends_is_the_registry():
    between = README.split("<!-- backends: begin -->\n")[1].split("\n<!-- backends: end -->")[0]
    assert between == table(), f"README's table of backends has to be:\n{table()}"


def test_the_table_of_models_is_the_recipes():
    rows = [[f"`{row['spec']}`", *list(row.values())[1:]] for row in models()]
    lines = [list(models()[0]), *rows]
    expected = ["| " + " | ".join(cells) + " |" for cells in lines]
    expected.insert(1, "|" + "---|" * len(lines[0]))
    between = README.split("<!-- models: begin -->\n")[1].split("\n<!-- models: end -->")[0]
    assert between == "\n".join(expected), "README's table of models has to be:\n" + "\n".join(expected)


def test_the_strangers_backend_is_the_one_that_is_tested():
    assert BACKEND in blocks("python")
    assert CONTRACT in blocks("python")
    (entry_points,) = (tomllib.loads(block) for block in blocks("toml") if "entry-points" in block)
    assert entry_points["project"] == {"entry-points": tomllib.loads(PYPROJECT)["project"]["entry-points"]}


def test_changelog_and_package_agree_on_the_version():
    version = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]["version"]
    assert rerank_plugins.__version__ == version
    changelog = (ROOT / "CHANGELOG.md").read_text("utf-8")
    assert "## [Unreleased]" in changelog or f"## [{version}]" in changelog
