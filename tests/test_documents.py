"""Types accepted as documents, the text of mappings, and blank documents."""

from __future__ import annotations

import array
import asyncio
import contextlib
import datetime as dt
import json
import sqlite3
import threading
import time
from collections import ChainMap, OrderedDict, UserDict, UserList, UserString, deque
from collections.abc import Iterator
from dataclasses import dataclass, replace
from decimal import Decimal
from enum import Enum, Flag, IntEnum, StrEnum, auto
from fractions import Fraction
from ipaddress import ip_address
from pathlib import Path, PureWindowsPath
from typing import Any, NamedTuple
from uuid import UUID

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from langchain_core.documents import Document
from llama_index.core.schema import NodeWithScore, TextNode
from pydantic import BaseModel, RootModel, SecretStr
from support.heartbeat import LONGEST_HOLD, smallest_hold

from rerank_plugins import ConfigError, DeadlineExceeded, InputError, Reranker, load_reranker
from rerank_plugins.core import BadResponse, Capabilities, LocalBackend, Scorer, Scores
from rerank_plugins.core._runtime.background_loop import check_cancelled
from rerank_plugins.core._runtime.text_work import SLICE_CHARACTERS
from rerank_plugins.core.alignment import aligned, checked
from rerank_plugins.core.text import is_blank, sendable
from rerank_plugins.core.types import RerankRequest
from rerank_plugins.core.wire import HTTPResponse, parse_json
from rerank_plugins.policies.deadline import Deadline
from rerank_plugins.structured_documents import LONGEST_NAMED_NUMBERS, LONGEST_NUMBERS, read_fields


class Point(NamedTuple):
    x: int
    y: int


@dataclass
class Author:
    name: str


class Colour(Enum):
    RED = "red"
    NUMBER = 3
    ODD = object()


class ByLength(Scorer):
    """A scorer whose score is the length of a document. It records every request."""

    label = "by length"
    capabilities = Capabilities(scale="logit", instructions=True)

    def __init__(self) -> None:
        self.requests: list[RerankRequest] = []

    async def ascore(self, request: RerankRequest) -> Scores:
        self.requests.append(request)
        values = tuple(float(len(document)) for document in request.documents)
        return Scores(values=values, model=self.label, capabilities=self.capabilities)


def sent(document: Any, fields: list[str] | None = None) -> str:
    """Return the text that a scorer receives for `document`."""
    scorer = ByLength()
    Reranker(scorer, fields=fields).rerank("query", [document])
    return scorer.requests[0].documents[0]


# --- iterables ---

TEXTS = ["a", "aaa", "aa"]
COLUMN = {"text": TEXTS, "title": ["x", "y", "z"]}


@pytest.mark.parametrize(
    "documents",
    [
        TEXTS,
        tuple(TEXTS),
        deque(TEXTS),
        dict.fromkeys(TEXTS).keys(),
        dict(enumerate(TEXTS)).values(),
        np.array(TEXTS),
        np.array(TEXTS, dtype=object),
        pd.Series(TEXTS),
        pd.DataFrame(COLUMN)["text"],
        pd.Index(TEXTS),
        pa.array(TEXTS),
        pa.table(COLUMN)["text"],
    ],
    ids=lambda value: type(value).__name__,
)
def test_any_ordered_iterable_is_accepted_as_documents(documents):
    scorer = ByLength()
    response = Reranker(scorer).rerank("query", documents)
    assert [result.index for result in response] == [1, 2, 0]
    assert [type(text) for text in scorer.requests[0].documents] == [str, str, str]


@pytest.mark.parametrize("make", [iter, lambda texts: map(str, texts), lambda texts: (text for text in texts)])
async def test_iterators_are_read_once(make):
    reranker = Reranker(ByLength())
    assert [result.index for result in reranker.rerank("query", make(TEXTS))] == [1, 2, 0]
    assert [result.index for result in await reranker.arerank("query", make(TEXTS))] == [1, 2, 0]


def test_retrieval_scores_are_read_on_the_calling_thread():
    """A cursor of a database may be used only on the thread that opened it."""
    threads = []

    def cursor():
        for score in (0.5, 0.25):
            threads.append(threading.current_thread())
            yield score

    Reranker(ByLength()).rerank("query", ["a", "bb"], retrieval_scores=cursor())
    assert set(threads) == {threading.current_thread()}


def test_database_cursor_is_read_on_the_calling_thread():
    with sqlite3.connect(":memory:") as connection:
        rows = connection.execute("select 'a' union all select 'aa'")
        assert len(Reranker(ByLength()).rerank("query", (text for (text,) in rows))) == 2


class Answer(BaseModel):
    """A pydantic model. Iterating over one yields its fields, so it is not a list of documents."""

    text: str


