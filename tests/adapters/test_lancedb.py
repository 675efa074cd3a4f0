"""`LanceDBReranker` on a real table: vector, full-text and hybrid searches, sync and async."""

from __future__ import annotations

import asyncio
import copy
import pickle
import re
from collections import deque
from collections.abc import Iterator

import pytest
from support.bees import DEGRADED, QUERY, SECRET, TEXTS

lancedb = pytest.importorskip(
    "lancedb"
)  # not in the environment of the oldest versions; test_object_storage.py insists
import pandas as pd  # noqa: E402
import pyarrow as pa  # noqa: E402
from lancedb.index import FTS  # noqa: E402
from lancedb.query import BooleanQuery, MatchQuery, Occur  # noqa: E402
from lancedb.rerankers import Reranker as HostReranker  # noqa: E402

from rerank_plugins import ConfigError, InputError, TransientError, load_reranker  # noqa: E402
from rerank_plugins.lancedb import LanceDBReranker  # noqa: E402

VECTORS = [[1.0, 0.0], [0.9, 0.1], [0.5, 0.5], [0.0, 1.0]]
NEAR_THE_FIRST = [1.0, 0.0]


@pytest.fixture(scope="module")
def table(tmp_path_factory):
    rows = pa.table(
        {
            "id": pa.array([10, 11, 12, 13], pa.int16()),
            "text": TEXTS,
            "fields": [{"title": text[:4], "body": text} for text in TEXTS],
            "note": [None, "", "Bees.", None],
            "vector": pa.array(VECTORS, pa.list_(pa.float32(), 2)),
        }
    )
    table = lancedb.connect(tmp_path_factory.mktemp("lancedb")).create_table("bees", rows)
    table.create_index("text", config=FTS())
    return table


def searches(table):
    return {
        "vector": lambda reranker: table.search(NEAR_THE_FIRST).rerank(reranker, query_string=QUERY),
        "fts": lambda reranker: table.search(QUERY, query_type="fts").rerank(reranker),
        "hybrid": lambda reranker: (
            table.search(query_type="hybrid").vector(NEAR_THE_FIRST).text(QUERY).rerank(reranker)
        ),
    }


@pytest.fixture(params=["vector", "fts", "hybrid"])
def search(request, table):
    return searches(table)[request.param]


def test_reranker_is_a_reranker_of_lancedb():
    assert isinstance(LanceDBReranker("lexical"), HostReranker)


def test_rows_come_best_first_with_all_columns(search, table):
    results = search(LanceDBReranker("lexical")).to_arrow()
    assert results["text"].to_pylist()[0] == TEXTS[3]
    assert set(results.column_names) == {*table.schema.names, "_relevance_score"}
    for name in table.schema.names:
        assert results.schema.field(name).type == table.schema.field(name).type
    scores = results["_relevance_score"].to_pylist()
    assert scores == sorted(scores, reverse=True)
    assert all(0.0 <= score <= 1.0 for score in scores)
    for row in results.to_pylist():  # rows are moved as a whole
        assert row["text"] == TEXTS[row["id"] - 10] == row["fields"]["body"]


def test_top_n_and_score_threshold_remove_rows(search):
    assert len(search(LanceDBReranker("lexical", top_n=1)).to_list()) == 1
    threshold = search(LanceDBReranker("lexical")).to_list()[0]["_relevance_score"]
    rows = search(LanceDBReranker("lexical", score_threshold=threshold * 0.999)).to_list()
    assert [row["text"] for row in rows] == [TEXTS[3]]


def test_return_score_all_keeps_the_scores_of_the_search(table):
    reranker = LanceDBReranker("lexical", return_score="all")
    by = {name: search(reranker).to_arrow() for name, search in searches(table).items()}
    distances = dict(zip(by["vector"]["id"].to_pylist(), by["vector"]["_distance"].to_pylist(), strict=True))
    scores = dict(zip(by["fts"]["id"].to_pylist(), by["fts"]["_score"].to_pylist(), strict=True))
    assert distances[10] == 0.0
    for row in by["hybrid"].to_pylist():
        assert row["_distance"] == pytest.approx(distances[row["id"]])
        assert row["_score"] == (pytest.approx(scores[row["id"]]) if row["id"] in scores else None)


def test_passthrough_keeps_the_fused_order_of_a_hybrid_search(table):
    fused = table.search(query_type="hybrid").vector(NEAR_THE_FIRST).text(QUERY).to_list()
    reranked = searches(table)["hybrid"](LanceDBReranker("passthrough")).to_list()
    assert [row["id"] for row in reranked] == [row["id"] for row in fused]
    assert len({row["id"] for row in reranked}) == len(reranked) == 4
    assert {row["_relevance_score"] for row in reranked} == {None}


