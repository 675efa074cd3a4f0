"""The data of a comparison: questions, their candidates in the first stage's order, and judgements."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Literal, TypeVar, overload

from ..core.errors import InputError
from ..core.text import is_blank

__all__ = [
    "Candidate",
    "Dataset",
    "Grades",
    "LazyQuestions",
    "Protocol",
    "Question",
    "join_title",
    "kept_positions",
    "refuse_blank",
    "sample_evenly",
    "without_judgement",
]

Item = TypeVar("Item")
Grades = Mapping[str, Mapping[str, int]]
"""Query id → document id → grade; above 0 is relevant. A document without a grade counts as not relevant."""
Protocol = Literal["trec_eval", "sentence-transformers"]
"""Whose rules the metrics follow, for tied scores and for relevant documents that are no candidates."""


@dataclass(frozen=True, slots=True)
class Candidate:
    """One document that the first stage returned for a query.

    Args:
        id: The id that the judgements use.
        text: The text that rerankers score.
        score: The first stage's score, or `None` where it is unknown.

    >>> from rerank_plugins.evaluation import Candidate
    >>> Candidate("d1", "Bees make honey.", score=12.5).id
    'd1'
    """

    id: str
    text: str = field(repr=False)
    score: float | None = None


@dataclass(frozen=True, slots=True)
class Question:
    """A query and the candidates that the first stage returned for it.

    Args:
        id: The id that the judgements use.
        text: The query.
        candidates: Best first; may be empty.
        added: How many candidates at the end the first stage did not return: relevant documents that the data set's
            protocol adds to every list.

    >>> from rerank_plugins.evaluation import Candidate, Question
    >>> Question("q1", "who makes honey?", (Candidate("d1", "Bees make honey.", 12.5),)).scores()
    [12.5]
    """

    id: str
    text: str = field(repr=False)
    candidates: tuple[Candidate, ...]
    added: int = 0

    def cut(self, depth: int) -> Question:
        """Return the question with the first `depth` candidates, and with those that were added.

        >>> from rerank_plugins.evaluation import Candidate, Question
        >>> candidates = tuple(Candidate(name, name) for name in "abcd")
        >>> [candidate.id for candidate in Question("q", "?", candidates, added=1).cut(2).candidates]
        ['a', 'b', 'd']
        """
        positions = kept_positions(len(self.candidates), self.added, depth)
        if len(positions) == len(self.candidates):
            return self
        return replace(self, candidates=tuple(self.candidates[at] for at in positions))

    def scores(self) -> list[float] | None:
        """Return the first stage's scores, one per candidate; `None` unless all of them are finite numbers."""
        scores = [
            candidate.score
            for candidate in self.candidates
            if candidate.score is not None and math.isfinite(candidate.score)
        ]
        return scores if scores and len(scores) == len(self.candidates) else None


def kept_positions(count: int, added: int, depth: int) -> list[int]:
    """Return the positions of the first `depth` of `count` candidates, and of the last `added`."""
    return [*range(min(depth, count - added)), *range(count - added, count)]


class LazyQuestions(Sequence[Question]):
    """Questions that are made when they are read, so that a large file is never in memory as a whole.

    Args:
        count: The number of questions.
        make: Function from a position to its question.
    """

    def __init__(self, count: int, make: Callable[[int], Question]) -> None:
        """Set number and function. See the class."""
        self._count, self._make = count, make

    def __len__(self) -> int:
        """Return the number of questions."""
        return self._count

    @overload
    def __getitem__(self, at: int) -> Question: ...
    @overload
    def __getitem__(self, at: slice) -> tuple[Question, ...]: ...
    def __getitem__(self, at: Any) -> Any:
        """Return the question at a position, or a tuple of those in a slice."""
        if isinstance(at, slice):
            return tuple(self._make(position) for position in range(*at.indices(self._count)))
        return self._make(range(self._count)[at])

    def __iter__(self) -> Iterator[Question]:
        """Yield each question."""
        return map(self._make, range(self._count))


