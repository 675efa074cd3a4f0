"""What a comparison is made over: questions, their candidates as the first stage ordered them, and judgements."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

from ..core.errors import InputError

__all__ = ["Candidate", "Dataset", "Grades", "Question"]

Grades = Mapping[str, Mapping[str, int]]
"""Query id → document id → grade; above 0 is relevant. What is not in it was not judged, and counts as not relevant."""


@dataclass(frozen=True, slots=True)
class Candidate:
    """One document that the first stage found."""

    id: str
    text: str = field(repr=False)
    score: float | None = None
    """The first stage's, where it is known."""


@dataclass(frozen=True, slots=True)
class Question:
    """A query and what the first stage found for it, its best first; perhaps nothing."""

    id: str
    text: str = field(repr=False)
    candidates: tuple[Candidate, ...]

    def scores(self) -> list[float] | None:
        """Return the first stage's scores, if it told all of them, as finite numbers."""
        told = [each.score for each in self.candidates if each.score is not None and math.isfinite(each.score)]
        return told if told and len(told) == len(self.candidates) else None


@dataclass(frozen=True, slots=True)
class Dataset:
    """Questions with judgements. One without a single judgement can tell nothing: `unjudged` counts those left out."""

    name: str
    questions: tuple[Question, ...]
    grades: Grades = field(repr=False)
    first_stage: str = "the order given"
    """Who ordered the candidates, in words."""
    unjudged: int = 0

    @classmethod
    def of(
        cls, name: str, questions: Sequence[Question], grades: Grades, first_stage: str = "the order given"
    ) -> Dataset:
        """Return the data set of the judged questions.

        Raises:
            InputError: No question is judged, or two have one id.
        """
        judged = tuple(each for each in questions if grades.get(each.id))
        if not judged:
            raise InputError(
                f"None of the {len(questions)} queries of {name} has a judgement: check that the query ids of the queries "
                "and of the judgements (qrels) are the same."
            )
        if len({each.id for each in judged}) < len(judged):
            raise InputError(f"{name} has two queries of one id: give each query an id of its own.")
        return cls(name, judged, grades, first_stage, len(questions) - len(judged))

    def cut(self, depth: int) -> Dataset:
        """Return the same questions with their first `depth` candidates."""
        return replace(
            self, questions=tuple(replace(each, candidates=each.candidates[:depth]) for each in self.questions)
        )

    @property
    def depth(self) -> int:
        """How many candidates the longest list has."""
        return max(len(each.candidates) for each in self.questions)


def spread(names: Sequence[str], limit: int | None) -> list[str]:
    """Return at most `limit` names, evenly from the whole list, so that a small sample is of the same kind.

    Raises:
        InputError: `limit` is below 1.
    """
    if limit is None or limit >= len(names):
        return list(names)
    if limit < 1:
        raise InputError(f"limit has to be a number of queries of at least 1, or None for all; {limit} is not.")
    return list(names)[:: len(names) // limit][:limit]
