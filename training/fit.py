"""Choose the weights of the joined score, and calibrate it.

    python training/fit.py WORK NAME ENTRY --collections shared/eval/trecqa shared/eval/lisa [--table WORK/fast.npy]

NAME is a model's in the files of `features.py` (or `table`, for token vectors out of --table); ENTRY is where the weights go in
WORK/score.json. Every mix of a small grid is tried; the best mean of nDCG@10 over the development split and the collections
is taken. Then a logistic regression of the labels of the development split's candidates (BM25's best 50) gives offset
and divisor.
"""

from __future__ import annotations

import argparse
import itertools
import json
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
from features import FOLDER, Asked, collection, mined, unit

from rerank_plugins.engine.late_interaction.passage_cache import TokenVectors
from rerank_plugins.engine.late_interaction.scoring import ScoreWeights
from rerank_plugins.engine.tokenizer import PairTokenizer

POWERS, COSINES, LEXICALS = (0.5, 1.0), (0.0, 0.1, 0.2, 0.3, 0.4), (0.0, 0.1, 0.2, 0.3, 0.5, 0.7, 1.0)
FLOOR, SATURATION, BY_LENGTH, LENGTH = 1.0, 1.2, 0.75, 110.0


@dataclass
class Case:
    """What the score of a query's candidates is made of."""

    asked: Asked
    rarity: np.ndarray
    best: np.ndarray
    cosine: np.ndarray
    lexical: np.ndarray

    def scores(self, power: float, cosine: float, lexical: float) -> np.ndarray:
        """Return the candidates' scores (the formula of `rerank_plugins.engine.late_interaction.scoring.PreparedQuery`)."""
        weights = np.where(self.rarity > 0, np.maximum(self.rarity, 1e-3) ** power, 0.0)
        weights = weights if weights.any() else np.ones_like(weights)
        return self.best @ (weights / weights.sum()) + cosine * self.cosine + lexical * self.lexical


def cases(
    asked: list[Asked], found: dict[str, np.ndarray] | None, table: TokenVectors | None, background: np.ndarray
) -> Iterator[Case]:
    """Yield each query with the parts of its candidates' scores."""
    encoder = PairTokenizer(FOLDER / "tokenizer.json")
    terms, rarity = background[0].astype(np.int64), background[1] / 16
    pairs = cells = tokens = 0
    for number, each in enumerate(asked):
        rows = [np.array(row.ids) for row in encoder.singles(each.documents, 256)]
        if found is not None:
            size, count = (int(value) for value in found["sizes"][number])
            ids = found["tokens"][tokens : tokens + size]
            best = found["best"][cells : cells + size * count].reshape(count, size).astype(np.float64)
            cosine = found["cosine"][pairs : pairs + count]
            pairs, cells, tokens = pairs + count, cells + size * count, tokens + size
        else:
            assert table is not None
            (query,) = encoder.singles([each.query], 128)
            ids = np.array(query.ids)
            asks = table.vectors(query.ids)
            vectors = [table.vectors(row.tolist()) for row in rows]
            best = np.array([(gives @ asks.T).max(axis=0) for gives in vectors])
            cosine = (
                np.array([unit(gives.mean(axis=0)) for gives in vectors]) @ unit(asks.mean(axis=0)) if rows else None
            )
        if not rows:
            continue
        shares = np.maximum(rarity[ids] - FLOOR, 0.0)
        counts = np.array([(terms[row][:, None] == terms[ids]).sum(axis=0) for row in rows])
        full = SATURATION * (1 - BY_LENGTH + BY_LENGTH * np.array([[len(row)] for row in rows]) / LENGTH)
        lexical = (counts / (counts + full)) @ shares / max(shares.sum(), 1e-9)
        yield Case(each, rarity[ids], best, cosine, lexical)


