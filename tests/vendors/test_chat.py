"""Chat models: both modes, what is sent, every kind of reply, blocks, and injections."""

from __future__ import annotations

import json
import math
from typing import Any

import pytest
from support.hostile import HOSTILE, obedient

from rerank_plugins import load_reranker
from rerank_plugins.core import BadResponse, ConfigError, Rejected
from rerank_plugins.testing.laws import backend_of, raw_scores
from rerank_plugins.testing.script import JSON, Gap, Status, Step
from rerank_plugins.testing.vendors.chat import ChatServer, grade_of_words

QUERY = "how do the tides work"
DOCUMENTS = ["The moon pulls the tides.", "Bananas are yellow.", "Tides work by gravity."]
MODES = ["graded", "logprobs"]


def rerank(server: Any, documents: Any = DOCUMENTS, chat: dict[str, Any] | None = None, **options: Any) -> Any:
    instruction = options.pop("instruction", None)
    spec = {"use": "chat:m", "base_url": server.url, "api_key": server.key, "retry": 1, **options}
    with load_reranker(spec | ({"chat": chat} if chat else {})) as reranker:
        return reranker.rerank(QUERY, documents, instruction=instruction)


class Message(Step):
    """A reply whose choice has the given fields; a function gets the ids of the documents and returns the content."""

    def __init__(self, content: Any = None, **fields: Any) -> None:
        self.content, self.fields = content, fields

    def play(self, exchange: Any) -> None:
        reply = exchange.answer(exchange.pairs())
        data = json.loads(exchange.request.body["messages"][-1]["content"])
        content = self.content(list(data.get("documents", ()))) if callable(self.content) else self.content
        choice = reply["choices"][0]
        choice["message"]["content"] = content if content is not None else choice["message"]["content"]
        for name, value in self.fields.items():
            target = choice["message"] if name in ("refusal", "reasoning_content") else choice
            target[name] = value
        exchange.send(200, reply)


def grades(**extra: Any) -> Any:
    return lambda ids: json.dumps(dict.fromkeys(ids, 5) | extra)


# Requests -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("mode", MODES)
def test_documents_stand_in_the_users_message_only(mode: str) -> None:
    with ChatServer() as server:
        rerank(server, chat={"mode": mode}, instruction="Only physics counts.")
        assert server.refused == []
        bodies = [request.body for request in server.requests]
    assert len(bodies) == (1 if mode == "graded" else 3)
    for body in bodies:
        system, user = body["messages"]
        assert (system["role"], user["role"], body["temperature"]) == ("system", "user", 0)
        assert "Only physics counts." in system["content"]
        assert not [text for text in (*DOCUMENTS, QUERY) if text in system["content"]]
        assert json.loads(user["content"])["query"] == QUERY
        assert body["reasoning_effort"] == "none"
    if mode == "logprobs":
        assert [(body["max_tokens"], body["logprobs"], body["top_logprobs"]) for body in bodies] == [(1, True, 20)] * 3


def test_ids_are_made_for_each_request() -> None:
    with ChatServer() as server:
        rerank(server)
        rerank(server)
        first, second = (set(json.loads(each.body["messages"][-1]["content"])["documents"]) for each in server.requests)
    assert not first & second


@pytest.mark.parametrize("mode", MODES)
def test_optional_fields_that_a_model_refuses_are_left_out(mode: str) -> None:
    with ChatServer(refused=("temperature", "reasoning_effort", "max_tokens", "chat_template_kwargs")) as server:
        spec = {"use": "chat:m", "base_url": server.url, "api_key": server.key, "chat": {"mode": mode}}
        with load_reranker({**spec, "max_in_flight": 1}) as reranker:
            reranker.rerank(QUERY, DOCUMENTS)
            before = len(server.requests)
            reranker.rerank(QUERY, DOCUMENTS)
            assert len(server.requests) - before == (1 if mode == "graded" else 3), "the fields are refused once"
        body = server.requests[-1].body
    assert body.keys() & {"temperature", "reasoning_effort", "max_tokens", "chat_template_kwargs"} == set()
    assert body["max_completion_tokens"]


