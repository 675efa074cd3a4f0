"""How many candidates to rerank: nDCG@10 and milliseconds against 20, 50, 100 and 200 of BM25's candidates.

python benchmarks/depth.py [FOLDER] [--queries 100] [--rerankers lexical embedded]. Milliseconds are medians of a call
whose passages were not seen before (`embedded` keeps their vectors; that is turned off here).
"""

import argparse
import statistics
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent.parent / "examples"))

from collection import DATA, Collection, interval

from rerank_plugins import load_reranker

DEPTHS = (20, 50, 100, 200)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path, nargs="?", default=DATA)
    parser.add_argument("--queries", type=int, default=100)
    parser.add_argument("--timed", type=int, default=5, help="queries that are timed without kept vectors")
    parser.add_argument("--rerankers", nargs="+", default=["lexical", "embedded"])
    given = parser.parse_args()
    collection = Collection(given.folder)
    names = list(collection.queries)[:: max(1, len(collection.queries) // given.queries)][: given.queries]
    found = {name: [at for at, _ in collection.search(collection.queries[name], max(DEPTHS))] for name in names}
    before = [collection.ndcg(name, [collection.ids[at] for at in found[name]]) for name in names]
    print(f"{given.folder.name}, {len(names)} queries; BM25 alone: nDCG@10 {statistics.mean(before):.3f}")
    print(
        f"{'reranker':14}{'candidates':>11}{'hold an answer':>16}{'nDCG@10':>9}{'change [95 %]':>26}{'ms a query':>12}"
    )
    for spec in given.rerankers:
        quality = load_reranker({"use": spec, "embedded": {"cache_mb": 1000}})
        timed = load_reranker({"use": spec, "embedded": {"cache_mb": 0}})
        for depth in DEPTHS:
            after, took, held = [], [], 0
            for number, name in enumerate(names):
                kept = found[name][:depth]
                texts = [collection.texts[at] for at in kept]
                order = [collection.ids[kept[each.index]] for each in quality.rerank(collection.queries[name], texts)]
                after.append(collection.ndcg(name, order))
                held += any(collection.grades.get(name, {}).get(each, 0) > 0 for each in order)
                if number < given.timed:
                    took.append(timed.rerank(collection.queries[name], texts).latency_ms)
            change, low, high = interval([new - old for new, old in zip(after, before, strict=True)])
            told = f"{change:+.3f} [{low:+.3f}, {high:+.3f}]"
            share, mean = held / len(names), statistics.mean(after)
            print(f"{spec:14}{depth:11}{share:16.2f}{mean:9.3f}{told:>26}{statistics.median(took):12.1f}", flush=True)


if __name__ == "__main__":
    main()