class Hit(BaseModel):
    """What Qdrant's client returns looks like this."""

    payload: dict[str, Any]


def row() -> sqlite3.Row:
    with contextlib.closing(sqlite3.connect(":memory:")) as database:
        database.row_factory = sqlite3.Row
        fetched: sqlite3.Row = database.execute("SELECT 'a' AS text").fetchone()
        return fetched


class Texts(RootModel[list[str]]):
    """A pydantic model that defines its own iterator.

    https://docs.pydantic.dev/latest/concepts/models/#rootmodel-and-custom-root-types
    """

    def __iter__(self) -> Iterator[str]:  # type: ignore[override]
        return iter(self.root)


class DataFrame:
    """Stands for polars, which the tests do not install: only package and class name are examined."""

    __module__ = "polars.dataframe.frame"

    def __iter__(self) -> Iterator[str]:
        return iter(["text"])


@pytest.mark.parametrize(
    ("documents", "advice"),
    [
        (pd.DataFrame(COLUMN), r'got a DataFrame.*df\["text"\].*df.to_dict\("records"\)'),
        (DataFrame(), r'got a DataFrame.*df\["text"\].*df.to_dicts\(\)'),
        (pa.table(COLUMN), r'got a Table.*table\["text"\].*table.to_pylist\(\)'),
        (pa.RecordBatch.from_pydict(COLUMN), r"got a RecordBatch.*batch.to_pylist\(\)"),
        ({"a", "b"}, "got a set: a set has no order.*Pass a list"),
        (frozenset({"a"}), "got a frozenset: a set has no order"),
        (np.array([["a", "b"]]), "got a ndarray of 2 dimensions"),
        (np.array("a"), "got a ndarray of 0 dimensions"),
        (torch.zeros(2, 2), "got a Tensor of 2 dimensions"),
        (Document(page_content="a"), "got one LangChain Document: pass document.page_content.*RerankCompressor"),
        (TextNode(text="a"), r"got one LlamaIndex TextNode: pass node.get_content\(\).*RerankPostprocessor"),
        (pd.DataFrame(), r'got a DataFrame.*df\["text"\]'),
        (pa.RecordBatchReader.from_batches(pa.table(COLUMN).schema, []), r"got a RecordBatchReader.*read_all"),
        (Answer(text="a"), r"got one Answer: pass a list, such as \[document\]"),
        (None, r"got None: pass a list, such as \[document\]"),
        ({"text": "a"}, r"got one dict: pass a list, such as \[document\]"),
        ("a", r"got one str: pass a list, such as \[document\]"),
    ],
    ids=lambda value: type(value).__name__,
)
def test_documents_of_an_unordered_or_single_type_are_refused_with_advice(documents, advice):
    scorer = ByLength()
    with pytest.raises(InputError, match=advice):
        Reranker(scorer).rerank("query", documents)
    assert scorer.requests == []


@pytest.mark.parametrize("module", ["dask.dataframe.dask_expr", "modin.pandas.dataframe"])
def test_dataframe_of_another_package_is_recognized_by_its_type_name(module):
    frame = type("DataFrame", (), {"__module__": module, "__iter__": lambda self: iter(["text"])})
    with pytest.raises(InputError, match=r'got a DataFrame: pass a column, such as df\["text"\]'):
        Reranker(ByLength()).rerank("query", frame())


def test_pydantic_model_with_its_own_iterator_is_accepted_as_documents():
    assert [result.index for result in Reranker(ByLength()).rerank("query", Texts(TEXTS))] == [1, 2, 0]


async def test_async_generator_of_documents_is_refused():
    async def documents():
        yield "a"

    with pytest.raises(InputError, match="got one async_generator: collect it first"):
        await Reranker(ByLength()).arerank("query", documents())


