"""`Reranker` over one small scorer: order of results, checks of the input, and what the response reports."""

from __future__ import annotations

import copy
import datetime as dt
import enum
import json
import math
import threading
from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import replace
from decimal import Decimal

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rerank_plugins import BadResponse, ConfigError, InputError, Reranker, RerankResponse, RerankResult, Usage
from rerank_plugins.core import Capabilities, LocalBackend, RerankRequest, Scorer, Scores, SDKBackend, Span
from rerank_plugins.policies.instrumented import Instrumented


class Fixed(Scorer):
    """A scorer that returns the scores of its constructor. It records every request."""

    label = "fixed"

    def __init__(self, *values: float | None, **capabilities) -> None:
        self.values = values
        self.capabilities = Capabilities(**capabilities)
        self.requests: list[RerankRequest] = []

    async def ascore(self, request):
        self.requests.append(request)
        return Scores(values=tuple(self.values), model=self.label, capabilities=self.capabilities)


class ByLength(Fixed):
    """A scorer whose score is the length of a document, so the expected order of any input is known."""

    async def ascore(self, request):
        self.requests.append(request)
        values = tuple(float(len(document)) for document in request.documents)
        return Scores(values=values, model=self.label, capabilities=self.capabilities)


class FixedScores(LocalBackend):
    """A local backend whose `score` returns the scores of its constructor."""

    model = "fixed"
    capabilities = Capabilities(scale="logit")

    def __init__(self, scores) -> None:
        super().__init__()
        self.scores = scores

    def score(self, query: str, documents: Sequence[str]):
        return self.scores(documents) if callable(self.scores) else self.scores


def letters(count: int) -> list[str]:
    return [f"document {number}" for number in range(count)]


def indexes(response: RerankResponse) -> list[int]:
    return [result.index for result in response]


def ranked(*values: float | None, documents=None, top_n=None, **capabilities) -> RerankResponse:
    scorer = Fixed(*values, **{"scale": "logit", **capabilities})
    return Reranker(scorer).rerank("query", documents or letters(len(values)), top_n=top_n)


# --- order and scale ---


def test_results_are_best_first_and_ties_keep_the_input_order():
    assert indexes(ranked(1.0, 3.0, 2.0, 3.0, 1.0)) == [1, 3, 2, 0, 4]


@given(st.lists(st.floats(allow_nan=False, allow_infinity=False), max_size=30))
def test_order_is_a_stable_sort_by_raw_score(values):
    response = ranked(*values, documents=letters(len(values)))
    assert indexes(response) == sorted(range(len(values)), key=lambda index: -values[index])
    assert [result.raw_score for result in response] == [values[index] for index in indexes(response)]
    relevances = [result.relevance_score for result in response]
    assert relevances == sorted(relevances, reverse=True)
    assert all(0.0 <= each <= 1.0 for each in relevances)


def test_raw_scores_that_differ_only_in_float64_are_ordered():
    low, high = 40.0, math.nextafter(40.0, math.inf)
    response = ranked(low, high)
    assert indexes(response) == [1, 0]
    assert response[0].relevance_score == response[1].relevance_score  # both are 1.0 after the sigmoid


def test_integer_scores_become_floats():
    response = Reranker(FixedScores([2, 3])).rerank("query", letters(2))
    assert [type(result.raw_score) for result in response] == [float, float]


