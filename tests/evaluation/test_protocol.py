"""Figures beside published tables: the same as those of sentence-transformers' evaluators, on the same models."""

from __future__ import annotations

import itertools
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from support.late_interaction import late_interaction
from support.layouts import nanobeir_folder, positive_negative_rows, write_jsonl

from rerank_plugins import load_reranker
from rerank_plugins.evaluation import compare, read
from rerank_plugins.evaluation.protocol import evaluator_values, first_stage_values
from rerank_plugins.reranker import Reranker

SIZES = {"NanoNQ": 7, "NanoMSMARCO": 4}
"""Not the same number of queries, so that the mean over data sets is not the mean over queries."""


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return nanobeir_folder(tmp_path_factory.mktemp("nano") / "NanoBEIR-en", SIZES)


@pytest.fixture
def evaluators(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """Return sentence-transformers' module of evaluators, with the cache of `datasets` in the test's folder."""
    pytest.importorskip("sentence_transformers", reason="needs the extra sentence-transformers")
    datasets = pytest.importorskip("datasets", reason="needs the package datasets")
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", str(tmp_path / "datasets"))
    monkeypatch.setattr(datasets.config, "HF_HUB_OFFLINE", True)
    datasets.disable_progress_bars()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from sentence_transformers.cross_encoder import evaluation
    return evaluation


class Predictor:
    """Gives the evaluator one of our rerankers as a model: what it calls of a `CrossEncoder`."""

    def __init__(self, reranker: Reranker) -> None:
        self.reranker = reranker

    def predict(self, pairs: Sequence[tuple[str, str]], **_: Any) -> Any:
        import numpy as np

        scores: list[float] = []
        for query, group in itertools.groupby(pairs, key=lambda pair: pair[0]):
            documents = [document for _, document in group]
            by_index = {result.index: result.raw_score for result in self.reranker.rerank(query, documents)}
            scores += [by_index[at] for at in range(len(documents))]
        return np.asarray(scores)


def nanobeir_figures(evaluation: Any, folder: Path, model: Any, **options: Any) -> dict[str, float]:
    evaluator = evaluation.CrossEncoderNanoBEIREvaluator(["nq", "msmarco"], str(folder), write_csv=False, **options)
    for part in evaluator.evaluators:
        part.store_metrics_in_model_card_data = lambda *_: None
    evaluator.store_metrics_in_model_card_data = lambda *_: None
    return evaluator(model)


def assert_same(figures: dict[str, float], comparison: Any, depth: int) -> None:
    row, first = comparison.rows[0], comparison.first
    names = {"nDCG@10": "ndcg@10", "MRR@10": "mrr@10", "MAP": "map"}
    assert list(row.means) == list(names)
    for ours, theirs in names.items():
        assert row.means[ours] == pytest.approx(figures[f"NanoBEIR_R{depth}_mean_{theirs}"], abs=1e-4)
        assert first.base_means[ours] == pytest.approx(figures[f"NanoBEIR_R{depth}_mean_base_{theirs}"], abs=1e-4)
        for group in SIZES:
            assert row.groups[group][ours] == pytest.approx(figures[f"{group}_R{depth}_{theirs}"], abs=1e-4)


@pytest.mark.slow  # imports torch and sentence-transformers
@pytest.mark.parametrize(("depth", "add_relevant"), [(12, True), (5, False)])
def test_nanobeir_figures_are_those_of_the_evaluator_with_the_embedded_model(evaluators, folder, depth, add_relevant):
    """Between its queries the embedded model gives tied scores, and BM25 misses relevant documents."""
    comparison = compare(read(folder, top_k=depth, add_relevant=add_relevant), ["embedded"], depths=())
    with load_reranker("embedded") as reranker:
        figures = nanobeir_figures(
            evaluators, folder, Predictor(reranker), rerank_k=depth, always_rerank_positives=add_relevant
        )
    assert_same(figures, comparison, depth)


@pytest.mark.slow  # imports torch and sentence-transformers
def test_nanobeir_figures_are_those_of_the_evaluator_with_a_tiny_cross_encoder(
    evaluators, folder, cross_encoder_folder
):
    from sentence_transformers import CrossEncoder

    model = CrossEncoder(str(cross_encoder_folder), device="cpu")
    figures = nanobeir_figures(evaluators, folder, model, rerank_k=12)
    comparison = compare(read(folder, top_k=12), [f"onnx:{cross_encoder_folder}"], depths=())
    assert_same(figures, comparison, 12)


@pytest.mark.slow  # imports torch and sentence-transformers
@pytest.mark.usefixtures("evaluators")
def test_reranking_figures_are_those_of_the_multi_vector_evaluator(tmp_path):
    from sentence_transformers import MultiVectorEncoder
    from sentence_transformers.multi_vector_encoder.evaluation import MultiVectorRerankingEvaluator

    model = late_interaction(tmp_path / "tiny", "sentence-transformers")
    rows = [*positive_negative_rows(8), {"query": "nothing", "positive": [], "negative": ["a", "b"]}]
    evaluator = MultiVectorRerankingEvaluator(samples=rows, write_csv=False)
    evaluator.store_metrics_in_model_card_data = lambda *_: None
    figures = evaluator(MultiVectorEncoder(str(model), device="cpu"))

    write_jsonl(tmp_path / "askubuntu" / "test.jsonl", rows)
    dataset = read(tmp_path / "askubuntu")
    assert (len(dataset.questions), dataset.unjudged) == (8, 1)
    row = compare(dataset, [{"use": f"colbert:{model}", "device": "cpu"}], depths=()).rows[0]
    assert row.means["MAP"] == pytest.approx(figures["map"], abs=1e-4)
    assert row.means["nDCG@10"] == pytest.approx(figures["ndcg@10"], abs=1e-4)
    assert row.means["MRR@10"] == pytest.approx(figures["mrr@10"], abs=1e-4)
    assert 0 < row.means["MAP"] < 1


def test_tied_scores_count_as_the_mean_of_all_orders():
    """Known answers: two documents tie, one is relevant. Its gain is 1 in one order and 1 / log2(3) in the other."""
    ndcg, mrr, average_precision = evaluator_values([True, False], [0.5, 0.5], 10)
    assert ndcg == pytest.approx((1 + 0.6309297535714575) / 2)
    assert (mrr, average_precision) == (0.5, 0.5)
    assert evaluator_values([False, True, True], [3.0, 2.0, 1.0], 10)[1:] == (0.5, pytest.approx((1 / 2 + 2 / 3) / 2))
    assert evaluator_values([False, True], [2.0, 1.0], 1)[:2] == (0.0, 0.0)  # below the cut-off
    assert evaluator_values([True], [0.1], 10) == (1.0, 1.0, 1.0)
    assert evaluator_values([False], [0.1], 10) == (0.0, 0.0, 0.0)


def test_first_stage_without_a_relevant_document_has_zero():
    assert first_stage_values([False, False, True], 1, 0, 10) == (0.0, 0.0, 0.0)
    # Relevant at 2, and one more that was not returned follows at 3.
    values = first_stage_values([False, True], 0, 1, 10)
    assert values[1:] == (0.5, pytest.approx((1 / 2 + 2 / 3) / 2))


@pytest.mark.parametrize("add_relevant", [True, False])
def test_order_that_was_given_has_no_lift_where_relevant_documents_are_no_candidates(tmp_path, add_relevant):
    """Of two relevant documents, BM25 found one."""
    documents = [{"_id": name, "text": f"text {name}"} for name in ("d1", "d2", "d3", "d4")]
    relevant = [{"query-id": "q1", "corpus-id": name} for name in ("d2", "d4")]
    for table, rows in (
        ("corpus", documents),
        ("queries", [{"_id": "q1", "text": "who?"}]),
        ("qrels", relevant),
        ("bm25", [{"query-id": "q1", "corpus-ids": ["d1", "d2", "d3"]}]),
    ):
        write_jsonl(tmp_path / table / "NanoBees.jsonl", rows)
    comparison = compare(read(tmp_path, top_k=2, add_relevant=add_relevant), ["passthrough"], depths=())
    first, row = comparison.first, comparison.rows[0]
    # Relevant at 2, and the one that was not returned follows at 3.
    assert first.base_means["MAP"] == pytest.approx((1 / 2 + 2 / 3) / 2)
    assert first.means["MAP"] == pytest.approx(first.base_means["MAP"] if add_relevant else 1 / 2)
    assert (row.lift.mean, row.lift.low, row.lift.high, row.lift.p) == (0.0, 0.0, 0.0, 1.0)
    assert [(pair.wins, pair.losses) for pair in comparison.agreement] == [(0, 0)]
    assert comparison.advice.choice is None
    assert comparison.to_dict()["retriever"]["base_means"] == first.base_means


def test_order_that_is_not_the_one_of_the_scores_is_what_counts(folder):
    """`diversify` moves documents and keeps their scores."""
    dataset = read(folder)
    diverse = {"use": "lexical", "diversify": {"lambda": 0.1}}
    plain, row = compare(dataset, ["lexical", diverse], depths=()).rows
    assert plain.rankings != row.rankings
    assert plain.values["MAP"] != row.values["MAP"]
