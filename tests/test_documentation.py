"""What is made of the code is up to date, links lead somewhere, every option has its place, and sentences are short."""

from __future__ import annotations

import importlib
import importlib.util
import inspect
import json
import posixpath
import re
from pathlib import Path

import pytest
from support.pages import PAGES, README, ROOT, TEXTS

import rerank_plugins
from rerank_plugins import core
from rerank_plugins.config.registry import builtin_entries

_spec = importlib.util.spec_from_file_location("docs_generate", ROOT / "docs" / "generate.py")
generate = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(generate)

LONGEST = 35
"""Words of a sentence, a piece of code counted as one word."""


@pytest.mark.parametrize("page", PAGES, ids=[page.relative_to(ROOT).as_posix() for page in PAGES])
def test_generated_parts_are_up_to_date(page: Path):
    text = page.read_text("utf-8")
    assert generate.up_to_date(text) == text, f"{page} is out of date: run `python docs/generate.py`"


def test_picture_is_made_of_the_table():
    assert generate.PICTURE.read_text("utf-8") == generate.picture(), "run `python docs/generate.py`"
    assert generate.picture().count("<rect") == 2 + 2 * 4


def test_picture_of_latencies_is_made_of_the_table():
    drawn = generate.latency_picture()
    file = generate.LATENCY_PICTURE
    assert (file.read_text("utf-8") if file.exists() else None) == drawn, "run `python docs/generate.py`"
    lines = re.findall(rf"^\| {generate.LATENCY_CANDIDATES} \|", TEXTS["docs/guides/latency.md"], re.MULTILINE)
    assert (drawn or "").count("<circle") == len(lines)


def test_every_generated_part_stands_on_a_page():
    placed = re.findall(r"<!-- generated: ([\w-]+) -->", "".join(TEXTS.values()))
    assert sorted(placed) == sorted(generate.GENERATED)


def anchors(page: str) -> set[str]:
    """Return the anchors of a page: those that are written, and those that GitHub and MkDocs make of titles."""
    text = re.sub(r"^```.*?^```$", "", TEXTS[page], flags=re.DOTALL | re.MULTILINE)
    made = set()
    for title in re.findall(r"^#+ (.*)$", text, re.MULTILINE):
        written = re.search(r"\{ #(\S+) \}$", title)
        plain = re.sub(r"[^\w -]", "", title.lower()).strip()
        made.add(written[1] if written else plain.replace(" ", "-"))
    return made


def test_every_option_has_an_anchor():
    wanted = generate.option_anchors()
    assert len(wanted) > 80
    assert wanted <= anchors("docs/reference/options.md")
    assert {f"table-{name}" for name in builtin_entries()} <= wanted
    assert {"timeout", "retry.attempts", "price.per_million_tokens", "http.results_field"} <= wanted


@pytest.mark.parametrize("page", TEXTS)
def test_links_lead_somewhere(page: str):
    text = re.sub(r"^```.*?^```$", "", TEXTS[page], flags=re.DOTALL | re.MULTILINE)
    for link in re.findall(r"\]\(([^)\s]*)\)", text):
        if link.startswith("https://"):
            continue
        target, _, anchor = link.partition("#")
        name = posixpath.normpath(posixpath.join(posixpath.dirname(page), target)) if target else page
        assert (ROOT / name).exists(), f"{page}: {link}"
        if anchor:
            assert anchor in anchors(name), f"{page}: {link}"


def test_every_page_is_in_the_navigation():
    navigation = (ROOT / "mkdocs.yml").read_text("utf-8").partition("\nnav:")[2]
    pages = {name.removeprefix("docs/") for name in TEXTS if name.startswith("docs/")}
    assert set(re.findall(r": (\S+\.md)$", navigation, re.MULTILINE)) == pages


def test_readme_has_at_most_200_lines():
    assert README.read_text("utf-8").count("\n") <= 200


def test_public_names_are_in_the_reference():
    documented = set(re.findall(r"^::: rerank_plugins\.(?:\w+\.)?(\w+)$", TEXTS["docs/reference/api.md"], re.MULTILINE))
    assert set(rerank_plugins.__all__) - {"__version__"} <= documented
    assert {"Capabilities", "HostedBackend", "LocalBackend", "RerankRequest"} <= documented
    for name in documented & set(core.__all__):
        assert getattr(core, name).__doc__


