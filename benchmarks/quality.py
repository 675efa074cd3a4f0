"""Compare nDCG@10 of BM25's top 100 before and after a reranker, over whole collections, with 95 % intervals.

    python benchmarks/quality.py FOLDER… [--reranker SPEC] [--candidates 100]

Each folder holds corpus.jsonl, queries.tsv and qrels.txt; all its queries are run. SPEC is a string, or a mapping as
JSON: '{"use": "embedded", "fuse": {"with": "retrieval"}}'.

Time on two cores: `embedded` takes 1 second per query with AVX-512 (AMD EPYC, Zen 5), and up to 5 without: 1 to 25
minutes for the collections of README with 35 to 1,355 queries, or five times as long.
Install: pip install -e '.[evaluation]'
"""

import argparse
import json
import statistics
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent.parent / "examples"))

from collection import Collection, interval

from rerank_plugins import load_reranker


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folders", type=Path, nargs="+")
    parser.add_argument("--reranker", default="embedded")
    parser.add_argument("--candidates", type=int, default=100)
    options = parser.parse_args()
    reranker = load_reranker(json.loads(options.reranker) if options.reranker.startswith("{") else options.reranker)
    means = []
    print(
        f"{options.reranker}\n"
        f"{'collection':14}{'queries':>8}{'BM25':>8}{'reranked':>12}   {'change [95 %]':26}ms a query"
    )
    for folder in options.folders:
        collection = Collection(folder)
        before, after, times = [], [], []
        for name, query in collection.queries.items():
            positions = [position for position, _ in collection.search(query, options.candidates)]
            response = reranker.rerank(query, [collection.texts[position] for position in positions])
            times.append(response.latency_ms)
            before.append(collection.ndcg(name, [collection.ids[position] for position in positions]))
            after.append(collection.ndcg(name, [collection.ids[positions[result.index]] for result in response]))
        change, low, high = interval([new - old for new, old in zip(after, before, strict=True)])
        means.append((sum(before) / len(before), sum(after) / len(after)))
        lift = f"{change:+.3f} [{low:+.3f}, {high:+.3f}]"
        row = f"{folder.name:14}{len(before):8}{means[-1][0]:8.3f}{means[-1][1]:12.3f}   {lift:26}"
        print(f"{row}{statistics.median(times):8.0f}", flush=True)
    old, new = (sum(column) / len(means) for column in zip(*means, strict=True))
    print(f"{'mean':22}{old:8.3f}{new:12.3f}   {new - old:+.3f}")


if __name__ == "__main__":
    main()
