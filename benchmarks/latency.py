"""Milliseconds of a call against the number of candidates, beside quality and other packages: p50 and p95, cold, warm.

    python benchmarks/latency.py [FOLDER] [--queries 12] [--candidates 10 20 50 100 200] [--openvino-python PYTHON]
        [--write]

FOLDER holds corpus.jsonl, queries.tsv and qrels.txt; the default is examples/data/nq_qed. The candidates are BM25's
best. Every contender has its own process, and they take turns query by query. Three columns for each:

- unseen: no document was sent before (each one begins with a number of its own);
- half: every second document was sent before;
- seen: all were, as when a user asks again, or many queries share their candidates.

Prints p50 and p95 over the queries; seconds and peak memory from the start of the process to the first answer (cold);
nDCG@10 of the same calls for the rerankers of the wheel, and that of BM25's order. The other packages run a stand-in
of MiniLM-L6's shape, since no hub is used: its time is that of the real model, its quality is not, so none is printed.
`--write` puts the tables into docs/guides/latency.md, with the machine and the day.

sentence-transformers' OpenVINO needs an environment of its own: see `local.py`. Without it, it is left out.

Time on two cores: about twelve minutes with AVX-512, twenty-five without; `--only ours` takes a quarter of that.
Install: pip install -e '.[test]'
"""

import argparse
import datetime as dt
import itertools
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent.parent / "examples"))

from checkpoints import write_minilm
from collection import DATA, Collection
from local import BASE, OPENVINO, Contender, Ended
from matrices import describe_machine
from pages import markdown_table, plain_table, write_measured
from prose import texts

from rerank_plugins.backends.embedded import MODELS

OURS = [f"spec {name}" for name in ("embedded:fast", "embedded:balanced", "embedded") if name.split(":")[-1] in MODELS]
"""The rerankers of the wheel, as contenders."""
OTHERS = ["FlashRank", "fastembed", BASE, OPENVINO]
STATES = ("unseen", "half", "seen")
LATENCY_CANDIDATES = 50
"""The candidates of the chart."""
SLOWEST_S = 30.0
"""A contender is not asked for more candidates once a call has taken so long."""


def percentile(values: Sequence[float], share: float) -> float:
    """Return the smallest value that is at least as large as this share of the values."""
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, max(0, round(share * len(ordered) + 0.499) - 1))]


class Measured:
    """The calls of one contender."""

    def __init__(self, process: Contender) -> None:
        self.process = process
        self.label = process.name.removeprefix("spec ")
        self.milliseconds: dict[tuple[int, str], list[float]] = {}
        self.ndcg: dict[int, list[float]] = {}
        self.too_slow = False
        self.ended = False

    def call(self, query: str, documents: Sequence[str], key: tuple[int, str] | None) -> list[float]:
        """Send one call, and record its time under a key. Return the scores."""
        milliseconds, scores = self.process.rank(query, documents)
        if key is not None:
            self.milliseconds.setdefault(key, []).append(milliseconds)
        self.too_slow |= milliseconds > SLOWEST_S * 1000
        return scores


def measure(
    contenders: Sequence[Measured], collection: Collection, names: Sequence[str], depths: Sequence[int]
) -> None:
    """Let the contenders take turns, query by query."""
    numbers = itertools.count()
    for depth in depths:
        active = [contender for contender in contenders if not contender.too_slow]
        for name in names:
            query = collection.queries[name]
            positions = [at for at, _ in collection.search(query, depth)]
            candidates = [collection.texts[at] for at in positions]
            for contender in active:
                if contender.ended:
                    continue
                try:
                    scores = take_turn(contender, query, candidates, numbers, depth)
                except Ended as error:  # the figures so far, and the other contenders, stay
                    print(f"{error} It is left out from {depth} candidates on.", flush=True)
                    contender.ended = contender.too_slow = True
                    continue
                if scores is None:
                    continue
                order = sorted(range(len(candidates)), key=lambda at, scores=scores: -scores[at])
                ranked = [collection.ids[positions[at]] for at in order]
                contender.ndcg.setdefault(depth, []).append(collection.ndcg(name, ranked))


