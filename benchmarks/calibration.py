"""Compare one score_threshold under two rerankers, before and after calibration, on held-out queries.

    python benchmarks/calibration.py FOLDER… [--rerankers embedded lexical] [--method auto] [--queries N] [--cache FILE]

The judged data are BM25's top 100 of every query of all folders. Each folder holds corpus.jsonl, queries.tsv and
qrels.txt. Every reranker is calibrated on one half of the queries (every second one) and used on the other half, and
the other way round, through the calibration file and the option `calibration`. For each folder and for all together,
the script prints the lowest threshold above which at least half of the documents are relevant, how many documents are
above it, and the calibration error (ECE over 15 bins of equal width, and of equal count).

Time on two cores: `embedded` takes 1 second per query with AVX-512 (AMD EPYC, Zen 5), and up to 5 without, so 1,782
queries take 40 minutes or more. With --cache, an interrupted run resumes.
Install: pip install -e '.[calibration,evaluation]'
"""

import argparse
import sys
import tempfile
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent.parent / "examples"))

from collection import Collection

from rerank_plugins import load_reranker
from rerank_plugins.calibration.file import Calibration, save_calibration
from rerank_plugins.calibration.fit import METHOD_CHOICES, fit
from rerank_plugins.calibration.measure import measure_calibration
from rerank_plugins.config import identity

PRECISION = 0.5


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folders", type=Path, nargs="+")
    parser.add_argument("--rerankers", nargs="+", default=["embedded", "lexical"])
    parser.add_argument("--method", choices=METHOD_CHOICES, default="auto")
    parser.add_argument("--queries", type=int, help="queries of each folder; default: all")
    parser.add_argument("--cache", help="SQLite file of scores; default: a temporary one")
    options = parser.parse_args()
    judged = [query for folder in options.folders for query in judged_queries(folder, options.queries)]
    results = {spec: held_out_scores(spec, judged, options.method, options.cache) for spec in options.rerankers}
    print(f"{'':14}{'reranker':12}{'threshold, raw':>15}{'keeps':>7}{'calibrated':>12}{'keeps':>7}{'ECE':>9}{'':>9}")
    for name in [*(folder.name for folder in options.folders), "all"]:
        thresholds = []
        for spec, rows in results.items():
            selected = [row for row in rows if name in ("all", row[0])]
            labels = [label for *_, label in selected]
            raw, calibrated = (lowest_threshold([row[column] for row in selected], labels) for column in (1, 2))
            thresholds.append((raw[0], calibrated[0]))
            error = measure_calibration([row[2] for row in selected], labels)
            line = f"{name:14}{spec:12}{raw[0]:15.3f}{raw[1]:7}{calibrated[0]:12.3f}{calibrated[1]:7}"
            print(f"{line}{error['ece']:9.4f}{error['ece_equal_count']:9.4f}")
        distances = [100 * (max(column) - min(column)) for column in zip(*thresholds, strict=True)]
        print(f"{'':14}points apart: raw {distances[0]:.1f}, calibrated {distances[1]:.1f}", flush=True)


def judged_queries(folder: Path, limit: int | None) -> list[tuple[str, str, list[str], list[bool]]]:
    """Return (folder, query, candidates, whether each is relevant) of each query."""
    collection = Collection(folder)
    rows = []
    for name, query in list(collection.queries.items())[:limit]:
        positions = [at for at, _ in collection.search(query, 100)]
        grades = collection.grades.get(name, {})
        labels = [grades.get(collection.ids[at], 0) > 0 for at in positions]
        rows.append((folder.name, query, [collection.texts[at] for at in positions], labels))
    return rows


def held_out_scores(spec: str, judged: list, method: str, cache: str | None) -> list[tuple[str, float, float, bool]]:
    """Return (folder, relevance before calibration, after it, label) of every document, with its query held out."""
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        # One cache for both rerankers: calibration is applied above the cache, so no document is scored twice.
        settings = {
            "use": spec,
            "cache": {"kind": "disk", "path": cache or f"{folder}/scores.sqlite3", "max_entries": 10**6},
        }
        with load_reranker(settings) as plain:
            answers = [plain.rerank(query, texts) for _, query, texts, _ in judged]
            for half in (0, 1):
                pairs = [
                    (str(number), result.raw_score, labels[result.index])
                    for number, ((*_, labels), answer) in enumerate(zip(judged, answers, strict=True))
                    if number % 2 != half
                    for result in answer
                    if result.raw_score is not None
                ]
                curve, figures = fit(pairs, plain.scorer.capabilities, method)
                print(f"{spec}, half {half + 1}: {curve.method} of {figures['pairs']} scores", flush=True)
                path = f"{folder}/{half}.json"
                save_calibration(Calibration(of=identity(plain), curve=curve, held_out=figures), path)
                with load_reranker({**settings, "calibration": path}) as calibrated:
                    for number in range(half, len(judged), 2):
                        name, query, texts, labels = judged[number]
                        after = {result.index: result.relevance_score for result in calibrated.rerank(query, texts)}
                        rows += [
                            (name, result.relevance_score, after[result.index], labels[result.index])
                            for result in answers[number]
                            if result.raw_score is not None
                        ]
    return rows


def lowest_threshold(scores: list[float], labels: list[bool]) -> tuple[float, int]:
    """Return the lowest threshold with at least half relevant documents above it, and their count; (1, 0) if none."""
    best, count, relevant = (1.0, 0), 0, 0
    ordered = sorted(zip(scores, labels, strict=True), reverse=True)
    for position, (score, label) in enumerate(ordered):
        count, relevant = count + 1, relevant + label
        last = position + 1 == len(ordered) or ordered[position + 1][0] < score
        if last and relevant >= PRECISION * count:
            best = (score, count)
    return best


if __name__ == "__main__":
    main()