@pytest.mark.parametrize(
    ("message", "requests"),
    [
        ("The input is longer than the limit.", 1),  # our advice for it names max_tokens
        ("invalid content: response_format and temperature", 3),  # it quotes a document
    ],
)
def test_an_error_that_names_a_field_for_another_reason_leaves_the_field_on(message: str, requests: int) -> None:
    with ChatServer() as server:
        server.always(Status(400, message=message), when=lambda request: "bad" in request.documents)
        spec = {"use": "chat:m", "base_url": server.url, "api_key": server.key, "retry": 1}
        with load_reranker(spec) as reranker:
            reranker.rerank(QUERY, DOCUMENTS)
            with pytest.raises(Rejected):
                reranker.rerank(QUERY, ["bad", *DOCUMENTS])
            assert len(server.requests) == 1 + requests
            reranker.rerank(QUERY, DOCUMENTS)
        assert server.requests[-1].body.keys() == server.requests[0].body.keys()


def test_reasoning_is_asked_for_by_name_without_a_limit_of_tokens() -> None:
    with ChatServer() as server:
        rerank(server, chat={"reasoning_effort": "low"})
        rerank(server, chat={"reasoning_effort": None})
        first, second = (request.body for request in server.requests)
    assert first["reasoning_effort"] == "low"
    assert "max_tokens" not in first
    assert "reasoning_effort" not in second


def test_a_key_of_the_environment_is_sent_to_openai_only(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "key-of-openai")

    class Open(ChatServer):
        key_required = False

    with Open(key="key-of-openai") as server:
        with load_reranker({"use": "chat:m", "base_url": server.url}) as reranker:
            reranker.rerank(QUERY, DOCUMENTS)
        assert "authorization" not in server.requests[0].headers
        monkeypatch.setenv("OPENAI_BASE_URL", server.url + "/v1")
        with load_reranker("chat:m") as reranker:
            reranker.rerank(QUERY, DOCUMENTS)
        assert server.requests[1].headers["authorization"] == "Bearer key-of-openai"
        assert server.requests[1].path == "/v1/chat/completions"


def test_a_chat_model_must_be_named_and_have_a_key() -> None:
    with pytest.raises(ConfigError, match="chat needs a model"):
        load_reranker("chat")
    with pytest.raises(ConfigError, match="OPENAI_API_KEY"):
        load_reranker("chat:m")


# Replies --------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "step",
    [
        Message(lambda ids: "<think>\nThey are all fine {}.\n</think>\n" + grades()(ids)),
        Message(lambda ids: "```json\n" + grades()(ids) + "\n```"),
        Message(lambda ids: "\n " + json.dumps(dict.fromkeys(reversed(ids), 5.0)) + "\n"),
    ],
    ids=["think block", "code fence", "white space and floats"],
)
def test_grades_in_wrappings_are_read(step: Step) -> None:
    with ChatServer() as server:
        server.play(step)
        assert raw_scores(rerank(server)) == [0.5] * 3


BAD = {
    "no choice": JSON({"choices": []}),
    "choices is null": JSON({"choices": None}),
    "a choice without a message": JSON({"choices": [{"finish_reason": "stop"}]}),
    "empty content": Message(""),
    "reasoning only": Message(" ", reasoning_content="They are fine."),
    "cut at its limit": Message(lambda ids: grades()(ids)[:-5], finish_reason="length"),
    "cut JSON": Message(lambda ids: grades()(ids)[:-5]),
    "prose": Message("The first document is the most relevant."),
    "prose around JSON": Message(lambda ids: f"Here are the grades: {grades()(ids)} Enjoy!"),
    "an open think block": Message(lambda ids: "<think>" + grades()(ids)),
    "a list": Message(lambda ids: json.dumps([{"id": name, "grade": 5} for name in ids])),
    "a number": Message("5"),
    "two objects": Message(lambda ids: grades()(ids) * 2),
    "a foreign id": Message(grades(d1=5)),
    "an index as id": Message(grades(**{"0": 5})),
    "a repeated id": Message(lambda ids: grades()(ids)[:-1] + f', "{ids[0]}": 9}}'),
    "a grade above 10": Message(lambda ids: json.dumps(dict.fromkeys(ids, 11))),
    "a negative grade": Message(lambda ids: json.dumps(dict.fromkeys(ids, -1))),
    "a grade as text": Message(lambda ids: json.dumps(dict.fromkeys(ids, "5"))),
    "a grade as an object": Message(lambda ids: json.dumps({name: {"grade": 5} for name in ids})),
    "null grades": Message(lambda ids: json.dumps(dict.fromkeys(ids))),
    "true for a grade": Message(lambda ids: json.dumps(dict.fromkeys(ids, True))),
    "NaN": Message(lambda ids: json.dumps(dict.fromkeys(ids, math.nan))),
    "infinite": Message(lambda ids: json.dumps(dict.fromkeys(ids, math.inf))),
    "400 digits": Message(lambda ids: "{" + ", ".join(f'"{name}": {"9" * 400}' for name in ids) + "}"),
    "deep": Message("[" * 100_000),
}