@pytest.mark.parametrize(
    ("capabilities", "raw", "relevance"),
    [
        ({"scale": "unit"}, 0.25, 0.25),
        ({"scale": "unit"}, 1.0000002, 1.0),
        ({"scale": "unit"}, -0.1, 0.0),
        ({"scale": "cosine"}, -1.0, 0.0),
        ({"scale": "cosine"}, 0.5, 0.75),
        ({"scale": "cosine"}, 1.1, 1.0),
        ({"scale": "logit"}, 0.0, 0.5),
        ({"scale": "logit"}, 2.0, 1 / (1 + math.exp(-2))),
        ({"scale": "logit"}, -2.0, 1 / (1 + math.exp(2))),
        ({"scale": "logit"}, 1e4, 1.0),
        ({"scale": "logit"}, -1e4, 0.0),
        ({"scale": "logit", "offset": 3.0}, 3.0, 0.5),
        ({"scale": "logit", "offset": 3.0, "divisor": 2.0}, 7.0, 1 / (1 + math.exp(-2))),
        ({"scale": "logit", "offset": -1e4, "divisor": 0.5}, 1e4, 1.0),
    ],
)
def test_relevance_score_follows_the_declared_scale(capabilities, raw, relevance):
    (result,) = ranked(raw, **capabilities)
    assert result.relevance_score == pytest.approx(relevance, abs=1e-12)
    assert result.raw_score == raw


def test_scale_is_never_guessed_from_the_values():
    assert [result.relevance_score for result in ranked(0.9, 0.1, scale="logit")] != [0.9, 0.1]


def test_ordinal_relevance_depends_only_on_the_rank():
    response = ranked(-700.0, 5.0, 5.0, 900.0, scale="ordinal")
    assert indexes(response) == [3, 1, 2, 0]
    first, second, third, last = (result.relevance_score for result in response)
    assert 1.0 == first > second == third > last > 0.0


def test_documents_without_scores_keep_the_input_order():
    response = ranked(None, None, None, scale="ordinal")
    assert indexes(response) == [0, 1, 2]
    assert {(result.relevance_score, result.raw_score) for result in response} == {(None, None)}


# --- threshold and top_n ---


def test_threshold_is_inclusive_and_applied_before_top_n():
    reranker = Reranker(Fixed(0.2, 0.5, 0.9, 0.49, scale="unit"), score_threshold=0.5)
    assert indexes(reranker.rerank("query", letters(4))) == [2, 1]
    assert indexes(reranker.rerank("query", letters(4), top_n=1)) == [2]
    assert indexes(reranker.rerank("query", letters(4), top_n=3)) == [2, 1]


def test_threshold_drops_blank_documents():
    reranker = Reranker(Fixed(0.9, scale="unit"), score_threshold=0.0)
    assert indexes(reranker.rerank("query", [" ", "text"])) == [1]


def test_threshold_is_not_applied_to_degraded_scores():
    class Degraded(Fixed):
        async def ascore(self, request):
            return replace(await super().ascore(request), degraded=True, reason="a fallback answered")

    response = Reranker(Degraded(0.1, 0.2, scale="unit"), score_threshold=0.9).rerank("query", letters(2))
    assert indexes(response) == [1, 0]
    assert response.degraded
    assert response.reason == "a fallback answered"


@pytest.mark.parametrize("threshold", [-0.1, 1.1, math.nan, True, "0.5"])
def test_threshold_out_of_range_is_refused(threshold):
    with pytest.raises(ConfigError, match="from 0 to 1"):
        Reranker(Fixed(scale="unit"), score_threshold=threshold)


def test_threshold_over_ordinal_scores_is_refused():
    with pytest.raises(ConfigError, match="Use top_n"):
        Reranker(Fixed(scale="ordinal"), score_threshold=0.5)


@pytest.mark.parametrize(("top_n", "count"), [(None, 3), (1, 1), (3, 3), (4, 3), (10**9, 3)])
def test_top_n(top_n, count):
    assert indexes(ranked(1.0, 2.0, 3.0, top_n=top_n)) == [2, 1, 0][:count]


@pytest.mark.parametrize("top_n", [0, -1, True, 1.0, 2.5, "3"])
def test_top_n_below_one_or_not_an_integer_is_refused(top_n):
    scorer = Fixed(1.0)
    with pytest.raises(InputError, match="at least 1"):
        Reranker(scorer).rerank("query", letters(1), top_n=top_n)
    with pytest.raises(InputError, match="at least 1"):  # refused without documents too
        Reranker(scorer).rerank("query", [], top_n=top_n)
    with pytest.raises(ConfigError, match="at least 1"):
        Reranker(scorer, top_n=top_n)
    assert scorer.requests == []


