"""`http` with the columns of a preset, written in TOML: objects, nested fields, bare scores, the model in the path."""

from __future__ import annotations

import math
import tomllib
import traceback
from pathlib import Path
from typing import Any

import pytest

from rerank_plugins import BadResponse, ConfigError, Rejected, load_reranker
from rerank_plugins.testing.cohere_like import CohereLike
from rerank_plugins.testing.documented import documented_server
from rerank_plugins.testing.script import JSON, Status

BEARER = {"authorization": "Bearer KEY"}
ERROR = {"status": 401, "body": {"message": "invalid key"}, "message": "invalid key"}
NESTED = {
    "request": {
        "path": "/api/models/org/m-1/rank",
        "headers": {"x-api-key": "KEY", "x-tenant": "mine"},
        "body": {
            "model_name": "org/m-1",
            "input": {
                "q": {"text": "QUERY"},
                "passages": [{"id": "0", "text": "FIRST"}, {"id": "1", "text": "SECOND"}],
            },
            "options": {"truncate": True, "count": 2},
        },
    },
    "reply": {"output": {"rankings": [{"id": "1", "logit": 0.75}, {"id": "0", "logit": 0.25}]}, "billed": {"units": 2}},
    "error": ERROR,
}
NESTED_TOML = """
[rerankers.mine]
use = "http:org/m-1"
base_url = "{url}/api"
api_key = "{key}"

[rerankers.mine.http]
path = "/models/{{model}}/rank"
key_header = "X-Api-Key"
headers = {{ X-Tenant = "mine" }}
body = {{ options = {{ truncate = true }} }}
model_field = "model_name"
query_field = "input.q"
query_text_field = "text"
documents_field = "input.passages"
document_text_field = "text"
document_id_field = "id"
top_n_field = "options.count"
results_field = "output.rankings"
index_field = "id"
score_field = "logit"
units_field = "billed.units"
"""
BARE = {
    "request": {
        "path": "/score",
        "headers": BEARER,
        "body": {"queries": ["QUERY", "QUERY"], "documents": ["FIRST", "SECOND"]},
    },
    "reply": {"scores": [0.25, 0.75], "tokens": {"input": 9}},
    "error": ERROR,
}
BARE_TOML = """
[rerankers.mine]
use = "http:m-1"
base_url = "{url}"
api_key = "{key}"

[rerankers.mine.http]
path = "/score"
model_field = ""
query_field = "queries"
query_per_document = true
results_field = "scores"
score_field = ""
usage_field = "tokens.input"
"""


