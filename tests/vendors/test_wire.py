"""Requests and replies compared with verbatim examples of the vendors' documentation; each names its URL and date."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from rerank_plugins import load_reranker
from rerank_plugins.testing.script import JSON
from rerank_plugins.testing.vendors import VENDORS

EXAMPLES = {
    path.stem: json.loads(path.read_text("utf-8")) for path in sorted((Path(__file__).parent / "fixtures").glob("*"))
}
ANSWERED = [name for name, example in EXAMPLES.items() if example["response"] is not None]


@pytest.fixture
def example(request: pytest.FixtureRequest) -> dict[str, Any]:
    return EXAMPLES[request.param]


def backend(example: dict[str, Any]) -> str:
    return example["spec"].partition(":")[0]


def settings(example: dict[str, Any], server: Any) -> dict[str, Any]:
    options = {backend(example): example["options"]} if example["options"] else {}
    return {"use": example["spec"], "base_url": server.url, "api_key": server.key, "retry": 1, **options}


def documents(example: dict[str, Any], server: Any) -> list[Any]:
    return example["request"][server.documents_field]


def listed(response: Any, example: dict[str, Any]) -> list[dict[str, Any]]:
    return response if example["results"] is None else response[example["results"]]


@pytest.mark.parametrize("example", EXAMPLES, indirect=True)
def test_sent_request_equals_the_documented_one(example: dict[str, Any]) -> None:
    """Fields that this package leaves out (such as `top_n`) or always sends are listed in the example's file."""
    expected = {name: value for name, value in example["request"].items() if name not in example["ours"]["without"]}
    with VENDORS[backend(example)]() as server, load_reranker(settings(example, server)) as reranker:
        reranker.rerank(example["request"]["query"], documents(example, server), top_n=1)
        assert server.refused == []
        assert server.requests[0].body == {**expected, **example["ours"]["with"]}


@pytest.mark.parametrize("example", EXAMPLES, indirect=True)
def test_vendor_server_accepts_the_documented_request(example: dict[str, Any]) -> None:
    server = VENDORS[backend(example)]()
    assert server.validate(example["request"], {"authorization": f"Bearer {server.key}"}) is None


@pytest.mark.parametrize("example", ANSWERED, indirect=True)
def test_the_documented_response_gives_its_scores(example: dict[str, Any]) -> None:
    """Examples show the best results only; the other documents are added with a score of 0."""
    documented = {each["index"]: each[example["score"]] for each in listed(example["response"], example)}
    with VENDORS[backend(example)]() as server, load_reranker(settings(example, server)) as reranker:
        count = len(documents(example, server))
        missing = [{"index": index, example["score"]: 0.0} for index in range(count) if index not in documented]
        response = json.loads(json.dumps(example["response"]))
        listed(response, example).extend(missing)
        server.play(JSON(response))
        answer = reranker.rerank(example["request"]["query"], documents(example, server))
    assert {result.index: result.raw_score for result in answer if result.index in documented} == documented
    assert {name: getattr(answer.usage, name) for name in example["usage"]} == example["usage"]


@pytest.mark.parametrize("example", ANSWERED, indirect=True)
def test_vendor_server_answers_with_documented_fields(example: dict[str, Any]) -> None:
    """Every field of the test server's answer is in the documented example or schema."""
    server = VENDORS[backend(example)]()
    answer = server.answer(example["request"], [(0, 0.5)])
    for field in (example["score"], "index"):
        assert field in listed(answer, example)[0]
    if isinstance(example["response"], dict):
        undocumented = set(answer) - set(example["response"]) - {"id", "created", "model"}
        assert not undocumented


def test_every_backend_that_sends_requests_has_an_example() -> None:
    """The requests of language models hold random ids: `test_decisions` holds them by the vendors' own types."""
    assert {backend(example) for example in EXAMPLES.values()} == set(VENDORS) - {"openai", "typesafe"}


def test_every_example_names_its_source_and_date() -> None:
    for name, example in EXAMPLES.items():
        assert any("2026-" in line for line in example["source"]), name
