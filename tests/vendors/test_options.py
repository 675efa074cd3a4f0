"""What each vendor's options do on the wire and on the answer."""

from __future__ import annotations

import datetime as dt
import os
import pickle
from collections.abc import Iterator
from typing import Any

import pytest

from rerank_plugins import load_reranker
from rerank_plugins.core import AuthenticationFailed, ConfigError, InputError, RateLimited, TransientError
from rerank_plugins.testing.laws import backend_of
from rerank_plugins.testing.script import JSON, Status
from rerank_plugins.testing.vendors import VENDORS

QUERY = "how do the tides work"
DOCUMENTS = ["Tides work by the pull of the moon.", "Bananas are yellow."]

KEYS = {
    "cohere": ["CO_API_KEY", "COHERE_API_KEY"],
    "voyage": ["VOYAGE_API_KEY"],
    "jina-api": ["JINA_API_KEY", "JINAAI_API_KEY", "JINA_AI_API_KEY"],
    "mixedbread": ["MXBAI_API_KEY"],
    "zeroentropy": ["ZEROENTROPY_API_KEY", "ZERO_ENTROPY_API_KEY"],
}
SERVERS = ["tei", "vllm", "infinity", "http"]
PATHS = {
    "cohere": "/v2/rerank",
    "voyage": "/v1/rerank",
    "jina-api": "/v1/rerank",
    "mixedbread": "/v1/reranking",
    "zeroentropy": "/v1/models/rerank",
    "tei": "/rerank",
    "vllm": "/v1/rerank",
    "infinity": "/rerank",
}


@pytest.fixture
def server(request: pytest.FixtureRequest) -> Iterator[Any]:
    with VENDORS[request.param]() as running:
        yield running
        assert running.refused == []


def of(name: str) -> pytest.MarkDecorator:
    return pytest.mark.parametrize("server", [name], indirect=True)


def ask(server: Any, spec: str, options: dict[str, Any] | None = None, **more: Any) -> Any:
    settings = {"use": spec, "base_url": server.url, "api_key": server.key, "retry": 1, **more}
    settings |= {spec.partition(":")[0]: options} if options else {}
    documents = settings.pop("documents", DOCUMENTS)
    instruction = settings.pop("instruction", None)
    with load_reranker(settings) as reranker:
        return reranker.rerank(QUERY, documents, instruction=instruction)


# Addresses and keys ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "ending"),
    [(name, ending) for name, path in PATHS.items() for ending in ("", "/v1", "/v2", path) if path.startswith(ending)],
)
def test_an_address_may_or_may_not_hold_the_vendors_path(name: str, ending: str) -> None:
    for slash in ("", "/"):
        with VENDORS[name]() as server:
            with load_reranker({"use": name, "base_url": server.url + ending + slash, "api_key": server.key}) as one:
                one.rerank(QUERY, DOCUMENTS)
            assert [request.path for request in server.requests] == [PATHS[name]]


