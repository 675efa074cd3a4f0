"""Measure nDCG@10 and milliseconds against the number of candidates: 20, 50, 100 and 200 of BM25's.

    python benchmarks/depth.py [FOLDER] [--queries 100] [--rerankers lexical embedded]

FOLDER holds corpus.jsonl, queries.tsv and qrels.txt; the default is examples/data/nq_qed. Milliseconds are medians of
calls whose passages were not seen before: the cache of passage vectors of `embedded` is off in the timed calls.

Time on two cores: about four minutes for 100 queries with AVX-512 (AMD EPYC, Zen 5), up to twenty without.
Install: pip install -e '.[evaluation]'
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
    parser.add_argument("--timed", type=int, default=5, help="queries that are timed without cached vectors")
    parser.add_argument("--rerankers", nargs="+", default=["lexical", "embedded"])
    options = parser.parse_args()
    collection = Collection(options.folder)
    names = list(collection.queries)[:: max(1, len(collection.queries) // options.queries)][: options.queries]
    candidates = {name: [at for at, _ in collection.search(collection.queries[name], max(DEPTHS))] for name in names}
    before = [collection.ndcg(name, [collection.ids[at] for at in candidates[name]]) for name in names]
    print(f"{options.folder.name}, {len(names)} queries; BM25 alone: nDCG@10 {statistics.mean(before):.3f}")
    print(
        f"{'reranker':14}{'candidates':>11}{'hold an answer':>16}{'nDCG@10':>9}{'change [95 %]':>26}{'ms a query':>12}"
    )
    for spec in options.rerankers:
        quality = load_reranker({"use": spec, "embedded": {"cache_mb": 1000}})
        timed = load_reranker({"use": spec, "embedded": {"cache_mb": 0}})
        for depth in DEPTHS:
            after, times, answered = [], [], 0
            for number, name in enumerate(names):
                positions = candidates[name][:depth]
                texts = [collection.texts[at] for at in positions]
                order = [
                    collection.ids[positions[result.index]]
                    for result in quality.rerank(collection.queries[name], texts)
                ]
                after.append(collection.ndcg(name, order))
                answered += any(collection.grades.get(name, {}).get(document, 0) > 0 for document in order)
                if number < options.timed:
                    times.append(timed.rerank(collection.queries[name], texts).latency_ms)
            change, low, high = interval([new - old for new, old in zip(after, before, strict=True)])
            lift = f"{change:+.3f} [{low:+.3f}, {high:+.3f}]"
            share, mean = answered / len(names), statistics.mean(after)
            print(f"{spec:14}{depth:11}{share:16.2f}{mean:9.3f}{lift:>26}{statistics.median(times):12.1f}", flush=True)


if __name__ == "__main__":
    main()