@pytest.mark.parametrize(
    ("document", "advice"),
    [
        (
            Document(page_content="a"),
            "Document 1 must be .*got one LangChain Document: pass document.page_content, or.*RerankCompressor",
        ),
        (
            TextNode(text="a"),
            r"Document 1 must be .*got one LlamaIndex TextNode: pass node.get_content\(\), or.*RerankPostprocessor",
        ),
        (
            NodeWithScore(node=TextNode(text="a")),
            "Document 1 must be .*got one LlamaIndex NodeWithScore.*RerankPostprocessor",
        ),
        (Point(1, 2), r"got a value of type Point\. Pass document._asdict\(\)"),
        (Author("A"), r"got a value of type Author\. Pass dataclasses.asdict\(document\)"),
        (Answer(text="a"), r"got a value of type Answer\. Pass document.model_dump\(\)"),
        (pd.Series({"text": "a"}), r"got a value of type Series\. Pass document.to_dict\(\)"),
        (pa.scalar("a"), r"got a value of type StringScalar\. Pass document.as_py\(\)"),
        (("a title", "a text"), r"got a tuple\. Pass the text in it, such as document\[1\]"),
        (row(), r"got a value of type Row\. Pass dict\(document\), or a text in it"),
        (Hit(payload={"text": "a"}), r"got a value of type Hit\. Pass document.payload, or a text in it"),
        (5, r"got 5\. Leave it out, or make it a string"),
        (torch.zeros(1), "Document 1 must be a string or a mapping of fields, got a value of type Tensor"),
    ],
    ids=lambda value: type(value).__name__,
)
def test_document_of_an_unsupported_type_is_refused_with_advice(document, advice):
    with pytest.raises(InputError, match=advice):
        Reranker(ByLength()).rerank("query", ["a", document])


# --- mappings ---


def test_embedding_is_left_out_and_reported():
    scorer = ByLength()
    documents = [{"vector": [0.1] * 1536, "text": "a red car"}, {"vector": [0.1] * 1536, "text": "blue", "price": 5}]
    first, second = sorted(Reranker(scorer).rerank("query", documents), key=lambda result: result.index)
    assert scorer.requests[0].documents == ("a red car", "text: blue\nprice: 5\n")
    assert scorer.requests[0].fields == (None, {"text": "blue", "price": 5})
    assert first.reason == second.reason == "fields not read: vector (1536 numbers)"
    assert first.raw_score is not None
    assert first.document is documents[0]


@pytest.mark.parametrize(
    "vector",
    [
        [0.5] * 17,
        (1,) * 17,
        np.zeros(17, np.float32),
        list(np.zeros(17, np.float32)),
        np.zeros((4, 5)),
        [[0.1] * 9, [0.2] * 9],
        [np.zeros(9), np.zeros(9)],
        torch.zeros(17),
        {number / 3 for number in range(17)},
        b"bytes",
        bytearray(b"bytes"),
    ],
    ids=lambda value: type(value).__name__,
)
def test_vector_or_bytes_anywhere_in_a_mapping_are_left_out(vector):
    for document in (
        {"v": vector, "text": "car"},
        {"text": "car", "meta": {"v": vector}},
        {"text": "car", "v": [vector]},
    ):
        scorer = ByLength()
        (result,) = Reranker(scorer).rerank("query", [document])
        assert scorer.requests[0].documents == ("car",)
        assert result.reason.startswith("fields not read: ")


@pytest.mark.parametrize(
    ("vector", "count"),
    [
        ([0.1, None] * 50, 50),
        ([None, *[float("nan")] * 17], 17),
        ([0.1, pd.NA] * 20, 20),
        ([Decimal("0.1")] * 17, 17),
        (deque([0.1] * 17), 17),
        (array.array("f", [0.1] * 17), 17),
        (pd.Series([0.1] * 17), 17),
        (pa.array([0.1] * 17), 17),
        (range(10**9), 10**9),
        (dict.fromkeys(range(100), 0.1), 100),
        ({f"word{number}": 0.1 for number in range(100)}, 100),
        ({"values": dict.fromkeys(range(100), 0.1)}, 100),
        ([{"index": number, "value": 0.5} for number in range(33)], 66),
        (str([0.1] * 17), 17),
        (str([-1.5e-05] * 1536), 1536),
        (json.dumps([0.1, None] * 50), 50),
        (json.dumps([[0.1] * 9, [0.2] * 9]), 18),
        (json.dumps({str(number): 0.1 for number in range(100)}), 100),
        (f"  [{' '.join(['-0.25'] * 40)}]\n", 40),
        (str(np.full(40, 0.125)), 40),
        (str([np.float64(0.5)] * 20), 20),
        ("{" + ",".join(["0.5"] * 40) + "}", 40),
        ("{" + ",".join(f"{number}:0.5" for number in range(1, 101)) + "}/30000", 100),
        (str([0.123456789] * 100_000), 100_000),
        ([str([0.1] * 17)], 17),
    ],
    ids=lambda value: f"{type(value).__name__}-{str(value)[:20]}",
)
def test_vector_of_any_type_is_left_out_with_its_length(vector, count):
    (result,) = Reranker(scorer := ByLength()).rerank("query", [{"v": vector, "text": "car"}])
    assert scorer.requests[0].documents == ("car",)
    assert result.reason.removesuffix(" and 82 more").startswith("fields not read: v")
    assert f"({count} numbers)" in result.reason


