"""`RerankResponse` as a sequence of results, and `to_dict`."""

from __future__ import annotations

import array
import copy
import datetime as dt
import json
import pickle
from collections import OrderedDict, deque
from decimal import Decimal
from enum import Enum
from pathlib import PurePosixPath
from uuid import UUID

import numpy as np
import pytest

from rerank_plugins import RerankResponse, RerankResult, Usage, load_reranker
from rerank_plugins.core import Attempt, Span
from rerank_plugins.core.plain_data import plain_data


def response_of(*results: RerankResult, **fields: object) -> RerankResponse:
    return RerankResponse(results=results, model="acme:rerank-1", scale="unit", **fields)


def test_to_dict_has_exactly_the_documented_keys():
    result = RerankResult(
        index=1,
        document="text",
        relevance_score=0.5,
        raw_score=0.25,
        truncated=True,
        spans=(Span(0, 4, 0.5),),
        reason="why",
    )
    response = response_of(
        result,
        usage=Usage(requests=2, input_tokens=7, cost_usd=0.5),
        degraded=True,
        reason="RateLimited",
        attempts=(Attempt("acme:rerank-1", "RateLimited", 2.5, "429", remote=True, status=429),),
        latency_ms=12.5,
    )
    assert response.to_dict() == {
        "results": [
            {
                "index": 1,
                "relevance_score": 0.5,
                "raw_score": 0.25,
                "truncated": True,
                "spans": [{"start": 0, "end": 4, "score": 0.5}],
                "reason": "why",
                "document": "text",
            }
        ],
        "usage": {
            "requests": 2,
            "input_tokens": 7,
            "output_tokens": None,
            "cached_tokens": None,
            "search_units": None,
            "cost_usd": 0.5,
        },
        "model": "acme:rerank-1",
        "scale": "unit",
        "degraded": True,
        "reason": "RateLimited",
        "attempts": [
            {
                "model": "acme:rerank-1",
                "outcome": "RateLimited",
                "milliseconds": 2.5,
                "detail": "429",
                "remote": True,
                "usage": None,
                "status": 429,
            }
        ],
        "latency_ms": 12.5,
    }


def test_to_dict_of_a_real_call_round_trips_through_strict_json():
    documents = [
        "Berlin is the capital",
        {"title": "Berlin", "founded": dt.date(1237, 10, 28), "vector": np.arange(100.0), "area": float("nan")},
        "",
    ]
    data = load_reranker("lexical").rerank("capital Berlin", documents).to_dict()
    assert json.loads(json.dumps(data, allow_nan=False)) == data
    by_index = {result["index"]: result for result in data["results"]}
    assert by_index[0]["document"] == documents[0]
    assert by_index[1]["document"] == {
        "title": "Berlin",
        "founded": "1237-10-28",
        "vector": list(range(100)),
        "area": None,
    }
    assert by_index[1]["reason"] == "fields not read: vector (100 numbers)"
    assert by_index[2]["raw_score"] is None
    assert by_index[2]["reason"].startswith("blank")


def test_to_dict_without_documents_holds_none_of_their_text():
    response = load_reranker("lexical").rerank("capital", ["a confidential text", {"title": "confidential"}])
    assert "confidential" not in json.dumps(response.to_dict(documents=False))
    assert "confidential" in json.dumps(response.to_dict())


def test_to_dict_of_an_empty_response():
    data = load_reranker("lexical").rerank("capital", []).to_dict()
    assert data["results"] == []
    assert data["attempts"] == []


class Colour(Enum):
    RED = "red"


class Name(str):
    __slots__ = ()


LOOP: list[object] = []
LOOP.append(LOOP)


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (None, None),
        (True, True),
        (5, 5),
        (2**20_000, hex(2**20_000)),  # json.dumps refuses integers of more than 4,300 digits
        (float("inf"), None),
        (b"\xff", "/w=="),
        (bytearray(b"\xff"), "/w=="),
        (memoryview(b"\xff"), "/w=="),
        (array.array("i", [1, 2]), [1, 2]),
        (dt.datetime(2026, 11, 30, 12, 0, tzinfo=dt.UTC), "2026-11-30T12:00:00+00:00"),
        (dt.time(12, 30), "12:30:00"),
        (Decimal("1.10"), "1.10"),
        (UUID(int=5), "00000000-0000-0000-0000-000000000005"),
        (PurePosixPath("/a/b"), "/a/b"),
        (Colour.RED, "red"),
        ({Colour.RED: 1, None: 2, 3: 4, dt.date(2026, 1, 2): 5}, {"red": 1, "None": 2, "3": 4, "2026-01-02": 5}),
        (OrderedDict(a=(1, {2})), {"a": [1, [2]]}),
        (deque([1, frozenset([2])]), [1, [2]]),
        (range(3), [0, 1, 2]),
        ({"a": 1}.keys(), ["a"]),
        ({"a": 1}.values(), [1]),
        (np.float32(0.5), 0.5),
        (np.float64("nan"), None),
        (np.int64(5), 5),
        (np.bool_(True), True),
        (np.array([[1, 2], [3, 4]]), [[1, 2], [3, 4]]),
    ],
    ids=lambda value: type(value).__name__,
)
def test_plain_data_of_each_type(value, expected):
    data = plain_data(value)
    assert data == expected
    assert type(data) is type(expected)
    assert json.loads(json.dumps(data, allow_nan=False)) == data


def test_plain_data_of_a_string_subclass_is_a_string():
    assert type(plain_data(Name("text"))) is str


def test_plain_data_ends_at_a_value_that_contains_itself():
    assert json.dumps(plain_data({"loop": LOOP})).count("[") == 100


def test_response_generic_in_its_documents_pickles_and_copies():
    response = response_of(RerankResult(index=0, document={"title": "a"}, relevance_score=0.5, raw_score=0.5))
    assert pickle.loads(pickle.dumps(response)) == response
    assert copy.deepcopy(response) == response
    assert RerankResponse[str] is not None
    assert RerankResult[str] is not None