def take_turn(
    contender: Measured, query: str, candidates: Sequence[str], numbers: Iterator[int], depth: int
) -> list[float] | None:
    """Time one contender on one query. Return the scores of the unchanged candidates, for a reranker of ours."""
    contender.call(query, [f"{next(numbers)} {text}" for text in candidates], (depth, "unseen"))
    if not contender.process.name.startswith("spec "):  # the other packages remember nothing
        return None
    marked = [f"{next(numbers)} {text}" for text in candidates]
    contender.call(query, marked[::2], None)
    contender.call(query, marked, (depth, "half"))
    contender.call(query, marked, (depth, "seen"))
    return contender.call(query, candidates, None)


def rows(contenders: Sequence[Measured], depths: Sequence[int]) -> Iterator[list[str]]:
    """Yield the cells of each line of the table."""
    for depth in depths:
        for contender in contenders:
            if (depth, "unseen") not in contender.milliseconds:
                continue
            cells = [str(depth), contender.label]
            for state in STATES:
                values = contender.milliseconds.get((depth, state))
                cells.append(f"{statistics.median(values):,.0f} / {percentile(values, 0.95):,.0f}" if values else "")
            quality = contender.ndcg.get(depth)
            yield [*cells, f"{statistics.mean(quality):.3f}" if quality else ""]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path, nargs="?", default=DATA)
    parser.add_argument("--queries", type=int, default=12)
    parser.add_argument("--candidates", type=int, nargs="+", default=[10, 20, 50, 100, 200])
    parser.add_argument("--only", choices=("ours", "all"), default="all")
    parser.add_argument(
        "--openvino-python", default=sys.executable, help="python of the environment with optimum-intel"
    )
    parser.add_argument("--write", action="store_true", help="write the tables into docs/guides/latency.md")
    options = parser.parse_args()
    collection = Collection(options.folder)
    names = list(collection.queries)[:: max(1, len(collection.queries) // options.queries)][: options.queries]
    machine = describe_machine()
    print(machine)
    with tempfile.TemporaryDirectory() as folder:
        checkpoint, chosen = Path(folder), [*OURS]
        if options.only == "all":
            checkpoint = write_minilm(checkpoint / "minilm", texts(60, seed=9, words=60))
            chosen += OTHERS
            command = [options.openvino_python, "-c", "import optimum.intel, sentence_transformers"]
            if subprocess.run(command, capture_output=True, check=False).returncode:
                print(f"{OPENVINO}: left out, because {options.openvino_python} has no optimum-intel; see local.py")
                chosen.remove(OPENVINO)
        contenders = [
            Measured(Contender(name, checkpoint, options.openvino_python if name == OPENVINO else sys.executable))
            for name in chosen
        ]
        for contender in contenders:  # the first call of a shape warms up
            contender.call("warm up", texts(20, seed=8, words=100), None)
        measure(contenders, collection, names, options.candidates)
    order = {
        depth: [
            collection.ndcg(name, [collection.ids[at] for at, _ in collection.search(collection.queries[name], depth)])
            for name in names
        ]
        for depth in options.candidates
    }
    before = ", ".join(f"{statistics.mean(values):.3f} of {depth}" for depth, values in order.items())
    title = f"{options.folder.name}, {len(names)} queries; milliseconds, p50 / p95. nDCG@10 of BM25's order: {before}."
    header = ("candidates", "reranker", "unseen", "half seen", "seen", "nDCG@10")
    warm = list(rows(contenders, options.candidates))
    cold_header = ("reranker", "first answer, s", "peak, MB")
    cold = [[each.label, f"{each.process.load_s:.2f}", f"{each.process.peak_mb:,.0f}"] for each in contenders]
    print(f"\n{title}\n\n{plain_table(header, warm)}\n\n{plain_table(cold_header, cold)}")
    if options.write:
        day = dt.datetime.now(dt.UTC).date().isoformat()
        text = f"{title} {machine}, {day}.\n\n{markdown_table(header, warm)}\n{markdown_table(cold_header, cold)}"
        if LATENCY_CANDIDATES in options.candidates:  # `docs/generate.py` draws it
            text += f"\n![Milliseconds of a call over {LATENCY_CANDIDATES} passages](../images/latency.svg)\n"
        write_measured("latency", text)
    for contender in contenders:
        contender.process.close()


if __name__ == "__main__":
    main()
