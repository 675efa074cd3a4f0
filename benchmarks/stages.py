"""Compare cascades and a fusion with `embedded` alone: nDCG@10 and time, collection by collection.

    python benchmarks/stages.py FOLDER… [--queries N] [--cache FILE]

Each folder holds corpus.jsonl, queries.tsv and qrels.txt. BM25's top 100 go through `embedded` alone; through two
cascades that end with it and keep 30 of 100, one after `lexical` and one after all cheap rerankers fused by rank
(`lexical`, `embedded:fast` and the first stage's order); and through `embedded` fused with BM25's order (rrf).
Milliseconds are medians over the first queries of each folder, on passages not seen before. The rerankers take turns,
so that their ratio holds on a busy machine too.

Time on two cores: 1 to 2 seconds per query with AVX-512 (AMD EPYC, Zen 5), and up to 8 without; --queries limits the
queries. With --cache, an interrupted run resumes.
Install: pip install -e '.[evaluation]'
"""

import argparse
import statistics
import sys
import tempfile
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent.parent / "examples"))

from collection import Collection, interval

from rerank_plugins import load_reranker

FIRST = {"lexical": "lexical", "all cheap": {"use": "lexical", "fuse": {"with": ["embedded:fast", "passthrough"]}}}
"""First stages of the cascades."""
FUSED = {"use": "embedded", "fuse": {"with": "retrieval"}}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folders", type=Path, nargs="+")
    parser.add_argument("--queries", type=int, help="queries of each folder; default: all")
    parser.add_argument("--timed", type=int, default=10, help="queries of each folder that are timed: 10")
    parser.add_argument("--cache", help="SQLite file of scores; default: a temporary one")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        print_report(
            options, {"kind": "disk", "path": options.cache or f"{folder}/scores.sqlite3", "max_entries": 10**6}
        )


def cascade(first: object, last: object = "embedded") -> dict:
    return {"cascade": {"stages": [first, last], "keep": [30]}}


def print_report(options: argparse.Namespace, cache: dict) -> None:
    for name, first in FIRST.items():
        print(f"cascade, {name}: {cascade(first)}")
    print(f"fused: {FUSED}")
    cascades = "".join(f"{name:>11}{'':>8}{'faster':>8}" for name in FIRST)
    print(f"{'':14}{'BM25':>8}{'embedded':>10}{'ms':>7}{cascades}{'fused':>8}  over BM25 [95 %]")
    rows = []
    for folder in options.folders:
        collection = Collection(folder)
        names = list(collection.queries)[: options.queries]
        row = [*measure_quality(collection, names, cache), *measure_milliseconds(collection, names[: options.timed])]
        rows.append(row)
        print_row(folder.name, row)
    print_row("mean", [sum(column) / len(rows) for column in zip(*rows, strict=True)])


def measure_quality(collection: Collection, names: list[str], cache: dict) -> list[float]:
    """Return nDCG@10 of BM25, `embedded`, each cascade the fusion, and the fusion's lift over BM25."""
    specs = [{"use": "embedded"}, *map(cascade, FIRST.values()), FUSED]
    rerankers = [load_reranker({**spec, "cache": cache}) for spec in specs]
    values = [[] for _ in range(1 + len(specs))]
    for name in names:
        positions = [at for at, _ in collection.search(collection.queries[name], 100)]
        values[0].append(collection.ndcg(name, [collection.ids[at] for at in positions]))
        texts = [collection.texts[at] for at in positions]
        for column, reranker in zip(values[1:], rerankers, strict=True):
            answer = reranker.rerank(collection.queries[name], texts)
            column.append(collection.ndcg(name, [collection.ids[positions[result.index]] for result in answer]))
    lift = interval([new - old for new, old in zip(values[-1], values[0], strict=True)])
    return [*(statistics.mean(column) for column in values), *lift]


def measure_milliseconds(collection: Collection, names: list[str]) -> list[float]:
    """Return the median time of a call with `embedded` alone and with each cascade, without cached vectors."""
    fresh = {"use": "embedded", "embedded": {"cache_mb": 0}}
    rerankers = [load_reranker(spec) for spec in (fresh, *(cascade(first, fresh) for first in FIRST.values()))]
    for reranker in rerankers:
        reranker.warmup()
    times = [[] for _ in rerankers]
    for name in names:
        texts = [collection.texts[at] for at, _ in collection.search(collection.queries[name], 100)]
        for column, reranker in zip(times, rerankers, strict=True):
            column.append(reranker.rerank(collection.queries[name], texts).latency_ms)
    return [statistics.median(column) for column in times]


def print_row(name: str, row: list[float]) -> None:
    stages = len(FIRST)
    bm25, embedded, *cascades = row[: 2 + stages]
    fused, lift, low, high, slow, *fast = row[2 + stages :]
    line = f"{name:14}{bm25:8.3f}{embedded:10.3f}{slow:7.0f}"
    for quality, milliseconds in zip(cascades, fast, strict=True):
        line += f"{quality:11.3f}{quality / embedded - 1 if embedded else 0:+8.1%}{slow / milliseconds:7.1f}x"
    interval_text = f" [{low:+.3f}, {high:+.3f}]" if name != "mean" else ""
    print(f"{line}{fused:8.3f}  {lift:+.3f}{interval_text}", flush=True)


if __name__ == "__main__":
    main()