@pytest.mark.parametrize(
    "value",
    [
        str([0.5] * LONGEST_NUMBERS),
        "[see 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16 17 18]",
        "(1) 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16 17 18 cars",
        "1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16 17 18",
        json.dumps({f"word{number}": number for number in range(100)}),
        str([f"2026-01-{number:02}" for number in range(1, 29)]),
        "[" + "1" * 200 + "]",
        "[" + "0.5, " * 20_000 + "x]",
    ],
    ids=lambda value: value[:20],
)
def test_string_that_is_not_a_vector_is_read(value):
    assert sent({"text": value}) == value


def test_small_mapping_of_numbers_and_mixed_list_are_read():
    facts = {f"nutrient {number}": number / 2 for number in range(LONGEST_NAMED_NUMBERS)}
    assert sent({"facts": facts, "text": "soup"}).count("nutrient") == LONGEST_NAMED_NUMBERS
    rows = [["car", number] for number in range(40)]
    assert sent({"rows": rows}).count("car") == 40
    orders = [{"item": "car", "price": number} for number in range(40)]
    assert sent({"orders": orders}).count("price") == 40
    assert sent({"text": "car", "empty": [None, float("nan")]}) == "car"


def test_numbers_in_deeply_nested_fields_take_linear_time(monkeypatch):
    calls = []
    monkeypatch.setattr("rerank_plugins.structured_documents.check_cancelled", lambda: calls.append(None))
    nested: Any = "text"
    for _ in range(60):
        nested = [*[1.5] * 200, nested]
    read_fields({"a": nested}, 0)
    assert len(calls) < 60 * 201 * 8  # at most once per level that counts numbers, and once when it is read


def test_short_lists_of_numbers_and_lists_of_texts_are_read():
    assert sent({"a": [1] * LONGEST_NUMBERS, "b": np.array([1.5, 2.0])}).count("\n- ") == LONGEST_NUMBERS + 2
    assert sent({"tags": ["x"] * 40, "t": "y"}).count("\n- ") == 40


@pytest.mark.parametrize(
    ("document", "text"),
    [
        ({"text": "a: car"}, "a: car"),
        ({"text": "car", "title": None}, "car"),
        ({"text": "car", "title": " \u200b"}, "car"),
        ({"text": "car", "title": float("nan")}, "car"),
        ({"text": "car", "title": pd.NA, "at": pd.NaT}, "car"),
        ({"text": "car", "id": 7}, "text: car\nid: 7\n"),
        ({"id": 7, "text": "car"}, "id: 7\ntext: car\n"),
        ({"price": 5}, "price: 5\n"),
        ({"tags": ["a"]}, "tags:\n- a\n"),
        ({"at": pd.Timestamp("2026-11-05 12:30")}, "at: 2026-11-05 12:30:00\n"),
        ({"seen": np.bool_(True), "n": np.int64(3)}, "seen: true\nn: 3\n"),
        ({"names": {"b", "a"}}, "names:\n- a\n- b\n"),
    ],
)
def test_one_text_field_is_sent_alone_and_others_as_yaml(document, text):
    assert sent(document) == text


class Small(IntEnum):
    ONE = 1


class Kind(StrEnum):
    NEWS = "news"


