"""The effect of each vendor's options on the request and on the answer."""

from __future__ import annotations

import datetime as dt
import os
import pickle
from collections.abc import Iterator
from typing import Any

import pytest

from rerank_plugins import load_reranker
from rerank_plugins.core import AuthenticationFailed, ConfigError, InputError, RateLimited, TransientError, Usage
from rerank_plugins.core.price import Price
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
    "openai": ["OPENAI_API_KEY"],
    "typesafe": ["TYPESAFE_API_KEY"],
}
SERVERS = ["tei", "vllm", "infinity", "http", "decisions:m"]
PATHS = {
    "cohere": "/v2/rerank",
    "voyage": "/v1/rerank",
    "jina-api": "/v1/rerank",
    "mixedbread": "/v1/reranking",
    "zeroentropy": "/v1/models/rerank",
    "openai": "/v1/decisions",
    "typesafe": "/v1/systemone",
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
def test_base_url_with_or_without_the_vendors_path_works(name: str, ending: str) -> None:
    for slash in ("", "/"):
        with VENDORS[name]() as server:
            with load_reranker({"use": name, "base_url": server.url + ending + slash, "api_key": server.key}) as one:
                one.rerank(QUERY, DOCUMENTS)
            assert [request.path for request in server.requests] == [PATHS[name]]


@pytest.mark.parametrize(("name", "variables"), KEYS.items())
def test_key_comes_from_the_first_set_variable(
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
    with pytest.raises(ConfigError, match=f"{name.partition(':')[0]} needs a base_url"):
        load_reranker(name)
    with pytest.raises(ConfigError, match="http://"):
        load_reranker({"use": name, "base_url": "localhost:8000"})
    assert load_reranker({"use": name, "base_url": "http://127.0.0.1:1"})


@pytest.mark.parametrize(
    ("name", "variable"),
    [("cohere", "CO_API_URL"), ("zeroentropy", "ZEROENTROPY_BASE_URL"), ("mixedbread", "MIXEDBREAD_BASE_URL")],
)
def test_base_url_of_the_spec_wins_over_the_vendors_variable(
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


def test_atlas_key_uses_mongodb_address_unless_base_url_is_set() -> None:
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
    query = server.requests[0].body["query"]
    assert query == f"<query>{QUERY}</query>\n<instructions>Prefer physics.</instructions>"


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
def test_mixedbread_gets_mappings_as_objects_with_rank_fields(server: Any) -> None:
    answer = ask(server, "mixedbread", {"rank_fields": ["title"]}, documents=MAPPINGS)
    assert server.requests[0].body["input"] == MAPPINGS
    assert server.requests[0].body["rank_fields"] == ["title"]
    assert answer[0].document is MAPPINGS[0]


@of("mixedbread")
def test_mixedbread_gets_values_without_json_type_as_text(server: Any) -> None:
    ask(
        server,
        "mixedbread",
        documents=[{"title": "Tides \ud800", "on": dt.date(2026, 11, 25), "x": float("inf")}],
    )
    assert server.requests[0].body["input"] == [{"title": "Tides \ufffd", "on": "2026-11-25", "x": None}]


@of("mixedbread")
def test_string_among_mappings_makes_all_documents_strings(server: Any) -> None:
    ask(server, "mixedbread", documents=[MAPPINGS[0], "Bananas are yellow."])
    assert server.requests[0].body["input"] == [
        "title: Tides\nbody: They work by the moon.\n",
        "Bananas are yellow.",
    ]


@of("cohere")
def test_mappings_for_other_vendors_are_yaml_in_field_order(server: Any) -> None:
    ask(server, "cohere", documents=MAPPINGS)
    assert server.requests[0].documents[0] == "title: Tides\nbody: They work by the moon.\n"


# Options of one vendor ------------------------------------------------------------------------------------------------


@of("cohere")
def test_relevant_spans_are_on_the_results(server: Any) -> None:
    answer = ask(server, "cohere:rerank-v5.0-pro", {"relevant_spans": True})
    assert server.requests[0].body["relevant_spans"] == {"mode": "enabled"}
    for result in answer:
        (span,) = result.spans
        assert result.document[span.start : span.end] == result.document[:9]
        assert span.score == 0.5


@of("cohere")
def test_spans_are_not_requested_by_default(server: Any) -> None:
    answer = ask(server, "cohere:rerank-v5.0-pro")
    assert "relevant_spans" not in server.requests[0].body
    assert [result.spans for result in answer] == [(), ()]


@of("cohere")
def test_priority_and_max_tokens_per_doc_are_sent(server: Any) -> None:
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
def test_invalid_option_values_are_refused_before_a_request(spec: str, options: dict[str, Any]) -> None:
    with pytest.raises(ConfigError, match=next(iter(options))):
        load_reranker({"use": spec, "api_key": "k", "base_url": "http://127.0.0.1:9", spec: options})


@of("zeroentropy")
def test_zeroentropy_is_never_silently_slow(server: Any) -> None:
    ask(server, "zeroentropy")
    ask(server, "zeroentropy", {"latency": "slow"})
    assert [request.body["latency"] for request in server.requests] == ["fast", "slow"]


@pytest.mark.thorough
def test_zeroentropy_parts_stay_below_the_byte_limit() -> None:
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
def test_tei_status_424_is_transient(server: Any) -> None:
    server.play(Status(424))
    with pytest.raises(TransientError, match="424"):
        ask(server, "tei")


@of("vllm")
def test_vllm_without_model_sends_its_options_only(server: Any) -> None:
    answer = ask(server, "vllm", {"use_activation": False, "truncate_prompt_tokens": 512})
    body = server.requests[0].body
    assert "model" not in body
    assert (body["use_activation"], body["truncate_prompt_tokens"]) == (False, 512)
    assert answer.scale == "logit"


@of("infinity")
def test_text_too_long_for_infinity_is_cut_and_truncated(server: Any) -> None:
    answer = ask(server, "infinity", documents=["tide " * 30_000, "Bananas are yellow."])
    assert {result.index: result.truncated for result in answer} == {0: True, 1: False}


@pytest.mark.parametrize("model", ["jina-reranker-v3", "jina-reranker-v3.5"])
def test_listwise_models_get_one_request_for_any_number(model: str) -> None:
    with VENDORS["jina-api"]() as server:
        answer = ask(server, f"jina-api:{model}", documents=[f"tide {number}" for number in range(1_500)])
        assert [len(request.documents) for request in server.requests] == [1_500]
        assert answer.scale == "cosine"


# Usage and price ------------------------------------------------------------------------------------------------------


@of("voyage")
def test_cost_follows_from_the_price_option(server: Any) -> None:
    usage = ask(server, "voyage", price={"per_million_tokens": 50_000}).usage
    assert usage.input_tokens
    assert usage.cost_usd == pytest.approx(usage.input_tokens * 0.05)
    assert ask(server, "voyage").usage.cost_usd is None


@of("cohere")
def test_search_units_and_cost_sum_over_the_parts(server: Any) -> None:
    documents = [f"tide {number}" for number in range(1_250)]
    usage = ask(server, "cohere:rerank-v3.5", price={"per_search_unit": 0.002}, documents=documents).usage
    assert usage.requests == 2
    assert usage.search_units == 13
    assert usage.cost_usd == pytest.approx(0.026)
    assert ask(server, "cohere:rerank-v3.5", price={"per_million_tokens": 1}).usage.cost_usd is None


def test_cost_adds_fresh_cached_and_output_tokens() -> None:
    price = Price.of({"per_million_tokens": 2.0, "per_million_cached_tokens": 0.5, "per_million_output_tokens": 8.0})
    usage = Usage(input_tokens=1_000_000, cached_tokens=400_000, output_tokens=100_000)
    assert price.of_usage(usage).cost_usd == pytest.approx(0.6 * 2 + 0.4 * 0.5 + 0.1 * 8)
    without_cached = Price.of({"per_million_tokens": 2.0})
    assert without_cached.of_usage(usage).cost_usd == pytest.approx(2.0)  # cached tokens are input tokens
    more_cached_than_read = Usage(input_tokens=100, cached_tokens=10**9)  # a vendor's mistake costs no negative sum
    assert price.of_usage(more_cached_than_read).cost_usd == pytest.approx(100 * 0.5e-6)
    assert price.of_usage(Usage(search_units=1)).cost_usd is None


def test_usage_adds_up_by_field() -> None:
    one = Usage(requests=1, input_tokens=10, output_tokens=2, cached_tokens=4)
    assert one + Usage(requests=1, input_tokens=5) == Usage(
        requests=2, input_tokens=15, output_tokens=2, cached_tokens=4
    )
    assert (one.total_tokens, Usage().total_tokens, Usage(output_tokens=3).total_tokens) == (12, None, 3)


@pytest.mark.parametrize("price", [{}, {"per_call": 1}, {"per_search_unit": -1}, {"per_million_tokens": "1"}, 0.05])
def test_a_wrong_price_is_refused(price: Any) -> None:
    with pytest.raises(ConfigError, match="price"):
        load_reranker({"use": "voyage", "api_key": "k", "price": price})


@pytest.mark.parametrize("count", [None, -1])
@pytest.mark.parametrize("name", [name for name in PATHS if name not in ("openai", "typesafe")])
def test_invalid_usage_leaves_the_answer_valid(name: str, count: int | None) -> None:
    with VENDORS[name]() as server:
        pairs = [(0, 0.5), (1, 0.25)]
        body = {"model": "m", "query": QUERY, server.documents_field: DOCUMENTS}
        response = server.answer(body, pairs)
        if isinstance(response, dict):
            response |= {"total_tokens": "many" if count is None else count} if name == "zeroentropy" else {}
            response |= {"usage": {"total_tokens": count}} if "usage" in response else {}
            response |= {"meta": {"billed_units": {"search_units": count}}} if name == "cohere" else {}
        server.play(JSON(response))
        answer = ask(server, name)
    assert [result.raw_score for result in answer] == [0.5, 0.25]
    assert (answer.usage.input_tokens, answer.usage.search_units) == (None, None)


# Errors of vendors ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", PATHS)
def test_vendor_message_is_in_the_error(name: str) -> None:
    with VENDORS[name]() as server:
        server.play(Status(429, {"Retry-After": "7"}, message="you are too fast"))
        with pytest.raises(RateLimited, match="you are too fast") as raised:
            ask(server, name)
        assert raised.value.retry_after == 7
        server.key = "another"
        with pytest.raises(AuthenticationFailed, match="api_key"):
            ask(type("Elsewhere", (), {"url": server.url, "key": "wrong"}), name)


def test_environment_of_the_tests_has_no_api_keys() -> None:
    assert not [name for name in os.environ if name.endswith("_API_KEY")]


def test_voyage_text_is_cut_before_it_is_sent() -> None:
    """The SDK encodes its JSON on the event loop, which a text of megabytes would block."""
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
