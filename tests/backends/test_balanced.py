"""`embedded:balanced`: the scores of `embedded` for the documents that it reads, and what happens to the others."""

from __future__ import annotations

import asyncio
import gc
import pydoc_data.topics
import random
import shutil

import pytest

from rerank_plugins import ConfigError, InputError, RerankResponse, load_reranker
from rerank_plugins.backends.embedded import FOLDER, Embedded
from rerank_plugins.calibration.file import Calibration, save_calibration
from rerank_plugins.config import identity
from rerank_plugins.core import RerankRequest
from rerank_plugins.core.calibration_curve import Curve
from rerank_plugins.engine.late_interaction.scoring import combine_cheap_scores
from rerank_plugins.policies.depth_model import FIRST

QUERY = "how does the import system find and load a module"
PROSE = " ".join(text for _, text in sorted(pydoc_data.topics.topics.items())).split()
DOCUMENTS = [" ".join(PROSE[first : first + 30]) for first in range(0, 24 * 900, 900)]
ANSWER = "The import system finds a module, loads it and binds its name; finders and loaders do that."


def balanced(**options: object) -> dict:
    return {"use": "embedded:balanced", "embedded": {"balanced": options}}


def raw(response: RerankResponse) -> dict[str, float | None]:
    return {result.document: result.raw_score for result in response}


def test_scores_are_those_of_embedded_and_the_others_have_a_reason():
    texts = [*DOCUMENTS[:9], ANSWER, *DOCUMENTS[9:]]
    with load_reranker("embedded:balanced") as reranker, load_reranker("embedded") as full:
        answer, everything = reranker.rerank(QUERY, texts), raw(full.rerank(QUERY, texts))
        assert (reranker.scorer.capabilities.scale, reranker.scorer.capabilities.listwise) == ("logit", True)
    read = {text: score for text, score in raw(answer).items() if score is not None}
    assert FIRST <= len(read) < len(texts)
    assert read == {text: everything[text] for text in read}
    assert answer[0].document == ANSWER
    places = [result.raw_score is None for result in answer]
    assert places == sorted(places)
    assert answer[-1].reason == (
        f"not read: embedded:balanced [onnxruntime float32] read {len(read)} of 25 documents, enough for the first 10"
    )
    assert answer.model == "embedded:balanced [onnxruntime float32]"
    assert {attempt.model for attempt in answer.attempts} == {answer.model}
    assert answer.attempts[-1].detail == f"{len(read)} of 25 documents"


def test_unread_documents_are_in_the_order_of_the_cheap_scores():
    request = RerankRequest(query=QUERY, documents=tuple(DOCUMENTS))
    backend = Embedded("balanced")
    cheap = asyncio.run(backend.cheap_scores(request))
    asyncio.run(backend.aclose())
    with load_reranker(balanced(miss=1)) as reranker:
        answer = reranker.rerank(QUERY, DOCUMENTS)
    order = sorted(range(len(cheap)), key=lambda position: -cheap[position])
    assert sorted(result.index for result in answer[:FIRST]) == sorted(order[:FIRST])
    assert [result.index for result in answer][FIRST:] == order[FIRST:]


def test_a_query_is_encoded_again_if_the_model_is_replaced_while_the_backend_is_closed(tmp_path, monkeypatch):
    import onnx
    from onnx import numpy_helper

    folder = shutil.copytree(FOLDER, tmp_path / "model")
    monkeypatch.setattr("rerank_plugins.backends.embedded.FOLDER", folder)
    request = RerankRequest(query=QUERY, documents=(ANSWER, DOCUMENTS[0]))

    async def score(backend: Embedded) -> tuple[float | None, ...]:
        values = (await backend.ascore(request)).values
        await backend.aclose()
        return values

    backend = Embedded("balanced")
    before = asyncio.run(score(backend))
    model = onnx.load(folder / "model.onnx")
    largest = max(model.graph.initializer, key=lambda tensor: len(tensor.raw_data))  # the table of word vectors
    largest.CopyFrom(numpy_helper.from_array(numpy_helper.to_array(largest)[::-1].copy(), largest.name))
    (folder / "model.onnx").unlink()
    onnx.save(model, folder / "model.onnx")
    gc.collect()  # the old model must not be shared with the new one
    after = asyncio.run(score(backend))
    assert after != pytest.approx(before, abs=1e-3)
    assert after == pytest.approx(asyncio.run(score(Embedded("balanced"))), abs=1e-6)