@dataclass(frozen=True, slots=True)
class Dataset:
    """Judged questions. Make one with `read`, `from_retriever` or `Dataset.of`.

    Args:
        name: The name in tables and reports.
        questions: The judged questions.
        grades: Query id → document id → grade, an integer; above 0 is relevant.
        first_stage: What ordered the candidates, in words.
        unjudged: Number of questions that were left out because nothing was judged for them.
        unlabelled: Questions without judgements that a judge can label; see `read`.
        protocol: Whose rules the metrics follow: `trec_eval` (by ir-measures), or `sentence-transformers`, whose
            evaluators count tied scores and missing documents in another way.
        groups: Name → positions of its questions, where several data sets were read together. Means are then the mean
            over the data sets.

    >>> from rerank_plugins.evaluation import Candidate, Dataset, Question
    >>> question = Question("q1", "who makes honey?", (Candidate("d1", "Bees make honey."),))
    >>> Dataset.of("bees", [question], {"q1": {"d1": 1}}).depth
    1
    """

    name: str
    questions: Sequence[Question]
    grades: Grades = field(repr=False)
    first_stage: str = "the order given"
    unjudged: int = 0
    unlabelled: Sequence[Question] = field(default=(), repr=False)
    protocol: Protocol = "trec_eval"
    groups: Mapping[str, range] = field(default_factory=dict)
    longest: int | None = field(default=None, repr=False)
    """Number of candidates in the longest list, where it was counted when the file was read."""

    @classmethod
    def of(
        cls, name: str, questions: Sequence[Question], grades: Grades, first_stage: str = "the order given"
    ) -> Dataset:
        """Return the data set of the judged questions among `questions`.

        Args:
            name: The name in tables and reports.
            questions: Judged or not. Those without a judgement are left out and counted.
            grades: Query id → document id → grade, an integer; above 0 is relevant.
            first_stage: What ordered the candidates, in words.

        Raises:
            InputError: No question is judged, two questions have the same id, or a query is blank.
        """
        judged = tuple(question for question in questions if grades.get(question.id))
        if not judged:
            raise without_judgement(len(questions), name)
        seen: set[str] = set()
        for question in judged:
            if question.id in seen:
                raise InputError(f"{name} has two queries with the id {question.id!r}: give each an id of its own.")
            seen.add(question.id)
            refuse_blank(question.text, f"{name}, query {question.id!r}")
        return cls(name, judged, grades, first_stage, len(questions) - len(judged))

    def cut(self, depth: int) -> Dataset:
        """Return the same questions with their first `depth` candidates."""
        questions = LazyQuestions(len(self.questions), lambda at: self.questions[at].cut(depth))
        return replace(self, questions=questions, longest=min(depth, self.depth))

    @property
    def depth(self) -> int:
        """Number of candidates in the longest list, without those that the first stage did not return."""
        if self.longest is not None:
            return self.longest
        return max((len(question.candidates) - question.added for question in self.questions), default=0)

    def weights(self) -> tuple[float, ...]:
        """Return one weight per question, 1 on average, so that each data set among `groups` counts the same."""
        if not self.groups:
            return (1.0,) * len(self.questions)
        share = len(self.questions) / len(self.groups)
        weights = [1.0] * len(self.questions)
        for positions in self.groups.values():
            for at in positions:
                weights[at] = share / len(positions)
        return tuple(weights)


def join_title(title: str, text: str) -> str:
    """Return the text of a document that has a title: both, with a space between.

    sentence-transformers (the example of `InformationRetrievalEvaluator`), BEIR and MTEB join them in the same way, and
    figures can only be compared over the same texts.

    >>> from rerank_plugins.evaluation.data import join_title
    >>> join_title("Bees", "make honey."), join_title("", "A bank.")
    ('Bees make honey.', 'A bank.')
    """
    return f"{title} {text}".strip()


def refuse_blank(query: str, where: str) -> None:
    """Refuse a query without visible text before anything is sent: no reranker takes it.

    Args:
        query: The text.
        where: File and line, or data set and id, for the error.

    Raises:
        InputError: The query is blank.
    """
    if is_blank(query):
        raise InputError(f"{where}: the query is blank, so nothing can be reranked for it. Correct it, or remove it.")


def without_judgement(count: int, name: str) -> InputError:
    """Return the error for a data set of `count` queries in which nothing is judged."""
    return InputError(
        f"None of the {count} queries of {name} has a judgement: check that the query ids of the queries and of the "
        "judgements (qrels) are the same."
    )


def sample_evenly(items: Sequence[Item], limit: int | None) -> list[Item]:
    """Return at most `limit` items at even distances, so that a small sample represents the whole list.

    Raises:
        InputError: `limit` is below 1.
    """
    if limit is None or limit >= len(items):
        return list(items)
    if limit < 1:
        raise InputError(f"limit must be a number of queries of at least 1, or None for all; got {limit}.")
    # A step of len // limit would leave the end out: of two data sets with 19 items, one, where limit is 10.
    return [items[at * len(items) // limit] for at in range(limit)]
