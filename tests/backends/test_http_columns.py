"""`http` with the columns of a preset, written in TOML: objects, nested fields, bare scores, the model in the path."""

from __future__ import annotations

import tomllib
import traceback
from pathlib import Path
from typing import Any

import pytest

from rerank_plugins import BadResponse, ConfigError, load_reranker
from rerank_plugins.testing.cohere_like import CohereLike
from rerank_plugins.testing.documented import documented_server
from rerank_plugins.testing.script import JSON

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
