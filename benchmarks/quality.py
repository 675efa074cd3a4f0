"""nDCG@10 of BM25's top 100, before and after a reranker, over whole collections (all queries), with intervals.

python benchmarks/quality.py FOLDER… [--reranker SPEC]: each folder holds corpus.jsonl, queries.tsv and qrels.txt. SPEC is a
string, or a mapping as JSON: '{"use": "embedded", "fuse": {"with": "retrieval"}}'.
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
    given = parser.parse_args()
    reranker = load_reranker(json.loads(given.reranker) if given.reranker.startswith("{") else given.reranker)
    means = []
    print(
        f"{given.reranker}\n{'collection':14}{'queries':>8}{'BM25':>8}{'reranked':>12}   {'change [95 %]':26}ms a query"
    )
    for folder in given.folders:
        collection = Collection(folder)
        before, after, took = [], [], []
        for name, query in collection.queries.items():
            found = [position for position, _ in collection.search(query, given.candidates)]
            response = reranker.rerank(query, [collection.texts[position] for position in found])
            took.append(response.latency_ms)
            before.append(collection.ndcg(name, [collection.ids[position] for position in found]))
            after.append(collection.ndcg(name, [collection.ids[found[result.index]] for result in response]))
        change, low, high = interval([new - old for new, old in zip(after, before, strict=True)])
        means.append((sum(before) / len(before), sum(after) / len(after)))
        told = f"{change:+.3f} [{low:+.3f}, {high:+.3f}]"
        row = f"{folder.name:14}{len(before):8}{means[-1][0]:8.3f}{means[-1][1]:12.3f}   {told:26}"
        print(f"{row}{statistics.median(took):8.0f}", flush=True)
    old, new = (sum(column) / len(means) for column in zip(*means, strict=True))
    print(f"{'mean':22}{old:8.3f}{new:12.3f}   {new - old:+.3f}")


if __name__ == "__main__":
    main()
