"""Decision models: what is sent, what the vendors' documented replies give, parts, refusals, cost and injections."""

from __future__ import annotations

import json
from typing import Any

import pytest
from support.hostile import HOSTILE, obedient

from rerank_plugins import load_reranker
from rerank_plugins.core import BadResponse, ConfigError, Rejected
from rerank_plugins.testing.script import JSON, Declined, Status, Step
from rerank_plugins.testing.server import share_of_words
from rerank_plugins.testing.vendors import OpenAIDecisionsServer, TypeSafeServer

QUERY = "how do the tides work"
DOCUMENTS = ["The moon pulls the tides.", "Bananas are yellow.", "Tides work by gravity."]
SERVERS = {"openai": OpenAIDecisionsServer, "typesafe": TypeSafeServer}


def rerank(server: Any, use: str, documents: Any = DOCUMENTS, instruction: str | None = None, **options: Any) -> Any:
    spec = {"use": use, "base_url": server.url, "api_key": server.key, "retry": 1, **options}
    with load_reranker(spec) as reranker:
        return reranker.rerank(QUERY, documents, instruction=instruction)


def state_of(body: dict[str, Any]) -> dict[str, Any]:
    if "state" in body:
        return body["state"]
    if isinstance(body["input"], str):
        return json.loads(body["input"])
    developer, user = body["input"]
    assert (developer["role"], user["role"]) == ("developer", "user")
    relevance = developer["content"].removeprefix('This is what "relevance" means. ')
    return {"relevance": relevance, **user["content"][0]["data"]}


def questions_of(body: dict[str, Any]) -> dict[str, dict[str, Any]]:
    questions = body["questions"]
    return questions if isinstance(questions, dict) else {each["name"]: each for each in questions}


# Requests -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("use", SERVERS)
def test_documents_are_data_and_questions_hold_ids_only(use: str) -> None:
    with SERVERS[use]() as server:
        rerank(server, use, instruction="Only physics counts.")
        rerank(server, use)
        assert server.refused == []
    first, second = (request.body for request in server.requests)
    state, questions = state_of(first), questions_of(first)
    assert list(state) == ["relevance", "query", "documents"]
    assert (state["query"], list(state["documents"].values())) == (QUERY, DOCUMENTS)
    assert state["relevance"].startswith("Only physics counts. ")
    assert list(questions) == list(state["documents"])
    for name, question in questions.items():
        assert f'"{name}"' in question["instructions"]
        assert not [text for text in (*DOCUMENTS, QUERY) if text in question["instructions"]]
    assert not set(questions) & set(questions_of(second)), "ids are made for one request"
    assert state_of(second)["relevance"].startswith("A document is relevant if it answers the query")


@pytest.mark.parametrize(
    ("spec", "server", "path"),
    [
        ({"use": "decisions:m"}, TypeSafeServer, "/v1/systemone"),
        ({"use": "decisions:m", "decisions": {"format": "openai"}}, OpenAIDecisionsServer, "/v1/decisions"),
        (
            {"use": "decisions:m", "decisions": {"format": "openai", "path": "/alpha/decisions"}},
            OpenAIDecisionsServer,
            "/alpha/decisions",
        ),
    ],
)
def test_any_server_answers_in_either_format_without_a_key(spec: dict[str, Any], server: Any, path: str) -> None:
    class Open(server):
        paths = (path,)
        key_required = False

    with Open() as running, load_reranker({**spec, "base_url": running.url}) as reranker:
        answer = reranker.rerank(QUERY, DOCUMENTS)
        assert running.refused == []
        assert "authorization" not in running.requests[0].headers
    assert answer.scale == "unit"
    assert {result.index: result.raw_score for result in answer} == pytest.approx(
        {index: share_of_words(QUERY, text) for index, text in enumerate(DOCUMENTS)}
    )


def test_path_is_named_where_nothing_answers_and_may_be_empty() -> None:
    class Open(TypeSafeServer):
        key_required = False

    with Open() as server:
        spec = {"use": "decisions:m", "base_url": f"{server.url}/v1/systemone", "retry": 1}
        with load_reranker({**spec, "decisions": {"path": ""}}) as reranker:
            reranker.rerank(QUERY, DOCUMENTS)
        assert [request.path for request in server.requests] == ["/v1/systemone"]
        with (
            load_reranker({**spec, "decisions": {"path": "/elsewhere"}}) as reranker,
            pytest.raises(Rejected, match=r"Check also `decisions\.path`\. The request went to .*/elsewhere\."),
        ):
            reranker.rerank(QUERY, DOCUMENTS)