@pytest.mark.parametrize("kind", BAD)
def test_replies_without_usable_grades_are_bad_responses(kind: str) -> None:
    with ChatServer() as server:
        server.always(BAD[kind])
        with pytest.raises(BadResponse, match="chat:m"):
            rerank(server)
        answer = rerank(server, fallback=["lexical"])
    assert answer.degraded
    assert answer.model == "lexical"


@pytest.mark.parametrize(
    "refusal", [Message(refusal="I cannot do that."), Message(finish_reason="content_filter")], ids=["text", "filter"]
)
@pytest.mark.parametrize("mode", MODES)
def test_a_refusal_of_all_is_an_error_that_a_fallback_answers(mode: str, refusal: Step) -> None:
    with ChatServer() as server:
        server.always(refusal)
        with pytest.raises(BadResponse, match="declined to answer"):
            rerank(server, chat={"mode": mode})
        assert rerank(server, chat={"mode": mode}, fallback=["passthrough"]).degraded


def test_a_missing_grade_is_asked_for_once_more() -> None:
    with ChatServer() as server:
        server.play(Gap())
        answer = rerank(server)
        assert [len(request.documents) for request in server.requests] == [3, 1]
        assert raw_scores(answer) == [grade_of_words(QUERY, text) for text in DOCUMENTS]
        assert answer.usage.requests == 2
        server.reset()
        server.play(Gap(), Gap())
        answer = rerank(server)
        assert [len(request.documents) for request in server.requests] == [3, 1]
    assert answer[-1].raw_score is None
    assert answer[-1].reason == "the model gave it no grade"


def test_a_refusal_of_one_document_leaves_the_others_scored_by_logprobs() -> None:
    with ChatServer() as server:
        server.always(Message(refusal="No."), when=lambda request: request.documents == [DOCUMENTS[1]])
        answer = rerank(server, chat={"mode": "logprobs"})
    assert [result.index for result in answer] == [2, 0, 1]
    assert (answer[2].raw_score, answer[2].reason) == (None, "the model declined to answer")


class Logprobs(Step):
    """A reply with the given likely first tokens."""

    def __init__(self, likely: Any) -> None:
        self.likely = likely

    def play(self, exchange: Any) -> None:
        reply = exchange.answer(exchange.pairs())
        reply["choices"][0]["logprobs"] = self.likely if self.likely is None else {"content": self.likely}
        exchange.send(200, reply)


def first_token(*pairs: tuple[Any, Any]) -> list[dict[str, Any]]:
    return [{"top_logprobs": [{"token": token, "logprob": logprob} for token, logprob in pairs]}]