@pytest.mark.parametrize(
    ("exchange", "toml", "usage"),
    [(NESTED, NESTED_TOML, ("search_units", 2)), (BARE, BARE_TOML, ("input_tokens", 9))],
    ids=["nested", "bare"],
)
def test_row_in_toml_sends_and_reads_a_documented_exchange(
    exchange: dict[str, Any], toml: str, usage: tuple[str, int], tmp_path: Path
) -> None:
    with documented_server(exchange)() as server:
        (tmp_path / "rerank.toml").write_text(toml.format(url=server.url, key=server.key), "utf-8")
        with load_reranker("mine", config=tmp_path / "rerank.toml") as reranker:
            response = reranker.rerank("red apple", ["a car", "a red apple"])
        assert server.refused == []
        assert server.requests[0].path == exchange["request"]["path"]
    assert response[0].index == 1
    assert response.usage.requests == 1
    assert getattr(response.usage, usage[0]) == usage[1]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"path": "/models/{model}/rank"}, "the spec names no model"),
        ({"document_id_field": "id"}, "document_id_field needs http.document_text_field"),
        ({"key_header": "X Key"}, "letters, digits and hyphens"),
    ],
)
def test_column_that_cannot_work_is_refused(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        load_reranker({"use": "http", "base_url": "http://127.0.0.1:9", "http": options})


@pytest.mark.parametrize(
    "body", [{"scores": [0.5]}, {"scores": {"0": 0.5, "1": 0.1}}, {"scores": "0.5"}, {"scores": [1, 2, 3]}]
)
def test_bare_scores_of_another_number_are_a_bad_response(body: Any) -> None:
    with documented_server(BARE)() as server:
        server.play(JSON(body))
        options = {
            "path": "/score",
            "query_field": "queries",
            "query_per_document": True,
            "model_field": "",
            "results_field": "scores",
            "score_field": "",
        }
        spec = {"use": "http:m", "base_url": server.url, "api_key": server.key, "retry": 1, "http": options}
        with load_reranker(spec) as reranker, pytest.raises(BadResponse):
            reranker.rerank("red apple", ["a car", "a red apple"])


def test_error_quotes_no_document_in_place_of_an_index() -> None:
    """A wrong `index_field` reads the documents that the server sends back."""
    texts = ["a car of a patient", "a red apple"]
    with documented_server(NESTED)() as server, CohereLike() as plain:
        server.always(JSON({"output": {"rankings": [{"text": text, "logit": 0.5} for text in texts]}}))
        plain.always(JSON({"results": [{"document": text, "relevance_score": 0.5} for text in texts]}))
        ids = tomllib.loads(NESTED_TOML.format(url=server.url, key=server.key))["rerankers"]["mine"]
        ids["http"]["index_field"] = "text"
        own = {"index_field": "document"}
        indexes = {"use": "http:m", "base_url": plain.url, "api_key": plain.key, "http": own}
        for spec in (ids, indexes):
            with load_reranker({**spec, "retry": 1}) as reranker, pytest.raises(BadResponse) as raised:
                reranker.rerank("red apple", texts)
            assert "patient" not in "".join(traceback.format_exception(raised.value))
    assert "its index is a string, and 2 were sent" in str(raised.value)


@pytest.mark.parametrize(
    "own",
    [
        {"query_field": "input", "documents_field": "input.documents"},
        {"query_field": "input.query", "documents_field": "input"},
        {"query_field": "texts", "documents_field": "texts"},
        {"model_field": "documents"},
        {"instruction_field": "query.text"},
        {"top_n_field": "model.n"},
    ],
    ids=str,
)
def test_field_that_another_would_replace_is_refused(own: dict[str, Any]) -> None:
    with pytest.raises(ConfigError, match=r"http\.\w+_field is '.*' and http\.\w+_field is '.*', so one would replace"):
        load_reranker({"use": "http:m", "base_url": "http://127.0.0.1:9", "http": own})


@pytest.mark.parametrize("field", ["query_field", "documents_field"])
def test_query_and_documents_need_a_field(field: str) -> None:
    with pytest.raises(ConfigError, match=rf"http\.{field} must name a field of the body"):
        load_reranker({"use": "http:m", "base_url": "http://127.0.0.1:9", "http": {field: ""}})


@pytest.mark.parametrize("path", ["/x/{region}/rank", "/{}", "/{model_name}"])
def test_unknown_placeholder_in_the_path_is_refused(path: str) -> None:
    with pytest.raises(ConfigError, match=r"http\.path has \{\w*\}.* \{model\}, \{model_id\}, \{model_path\}"):
        load_reranker({"use": "http:m", "base_url": "http://127.0.0.1:9", "http": {"path": path}})


def test_empty_path_is_the_address_itself() -> None:
    with CohereLike() as server:
        for spec in ({"use": "http:m", "http": {"path": ""}}, {"use": "llama-cpp", "llama-cpp": {"path": ""}}):
            own = {**spec, "base_url": f"{server.url}/v2/rerank", "api_key": server.key}
            with load_reranker(own) as reranker:
                assert reranker.rerank("red apple", ["a car", "a red apple"])[0].index == 1
        assert [request.path for request in server.requests] == ["/v2/rerank"] * 2


@pytest.mark.parametrize(
    ("headers", "shown"),
    [({"X-Title": "my v2"}, True), ({"X-Title": "my rerank"}, True), ({"X-Key": "my rerank"}, False)],
)
def test_title_in_a_header_masks_no_word_of_an_address(headers: dict[str, str], shown: bool) -> None:
    with CohereLike() as server:
        own = {"path": "/elsewhere/rerank", "headers": headers}
        spec = {"use": "http:m", "base_url": server.url, "api_key": server.key, "retry": 1, "http": own}
        with load_reranker(spec) as reranker, pytest.raises(Rejected, match=r"Check also `http\.path`") as raised:
            reranker.rerank("red apple", ["a car", "a red apple"])
    assert ("/elsewhere/rerank" in str(raised.value)) is shown


@pytest.mark.parametrize(
    ("place", "value"),
    [
        ("headers", {"X-Custom": "Bearer a-secret-word"}),
        ("headers", {"X-Custom": "basic a-secret-word"}),
        ("headers", {"X-Auth": "user a-secret-word"}),
        ("headers", {"X-Custom": "user 8f3H2k1J9d8S7a6F5g4H"}),
        ("body", {"auth": {"values": ["user a-secret-word"]}}),
    ],
    ids=str,
)
def test_key_at_the_end_of_a_header_or_field_is_masked(place: str, value: Any) -> None:
    word = str(value).rstrip("'}]").rpartition(" ")[2]
    with CohereLike() as server:
        server.optional = {**server.optional, "auth": dict}
        server.always(Status(422, message=f"not {word} again"))
        spec = {"use": "http:m", "base_url": server.url, "api_key": server.key, "retry": 1, "http": {place: value}}
        with load_reranker(spec) as reranker, pytest.raises(Rejected, match=r"not .* again") as raised:
            reranker.rerank("red apple", ["a car", "a red apple"])
    assert word not in str(raised.value)


@pytest.mark.parametrize(
    "count", [-1, math.inf, math.nan, 10**400, "9" * 5000, True, "many", -0.5], ids=lambda count: str(count)[:6]
)
@pytest.mark.parametrize("named", [True, False], ids=["named", "usual"])
def test_count_that_can_be_none_is_no_usage(count: Any, named: bool) -> None:
    reply = {"results": [{"index": index, "relevance_score": 0.5} for index in range(2)]}
    billed = {"meta": {"billed_units": {"search_units": count}, "tokens": {"input_tokens": count}}}
    own = {"usage_field": "meta.tokens.input_tokens", "units_field": "meta.billed_units.search_units"} if named else {}
    price = {"per_million_tokens": 1.0, "per_search_unit": 1.0}
    with CohereLike() as server:
        server.always(JSON({**reply, **billed}))
        spec = {"use": "http:m", "base_url": server.url, "api_key": server.key, "price": price, "http": own}
        with load_reranker(spec) as reranker:
            usage = reranker.rerank("red apple", ["a car", "a red apple"]).usage
    assert (usage.input_tokens, usage.search_units, usage.cost_usd) == (None, None, None)
