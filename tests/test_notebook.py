"""The notebook in examples/ runs from top to bottom, and is stored without outputs."""

from __future__ import annotations

import re
from pathlib import Path

import nbclient
import nbformat
import pytest
from support.environments import ROOT

FILE = ROOT / "examples" / "which_reranker.ipynb"


def read() -> nbformat.NotebookNode:
    notebook = nbformat.read(FILE, as_version=4)
    nbformat.validate(notebook)
    return notebook


def test_notebook_is_stored_without_outputs():
    """Times and paths of one machine would be read as promises, and a report of 1 MB would be in each difference."""
    cells = [cell for cell in read().cells if cell.cell_type == "code"]
    assert len(cells) > 4
    for cell in cells:
        assert cell.outputs == []
        assert cell.execution_count is None
    assert str(Path.home()) not in FILE.read_text("utf-8")


def test_links_of_the_notebook_lead_somewhere():
    links = re.findall(
        r"https://github\.com/rerank-plugins/rerank-plugins/blob/main/([\w/.-]+)", FILE.read_text("utf-8")
    )
    assert len(links) > 1
    assert [link for link in links if not (ROOT / link).is_file()] == []


@pytest.mark.slow  # half a minute: three rerankers over 50 questions
def test_notebook_runs_and_recommends_a_reranker(tmp_path, monkeypatch):
    for name in ("IPYTHONDIR", "JUPYTER_CONFIG_DIR", "JUPYTER_DATA_DIR", "JUPYTER_RUNTIME_DIR"):
        monkeypatch.setenv(name, str(tmp_path / name))
    notebook = read()
    resources = {"metadata": {"path": str(FILE.parent)}}
    nbclient.NotebookClient(notebook, timeout=300, kernel_name="python3", resources=resources).execute()
    outputs = {cell.id: cell.outputs for cell in notebook.cells if cell.cell_type == "code"}
    printed = {
        name: "".join(each["text"] for each in cell if each.get("name") == "stdout") for name, cell in outputs.items()
    }
    said = [each for cell in outputs.values() for each in cell if each.get("name") == "stderr"]
    assert [each for each in said if "tqdm" not in each["text"]] == []  # tqdm warns where ipywidgets is not installed
    assert len(printed["retriever"].splitlines()) == 3
    assert printed["compare"].startswith("reranker")
    assert "embedded:fast" in printed["compare"]
    (report,) = outputs["report"]
    assert "<iframe" in report["data"]["text/html"]
    assert re.match(r"Use .*embedded", printed["advice"])
    assert len(printed["use"].splitlines()) == 5
    assert "answers it" in printed["use"]
