"""Compare a reranker over 10,000 queries of 100 candidates: time, peak memory, and the same figures when stopped.

    python benchmarks/compare_scale.py [--queries 10000] [--candidates 100] [--words 40] [--reranker lexical] [--ray]

Writes a JSONL file of made-up texts and runs `rerank-plugins compare` on it twice: once through, and once killed
half-way and run again. With `--ray`, a third comparison runs on two actors, killed and run again as well. Exits with 1
if any figure but the times differs.

Time with the default numbers: about four minutes of one core for each comparison. Peak memory is that of the command,
without Ray's own processes.
Install: pip install -e '.[evaluation,ray]' psutil
"""

from __future__ import annotations

import argparse
import json
import random
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import psutil

WORDS = [
    f"{one}{end}"
    for one in ("moon", "tide", "sea", "cat", "sun", "wind", "bird", "tree")
    for end in ("", "s", "ly", "ing")
]
TIMES = ("p50_ms", "p95_ms", "documents_per_second")


def write_lists(file: Path, queries: int, candidates: int, words: int) -> None:
    generator = random.Random(7)
    with file.open("w", encoding="utf-8") as lines:
        for at in range(queries):
            texts = [" ".join(generator.choices(WORDS, k=words)) for _ in range(candidates)]
            query = " ".join(texts[at % candidates].split()[:5])
            labels = [int(place == at % candidates) for place in range(candidates)]
            lines.write(json.dumps({"query": query, "candidates": texts, "labels": labels}) + "\n")


def run_command(command: list[str], *, kill_at: tuple[Path, int] | None = None) -> tuple[float, int]:
    """Run a command; kill it when a file has reached a size. Return the seconds, and its peak memory in bytes."""
    started, peak = time.perf_counter(), 0
    process = psutil.Popen(command, stdout=subprocess.DEVNULL)
    while process.poll() is None:
        try:
            peak = max(peak, process.memory_info().rss)
        except psutil.NoSuchProcess:
            break
        if kill_at is not None and kill_at[0].is_file() and kill_at[0].stat().st_size > kill_at[1]:
            process.kill()
        time.sleep(0.1)
    process.wait()
    return time.perf_counter() - started, peak


def figures(file: Path) -> dict[str, Any]:
    """Return what `--json` wrote, without what a clock measured."""
    value = json.loads(file.read_text("utf-8"))
    for row in value["rerankers"]:
        for name in TIMES:
            row.pop(name)
    return {name: part for name, part in value.items() if name != "advice"}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--queries", type=int, default=10_000)
    parser.add_argument("--candidates", type=int, default=100)
    parser.add_argument("--words", type=int, default=40)
    parser.add_argument("--reranker", default="lexical")
    parser.add_argument("--ray", action="store_true")
    parser.add_argument("--once", action="store_true", help="run through once, and stop there")
    arguments = parser.parse_args()
    failed = False
    with tempfile.TemporaryDirectory() as folder:
        data = Path(folder) / "lists.jsonl"
        write_lists(data, arguments.queries, arguments.candidates, arguments.words)
        print(f"{arguments.queries:,} x {arguments.candidates}: {data.stat().st_size / 1e6:,.0f} MB of JSONL")

        def command(name: str, *more: str) -> list[str]:
            keep, out = Path(folder) / f"{name}.sqlite3", Path(folder) / f"{name}.json"
            line = [sys.executable, "-m", "rerank_plugins", "compare", str(data), "-r", arguments.reranker]
            return [*line, "--keep", str(keep), "--json", str(out), *more]

        seconds, peak = run_command(command("once"))
        print(f"alone, through: {seconds:,.0f} s, peak {peak / 1e6:,.0f} MB", flush=True)
        expected = figures(Path(folder) / "once.json")
        half = (Path(folder) / "once.sqlite3").stat().st_size // 2
        ways = {} if arguments.once else {"stopped": ()}
        if arguments.ray and not arguments.once:
            ways["ray"] = ("--ray", "--actors", "2", "--cpus-per-actor", "0.5")
        for name, options in ways.items():
            first, _ = run_command(command(name, *options), kill_at=(Path(folder) / f"{name}.sqlite3", half))
            stored = (Path(folder) / f"{name}.json").is_file()
            second, peak = run_command(command(name, *options))
            same = figures(Path(folder) / f"{name}.json") == expected
            failed |= stored or not same
            print(
                f"{name}: killed after {first:,.0f} s, then {second:,.0f} s, peak {peak / 1e6:,.0f} MB, "
                f"{'the same figures' if same else 'OTHER FIGURES'}",
                flush=True,
            )
    return int(failed)


if __name__ == "__main__":
    sys.exit(main())