def test_decisions_needs_a_model_and_an_address() -> None:
    with pytest.raises(ConfigError, match="decisions needs a model"):
        load_reranker({"use": "decisions", "base_url": "http://127.0.0.1:1"})
    with pytest.raises(ConfigError, match="decisions needs a base_url"):
        load_reranker("decisions:m")


# Replies --------------------------------------------------------------------------------------------------------------


class Answers(Step):
    """A reply with the given answers; `NAME(n)` in them stands for the id of document n."""

    def __init__(self, make: Any) -> None:
        self.make = make

    def play(self, exchange: Any) -> None:
        names = list(questions_of(exchange.request.body))
        exchange.send(200, {**exchange.answer(exchange.pairs()), "answers": self.make(names)})


def predicate(probability: Any, name: Any = None) -> dict[str, Any]:
    return {"type": "predicate", "probability": probability, "name": name}


def test_answers_without_names_are_in_the_order_of_the_questions() -> None:
    with OpenAIDecisionsServer() as server:
        server.play(Answers(lambda names: [predicate(0.2), predicate(0.1), predicate(0.9)]))
        assert [result.index for result in rerank(server, "openai")] == [2, 0, 1]


@pytest.mark.parametrize(
    "make",
    [
        lambda names: [predicate(0.2), predicate(0.1)],
        lambda names: [predicate(0.2), predicate(0.1), predicate(0.9), predicate(0.9)],
        lambda names: [predicate(0.2, "other"), predicate(0.1), predicate(0.9)],
        lambda names: [predicate(0.2, names[1]), predicate(0.1, names[1]), predicate(0.9, names[2])],
        lambda names: [{"type": "choice", "choice": "a", "name": name} for name in names],
        lambda names: [{"type": "predicate", "name": name} for name in names],
        lambda names: [predicate(True, name) for name in names],
        lambda names: [None, None, None],
        lambda names: {name: predicate(0.5) for name in names},
        lambda names: "yes",
    ],
)
def test_malformed_openai_answers_are_bad_responses(make: Any) -> None:
    with OpenAIDecisionsServer() as server:
        server.play(Answers(make))
        with pytest.raises(BadResponse, match="openai:gpt-6-luna"):
            rerank(server, "openai")


@pytest.mark.parametrize(
    "make",
    [
        lambda names: {name: {"type": "noul", "noul": 0.5} for name in names[:2]},
        lambda names: {name: {"type": "noul", "noul": 0.5} for name in [*names, "other"]},
        lambda names: {name: {"type": "choice", "choice": "a"} for name in names},
        lambda names: {name: {"type": "noul", "noul": None} for name in names},
        lambda names: dict.fromkeys(names, 0.5),
        lambda names: [{"type": "noul", "noul": 0.5} for name in names],
        lambda names: None,
    ],
)
def test_malformed_typesafe_answers_are_bad_responses(make: Any) -> None:
    with TypeSafeServer() as server:
        server.play(Answers(make))
        with pytest.raises(BadResponse, match="typesafe:jev-latest"):
            rerank(server, "typesafe")


@pytest.mark.parametrize("usage", [None, [], {}, {"input_tokens": "many"}, {"input_tokens_details": 3}, "7"])
@pytest.mark.parametrize("use", SERVERS)
def test_a_malformed_usage_leaves_the_answer_valid(use: str, usage: Any) -> None:
    class Usage(Step):
        def play(self, exchange: Any) -> None:
            exchange.send(200, {**exchange.answer(exchange.pairs()), "usage": usage})

    with SERVERS[use]() as server:
        server.play(Usage())
        answer = rerank(server, use)
    assert len(answer) == 3
    assert answer.usage.input_tokens is None


def test_a_probability_outside_0_to_1_is_reported() -> None:
    with OpenAIDecisionsServer() as server:
        server.play(Answers(lambda names: [predicate(0.2), predicate(3.0), predicate(0.9)]))
        answer = rerank(server, "openai")
    assert [result.index for result in answer] == [1, 2, 0]
    assert "outside 0…1" in answer.reason


def test_a_refusal_is_last_with_a_reason_and_below_no_threshold() -> None:
    with OpenAIDecisionsServer() as server:
        server.play(Declined(1))
        answer = rerank(server, "openai")
        assert [(result.index, result.raw_score is None) for result in answer][-1] == (2, True)
        assert "declined" in answer[-1].reason
        server.play(Declined(1))
        assert [result.index for result in rerank(server, "openai", score_threshold=0.0)] == [0, 1]


