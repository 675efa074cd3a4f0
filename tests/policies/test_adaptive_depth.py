"""Adaptive depth: `cascade` with `keep = "auto"`, and what `embedded:balanced` does with the same policy."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Iterator

import pytest
from support.scripted import Scripted

from rerank_plugins import ConfigError, DeadlineExceeded, Reranker, RerankResponse, TransientError, load_reranker
from rerank_plugins.calibration.file import Calibration, save_calibration
from rerank_plugins.config import identity
from rerank_plugins.core import Capabilities, RerankRequest, Scores, Span, Usage
from rerank_plugins.core.calibration_curve import Curve
from rerank_plugins.core.types import Depth
from rerank_plugins.policies.adaptive_depth import score_to_depth
from rerank_plugins.policies.depth_model import FIRST, next_depth, unread_shares
from rerank_plugins.testing.cohere_like import CohereLike
from rerank_plugins.testing.script import Declined, Hang, Status, Step
from rerank_plugins.testing.vendors.chat import ChatServer

QUERY = "why are there tides"
COUNT, ROUNDS = 30, 3
DOCUMENTS = [f"passage {number} of the almanac" for number in range(COUNT)]
"""In the retriever's order, which `passthrough` as a first stage keeps."""


def number(text: str) -> int:
    return int(text.split()[1])


@pytest.fixture
def server() -> Iterator[CohereLike]:
    with CohereLike(score=lambda _, text: 0.9 / (1 + number(text)) ** 2) as running:
        yield running


def stage(server: CohereLike, **options) -> dict:
    return {"use": "http", "base_url": server.url, "api_key": server.key, "retry": 1, **options}


def auto(server: CohereLike, miss: float | None = None, first: object = "passthrough", **options) -> dict:
    cascade = {"stages": [first, stage(server, **options)], "keep": "auto"}
    return {"cascade": cascade if miss is None else cascade | {"miss": miss}}


def indexes(response: RerankResponse) -> list[int]:
    return [result.index for result in response]


def scored(response: RerankResponse) -> list[int]:
    return [result.index for result in response if result.raw_score is not None]


def sent(server: CohereLike) -> list[int]:
    return [number(text) for request in server.requests for text in request.documents]


# What is read -----------------------------------------------------------------------------------------------------


def test_without_a_miss_the_answer_equals_that_of_the_last_stage_alone(server: CohereLike):
    with load_reranker(auto(server, 0)) as reranker, load_reranker(stage(server)) as alone:
        answer = reranker.rerank(QUERY, DOCUMENTS)
        assert len(server.requests) == ROUNDS
        assert sorted(sent(server)) == list(range(COUNT))
        full = alone.rerank(QUERY, DOCUMENTS)
    assert [(each.index, each.raw_score) for each in answer] == [(each.index, each.raw_score) for each in full]
    assert answer.usage.requests == ROUNDS


def test_what_is_not_read_follows_in_the_first_stage_s_order_with_a_reason(server: CohereLike):
    texts = [*reversed(DOCUMENTS), ""]
    with load_reranker(auto(server, 1)) as reranker:
        answer = reranker.rerank(QUERY, texts)
    assert len(server.requests) == 1
    assert scored(answer) == list(reversed(range(FIRST)))  # the last of the first six is the best
    assert indexes(answer)[FIRST:] == list(range(FIRST, COUNT + 1))
    assert answer[FIRST].reason == f"not read: http read {FIRST} of {COUNT} documents, enough for the first 10"
    assert answer[FIRST].relevance_score is None
    assert answer[-1].reason.startswith("blank")
    assert (answer.degraded, answer.model, answer.scale) == (False, "http", "unit")
    assert [(each.outcome, each.detail) for each in answer.attempts] == [
        ("answered", None),
        ("answered", None),
        ("kept", f"{FIRST} of {COUNT} documents"),
    ]


def test_a_call_of_few_documents_is_one_request(server: CohereLike):
    with load_reranker(auto(server)) as reranker:
        answer = reranker.rerank(QUERY, DOCUMENTS[:FIRST])
        assert reranker.rerank(QUERY, []).results == ()
    assert scored(answer) == list(range(FIRST))
    assert len(server.requests) == 1


def test_more_is_read_where_the_first_documents_are_not_the_best():
    def reads(score) -> int:
        with CohereLike(score=score) as vendor, load_reranker(auto(vendor)) as reranker:
            reranker.rerank(QUERY, DOCUMENTS)
            return len(sent(vendor))

    one_is_clear = reads(lambda _, text: 0.95 if number(text) == 0 else 0.001)
    late = reads(lambda _, text: 0.95 if number(text) == 5 else 0.001)
    all_alike = reads(lambda _, text: 0.5 + number(text) / 1000)
    assert FIRST <= one_is_clear < late
    assert one_is_clear < all_alike