def test_top_n_of_the_call_overrides_that_of_the_reranker():
    reranker = Reranker(Fixed(1.0, 2.0, 3.0, scale="logit"), top_n=1)
    assert len(reranker.rerank("query", letters(3))) == 1
    assert len(reranker.rerank("query", letters(3), top_n=2)) == 2


@pytest.mark.parametrize("documents", [[], (), iter([])])
def test_empty_documents_need_no_request(documents):
    scorer = Fixed()
    response = Reranker(scorer).rerank("query", documents)
    assert (list(response), scorer.requests) == ([], [])
    assert (response.model, response.degraded, response.usage) == ("fixed", False, Usage())


# --- exactly one finite score for every document ---


@pytest.mark.parametrize(
    "scores",
    [
        [1.0],
        [1.0, 2.0, 3.0],
        [],
        [1.0, math.nan],
        [1.0, math.inf],
        [-math.inf, 1.0],
        [1.0, None],
        [1.0, "2.0"],
        [1.0, True],
        [1.0, b"2"],
        [1.0, [2.0]],
        [1.0, 2j],
        [1.0, Decimal("sNaN")],
        pytest.param([1.0, 10**400], id="too large"),
        np.zeros((2, 2)),
        None,
        0.5,
        {"a": 1.0, "b": 2.0},
    ],
    ids=str,
)
def test_invalid_scores_raise_bad_response(scores):
    with pytest.raises(BadResponse, match="fixed") as caught:
        Reranker(FixedScores(scores)).rerank("query", letters(2))
    assert caught.value.backend == "FixedScores:fixed"


class ThroughSDK(SDKBackend):
    key_required = False

    def open(self):
        return object()

    def translate(self, error):
        return error

    async def ask(self, client, request):
        return Scores(values=(1.0,), model=self.label, capabilities=self.capabilities)


def test_scores_of_an_sdk_backend_are_checked():
    reranker = Reranker(ThroughSDK())
    assert indexes(reranker.rerank("query", letters(1))) == [0]
    with pytest.raises(BadResponse, match="1 scores for 2 documents"):
        reranker.rerank("query", letters(2))
    reranker.close()


# --- inputs are not modified ---


async def test_inputs_are_not_modified_and_returned_by_identity():
    documents = ["b", {"title": "x", "tags": ["y", {"z": 1}]}, "", "b", "longest of all the documents here"]
    scores = [0.1, 0.2, 0.3, 0.4, 0.5]
    before = copy.deepcopy((documents, scores))
    reranker = Reranker(ByLength(scale="logit"))
    for response in (
        reranker.rerank("query", documents, retrieval_scores=scores),
        await reranker.arerank("query", documents, retrieval_scores=scores),
    ):
        assert (documents, scores) == before
        assert sorted(indexes(response)) == [0, 1, 2, 3, 4]
        assert all(result.document is documents[result.index] for result in response)


def test_arguments_after_the_documents_are_keyword_only():
    reranker = Reranker(ByLength())
    for method in (reranker.rerank, reranker.arerank):
        with pytest.raises(TypeError, match="positional"):
            method("query", ["a", "b"], 1)


async def test_sync_and_async_results_are_equal():
    reranker = Reranker(ByLength(scale="logit"), top_n=3)
    documents = ["aaa", "a", "", "aa", "aaaa"]
    assert reranker.rerank("query", documents).results == (await reranker.arerank("query", documents)).results


# --- blank, duplicate and invalid input ---


@pytest.mark.parametrize("query", ["", " ", "\n\t", "\u3000"])
def test_blank_query_raises_an_input_error(query):
    scorer = Fixed(1.0)
    with pytest.raises(InputError, match="query is blank"):
        Reranker(scorer).rerank(query, letters(1))
    assert scorer.requests == []


