"""A test collection, its BM25 first stage, and the two figures that rankings are judged by."""

import math
from pathlib import Path

from rerank_plugins.evaluation import BM25, interval
from rerank_plugins.evaluation import Collection as Files

__all__ = ["DATA", "Collection", "interval"]

DATA = Path(__file__).parent / "data" / "nq_qed"


class Collection(Files):
    """corpus.jsonl, queries.tsv and qrels.txt of a folder, under BM25."""

    def __init__(self, folder: Path = DATA) -> None:
        super().__init__(folder)
        self.ids = list(self.documents)
        self.texts = list(self.documents.values())
        self.titles = [text.partition("\n")[0] for text in self.texts]
        self._bm25 = BM25(self.texts)

    def search(self, query: str, k: int) -> list[tuple[int, float]]:
        """Return the positions and scores of the k best documents by BM25."""
        return self._bm25.search(query, k)

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
