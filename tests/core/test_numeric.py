"""Numeric options accept numbers of NumPy, refuse bools and strings, and store Python's own types."""

from __future__ import annotations

import json
import pickle
import re
from fractions import Fraction
from typing import Any

import numpy as np
import pytest
from langchain_core.runnables import RunnableLambda

from rerank_plugins import ConfigError, InputError, Reranker, load_reranker
from rerank_plugins.config import shared
from rerank_plugins.core.numeric import finite, integer, seconds
from rerank_plugins.langchain import RerankCompressor, RerankRetriever
from rerank_plugins.llama_index import RerankPostprocessor


@pytest.mark.parametrize("value", [3, np.int64(3), np.int8(3), np.uint16(3), np.array(3)], ids=repr)
def test_integer_of_numpy_becomes_an_int(value: Any) -> None:
    assert integer(value, "count") == 3
    assert type(integer(value, "count")) is int


@pytest.mark.parametrize("value", [0.5, np.float64(0.5), np.float32(0.5), np.float16(0.5), Fraction(1, 2)], ids=repr)
def test_number_of_numpy_or_fractions_becomes_a_float(value: Any) -> None:
    assert finite(value, "weight", 0.0, 1.0) == seconds(value, "deadline") == 0.5
    assert type(finite(value, "weight")) is type(seconds(value, "deadline")) is float
    assert seconds(np.int64(0), "wait", zero=True) == 0.0


@pytest.mark.parametrize(
    "value", [True, np.True_, "3", None, [3], np.timedelta64(3, "s"), np.datetime64("2026-11-30")], ids=repr
)
def test_value_that_is_not_a_number_is_refused(value: Any) -> None:
    got = re.escape(f"got {value!r}.")
    with pytest.raises(ConfigError, match=f"count must be an integer of at least 1, {got}"):
        integer(value, "count")
    with pytest.raises(ConfigError, match=f"weight must be a finite number from 0 to 9, {got}"):
        finite(value, "weight", 0, 9)
    with pytest.raises(ConfigError, match=f"deadline must be a number of seconds.*{got}"):
        seconds(value, "deadline")


@pytest.mark.parametrize("value", [3.0, np.float64(3), np.int64(0), np.int64(2**40), np.array([1, 2])], ids=repr)
def test_float_or_integer_out_of_range_is_refused_as_an_integer(value: Any) -> None:
    with pytest.raises(ConfigError, match="count must be an integer"):
        integer(value, "count")


@pytest.mark.parametrize("value", [np.float32("nan"), np.float64("inf"), np.float32(2)], ids=repr)
def test_number_that_is_not_finite_or_out_of_range_is_refused(value: Any) -> None:
    with pytest.raises(ConfigError, match="weight must be a finite number from 0 to 1"):
        finite(value, "weight", 0.0, 1.0)


OPTIONS = {
    "use": "lexical",
    "top_n": np.int64(2),
    "score_threshold": np.float32(0.25),
    "retry": np.int32(2),
    "deadline": np.float64(2.0),
    "diversify": {"lambda": np.float16(0.5), "top_n": np.int8(5)},
    "cache": {"max_entries": np.int64(10), "ttl_s": np.float32(60)},
    "fallback": [{"use": "passthrough", "top_n": np.uint8(1)}],
}
HOSTED = {
    "use": "http",
    "base_url": "http://127.0.0.1:9",
    "timeout": np.float32(2),
    "max_in_flight": np.int64(2),
    "max_tokens": np.int64(512),
    "retry": {"attempts": np.int64(2), "wait_initial": np.float32(0), "wait_max": np.int64(1)},
    "breaker": {"failures": np.int64(2), "reset_s": np.float64(3)},
    "limit": {"requests_per_minute": np.int64(60)},
    "price": {"per_request": np.float32(0.5)},
}


def plain(value: Any) -> Any:
    """Return `value` with NumPy's numbers replaced by Python's."""
    if isinstance(value, dict):
        return {key: plain(each) for key, each in value.items()}
    if isinstance(value, list):
        return [plain(each) for each in value]
    return value.item() if isinstance(value, np.generic) else value


def test_spec_accepts_numpy_numbers() -> None:
    reranker = load_reranker(OPTIONS)
    assert (reranker.top_n, reranker.score_threshold) == (2, 0.25)
    assert len(reranker.rerank("moon", ["moon", "a moon", "moons", "bees"])) <= 2
    assert json.loads(json.dumps(reranker.spec)) == json.loads(json.dumps(plain(OPTIONS)))
    assert b"numpy" not in pickle.dumps(reranker)
    assert shared(OPTIONS) is shared(plain(OPTIONS))


def test_keyword_options_accept_numpy_numbers() -> None:
    reranker = load_reranker("lexical", top_n=np.int64(2), deadline=np.float32(5))
    assert reranker.spec == {"use": "lexical", "top_n": 2, "deadline": 5.0}


@pytest.mark.parametrize("option", [key for key in HOSTED if key not in ("use", "base_url")])
def test_options_of_a_hosted_backend_accept_numpy_numbers(option: str) -> None:
    spec = {"use": HOSTED["use"], "base_url": HOSTED["base_url"], option: HOSTED[option]}
    try:
        expected = load_reranker(plain(spec)).spec
    except ConfigError as error:
        with pytest.raises(ConfigError, match=re.escape(str(error))):
            load_reranker(spec)
    else:
        assert json.dumps(load_reranker(spec).spec) == json.dumps(expected)


@pytest.mark.parametrize("option", ["top_n", "score_threshold", "deadline", "retry"])
@pytest.mark.parametrize("value", [True, np.True_, "1"], ids=repr)
def test_bool_or_string_as_a_number_is_refused(option: str, value: Any) -> None:
    with pytest.raises(ConfigError, match=f"{option}.* must be "):
        load_reranker({"use": "lexical", option: value})


@pytest.mark.parametrize("kind", [RerankCompressor, RerankPostprocessor])
def test_fields_of_the_adapters_accept_numpy_numbers(kind: Any) -> None:
    adapter = kind(reranker="lexical", top_n=np.int64(2), score_threshold=np.float32(0.5))
    assert (type(adapter.top_n), type(adapter.score_threshold)) == (int, float)
    assert json.loads(adapter.model_dump_json())["top_n"] == 2


def test_fetch_k_accepts_a_numpy_integer() -> None:
    assert (
        type(
            RerankRetriever(retriever=RunnableLambda(lambda query: []), reranker="lexical", fetch_k=np.int64(2)).fetch_k
        )
        is int
    )


def test_reranker_constructor_accepts_numpy_numbers() -> None:
    scorer = load_reranker("lexical").scorer
    assert Reranker(scorer, top_n=np.int64(2), score_threshold=np.float32(0.5)).top_n == 2
    with pytest.raises(InputError, match=r"top_n must be an integer of at least 1, or None for all; got 2\.0"):
        Reranker(scorer).rerank("moon", ["moon"], top_n=2.0)