def test_scores_of_the_search_reach_the_reranker(table, monkeypatch):
    seen = {}
    reranker = load_reranker("lexical")
    run = reranker._run

    def recording(call):
        seen[len(seen)] = call.retrieval_scores
        return run(call)

    monkeypatch.setattr(reranker, "_run", recording)
    for search in searches(table).values():
        search(LanceDBReranker(reranker)).to_list()
    assert len(seen) == 3
    for scores in seen.values():
        assert list(scores) == sorted(scores, reverse=True)


def test_null_and_blank_rows_come_last_without_a_score(table):
    results = (
        table.search(NEAR_THE_FIRST).rerank(LanceDBReranker("lexical", column="note"), query_string=QUERY).to_list()
    )
    assert [row["id"] for row in results] == [12, 10, 11, 13]
    assert [row["_relevance_score"] for row in results[1:]] == [None] * 3


def test_struct_column_is_read_as_mappings(table):
    reranker = LanceDBReranker("lexical", column="fields")
    results = table.search(NEAR_THE_FIRST).rerank(reranker, query_string=QUERY).to_list()
    assert results[0]["text"] == TEXTS[3]


def test_search_without_results_returns_no_rows(table):
    reranker = LanceDBReranker("lexical")
    assert table.search("qwertyuiop", query_type="fts").rerank(reranker).to_list() == []
    nothing = table.search(NEAR_THE_FIRST).where("id > 99").rerank(reranker, query_string=QUERY).to_arrow()
    assert len(nothing) == 0
    assert "_relevance_score" in nothing.column_names
    hybrid = table.search(query_type="hybrid").vector(NEAR_THE_FIRST).text("qwertyuiop").rerank(reranker).to_list()
    assert len(hybrid) == 4


def test_degraded_answer_adds_its_columns(search):
    responses = []
    rows = search(LanceDBReranker(DEGRADED, score_threshold=None, on_response=responses.append)).to_list()
    for row in rows:
        assert row["rerank_degraded"] is True
        assert "127.0.0.1:9" in row["rerank_reason"] or "http" in row["rerank_reason"]
        assert row["rerank_model"] == "passthrough"
    assert responses[0].degraded
    assert "rerank_degraded" not in search(LanceDBReranker("lexical")).to_arrow().column_names


def test_error_without_fallback_is_raised(search):
    with pytest.raises(TransientError):
        search(LanceDBReranker({**DEGRADED, "fallback": []})).to_list()


def test_exception_of_on_response_reaches_the_caller(search):
    def refuse(response):
        raise LookupError("not this one")

    with pytest.raises(LookupError):
        search(LanceDBReranker("lexical", on_response=refuse)).to_list()


def test_query_without_words_is_refused(table):
    reranker = LanceDBReranker("lexical", top_n=1)
    match = MatchQuery(QUERY, "text")
    (best,) = table.search(match, query_type="fts").rerank(reranker).to_list()
    assert best["text"] == TEXTS[3]
    several = BooleanQuery([(Occur.SHOULD, match), (Occur.SHOULD, MatchQuery("honey", "text"))])
    with pytest.raises(InputError, match="BooleanQuery"):
        table.search(several, query_type="fts").rerank(reranker).to_list()


def test_missing_column_is_named(table):
    with pytest.raises(InputError, match=r"no column 'text', only id, _distance"):
        table.search(NEAR_THE_FIRST).select(["id", "_distance"]).rerank(
            LanceDBReranker("lexical"), query_string=QUERY
        ).to_list()


def test_wrong_arguments_are_refused_at_construction():
    with pytest.raises(ConfigError, match="lexikal"):
        LanceDBReranker("lexikal")
    with pytest.raises(InputError, match="top_n"):
        LanceDBReranker("lexical", top_n=0)
    with pytest.raises(ValueError, match="relevance"):
        LanceDBReranker("lexical", return_score="some")


def test_results_of_several_searches_are_reranked_together(table):
    results = [table.search(vector).limit(2).with_row_id(True).to_arrow() for vector in VECTORS[::3]]
    reranked = LanceDBReranker("lexical").rerank_multivector(results, QUERY, deduplicate=True)
    assert sorted(reranked["id"].to_pylist()) == [10, 11, 12, 13]
    assert reranked["text"].to_pylist()[0] == TEXTS[3]


