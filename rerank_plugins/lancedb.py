"""Rerankers inside LanceDB: `table.search(…).rerank(LanceDBReranker("embedded"))`, for vectors, full text and both."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from typing import Any, Literal

from .core.choices import described
from .core.errors import InputError, MissingExtra, clause

try:
    import pyarrow as pa
    from lancedb.query import LanceQueryBuilder
    from lancedb.rerankers import Reranker, RRFReranker
except ModuleNotFoundError as error:
    raise MissingExtra("rerank_plugins.lancedb", extra="object-storage", package="lancedb") from error

from .adapting import Adapter, RerankerLike
from .documents import Expected, as_list, is_table
from .reranker import RerankResponse

__all__ = ["LanceDBReranker"]

SCORE = "_relevance_score"
ROWS = Expected(
    name="results",
    items="rows (mappings)",
    rows="pass pa.table({table})",
    one="pass `await query.to_arrow()` or `pa.Table.from_pylist(rows)`, or give texts to Reranker.rerank",
)
FIRST_STAGE = ("_distance", "_score")
DEGRADED = ("rerank_degraded", "rerank_reason", "rerank_model")


class LanceDBReranker(Reranker):
    """Reranks what a LanceDB search found, before its `limit` cuts.

    ```python
    table.search("tides", query_type="hybrid").rerank(LanceDBReranker("embedded", top_n=5)).limit(100).to_list()
    ```

    Rows come back best first with all their columns and `_relevance_score` (in [0, 1]; null where nothing was scored, as
    for a blank text, and on an answer of `passthrough`, which a fallback may give while a vendor is down); on a degraded
    answer also with the columns `rerank_degraded`, `rerank_reason` and `rerank_model`.
    The candidates of a hybrid search are fused by reciprocal rank before they are reranked, so an answer that keeps
    the order given keeps that one. `limit` is the number of candidates of each search (a hybrid one of 100 hands over
    up to 200) and of rows that come back; `top_n` is what cuts after reranking.

    LanceDB has no async rerankers: an async query calls these on the event loop, which waits. There, leave `rerank` out
    and await `arerank` on the result.
    """

    def __init__(
        self,
        reranker: RerankerLike = None,
        *,
        config: str | os.PathLike[str] | None = None,
        column: str = "text",
        top_n: int | None = None,
        instruction: str | None = None,
        score_threshold: float | None = None,
        allowed_rerankers: list[str] | None = None,
        on_response: Callable[[RerankResponse], object] | None = None,
        return_score: Literal["relevance", "all"] = "relevance",
    ) -> None:
        """Find the reranker; nothing is loaded or sent yet.

        Args:
            reranker: A spec (`"backend:model"` or a mapping), the name of a reranker in the configuration file, or a ready
                `Reranker`; `None` is `load_reranker()`'s default.
            config: Path of the TOML file with the names; `None` is the one that RERANK_PLUGINS_CONFIG names.
            column: What is read: a text, or a struct, which is sent as a mapping of fields. The search has to select it.
            top_n: How many rows come back, at least 1; `None` is the spec's own, and without one all.
            instruction: What relevant means here, for models that follow such a text.
            score_threshold: Leave out rows below it; never applied to a degraded answer.
            allowed_rerankers: The strings that `reranker` may be, where a request chooses it; a mapping is refused then.
            on_response: A plain function that is called with each answer; what it raises is raised to the caller.
            return_score: LanceDB's: `"all"` keeps `_distance` and `_score`, `"relevance"` drops them.

        Raises:
            ConfigError: An unknown backend or option, a missing key, a threshold that cannot mean anything, a reranker
                that is not allowed.
            InputError: `top_n` is below 1.
        """
        super().__init__(return_score)
        self.column = column
        self._adapter = Adapter(
            reranker=reranker,
            config=None if config is None else os.fspath(config),
            top_n=top_n,
            instruction=instruction,
            score_threshold=score_threshold,
            allowed_rerankers=allowed_rerankers,
            on_response=on_response,
        )

    def warmup(self) -> None:
        """Load the model now rather than at the first search."""
        self._adapter.warmup()

    async def awarmup(self) -> None:
        """Load the model now rather than at the first search, without blocking the event loop."""
        await self._adapter.awarmup()

    def rerank_hybrid(self, query: str, vector_results: pa.Table, fts_results: pa.Table) -> pa.Table:
        """Return the rows of both searches, each once, best first.

        Args:
            query: What is asked, or LanceDB's `MatchQuery` or `PhraseQuery` of it; not blank.
            vector_results: Rows of a vector search with `_rowid`, as LanceDB hands them over.
            fts_results: Rows of a full-text search with `_rowid`.

        Raises:
            InputError: A blank query, one that is no text, no such column, or an instruction that the backend cannot follow.
            BackendError: The backend did not deliver, and no fallback did.
            DeadlineExceeded: The spec's deadline passed.
        """
        results = self._rows(vector_results), self._rows(fts_results)
        return self._reranked(query, RRFReranker(return_score="all").rerank_hybrid(query, *results))

    def rerank_vector(self, query: str, vector_results: pa.Table) -> pa.Table:
        """Return the rows of a vector search best first; raises as `rerank_hybrid`.

        Besides a pyarrow Table, `vector_results` may be what else a search gives: a pandas or polars DataFrame, batches of
        pyarrow, a query that was not run yet, or any iterable of rows (`query.to_list()`).
        """
        return self._reranked(query, vector_results)

    def rerank_fts(self, query: str, fts_results: pa.Table) -> pa.Table:
        """Return the rows of a full-text search best first; takes and raises what `rerank_vector` does."""
        return self._reranked(query, fts_results)

    async def arerank(self, query: str, results: pa.Table) -> pa.Table:
        """Return the rows of any search best first, on the running event loop, which does not wait; raises as `rerank_hybrid`."""
        results = self._rows(results)
        return self._table(results, await self._adapter._arerank(*self._read(query, results)))

    def _reranked(self, query: str, results: Any) -> pa.Table:
        results = self._rows(results)
        return self._table(results, self._adapter._rerank(*self._read(query, results)))

    def _rows(self, results: Any) -> pa.Table:
        """Return what a search found as a table.

        Raises:
            InputError: It holds no rows.
        """
        if isinstance(results, pa.Table):
            return results
        if isinstance(results, pa.RecordBatch):
            return pa.Table.from_batches([results])
        if isinstance(results, pa.RecordBatchReader):
            return results.read_all()
        if isinstance(results, LanceQueryBuilder):
            return results.to_arrow()
        if is_table(results) and hasattr(results, "__arrow_c_stream__"):  # pandas and polars
            return pa.table(results)
        rows = as_list(results, ROWS)
        for index, row in enumerate(rows):
            if not isinstance(row, Mapping):
                raise InputError(f"Row {index} of results must be a mapping, got {described(row)}: {ROWS.one}.")
        # All names: pyarrow's own from_pylist drops those that the first row does not have.
        names = list(dict.fromkeys(name for row in rows for name in row)) or [self.column]
        try:
            columns = {str(name): pa.array([row.get(name) for row in rows]) for name in names}
        except (pa.ArrowException, OverflowError) as error:
            raise InputError(f"The rows are no table: {clause(error)}. Pass `await query.to_arrow()`.") from error
        return pa.table(columns)

    def _read(self, query: Any, results: pa.Table) -> tuple[str, list[Any], list[float | None]]:
        text = query if isinstance(query, str) else getattr(query, "query", None)  # a MatchQuery or PhraseQuery has one
        if not isinstance(text, str):
            raise InputError(
                f"A reranker needs a query in words, and {type(query).__name__} holds none: pass the text, or leave "
                "`rerank` out and use `arerank` or `Reranker.rerank` on the result."
            )
        if self.column not in results.column_names:
            raise InputError(
                f"The search gives no column {self.column!r}, only {', '.join(results.column_names)}: select it, or "
                "name the one to read with LanceDBReranker(column=…)."
            )
        kind = results.schema.field(self.column).type
        if not _is_readable(kind):
            readable = [field.name for field in results.schema if _is_readable(field.type)]
            there = f"the search gives {', '.join(readable)}" if readable else "the search gives none: select one"
            raise InputError(
                f"The column {self.column!r} must hold strings or structs, got {kind}: name another with "
                f"LanceDBReranker(column=…); {there}."
            )
        documents = ["" if each is None else each for each in results[self.column].to_pylist()]
        return text, documents, _first_stage(results)

    def _table(self, results: pa.Table, response: RerankResponse) -> pa.Table:
        dropped = [SCORE, *(FIRST_STAGE if self.score == "relevance" else ())]
        if response.degraded or _is_degraded(results):  # an earlier answer's columns are not this one's
            dropped += DEGRADED
        kept = results.drop_columns([name for name in dropped if name in results.column_names])
        table = _without_views(kept).take(pa.array([result.index for result in response], pa.int64()))
        table = table.append_column(SCORE, pa.array([result.relevance_score for result in response], pa.float32()))
        if response.degraded:
            for name, value in zip(DEGRADED, (True, response.reason, response.model), strict=True):
                table = table.append_column(name, pa.array([value] * len(table), pa.scalar(value).type))
        return table

    def __repr__(self) -> str:
        """Show who answers, never a key."""
        return f"LanceDBReranker({self._adapter._resolved().scorer.label!r}, column={self.column!r})"

    __str__ = __repr__  # LanceDB shows it in plans


def _without_views(table: pa.Table) -> pa.Table:
    """Return a table whose text is of a type that pyarrow can put into another order; polars gives views."""
    for place, field in enumerate(table.schema):
        if pa.types.is_string_view(field.type):
            table = table.set_column(place, field.name, table[field.name].cast(pa.large_string()))
    return table


def _is_readable(kind: pa.DataType) -> bool:
    """Return whether a column of this type holds documents: text, text by a dictionary, fields, or nothing but nulls."""
    if isinstance(kind, pa.BaseExtensionType):
        kind = kind.storage_type
    if pa.types.is_dictionary(kind):
        kind = kind.value_type
    is_text = pa.types.is_string(kind) or pa.types.is_large_string(kind) or pa.types.is_string_view(kind)
    return bool(is_text or pa.types.is_struct(kind) or pa.types.is_null(kind))


def _is_degraded(results: pa.Table) -> bool:
    """Return whether a degraded answer is reranked again; a column of that name with other values is the user's own."""
    return DEGRADED[0] in results.column_names and pa.types.is_boolean(results.schema.field(DEGRADED[0]).type)


def _first_stage(results: pa.Table) -> list[float | None]:
    """Return how each row was found, higher is better: by fused ranks, by BM25, or by how near it is."""
    for name, sign in ((SCORE, 1.0), ("_score", 1.0), ("_distance", -1.0)):
        if name in results.column_names:
            return [None if each is None else sign * each for each in results[name].to_pylist()]
    return [None] * len(results)