class Rights(Flag):
    READ = auto()
    WRITE = auto()


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (Decimal("19.99"), "19.99"),
        (Decimal(5), "5"),
        (Decimal("5E+3"), "5000"),
        (Decimal(12345678901234567890), "12345678901234567890"),
        (Decimal("0.12345678901234567890"), "'0.12345678901234567890'"),
        (Decimal("1E+1000000"), "1E+1000000"),
        (Decimal("Infinity"), ".inf"),
        (Fraction(1, 2), "0.5"),
        (dt.time(12, 30), "'12:30:00'"),
        (dt.timedelta(days=1, hours=2), "1 day, 2:00:00"),
        (pd.Timedelta("1 day"), "1 days 00:00:00"),
        (dt.date(2026, 11, 30), "2026-11-30"),
        (dt.datetime(2026, 11, 30, 12, tzinfo=dt.UTC), "2026-11-30 12:00:00+00:00"),
        (np.datetime64("2026-11-30"), "2026-11-30"),
        (np.datetime64("2026-11-30T12:00:00", "ns"), "2026-11-30 12:00:00"),
        (np.timedelta64(90, "m"), "'1:30:00'"),
        (np.timedelta64(90 * 10**9, "ns"), "0:01:30"),
        (np.array(["2026-11-30"], "datetime64[ns]"), "\n- 2026-11-30 00:00:00"),
        (UUID(int=5), "00000000-0000-0000-0000-000000000005"),
        (Path("a/b.txt"), "a/b.txt"),
        (PureWindowsPath("a\\b.txt"), "a\\b.txt"),
        (ip_address("127.0.0.1"), "127.0.0.1"),
        (Colour.RED, "red"),
        (Colour.NUMBER, "3"),
        (Small.ONE, "1"),
        (Kind.NEWS, "news"),
        (Rights.READ | Rights.WRITE, "3"),
        (range(3), "\n- 0\n- 1\n- 2"),
        (deque(["a"]), "\n- a"),
        (UserList(["a"]), "\n- a"),
        ({"a": 1}.keys(), "\n- a"),
        ({"b": 1, "a": 2}.items(), "\n- - b\n  - 1\n- - a\n  - 2"),
        ({"a": "x"}.values(), "\n- x"),
        (UserString("car"), "car"),
        (UserDict(a=1), "\n  a: 1"),
        (ChainMap({"a": 1}), "\n  a: 1"),
        (OrderedDict(a=1), "\n  a: 1"),
        (Point(1, 2), "\n  x: 1\n  y: 2"),
        (("a", 1), "\n- a\n- 1"),
        (np.float32(0.5), "0.5"),
        (np.array(["a", "b"]), "\n- a\n- b"),
        (np.str_("car"), "car"),
        (pa.scalar("car"), "car"),
        (pa.array(["car"]), "\n- car"),
        (torch.tensor([1, 2]), "\n- 1\n- 2"),
        ({UUID(int=5): 1, Colour.RED: 2}, "\n  00000000-0000-0000-0000-000000000005: 1\n  red: 2"),
    ],
    ids=lambda value: f"{type(value).__name__}-{str(value)[:20]}",
)
def test_field_value_of_each_type_is_written_in_its_usual_form(value, text):
    space = "" if text.startswith("\n") else " "
    assert sent({"text": "a", "value": value}) == f"text: a\nvalue:{space}{text}\n"
    fields = read_fields({"text": "a", "value": value}, 0).json()
    json.dumps(fields, allow_nan=False)
    if not isinstance(value, Decimal):  # JSON cannot represent Infinity
        assert fields == read_fields(fields, 0).json(), "what was read is plain data"


@pytest.mark.parametrize(
    "value", [None, pd.NA, pd.NaT, Decimal("NaN"), Decimal("sNaN"), np.datetime64("NaT"), np.timedelta64("NaT"), np.nan]
)
def test_missing_value_is_not_read(value):
    assert sent({"text": "car", "value": value}) == "car"


@pytest.mark.parametrize(
    ("value", "advice"),
    [
        (Author("A secret name"), r"of type Author: pass dataclasses.asdict\(value\)"),
        (Answer(text="A secret name"), r"of type Answer: pass value.model_dump\(\)"),
        (pd.DataFrame(COLUMN), r"of type DataFrame: pass value.to_dict\(\)"),
        (iter(["A secret name"]), r"of type list_iterator: pass list\(value\)"),
        (SecretStr("A secret name"), "of type SecretStr: make it a string, a number, a list or a mapping"),
        (Colour.ODD, "of type object: make it a string"),
        (pd.Period("2026-11"), "of type Period: make it a string"),
        (complex(1, 2), "of type complex: make it a string"),
    ],
    ids=lambda value: type(value).__name__,
)
def test_unsupported_field_value_is_refused_with_its_path_and_advice(value, advice):
    message = (
        rf"Document 1 has a field 'meta.author' that is not plain data, a value {advice}.*, or name the fields to read"
    )
    with pytest.raises(InputError, match=message) as caught:
        Reranker(ByLength()).rerank("query", ["a", {"meta": {"author": [value]}, "text": "car"}])
    assert "secret" not in str(caught.value)


def test_unsupported_value_in_an_unselected_field_is_ignored():
    assert sent({"meta": object(), "text": "car"}, ["text"]) == "car"


def test_dataframe_records_with_missing_values_and_vectors_are_read():
    table = pd.DataFrame({"text": ["car", "bike"], "title": ["A", None], "vector": [np.zeros(64), np.zeros(64)]})
    scorer = ByLength()
    Reranker(scorer).rerank("query", table.to_dict("records"))
    assert scorer.requests[0].documents == ("text: car\ntitle: A\n", "bike")


def test_fields_option_selects_and_orders_fields():
    document = {"id": 7, "body": "car", "title": "A", "vector": [0.1] * 99}
    assert sent(document, ["body"]) == "car"
    assert sent(document, ["title", "body"]) == "title: A\nbody: car\n"
    assert sent(document, ["body", "missing"]) == "car"
    scorer = ByLength()
    unnamed, named = Reranker(scorer, fields=["body", "vector"]).rerank("query", [document, "text"])
    assert (unnamed.reason, named.reason) == (None, "fields not read: vector (99 numbers)")