def test_a_permutation_with_the_retriever_s_scores_changes_nothing():
    scores = [1.0 / (1 + place) for place in range(len(DOCUMENTS))]
    order = random.Random(5).sample(range(len(DOCUMENTS)), len(DOCUMENTS))
    with load_reranker("embedded:balanced") as reranker:
        first = reranker.rerank(QUERY, DOCUMENTS, retrieval_scores=scores)
        plain = reranker.rerank(QUERY, DOCUMENTS)
        second = reranker.rerank(
            QUERY, [DOCUMENTS[place] for place in order], retrieval_scores=[scores[place] for place in order]
        )
    assert [each.document for each in first] == [each.document for each in second] == [each.document for each in plain]
    assert raw(first) == raw(second) == raw(plain)


def test_the_retriever_s_rank_counts_and_equal_scores_share_one():
    same = [1.0, 1.0, 1.0]
    down = combine_cheap_scores(same, same, None)
    assert down[0] == 0.0
    assert down == sorted(set(down), reverse=True)
    assert combine_cheap_scores([3.0, 1.0, 2.0], same, [0.2, 0.2, 0.2]) == pytest.approx([1.2247, -1.2247, 0], abs=1e-3)
    assert combine_cheap_scores([1.0, 1.0], [0.5, 0.5], [0.1, 0.7])[1] == 0.0
    assert combine_cheap_scores([1.0, 1.0], [0.5, 0.1], [0.2, 0.2]) == pytest.approx([0.2, -0.2])


def test_the_cache_holds_single_documents_of_what_was_read():
    with load_reranker({**balanced(), "cache": True}) as reranker:
        first, second = (reranker.rerank(QUERY, DOCUMENTS) for _ in range(2))
        read = [result.document for result in first if result.raw_score is not None]
        assert [each.outcome for each in second.attempts if each.outcome != "kept"] == ["cached"] * (
            len([each for each in first.attempts if each.outcome == "answered"])
        )
        third = reranker.rerank(QUERY, read[:4])
        assert [each.outcome for each in third.attempts] == ["cached"]
    assert [(each.index, each.raw_score, each.reason) for each in first] == [
        (each.index, each.raw_score, each.reason) for each in second
    ]


def test_chunking_reads_pieces_and_a_document_without_a_read_piece_follows_by_its_best_one():
    long = " ".join(PROSE[23_000:23_400])
    texts = [*DOCUMENTS[:12], f"{long} {ANSWER}", *(" ".join(PROSE[at : at + 400]) for at in (25_000, 27_000))]
    chunked = {"long_documents": {"mode": "chunk", "tokens": 64}}
    with load_reranker({**balanced(), **chunked}) as reranker, load_reranker({"use": "embedded", **chunked}) as full:
        answer, everything = reranker.rerank(QUERY, texts), raw(full.rerank(QUERY, texts))
    assert answer[0].index == 12
    assert answer[0].raw_score == pytest.approx(everything[texts[12]])
    (span,) = answer[0].spans
    assert "import system" in texts[12][span.start : span.end]
    unread = [result for result in answer if result.raw_score is None]
    assert unread
    assert unread == list(answer[-len(unread) :])
    read = len(texts) - len(unread)
    counts = f"{read} of {len(texts)} documents"
    assert {result.reason for result in unread} == {f"not read: {answer.model} read {counts}, enough for the first 10"}
    assert answer.attempts[-1].detail == counts
    with pytest.raises(ConfigError, match="aggregate must be 'max' for embedded:balanced"):
        load_reranker({**balanced(), "long_documents": {"mode": "chunk", "aggregate": "mean_top_k"}})


@pytest.mark.parametrize("policies", [{"cache": True}, {"long_documents": {"mode": "chunk", "tokens": 64}}], ids=str)
def test_the_warning_counts_all_documents_of_the_call(policies: dict):
    russian = "Приливы и отливы вызваны притяжением Луны и Солнца. " * 20
    texts = [*DOCUMENTS, *(f"{number} {russian}" for number in range(6))]
    with load_reranker({"use": "embedded:balanced", **policies}) as reranker:
        for _ in range(2):  # the second answer may come from the cache
            reason = reranker.rerank(QUERY, texts).reason
            assert f"cannot spell 6 of {len(texts)} documents" in reason
            assert reason.count("cannot spell") == 1