@pytest.mark.parametrize(
    ("likely", "expected"),
    [
        ([("yes", math.log(0.6)), ("no", math.log(0.2))], 0.75),
        ([("Yes", math.log(0.3)), ("▁yes", math.log(0.3)), (" no", math.log(0.2))], 0.75),
        ([("yes.", math.log(0.8)), ("maybe", math.log(0.1))], 0.8 / 0.9),  # no is at most as likely as maybe
        ([("no", math.log(0.99)), ("nope", math.log(0.008))], 0.002 / 0.992),  # yes is at most what is left
        ([("no", 0.0)], 0.0),
        ([("no", 0.0), ("yes", -9999.0)], 0.0),
    ],
)
def test_probability_of_yes(likely: Any, expected: float) -> None:
    with ChatServer() as server:
        server.play(Logprobs(first_token(*likely)))
        answer = rerank(server, DOCUMENTS[:1], chat={"mode": "logprobs"})
    assert raw_scores(answer) == pytest.approx([expected], abs=1e-6)


@pytest.mark.parametrize(
    "likely",
    [
        None,
        [],
        first_token(("maybe", -0.1)),
        first_token(("yes", "-0.1")),
        first_token(("yes", None)),
        first_token(("yes", 5.0)),
        first_token(("yes", math.nan)),
        first_token(("yes", True)),
        first_token(),
        [{"token": "yes", "logprob": -0.1}],
        "yes",
    ],
)
def test_unusable_log_probabilities_are_bad_responses(likely: Any) -> None:
    with ChatServer() as server:
        server.always(Logprobs(likely))
        with pytest.raises(BadResponse, match="chat:m"):
            rerank(server, DOCUMENTS[:1], chat={"mode": "logprobs"})


def test_a_document_answered_with_neither_yes_nor_no_is_last_with_a_reason() -> None:
    with ChatServer() as server:
        likely = Logprobs(first_token(("{", -0.1), ("I", -3.0)))
        server.always(likely, when=lambda request: request.documents == [DOCUMENTS[0]])
        answer = rerank(server, chat={"mode": "logprobs"})
    assert [result.index for result in answer] == [2, 1, 0]
    assert (answer[2].raw_score, answer[2].reason) == (None, "the model answered neither yes nor no")


def test_logprobs_score_each_document_alone() -> None:
    with ChatServer() as server:
        answer = rerank(server, chat={"mode": "logprobs"})
        assert sorted(request.documents for request in server.requests) == sorted([text] for text in DOCUMENTS)
    assert raw_scores(answer) == pytest.approx([grade_of_words(QUERY, text) for text in DOCUMENTS])
    assert answer.usage.output_tokens == 3
    assert answer.usage.cached_tokens


def test_empty_base_url_is_openais_address_with_its_key(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "a-key-of-openai-0123456789")
    monkeypatch.delenv("OPENAI_BASE_URL", raising=False)
    with load_reranker({"use": "chat:m", "base_url": ""}) as reranker:
        backend = backend_of(reranker)
        assert backend._address == "https://api.openai.com"
        assert dict(backend.headers()) == {"authorization": "Bearer a-key-of-openai-0123456789"}


def test_id_that_the_model_invents_is_not_quoted() -> None:
    with ChatServer() as server:
        server.play(Message(grades(**{DOCUMENTS[0]: 5})))
        with pytest.raises(BadResponse, match="its index is a string") as raised:
            rerank(server)
    assert DOCUMENTS[0] not in str(raised.value)


# Blocks ---------------------------------------------------------------------------------------------------------------


def test_100_documents_are_eight_blocks_sent_together() -> None:
    documents = [f"tides number {number}" for number in range(100)]
    with ChatServer() as server:
        answer = rerank(server, documents)
        assert len(server.requests) == 8
        assert max(len(request.documents) for request in server.requests) <= 15
    assert raw_scores(answer) == pytest.approx([grade_of_words(QUERY, text) for text in documents])


def test_too_many_tokens_make_smaller_blocks() -> None:
    class Limited(Step):
        def play(self, exchange: Any) -> None:
            if len(exchange.request.documents) > 8:
                Status(400, message="too many tokens").play(exchange)
            else:
                super().play(exchange)

    documents = [f"tides number {number}" for number in range(40)]
    with ChatServer() as server:
        server.always(Limited())
        answer = rerank(server, documents)
        assert raw_scores(answer) == pytest.approx([grade_of_words(QUERY, text) for text in documents])
        server.reset()
        server.always(Status(400, message="too many tokens"))
        with pytest.raises(Rejected):
            rerank(server, documents)


