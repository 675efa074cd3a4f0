"""Cascade: a cheap stage over all documents, an expensive one over the best of them."""

from __future__ import annotations

import pytest

from rerank_plugins import ConfigError, InputError, RerankResponse, TransientError, load_reranker
from rerank_plugins.testing.cohere_like import CohereLike
from rerank_plugins.testing.script import Status
from rerank_plugins.testing.vendors import VENDORS

QUERY = "why are there tides"
DOCUMENTS = [
    "bananas are yellow",
    "tides: there are two a day",
    "the moon pulls the sea",
    "tides",
    "why?",
    "tides",
    "",
    "a red car",
]


@pytest.fixture
def server():
    with CohereLike(score=lambda _, text: 1.0 / (1.0 + len(text))) as running:  # short is good
        yield running


def stage(server: CohereLike, **options) -> dict:
    return {"use": "http", "base_url": server.url, "api_key": server.key, "retry": 1, **options}


def indexes(response: RerankResponse) -> list[int]:
    return [result.index for result in response]


def test_the_last_stage_orders_its_documents_the_first_one_the_rest(server):
    first = indexes(load_reranker("lexical").rerank(QUERY, DOCUMENTS))
    with load_reranker({"cascade": {"stages": ["lexical", stage(server)], "keep": [3]}}) as reranker:
        answer = reranker.rerank(QUERY, DOCUMENTS)
    (request,) = server.requests
    assert len(request.documents) == 3  # texts: two of the documents are one
    seen = [index for index in first if DOCUMENTS[index] in request.documents]
    rest = [index for index in first if index not in seen]
    assert indexes(answer) == [*sorted(seen, key=lambda index: (len(DOCUMENTS[index]), index)), *rest]
    assert [result.raw_score is None for result in answer] == [False] * 4 + [True] * 4
    assert answer[4].reason == "not among the 3 documents that http was asked for"
    assert answer[-1].reason.startswith("blank")
    assert (answer.scale, answer.model, answer.usage.requests) == ("unit", "http", 1)
    assert [(each.model, each.outcome, each.detail) for each in answer.attempts] == [
        ("lexical", "answered", None),
        ("http", "answered", None),
        ("http", "kept", "3 of 6 documents"),
    ]


def test_attempts_contain_the_cost_of_each_stage(server):
    def priced(one: CohereLike, dollars: float) -> dict:
        return {**stage(one), "use": "cohere:rerank-v3.5", "base_url": one.url, "price": {"per_search_unit": dollars}}

    with VENDORS["cohere"]() as cheap, VENDORS["cohere"]() as dear:
        stages = [priced(cheap, 0.001) | {"api_key": cheap.key}, priced(dear, 0.002) | {"api_key": dear.key}]
        with load_reranker({"cascade": {"stages": stages, "keep": [3]}}) as reranker:
            answer = reranker.rerank(QUERY, DOCUMENTS)
    first, second, event = answer.attempts
    assert (first.usage.cost_usd, second.usage.cost_usd) == (pytest.approx(0.001), pytest.approx(0.002))
    assert (first.usage.requests, second.usage.requests, event.usage) == (1, 1, None)
    assert answer.usage.cost_usd == pytest.approx(0.003)


def test_truncated_is_that_of_the_last_stage_of_each_document(server):
    """Documents 0, 1 and 3 are long. 0 and 3 reach the second stage, which has no limit; 1 is only read in part."""
    long = "word " * 2_000
    documents = ["tides " + long, "sand " + long, "sand", "tides tides " + long, ""]
    first = stage(server, http={"max_tokens": 100})
    with (
        CohereLike(score=lambda _, text: text.count("tides") / 10) as cheap,
        load_reranker(
            {
                "cascade": {
                    "stages": [{**first, "base_url": cheap.url, "api_key": cheap.key}, stage(server)],
                    "keep": [2],
                }
            }
        ) as reranker,
    ):
        answer = reranker.rerank(QUERY, documents)
    assert {each.index: each.truncated for each in answer} == {0: False, 3: False, 1: True, 2: False, 4: False}
    assert next(each for each in answer if each.index == 1).raw_score is None


def test_a_first_stage_may_be_a_fusion(server):
    first = {"use": "lexical", "fuse": {"with": ["embedded:fast", "passthrough"]}}
    with load_reranker(first) as cheap:
        best = [DOCUMENTS[index] for index in indexes(cheap.rerank(QUERY, DOCUMENTS))]
    with load_reranker({"cascade": {"stages": [first, stage(server)], "keep": [3]}}) as reranker:
        answer = reranker.rerank(QUERY, DOCUMENTS)
    assert set(server.requests[0].documents) == set(list(dict.fromkeys(best))[:3])
    assert answer.scale == "unit"


def test_three_stages(server):
    with CohereLike() as last:
        spec = {"cascade": {"stages": ["lexical", stage(server), stage(last)], "keep": [4, 2]}}
        with load_reranker(spec) as reranker:
            answer = reranker.rerank(QUERY, DOCUMENTS)
        assert [len(each.documents) for each in (*server.requests, *last.requests)] == [4, 2]
    assert sorted(indexes(answer)) == list(range(8))
    assert answer.usage.requests == 2


def test_keep_above_the_count_equals_the_last_stage_alone(server):
    with load_reranker({"cascade": {"stages": ["lexical", stage(server)], "keep": 99}}) as reranker:
        answer = reranker.rerank(QUERY, DOCUMENTS)
        assert reranker.rerank(QUERY, []).results == ()
    with load_reranker(stage(server)) as alone:
        assert indexes(answer) == indexes(alone.rerank(QUERY, DOCUMENTS))