def test_document_without_the_selected_fields_is_blank():
    reranker = Reranker(ByLength(), fields=["body"])
    matching, other = reranker.rerank("query", [{"title": "A"}, {"body": "car"}])
    assert (matching.index, other.raw_score, other.reason[:5]) == (1, None, "blank")
    with pytest.raises(InputError, match=r"No document has one of the fields 'body'.*the first mapping has 'title'"):
        reranker.rerank("query", ["text", {"title": "A"}])


def test_fields_in_a_spec_apply_to_the_reranker():
    with load_reranker({"use": "lexical", "fields": ["body"], "fallback": ["passthrough"]}) as reranker:
        documents = [{"title": "car"}, {"title": "bike", "body": "car"}]
        assert [result.index for result in reranker.rerank("car", documents)] == [1, 0]
        assert reranker.spec["fields"] == ["body"]


@pytest.mark.parametrize("fields", ["body", [], [5], ["a", "a"], [""], {"body": 1}])
def test_fields_other_than_distinct_names_are_refused(fields):
    with pytest.raises(ConfigError, match="fields must be a list of different field names"):
        load_reranker({"use": "lexical", "fields": fields})


def test_integer_of_thousands_of_digits_raises_an_input_error():
    with pytest.raises(InputError, match="an integer of thousands of digits"):
        sent({"n": 10**5000})


def test_every_field_left_out_is_reported():
    fields = read_fields({"a": "x", "b": [1] * 20, "c": b"x", **{f"v{n}": [1] * 20 for n in range(9)}}, 0)
    assert fields.left_out == (
        "fields not read: b (20 numbers), c (bytes), v0 (20 numbers), v1 (20 numbers), v2 (20 numbers) and 6 more"
    )


# --- blank ---

INVISIBLE = [
    "\u200b",
    "\ufeff",
    "\u00ad",
    "\0",
    "\u034f",
    "\u115f",
    "\u3164",
    "\ufe0f",
    "\U000e0041",
    "\u2028",
    "\u2066",
    " ",
]


@pytest.mark.parametrize("text", [*INVISIBLE, "".join(INVISIBLE), "\u200b" * 100_000], ids=ascii)
def test_invisible_text_is_blank(text):
    scorer = ByLength()
    first, last = Reranker(scorer).rerank("query", [text[:1000], "a"])
    assert (first.index, last.index, last.reason) == (1, 0, "blank: there is no text to score")
    assert scorer.requests[0].documents == ("a",)
    assert is_blank(text)
    assert not is_blank(text + "a")
    with pytest.raises(InputError, match="query is blank"):
        Reranker(scorer).rerank(text, ["a"])


@pytest.mark.parametrize("text", ["a", "क", "😀", "\ufffd", "\ue000", "\u2800", "\u0301", "।"])
def test_visible_text_is_not_blank(text):
    assert not is_blank(text)
    assert not is_blank("\u200b" * 1000 + text)


@given(st.text(st.characters(), max_size=30), st.integers(1, 4))
def test_surrogate_pair_across_slices_is_not_split(text, size):
    import rerank_plugins.core.text as module

    whole = text.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "replace")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module.slices, "__defaults__", (size,))
        cleaned = sendable(text)
    assert cleaned == (whole if any("\ud800" <= character <= "\udfff" for character in text) else text)


# --- instruction, scores, top_n ---


def test_lone_surrogate_in_an_instruction_is_replaced():
    scorer = ByLength()
    Reranker(scorer, instruction="a\ud800").rerank("query", ["x"])
    Reranker(scorer).rerank("query", ["x"], instruction="b\udc00")
    assert [request.instruction for request in scorer.requests] == ["a\ufffd", "b\ufffd"]


@pytest.mark.parametrize(
    "spec",
    [
        {"use": "http:m\ud800", "base_url": "http://127.0.0.1:1"},
        {"use": "http", "base_url": "http://127.0.0.1:1", "http": {"body": {"a": ["\ud800"]}}},
        {"use": "http", "base_url": "http://127.0.0.1:1", "http": {"headers": {"x\ud800": "a"}}},
        {"use": "cohere:m\ud800", "api_key": "a key of no use"},
    ],
    ids=ascii,
)
def test_lone_surrogate_in_a_spec_raises_a_config_error(spec):
    with pytest.raises(ConfigError, match="lone surrogate"):
        load_reranker(spec)


def test_retrieval_score_too_large_for_a_float_raises_an_input_error():
    with pytest.raises(
        InputError, match=r"retrieval_scores must be a list of finite numbers, got an integer of 1329 bits at index 0"
    ):
        Reranker(ByLength()).rerank("query", ["a"], retrieval_scores=[10**400])


