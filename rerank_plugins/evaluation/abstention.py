"""Abstention: does the best score of a list tell that nothing in it is relevant?"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from .data import Question

__all__ = ["Abstention", "measure_abstention", "relevant_positions", "without_relevant"]


@dataclass(frozen=True, slots=True)
class Abstention:
    """How well the best score separates lists with a relevant document from the same lists without one."""

    queries: int = 0
    """Queries with a relevant and another candidate. Each counts twice: with its relevant documents and without."""
    auroc: float | None = None
    """The probability that the best score of a list with a relevant document is above that of a list without one;
    ties count half. 0.5 is chance."""
    threshold: float | None = None
    """The `score_threshold` that precision and recall belong to."""
    chosen: bool = False
    """Whether the threshold was chosen here, with the largest F1 on every second query; precision and recall are then
    those of the other queries. Else it is the one in the spec."""
    precision: float | None = None
    """Of the lists whose best score reaches the threshold, the share with a relevant document."""
    recall: float | None = None
    """Of the lists with a relevant document, the share whose best score reaches the threshold."""
    missing: str | None = None
    """Why there are no numbers."""

    def to_dict(self) -> dict[str, Any]:
        """Return plain data that `json.dumps` takes."""
        return asdict(self)


def relevant_positions(question: Question, grades: dict[str, int] | Any) -> list[int]:
    """Return the positions of the relevant candidates."""
    return [at for at, candidate in enumerate(question.candidates) if grades.get(candidate.id, 0) > 0]


def without_relevant(question: Question, relevant: Sequence[int]) -> Question:
    """Return the question without its relevant candidates."""
    removed = set(relevant)
    rest = tuple(candidate for at, candidate in enumerate(question.candidates) if at not in removed)
    return Question(question.id, question.text, rest)


def measure_abstention(
    best: Sequence[float],
    best_without: Sequence[float],
    relevance: Callable[[float], float],
    threshold: float | None = None,
) -> Abstention:
    """Return the figures for the best raw scores of each query.

    Args:
        best: The best raw score of each query's whole list.
        best_without: The best raw score of the same list without its relevant documents.
        relevance: Function from a raw score to its `relevance_score`.
        threshold: The `score_threshold` of the spec; `None` chooses one.
    """
    count = len(best)
    if count < 2:
        return Abstention(count, missing="fewer than two queries have a relevant and another candidate")
    from sklearn.metrics import roc_auc_score

    auroc = float(roc_auc_score([1] * count + [0] * count, [*best, *best_without]))
    if threshold is not None:
        answered = [relevance(score) >= threshold for score in best]
        wrongly = [relevance(score) >= threshold for score in best_without]
        return Abstention(count, auroc, threshold, False, *_precision_and_recall(answered, wrongly))
    cut = _best_f1(best[::2], best_without[::2])
    answered, wrongly = [score >= cut for score in best[1::2]], [score >= cut for score in best_without[1::2]]
    return Abstention(count, auroc, relevance(cut), True, *_precision_and_recall(answered, wrongly))


def _best_f1(best: Sequence[float], best_without: Sequence[float]) -> float:
    """Return the raw score with the largest F1 as a threshold; of equals the highest."""
    import numpy as np
    from sklearn.metrics import precision_recall_curve

    truth = [1] * len(best) + [0] * len(best_without)
    precision, recall, thresholds = precision_recall_curve(truth, [*best, *best_without])
    total = precision + recall
    f1 = np.divide(2 * precision * recall, total, out=np.zeros_like(total), where=total > 0)[: len(thresholds)]
    return float(thresholds[len(f1) - 1 - int(np.argmax(f1[::-1]))])


def _precision_and_recall(answered: Sequence[bool], wrongly: Sequence[bool]) -> tuple[float | None, float]:
    right, wrong = sum(answered), sum(wrongly)
    return (right / (right + wrong) if right + wrong else None), right / len(answered)