@pytest.mark.parametrize(("name", "variables"), KEYS.items())
def test_the_key_comes_from_the_variables_of_either_ecosystem_in_order(
    name: str, variables: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    for variable in reversed(variables):
        monkeypatch.setenv(variable, f"key-of-{variable}")
        with VENDORS[name](key=f"key-of-{variable}") as server:
            with load_reranker({"use": name, "base_url": server.url}) as reranker:
                reranker.rerank(QUERY, DOCUMENTS)
            assert server.refused == []


@pytest.mark.parametrize(("name", "variables"), KEYS.items())
def test_a_missing_key_names_every_variable(name: str, variables: list[str]) -> None:
    with pytest.raises(ConfigError) as raised:
        load_reranker(name)
    assert name in str(raised.value)
    assert all(variable in str(raised.value) for variable in variables)


def test_a_key_from_a_file_that_ends_in_a_new_line(tmp_path: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "key").write_text("key-of-a-file\n")
    monkeypatch.setenv("VOYAGE_API_KEY_PATH", str(tmp_path / "key"))
    with VENDORS["voyage"](key="key-of-a-file") as server:
        with load_reranker({"use": "voyage", "base_url": server.url}) as reranker:
            reranker.rerank(QUERY, DOCUMENTS)
        assert server.refused == []
    monkeypatch.setenv("VOYAGE_API_KEY_PATH", str(tmp_path / "none"))
    with pytest.raises(ConfigError, match="VOYAGE_API_KEY_PATH"):
        load_reranker("voyage")


@pytest.mark.parametrize("name", SERVERS)
def test_a_server_of_your_own_needs_an_address_and_no_key(name: str) -> None:
    with pytest.raises(ConfigError, match=f"{name} needs a base_url"):
        load_reranker(name)
    with pytest.raises(ConfigError, match="http://"):
        load_reranker({"use": name, "base_url": "localhost:8000"})
    assert load_reranker({"use": name, "base_url": "http://127.0.0.1:1"})


@pytest.mark.parametrize(
    ("name", "variable"),
    [("cohere", "CO_API_URL"), ("zeroentropy", "ZEROENTROPY_BASE_URL"), ("mixedbread", "MIXEDBREAD_BASE_URL")],
)
def test_the_address_of_the_vendors_own_variable_and_the_specs_wins(
    name: str, variable: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    with VENDORS[name]() as server:
        monkeypatch.setenv(variable, server.url)
        with load_reranker({"use": name, "api_key": server.key}) as reranker:
            reranker.rerank(QUERY, DOCUMENTS)
        monkeypatch.setenv(variable, "http://127.0.0.1:9")
        with load_reranker({"use": name, "api_key": server.key, "base_url": server.url}) as reranker:
            reranker.rerank(QUERY, DOCUMENTS)
        assert len(server.requests) == 2


def test_atlas_keys_go_to_mongodb_unless_told_otherwise() -> None:
    def address(**options: Any) -> str:
        return backend_of(load_reranker({"use": "voyage", **options}))._address  # type: ignore[attr-defined]

    assert address(api_key="pa-1") == "https://api.voyageai.com"
    assert address(api_key="al-1") == "https://ai.mongodb.com"
    assert address(api_key="al-1", base_url="http://127.0.0.1:1") == "http://127.0.0.1:1"


@pytest.mark.parametrize("name", KEYS)
def test_a_reranker_pickles_without_its_key(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    secret = "sk-very-secret-0123456789"
    pickled = pickle.dumps(load_reranker({"use": name, "api_key": secret, "base_url": "http://127.0.0.1:1"}))
    assert secret.encode() not in pickled
    monkeypatch.setenv(KEYS[name][0], "another-key")
    assert backend_of(pickle.loads(pickled))._key.reveal() == "another-key"


# Instructions and structured documents --------------------------------------------------------------------------------


@of("voyage")
def test_voyage_reads_an_instruction_before_the_query(server: Any) -> None:
    ask(server, "voyage:rerank-2.5", instruction="Prefer physics.")
    assert server.requests[0].body["query"] == f"Prefer physics.\n{QUERY}"


@of("zeroentropy")
def test_zerank_2_reads_an_instruction_in_tags(server: Any) -> None:
    ask(server, "zeroentropy:zerank-2", instruction="Prefer physics.")
    asked = server.requests[0].body["query"]
    assert asked == f"<query>{QUERY}</query>\n<instructions>Prefer physics.</instructions>"


@of("vllm")
def test_vllm_takes_an_instruction_in_a_field(server: Any) -> None:
    ask(server, "vllm", instruction="Prefer physics.")
    assert server.requests[0].body["instruction"] == "Prefer physics."


@pytest.mark.parametrize(
    "spec",
    ["cohere", "voyage:rerank-2", "jina-api", "mixedbread", "zeroentropy:zerank-1", "tei", "infinity", "http"],
)
def test_an_instruction_that_cannot_be_followed_is_refused(spec: str) -> None:
    reranker = load_reranker({"use": spec, "api_key": "k", "base_url": "http://127.0.0.1:9"})
    with reranker, pytest.raises(InputError, match="instruction"):
        reranker.rerank(QUERY, DOCUMENTS, instruction="Prefer physics.")


MAPPINGS = [{"title": "Tides", "body": "They work by the moon."}, {"title": "Bananas", "body": "Yellow."}]


@of("mixedbread")
def test_mixedbread_takes_mappings_as_objects_and_ranks_by_the_fields_named(server: Any) -> None:
    answer = ask(server, "mixedbread", {"rank_fields": ["title"]}, documents=MAPPINGS)
    assert server.requests[0].body["input"] == MAPPINGS
    assert server.requests[0].body["rank_fields"] == ["title"]
    assert answer[0].document is MAPPINGS[0]


@of("mixedbread")
def test_mixedbread_gets_fields_that_json_has_no_word_for_as_text(server: Any) -> None:
    ask(
        server,
        "mixedbread",
        documents=[{"title": "Tides \ud800", "on": dt.date(2026, 11, 25), "x": float("inf")}],
    )
    assert server.requests[0].body["input"] == [{"title": "Tides \ufffd", "on": "2026-11-25", "x": None}]


@of("mixedbread")
def test_one_text_among_mappings_makes_all_of_them_texts(server: Any) -> None:
    ask(server, "mixedbread", documents=[MAPPINGS[0], "Bananas are yellow."])
    assert server.requests[0].body["input"] == [
        "title: Tides\nbody: They work by the moon.\n",
        "Bananas are yellow.",
    ]


@of("cohere")
def test_elsewhere_mappings_are_yaml_in_the_order_of_their_fields(server: Any) -> None:
    ask(server, "cohere", documents=MAPPINGS)
    assert server.requests[0].documents[0] == "title: Tides\nbody: They work by the moon.\n"


# Options of one vendor ------------------------------------------------------------------------------------------------


@of("cohere")
def test_relevant_spans_come_back_on_the_results(server: Any) -> None:
    answer = ask(server, "cohere:rerank-v5.0-pro", {"relevant_spans": True})
    assert server.requests[0].body["relevant_spans"] == {"mode": "enabled"}
    for result in answer:
        (span,) = result.spans
        assert result.document[span.start : span.end] == result.document[:9]
        assert span.score == 0.5


@of("cohere")
def test_no_spans_unless_asked_for(server: Any) -> None:
    answer = ask(server, "cohere:rerank-v5.0-pro")
    assert "relevant_spans" not in server.requests[0].body
    assert [result.spans for result in answer] == [(), ()]


@of("cohere")
def test_priority_and_where_documents_are_cut(server: Any) -> None:
    long = "tide " * 400
    answer = ask(server, "cohere", {"max_tokens_per_doc": 64, "priority": 3}, documents=[long, "Bananas are yellow."])
    assert {"max_tokens_per_doc": 64, "priority": 3}.items() <= server.requests[0].body.items()
    assert {result.index: result.truncated for result in answer} == {0: True, 1: False}


@pytest.mark.parametrize(
    ("spec", "options"),
    [
        ("cohere", {"max_tokens_per_doc": 0}),
        ("cohere", {"client": object()}),
        ("zeroentropy", {"latency": "auto"}),
        ("mixedbread", {"rank_fields": "title"}),
        ("vllm", {"scale": "percent"}),
    ],
)
def test_wrong_values_are_refused_before_anything_is_sent(spec: str, options: dict[str, Any]) -> None:
    with pytest.raises(ConfigError, match=next(iter(options))):
        load_reranker({"use": spec, "api_key": "k", "base_url": "http://127.0.0.1:9", spec: options})


@of("zeroentropy")
def test_zeroentropy_is_never_silently_slow(server: Any) -> None:
    ask(server, "zeroentropy")
    ask(server, "zeroentropy", {"latency": "slow"})
    assert [request.body["latency"] for request in server.requests] == ["fast", "slow"]


def test_zeroentropys_parts_stay_under_its_bytes() -> None:
    documents = [f"{number} {'tide ' * 2_000}" for number in range(900)]
    with VENDORS["zeroentropy"]() as server:
        answer = ask(server, "zeroentropy", documents=documents)
        assert server.refused == []
        assert len(server.requests) > 1
        assert len(answer) == 900


@of("tei")
def test_raw_scores_are_logits(server: Any) -> None:
    server.score = lambda _query, document: 3.0 if "moon" in document else -3.0
    answer = ask(server, "tei", {"raw_scores": True})
    assert server.requests[0].body["raw_scores"] is True
    assert answer.scale == "logit"
    assert [result.raw_score for result in answer] == [3.0, -3.0]
    assert answer[0].relevance_score == pytest.approx(0.952574, abs=1e-6)


def test_a_tei_server_with_a_larger_batch() -> None:
    with VENDORS["tei"](max_documents=100) as server:
        ask(server, "tei", {"max_documents": 100}, documents=[f"tide {number}" for number in range(100)])
        assert len(server.requests) == 1


@of("tei")
def test_a_failed_inference_may_pass(server: Any) -> None:
    server.play(Status(424))
    with pytest.raises(TransientError, match="424"):
        ask(server, "tei")


@of("vllm")
def test_vllm_sends_no_model_where_none_is_named_and_takes_the_rest_as_options(server: Any) -> None:
    answer = ask(server, "vllm", {"use_activation": False, "truncate_prompt_tokens": 512})
    body = server.requests[0].body
    assert "model" not in body
    assert (body["use_activation"], body["truncate_prompt_tokens"]) == (False, 512)
    assert answer.scale == "logit"


@of("infinity")
def test_a_text_too_long_for_infinity_is_cut_and_said_to_be(server: Any) -> None:
    answer = ask(server, "infinity", documents=["tide " * 30_000, "Bananas are yellow."])
    assert {result.index: result.truncated for result in answer} == {0: True, 1: False}


@pytest.mark.parametrize("model", ["jina-reranker-v3", "jina-reranker-v3.5"])
def test_listwise_models_are_asked_once_however_many_documents(model: str) -> None:
    with VENDORS["jina-api"]() as server:
        answer = ask(server, f"jina-api:{model}", documents=[f"tide {number}" for number in range(1_500)])
        assert [len(request.documents) for request in server.requests] == [1_500]
        assert answer.scale == "cosine"


# Usage and price ------------------------------------------------------------------------------------------------------


@of("voyage")
def test_cost_comes_from_the_price_that_was_given(server: Any) -> None:
    told = ask(server, "voyage", price={"per_million_tokens": 50_000}).usage
    assert told.input_tokens
    assert told.cost_usd == pytest.approx(told.input_tokens * 0.05)
    assert ask(server, "voyage").usage.cost_usd is None


@of("cohere")
def test_search_units_add_up_over_the_parts_and_so_does_their_price(server: Any) -> None:
    documents = [f"tide {number}" for number in range(1_250)]
    told = ask(server, "cohere:rerank-v3.5", price={"per_search_unit": 0.002}, documents=documents).usage
    assert told.requests == 2
    assert told.search_units == 13
    assert told.cost_usd == pytest.approx(0.026)
    assert ask(server, "cohere:rerank-v3.5", price={"per_million_tokens": 1}).usage.cost_usd is None


@pytest.mark.parametrize("price", [{}, {"per_call": 1}, {"per_search_unit": -1}, {"per_million_tokens": "1"}, 0.05])
def test_a_wrong_price_is_refused(price: Any) -> None:
    with pytest.raises(ConfigError, match="price"):
        load_reranker({"use": "voyage", "api_key": "k", "price": price})


@pytest.mark.parametrize("name", PATHS)
def test_odd_usage_does_not_spoil_a_right_answer(name: str) -> None:
    with VENDORS[name]() as server:
        pairs = [(0, 0.5), (1, 0.25)]
        body = {"model": "m", "query": QUERY, server.documents_field: DOCUMENTS}
        response = server.answer(body, pairs)
        if isinstance(response, dict):
            response |= {"total_tokens": "many"} if name == "zeroentropy" else {}
            response |= {"usage": {"total_tokens": None}} if "usage" in response else {}
            response |= {"meta": {"billed_units": {"search_units": None}}} if name == "cohere" else {}
        server.play(JSON(response))
        answer = ask(server, name)
    assert [result.raw_score for result in answer] == [0.5, 0.25]
    assert answer.usage.input_tokens is None


# What vendors say when they refuse ------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", PATHS)
def test_the_vendors_own_words_are_in_the_error(name: str) -> None:
    with VENDORS[name]() as server:
        server.play(Status(429, {"Retry-After": "7"}, message="you are too fast"))
        with pytest.raises(RateLimited, match="you are too fast") as raised:
            ask(server, name)
        assert raised.value.retry_after == 7
        server.key = "another"
        with pytest.raises(AuthenticationFailed, match="api_key"):
            ask(type("Elsewhere", (), {"url": server.url, "key": "wrong"}), name)


def test_nothing_is_read_from_the_environment_but_what_is_named() -> None:
    assert not [name for name in os.environ if name.endswith("_API_KEY")]


def test_voyage_sends_no_more_of_a_text_than_the_model_can_read() -> None:
    """The SDK writes its JSON on the event loop, so a text of megabytes would hold it."""
    with (
        VENDORS["voyage"]() as server,
        load_reranker({"use": "voyage:rerank-2.5", "base_url": server.url, "api_key": server.key}) as reranker,
    ):
        text = "the moon raises the tides " * 100_000  # half a million words
        answer = reranker.rerank("moon", [text, "moon"])
        sent = server.requests[0].documents[0]
    assert len(sent) < len(text)
    assert text.startswith(sent)
    assert len(sent.split()) >= 2 * 32_000  # twice the tokens of the model's window
    assert {result.index: result.truncated for result in answer} == {0: True, 1: False}