def test_environment_variables_are_in_the_reference():
    """Those that the source reads by name, and those that backends declare."""
    page = TEXTS["docs/reference/environment.md"]
    source = "".join(file.read_text("utf-8") for file in (ROOT / "rerank_plugins").rglob("*.py"))
    named = set(re.findall(r'environ(?:\.get\(|\.setdefault\(|\.pop\(|\[)\s*"([A-Z0-9_]+)"', source))
    named |= set(re.findall(r'^\w*VARIABLE = "(RERANK_PLUGINS_(?!CONTRACT)\w+)"', source, re.MULTILINE))
    named |= {"HF_TOKEN", "HF_HUB_OFFLINE", "HF_ENDPOINT", "HF_HOME", "NO_PROXY", "HTTPS_PROXY", "CO_API_KEY"}
    assert len(named) > 15
    assert [name for name in sorted(named) if f"`{name}`" not in page] == []


def test_metadata_keys_are_in_the_reference():
    page = TEXTS["docs/reference/metadata.md"]
    source = "".join((ROOT / "rerank_plugins" / name).read_text("utf-8") for name in ("_adapter.py", "lancedb.py"))
    keys = set(re.findall(r'"((?:rerank|retrieval|relevance)_\w+|_relevance_score)"', source))
    assert {"relevance_score", "rerank_degraded", "rerank_spans", "_relevance_score"} <= keys
    assert [key for key in sorted(keys) if f"`{key}`" not in page] == []


# --- sentences ---


def sentences(text: str) -> list[str]:
    """Return the sentences of Markdown: of its paragraphs, list items and cells of tables, code as one word."""
    text = re.sub(r"^ *```.*?^ *```$", "\n\n", text, flags=re.DOTALL | re.MULTILINE)
    text = re.sub(r"^(<!--.*-->|:::.*| +\w+:.*|\|[-| ]+\|)$", "\n\n", text, flags=re.MULTILINE)
    text = re.sub(r"`[^`]*`", "`code`", text)  # one word, and its full stops end nothing
    text = re.sub(r"\[([^\]]*)\]\([^)]*\)", r"\1", text)
    text = re.sub(r"^\s*(#+|[-*]|\d+\.) ", "\n\n", text, flags=re.MULTILINE)
    text = re.sub(r"^\|(.*)\|$", lambda row: "\n\n" + row[1].replace(" | ", "\n\n") + "\n\n", text, flags=re.MULTILINE)
    sentences: list[str] = []
    for paragraph in re.split(r"\n\s*\n", text):
        sentences += re.split(r"(?<=[.!?])\s+(?=[A-Z`0-9*\[])", " ".join(paragraph.split()))
    return [sentence for sentence in sentences if sentence]


def docstrings() -> str:
    """Return the docstrings that the Python API shows, without examples, an entry of `Args` as a paragraph."""
    texts = []
    for path in re.findall(r"^::: (rerank_plugins[\w.]*)$", TEXTS["docs/reference/api.md"], re.MULTILINE):
        module, _, name = path.rpartition(".")
        documented = getattr(importlib.import_module(module), name)
        members = [documented, *vars(documented).values()] if isinstance(documented, type) else [documented]
        texts += [inspect.getdoc(member) or "" for member in members if callable(member) or member is documented]
    prose = re.sub(r"^ *(>>>|\.\.\.).*?(?=^ *$|\Z)", "", "\n\n".join(texts), flags=re.DOTALL | re.MULTILINE)
    starts = r"^ *(Args|Returns|Raises|Example|Yields):$|^ +\**\w+(?: \(.*?\))?: "
    return re.sub(starts, "\n\n", prose, flags=re.MULTILINE)


def longest(count: int) -> list[tuple[int, str, str]]:
    """Return the longest sentences with their number of words and their page, generated parts included."""
    pages = {page: text for page, text in TEXTS.items() if page != "docs/interoperability.md"}  # quotes others' errors
    pages |= {name: (ROOT / name).read_text("utf-8") for name in ("CONTRIBUTING.md", "SECURITY.md")}
    pages["docstrings"] = docstrings()
    notebook = json.loads((ROOT / "examples" / "which_reranker.ipynb").read_text("utf-8"))
    prose = ["".join(cell["source"]) for cell in notebook["cells"] if cell["cell_type"] == "markdown"]
    pages["examples/which_reranker.ipynb"] = "\n\n".join(prose)
    counted = [(len(sentence.split()), page, sentence) for page, text in pages.items() for sentence in sentences(text)]
    return sorted(counted, reverse=True)[:count]


def test_no_sentence_is_longer_than_the_limit():
    """Prints the longest ten (`pytest -s`)."""
    ten = longest(10)
    print("\n".join(f"{words} words, {page}: {sentence}" for words, page, sentence in ten))
    assert [row for row in ten if row[0] > LONGEST] == []