def test_an_open_gate_skips_the_next_stage(server):
    sure = CohereLike(score=lambda _, text: 0.9 if "moon" in text else 0.1)
    with sure:
        spec = {"cascade": {"stages": [stage(sure), stage(server)], "keep": [3], "gate": 0.5}}
        with load_reranker(spec) as reranker:
            answer = reranker.rerank(QUERY, DOCUMENTS)
        assert (answer[0].index, answer[0].raw_score, server.requests) == (2, 0.9, [])
        assert [each.outcome for each in answer.attempts] == ["answered", "spared"]
        spec["cascade"]["gate"] = 0.85
        with load_reranker(spec) as reranker:
            reranker.rerank(QUERY, DOCUMENTS)
        assert len(server.requests) == 1


def test_a_failed_stage_raises_unless_the_cascade_has_a_fallback(server):
    server.always(Status(500))
    cascade = {"stages": ["lexical", stage(server)], "keep": [3]}
    with load_reranker({"cascade": cascade}) as reranker, pytest.raises(TransientError):
        reranker.rerank(QUERY, DOCUMENTS)
    with load_reranker({"cascade": cascade, "fallback": ["lexical"]}) as reranker:
        answer = reranker.rerank(QUERY, DOCUMENTS)
    assert (answer.degraded, answer.model) == (True, "lexical")


def test_a_stage_that_degrades_keeps_the_order_of_the_stage_before(server):
    server.always(Status(500))
    spec = {"cascade": {"stages": ["lexical", stage(server, on_error="degrade")], "keep": [3]}}
    with load_reranker(spec) as reranker:
        answer = reranker.rerank(QUERY, DOCUMENTS)
    assert answer.degraded
    assert indexes(answer) == indexes(load_reranker("lexical").rerank(QUERY, DOCUMENTS))
    assert "in place of http" in answer.reason


def test_a_cascade_that_ends_in_passthrough_gives_a_reason():
    with load_reranker({"cascade": {"stages": ["lexical", "passthrough"], "keep": [3]}}) as reranker:
        answer = reranker.rerank(QUERY, DOCUMENTS)
    assert answer.degraded
    assert indexes(answer) == indexes(load_reranker("lexical").rerank(QUERY, DOCUMENTS))
    assert answer.reason.startswith(
        "passthrough, the last stage called, returns no scores: the order is that of lexical"
    )


def test_a_threshold_applies_to_the_last_stage_and_needs_one_scale(server):
    spec = {"cascade": {"stages": ["lexical", stage(server)], "keep": [3]}, "score_threshold": 0.15}
    with load_reranker(spec) as reranker:
        assert {DOCUMENTS[index] for index in indexes(reranker.rerank(QUERY, DOCUMENTS))} == {"tides"}
    logits = stage(server, http={"scale": "logit"})
    with pytest.raises(ConfigError, match="different things"):
        load_reranker(
            {"cascade": {"stages": [logits, stage(server)], "keep": [3], "gate": 0.5}, "score_threshold": 0.1}
        )


def test_an_instruction_reaches_the_stages_that_follow_one(server):
    with pytest.raises(InputError, match="cannot follow an instruction"):
        load_reranker({"cascade": {"stages": ["lexical", "embedded"], "keep": [3]}}).rerank(
            QUERY, DOCUMENTS, instruction="newest first"
        )
    with CohereLike() as follows:
        follows.optional = {**follows.optional, "instruction": str}
        last = stage(follows, http={"instruction_field": "instruction"})
        spec = {"cascade": {"stages": ["lexical", last], "keep": [3]}, "instruction": "newest first"}
        with load_reranker(spec) as reranker:
            reranker.rerank(QUERY, DOCUMENTS)
        assert follows.requests[0].body["instruction"] == "newest first"


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ({"cascade": "lexical"}, "^cascade must be a mapping, got a string"),
        ({"cascade": {"stages": ["lexical"], "keep": []}}, "^cascade must have two stages or more.*got 1"),
        ({"cascade": {"stages": ["lexical", "embedded"]}}, "^cascade.keep is missing"),
        (
            {"cascade": {"stages": ["lexical", "embedded"], "keep": [1, 2]}},
            "^cascade must have one number in keep for each stage except the last, 1 here, got 2",
        ),
        ({"cascade": {"stages": ["lexical", "embedded"], "keep": [0]}}, "at least 1"),
        ({"cascade": {"stages": ["lexical", "embedded"], "keep": [3], "gate": 2}}, "from 0 to 1"),
        ({"cascade": {"stages": ["passthrough", "lexical"], "keep": [3], "gate": 0.5}}, "passthrough only orders"),
        ({"cascade": {"stages": ["lexical", "embeded"], "keep": [3]}}, "embedded"),
        ({"cascade": {"stages": ["lexical", "embedded"], "keep": [3], "stop": 1}}, "option of cascade"),
        ({"use": "lexical", "cascade": {"stages": ["lexical", "embedded"], "keep": [3]}}, "no use of its own"),
        ({"max_tokens": 99, "cascade": {"stages": ["lexical", "embedded"], "keep": [3]}}, "no max_tokens of its own"),
    ],
)
def test_invalid_options_raise(spec: dict, message: str):
    with pytest.raises(ConfigError, match=message):
        load_reranker(spec)


def test_stages_may_be_named_rerankers(tmp_path, server):
    file = tmp_path / "rerank.toml"
    file.write_text(
        f"""
        [rerankers.sharp]
        use = "http"
        base_url = "{server.url}"
        api_key = "{server.key}"

        [rerankers.both.cascade]
        stages = ["lexical", "sharp"]
        keep = [2]
        """
    )
    with load_reranker("both", config=file) as reranker:
        assert reranker.rerank(QUERY, DOCUMENTS).model == "http"
        assert reranker.spec["cascade"]["stages"][1] == {"use": "http", "base_url": server.url}
