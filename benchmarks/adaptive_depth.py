"""Compare `embedded:balanced` with `embedded`, and `keep = "auto"` with all documents: time, quality, documents read.

    python benchmarks/adaptive_depth.py FOLDER… [--queries N] [--timed 100] [--not-judged lisa] [--for-top 10]

Each folder holds corpus.jsonl, queries.tsv and qrels.txt. The candidates are BM25's top 50.

1. Time of both, in turn, without cached vectors, on every n-th query, at least 10 of each folder. The medians are of
   each folder, of all queries (a query of the sample counts for those that it stands for), and of all folders alike.
2. nDCG@10 of both over all queries. The change of the mean is in per cent of `embedded`, with a 95 % interval: a paired
   bootstrap over the queries of each folder. Folders of --not-judged are printed, and left out of the mean.
3. `keep = "auto"` over a vendor: the share of the documents that a local server with `embedded` behind it was sent,
   in how many requests, and nDCG@10 against all documents. The first stage joins everything cheap by rank.

Time on two cores without AVX-512: half an hour for all queries of README's collections; `--queries 100` takes about 10
minutes. Install: pip install -e '.[evaluation]'
"""

import argparse
import statistics
import sys
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).parent.parent / "examples"))

from collection import Collection

from rerank_plugins import RerankResponse, load_reranker
from rerank_plugins.testing.cohere_like import CohereLike

CANDIDATES = 50
CHEAP = {"use": "lexical", "fuse": {"with": ["embedded:fast", "passthrough"]}}
MISS = 0.01


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folders", type=Path, nargs="+")
    parser.add_argument("--queries", type=int, help="queries of each folder; default: all")
    parser.add_argument("--timed", type=int, default=100, help="queries that are timed: 100")
    parser.add_argument("--not-judged", nargs="*", default=["lisa"])
    parser.add_argument("--for-top", type=int, default=10)
    options = parser.parse_args()
    collections = {folder.name: Collection(folder) for folder in options.folders}
    print_times(collections, options)
    print_quality(collections, options)


def candidates(collection: Collection, query: str) -> tuple[list[str], list[str]]:
    """Return the ids and the texts of BM25's best documents."""
    positions = [position for position, _ in collection.search(query, CANDIDATES)]
    return [collection.ids[position] for position in positions], [collection.texts[position] for position in positions]


def balanced(options: argparse.Namespace, **more: object) -> dict[str, object]:
    return {"use": "embedded:balanced", "embedded": {"balanced": {"for_top": options.for_top}, **more}}


