"""Agreement of two rerankers: known answers."""

from __future__ import annotations

import pytest

from rerank_plugins.evaluation import Candidate, Dataset, Question, compare
from rerank_plugins.evaluation.agreement import measure_agreement, rank_biased_overlap
from rerank_plugins.evaluation.results import EvaluationResult, Rankings


def result(dataset: Dataset, label: str, orders: list[list[int]], values: list[float]) -> EvaluationResult:
    return EvaluationResult(label, label, {"nDCG@10": tuple(values)}, {}, Rankings(dataset, orders))


def make_dataset(count: int, candidates: int) -> Dataset:
    questions = [
        Question(str(number), "q", tuple(Candidate(f"{number}-{at}", "text") for at in range(candidates)))
        for number in range(count)
    ]
    return Dataset.of("made", questions, {question.id: {"x": 1} for question in questions})


def test_rank_biased_overlap_equals_values_computed_by_hand():
    assert rank_biased_overlap([1, 2, 3], [1, 2, 3], 0.9) == pytest.approx(1.0)
    assert rank_biased_overlap([1, 2], [3, 4], 0.9) == 0.0
    # Overlap 0 at depth 1 and 2 of 2 at depth 2: 2/2 · p² + (1 - p)/p · (0/1 · p + 2/2 · p²) with p = 0.5.
    assert rank_biased_overlap([1, 2], [2, 1], 0.5) == pytest.approx(0.25 + 1.0 * 0.25)
    assert rank_biased_overlap([1, 2, 3], [1, 4, 2], 0.5) == pytest.approx(
        2 / 3 * 0.125 + (1 * 0.5 + 1 / 2 * 0.25 + 2 / 3 * 0.125)
    )


def test_pair_agreement_equals_values_computed_by_hand():
    """Query 0: one swap of three pairs is tau 1/3, two documents move by one. Query 1: the reverse, tau -1."""
    dataset = make_dataset(2, 3)
    one = result(dataset, "one", [[0, 1, 2], [0, 1, 2]], [0.5, 0.5])
    other = result(dataset, "other", [[1, 0, 2], [2, 1, 0]], [0.7, 0.1])
    (pair,) = measure_agreement([one, other], "nDCG@10", 1)
    assert (pair.first, pair.second, pair.queries) == ("one", "other", 2)
    assert pair.tau == pytest.approx((1 / 3 - 1) / 2)
    assert pair.moved == pytest.approx((2 / 3 + 4 / 3) / 2)
    assert (pair.same_first, pair.changed) == (0.0, 1.0)
    assert (pair.wins, pair.losses) == (1, 1)
    (same,) = measure_agreement([one, one], "nDCG@10", 2)
    assert (same.tau, same.same_first, same.changed, same.moved, same.wins) == (1.0, 1.0, 0.0, 0.0, 0)
    assert same.rbo == pytest.approx(1.0)


def test_comparison_holds_each_pair_with_the_first_stage():
    texts = ("A bank raised its rates.", "Bees make honey.", "Honey of bees.")
    question = Question("q", "bees make honey", tuple(Candidate(text, text) for text in texts))
    comparison = compare(Dataset.of("bees", [question], {"q": {texts[1]: 1}}), ["passthrough", "lexical"], k=1)
    assert [(pair.first, pair.second) for pair in comparison.agreement] == [
        ("the order given", "passthrough"),
        ("the order given", "lexical"),
        ("passthrough", "lexical"),
    ]
    assert comparison.agreement[0].tau == 1.0
    assert comparison.agreement[1].tau == pytest.approx(-1 / 3)
    assert comparison.to_dict()["agreement"][2]["wins"] == 1


def test_pair_over_lists_of_one_document_is_the_same_order():
    dataset = make_dataset(1, 1)
    (pair,) = measure_agreement([result(dataset, "a", [[0]], [1.0])] * 2, "nDCG@10", 10)
    assert (pair.queries, pair.tau, pair.changed) == (0, 1.0, 0.0)