@pytest.mark.parametrize(
    ("scores", "message"),
    [
        ("12", "must be a list of numbers, got one str: pass a list"),
        (b"12", "must be a list of numbers, got one bytes: pass a list"),
        ({1.0, 2.0}, "must be a list of numbers, got a set: a set has no order"),
        ({0: 1.0, 1: 2.0}, "must be a list of numbers, got one dict: pass a list"),
        (
            pd.DataFrame({"score": [1.0, 2.0]}),
            r'got a DataFrame: pass the column that holds them, such as df\["score"\]',
        ),
        (1.0, "must be a list of numbers, got one float: pass a list"),
        (["1", "2"], "must be a list of finite numbers, got a string at index 0"),
        ([1.0, True], "must be a list of finite numbers, got True at index 1"),
        ([1.0, None], "must be a list of finite numbers, got None at index 1"),
        ([1.0, float("nan")], "must be a list of finite numbers, got nan at index 1"),
    ],
    ids=lambda value: type(value).__name__,
)
def test_retrieval_scores_of_a_wrong_type_are_refused(scores, message):
    with pytest.raises(InputError, match=f"retrieval_scores .*{message}"):
        Reranker(ByLength()).rerank("query", ["x", "yy"], retrieval_scores=scores)


@pytest.mark.parametrize(
    "make", [tuple, iter, deque, np.array, pd.Series, pa.array, torch.tensor, lambda scores: map(Decimal, scores)]
)
def test_retrieval_scores_may_be_any_iterable_of_numbers(make):
    scorer = ByLength()
    Reranker(scorer).rerank("query", ["x", "yy"], retrieval_scores=make([0.5, 0.25]))
    assert scorer.requests[0].retrieval_scores == (0.5, 0.25)


def test_equal_texts_get_their_best_retrieval_score():
    scorer = ByLength()
    Reranker(scorer).rerank("query", ["x", "yy", "x"], retrieval_scores=[0.1, 0.5, 0.9])
    assert scorer.requests[0].retrieval_scores == (0.9, 0.5)


def test_top_n_accepts_a_numpy_integer():
    reranker = Reranker(ByLength(), top_n=np.int64(2))
    assert type(reranker.top_n) is int
    assert len(reranker.rerank("query", TEXTS)) == 2
    assert len(reranker.rerank("query", TEXTS, top_n=np.int64(1))) == 1
    with pytest.raises(InputError, match=r"at least 1, or None for all; got np.int64\(0\)"):
        reranker.rerank("query", TEXTS, top_n=np.int64(0))


# --- errors name the caller's index ---


class NaNForBad(LocalBackend):
    def score(self, query, documents):
        return [float("nan") if document == "bad" else 1.0 for document in documents]


def test_error_about_a_score_has_the_index_of_the_caller():
    with pytest.raises(BadResponse, match="nan as the score of document 4"):
        Reranker(NaNForBad()).rerank("query", ["", "x", "x", " ", "bad"])


def test_error_about_a_reply_has_the_index_of_the_caller():
    request = RerankRequest(query="query", documents=("x", "bad"), positions=(1, 4))
    with pytest.raises(BadResponse, match="document 4 twice"):
        aligned([(1, 1.0), (1, 1.0)], request, "vendor")
    with pytest.raises(BadResponse, match=r"no score for 1 of 2 documents \(the first is 4\)"):
        aligned([(0, 1.0)], request, "vendor")
    with pytest.raises(BadResponse, match="inf as the score of document 4"):
        aligned([(0, 1.0), (1, float("inf"))], request, "vendor")
    with pytest.raises(BadResponse, match="str as the score of document 1"):
        checked(["high", 1.0], request, "vendor")


# --- large inputs ---

LARGE = 8_000_000