@pytest.mark.parametrize("for_top", [1, 3, 10, 40])
@pytest.mark.parametrize("gains", [[0.0] * 8, [1.0] * 8, [0.9] + [0.0] * 7, [1e-300] * 8], ids=str)
def test_estimates_are_shares_and_a_smaller_miss_reads_more(for_top: int, gains: list[float]):
    for cheap in ([0.0] * COUNT, [float(-place) for place in range(COUNT)], [1e300, *[-1e300] * (COUNT - 1)]):
        shares = unread_shares(cheap, gains, for_top)
        assert len(shares) == COUNT - len(gains)
        assert all(0.0 < share < 1.0 for share in shares)
        targets = [next_depth(cheap, gains, Depth(for_top, miss), 1) for miss in (1e9, 0.5, 0.1, 0.01, 0.0)]
        assert targets == sorted(targets)
        assert (targets[0], targets[-1]) == (len(gains), COUNT)


def test_the_first_stage_may_return_no_scores_or_an_order(server: CohereLike):
    first = {"use": "lexical", "fuse": {"with": ["embedded:fast", "passthrough"]}, "diversify": True}
    with load_reranker(auto(server, first=first)) as reranker:
        answer = reranker.rerank(QUERY, DOCUMENTS)
    assert sorted(indexes(answer)) == list(range(COUNT))
    assert len(server.requests) <= ROUNDS


# Unscored documents and the other policies ---------------------------------------------------------------------------


def test_a_threshold_leaves_out_what_was_not_read(server: CohereLike):
    with load_reranker({**auto(server, 1), "score_threshold": 0.1}) as reranker:
        assert indexes(reranker.rerank(QUERY, DOCUMENTS)) == [0, 1, 2]


def test_repeated_texts_are_read_once_and_stay_together(server: CohereLike):
    texts = [*DOCUMENTS, DOCUMENTS[0], DOCUMENTS[20]]
    with load_reranker(auto(server, 1)) as reranker:
        answer = reranker.rerank(QUERY, texts)
    assert sorted(sent(server)) == list(range(FIRST))
    assert indexes(answer)[:3] == [0, COUNT, 1]
    assert answer[0].raw_score == answer[1].raw_score
    place = indexes(answer).index(20)
    assert indexes(answer)[place + 1] == COUNT + 1
    assert answer[place].raw_score is None is answer[place + 1].raw_score


def test_the_cache_of_the_last_stage_serves_what_was_read(server: CohereLike):
    with load_reranker(auto(server, cache=True)) as reranker:
        first = reranker.rerank(QUERY, DOCUMENTS)
        requests = len(server.requests)
        second = reranker.rerank(QUERY, DOCUMENTS)
        assert len(server.requests) == requests
        more = reranker.rerank(QUERY, [*DOCUMENTS[:3], "passage 99 of the almanac"])
        assert server.requests[-1].documents == ["passage 99 of the almanac"]
    assert [(each.index, each.raw_score, each.reason) for each in first] == [
        (each.index, each.raw_score, each.reason) for each in second
    ]
    assert None not in {each.raw_score for each in more}


def test_a_calibrated_last_stage_gives_probabilities_which_decide_how_many_are_read(server: CohereLike, tmp_path):
    """`miss` is a share of the relevance, and with a calibration that is the probability."""

    def calibrated(curve: Curve) -> dict:
        file = tmp_path / f"{curve.method}.json"
        with load_reranker(stage(server)) as alone:
            save_calibration(Calibration(of=identity(alone), curve=curve, held_out={}), file)
        return auto(server, calibration=str(file))

    def read_by(spec: dict) -> tuple[RerankResponse, list[int]]:
        server.reset()
        with load_reranker(spec) as reranker:
            return reranker.rerank(QUERY, DOCUMENTS), sorted(sent(server))

    steep = Curve(method="platt", slope=20.0, intercept=-6.0)
    flat = Curve(method="isotonic", points=((0.0, 0.4), (1.0, 0.4)))
    plain, read = read_by(auto(server))
    answer, read_by_steep = read_by(calibrated(steep))
    assert [each.raw_score for each in answer[:3]] == [each.raw_score for each in plain[:3]]
    assert scored(answer) == read_by_steep == list(range(len(read_by_steep)))
    for result in answer:
        if result.index in read_by_steep:
            assert result.relevance_score == steep.probability(result.raw_score, 0.0)
        else:
            assert result.raw_score is result.relevance_score is None
            assert result.reason.startswith("not read: ")
    answer, read_by_flat = read_by(calibrated(flat))
    assert {answer[place].relevance_score for place in range(len(read_by_flat))} == {0.4}
    assert scored(answer) == read_by_flat  # equal probabilities: the raw score orders them
    assert len(read_by_steep) <= len(read) < len(read_by_flat)


