"""What a cascade costs in nDCG@10 and spares in time, and what fusing with the retriever's order gives, collection by collection.

python benchmarks/stages.py FOLDER… [--queries N] [--cache FILE]: BM25's top 100 under `embedded`; under two cascades that end with it, 30 of 100
going on: one that begins with `lexical`, one that begins with all that is cheap fused by rank (`lexical`, `embedded:fast` and
the order given); and under `embedded` fused with BM25's order (rrf). Milliseconds are medians over the first queries of
each folder, passages not seen before, the rerankers asked in turn: on a busy machine their ratio still holds. FILE keeps
scores, so that a run can be stopped and taken up again.
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
"""First stages of a cascade."""
FUSED = {"use": "embedded", "fuse": {"with": "retrieval"}}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folders", type=Path, nargs="+")
    parser.add_argument("--queries", type=int, help="of each folder; all unless given")
    parser.add_argument("--timed", type=int, default=10, help="queries of each folder that are timed: 10")
    parser.add_argument("--cache", help="file that keeps scores; forgotten afterwards unless given")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        report(given, {"kind": "disk", "path": given.cache or f"{folder}/scores.sqlite3", "max_entries": 10**6})


def cascade(first: object, last: object = "embedded") -> dict:
    return {"cascade": {"stages": [first, last], "keep": [30]}}


def report(given: argparse.Namespace, cache: dict) -> None:
    for name, first in FIRST.items():
        print(f"cascade, {name}: {cascade(first)}")
    print(f"fused: {FUSED}")
    cascades = "".join(f"{name:>11}{'':>8}{'faster':>8}" for name in FIRST)
    print(f"{'':14}{'BM25':>8}{'embedded':>10}{'ms':>7}{cascades}{'fused':>8}  over BM25 [95 %]")
    rows = []
    for folder in given.folders:
        collection = Collection(folder)
        names = list(collection.queries)[: given.queries]
        row = [*quality(collection, names, cache), *milliseconds(collection, names[: given.timed])]
        rows.append(row)
        tell(folder.name, row)
    tell("mean", [sum(column) / len(rows) for column in zip(*rows, strict=True)])


def quality(collection: Collection, names: list[str], cache: dict) -> list[float]:
    """Return nDCG@10 of BM25, embedded, each cascade and the fusion; and the fusion's lift over BM25 with its interval."""
    specs = [{"use": "embedded"}, *map(cascade, FIRST.values()), FUSED]
    rerankers = [load_reranker({**each, "cache": cache}) for each in specs]
    figures = [[] for _ in range(1 + len(specs))]
    for name in names:
        found = [at for at, _ in collection.search(collection.queries[name], 100)]
        figures[0].append(collection.ndcg(name, [collection.ids[at] for at in found]))
        texts = [collection.texts[at] for at in found]
        for column, reranker in zip(figures[1:], rerankers, strict=True):
            answer = reranker.rerank(collection.queries[name], texts)
            column.append(collection.ndcg(name, [collection.ids[found[each.index]] for each in answer]))
    lift = interval([new - old for new, old in zip(figures[-1], figures[0], strict=True)])
    return [*(statistics.mean(column) for column in figures), *lift]


def milliseconds(collection: Collection, names: list[str]) -> list[float]:
    """Return the median of a call with all 100, and with each cascade; no vectors kept."""
    fresh = {"use": "embedded", "embedded": {"cache_mb": 0}}
    rerankers = [load_reranker(each) for each in (fresh, *(cascade(first, fresh) for first in FIRST.values()))]
    for reranker in rerankers:
        reranker.warmup()
    took = [[] for _ in rerankers]
    for name in names:
        texts = [collection.texts[at] for at, _ in collection.search(collection.queries[name], 100)]
        for column, reranker in zip(took, rerankers, strict=True):
            column.append(reranker.rerank(collection.queries[name], texts).latency_ms)
    return [statistics.median(column) for column in took]


def tell(name: str, row: list[float]) -> None:
    many = len(FIRST)
    first, whole, *staged = row[: 2 + many]
    fused, lift, low, high, slow, *fast = row[2 + many :]
    line = f"{name:14}{first:8.3f}{whole:10.3f}{slow:7.0f}"
    for quality_there, took in zip(staged, fast, strict=True):
        line += f"{quality_there:11.3f}{quality_there / whole - 1 if whole else 0:+8.1%}{slow / took:7.1f}x"
    interval_told = f" [{low:+.3f}, {high:+.3f}]" if name != "mean" else ""
    print(f"{line}{fused:8.3f}  {lift:+.3f}{interval_told}", flush=True)


if __name__ == "__main__":
    main()
