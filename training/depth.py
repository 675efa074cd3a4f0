"""Fit the weights of `rerank_plugins/policies/depth_model.py` to the development split, and show what they do.

    python training/depth.py score TRAIN WORK [--queries 7]
    python training/depth.py fit WORK
    python training/depth.py show FILE… [--miss 0.015 0.01] [--for-top 10] [--rounds 3]
    python training/depth.py collection FOLDER WORK

`score` writes WORK/depth.jsonl: for each development query the scores of BM25's best 50 passages by `embedded`,
`embedded:fast` and `lexical`, and their labels. It takes 1.6 seconds a query on two cores with AVX2, goes on where it
was stopped, and reads every source in turn, so that a part of it is a sample. `collection` writes the same for a test
collection, to look at; nothing is fitted to it.

`fit` prints the weights. A case is a query, a cheap order (several kinds), a number of candidates, how many of them are
read, which top is protected, and how sharp the relevance scores are. It also prints how large the estimate is and how
large the truth, and the rank weight of `combine_cheap_scores`.

`show` runs the policy over files of scores: documents read, relevance lost (by `embedded`, which is what `miss`
bounds), and nDCG@10 by the labels, against reading everything.
"""

from __future__ import annotations

import argparse
import json
import random
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

ROOT = Path(__file__).parent.parent
sys.path[:0] = [str(ROOT), str(ROOT / "examples")]

from features import FOLDER, JudgedQuery, read_collection  # noqa: E402
from fit import ndcg  # noqa: E402

from rerank_plugins import load_reranker  # noqa: E402
from rerank_plugins.core.types import Depth  # noqa: E402
from rerank_plugins.engine.late_interaction import scoring  # noqa: E402
from rerank_plugins.policies import depth_model  # noqa: E402

CANDIDATES = 50
READ = (5, 7, 10, 14, 20, 30)
TOPS = (3, 5, 10, 20)
SHARPNESS = (0.35, 0.6, 1.0, 1.6)
"""Factors of the logit: vendors' relevance scores are flatter or sharper than those of `embedded`."""


@dataclass
class Scored:
    """One query: the scores of its candidates, in the retriever's order, and their labels."""

    full: np.ndarray
    fast: np.ndarray
    lexical: np.ndarray
    judged: JudgedQuery

    def cheap(self, kind: str) -> np.ndarray:
        """Return the cheap scores of one kind."""
        count = len(self.full)
        if kind == "combined":
            return np.array(scoring.combine_cheap_scores(self.fast.tolist(), self.lexical.tolist(), None))
        if kind == "order":
            return np.zeros(count)
        if kind == "fused":
            ranks = [np.argsort(np.argsort(-values, kind="stable")) for values in (self.lexical, self.fast)]
            return sum(1 / (61 + rank) for rank in (*ranks, np.arange(count)))
        return self.fast if kind == "fast" else self.lexical


KINDS = ("combined", "fused", "fast", "lexical", "order")
FITTED = ("combined", "fast")
"""The cheap orders that the weights are fitted to: good ones. Fitted to all, the policy would read twice as much, since
it cannot know which of them it has. `show` prints what the others lose."""


def read_scores(file: Path, candidates: int = CANDIDATES) -> list[Scored]:
    """Read a file of `score`."""
    scored = []
    for line in file.read_text("utf-8").splitlines():
        row = json.loads(line)
        full, fast = (np.array(row[name][:candidates], dtype=float) for name in ("full", "fast"))
        judged = JudgedQuery(row["name"], "", [""] * len(full), row["labels"][:candidates], row["ideal"])
        scored.append(Scored(full, fast, np.array(row["lexical"][:candidates], dtype=float), judged))
    return [item for item in scored if len(item.full) > 1]


def relevance(scores: np.ndarray, sharpness: float = 1.0) -> np.ndarray:
    """Return the relevance scores of `embedded`, with the logit times `sharpness`."""
    weights = scoring.ScoreWeights.read(FOLDER, "embedded")
    return 1 / (1 + np.exp(-sharpness * (scores - weights.offset) / weights.divisor))


def policy_order(order: np.ndarray, scores: np.ndarray, read: int) -> np.ndarray:
    """Return the final order: the documents that were read by their scores, then the others in the cheap order.

    Args:
        order: The cheap order.
        scores: The expensive scores.
        read: How many documents of that order were read.
    """
    first = order[:read]
    return np.concatenate([first[np.argsort(-scores[first], kind="stable")], order[read:]])