def test_long_documents_are_read_in_pieces_by_the_last_stage():
    long = " ".join(f"word {at} of a long passage." for at in range(100))
    texts = [*DOCUMENTS[:3], f"{long} The needle.", *DOCUMENTS[4:20], f"{long} Unread.", *DOCUMENTS[21:]]
    pieces = {"mode": "chunk", "tokens": 32}
    with CohereLike(score=lambda _, text: 0.9 if "needle" in text else 0.001) as vendor:
        with load_reranker(auto(vendor, 1, long_documents=pieces)) as reranker:
            answer = reranker.rerank(QUERY, texts)
        (request,) = vendor.requests
    assert set(DOCUMENTS[:3] + DOCUMENTS[4:5]) < set(request.documents)
    assert len(request.documents) > FIRST + 5
    assert all(len(text) < len(long) / 2 for text in request.documents)
    assert not any("Unread" in text for text in request.documents)
    assert answer[0].index == 3
    (span,) = answer[0].spans
    assert "needle" in texts[3][span.start : span.end]
    assert sorted(scored(answer)) == list(range(FIRST))
    assert indexes(answer)[FIRST:] == list(range(FIRST, COUNT))


def test_a_permutation_changes_nothing_where_the_first_stage_scores(server: CohereLike):
    order = random.Random(5).sample(range(COUNT), COUNT)
    with CohereLike(score=lambda _, text: 1 / (2 + number(text))) as cheap:
        first = {"use": "http", "base_url": cheap.url, "api_key": cheap.key, "retry": 1}
        with load_reranker(auto(server, first=first)) as reranker:
            one = reranker.rerank(QUERY, DOCUMENTS)
            two = reranker.rerank(QUERY, [DOCUMENTS[place] for place in order])
    assert None in {each.raw_score for each in one}
    assert [(each.document, each.raw_score, each.reason) for each in one] == [
        (each.document, each.raw_score, each.reason) for each in two
    ]


def test_declined_documents_are_not_read_again_and_come_before_the_unread():
    with ChatServer(score=lambda _, text: 0.9 / (1 + number(text))) as vendor:
        vendor.play(Declined(2))
        chat = {"use": "chat:test", "base_url": vendor.url, "api_key": vendor.key, "chat": {"mode": "logprobs"}}
        with load_reranker({"cascade": {"stages": ["passthrough", chat], "keep": "auto", "miss": 1}}) as reranker:
            answer = reranker.rerank(QUERY, DOCUMENTS)
    assert sorted(indexes(answer)[:FIRST]) == list(range(FIRST))
    assert indexes(answer)[FIRST:] == list(range(FIRST, COUNT))


# Failures ----------------------------------------------------------------------------------------------------------


def test_a_later_round_of_a_stand_in_is_left_out(server: CohereLike):
    """Its scores are on another scale: what it read counts as not read, and the answer is degraded."""
    server.play(Step(), Status(500))
    with load_reranker(auto(server, 0, fallback=["lexical"])) as reranker:
        answer = reranker.rerank(QUERY, DOCUMENTS)
    assert answer.degraded
    assert "in place of http" in answer.reason
    assert scored(answer) == list(range(FIRST))
    assert indexes(answer) == list(range(COUNT))
    assert answer[-1].reason == f"not read: http read {FIRST} of {COUNT} documents, then the fallback answered"
    assert len(server.requests) == 2


def test_a_stand_in_s_first_round_is_the_only_one(server: CohereLike):
    server.always(Status(500))
    with load_reranker(auto(server, 0, fallback=["lexical"])) as reranker:
        answer = reranker.rerank(QUERY, DOCUMENTS)
    assert (answer.degraded, answer.model, len(scored(answer))) == (True, "lexical", FIRST)
    with load_reranker(auto(server, 0, on_error="degrade")) as reranker:
        answer = reranker.rerank(QUERY, DOCUMENTS)
    assert (answer.degraded, indexes(answer)) == (True, list(range(COUNT)))
    assert len(server.requests) == 2