# Limits, parts and cost -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("use", "options", "parts"),
    [
        ("openai", {}, [1, 100, 100]),
        ("openai", {"openai": {"max_documents": 201}}, [201]),
        ("typesafe", {}, [21, *[30] * 6]),
        ("typesafe", {"typesafe": {"max_documents": 150}}, [51, 150]),
    ],
)
def test_parts_hold_at_most_max_documents(use: str, options: dict[str, Any], parts: list[int]) -> None:
    documents = [f"tides number {number}" for number in range(201)]
    with SERVERS[use]() as server:
        answer = rerank(server, use, documents, **options)
        assert sorted(len(request.documents) for request in server.requests) == parts
    assert [result.raw_score for result in sorted(answer, key=lambda result: result.index)] == pytest.approx(
        [share_of_words(QUERY, document) for document in documents]
    )


class Limited(Step):
    """An error for too many tokens, if the request has more than `limit` documents."""

    def __init__(self, limit: int, status: int) -> None:
        self.limit, self.status = limit, status

    def play(self, exchange: Any) -> None:
        if len(exchange.request.documents) > self.limit:
            Status(self.status, message="too many tokens").play(exchange)
        else:
            super().play(exchange)


@pytest.mark.parametrize(("use", "status"), [("openai", 400), ("typesafe", 400), ("typesafe", 422)])
def test_too_many_tokens_are_sent_again_in_smaller_parts(use: str, status: int) -> None:
    documents = [f"tides number {number}" for number in range(10)]
    with SERVERS[use]() as server:
        server.always(Limited(3, status))
        answer = rerank(server, use, documents)
        assert [len(request.documents) for request in server.requests] == [10, 5, 2, 3, 5, 2, 3]
        assert len(answer.attempts) == answer.usage.requests == 7
        assert [result.raw_score for result in sorted(answer, key=lambda result: result.index)] == pytest.approx(
            [share_of_words(QUERY, document) for document in documents]
        )
        server.reset()
        server.always(Limited(0, status))
        with pytest.raises(Rejected, match=r"max_tokens_exceeded|too many tokens"):
            rerank(server, use, documents[:2])
        assert [len(request.documents) for request in server.requests] == [2, 1]


@pytest.mark.parametrize("use", SERVERS)
def test_a_server_without_a_code_for_too_many_tokens_gets_smaller_parts(use: str) -> None:
    error = {"error": {"message": "This model's maximum context length is 4096 tokens.", "code": 400}}
    documents = [f"tides number {number}" for number in range(10)]
    with SERVERS[use]() as server:
        server.always(JSON(error, 400), when=lambda request: len(request.documents) > 5)
        assert len(rerank(server, use, documents)) == 10
        assert [len(request.documents) for request in server.requests] == [10, 5, 5]


def test_long_documents_are_sent_in_parts_of_fewer_tokens() -> None:
    documents = [f"{number} " + "tides follow the moon " * 600 for number in range(12)]
    with TypeSafeServer() as server:
        answer = rerank(server, "typesafe", documents)
        counts = [len(request.documents) for request in server.requests]
    assert sum(counts) == 12
    assert 2 <= max(counts) < 12
    assert not any(result.truncated for result in answer)


@pytest.mark.parametrize(("use", "cached"), [("openai", True), ("typesafe", False)])
def test_usage_and_cost_count_cached_and_output_tokens(use: str, cached: bool) -> None:
    price = {"per_million_tokens": 0.1, "per_million_cached_tokens": 0.01, "per_million_output_tokens": 1.0}
    with SERVERS[use]() as server:
        usage = rerank(server, use, price=price).usage
    assert usage.input_tokens
    assert (usage.cached_tokens == usage.input_tokens // 2) if cached else usage.cached_tokens is None
    assert usage.output_tokens == (0 if cached else 3)
    read = usage.cached_tokens or 0
    expected = ((usage.input_tokens - read) * 0.1 + read * 0.01 + usage.output_tokens * 1.0) * 1e-6
    assert usage.cost_usd == pytest.approx(expected)


# Injection ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", HOSTILE)
@pytest.mark.parametrize("use", SERVERS)
def test_a_hostile_document_moves_its_own_score_only(use: str, kind: str) -> None:
    documents = [*DOCUMENTS[:1], HOSTILE[kind], *DOCUMENTS[1:]]
    with SERVERS[use](score=obedient(share_of_words)) as server:
        answer = rerank(server, use, documents)
        assert server.refused == []
    assert sorted(result.index for result in answer) == [0, 1, 2, 3]
    scores = {result.index: result.raw_score for result in answer}
    assert [scores[0], scores[2], scores[3]] == pytest.approx([share_of_words(QUERY, text) for text in DOCUMENTS])


def test_a_documented_error_is_quoted() -> None:
    with TypeSafeServer() as server:
        server.play(JSON({"detail": {"error_type": "invalid_request", "message": "questions: too many"}}, 422))
        with pytest.raises(Rejected, match="questions: too many"):
            rerank(server, "typesafe")
