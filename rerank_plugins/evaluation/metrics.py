"""nDCG@k, MRR@k, recall@k and MAP, computed by ir-measures (https://ir-measur.es)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from ..core.errors import MissingExtra
from .data import Grades

__all__ = ["Metrics", "measure_names"]


def measure_names(k: int) -> tuple[str, ...]:
    """Return the names of the metrics that `Metrics` computes. The first is the main metric.

    As in trec_eval, the mean of RR is named MRR and the mean of AP is named MAP.
    """
    return f"nDCG@{k}", f"MRR@{k}", f"recall@{k}", "MAP"


class Metrics:
    """Computes the metrics of rankings against judgements.

    Args:
        grades: Query id → document id → grade. A document without a grade counts as not relevant, as in trec_eval.
        queries: Ids of the queries to measure. All of them need an entry in `grades`.
        k: The rank cutoff of nDCG, MRR and recall, at least 1. MAP is over the whole list.

    Raises:
        MissingExtra: ir-measures is not installed.

    >>> from rerank_plugins.evaluation import Metrics
    >>> metrics = Metrics({"q1": {"d1": 1}}, ["q1"], k=10)
    >>> metrics.measure({"q1": ["d2", "d1"]})["MRR@10"]
    (0.5,)
    """

    def __init__(self, grades: Grades, queries: Sequence[str], k: int = 10) -> None:
        """Prepare the judgements of `queries`. See the class."""
        try:
            from ir_measures import AP, RR, R, evaluator, nDCG
        except ModuleNotFoundError as error:
            raise MissingExtra("A comparison", extra="evaluation", package="ir-measures") from error
        # `parse_measure` of ir-measures 0.4.3 fails on Python 3.14, so the measures are built directly.
        self._measures = dict(zip((nDCG @ k, RR @ k, R @ k, AP), measure_names(k), strict=True))
        self.names = tuple(self._measures.values())
        """The names of the metrics. The first is the main metric."""
        self.queries = tuple(queries)
        judged = {query: dict(grades[query]) for query in queries}
        self._evaluator: Any = evaluator(list(self._measures), judged)

    @property
    def main(self) -> str:
        """The main metric, in which lifts are measured."""
        return self.names[0]

    def measure(self, rankings: Mapping[str, Sequence[str]]) -> dict[str, tuple[float, ...]]:
        """Return metric → one value per query, in the order of `queries`.

        Args:
            rankings: Query id → document ids, best first. A document that comes twice counts at its first position. A
                query without a ranking has the value 0.
        """
        # ir-measures sorts by score and breaks ties by rules of its own (trec_eval: by the document's name). Strictly
        # falling scores keep the ranking as it is. Integers, because trec_eval stores scores in 32 bits.
        run = {
            query: {document: float(-place) for place, document in enumerate(dict.fromkeys(ranking))}
            for query, ranking in rankings.items()
            if ranking
        }
        values: dict[str, dict[str, float]] = {name: {} for name in self.names}
        if run:
            for metric in self._evaluator.iter_calc(run):
                values[self._measures[metric.measure]][metric.query_id] = float(metric.value)
        return {name: tuple(by_query.get(query, 0.0) for query in self.queries) for name, by_query in values.items()}