async def test_async_query_arerank_and_sync_call_agree(tmp_path, table):
    database = await lancedb.connect_async(tmp_path)
    rows = await database.create_table("bees", table.to_arrow())
    await rows.create_index("text", config=FTS())
    reranker = LanceDBReranker("lexical")
    query = rows.query().nearest_to(NEAR_THE_FIRST)
    inside = await rows.query().nearest_to(NEAR_THE_FIRST).rerank(reranker, query_string=QUERY).to_list()
    after = (await reranker.arerank(QUERY, await query.to_arrow())).to_pylist()
    sync = reranker.rerank_vector(QUERY, await query.to_arrow()).to_pylist()
    assert [row["id"] for row in inside] == [row["id"] for row in after] == [row["id"] for row in sync]
    assert after == sync
    words = await rows.query().nearest_to_text(QUERY).rerank(reranker).to_list()
    both = await rows.query().nearest_to(NEAR_THE_FIRST).nearest_to_text(QUERY).rerank(reranker).to_list()
    assert words[0]["text"] == both[0]["text"] == TEXTS[3]


async def test_arerank_calls_run_concurrently(table):
    results = table.search(NEAR_THE_FIRST).to_arrow()
    reranker = LanceDBReranker("lexical")
    answers = await asyncio.gather(*(reranker.arerank(QUERY, results) for _ in range(8)))
    assert {answer["id"].to_pylist()[0] for answer in answers} == {13}


def test_columns_of_an_earlier_degraded_answer_are_removed(table):
    results = table.search(NEAR_THE_FIRST).to_arrow()
    degraded = LanceDBReranker(DEGRADED).rerank_vector(QUERY, results)
    again = LanceDBReranker(DEGRADED).rerank_vector(QUERY, degraded)
    assert len(set(again.column_names)) == len(again.column_names)
    assert again["rerank_degraded"].to_pylist() == [True] * 4
    healthy = LanceDBReranker("lexical").rerank_vector(QUERY, degraded)
    assert not [name for name in healthy.column_names if name.startswith("rerank_")]
    own = results.append_column("rerank_degraded", pa.array(["mine"] * 4))
    assert LanceDBReranker("lexical").rerank_vector(QUERY, own)["rerank_degraded"].to_pylist() == ["mine"] * 4


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        (TEXTS, "Row 0 of results must be a mapping, got a string: pass `await query.to_arrow"),
        (iter(TEXTS), "Row 0 of results must be a mapping, got a string: pass `await query.to_arrow"),
        ([{"text": "x"}, "y"], "Row 1 of results must be a mapping, got a string"),
        (None, r"results must be a list of rows \(mappings\), got None: pass `await query.to_arrow"),
        ("text", r"results must be a list of rows \(mappings\), got one str: pass"),
        ({"text": "x"}, r"results must be a list of rows \(mappings\), got one dict: pass"),
        ({"text"}, r"results must be a list of rows \(mappings\), got a set: a set has no order"),
        (
            [{"text": "x", "id": 1}, {"text": "y", "id": "two"}],
            "The rows cannot be made a table: .*Pass `await query.to_arrow",
        ),
    ],
    ids=lambda value: type(value).__name__,
)
async def test_argument_without_rows_is_refused(wrong, message):
    with pytest.raises(InputError, match=message):
        LanceDBReranker("lexical").rerank_vector(QUERY, wrong)
    if not isinstance(wrong, Iterator):
        with pytest.raises(InputError, match=message):
            await LanceDBReranker("lexical").arerank(QUERY, wrong)


ROWS = {
    "Table": lambda query: query.to_arrow(),
    "RecordBatch": lambda query: query.to_arrow().combine_chunks().to_batches()[0],
    "RecordBatchReader": lambda query: query.to_arrow().to_reader(),
    "pandas": lambda query: query.to_pandas(),
    "list": lambda query: query.to_list(),
    "tuple": lambda query: tuple(query.to_list()),
    "deque": lambda query: deque(query.to_list()),
    "generator": lambda query: (row for row in query.to_list()),
    "dict view": lambda query: {row["id"]: row for row in query.to_list()}.values(),
    "array of objects": lambda query: pd.Series(query.to_list()).to_numpy(),
    "pandas Series": lambda query: pd.Series(query.to_list()),
    "query": lambda query: query,
}


@pytest.mark.parametrize("kind", ROWS)
async def test_results_are_read_in_all_forms(table, kind):
    reranker = LanceDBReranker("lexical")
    expected = reranker.rerank_vector(QUERY, table.search(NEAR_THE_FIRST).to_arrow())["id"].to_pylist()
    assert reranker.rerank_vector(QUERY, ROWS[kind](table.search(NEAR_THE_FIRST)))["id"].to_pylist() == expected
    assert (await reranker.arerank(QUERY, ROWS[kind](table.search(NEAR_THE_FIRST))))["id"].to_pylist() == expected
    words = table.search(QUERY, query_type="fts")
    assert reranker.rerank_fts(QUERY, ROWS[kind](words))["text"].to_pylist()[0] == TEXTS[3]


