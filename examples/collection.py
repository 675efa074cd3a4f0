"""A test collection, its BM25 first stage, and the two figures that rankings are judged by."""

import json
import math
from pathlib import Path

import bm25s
import numpy as np

DATA = Path(__file__).parent / "data" / "nq_qed"


class Collection:
    """corpus.jsonl, queries.tsv and qrels.txt of a folder, under BM25 (bm25s with its defaults, English stop words)."""

    def __init__(self, folder: Path = DATA) -> None:
        rows = [json.loads(line) for line in (folder / "corpus.jsonl").read_text("utf-8").splitlines()]
        self.ids = [row["_id"] for row in rows]
        self.titles = [row["title"] for row in rows]
        self.texts = [f"{row['title']}\n{row['text']}".strip() for row in rows]
        self.queries = dict(line.split("\t", 1) for line in (folder / "queries.tsv").read_text("utf-8").splitlines())
        self.grades: dict[str, dict[str, int]] = {}
        for line in (folder / "qrels.txt").read_text("utf-8").splitlines():
            query, _, document, grade = line.split()
            self.grades.setdefault(query, {})[document] = int(grade)
        self._index = bm25s.BM25()
        self._index.index(self._tokens(self.texts), show_progress=False)

    @staticmethod
    def _tokens(texts: list[str]) -> object:
        return bm25s.tokenize(texts, stopwords="en", show_progress=False)

    def search(self, query: str, k: int) -> list[tuple[int, float]]:
        """Return the positions and scores of the k best documents by BM25."""
        found, scores = self._index.retrieve(self._tokens([query]), k=min(k, len(self.ids)), show_progress=False)
        return [(int(position), float(score)) for position, score in zip(found[0], scores[0], strict=True)]

    def ndcg(self, query: str, ranked: list[str], k: int = 10) -> float:
        """Return nDCG@k of a ranking of document ids (gain: the grade; discount: log2)."""
        grades = {document: max(grade, 0) for document, grade in self.grades.get(query, {}).items()}
        best = sorted(grades.values(), reverse=True)
        ideal = sum(gain / math.log2(place + 2) for place, gain in enumerate(best[:k]))
        got = sum(grades.get(document, 0) / math.log2(place + 2) for place, document in enumerate(ranked[:k]))
        return got / ideal if ideal else 0.0

    def mrr(self, query: str, ranked: list[str], k: int = 10) -> float:
        """Return 1 / the place of the first relevant document among k, or 0."""
        grades = self.grades.get(query, {})
        return next((1 / place for place, document in enumerate(ranked[:k], 1) if grades.get(document, 0) > 0), 0.0)


def interval(differences: list[float], seed: int = 0) -> tuple[float, float, float]:
    """Return the mean and its 95 % bootstrap interval over queries (10,000 samples)."""
    values = np.array(differences)
    samples = np.random.default_rng(seed).choice(values, (10_000, len(values))).mean(axis=1)
    low, high = np.quantile(samples, [0.025, 0.975])
    return float(values.mean()), float(low), float(high)
