"""Choose the weights of the combined score, and calibrate it.

    python training/fit.py WORK NAME ENTRY --collections shared/eval/trecqa shared/eval/lisa [--table WORK/fast.npy]

NAME is the name of a model in the files of `features.py`, or `table` for token vectors from --table. ENTRY is the key
of the weights in WORK/score.json. The script tries every combination of a small grid, and takes the one with the best
mean nDCG@10 over the development split and the collections. A logistic regression of the labels of the development
split's candidates (BM25's best 50) then gives offset and divisor.
"""

from __future__ import annotations

import argparse
import itertools
import json
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from features import FOLDER, JudgedQuery, normalize, read_collection, read_mined

from rerank_plugins.engine.late_interaction.passage_cache import TokenVectors
from rerank_plugins.engine.late_interaction.scoring import ScoreWeights
from rerank_plugins.engine.tokenizer import PairTokenizer

POWERS, COSINES, LEXICALS = (0.5, 1.0), (0.0, 0.1, 0.2, 0.3, 0.4), (0.0, 0.1, 0.2, 0.3, 0.5, 0.7, 1.0)
FLOOR, SATURATION, BY_LENGTH, LENGTH = 1.0, 1.2, 0.75, 110.0


@dataclass
class Case:
    """The parts of the scores of a query's candidates."""

    judged: JudgedQuery
    rarity: np.ndarray
    best: np.ndarray
    cosine: np.ndarray
    lexical: np.ndarray

    def scores(self, power: float, cosine: float, lexical: float) -> np.ndarray:
        """Return the candidates' scores, by the formula of `PreparedQuery` (rerank_plugins.engine.late_interaction)."""
        weights = np.where(self.rarity > 0, np.maximum(self.rarity, 1e-3) ** power, 0.0)
        weights = weights if weights.any() else np.ones_like(weights)
        return self.best @ (weights / weights.sum()) + cosine * self.cosine + lexical * self.lexical


def make_cases(
    queries: list[JudgedQuery],
    features: dict[str, np.ndarray] | None,
    table: TokenVectors | None,
    background: np.ndarray,
) -> Iterator[Case]:
    """Yield each query with the parts of its candidates' scores, from `features` or, without them, from `table`."""
    tokenizer = PairTokenizer(FOLDER / "tokenizer.json")
    terms, rarity = background[0].astype(np.int64), background[1] / 16
    pairs = cells = tokens = 0
    for number, judged in enumerate(queries):
        rows = [np.array(row.ids) for row in tokenizer.singles(judged.documents, 256)]
        if features is not None:
            size, count = (int(value) for value in features["sizes"][number])
            ids = features["tokens"][tokens : tokens + size]
            best = features["best"][cells : cells + size * count].reshape(count, size).astype(np.float64)
            cosine = features["cosine"][pairs : pairs + count]
            pairs, cells, tokens = pairs + count, cells + size * count, tokens + size
        else:
            assert table is not None
            (query,) = tokenizer.singles([judged.query], 128)
            ids = np.array(query.ids)
            query_vectors = table.vectors(query.ids)
            vectors = [table.vectors(row.tolist()) for row in rows]
            best = np.array([(document_vectors @ query_vectors.T).max(axis=0) for document_vectors in vectors])
            cosine = (
                np.array([normalize(document_vectors.mean(axis=0)) for document_vectors in vectors])
                @ normalize(query_vectors.mean(axis=0))
                if rows
                else None
            )
        if not rows:
            continue
        shares = np.maximum(rarity[ids] - FLOOR, 0.0)
        counts = np.array([(terms[row][:, None] == terms[ids]).sum(axis=0) for row in rows])
        full = SATURATION * (1 - BY_LENGTH + BY_LENGTH * np.array([[len(row)] for row in rows]) / LENGTH)
        lexical = (counts / (counts + full)) @ shares / max(shares.sum(), 1e-9)
        yield Case(judged, rarity[ids], best, cosine, lexical)