def test_a_later_round_that_fails_is_a_failed_call(server: CohereLike):
    server.play(Step(), Status(500))
    with load_reranker(auto(server, 0)) as reranker, pytest.raises(TransientError):
        reranker.rerank(QUERY, DOCUMENTS)
    server.play(Step(), Status(500))
    with load_reranker({**auto(server, 0), "fallback": ["lexical"]}) as reranker:
        answer = reranker.rerank(QUERY, DOCUMENTS)
    assert (answer.degraded, answer.model, len(scored(answer))) == (True, "lexical", COUNT)


def test_the_deadline_is_that_of_all_rounds(server: CohereLike):
    server.play(Step(), Hang())
    with load_reranker({**auto(server, 0), "deadline": 0.4}) as reranker, pytest.raises(DeadlineExceeded):
        reranker.rerank(QUERY, DOCUMENTS)
    assert len(server.requests) == 2


# Options --------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("cascade", "message"),
    [
        ({"stages": ["lexical", "embedded"], "keep": "all"}, "cascade.keep"),
        ({"stages": ["lexical", "embedded"], "keep": [3], "miss": 0.1}, "has miss, which belongs to keep 'auto'"),
        ({"stages": ["lexical", "embedded"], "keep": 3, "for_top": 5}, "has for_top, which belongs to keep 'auto'"),
        ({"stages": ["lexical", "embedded"], "keep": "auto", "miss": 2}, "miss must be.*from 0 to 1"),
        ({"stages": ["lexical", "embedded"], "keep": "auto", "for_top": 0}, "for_top must be.*at least 1"),
        ({"stages": ["lexical", "embedded:fast", "embedded"], "keep": "auto"}, "must have two stages with keep 'auto'"),
        ({"stages": ["embedded", "lexical"], "keep": "auto"}, "lexical scores documents by comparing them"),
        ({"stages": ["lexical", "passthrough"], "keep": "auto"}, "passthrough only orders documents"),
        ({"stages": ["lexical", "embedded:balanced"], "keep": "auto"}, "comparing them"),
    ],
)
def test_invalid_options_raise(cascade: dict, message: str):
    with pytest.raises(ConfigError, match=message):
        load_reranker({"cascade": cascade})


def test_a_spec_with_auto_survives_its_round_trip():
    spec = {"cascade": {"stages": ["lexical", "embedded:fast"], "keep": "auto", "miss": 0.02, "for_top": 5}}
    with load_reranker(spec) as reranker:
        assert reranker.spec == spec
        assert reranker.scorer.keep == (Depth(5, 0.02),)


# The parts of an answer -----------------------------------------------------------------------------------------------


class Detailed(Scripted):
    """Gives each document a value, a span and a flag that name the document."""

    async def ascore(self, request: RerankRequest) -> Scores:
        self.calls.append((0.0, request))
        numbers = [number(text) for text in request.documents]
        return Scores(
            values=tuple(1.0 - each / 100 for each in numbers),
            model=self.label,
            capabilities=self.capabilities,
            usage=Usage(requests=1, input_tokens=len(numbers)),
            truncated=tuple(each % 3 == 0 for each in numbers) if min(numbers) % 2 else None,
            spans=tuple((Span(0, each + 1, 0.5),) for each in numbers),
        )


@pytest.mark.parametrize("seed", range(5))
def test_the_parts_of_an_answer_stay_with_their_documents(seed: int):
    order = random.Random(seed).sample(range(COUNT), COUNT)
    request = RerankRequest(query=QUERY, documents=tuple(DOCUMENTS), retrieval_scores=tuple(map(float, range(COUNT))))
    backend = Detailed(capabilities=Capabilities(scale="unit"))
    part = asyncio.run(score_to_depth(backend.ascore, request, order, [0.0] * COUNT, Depth(10, 0.02)))
    requests = [own for _, own in backend.calls]
    assert 1 < len(requests) <= ROUNDS
    assert part.read == sorted(order[: len(part.read)])
    assert part.unread == order[len(part.read) :]
    assert part.scores.values == tuple(1.0 - each / 100 for each in part.read)
    assert [spans[0].end - 1 for spans in part.scores.spans] == part.read
    assert part.scores.usage == Usage(requests=len(requests), input_tokens=len(part.read))
    flagged = {number(text) for own in requests if min(map(number, own.documents)) % 2 for text in own.documents}
    expected = tuple(each in flagged and each % 3 == 0 for each in part.read)
    assert part.scores.truncated == (expected if flagged else None)
    assert all(own.retrieval_scores == tuple(float(number(text)) for text in own.documents) for own in requests)


def test_a_reranker_of_its_own_class_needs_no_depth():
    with Reranker(Scripted()) as reranker:
        assert len(reranker.rerank(QUERY, DOCUMENTS)) == COUNT
