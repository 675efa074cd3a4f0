"""A test collection with its first stage, BM25, and the two metrics of a ranking: nDCG and MRR."""

import math
from pathlib import Path

from rerank_plugins.evaluation import BM25, interval
from rerank_plugins.evaluation import Collection as Files

__all__ = ["DATA", "Collection", "interval"]

DATA = Path(__file__).parent / "data" / "nq_qed"


class Collection(Files):
    """The corpus.jsonl, queries.tsv and qrels.txt of a folder, searched with BM25."""

    def __init__(self, folder: Path = DATA) -> None:
        super().__init__(folder)
        self.ids = list(self.documents)
        self.texts = list(self.documents.values())
        self._bm25 = BM25(self.texts)

    def search(self, query: str, k: int) -> list[tuple[int, float]]:
        """Return the positions and scores of the k best documents by BM25."""
        return self._bm25.search(query, k)

    def ndcg(self, query: str, ranked: list[str], k: int = 10) -> float:
        """Return nDCG@k of a ranking of document ids (gain: the grade; discount: log2)."""
        grades = {document: max(grade, 0) for document, grade in self.grades.get(query, {}).items()}
        best = sorted(grades.values(), reverse=True)
        ideal = sum(gain / math.log2(rank + 2) for rank, gain in enumerate(best[:k]))
        dcg = sum(grades.get(document, 0) / math.log2(rank + 2) for rank, document in enumerate(ranked[:k]))
        return dcg / ideal if ideal else 0.0

    def mrr(self, query: str, ranked: list[str], k: int = 10) -> float:
        """Return 1 / the rank of the first relevant document among the first k, or 0."""
        grades = self.grades.get(query, {})
        return next((1 / rank for rank, document in enumerate(ranked[:k], 1) if grades.get(document, 0) > 0), 0.0)