def ndcg(scores: np.ndarray, asked: Asked, k: int = 10) -> float:
    """Return nDCG@k; candidates that may be relevant are left out."""
    labels = np.array(asked.labels)
    sure = labels >= 0
    order = np.argsort(-scores[sure], kind="stable")[:k]
    discounts = 1 / np.log2(np.arange(2, k + 2))
    ideal = np.sort(np.array(asked.ideal, dtype=float))[::-1][:k]
    whole = (ideal * discounts[: len(ideal)]).sum()
    return float((labels[sure][order] * discounts[: len(order)]).sum() / whole) if whole else 0.0


def calibrated(scores: Iterable[np.ndarray], labels: Iterable[np.ndarray]) -> tuple[float, float]:
    """Return offset and divisor of a logistic regression (Platt 1999), by Newton's method."""
    raw, told = np.concatenate(list(scores)).astype(np.float64), np.concatenate(list(labels)).astype(np.float64)
    middle, spread = raw.mean(), raw.std()
    inputs, weights = np.stack([(raw - middle) / spread, np.ones_like(raw)]), np.array([0.0, 0.0])
    for _ in range(50):
        chance = 1 / (1 + np.exp(-weights @ inputs))
        slope = inputs @ (chance - told) + 1e-3 * weights
        step = np.linalg.solve((inputs * chance * (1 - chance)) @ inputs.T + 1e-3 * np.eye(2), slope)
        weights = weights - np.clip(step, -1, 1)
    return middle - spread * weights[1] / weights[0], spread / weights[0]


def reliability(chances: np.ndarray, told: np.ndarray) -> Iterator[str]:
    """Yield, for ranges of relevance_score, how many pairs, the mean score and the share that is relevant."""
    edges = [0.0, 0.01, 0.03, 0.1, 0.3, 1.0]
    for low, high in itertools.pairwise(edges):
        here = (chances >= low) & (chances < high)
        if here.any():
            yield f"{low:4}-{high:4} {here.sum():7} {chances[here].mean():.3f} {told[here].mean():.3f}"


def main() -> None:
    """Write an entry of score.json."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("work", type=Path)
    parser.add_argument("name")
    parser.add_argument("entry")
    parser.add_argument("--collections", type=Path, nargs="*", default=[])
    parser.add_argument("--table", type=Path)
    given = parser.parse_args()
    background, table = np.load(given.work / "background.npy"), given.table and TokenVectors(np.load(given.table))
    held: dict[str, list[Case]] = {}
    for kind in (Path("dev"), *given.collections):
        asked = mined(given.work, "dev") if kind == Path("dev") else collection(kind)
        found = None if table else dict(np.load(given.work / f"{given.name}.{kind.name}.npz"))
        held[kind.name] = list(cases(asked, found, table or None, background))
    tried = {}
    for mix in itertools.product(POWERS, COSINES, LEXICALS):
        tried[mix] = [float(np.mean([ndcg(case.scores(*mix), case.asked) for case in each])) for each in held.values()]
    best = max(tried, key=lambda mix: (np.mean(tried[mix]), mix))
    print("power cosine lexical", *held)
    for mix in sorted(tried, key=lambda mix: -float(np.mean(tried[mix])))[:12]:
        print(*mix, *(f"{value:.4f}" for value in tried[mix]), f"{np.mean(tried[mix]):.4f}")
    sure = [(case.scores(*best), np.array(case.asked.labels)) for case in held["dev"]]
    offset, divisor = calibrated([raw[told >= 0] for raw, told in sure], [told[told >= 0] > 0 for raw, told in sure])
    raw = np.concatenate([values[labels >= 0] for values, labels in sure])
    chances = 1 / (1 + np.exp(-(raw - offset) / divisor))
    print("relevance_score, pairs, mean, share relevant")
    print("\n".join(reliability(chances, np.concatenate([labels[labels >= 0] > 0 for _, labels in sure]))))
    mixed = ScoreWeights(*best, FLOOR, SATURATION, BY_LENGTH, LENGTH, round(float(offset), 4), round(float(divisor), 5))
    file = given.work / "score.json"
    entries = json.loads(file.read_text("utf-8")) if file.exists() else {}
    file.write_text(json.dumps(entries | {given.entry: asdict(mixed)}, indent=1) + "\n", "utf-8")
    print(given.entry, mixed)


if __name__ == "__main__":
    main()
