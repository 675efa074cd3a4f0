"""Tables, columns and arrays as the documents of an adapter; the other tests of adapters need no pandas."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
from langchain_core.documents import Document
from llama_index.core.schema import NodeWithScore, TextNode

from rerank_plugins import InputError
from rerank_plugins.langchain import RerankCompressor
from rerank_plugins.llama_index import RerankPostprocessor

QUERY = "the moon"
TEXTS = ["bees", "the moon", "a moon of Mars"]


async def rerank(adapter: Any, items: Any, *, sync: bool) -> list[Any]:
    if isinstance(adapter, RerankCompressor):
        return adapter.compress_documents(items, QUERY) if sync else await adapter.acompress_documents(items, QUERY)
    if sync:
        return adapter.postprocess_nodes(items, query_str=QUERY)
    return await adapter.apostprocess_nodes(items, query_str=QUERY)


def documents() -> list[Any]:
    return [Document(text) for text in TEXTS]


def nodes() -> list[Any]:
    return [NodeWithScore(node=TextNode(text=text)) for text in TEXTS]


@pytest.mark.parametrize(("kind", "make"), [(RerankCompressor, documents), (RerankPostprocessor, nodes)])
@pytest.mark.parametrize(
    "column",
    [
        lambda items: np.fromiter(items, object),
        pd.Series,
        lambda items: pd.DataFrame({"item": items})["item"],
    ],
    ids=["array", "Series", "column"],
)
@pytest.mark.parametrize("sync", [True, False])
async def test_columns_of_documents_are_reranked(kind: Any, make: Any, column: Any, sync: bool) -> None:
    answer = await rerank(kind(reranker="lexical"), column(make()), sync=sync)
    texts = [each.page_content if isinstance(each, Document) else each.get_content() for each in answer]
    assert texts == ["the moon", "a moon of Mars", "bees"]


@pytest.mark.parametrize(
    ("kind", "name", "make"),
    [
        (RerankCompressor, "documents must be a list of Document objects", "make Documents of its rows"),
        (RerankPostprocessor, "nodes must be a list of NodeWithScore objects", "make nodes of its rows"),
    ],
)
@pytest.mark.parametrize(
    ("table", "got"),
    [
        (pd.DataFrame({"text": TEXTS}), r'a DataFrame: {make}, .* for row in df.to_dict\("records"\)\]'),
        (pd.DataFrame(), "a DataFrame: {make}"),
        (pa.table({"text": TEXTS}), r"a Table: {make}, .* for row in table.to_pylist\(\)\]"),
        (pa.RecordBatch.from_pydict({"text": TEXTS}), r"a RecordBatch: {make}, .* for row in batch.to_pylist\(\)\]"),
        (np.array([["x", "y"]]), "a ndarray of 2 dimensions: pass one column of it as a list"),
    ],
    ids=lambda table: type(table).__name__,
)
@pytest.mark.parametrize("sync", [True, False])
async def test_tables_are_refused_with_advice(
    kind: Any, name: str, make: str, table: Any, got: str, sync: bool
) -> None:
    with pytest.raises(InputError, match=f"{name}, got {got.replace('{make}', make)}"):
        await rerank(kind(reranker="lexical"), table, sync=sync)


@pytest.mark.parametrize("kind", [RerankCompressor, RerankPostprocessor])
async def test_column_of_strings_is_refused(kind: Any) -> None:
    with pytest.raises(InputError, match=r"Item 0 must be a .*, got a string: wrap it"):
        await rerank(kind(reranker="lexical"), pd.Series(TEXTS), sync=True)