@pytest.mark.parametrize("query", [None, 5, b"query", ["query"]])
def test_query_of_a_wrong_type_is_refused(query):
    with pytest.raises(InputError, match=r"query must be a string, got (None|5|bytes|a list)\. Pass"):
        Reranker(Fixed(1.0)).rerank(query, letters(1))


def test_blank_documents_are_last_with_a_reason_and_not_sent():
    scorer = ByLength(scale="logit")
    response = Reranker(scorer).rerank("query", ["", "long text", " \n", {"title": "", "body": None}, "text", {}])
    assert indexes(response) == [1, 4, 0, 2, 3, 5]
    assert scorer.requests[0].documents == ("long text", "text")
    for blank in response[2:]:
        assert (blank.relevance_score, blank.raw_score) == (None, None)
        assert blank.reason.startswith("blank")
    assert all(result.reason is None for result in response[:2])


def test_only_blank_documents_need_no_request():
    scorer = Fixed()
    assert indexes(Reranker(scorer).rerank("query", ["", " "])) == [0, 1]
    assert scorer.requests == []


def test_blank_documents_are_last_without_scores_too():
    assert indexes(Reranker(Fixed(None, None, scale="ordinal")).rerank("query", ["", "a", "b"])) == [1, 2, 0]


def test_identical_texts_are_scored_once():
    scorer = ByLength(scale="logit")
    response = Reranker(scorer).rerank("query", ["same", "other text", "same", "same"], retrieval_scores=[4, 3, 2, 1])
    assert scorer.requests[0].documents == ("same", "other text")
    assert scorer.requests[0].retrieval_scores == (4.0, 3.0)
    assert indexes(response) == [1, 0, 2, 3]
    assert {result.raw_score for result in response[1:]} == {4.0}


@pytest.mark.parametrize(
    "wrong", [None, 5, 1.5, b"bytes", ["nested"], object()], ids=lambda value: type(value).__name__
)
def test_document_of_a_wrong_type_is_refused_with_its_index(wrong):
    scorer = Fixed()
    with pytest.raises(
        InputError, match=r"Document 2 must be a string or a mapping of fields, got .*\. (Leave it out|Decode it)"
    ):
        Reranker(scorer).rerank("query", ["a", "", wrong, "b"])
    assert scorer.requests == []


@pytest.mark.parametrize("documents", ["one text", b"bytes", {"text": "x"}, None, 5])
def test_documents_other_than_a_list_are_refused(documents):
    with pytest.raises(InputError, match=r"documents must be a list of strings or mappings, got .*: pass a list"):
        Reranker(Fixed()).rerank("query", documents)


def test_documents_may_be_a_generator_or_a_tuple():
    reranker = Reranker(ByLength(scale="logit"))
    assert indexes(reranker.rerank("query", (text for text in ("a", "aa")))) == [1, 0]
    assert indexes(reranker.rerank("query", ("a", "aa"))) == [1, 0]


def test_ten_thousand_documents_are_sorted():
    documents = [f"{'x' * (number % 97 + 1)} {number:05}" for number in range(10_000)]
    response = Reranker(ByLength(scale="logit")).rerank("query", documents)
    assert indexes(response) == sorted(range(10_000), key=lambda index: -len(documents[index]))


def test_very_long_document_is_sent_whole():
    scorer = ByLength(scale="logit")
    response = Reranker(scorer).rerank("query", ["short", "x" * 200_000])
    assert response[0].raw_score == 200_000.0
    assert scorer.requests[0].documents[1] == "x" * 200_000


