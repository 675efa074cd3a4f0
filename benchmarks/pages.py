"""Writes what a benchmark measured into a page of the documentation, between two comments.

`latency.py --write` and `cold_start.py --write` use it.

Time: none; other benchmarks import this module.
Install: nothing.
"""

import re
from collections.abc import Sequence
from pathlib import Path

PAGE = Path(__file__).parent.parent / "docs" / "guides" / "latency.md"


def markdown_table(header: Sequence[str], lines: Sequence[Sequence[str]]) -> str:
    """Return a Markdown table."""
    return "\n".join(f"| {' | '.join(line)} |" for line in (header, ["---"] * len(header), *lines)) + "\n"


def plain_table(header: Sequence[str], lines: Sequence[Sequence[str]]) -> str:
    """Return a table for a terminal."""
    widths = [max(len(line[column]) for line in (header, *lines)) for column in range(len(header))]
    return "\n".join(
        "  ".join(f"{cell:>{width}}" for cell, width in zip(line, widths, strict=True)) for line in (header, *lines)
    )


def write_measured(name: str, text: str) -> None:
    """Replace what stands between `<!-- measured: NAME -->` and `<!-- end of NAME -->` in the page."""
    page = PAGE.read_text("utf-8")
    block = re.compile(rf"(<!-- measured: {name} -->\n).*?(<!-- end of {name} -->)", re.DOTALL)
    if not block.search(page):
        raise SystemExit(f"{PAGE} has no place for {name}.")
    PAGE.write_text(block.sub(lambda match: match[1] + text + match[2], page), "utf-8")
    print(f"wrote {name} in {PAGE}; now run: python docs/generate.py")