def test_columns_that_the_first_row_lacks_are_kept():
    rows = [{"text": "bees"}, {"text": "the moon", "page": 7}]
    results = LanceDBReranker("lexical").rerank_vector("moon", rows)
    assert results["page"].to_pylist() == [7, None]
    assert LanceDBReranker("lexical").rerank_vector("moon", []).num_rows == 0


def test_queries_that_have_not_run_are_run(table):
    queries = [table.search(vector).limit(2).with_row_id(True) for vector in VECTORS[::3]]
    results = [query.to_arrow() for query in queries]
    reranked = LanceDBReranker("lexical").rerank_multivector(results, QUERY, deduplicate=True)
    assert LanceDBReranker("lexical").rerank_hybrid(QUERY, queries[0], queries[1])["id"].to_pylist()[0] == 13
    assert sorted(reranked["id"].to_pylist()) == [10, 11, 12, 13]


@pytest.mark.parametrize("column", ["id", "vector", "tags", "data"])
def test_column_without_text_is_refused(table, column):
    results = table.search(NEAR_THE_FIRST).to_arrow()
    results = results.append_column("tags", pa.array([["a"]] * len(results))).append_column(
        "data", pa.array([b"x"] * len(results))
    )
    kind = re.escape(str(results.schema.field(column).type))
    message = rf"column '{column}' must hold strings or structs, got {kind}.*the search returned text, fields, note\."
    with pytest.raises(InputError, match=message):
        LanceDBReranker("lexical", column=column).rerank_vector(QUERY, results)
    with pytest.raises(InputError, match="the search returned none: select one"):
        LanceDBReranker("lexical", column=column).rerank_vector(QUERY, results.select([column]))


@pytest.mark.parametrize(
    "kind", [pa.string(), pa.large_string(), pa.string_view(), pa.dictionary(pa.int32(), pa.string())], ids=str
)
def test_all_string_types_are_read(kind):
    results = pa.table({"text": pa.array(TEXTS).cast(kind)})
    assert LanceDBReranker("lexical").rerank_vector(QUERY, results)["text"].to_pylist()[0] == TEXTS[3]
    nothing = pa.table({"text": pa.nulls(2)})
    assert LanceDBReranker("lexical").rerank_vector(QUERY, nothing)["_relevance_score"].to_pylist() == [None, None]


def test_config_names_the_file_of_rerankers(table, tmp_path):
    file = tmp_path / "rerank.toml"
    file.write_text('[rerankers.production]\nuse = "lexical"\ntop_n = 1\n')
    for path in (file, str(file)):
        results = table.search(NEAR_THE_FIRST).rerank(LanceDBReranker("production", config=path), query_string=QUERY)
        assert [row["text"] for row in results.to_list()] == [TEXTS[3]]


def test_allowed_rerankers_restrict_reranker():
    assert (
        repr(LanceDBReranker("lexical", allowed_rerankers=["lexical"])) == "LanceDBReranker('lexical', column='text')"
    )
    for refused in ("passthrough", {"use": "lexical"}):
        with pytest.raises(ConfigError, match="must be one of allowed_rerankers"):
            LanceDBReranker(refused, allowed_rerankers=["lexical"])


async def test_warmup_reaches_the_scorer(monkeypatch):
    warmed = []
    reranker = load_reranker("lexical")

    async def awarmup():
        warmed.append(reranker)

    monkeypatch.setattr(reranker.scorer, "awarmup", awarmup)
    LanceDBReranker(reranker).warmup()
    await LanceDBReranker(reranker).awarmup()
    assert warmed == [reranker, reranker]


def test_repr_pickle_and_plan_hold_no_key(spec, table):
    reranker = LanceDBReranker(spec)
    assert SECRET not in repr(reranker)
    assert SECRET not in str(reranker)
    assert SECRET.encode() not in pickle.dumps(reranker)
    plan = table.search(query_type="hybrid").vector(NEAR_THE_FIRST).text(QUERY).rerank(reranker).explain_plan()
    assert SECRET not in plan
    assert "LanceDBReranker('http" in plan


def test_pickles_and_copies_rerank(table):
    reranker = LanceDBReranker("lexical", column="text", top_n=2)
    for other in (pickle.loads(pickle.dumps(reranker)), copy.deepcopy(reranker)):
        results = table.search(QUERY, query_type="fts").rerank(other).to_list()
        assert len(results) == 2
        assert results[0]["text"] == TEXTS[3]