def print_times(collections: dict[str, Collection], options: argparse.Namespace) -> None:
    specs = {
        "embedded": {"use": "embedded", "embedded": {"cache_mb": 0}},
        "balanced": balanced(options, cache_mb=0),
        "fast": {"use": "embedded:fast"},
    }
    rerankers = {name: load_reranker(spec) for name, spec in specs.items()}
    for reranker in rerankers.values():
        reranker.warmup()
        reranker.rerank("warm", ["up", "and up"])
    print(f"\nmilliseconds, medians; {CANDIDATES} candidates without cached vectors")
    print(f"{'':14}{'timed':>8}" + "".join(f"{name:>10}" for name in specs) + f"{'times as fast':>15}{'read':>8}")
    total = sum(len(collection.queries) for collection in collections.values())
    everything: list[tuple[float, np.ndarray]] = []
    for folder, collection in collections.items():
        queries = list(collection.queries.values())
        count = min(len(queries), max(10, round(options.timed * len(queries) / total)))
        rows = []
        for query in queries[:: len(queries) // count][:count]:
            _, texts = candidates(collection, query)
            answers = [reranker.rerank(query, texts) for reranker in rerankers.values()]
            times = [answer.latency_ms for answer in answers]
            rows.append([*times, times[0] / times[1], share_read(answers[1])])
        print_times_row(folder, [(1.0, np.array(rows))])
        everything.append((len(queries) / len(rows), np.array(rows)))
    print_times_row("all queries", everything)
    print_times_row("folders alike", [(1.0 / len(rows), rows) for _, rows in everything])
    print("goal: at least 4 times as fast at the median")


def print_times_row(name: str, weighted: list[tuple[float, np.ndarray]]) -> None:
    """Print the weighted medians of the columns; each part of the rows has a weight for one row of it."""
    rows = np.concatenate([part for _, part in weighted])
    weights = np.concatenate([np.full(len(part), weight) for weight, part in weighted])
    *times, ratio, read = (weighted_median(column, weights) for column in rows.T)
    shown = "".join(f"{time:10.0f}" for time in times)
    print(f"{name:14}{len(rows):8}{shown}{ratio:14.2f}x{read:8.1%}", flush=True)


def weighted_median(values: np.ndarray, weights: np.ndarray) -> float:
    order = np.argsort(values)
    reached = np.cumsum(weights[order]) / weights.sum()
    return float(values[order][np.searchsorted(reached, 0.5)])


def share_read(answer: RerankResponse) -> float:
    return sum(result.raw_score is not None for result in answer) / max(len(answer), 1)


def print_quality(collections: dict[str, Collection], options: argparse.Namespace) -> None:
    cached = {"cache_mb": 8000}  # a vector of a passage does not depend on the query
    full = load_reranker({"use": "embedded", "embedded": cached})
    part = load_reranker(balanced(options, **cached))
    rows: dict[str, np.ndarray] = {}
    print(f"\nnDCG@10, and the share of documents that were read (sent); auto: keep = 'auto', miss = {MISS}")
    print(
        f"{'':14}{'queries':>8}{'embedded':>10}{'balanced':>10}{'change [95 %]':>26}{'read':>8}"
        f"{'auto':>10}{'change [95 %]':>26}{'sent':>8}{'requests':>10}"
    )
    known: dict[str, float] = {}
    with CohereLike(score=lambda _, text: known[text]) as server:
        vendor = {"use": "http", "base_url": server.url, "api_key": server.key}
        cascade = {"stages": [CHEAP, vendor], "keep": "auto", "miss": MISS, "for_top": options.for_top}
        auto = load_reranker({"cascade": cascade})
        for name, collection in collections.items():
            values = []
            for key in list(collection.queries)[: options.queries]:
                query = collection.queries[key]
                ids, texts = candidates(collection, query)
                answers = [full.rerank(query, texts), part.rerank(query, texts)]
                known = {result.document: result.relevance_score or 0.0 for result in answers[0]}
                server.requests.clear()
                answers.append(auto.rerank(query, texts))
                quality = [collection.ndcg(key, [ids[result.index] for result in answer]) for answer in answers]
                sent = sum(len(request.documents) for request in server.requests) / max(len(set(texts)), 1)
                values.append([*quality, share_read(answers[1]), sent, len(server.requests)])
            rows[name] = np.array(values)
            print_quality_row(name, [rows[name]])
    judged = [row for name, row in rows.items() if name not in options.not_judged]
    print_quality_row("mean", judged)
    print(
        f"the mean is without {', '.join(options.not_judged) or 'none'}; goals: change at least -1 %, interval above "
        "-2 %, sent at most 40 %"
    )


def print_quality_row(name: str, rows: list[np.ndarray]) -> None:
    """Print the mean over folders; `rows` has the values of each folder, one line per query."""
    full, part, auto, read, sent, requests = (
        statistics.mean(float(row[:, at].mean()) for row in rows) for at in range(6)
    )
    print(
        f"{name:14}{sum(map(len, rows)):8}{full:10.4f}{part:10.4f}{change(rows, 1):>26}{read:8.1%}"
        f"{auto:10.4f}{change(rows, 2):>26}{sent:8.1%}{requests:10.2f}",
        flush=True,
    )


def change(rows: list[np.ndarray], column: int) -> str:
    """Return the change of the mean in per cent of column 0, with the 95 % interval of a paired bootstrap."""
    random = np.random.default_rng(7)
    base = float(np.mean([row[:, 0].mean() for row in rows]))
    differences = [row[:, column] - row[:, 0] for row in rows]
    point = float(np.mean([each.mean() for each in differences])) / base
    draws = np.mean([random.choice(each, (2000, len(each))).mean(axis=1) for each in differences], axis=0) / base
    low, high = np.quantile(draws, (0.025, 0.975))
    return f"{point:+.2%} [{low:+.2%}, {high:+.2%}]"


if __name__ == "__main__":
    main()
