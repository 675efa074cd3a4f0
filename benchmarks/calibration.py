"""Does a score_threshold mean the same under two rerankers? Before calibration, and after; on questions held out.

python benchmarks/calibration.py FOLDER… [--rerankers embedded lexical] [--method auto] [--queries N] [--cache FILE]: BM25's top 100 of all
folders are judged data. Every reranker is calibrated on one half of the queries (every second one) and used on the other,
and the other way round, through the file and the option `calibration`. For each folder and for all together it prints the
lowest threshold at which at least half of what is kept is relevant, how many documents that keeps, and the calibration
error (ECE, 15 bins of equal width; and of equal count). FILE keeps scores, so that a run can be taken up again.
"""

import argparse
import sys
import tempfile
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent.parent / "examples"))

from collection import Collection

from rerank_plugins import load_reranker
from rerank_plugins.calibration.file import Calibration, write
from rerank_plugins.calibration.fit import CHOICES, fit
from rerank_plugins.calibration.measure import measure
from rerank_plugins.config import identity

PRECISION = 0.5


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folders", type=Path, nargs="+")
    parser.add_argument("--rerankers", nargs="+", default=["embedded", "lexical"])
    parser.add_argument("--method", choices=CHOICES, default="auto")
    parser.add_argument("--queries", type=int, help="of each folder; all unless given")
    parser.add_argument("--cache", help="file that keeps scores; forgotten afterwards unless given")
    given = parser.parse_args()
    judged = [each for folder in given.folders for each in questions(folder, given.queries)]
    found = {spec: held_out(spec, judged, given.method, given.cache) for spec in given.rerankers}
    print(f"{'':14}{'reranker':12}{'threshold, raw':>15}{'keeps':>7}{'calibrated':>12}{'keeps':>7}{'ECE':>9}{'':>9}")
    for name in [*(folder.name for folder in given.folders), "all"]:
        cuts = []
        for spec, rows in found.items():
            mine = [row for row in rows if name in ("all", row[0])]
            labels = [label for *_, label in mine]
            raw, calibrated = (cut([row[side] for row in mine], labels) for side in (1, 2))
            cuts.append((raw[0], calibrated[0]))
            error = measure([row[2] for row in mine], labels)
            line = f"{name:14}{spec:12}{raw[0]:15.3f}{raw[1]:7}{calibrated[0]:12.3f}{calibrated[1]:7}"
            print(f"{line}{error['ece']:9.4f}{error['ece_equal_count']:9.4f}")
        apart = [100 * (max(side) - min(side)) for side in zip(*cuts, strict=True)]
        print(f"{'':14}points apart: raw {apart[0]:.1f}, calibrated {apart[1]:.1f}", flush=True)


def questions(folder: Path, most: int | None) -> list[tuple[str, str, list[str], list[bool]]]:
    """Return folder, query, candidates, and which of them are relevant."""
    collection = Collection(folder)
    told = []
    for name, query in list(collection.queries.items())[:most]:
        found = [at for at, _ in collection.search(query, 100)]
        grades = collection.grades.get(name, {})
        labels = [grades.get(collection.ids[at], 0) > 0 for at in found]
        told.append((folder.name, query, [collection.texts[at] for at in found], labels))
    return told


def held_out(spec: str, judged: list, method: str, cache: str | None) -> list[tuple[str, float, float, bool]]:
    """Return folder, relevance before and after calibration, and label of every document, each query held out."""
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        # One cache for all: calibration stands above it, so nothing is asked twice.
        told = {
            "use": spec,
            "cache": {"kind": "disk", "path": cache or f"{folder}/scores.sqlite3", "max_entries": 10**6},
        }
        with load_reranker(told) as plain:
            answers = [plain.rerank(query, texts) for _, query, texts, _ in judged]
            for half in (0, 1):
                pairs = [
                    (str(number), each.raw_score, labels[each.index])
                    for number, ((*_, labels), answer) in enumerate(zip(judged, answers, strict=True))
                    if number % 2 != half
                    for each in answer
                    if each.raw_score is not None
                ]
                curve, figures = fit(pairs, plain.scorer.capabilities, method)
                print(f"{spec}, half {half + 1}: {curve.method} of {figures['pairs']} scores", flush=True)
                path = f"{folder}/{half}.json"
                write(Calibration(of=identity(plain), curve=curve, held_out=figures), path)
                with load_reranker({**told, "calibration": path}) as calibrated:
                    for number in range(half, len(judged), 2):
                        name, query, texts, labels = judged[number]
                        after = {each.index: each.relevance_score for each in calibrated.rerank(query, texts)}
                        rows += [
                            (name, each.relevance_score, after[each.index], labels[each.index])
                            for each in answers[number]
                            if each.raw_score is not None
                        ]
    return rows


def cut(scores: list[float], labels: list[bool]) -> tuple[float, int]:
    """Return the lowest threshold that keeps at least half relevant ones, and how many it keeps; 1 and 0 if none does."""
    best, kept, relevant = (1.0, 0), 0, 0
    ordered = sorted(zip(scores, labels, strict=True), reverse=True)
    for position, (score, label) in enumerate(ordered):
        kept, relevant = kept + 1, relevant + label
        last = position + 1 == len(ordered) or ordered[position + 1][0] < score
        if last and relevant >= PRECISION * kept:
            best = (score, kept)
    return best


if __name__ == "__main__":
    main()