def test_a_threshold_leaves_out_what_was_not_read():
    with load_reranker(balanced(miss=1)) as reranker:
        scores = [result.relevance_score for result in reranker.rerank(QUERY, DOCUMENTS)]
    for threshold, count in ((0.0, FIRST), (scores[2], 3)):
        with load_reranker({**balanced(miss=1), "score_threshold": threshold}) as reranker:
            assert [result.relevance_score for result in reranker.rerank(QUERY, DOCUMENTS)] == scores[:count]


def test_repeated_texts_are_read_once_and_stay_together():
    with load_reranker(balanced(miss=1)) as reranker:
        plain = reranker.rerank(QUERY, DOCUMENTS)
        answer = reranker.rerank(QUERY, [*DOCUMENTS, plain[0].document, plain[-1].document])
    expected = [plain[0], *plain, plain[-1]]
    assert [(each.document, each.raw_score, each.reason) for each in answer] == [
        (each.document, each.raw_score, each.reason) for each in expected
    ]
    assert [each.index for each in answer[:2]] == [plain[0].index, len(DOCUMENTS)]
    assert [each.index for each in answer[-2:]] == [plain[-1].index, len(DOCUMENTS) + 1]
    assert answer[-1].reason.startswith("not read: ")


def test_a_calibration_gives_probabilities_to_what_was_read_and_changes_nothing_else(tmp_path):
    """It is outside of the choice of documents, so the same ones are read, and it is of `embedded:balanced` alone."""
    curve, file = Curve(method="platt", slope=3.0, intercept=-2.0), tmp_path / "balanced.json"
    with load_reranker(balanced()) as reranker:
        plain = reranker.rerank(QUERY, DOCUMENTS)
        save_calibration(Calibration(of=identity(reranker), curve=curve, held_out={}), file)
    with load_reranker({**balanced(), "calibration": str(file)}) as reranker:
        answer = reranker.rerank(QUERY, DOCUMENTS)
    assert [(each.index, each.raw_score, each.reason) for each in answer] == [
        (each.index, each.raw_score, each.reason) for each in plain
    ]
    read = [each for each in answer if each.raw_score is not None]
    assert FIRST <= len(read) < len(DOCUMENTS)
    assert [each.relevance_score for each in read] == [curve.probability(each.raw_score, 0.0) for each in read]
    assert {each.relevance_score for each in answer[len(read) :]} == {None}
    spec = {**balanced(), "calibration": str(file), "score_threshold": read[1].relevance_score}
    with load_reranker(spec) as reranker:
        assert [each.index for each in reranker.rerank(QUERY, DOCUMENTS)] == [each.index for each in read[:2]]
    with pytest.raises(ConfigError, match="its model is balanced, and here it is embedded"):
        load_reranker({"use": "embedded", "calibration": str(file)})


def test_a_document_that_is_too_long_is_refused_whether_or_not_it_is_read():
    texts = [*DOCUMENTS, "of the " * 400]
    spec = {**balanced(miss=1), "long_documents": "error"}
    with load_reranker(spec) as reranker, pytest.raises(InputError, match="Document 24 has"):
        reranker.rerank(QUERY, texts)


def test_options_say_which_top_is_protected():
    def reads(**options: object) -> int:
        with load_reranker(balanced(**options)) as reranker:
            return sum(result.raw_score is not None for result in reranker.rerank(QUERY, DOCUMENTS))

    assert reads(miss=0) == len(DOCUMENTS)
    assert reads(miss=1) == FIRST
    assert reads(for_top=1, miss=0.02) <= reads(for_top=20, miss=0.02)
    for options, message in (({"for_top": 0}, "balanced.for_top must be"), ({"top": 3}, "option of embedded.balanced")):
        with pytest.raises(ConfigError, match=message):
            load_reranker(balanced(**options))
    with load_reranker({"use": "embedded", "embedded": {"balanced": {"for_top": 3}}}) as reranker:
        assert None not in raw(reranker.rerank(QUERY, DOCUMENTS)).values()  # no effect on another model