def ndcg(scores: np.ndarray, judged: JudgedQuery, k: int = 10) -> float:
    """Return nDCG@k. Candidates with the label -1 (unsure) are left out."""
    labels = np.array(judged.labels)
    sure = labels >= 0
    order = np.argsort(-scores[sure], kind="stable")[:k]
    discounts = 1 / np.log2(np.arange(2, k + 2))
    ideal = np.sort(np.array(judged.ideal, dtype=float))[::-1][:k]
    ideal_gain = (ideal * discounts[: len(ideal)]).sum()
    return float((labels[sure][order] * discounts[: len(order)]).sum() / ideal_gain) if ideal_gain else 0.0


def fit_logistic(scores: Iterable[np.ndarray], labels: Iterable[np.ndarray]) -> tuple[float, float]:
    """Return offset and divisor of a logistic regression (Platt 1999), fitted by Newton's method."""
    raw = np.concatenate(list(scores)).astype(np.float64)
    targets = np.concatenate(list(labels)).astype(np.float64)
    mean, spread = raw.mean(), raw.std()
    inputs, weights = np.stack([(raw - mean) / spread, np.ones_like(raw)]), np.array([0.0, 0.0])
    for _ in range(50):
        chance = 1 / (1 + np.exp(-weights @ inputs))
        slope = inputs @ (chance - targets) + 1e-3 * weights
        step = np.linalg.solve((inputs * chance * (1 - chance)) @ inputs.T + 1e-3 * np.eye(2), slope)
        weights = weights - np.clip(step, -1, 1)
    return mean - spread * weights[1] / weights[0], spread / weights[0]


def reliability(chances: np.ndarray, relevant: np.ndarray) -> Iterator[str]:
    """Yield a line per range of relevance_score: number of pairs, mean score, share of relevant pairs."""
    edges = [0.0, 0.01, 0.03, 0.1, 0.3, 1.0]
    for low, high in itertools.pairwise(edges):
        in_range = (chances >= low) & (chances < high)
        if in_range.any():
            yield f"{low:4}-{high:4} {in_range.sum():7} {chances[in_range].mean():.3f} {relevant[in_range].mean():.3f}"


def main() -> None:
    """Write an entry of score.json."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("work", type=Path)
    parser.add_argument("name")
    parser.add_argument("entry")
    parser.add_argument("--collections", type=Path, nargs="*", default=[])
    parser.add_argument("--table", type=Path)
    options = parser.parse_args()
    background, table = np.load(options.work / "background.npy"), options.table and TokenVectors(np.load(options.table))
    cases: dict[str, list[Case]] = {}
    for kind in (Path("dev"), *options.collections):
        queries = read_mined(options.work, "dev") if kind == Path("dev") else read_collection(kind)
        features = None if table else dict(np.load(options.work / f"{options.name}.{kind.name}.npz"))
        cases[kind.name] = list(make_cases(queries, features, table or None, background))
    results = {}
    for mix in itertools.product(POWERS, COSINES, LEXICALS):
        results[mix] = [
            float(np.mean([ndcg(case.scores(*mix), case.judged) for case in dataset])) for dataset in cases.values()
        ]
    best = max(results, key=lambda mix: (np.mean(results[mix]), mix))
    print("power cosine lexical", *cases)
    for mix in sorted(results, key=lambda mix: -float(np.mean(results[mix])))[:12]:
        print(*mix, *(f"{value:.4f}" for value in results[mix]), f"{np.mean(results[mix]):.4f}")
    scored = [(case.scores(*best), np.array(case.judged.labels)) for case in cases["dev"]]
    sure = [(scores[labels >= 0], labels[labels >= 0] > 0) for scores, labels in scored]  # -1 is unsure
    offset, divisor = fit_logistic([scores for scores, _ in sure], [relevant for _, relevant in sure])
    raw = np.concatenate([scores for scores, _ in sure])
    chances = 1 / (1 + np.exp(-(raw - offset) / divisor))
    print("relevance_score, pairs, mean, share relevant")
    print("\n".join(reliability(chances, np.concatenate([relevant for _, relevant in sure]))))
    weights = ScoreWeights(
        *best, FLOOR, SATURATION, BY_LENGTH, LENGTH, round(float(offset), 4), round(float(divisor), 5)
    )
    file = options.work / "score.json"
    entries = json.loads(file.read_text("utf-8")) if file.exists() else {}
    file.write_text(json.dumps(entries | {options.entry: weights._asdict()}, indent=1) + "\n", "utf-8")
    print(options.entry, weights)


if __name__ == "__main__":
    main()