ADVERSARIAL: dict[str, Any] = {
    "one text": ["a word or two\n" * (LARGE // 14), "b"],
    "not blank at the end": ["\u200b" * (LARGE // 4) + "a"],
    "a surrogate at the end": ["é" * (LARGE // 2) + "\ud800"],
    "one mapping of text": [{"a": "it's: a word\n\n" * (LARGE // 14), "b": 1}],
    "one mapping of escapes": [{"a": "\t" * (LARGE // 4), "b": 1}],
    "one mapping of digits": [{"a": "1" * LARGE, "b": 1}],
    "one mapping of line feeds": [{"a": "\n" * LARGE + "x", "b": 1}],
    "one nested mapping": [{"a": [{"b": ["word " * 200] * 80}] * 100}],
    "one mapping of fields": [{f"field {number}": "word" for number in range(400_000)}],
    "mappings": [{"title": "word", "body": "word " * 160, "n": number} for number in range(10_000)],
    "ten thousand documents": [f"document {number} " * 50 for number in range(10_000)],
    "numbers as text": [{"v": f"[{'0.125, ' * (LARGE // 7)}1]", "a": "b"}],
    "no numbers as text": [{"v": f"[{'0.125, ' * (LARGE // 7)}x]", "a": "b"}],
    "a mapping of numbers": [{"v": dict.fromkeys(range(1000000), 0.5), "a": "b"}],
    "numbers": [{"v": [float(number) for number in range(1_000_000)], "a": "b"}],
}


@pytest.mark.alone
@pytest.mark.slow
@pytest.mark.parametrize("documents", ADVERSARIAL.values(), ids=ADVERSARIAL)
async def test_large_inputs_do_not_block_the_event_loop(documents):
    reranker = Reranker(ByLength())
    assert await smallest_hold(lambda: reranker.arerank("query", documents)) < LONGEST_HOLD


@pytest.mark.alone
@pytest.mark.parametrize("fallback", [False, True])
async def test_deadline_includes_the_reading_of_documents(fallback):
    spec: dict[str, Any] = {"use": "lexical", "deadline": 0.02, **({"fallback": ["passthrough"]} if fallback else {})}
    documents = [{"a": "\t" * (2 * LARGE), "b": 1}, "b"]
    with load_reranker(spec) as reranker:
        started = time.perf_counter()
        if fallback:
            response = await reranker.arerank("query", documents)
            assert response.degraded
            assert [(result.index, result.raw_score) for result in response] == [(0, None), (1, None)]
        else:
            with pytest.raises(DeadlineExceeded, match=r"within 0.02 s.*Raise `deadline`"):
                await reranker.arerank("query", documents)
        assert time.perf_counter() - started < 0.5


async def test_reading_of_documents_stops_at_the_deadline(monkeypatch):
    """Without a check for cancellation the thread would go on reading after its caller got the error."""
    stopped = asyncio.Event()
    loop = asyncio.get_running_loop()

    def endless(*arguments: Any) -> Any:
        try:
            while True:
                check_cancelled()
        finally:
            loop.call_soon_threadsafe(stopped.set)

    monkeypatch.setattr("rerank_plugins.documents.is_blank", endless)
    scorer = ByLength()
    with pytest.raises(DeadlineExceeded, match=r"within 0.05 s"):
        await Reranker(Deadline(scorer, 0.05)).arerank("query", ["word " * 10_000])
    await asyncio.wait_for(stopped.wait(), 30)
    assert scorer.requests == []


async def test_passed_deadline_calls_only_passthrough(monkeypatch):
    """A fallback that needs time would exceed the deadline; `passthrough` needs none."""

    def endless(*arguments: Any) -> Any:
        while True:
            check_cancelled()

    monkeypatch.setattr("rerank_plugins.documents.is_blank", endless)
    spec = {"use": "lexical", "deadline": 0.05, "fallback": ["embedded", "passthrough"], "diversify": True}
    with load_reranker(spec) as reranker:
        response = await reranker.arerank("query", ["word " * 10_000, "b"], top_n=1)
    assert (response.model, response.degraded, len(response)) == ("passthrough", True, 1)
    assert "was not called: the deadline had passed" in response.reason


async def test_scorer_gets_the_rest_of_the_deadline():
    from rerank_plugins.core.deadline import seconds_left

    left = []

    class RecordsSecondsLeft(ByLength):
        async def ascore(self, request):
            left.append(seconds_left())
            return await super().ascore(request)

    await Reranker(Deadline(RecordsSecondsLeft(), 30.0)).arerank("query", ["word " * 200_000])
    assert 0 < left[0] < 30.0
    assert seconds_left() is None


# --- ties ---


class TiedInReverse(ByLength):
    """All documents tie; the reply lists them in reverse order."""

    async def ascore(self, request):
        scores = await super().ascore(request)
        count = len(scores.values)
        return replace(scores, values=(1.0,) * count, reply_order=tuple(reversed(range(count))))


def test_ties_keep_the_reply_order_and_duplicates_the_input_order():
    response = Reranker(TiedInReverse()).rerank("query", ["a", "b", "", "a", "c"])
    assert [result.index for result in response] == [4, 1, 0, 3, 2]


def test_large_reply_is_parsed_to_the_same_data():
    value = {"results": [{"index": index, "score": index / 7, "text": "é\n"} for index in range(3000)], "n": -1e-7}
    body = json.dumps(value).encode()
    assert len(body) > SLICE_CHARACTERS
    assert parse_json(HTTPResponse(200, body), backend="vendor") == value
    with pytest.raises(BadResponse, match="not JSON"):
        parse_json(HTTPResponse(200, body[:-1]), backend="vendor")
