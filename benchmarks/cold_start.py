"""Compare cold starts in turn: from `import` to the first answer of `embedded`, memory, and a call of the command line.

    python benchmarks/cold_start.py [--before REVISION] [--rounds 7] [--write]

Each measurement is a new process. The sides take turns:

- before: the package of another revision of this repository (a tag or commit), where --before names one, with its
  own cached file, if it writes one;
- no cache file: this package with RERANK_PLUGINS_GRAPH_CACHE=off;
- first process: an empty cache, so this process writes the file;
- cached: the file is there.

Prints medians with the least and greatest value: milliseconds of `import rerank_plugins`, of `load_reranker`, of the
first call (20 short texts), and of the three together; the largest resident memory (VmHWM); and the time of the whole
process of `rerank-plugins rerank QUERY FILE` over 20 lines. It also prints the processor time of the three steps, which
depends less on what else runs. Every side must give the same scores.

`--write` puts the table into docs/guides/latency.md, with the machine and the day.

Time on two cores: about a minute for seven rounds.
Install: nothing but the package. Run it from a git clone.
"""

import argparse
import contextlib
import datetime as dt
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

from pages import markdown_table, plain_table, write_measured

ROOT = Path(__file__).parent.parent
QUERY = "how do I reset my password"
SENTENCES = (
    "To reset your password, open Settings and choose Security.",
    "Invoices are sent on the first day of each month.",
    "The office is closed on public holidays.",
    "A password has at least twelve characters.",
    "If you have lost your phone, a recovery code resets the login.",
)
LINES = [f"{number}. {line}" for number, line in enumerate(SENTENCES * 4, 1)]
SCRIPT = """
import json, sys, time
started, processor = time.perf_counter(), time.process_time()
import rerank_plugins
imported = time.perf_counter()
reranker = rerank_plugins.load_reranker("embedded")
built = time.perf_counter()
response = reranker.rerank(sys.argv[1], json.loads(sys.argv[2]))
answered, spent = time.perf_counter(), time.process_time() - processor
scores = [result.raw_score for result in sorted(response, key=lambda result: result.index)]
status = open("/proc/self/status").read()
print(json.dumps({
    "import": imported - started, "load_reranker": built - imported, "first call": answered - built,
    "in all": answered - started, "processor": spent, "scores": scores,
    "MB": int(status.split("VmHWM:")[1].split()[0]) / 1024, "file": rerank_plugins.__file__,
}))
"""
COLUMNS = ("import", "load_reranker", "first call", "in all", "processor", "MB", "command line")


def cpu_name() -> str:
    """Return the name of the processor, and the number of its cores that this process may use."""
    with Path("/proc/cpuinfo").open() as lines:
        name = next((line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")), "unknown")
    return f"{name}, {len(os.sched_getaffinity(0))} cores"


@contextlib.contextmanager
def package_of(revision: str) -> Iterator[Path]:
    """Yield a folder with the package of a revision of this repository."""
    with tempfile.TemporaryDirectory() as folder:
        archive = subprocess.run(
            ["git", "-C", str(ROOT), "archive", revision, "rerank_plugins"], capture_output=True, check=True
        )
        subprocess.run(["tar", "-x", "-C", folder], input=archive.stdout, check=True)
        yield Path(folder)


def run(command: list[str], package: Path, cache: str) -> tuple[float, str]:
    """Run a command with the package in a folder, and return its seconds and its output."""
    environment = {**os.environ, "PYTHONPATH": str(package), "RERANK_PLUGINS_GRAPH_CACHE": cache}
    # An installed package is compiled. The first round compiles all modules, those of other packages too.
    environment.pop("PYTHONDONTWRITEBYTECODE", None)
    environment["PYTHONPYCACHEPREFIX"] = str(Path(tempfile.gettempdir()) / f"cold-start-{os.getuid()}")
    started = time.perf_counter()
    done = subprocess.run(
        [sys.executable, *command], env=environment, capture_output=True, text=True, check=False, cwd=package
    )
    seconds = time.perf_counter() - started
    if done.returncode:
        raise SystemExit(done.stderr)
    return seconds, done.stdout


def measure(package: Path, cache: str, file: Path) -> dict:
    """Return the numbers of one cold start, and of one call of the command line."""
    _, output = run(["-c", SCRIPT, QUERY, json.dumps(LINES)], package, cache)
    row = json.loads(output)
    if Path(row["file"]).parent.parent != package:
        raise SystemExit(f"{row['file']} was imported, and not the package in {package}.")
    # The first process of the command line writes a file too.
    cache += "-cli" if "empty" in cache else ""
    row["command line"], _ = run(["-m", "rerank_plugins", "rerank", QUERY, str(file)], package, cache)
    return row


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--before", metavar="REVISION", help="a revision to compare with, such as v0.2.0")
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--write", action="store_true", help="write the table into docs/guides/latency.md")
    options = parser.parse_args()
    with contextlib.ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        file = folder / "lines.txt"
        file.write_text("\n".join(LINES) + "\n", "utf-8")
        sides = {"no cache file": (ROOT, "off"), "first process": (ROOT, ""), "cached": (ROOT, str(folder / "cached"))}
        if options.before:
            before = stack.enter_context(package_of(options.before)), str(folder / "before")
            sides = {f"before ({options.before})": before, **sides}
        rows: dict[str, list[dict]] = {name: [] for name in sides}
        for round_number in range(options.rounds + 1):
            for name, (package, cache) in sides.items():
                row = measure(package, cache or str(folder / f"empty{round_number}"), file)
                if round_number:  # the first round compiles the modules and fills the cache
                    rows[name].append(row)
    title = f"{cpu_name()}; Python {sys.version.split()[0]}; medians of {options.rounds} [least to greatest]"
    header = ("", *(f"{name}, ms".replace("MB, ms", "peak, MB") for name in COLUMNS))
    lines = []
    for name, values in rows.items():
        cells = []
        for column in COLUMNS:
            factor = 1 if column == "MB" else 1000
            numbers = sorted(row[column] * factor for row in values)
            cells.append(f"{statistics.median(numbers):.0f} [{numbers[0]:.0f} to {numbers[-1]:.0f}]")
        lines.append([name, *cells])
    print(f"{title}\n{plain_table(header, lines)}")
    if options.write:
        day = dt.datetime.now(dt.UTC).date().isoformat()
        write_measured("cold-start", f"{title}, {day}.\n\n{markdown_table(header, lines)}")
    everything = [row["scores"] for values in rows.values() for row in values]
    farthest = max(abs(one - other) for scores in everything for one, other in zip(everything[0], scores, strict=True))
    print(f"scores differ by {farthest:.1e} at most, over {len(everything)} processes")


if __name__ == "__main__":
    main()
