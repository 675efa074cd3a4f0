"""Abstention: known answers, which lists are sent again, and where there are no figures."""

from __future__ import annotations

import pytest

from rerank_plugins.evaluation import Candidate, Dataset, Question, compare
from rerank_plugins.evaluation.abstention import measure_abstention
from rerank_plugins.testing.cohere_like import CohereLike
from rerank_plugins.testing.vendors import VENDORS


def scored_dataset(lists: list[tuple[list[float], int | None]]) -> Dataset:
    """Return questions whose documents are their own scores; the relevant one is at a position, or none is."""
    questions, grades = [], {}
    for number, (scores, relevant) in enumerate(lists):
        candidates = tuple(Candidate(f"{number}-{at}", f"{score} of {number}") for at, score in enumerate(scores))
        questions.append(Question(str(number), f"query {number}", candidates))
        grades[str(number)] = {"elsewhere" if relevant is None else f"{number}-{relevant}": 1}
    return Dataset.of("scored", questions, grades)


def written_score(_: str, document: str) -> float:
    return float(document.split(maxsplit=1)[0])


LISTS: list[tuple[list[float], int | None]] = [
    ([0.3, 0.1], 0),
    ([0.2, 0.4], 1),
    ([0.5, 0.4], 0),
    ([0.9, 0.8], None),  # no relevant candidate: there is nothing to remove
]


def test_auroc_precision_and_recall_equal_values_computed_by_hand():
    """Best scores 3, 4, 5 with the relevant document and 1, 2, 4 without: of nine pairs 7 are right and one ties."""
    figures = measure_abstention([3, 4, 5], [1, 2, 4], lambda score: score / 10, 0.4)
    assert figures.auroc == pytest.approx(7.5 / 9)
    assert (figures.precision, figures.recall) == (pytest.approx(2 / 3), pytest.approx(2 / 3))
    assert (figures.queries, figures.threshold, figures.chosen) == (3, 0.4, False)
    nothing = measure_abstention([3, 4, 5], [1, 2, 4], lambda score: score / 10, 0.9)
    assert (nothing.precision, nothing.recall) == (None, 0.0)


def test_threshold_is_chosen_on_other_queries_than_it_is_measured_on():
    """On queries 0 and 2 the threshold 5 separates all; of queries 1 and 3 it answers one rightly and one wrongly."""
    figures = measure_abstention([5, 6, 7, 2], [1, 9, 2, 1], lambda score: score / 10)
    assert (figures.threshold, figures.chosen) == (0.5, True)
    assert (figures.precision, figures.recall) == (0.5, 0.5)


def test_pointwise_reranker_needs_no_second_call():
    with CohereLike(score=written_score) as server:
        spec = {"use": "http:acme", "base_url": server.url, "api_key": server.key, "score_threshold": 0.35}
        (row,) = compare(scored_dataset(LISTS), [spec], depths=()).rows
        assert len(server.requests) == len(LISTS)
    # With: .3, .4, .5. Without: .1, .2, .4.
    assert row.abstention.auroc == pytest.approx(7.5 / 9)
    assert (row.abstention.threshold, row.abstention.chosen) == (0.35, False)
    assert (row.abstention.precision, row.abstention.recall) == (pytest.approx(2 / 3), pytest.approx(2 / 3))
    assert row.to_dict()["abstention"]["queries"] == 3


def test_joint_reranker_is_sent_each_list_and_not_computed_from_one_answer():
    """A decision model reads all documents in one prompt, so its scores of fewer documents are not those of more."""
    with VENDORS["openai"](score=written_score) as server:
        spec = {"use": "openai", "base_url": server.url, "api_key": server.key}
        (row,) = compare(scored_dataset(LISTS), [spec], depths=(1,)).rows
        assert len(server.requests) == len(LISTS)
        assert list(row.depths) == [2]
        assert "paid for again" in row.depths_missing
        assert row.abstention.auroc is None
        assert "--abstention" in row.abstention.missing
        server.reset()
        (row,) = compare(scored_dataset(LISTS), [spec], depths=(), abstention=True).rows
        assert len(server.requests) == len(LISTS) + 3
    assert row.abstention.auroc == pytest.approx(7.5 / 9)


def test_listwise_reranker_of_this_machine_is_called_again():
    texts = [("bees make honey", "bananas"), ("the moon", "tides"), ("a clock", "hands")]
    questions = [
        Question(str(number), pair[0], tuple(Candidate(f"{number}{text}", text) for text in pair))
        for number, pair in enumerate(texts)
    ]
    grades = {str(number): {f"{number}{pair[0]}": 1} for number, pair in enumerate(texts)}
    (row,) = compare(Dataset.of("words", questions, grades), ["lexical"], depths=()).rows
    assert row.abstention.auroc == 1.0
    assert row.abstention.missing is None


def test_scores_without_a_meaning_have_no_figures():
    (row,) = compare(scored_dataset(LISTS), ["passthrough"], depths=()).rows
    assert row.abstention.missing == "its scores are only an order"
    with CohereLike(score=written_score) as server:
        spec = {"use": "http:acme", "base_url": server.url, "api_key": server.key}
        (row,) = compare(scored_dataset(LISTS[:1]), [spec], depths=()).rows
    assert row.abstention.missing.startswith("fewer than two queries")