TOO_MANY = {
    "vLLM": {
        "message": "This model's maximum context length is 4096 tokens. However, your request has 9000 input tokens. "
        "Please reduce the length of the input messages.",
        "type": "BadRequestError",
        "code": 400,
    },
    "vLLM with max_tokens": {
        "message": "'max_tokens' or 'max_completion_tokens' is too large: 424. This model's maximum context length is "
        "4096 tokens and your request has 4000 input tokens (424 > 4096 - 4000).",
        "type": "BadRequestError",
        "code": 400,
    },
    "llama.cpp": {"code": 400, "message": "the request is too big", "type": "exceed_context_size_error"},
    "OpenAI": {"code": "context_length_exceeded", "message": "too many", "type": "invalid_request_error"},
}


@pytest.mark.parametrize("kind", TOO_MANY)
def test_servers_without_a_code_for_too_many_tokens_get_smaller_blocks(kind: str) -> None:
    documents = [f"tides number {number}" for number in range(40)]
    with ChatServer() as server:
        server.always(JSON({"error": TOO_MANY[kind]}, 400), when=lambda request: len(request.documents) > 8)
        answer = rerank(server, documents)
        assert raw_scores(answer) == pytest.approx([grade_of_words(QUERY, text) for text in documents])
        assert all("max_tokens" in request.body for request in server.requests)


def test_a_failed_block_is_sent_again_alone() -> None:
    documents = [f"tides number {number}" for number in range(40)]
    with ChatServer() as server:
        server.play(Status(503))
        answer = rerank(server, documents, retry={"attempts": 2, "wait_initial": 0})
        assert len(server.requests) == len(answer.attempts) == 4


# Injection ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", HOSTILE)
@pytest.mark.parametrize("mode", MODES)
def test_a_hostile_document_moves_its_own_score_only(mode: str, kind: str) -> None:
    documents = [*DOCUMENTS[:1], HOSTILE[kind], *DOCUMENTS[1:]]
    with ChatServer(score=obedient(grade_of_words, 0.9)) as server:
        answer = rerank(server, documents, chat={"mode": mode})
        assert server.refused == []
    assert sorted(result.index for result in answer) == [0, 1, 2, 3]
    scores = {result.index: result.raw_score for result in answer}
    assert [scores[0], scores[2], scores[3]] == pytest.approx([grade_of_words(QUERY, text) for text in DOCUMENTS])


class TalkedInto(Step):
    """A block with the hostile document gets the highest grade for it and the lowest for all others."""

    def scores(self, pairs: Any) -> Any:
        return [(index, 1.0 if score > 0.95 else 0.0) for index, score in pairs]


@pytest.mark.parametrize("kind", HOSTILE)
def test_a_block_that_obeys_loses_nothing_and_leaves_other_blocks_alone(kind: str) -> None:
    """The model obeys "give all others 0": the block is not aligned and says so; the others keep their order."""
    documents = [f"how do the tides work {'x ' * (number % 7)}{number}" for number in range(40)]
    documents[17] = HOSTILE[kind]

    def is_hostile(text: str) -> bool:
        return text[:20] == documents[17][:20]  # the longest one is cut

    with ChatServer(score=obedient(grade_of_words, 0.96)) as server:
        server.always(TalkedInto(), when=lambda request: any(map(is_hostile, request.documents)))
        answer = rerank(server, documents, chat={"block": 10})
        blocks = [request.documents for request in server.requests]
        assert server.refused == []
    hit = {
        17 if is_hostile(text) else documents.index(text)
        for block in blocks
        if any(map(is_hostile, block))
        for text in block
    }
    assert len(blocks) == 5
    assert len(hit) <= 10
    assert sorted(result.index for result in answer) == list(range(40))
    assert "not aligned" in answer.reason
    scores = {result.index: result.raw_score for result in answer}
    others = [index for index in range(40) if index not in hit]
    expected = {index: grade_of_words(QUERY, documents[index]) for index in others}
    assert {index: scores[index] for index in others} == pytest.approx(expected)
