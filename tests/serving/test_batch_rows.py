"""Rows of a batch: which values are accepted as a list of candidates, and why other rows are rejected."""

from __future__ import annotations

from collections import deque
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest

from rerank_plugins import load_reranker
from rerank_plugins.serving.batch_rows import Columns, RejectedRow, rerank_rows

TEXTS = ["bees", "the moon"]


async def ask(row: dict[str, Any], columns: Columns | None = None) -> Any:
    (outcome,) = await rerank_rows(load_reranker("lexical"), [row], columns or Columns())
    return outcome


@pytest.mark.parametrize(
    "make",
    [list, tuple, deque, np.array, lambda texts: np.array(texts, dtype=object), pd.Series, pa.array, iter],
    ids=["list", "tuple", "deque", "array", "array of objects", "Series", "pyarrow", "iterator"],
)
async def test_any_list_of_candidates_is_read(make: Any) -> None:
    outcome = await ask({"query": "moon", "documents": make(TEXTS)})
    assert [each["document"] for each in outcome["reranked"]] == ["the moon", "bees"]


@pytest.mark.parametrize(
    ("documents", "message"),
    [
        (None, "got None: name the column that holds the candidates"),
        ("a text", "got one str: name the column"),
        ({"text": "a"}, "got one dict: name the column"),
        (5, "got one int: name the column"),
        ({"a", "b"}, "got a set: a set has no order"),
        (pd.DataFrame({"text": TEXTS}), "got a DataFrame: pass the rows"),
        (np.array([TEXTS]), "got a ndarray of 2 dimensions"),
    ],
    ids=lambda value: type(value).__name__,
)
async def test_documents_that_are_no_list_are_rejected_by_column(documents: Any, message: str) -> None:
    outcome = await ask({"query": "moon", "documents": documents})
    assert isinstance(outcome, RejectedRow)
    assert outcome.reason.startswith(f"The column 'documents' must be a list of strings or mappings, {message}")


@pytest.mark.parametrize(("query", "got"), [(None, "None"), (5, "5"), (["moon"], "a list")])
async def test_query_that_is_no_string_is_rejected_by_column(query: Any, got: str) -> None:
    outcome = await ask({"query": query, "documents": TEXTS})
    assert outcome.reason == f"The column 'query' must hold a string, got {got}: name the column that holds the query."


@pytest.mark.parametrize("scores", ["12", ["1", "2"], [1.0, None], {"a": 1.0, "b": 2.0}], ids=repr)
async def test_retrieval_scores_that_are_no_numbers_reject_the_row(scores: Any) -> None:
    outcome = await ask({"query": "moon", "documents": TEXTS, "scores": scores}, Columns(retrieval_scores="scores"))
    assert isinstance(outcome, RejectedRow)
    assert outcome.reason.startswith("retrieval_scores must be a list of ")
