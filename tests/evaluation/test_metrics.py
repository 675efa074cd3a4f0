"""Metrics equal those of ir-measures: by hand, with ties, with missing judgements, and on real collections."""

from __future__ import annotations

import math
from pathlib import Path

import ir_measures
import pytest
from ir_measures import AP, RR, R, ScoredDoc, nDCG

from rerank_plugins import load_reranker
from rerank_plugins.evaluation import Dataset, Metrics, Question, compare, interval, p_value, read
from rerank_plugins.evaluation.data import Candidate

ROOT = Path(__file__).parents[2]
SHARED = ROOT.parent / "shared" / "eval"
COLLECTIONS = [
    ROOT / "examples" / "data" / "nq_qed",
    *(SHARED / name for name in ("trecqa", "lisa", "cranfield", "nq_qed")),
]
IR_MEASURES = {"nDCG@10": nDCG @ 10, "MRR@10": RR @ 10, "recall@10": R @ 10, "MAP": AP}


def test_metrics_equal_values_computed_by_hand():
    grades = {"q": {"a": 2, "b": 1, "c": 0, "lost": 1}}
    values = Metrics(grades, ["q"], 3).measure({"q": ["c", "a", "x", "b"]})
    ideal = 2 + 1 / math.log2(3) + 1 / math.log2(4)
    assert values["nDCG@3"] == pytest.approx([2 / math.log2(3) / ideal])
    assert values["MRR@3"] == (0.5,)
    assert values["recall@3"] == pytest.approx([1 / 3])  # a counts; b is fourth, and one was never retrieved
    assert values["MAP"] == pytest.approx([(1 / 2 + 2 / 4) / 3])


def test_tied_scores_keep_the_order_of_the_ranking():
    """ir-measures alone would order tied documents by their ids."""
    documents = [Candidate("a", "nothing of it"), Candidate("z", "nothing either")]
    dataset = Dataset.of("ties", [Question("q", "honey", tuple(documents))], {"q": {"z": 1}})
    (row,) = compare(dataset, ["lexical"]).rows
    assert load_reranker("lexical").rerank("honey", [document.text for document in documents])[1].raw_score == 0.0
    assert row.rankings["q"] == ("a", "z")
    assert row.values["MRR@10"] == (0.5,)
    tied = ir_measures.calc_aggregate([RR @ 10, AP], {"q": {"z": 1}}, {"q": {"a": 0.0, "z": 0.0}})
    assert tied[AP] == 1.0


def test_missing_judgements_and_rankings_count_as_zero():
    grades = {"judged": {"a": 1}, "none relevant": {"a": 0}, "nothing found": {"a": 1}, "below zero": {"a": -1, "b": 1}}
    rankings = {"judged": ["unjudged", "a"], "none relevant": ["a", "b"], "below zero": ["a", "b"], "nothing found": []}
    by_name = Metrics(grades, list(grades), 10).measure(rankings)
    run = {query: {name: -float(place) for place, name in enumerate(rows)} for query, rows in rankings.items() if rows}
    expected = ir_measures.calc_aggregate(IR_MEASURES.values(), grades, run)
    assert {name: sum(values) / 4 for name, values in by_name.items()} == pytest.approx(
        {name: expected[measure] for name, measure in IR_MEASURES.items()}
    )
    assert by_name["MRR@10"] == (0.5, 0.0, 0.0, 0.5)


def test_repeated_document_counts_at_its_first_position():
    assert Metrics({"q": {"a": 1}}, ["q"], 10).measure({"q": ["b", "b", "a", "a"]})["MRR@10"] == (0.5,)


@pytest.mark.parametrize("folder", COLLECTIONS, ids=lambda folder: f"{folder.parent.parent.name}-{folder.name}")
def test_metrics_equal_ir_measures_on_real_collections(folder: Path):
    if not folder.is_dir():
        pytest.skip(f"{folder.name} is not beside the repository")
    dataset = read(folder, top_k=30, limit=60)
    comparison = compare(dataset, ["lexical"], depths=())
    grades = {question.id: dict(dataset.grades[question.id]) for question in dataset.questions}
    for row in (comparison.first, *comparison.rows):
        run = [
            ScoredDoc(query, document, 1.0 / place)
            for query, ranking in row.rankings.items()
            for place, document in enumerate(ranking, start=1)
        ]
        expected = ir_measures.calc_aggregate(IR_MEASURES.values(), grades, run)
        assert dict(row.means) == pytest.approx({name: expected[measure] for name, measure in IR_MEASURES.items()})
    assert comparison.first.means["nDCG@10"] > 0.2


def test_two_comparisons_over_one_cache_are_equal(tmp_path):
    dataset = read(COLLECTIONS[0], top_k=10, limit=10)
    one, two = (compare(dataset, ["lexical"], answer_cache=tmp_path / "answers.sqlite3").to_dict() for _ in range(2))
    assert one == two


def test_interval_and_p_value_of_known_samples():
    same = [0.1, -0.1] * 40
    mean, low, high = interval(same)
    assert mean == pytest.approx(0)
    assert low < 0 < high
    assert p_value(same) > 0.5
    better = [0.1, 0.0, 0.2, 0.1, -0.05] * 12
    assert interval(better)[1] > 0
    assert p_value(better) < 0.001
    assert interval(better) == interval(better)
    assert p_value(better) == p_value(better)
    # Four queries with a gain each: 2 of the 16 assignments of signs are as extreme.
    assert p_value([0.1, 0.2, 0.3, 0.4]) == pytest.approx(2 / 16, abs=0.01)


def test_interval_covers_the_true_mean_at_its_confidence_level():
    import numpy as np

    generator = np.random.default_rng(1)
    covered = 0
    for _ in range(40):
        _, low, high = interval(list(generator.normal(0.05, 0.2, 60)))
        covered += low <= 0.05 <= high
    assert 34 <= covered <= 40
