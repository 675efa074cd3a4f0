"""Published prices: the table, `price = "list"`, the command that prints them, and their date beside a cost."""

from __future__ import annotations

import dataclasses
import datetime as dt
import json
from typing import Any, ClassVar

import jsonschema
import pytest

from rerank_plugins import load_reranker
from rerank_plugins.backends.prices import PRICES
from rerank_plugins.cli import main
from rerank_plugins.config.generate import json_schema
from rerank_plugins.config.registry import backend_class, builtin_entries
from rerank_plugins.core import ConfigError, HostedBackend, Usage
from rerank_plugins.core.price import ListPrice, Price
from rerank_plugins.evaluation import Candidate, Dataset, Question, compare
from rerank_plugins.testing.vendors import VENDORS

ROWS = [(backend, model, price) for backend, prices in PRICES.items() for model, price in prices.items()]


def amounts_of(listed: ListPrice) -> list[float]:
    return [amount for amount in dataclasses.asdict(listed.price).values() if amount is not None]


@pytest.mark.parametrize(("backend", "model", "listed"), ROWS, ids=[f"{row[0]}:{row[1]}" for row in ROWS])
def test_every_row_has_an_amount_a_source_and_a_day(backend: str, model: str, listed: ListPrice) -> None:
    assert builtin_entries()[backend].kind == "hosted"
    assert backend_class(backend).list_prices[model] is listed
    assert (listed.price.per_million_tokens is None) == (listed.price.per_search_unit is not None)
    assert all(0 < amount < 10 for amount in amounts_of(listed))
    assert listed.source.startswith("https://")
    assert dt.date(2026, 1, 1) < dt.date.fromisoformat(listed.date)


def ask(server: Any, **settings: Any) -> Usage:
    spec = {"use": "mixedbread", "base_url": server.url, "api_key": server.key, **settings}
    with load_reranker(spec) as reranker:
        return reranker.rerank("tide", ["The tide is high.", "Bananas are yellow."]).usage


def test_cost_follows_from_the_list_price_unless_the_spec_names_amounts() -> None:
    with VENDORS["mixedbread"]() as server:
        usage = ask(server, price="list")
        assert usage.input_tokens
        assert usage.cost_usd == pytest.approx(0.15e-6 * usage.input_tokens)
        own = ask(server, price={"per_million_tokens": 1.0})
        assert own.cost_usd == pytest.approx(1e-6 * usage.input_tokens)
        in_table = ask(server, price="list", mixedbread={"price": {"per_million_tokens": 2.0}})
        assert in_table.cost_usd == pytest.approx(2e-6 * usage.input_tokens)
        assert ask(server).cost_usd is None


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ({"use": "mixedbread:mxbai-rerank-next"}, "no list price of mixedbread:mxbai-rerank-next. Known are"),
        ({"use": "http", "base_url": "http://127.0.0.1:9"}, "no list price of http. This backend has no list prices."),
        ({"use": "mixedbread", "fallback": [{"use": "voyage:rerank-9", "price": "list"}]}, "no list price of voyage"),
    ],
)
def test_a_model_without_a_list_price_is_refused(spec: dict[str, Any], message: str, monkeypatch) -> None:
    monkeypatch.setenv("MXBAI_API_KEY", "key-of-the-test")
    monkeypatch.setenv("VOYAGE_API_KEY", "key-of-the-test")
    with pytest.raises(ConfigError, match=r"rerank-plugins list --prices") as caught:
        load_reranker({"price": "list", **spec})
    assert message in str(caught.value)
    assert "price = {'per_million_tokens': 0.05}" in str(caught.value)


def test_another_word_is_refused_without_quoting_it() -> None:
    with pytest.raises(ConfigError, match=r"price must be a mapping or 'list', got a string\. Its options are:"):
        load_reranker({"use": "voyage", "api_key": "k", "price": "liste"})


def test_schema_takes_the_word_list() -> None:
    schema = json_schema(plugins=False)
    for price, valid in (("list", True), ({"per_million_tokens": 1}, True), ("liste", False), ({}, False)):
        document = {"rerankers": {"named": {"use": "voyage", "price": price}}}
        assert jsonschema.Draft202012Validator(schema).is_valid(document) is valid, price


def test_backend_of_another_package_may_have_list_prices() -> None:
    class Acme(HostedBackend):
        name = "acme"
        model = "acme-1"
        base_url = "https://api.acme.example"
        list_prices: ClassVar = {
            "acme-1": ListPrice(Price(per_search_unit=0.5), "https://acme.example/prices", "2026-11-30")
        }
        encode = decode = None

    Acme.__abstractmethods__ = frozenset()
    backend = Acme(api_key="k", price="list")
    assert backend.priced(Usage(requests=1, search_units=2.0)).cost_usd == 1.0
    assert backend.list_price.date == "2026-11-30"


def test_command_prints_every_price_with_its_day(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["list", "--prices"]) == 0
    heading, *lines = capsys.readouterr().out.splitlines()
    columns = [field.name for field in dataclasses.fields(Price)]
    assert heading.split() == ["spec", *columns, "date", "source"]
    assert len(lines) == len(ROWS)
    for line, (backend, model, listed) in zip(lines, ROWS, strict=True):
        spec, *amounts, date, source = line.split()
        assert (spec, date, source) == (f"{backend}:{model}", listed.date, listed.source)
        assert list(map(float, amounts)) == amounts_of(listed)
    assert main(["list", "--prices", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)[0]["spec"] == "cohere:rerank-v5.0-pro"


def test_comparison_names_the_day_of_a_list_price() -> None:
    texts = ("A bank raised its rates.", "Bees make honey.")
    candidates = tuple(Candidate(f"d{number}", text) for number, text in enumerate(texts))
    dataset = Dataset.of("bees", [Question("q1", "who makes honey?", candidates)], {"q1": {"d1": 1}})
    with VENDORS["mixedbread"]() as server:
        spec = {"use": "mixedbread", "base_url": server.url, "api_key": server.key}
        listed, own = compare(dataset, [{**spec, "price": "list"}]), compare(dataset, [spec])
    label = "mixedbread:mixedbread-ai/mxbai-rerank-large-v2"
    date = PRICES["mixedbread"]["mixedbread-ai/mxbai-rerank-large-v2"].date
    assert listed.rows[0].usd_per_1000 > 0
    assert listed.to_dict()["rerankers"][0]["list_prices"] == {label: date}
    assert f"{label} ({date})" in str(listed)
    assert f"{label} ({date})" in listed.to_html().split("<script")[0]
    assert "list price" not in str(own)
