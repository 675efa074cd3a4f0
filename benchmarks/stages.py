"""What a cascade costs in nDCG@10 and spares in time, and what fusing with the retriever's order gives, collection by collection.

python benchmarks/stages.py FOLDER… [--queries N] [--cache FILE]: BM25's top 100 under `embedded`; under the cascade `lexical` → `embedded`
(30 of 100); and under `embedded` fused with BM25's order (rrf). Milliseconds are medians over the first queries of each
folder, passages not seen before, the two rerankers asked in turn: on a busy machine their ratio still holds. FILE keeps scores, so that a run can be
stopped and taken up again.
"""

import argparse
import statistics
import sys
import tempfile
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent.parent / "examples"))

from collection import Collection, interval

from rerank_plugins import load_reranker

CASCADE = {"cascade": {"stages": ["lexical", "embedded"], "keep": [30]}}
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


def report(given: argparse.Namespace, cache: dict) -> None:
    print(f"cascade: {CASCADE}\nfused: {FUSED}")
    print(
        f"{'':14}{'BM25':>8}{'embedded':>10}{'cascade':>9}{'':>8}{'fused':>8}  {'over BM25 [95 %]':24}{'ms':>7}{'ms':>7}"
    )
    rows = []
    for folder in given.folders:
        collection = Collection(folder)
        names = list(collection.queries)[: given.queries]
        row = [*quality(collection, names, cache), *milliseconds(collection, names[: given.timed])]
        rows.append(row)
        tell(folder.name, row)
    tell("mean", [sum(column) / len(rows) for column in zip(*rows, strict=True)])


def quality(collection: Collection, names: list[str], cache: dict) -> list[float]:
    """Return nDCG@10 of BM25, embedded, the cascade and the fusion; and the fusion's lift over BM25 with its interval."""
    rerankers = [load_reranker({**each, "cache": cache}) for each in ({"use": "embedded"}, CASCADE, FUSED)]
    figures = [[] for _ in range(4)]
    for name in names:
        found = [at for at, _ in collection.search(collection.queries[name], 100)]
        figures[0].append(collection.ndcg(name, [collection.ids[at] for at in found]))
        texts = [collection.texts[at] for at in found]
        for column, reranker in zip(figures[1:], rerankers, strict=True):
            answer = reranker.rerank(collection.queries[name], texts)
            column.append(collection.ndcg(name, [collection.ids[found[each.index]] for each in answer]))
    lift = interval([new - old for new, old in zip(figures[3], figures[0], strict=True)])
    return [*(statistics.mean(column) for column in figures), *lift]


def milliseconds(collection: Collection, names: list[str]) -> list[float]:
    """Return the median of a call with all 100, and with the cascade; no vectors kept."""
    fresh = {"use": "embedded", "embedded": {"cache_mb": 0}}
    whole = load_reranker(fresh)
    staged = load_reranker({"cascade": {"stages": ["lexical", fresh], "keep": [30]}})
    whole.warmup()
    took = [[], []]
    for name in names:
        texts = [collection.texts[at] for at, _ in collection.search(collection.queries[name], 100)]
        for column, reranker in zip(took, (whole, staged), strict=True):
            column.append(reranker.rerank(collection.queries[name], texts).latency_ms)
    return [statistics.median(column) for column in took]


def tell(name: str, row: list[float]) -> None:
    first, whole, staged, fused, lift, low, high, slow, fast = row
    told = f"{lift:+.3f} [{low:+.3f}, {high:+.3f}]" if name != "mean" else f"{lift:+.3f}"
    line = f"{name:14}{first:8.3f}{whole:10.3f}{staged:9.3f}{staged / whole - 1 if whole else 0:+8.1%}{fused:8.3f}  {told:24}"
    print(f"{line}{slow:7.0f}{fast:7.0f}  {slow / fast:.1f} times as fast", flush=True)


if __name__ == "__main__":
    main()
