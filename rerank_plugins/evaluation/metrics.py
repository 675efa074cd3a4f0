"""nDCG@k, MRR@k, recall@k and MAP, by ir-measures (https://ir-measur.es): our numbers are theirs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from ..core.errors import MissingExtra
from .data import Grades

__all__ = ["Metrics"]


class Metrics:
    """Measures the rankings of the queries that it was made for."""

    def __init__(self, grades: Grades, queries: Sequence[str], k: int = 10) -> None:
        """Take the judgements of `queries`.

        Args:
            grades: Query → document → grade. A document without one counts as not relevant, as in trec_eval.
            queries: Which of them are measured.
            k: The cut of nDCG, MRR and recall. MAP is over the whole list.

        Raises:
            MissingExtra: ir-measures is not installed.
        """
        try:
            from ir_measures import AP, RR, R, evaluator, nDCG
        except ModuleNotFoundError as error:
            raise MissingExtra("A comparison", extra="evaluation", package="ir-measures") from error
        # Not by parse_measure: of ir-measures 0.4.3 it fails on Python 3.14. trec_eval calls the mean of RR "MRR" and of AP "MAP".
        self._measures = {nDCG @ k: f"nDCG@{k}", RR @ k: f"MRR@{k}", R @ k: f"recall@{k}", AP: "MAP"}
        self.names = tuple(self._measures.values())
        """What we call the measures. The first is the one that lifts are told in."""
        self.queries = tuple(queries)
        judged = {query: dict(grades[query]) for query in queries}
        self._evaluator: Any = evaluator(list(self._measures), judged)

    @property
    def main(self) -> str:
        """The measure that lifts are told in."""
        return self.names[0]

    def measure(self, rankings: Mapping[str, Sequence[str]]) -> dict[str, tuple[float, ...]]:
        """Return, by measure, one value per query, in the order of `queries`.

        Args:
            rankings: Query → document ids, best first. A document that comes twice counts where it comes first; a query
                without a ranking is worth 0.
        """
        # Measures order by score and break ties in ways of their own (trec_eval: by the document's name). Our order is what
        # counts, so the scores fall strictly. Whole numbers: trec_eval keeps scores in 32 bits.
        run = {
            query: {document: float(-place) for place, document in enumerate(dict.fromkeys(ranking))}
            for query, ranking in rankings.items()
            if ranking
        }
        values: dict[str, dict[str, float]] = {name: {} for name in self.names}
        if run:
            for told in self._evaluator.iter_calc(run):
                values[self._measures[told.measure]][told.query_id] = float(told.value)
        return {name: tuple(each.get(query, 0.0) for query in self.queries) for name, each in values.items()}