def dcg(gains: np.ndarray, for_top: int) -> float:
    """Return the DCG of the first results; `gains` is in their order."""
    top = gains[:for_top]
    return float((top / np.log2(np.arange(len(top)) + 2)).sum())


def marginal_gains(gains: np.ndarray, read: int, for_top: int) -> np.ndarray:
    """Return for each unread document how much the DCG would rise if it was read too, as a share of the ideal DCG.

    Args:
        gains: The relevance of each document by the expensive scorer, in the cheap order.
        read: How many documents were read.
        for_top: The number of first results that count.
    """
    ideal = dcg(-np.sort(-gains), for_top)
    best, rest = -np.sort(-gains[:read]), gains[read:]
    now = dcg(np.concatenate([best, rest[:for_top]]), for_top)
    values = []
    for place in range(len(rest)):
        at = int((best >= rest[place]).sum())
        others = np.concatenate([rest[:place], rest[place + 1 :]])
        then = dcg(np.concatenate([best[:at], rest[place : place + 1], best[at:], others[:for_top]]), for_top)
        values.append(max(0.0, then - now) / ideal)
    return np.array(values)


def cases(
    scored: Sequence[Scored], kinds: Sequence[str], seed: int
) -> Iterator[tuple[list[tuple[float, ...]], np.ndarray]]:
    """Yield the features of the unread documents of each case, and their true shares."""
    chance = random.Random(seed)
    for item in scored:
        for kind in kinds:
            for read in READ:
                count = len(item.full) if chance.random() < 0.6 else chance.randint(10, max(10, len(item.full)))
                count = min(count, len(item.full))
                if read >= count:
                    continue
                for_top, sharpness = chance.choice(TOPS), chance.choice(SHARPNESS)
                cheap = item.cheap(kind)[:count]
                order = np.argsort(-cheap, kind="stable")
                gains = relevance(item.full[:count], sharpness)[order]
                yield (
                    depth_model.features(cheap[order].tolist(), gains[:read].tolist(), for_top),
                    marginal_gains(gains, read, for_top),
                )


def fit_weights(rows: np.ndarray, targets: np.ndarray) -> np.ndarray:
    """Return the weights of a logistic regression on shares (a quasi-likelihood), by Newton's method."""
    weights = np.zeros(rows.shape[1])
    for _ in range(100):
        chance = 1 / (1 + np.exp(-np.clip(rows @ weights, -30, 30)))
        slope = rows.T @ (chance - targets) + 1e-3 * weights
        curvature = (rows * (chance * (1 - chance))[:, None]).T @ rows + 1e-3 * np.eye(len(weights))
        step = np.linalg.solve(curvature, slope)
        weights = weights - step * min(1.0, 2.0 / np.abs(step).max())
        if np.abs(step).max() < 1e-7:
            break
    return weights


def fit(scored: list[Scored], kinds: Sequence[str]) -> tuple[float, ...]:
    """Return the weights, after printing how well they are calibrated on queries that they were not fitted to."""
    predicted, actual = [], []
    for half in (0, 1):
        own = list(cases(scored[half::2], kinds, 1))
        weights = fit_weights(np.array([row for rows, _ in own for row in rows]), np.concatenate([y for _, y in own]))
        for rows, shares in cases(scored[1 - half :: 2], kinds, 2):
            predicted.append(float((1 / (1 + np.exp(-np.array(rows) @ weights))).sum()))
            actual.append(float(shares.sum()))
    print("held out: relevance that is not read, by estimate and in truth, by tenth")
    order = np.argsort(predicted)
    for part in np.array_split(order, 10):
        print(f"  {np.array(predicted)[part].mean():.4f} {np.array(actual)[part].mean():.4f}  ({len(part)} cases)")
    everything = list(cases(scored, kinds, 1))
    rows, targets = (
        np.array([row for rows, _ in everything for row in rows]),
        np.concatenate([y for _, y in everything]),
    )
    return tuple(round(float(weight), 4) for weight in fit_weights(rows, targets))


def simulate(cheap: np.ndarray, gains: np.ndarray, depth: Depth) -> int:
    """Return how many documents the policy reads; `cheap` and `gains` are in the cheap order."""
    read = min(depth_model.FIRST, len(cheap))
    for left in range(depth.rounds - 1, 0, -1):
        target = depth_model.next_depth(cheap.tolist(), gains[:read].tolist(), depth, left)
        if target <= read:
            break
        read = target
    return read


