"""README and the pages of docs/: their code blocks, and the command lines in them."""

from __future__ import annotations

import re
import shlex
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[2]
README = ROOT / "README.md"
PAGES = (README, *sorted((ROOT / "docs").rglob("*.md")))
TEXTS = {page.relative_to(ROOT).as_posix(): page.read_text("utf-8") for page in PAGES}
"""The text of every page, by its path in the repository."""
_FENCE = re.compile(
    r"(?:^<!-- (?P<mark>[^\n]*?) -->\n)?^```(?P<language>.*?)\n(?P<text>.*?)^```$", re.DOTALL | re.MULTILINE
)


@dataclass(frozen=True)
class Block:
    """One fenced block of a page."""

    page: str
    line: int
    language: str
    text: str
    mark: str
    """The comment in the line above: `slow`, or `run by: FILE::TEST` for a block that needs a key, a hub or a store."""

    def __str__(self) -> str:
        return f"{self.page}:{self.line}"


def blocks(language: str | None = None, page: str | None = None) -> list[Block]:
    """Return the fenced blocks of one page, or of all."""
    return [
        Block(name, text.count("\n", 0, match.start("text")) + 1, match["language"], match["text"], match["mark"] or "")
        for name, text in TEXTS.items()
        if page in (None, name)
        for match in _FENCE.finditer(text)
        if language in (None, match["language"])
    ]


def command_lines() -> list[str]:
    """Return every line of a console block, without its comment and without repeats."""
    lines = (re.sub(r" +#.*", "", line) for block in blocks("console") for line in block.text.splitlines())
    return list(dict.fromkeys(line for line in lines if line))


def documented(command: str) -> list[str]:
    """Return the arguments of the one line that shows a command of `rerank-plugins`, the command's name first."""
    (line,) = (line for line in command_lines() if line.startswith(f"rerank-plugins {command} "))
    return shlex.split(line)[1:]


def section(page: str, title: str) -> str:
    """Return the text of a section, up to the next one of its level or above."""
    match = re.search(rf"^(#+) {re.escape(title)}$", TEXTS[page], re.MULTILINE)
    assert match, f"{page} has no section {title!r}"
    rest = TEXTS[page][match.end() :]
    return re.split(rf"^#{{1,{len(match[1])}}} ", rest, maxsplit=1, flags=re.MULTILINE)[0]
