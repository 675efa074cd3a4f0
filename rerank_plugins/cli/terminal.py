"""What a terminal is told, and kept safe from."""

from __future__ import annotations

import contextlib
import json
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, TextIO

from ..core.redaction import one_line

__all__ = ["BAR_OPTIONS", "columns", "counted", "json_text", "printable", "progress", "say"]


printable = one_line
"""Return a text on one line and without control characters: a document cannot steer the terminal."""


def say(text: str = "", *, file: TextIO | None = None) -> None:
    """Print `text`, which may hold names and words of anybody: line by line, without control characters."""
    lines = ("".join(each if each.isprintable() else " " for each in line) for line in text.split("\n"))
    print("\n".join(lines), file=file, flush=file is not None)


def json_text(value: Any, indent: int | None = None) -> str:
    """Return `value` as JSON that any reader takes, and that steers no terminal."""
    text = json.dumps(value, ensure_ascii=False, indent=indent)
    # A lone surrogate is no UTF-8, and its escape is refused by other readers of JSON (jq): U+FFFD stands for it.
    text = text.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "replace")
    # JSON escapes control characters below U+0020 only. U+009B begins an escape sequence too, and U+202E turns a line around.
    return "".join(each if each.isprintable() or each == "\n" else json.dumps(each)[1:-1] for each in text)


def columns(rows: Sequence[Mapping[str, str]]) -> Iterator[str]:
    """Yield the lines of a table with the keys of its rows above."""
    widths = {key: max(len(key), *(len(row[key]) for row in rows)) for key in rows[0]}
    for row in ({key: key for key in rows[0]}, *rows):
        yield "  ".join(f"{value:<{widths[key]}}" for key, value in row.items()).rstrip()


@contextlib.contextmanager
def progress(what: str) -> Iterator[None]:
    """Tell a person who waits what for; a log or a pipe gets nothing."""
    if not sys.stderr.isatty():
        yield
        return
    started = time.perf_counter()
    print(f"{printable(what)}… ", end="", file=sys.stderr, flush=True)
    outcome = "stopped after"
    try:
        yield
        outcome = "done in"
    finally:
        print(f"{outcome} {time.perf_counter() - started:.1f} s", file=sys.stderr)


@contextlib.contextmanager
def counted() -> Iterator[Callable[[str, int, int], None] | None]:
    """Give a function that shows a person a bar (what, how many of how many); `None` where a log or a pipe reads."""
    if not sys.stderr.isatty():
        yield None
        return
    from tqdm import tqdm

    with contextlib.ExitStack() as bars:
        shown: dict[str, Any] = {}

        def show(what: str, done: int, total: int) -> None:
            if what not in shown:
                bars.close()  # one line: the bar before is done
                shown[what] = bars.enter_context(
                    tqdm(
                        total=total,
                        initial=done,
                        desc=printable(what)[:50],
                        bar_format=_BAR,
                        **BAR_OPTIONS,
                        leave=False,
                    )
                )
            shown[what].update(done - shown[what].n)

        yield show


_BAR = "{bar:24} {n:,}/{total:,} {desc}, {remaining} left"
BAR_OPTIONS: dict[str, Any] = {"mininterval": 0, "dynamic_ncols": True}
"""Of a tqdm bar: it shows every update, and is never wider than the terminal."""