@pytest.mark.parametrize(
    ("text", "sent"),
    [
        ("שלום \u202eעולם", "שלום \u202eעולם"),
        ("nul\0inside", "nul\0inside"),
        ("lone \ud800 high", "lone \ufffd high"),
        ("lone \udc00 low", "lone \ufffd low"),
        ("an emoji 👩‍🚀", "an emoji 👩‍🚀"),
    ],
)
def test_text_is_sent_with_lone_surrogates_replaced(text, sent):
    scorer = ByLength(scale="logit")
    response = Reranker(scorer).rerank(text, [text])
    assert scorer.requests[0].query == scorer.requests[0].documents[0] == sent
    assert response[0].document == text


def test_mappings_become_yaml_in_the_order_of_their_fields():
    scorer = ByLength(scale="logit")
    document = {"title": "Zürich", "body": "two\nlines", "year": 1995, "tags": ["a", "b"], "empty": None, "blank": " "}
    Reranker(scorer).rerank("query", ["plain", document])
    (request,) = scorer.requests
    assert request.documents[1] == ("title: Zürich\nbody: 'two\n\n  lines'\nyear: 1995\ntags:\n- a\n- b\n")
    read = {name: value for name, value in document.items() if name not in ("empty", "blank")}
    assert request.fields == (None, read)


class Kind(enum.StrEnum):
    NEWS = "news"


def test_fields_of_derived_types_and_shared_lists_become_plain_yaml():
    scorer, tags = ByLength(scale="logit"), ["a"]
    document = {
        "kind": Kind.NEWS,
        "price": np.float64(1.5),
        "seen": np.int64(3),
        "tags": tags,
        "more": OrderedDict(tags=tags),
    }
    Reranker(scorer).rerank("query", [document])
    assert scorer.requests[0].documents == ("kind: news\nprice: 1.5\nseen: 3\ntags:\n- a\nmore:\n  tags:\n  - a\n",)


def test_fields_of_a_request_are_json_serializable():
    scorer = ByLength(scale="logit")
    day = dt.date(2026, 11, 25)
    document = {
        "a": "\ud800b",
        "b": math.inf,
        "c": np.int64(3),
        "d": day,
        4: (Kind.NEWS, None, True),
        "e": {"f": {0.5}},
    }
    Reranker(scorer).rerank("query", [document])
    assert scorer.requests[0].fields == (
        {"a": "\ufffdb", "b": None, "c": 3, "d": "2026-11-25", "4": ["news", None, True], "e": {"f": [0.5]}},
    )
    assert json.loads(json.dumps(scorer.requests[0].fields, allow_nan=False)) == list(scorer.requests[0].fields)


@pytest.mark.parametrize("value", [object(), 1j, ["deep", {"x": object()}]])
def test_error_about_an_unsupported_field_has_its_path_not_its_value(value):
    with pytest.raises(
        InputError, match=r"Document 1 has a field 'thing(\.x)?' .*of type (object|complex): make it"
    ) as caught:
        Reranker(Fixed()).rerank("query", ["a", {"thing": value}])
    assert "0x" not in str(caught.value)


def test_field_that_contains_itself_is_refused():
    circle: dict = {}
    circle["round"] = [circle]
    with pytest.raises(InputError, match="contains itself"):
        Reranker(Fixed()).rerank("query", [circle])


# --- retrieval scores, instruction ---


@pytest.mark.parametrize("scores", [[], [1.0], [1.0, 2.0, 3.0]])
def test_wrong_number_of_retrieval_scores_is_refused(scores):
    with pytest.raises(
        InputError, match=f"retrieval_scores must have one number for each of the 2 documents, got {len(scores)}"
    ):
        Reranker(Fixed(1.0, 2.0)).rerank("query", letters(2), retrieval_scores=scores)


@pytest.mark.parametrize("scores", [[1.0, None], [1.0, "high"], 5, [1.0, object()], [1.0, math.nan], [math.inf, 1]])
def test_retrieval_scores_other_than_finite_numbers_are_refused(scores):
    with pytest.raises(InputError, match="retrieval_scores"):
        Reranker(Fixed(1.0, 2.0)).rerank("query", letters(2), retrieval_scores=scores)


