"""Blocks: how documents are dealt, and how the scores of blocks come onto one scale."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rerank_plugins.core import BadResponse, Capabilities, Rejected, RerankRequest, Scorer, Scores, Usage
from rerank_plugins.core.types import Blocks
from rerank_plugins.policies.blocks import InBlocks, align

SHARE = st.floats(0.0, 1.0)


class Judge(Scorer):
    """Scores each block with a function of its documents."""

    label = "judge"
    capabilities = Capabilities(scale="unit", listwise=True)

    def __init__(self, score: Callable[[tuple[str, ...]], list[float | None]]) -> None:
        self.score = score
        self.blocks: list[tuple[str, ...]] = []

    async def ascore(self, request: RerankRequest) -> Scores:
        self.blocks.append(request.documents)
        values = tuple(self.score(request.documents))
        reasons = tuple("declined" if value is None else None for value in values)
        return Scores(
            values=values,
            model=self.label,
            capabilities=self.capabilities,
            usage=Usage(input_tokens=len(values)),
            reasons=reasons if any(reasons) else None,
        )


def run(judge: Judge, count: int, size: int = 5, anchors: int = 2) -> Scores:
    documents = tuple(str(number) for number in range(count))
    scorer = InBlocks(judge, Blocks(size, anchors))
    return asyncio.run(scorer.ascore(RerankRequest(query="q", documents=documents)))


def by_number(documents: tuple[str, ...]) -> list[float | None]:
    return [int(document) / 100 for document in documents]


def test_few_documents_are_one_block() -> None:
    judge = Judge(by_number)
    assert run(judge, 5).values == (0.0, 0.01, 0.02, 0.03, 0.04)
    assert judge.blocks == [("0", "1", "2", "3", "4")]


def test_documents_are_dealt_round_robin_with_shared_anchors() -> None:
    judge = Judge(by_number)
    scores = run(judge, 12)
    assert judge.blocks == [
        ("0", "1", "5", "6", "10"),
        ("0", "2", "6", "7", "11"),
        ("0", "3", "6", "8"),
        ("0", "4", "6", "9"),
    ]
    assert scores.values == pytest.approx([number / 100 for number in range(12)])
    assert scores.usage.input_tokens == 18
    assert scores.reasons is scores.reason is None


@pytest.mark.parametrize("count", range(1, 40))
@pytest.mark.parametrize(("size", "anchors"), [(4, 1), (4, 3), (15, 2)])
def test_every_document_is_in_a_block_and_anchors_in_all(count: int, size: int, anchors: int) -> None:
    judge = Judge(by_number)
    scores = run(judge, count, size, anchors)
    assert len(scores.values) == count
    assert max(map(len, judge.blocks)) <= size
    shared = set.intersection(*map(set, judge.blocks))
    dealt = list(itertools.chain.from_iterable(judge.blocks))
    if len(judge.blocks) > 1:
        assert len(shared) == anchors
    assert sorted(set(dealt), key=int) == [str(number) for number in range(count)]
    assert len(dealt) == count + (len(judge.blocks) - 1) * len(shared)


def test_a_stricter_block_is_put_on_the_scale_of_the_others() -> None:
    """Each block lowers its scores by another amount; the anchors show it."""

    def strict(documents: tuple[str, ...]) -> list[float | None]:
        strictness = {"1": 0.0, "2": 0.1, "3": 0.05, "4": 0.15}
        less = next((strictness[each] for each in documents if each in strictness), 0.0)
        return [0.3 + int(document) / 30 - less for document in documents]

    scores = run(Judge(strict), 12)
    assert scores.reason is None
    # Of two documents of different blocks, the better one is ahead unless they are nearly equal.
    for worse in range(12):
        for better in range(worse + 2, 12):
            assert (scores.values[worse] or 0.0) < (scores.values[better] or 0.0)


def test_a_block_whose_anchors_disagree_stays_as_it_is_and_says_so() -> None:
    def talked_into(documents: tuple[str, ...]) -> list[float | None]:
        return [0.9 if "2" in documents else 0.3 + int(document) / 100 for document in documents]

    scores = run(Judge(talked_into), 12)
    assert scores.reason == (
        "block 2 of 4 is not aligned with the others: its score of a shared document is 0.9, theirs is 0.3"
    )
    others = [position for position in range(12) if position not in (2, 7, 11)]
    assert [scores.values[position] for position in others] == pytest.approx([0.3 + each / 100 for each in others])
    assert [scores.values[position] for position in (2, 7, 11)] == [0.9] * 3


def test_a_document_without_a_score_is_asked_for_once_more() -> None:
    def forgetful(documents: tuple[str, ...]) -> list[float | None]:
        return [None if document in ("3", "6") and len(documents) > 2 else 0.5 for document in documents]

    judge = Judge(forgetful)
    scores = run(judge, 12)
    assert scores.values == (0.5,) * 12
    assert [block for block in judge.blocks if len(block) <= 2] == [("6",), ("6",), ("3", "6"), ("6",)]
    assert scores.reasons is None


def test_a_second_refusal_leaves_the_document_unscored() -> None:
    judge = Judge(lambda documents: [None if document == "3" else 0.5 for document in documents])
    scores = run(judge, 5)
    assert scores.values == (0.5, 0.5, 0.5, None, 0.5)
    assert scores.reasons == (None, None, None, "declined", None)
    assert judge.blocks == [("0", "1", "2", "3", "4"), ("3",)]
    assert scores.usage.input_tokens == 6


def test_a_bad_second_reply_leaves_the_document_unscored() -> None:
    def score(documents: tuple[str, ...]) -> list[float | None]:
        if len(documents) == 1:
            raise BadResponse("prose")
        return [None if document == "3" else 0.5 for document in documents]

    assert run(Judge(score), 5).values == (0.5, 0.5, 0.5, None, 0.5)


def refuses(*refused: str) -> Callable[[tuple[str, ...]], list[float | None]]:
    """Return a model that refuses every request with one of the documents."""

    def score(documents: tuple[str, ...]) -> list[float | None]:
        return [None] * len(documents) if set(documents) & set(refused) else by_number(documents)

    return score


@pytest.mark.parametrize("count", [1, 2, 3, 15, 50])
def test_a_refused_block_loses_only_the_refused_document(count: int) -> None:
    for refused in range(count):
        judge = Judge(refuses(str(refused)))
        scores = run(judge, count, size=50)
        assert scores.values == tuple(None if each == refused else each / 100 for each in range(count))
        assert scores.reasons == tuple("declined" if each == refused else None for each in range(count))
        assert len(judge.blocks) <= 13
        assert scores.usage.input_tokens == sum(map(len, judge.blocks))


@pytest.mark.parametrize("refused", ["0", "14", "17"])
def test_a_refused_anchor_does_not_fail_the_blocks(refused: str) -> None:
    scores = run(Judge(refuses(refused)), 28, size=15)
    assert [each for each, value in enumerate(scores.values) if value is None] == [int(refused)]
    assert scores.reason is None


def test_some_missing_scores_that_are_refused_together_are_asked_for_apart() -> None:
    def score(documents: tuple[str, ...]) -> list[float | None]:
        if len(documents) == 5:
            return [None if document in "13" else 0.5 for document in documents]
        return refuses("3")(documents)

    judge = Judge(score)
    assert run(judge, 5).values == (0.5, 0.01, 0.5, None, 0.5)
    assert judge.blocks[1:] == [("1", "3"), ("1",), ("3",)]


def test_a_block_of_which_all_is_refused_costs_at_most_16_more_requests() -> None:
    judge = Judge(refuses(*map(str, range(50))))
    scores = run(judge, 50, size=50)
    assert scores.values == (None,) * 50
    assert set(scores.reasons or ()) == {"declined"}
    assert len(judge.blocks) == 17


def test_a_bad_reply_to_a_half_leaves_that_half_unscored() -> None:
    def score(documents: tuple[str, ...]) -> list[float | None]:
        if documents == ("0", "1"):
            raise BadResponse("prose")
        return refuses("1")(documents)

    scores = run(Judge(score), 4)
    assert scores.values == (None, None, 0.02, 0.03)
    assert scores.reasons == ("declined", "declined", None, None)


def test_too_many_tokens_make_smaller_blocks() -> None:
    def limited(documents: tuple[str, ...]) -> list[float | None]:
        if len(documents) > 3:
            error = Rejected("too many tokens")
            error.too_large = True
            raise error
        return by_number(documents)

    scores = run(Judge(limited), 12)
    assert scores.values == pytest.approx([number / 100 for number in range(12)])
    with pytest.raises(Rejected):
        run(Judge(limited), 12, size=5, anchors=3)


def at_most(limit: int, score: Callable[[tuple[str, ...]], list[float | None]]) -> Judge:
    """Return a model that reads at most `limit` documents."""

    def limited(documents: tuple[str, ...]) -> list[float | None]:
        if len(documents) > limit:
            error = Rejected("too many tokens")
            error.too_large = True
            raise error
        return score(documents)

    return Judge(limited)


def test_the_parts_of_one_block_are_put_on_one_scale() -> None:
    def strict(documents: tuple[str, ...]) -> list[float | None]:
        less = 0.1 if "1" in documents else 0.0
        return [0.3 + int(document) / 20 - less for document in documents]

    judge = at_most(5, strict)
    scores = run(judge, 8, size=15)
    assert judge.blocks[1:] == [("0", "1", "2", "3", "4"), ("0", "4", "5", "6", "7")]
    assert scores.reason is None
    for worse in range(8):
        for better in range(worse + 2, 8):
            assert (scores.values[worse] or 0.0) < (scores.values[better] or 0.0)


@pytest.mark.parametrize(("count", "limit"), [(2, 1), (3, 2), (8, 2), (15, 1), (15, 3)])
def test_parts_that_share_no_document_say_so(count: int, limit: int) -> None:
    judge = at_most(limit, by_number)
    scores = run(judge, count, size=15, anchors=3)
    assert scores.values == pytest.approx([number / 100 for number in range(count)])
    assert "blocks are not aligned: they share no document" in (scores.reason or "")
    assert len(judge.blocks) < 3 * count


def test_blocks_run_concurrently_up_to_max_in_flight() -> None:
    running: list[int] = []

    class Slow(Judge):
        inside = 0

        async def ascore(self, request: RerankRequest) -> Scores:
            self.inside += 1
            running.append(self.inside)
            await asyncio.sleep(0)
            self.inside -= 1
            return await super().ascore(request)

    request = RerankRequest(query="q", documents=tuple(map(str, range(40))))
    asyncio.run(InBlocks(Slow(by_number), Blocks(5, 2), 3).ascore(request))
    assert max(running) == 3
    running.clear()
    asyncio.run(InBlocks(Slow(refuses("0", "13", "26")), Blocks(5, 2), 3).ascore(request))
    assert max(running) == 3, "the requests for halves count too"


@given(SHARE, SHARE, SHARE, SHARE)
def test_alignment_keeps_bounds_and_the_order_of_a_block(one: float, other: float, own: float, common: float) -> None:
    low, high = sorted((one, other))
    assert 0.0 <= align(low, own, common) <= align(high, own, common) <= 1.0
    if high - low > 1e-6:
        assert align(low, own, common) < align(high, own, common)


@given(SHARE, SHARE)
def test_alignment_leaves_equal_scales_alone(score: float, own: float) -> None:
    assert align(score, own, own) == score


def test_alignment_moves_the_anchors_to_their_common_score() -> None:
    assert align(0.4, 0.4, 0.6) == pytest.approx(0.6)
    assert align(0.2, 0.4, 0.6) == pytest.approx(0.3)
    assert align(0.7, 0.4, 0.6) == pytest.approx(0.8)
