"""Rerank rows of a query and its candidates. No files, no Ray."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from ..core._runtime.gather import gather
from ..core.choices import described
from ..core.errors import (
    AllBackendsFailed,
    AuthenticationFailed,
    ConfigError,
    InputError,
    RerankError,
    TransientError,
)
from ..documents import Expected, as_list
from ..reranker import Reranker, RerankResponse

__all__ = ["ADDED", "Columns", "RejectedRow", "rerank_rows"]

ADDED = ("reranked", "rerank_model", "rerank_degraded", "rerank_reason")
"""The columns that an answer adds."""
_WAITS = (TransientError, AllBackendsFailed, AuthenticationFailed, ConfigError)
"""Errors that no row causes: the batch stops, and continues when the cause is gone."""


@dataclass(frozen=True, slots=True)
class Columns:
    """The names of the input's columns."""

    query: str = "query"
    documents: str = "documents"
    retrieval_scores: str | None = None
    """The column of the retriever's scores, for rerankers that use them."""

    def fit(self, row: Mapping[str, Any]) -> bool:
        """Return whether a row has a string as its query and a list of documents."""
        return isinstance(row.get(self.query), str) and isinstance(row.get(self.documents), list)


@dataclass(frozen=True, slots=True)
class RejectedRow:
    """A row that cannot be reranked, and why."""

    reason: str
    row: Any = None
    """The row as it was read."""


async def rerank_rows(
    reranker: Reranker,
    rows: Sequence[Mapping[str, Any] | RejectedRow],
    columns: Columns,
    *,
    top_n: int | None = None,
    in_flight: int = 8,
) -> list[dict[str, Any] | RejectedRow]:
    """Return the columns of the answer to each row, in the order of the rows.

    At most `in_flight` rows are reranked at the same time.

    `reranked` is a list, best first, of `index` (position among the candidates), `document` (a mapping as JSON),
    `relevance_score`, `raw_score`, `truncated` and `reason`. `rerank_model` names the model that answered,
    `rerank_degraded` and `rerank_reason` say whether and why a fallback answered.

    Raises:
        BackendError: The backend is down or refuses the key, or the spec is wrong.
    """
    places = asyncio.Semaphore(in_flight)

    async def one(row: Mapping[str, Any] | RejectedRow) -> dict[str, Any] | RejectedRow:
        if isinstance(row, RejectedRow):
            return row
        async with places:
            try:
                documents = _documents(row, columns)
                scores = row.get(columns.retrieval_scores) if columns.retrieval_scores else None
                query = row.get(columns.query)
                if not isinstance(query, str):
                    raise InputError(
                        f"The column {columns.query!r} must hold a string, got {described(query)}: name the column "
                        "that holds the query."
                    )
                return _answer(await reranker.arerank(query, documents, top_n=top_n, retrieval_scores=scores))
            except _WAITS:
                raise
            except RerankError as error:
                return RejectedRow(str(error), row)

    return await gather(one(row) for row in rows)


def _documents(row: Mapping[str, Any], columns: Columns) -> list[Any]:
    expected = Expected(
        name=f"The column {columns.documents!r}",
        items="strings or mappings",
        rows="pass the rows, {rows}",
        one="name the column that holds the candidates",
    )
    # Some stages of Ray Data make an array of a list.
    documents = as_list(row.get(columns.documents), expected)
    # Parquet gives every object all fields, with null for those that it lacked. They are left out.
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