def test_instruction_is_sent_if_supported_and_refused_otherwise():
    scorer = Fixed(1.0, instructions=True)
    reranker = Reranker(scorer, instruction="of the spec")
    reranker.rerank("query", letters(1))
    reranker.rerank("query", letters(1), instruction="of the call")
    assert [request.instruction for request in scorer.requests] == ["of the spec", "of the call"]
    with pytest.raises(InputError, match="cannot follow an instruction"):
        Reranker(Fixed(1.0)).rerank("query", letters(1), instruction="any")
    Reranker(Fixed(1.0)).rerank(
        "query", letters(1), instruction=""
    )  # an empty instruction is none, so it is not refused


@pytest.mark.parametrize("instruction", [5, b"bytes", ["a"]])
def test_instruction_of_a_wrong_type_is_refused(instruction):
    with pytest.raises(InputError, match="instruction must be a string or None, got"):
        Reranker(Fixed(1.0, instructions=True)).rerank("query", letters(1), instruction=instruction)


# --- the response ---


def test_response_is_a_sequence():
    response = ranked(1.0, 2.0, 3.0)
    assert isinstance(response, Sequence)
    assert len(response) == 3
    assert response[0] is response.results[0]
    assert response[-1].index == 0
    assert response[:2] == response.results[:2]
    assert response[1] in response
    assert [result.index for result in reversed(response)] == [0, 1, 2]
    assert not ranked(documents=[])
    with pytest.raises(IndexError):
        response[3]


def test_response_is_immutable_and_its_repr_has_no_document():
    response = ranked(1.0, documents=["a private text"])
    with pytest.raises(AttributeError):
        response[0].index = 5
    assert "private" not in repr(response)
    assert isinstance(response[0], RerankResult)


def test_truncated_and_spans_are_assigned_to_their_document():
    class TruncatedWithSpans(Fixed):
        async def ascore(self, request):
            return replace(await super().ascore(request), truncated=(False, True), spans=((), (Span(0, 3, 0.9),)))

    response = Reranker(TruncatedWithSpans(1.0, 2.0, scale="logit")).rerank("query", ["a", " ", "b", "a"])
    assert [(result.index, result.truncated) for result in response] == [(2, True), (0, False), (3, False), (1, False)]
    assert [len(result.spans) for result in response] == [1, 0, 0, 0]


def test_response_has_attempts_usage_and_latency():
    class Remote(FixedScores):
        remote = True

    response = Reranker(Instrumented(Remote([1.0, 2.0]))).rerank("query", letters(2))
    (attempt,) = response.attempts
    assert (attempt.model, attempt.outcome, attempt.remote) == ("Remote:fixed", "answered", True)
    assert response.usage == Usage(requests=1)
    assert response.latency_ms >= attempt.milliseconds > 0
    local = Reranker(Instrumented(FixedScores([1.0, 2.0]))).rerank("query", letters(2))
    assert (len(local.attempts), local.usage.requests) == (1, 0)


def test_calls_on_four_threads_give_the_scores_of_one():
    """State shared between calls would mix up the documents of two threads."""
    reranker = Reranker(FixedScores(lambda documents: [float(len(document)) for document in documents]))
    documents = [["x" * (number * step % 13 + 1) for number in range(40)] for step in range(1, 5)]
    expected = [indexes(reranker.rerank("query", each)) for each in documents]
    orders: list[list[int] | None] = [None] * 4

    def work(position: int) -> None:
        for _ in range(10):
            orders[position] = indexes(reranker.rerank("query", documents[position]))

    threads = [threading.Thread(target=work, args=(position,)) for position in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert orders == expected


async def test_sync_call_inside_a_running_loop_works():
    assert indexes(ranked(1.0, 2.0)) == [1, 0]


def test_pickling_a_reranker_without_a_spec_raises_a_type_error():
    import pickle

    with pytest.raises(TypeError, match="load_reranker"):
        pickle.dumps(Reranker(Fixed()))
