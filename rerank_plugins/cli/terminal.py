"""Output for a terminal: text without control characters, JSON, tables and progress bars."""

from __future__ import annotations

import contextlib
import json
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, TextIO

from ..core.redaction import one_line

__all__ = ["TQDM_OPTIONS", "json_text", "printable", "progress", "progress_bars", "say", "table_lines"]


printable = one_line
"""Return a text on one line and without control characters, so that a document cannot control the terminal."""


def say(text: str = "", *, file: TextIO | None = None) -> None:
    """Print `text`, which may hold untrusted names and messages, line by line without control characters."""
    lines = ("".join(char if char.isprintable() else " " for char in line) for line in text.split("\n"))
    print("\n".join(lines), file=file, flush=file is not None)


def json_text(value: Any, indent: int | None = None) -> str:
    """Return `value` as JSON that any parser accepts and that has no control characters."""
    text = json.dumps(value, ensure_ascii=False, indent=indent)
    # A lone surrogate cannot be encoded as UTF-8, and some parsers (jq) refuse its escape: write U+FFFD instead.
    text = text.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "replace")
    # JSON escapes only the control characters below U+0020. U+009B also starts an escape sequence, and U+202E reverses
    # the direction of the line.
    return "".join(char if char.isprintable() or char == "\n" else json.dumps(char)[1:-1] for char in text)


def table_lines(rows: Sequence[Mapping[str, str]]) -> Iterator[str]:
    """Yield the lines of a table: the keys of the rows as a header, then the rows."""
    widths = {key: max(len(key), *(len(row[key]) for row in rows)) for key in rows[0]}
    for row in ({key: key for key in rows[0]}, *rows):
        yield "  ".join(f"{value:<{widths[key]}}" for key, value in row.items()).rstrip()


@contextlib.contextmanager
def progress(task: str) -> Iterator[None]:
    """Print `task`, and at its end how long it took, on stderr. Print nothing if stderr is not a terminal."""
    if not sys.stderr.isatty():
        yield
        return
    started = time.perf_counter()
    print(f"{printable(task)}… ", end="", file=sys.stderr, flush=True)
    outcome = "stopped after"
    try:
        yield
        outcome = "done in"
    finally:
        print(f"{outcome} {time.perf_counter() - started:.1f} s", file=sys.stderr)


@contextlib.contextmanager
def progress_bars() -> Iterator[Callable[[str, int, int], None] | None]:
    """Yield a function (task, count, total) that updates a progress bar on stderr; `None` if stderr is no terminal."""
    if not sys.stderr.isatty():
        yield None
        return
    from tqdm import tqdm

    with contextlib.ExitStack() as bars:
        bar_of_task: dict[str, Any] = {}

        def update_bar(task: str, count: int, total: int) -> None:
            if task not in bar_of_task:
                bars.close()  # removes the previous bar, so that all bars share one line
                bar_of_task[task] = bars.enter_context(
                    tqdm(
                        total=total,
                        initial=count,
                        desc=printable(task)[:50],
                        bar_format=_BAR_FORMAT,
                        **TQDM_OPTIONS,
                        leave=False,
                    )
                )
            bar_of_task[task].update(count - bar_of_task[task].n)

        yield update_bar


_BAR_FORMAT = "{bar:24} {n:,}/{total:,} {desc}, {remaining} left"
TQDM_OPTIONS: dict[str, Any] = {"mininterval": 0, "dynamic_ncols": True}
"""They show every update, and fit the bar to the width of the terminal."""