def show(scored: list[Scored], kind: str, depth: Depth) -> np.ndarray:
    """Run the policy on each query.

    Returns:
        A row for each query: share of the documents that are read, relevance lost, nDCG@10 of reading all, and nDCG@10
        of the policy.
    """
    rows = []
    for item in scored:
        cheap = item.cheap(kind)
        order = np.argsort(-cheap, kind="stable")
        gains = relevance(item.full)
        read = simulate(cheap[order], gains[order], depth)
        final = policy_order(order, item.full, read)
        values = np.empty(len(final))
        values[final] = -np.arange(len(final))
        lost = 1 - dcg(gains[final], depth.for_top) / dcg(-np.sort(-gains), depth.for_top)
        rows.append((read / len(order), lost, ndcg(item.full, item.judged), ndcg(values, item.judged)))
    return np.array(rows)


def main() -> None:
    """Run one of the commands."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("command", choices=["score", "collection", "fit", "show"])
    parser.add_argument("paths", type=Path, nargs="+")
    parser.add_argument("--queries", type=int, default=7, help="development queries of each source: 7")
    parser.add_argument("--miss", type=float, nargs="+", default=[0.015, 0.01])
    parser.add_argument("--for-top", type=int, default=10)
    parser.add_argument("--rounds", type=int, default=3)
    options = parser.parse_args()
    if options.command == "score":
        score_development(*options.paths, options.queries)
    elif options.command == "collection":
        folder, work = options.paths
        write_scores(work / f"depth.{folder.name}.jsonl", read_collection(folder, CANDIDATES))
    elif options.command == "fit":
        scored = read_scores(options.paths[0] / "depth.jsonl")
        print("WEIGHTS =", fit(scored, FITTED))
    else:
        for file in options.paths:
            scored = read_scores(file)
            for kind in KINDS:
                for miss in options.miss:
                    rows = show(scored, kind, Depth(options.for_top, miss, options.rounds))
                    read, lost, full, part = (float(column) for column in rows.mean(axis=0))
                    print(
                        f"{file.stem:16}{kind:9}miss {miss:<5} read {read:6.1%} (median {np.median(rows[:, 0]):6.1%})  "
                        f"lost {lost:.4f}  nDCG@10 {full:.4f} {part:.4f} ({part / full - 1:+.2%})"
                    )


def score_development(train: Path, work: Path, limit: int) -> None:
    """Write the scores of the development split, one query of every source after the other."""
    from mine import Texts, make_row, search
    from sources import read_source, source_names

    by_source = []
    for name in source_names(train):
        source = read_source(train, name)
        queries = source.dev[:limit]
        rows = []
        for query, best in zip(queries, search(source, queries, CANDIDATES), strict=True):
            texts = Texts()
            row = make_row(query, best, source, texts)
            rows.append(JudgedQuery(query.name, query.text, list(texts.lines), row["labels"], [1]))
        by_source.append(rows)
    turns = [rows[turn] for turn in range(limit) for rows in by_source if turn < len(rows)]
    write_scores(work / "depth.jsonl", [judged for judged in turns if len(judged.documents) > 1])


def write_scores(file: Path, queries: Sequence[JudgedQuery]) -> None:
    """Append the scores of the queries that `file` does not have."""
    known = {json.loads(line)["name"] for line in file.read_text("utf-8").splitlines()} if file.exists() else set()
    rerankers = {
        "full": load_reranker({"use": "embedded", "embedded": {"cache_mb": 4000}}),
        "fast": load_reranker("embedded:fast"),
        "lexical": load_reranker("lexical"),
    }
    file.parent.mkdir(parents=True, exist_ok=True)
    with file.open("a", encoding="utf-8") as lines:
        for judged in queries:
            if judged.name in known or not judged.documents:
                continue
            row: dict[str, object] = {"name": judged.name, "labels": judged.labels, "ideal": judged.ideal}
            for name, reranker in rerankers.items():
                answer = sorted(reranker.rerank(judged.query, judged.documents), key=lambda result: result.index)
                row[name] = [result.raw_score for result in answer]
            lines.write(json.dumps(row) + "\n")
            lines.flush()


if __name__ == "__main__":
    main()
