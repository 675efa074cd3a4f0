"""Our numbers are ir-measures', over our order: by hand, with ties, with judgements missing, and on real collections."""

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
THEIRS = {"nDCG@10": nDCG @ 10, "MRR@10": RR @ 10, "recall@10": R @ 10, "MAP": AP}


def test_by_hand():
    grades = {"q": {"a": 2, "b": 1, "c": 0, "lost": 1}}
    found = Metrics(grades, ["q"], 3).measure({"q": ["c", "a", "x", "b"]})
    ideal = 2 + 1 / math.log2(3) + 1 / math.log2(4)
    assert found["nDCG@3"] == pytest.approx([2 / math.log2(3) / ideal])
    assert found["MRR@3"] == (0.5,)
    assert found["recall@3"] == pytest.approx([1 / 3])  # a; b stands fourth, and one was never found
    assert found["MAP"] == pytest.approx([(1 / 2 + 2 / 4) / 3])


def test_our_order_counts_where_scores_tie():
    """ir-measures would break a tie by the document's name."""
    documents = [Candidate("a", "nothing of it"), Candidate("z", "nothing either")]
    dataset = Dataset.of("ties", [Question("q", "honey", tuple(documents))], {"q": {"z": 1}})
    (row,) = compare(dataset, ["lexical"]).rows
    assert load_reranker("lexical").rerank("honey", [each.text for each in documents])[1].raw_score == 0.0
    assert row.rankings["q"] == ("a", "z")
    assert row.values["MRR@10"] == (0.5,)
    tied = ir_measures.calc_aggregate([RR @ 10, AP], {"q": {"z": 1}}, {"q": {"a": 0.0, "z": 0.0}})
    assert tied[AP] == 1.0


def test_missing_judgements_and_missing_rankings():
    grades = {"judged": {"a": 1}, "none relevant": {"a": 0}, "nothing found": {"a": 1}, "below zero": {"a": -1, "b": 1}}
    rankings = {"judged": ["unjudged", "a"], "none relevant": ["a", "b"], "below zero": ["a", "b"], "nothing found": []}
    found = Metrics(grades, list(grades), 10).measure(rankings)
    run = {query: {each: -float(place) for place, each in enumerate(rows)} for query, rows in rankings.items() if rows}
    told = ir_measures.calc_aggregate(THEIRS.values(), grades, run)
    assert {name: sum(values) / 4 for name, values in found.items()} == pytest.approx(
        {name: told[measure] for name, measure in THEIRS.items()}
    )
    assert found["MRR@10"] == (0.5, 0.0, 0.0, 0.5)


def test_a_document_in_pieces_counts_where_its_best_piece_stands():
    assert Metrics({"q": {"a": 1}}, ["q"], 10).measure({"q": ["b", "b", "a", "a"]})["MRR@10"] == (0.5,)


@pytest.mark.parametrize("folder", COLLECTIONS, ids=lambda folder: f"{folder.parent.parent.name}-{folder.name}")
def test_real_collections(folder: Path):
    if not folder.is_dir():
        pytest.skip(f"{folder.name} is not beside the repository")
    dataset = read(folder, top_k=30, limit=60)
    comparison = compare(dataset, ["lexical"], depths=())
    grades = {each.id: dict(dataset.grades[each.id]) for each in dataset.questions}
    for row in (comparison.first, *comparison.rows):
        run = [
            ScoredDoc(query, document, 1.0 / place)
            for query, ranking in row.rankings.items()
            for place, document in enumerate(ranking, start=1)
        ]
        told = ir_measures.calc_aggregate(THEIRS.values(), grades, run)
        assert dict(row.means) == pytest.approx({name: told[measure] for name, measure in THEIRS.items()})
    assert comparison.first.means["nDCG@10"] > 0.2


def test_two_runs_give_the_same_numbers(tmp_path):
    dataset = read(COLLECTIONS[0], top_k=10, limit=10)
    one, two = (compare(dataset, ["lexical"], kept=tmp_path / "kept.sqlite3").to_dict() for _ in range(2))
    assert one == two


def test_interval_and_p_value():
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
    # Four queries that all gain: 2 of 16 assignments of signs are as extreme.
    assert p_value([0.1, 0.2, 0.3, 0.4]) == pytest.approx(2 / 16, abs=0.01)


def test_the_interval_holds_the_truth_about_as_often_as_it_says():
    import numpy as np

    generator = np.random.default_rng(1)
    held = 0
    for _ in range(40):
        _, low, high = interval(list(generator.normal(0.05, 0.2, 60)))
        held += low <= 0.05 <= high
    assert 34 <= held <= 40
