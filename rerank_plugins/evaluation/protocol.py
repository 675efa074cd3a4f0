"""nDCG, MRR and MAP by the rules of sentence-transformers' evaluators, so that figures can be put beside theirs."""

from __future__ import annotations

from collections.abc import Sequence

from ..core.errors import MissingExtra

__all__ = ["evaluator_names", "evaluator_values", "first_stage_values"]


def evaluator_names(k: int) -> tuple[str, ...]:
    """Return the names of the metrics. The first is the main metric."""
    return f"nDCG@{k}", f"MRR@{k}", "MAP"


def evaluator_values(relevant: Sequence[bool], scores: Sequence[float], k: int) -> tuple[float, ...]:
    """Return nDCG@k, MRR@k and MAP of one query, as `CrossEncoderRerankingEvaluator` computes them.

    A grade is 0 or 1. The ideal order is the best order of these candidates. nDCG is the mean over all orders of tied
    scores, and MAP counts tied scores as one rank (scikit-learn's `ndcg_score` and `average_precision_score`). MRR
    takes the worst order of tied scores here; the evaluator takes whatever order numpy's quicksort leaves.

    Args:
        relevant: Whether each candidate is relevant.
        scores: The score of each candidate.
        k: The rank cutoff of nDCG and MRR, at least 1.

    Raises:
        MissingExtra: scikit-learn is not installed.
    """
    if not any(relevant):
        return 0.0, 0.0, 0.0
    try:
        from sklearn.metrics import average_precision_score, ndcg_score
    except ModuleNotFoundError as error:
        raise MissingExtra("This data set's protocol", extra="evaluation", package="scikit-learn") from error
    truth = [int(value) for value in relevant]
    best = max(score for score, value in zip(scores, relevant, strict=True) if value)
    ahead = sum(not value and score >= best for score, value in zip(scores, relevant, strict=True))
    reciprocal = 1.0 / (ahead + 1) if ahead < k else 0.0
    # scikit-learn refuses a list of one document; its nDCG is 1.
    gain = float(ndcg_score([truth], [list(scores)], k=k)) if len(truth) > 1 else 1.0
    return gain, reciprocal, float(average_precision_score(truth, list(scores)))


def first_stage_values(relevant: Sequence[bool], added: int, missing: int, k: int) -> tuple[float, ...]:
    """Return the same metrics of the order that was given.

    As in the evaluator, relevant documents that the first stage did not return follow its list, and a list without a
    relevant document has 0.

    Args:
        relevant: Whether each candidate is relevant, in the first stage's order.
        added: How many candidates at the end the first stage did not return.
        missing: How many relevant documents are no candidates.
        k: The rank cutoff of nDCG and MRR.
    """
    if not any(relevant[: len(relevant) - added]):
        return 0.0, 0.0, 0.0
    listed = [*relevant, *[True] * missing]
    return evaluator_values(listed, [float(-place) for place in range(len(listed))], k)
