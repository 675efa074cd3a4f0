"""Rows of a query and its candidates in, the same rows with the candidates' order out. No file, no Ray."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from ..core.choices import described
from ..core.errors import (
    AllBackendsFailed,
    AuthenticationFailed,
    ConfigError,
    InputError,
    RerankError,
    TransientError,
)
from ..core.together import together
from ..documents import Expected, as_list
from ..reranker import Reranker, RerankResponse

__all__ = ["ADDED", "Bad", "Columns", "rerank_rows"]

ADDED = ("reranked", "rerank_model", "rerank_degraded", "rerank_reason")
"""The columns of an answer."""
_WAITS = (TransientError, AllBackendsFailed, AuthenticationFailed, ConfigError)
"""What no row can help: the work stops there, and goes on when it is mended."""


@dataclass(frozen=True, slots=True)
class Columns:
    """What the columns of the input are called."""

    query: str = "query"
    documents: str = "documents"
    retrieval_scores: str | None = None
    """Where the retriever's scores are, for rerankers that use them."""

    def fit(self, row: Mapping[str, Any]) -> bool:
        """Tell whether a row has what its columns are called for: a text, and a list."""
        return isinstance(row.get(self.query), str) and isinstance(row.get(self.documents), list)


@dataclass(frozen=True, slots=True)
class Bad:
    """A row that cannot be reranked, and why."""

    reason: str
    row: Any = None
    """As it was read."""


async def rerank_rows(
    reranker: Reranker,
    rows: Sequence[Mapping[str, Any] | Bad],
    columns: Columns,
    *,
    top_n: int | None = None,
    in_flight: int = 8,
) -> list[dict[str, Any] | Bad]:
    """Return for each row the columns of its answer, in the order of the rows; `in_flight` of them at the same time.

    `reranked` is a list, best first, of `index` (position among the candidates), `document` (a mapping as JSON),
    `relevance_score`, `raw_score`, `truncated` and `reason`; `rerank_model` who answered, `rerank_degraded` and
    `rerank_reason` whether and why a stand-in did.

    Raises:
        BackendError: The backend is down or refuses the key, or the spec is wrong: no row is at fault.
    """
    places = asyncio.Semaphore(in_flight)

    async def one(row: Mapping[str, Any] | Bad) -> dict[str, Any] | Bad:
        if isinstance(row, Bad):
            return row
        async with places:
            try:
                documents = _documents(row, columns)
                scores = row.get(columns.retrieval_scores) if columns.retrieval_scores else None
                query = row.get(columns.query)
                if not isinstance(query, str):
                    raise InputError(
                        f"The column {columns.query!r} must hold a string, got {described(query)}: name the column that holds "
                        "the query."
                    )
                return _answer(await reranker.arerank(query, documents, top_n=top_n, retrieval_scores=scores))
            except _WAITS:
                raise
            except RerankError as error:
                return Bad(str(error), row)

    return await together(one(row) for row in rows)


def _documents(row: Mapping[str, Any], columns: Columns) -> list[Any]:
    expected = Expected(
        name=f"The column {columns.documents!r}",
        items="strings or mappings",
        rows="pass the rows, {rows}",
        one="name the column that holds the candidates",
    )
    # An array is how a list comes out of many a stage of Ray Data.
    documents = as_list(row.get(columns.documents), expected)
    # A Parquet file gives every object all fields, those that it never had as null: in the answer they are left out.
    return [
        {name: value for name, value in each.items() if value is not None} if isinstance(each, Mapping) else each
        for each in documents
    ]


def _answer(response: RerankResponse) -> dict[str, Any]:
    reranked = [
        {
            "index": result.index,
            "document": result.document
            if isinstance(result.document, str)
            else json.dumps(result.document, ensure_ascii=False, default=str),
            "relevance_score": result.relevance_score,
            "raw_score": result.raw_score,
            "truncated": result.truncated,
            "reason": result.reason,
        }
        for result in response
    ]
    return dict(zip(ADDED, (reranked, response.model, response.degraded, response.reason), strict=True))
