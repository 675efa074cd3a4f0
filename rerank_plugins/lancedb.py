"""Adapter for LanceDB: a reranker for `table.search(…).rerank(…)`, of vector, full-text and hybrid searches."""

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

from ._adapter import Adapter, RerankerLike
from .core.health import CheckReport
from .documents import Expected, as_list, is_table
from .reranker import RerankResponse

__all__ = ["LanceDBReranker"]

SCORE_COLUMN = "_relevance_score"
ROWS = Expected(
    name="results",
    items="rows (mappings)",
    rows="pass pa.table({table})",
    one="pass `await query.to_arrow()` or `pa.Table.from_pylist(rows)`, or give texts to Reranker.rerank",
)
FIRST_STAGE_COLUMNS = ("_distance", "_score")
DEGRADED_COLUMNS = ("rerank_degraded", "rerank_reason", "rerank_model")


class LanceDBReranker(Reranker):
    """Reranks the rows of a LanceDB search.

    In a hybrid search:
    `table.search("tides", query_type="hybrid").rerank(LanceDBReranker("embedded", top_n=5)).limit(100).to_list()`.

    Rows come back best first with all their columns. The column `_relevance_score` is added: from 0 to 1, or null if
    the row was not scored. That is so if its text is blank, or if `passthrough` answered, such as for a vendor that is
    down. A degraded answer also gets the columns `rerank_degraded`, `rerank_reason` and `rerank_model`.

    `limit` of the search is the number of candidates, and the maximum number of rows that come back. A hybrid search
    takes that number from each of its two searches, so up to 200 rows are reranked with a limit of 100. `top_n` cuts
    after reranking. The rows of a hybrid search are merged by reciprocal rank fusion before they are reranked, so
    `passthrough` keeps the order of that fusion.

    LanceDB has no async rerankers: an async query calls this one on the event loop and blocks it. In async code, leave
    `rerank` out of the query and await `arerank` with its result.

    Args:
        reranker (str | Mapping | Reranker | None): A spec (`"backend:model"` or a mapping), the name of a reranker in
            the configuration file, or a ready `Reranker`. Default `None`: what `load_reranker()` loads without
            arguments, the spec in the environment variable RERANK_PLUGINS_RERANKER, else the embedded model.
        config (str | PathLike | None): Path of the TOML configuration file, in which names are looked up. Default
            `None`: the file that the environment variable RERANK_PLUGINS_CONFIG names.
        column (str): The column to read: strings, or structs, which are read as mappings. The search must select it.
            Default `"text"`.
        top_n (int | None): Maximum number of rows to return, at least 1. Default `None`: the `top_n` of the spec,
            else all.
        instruction (str | None): What relevant means, for models that follow an instruction; for others a call raises
            `InputError`. Default `None`: the instruction of the spec.
        score_threshold (float | None): Minimum `relevance_score` of a returned row, from 0 to 1. It is not applied to
            a degraded answer. Default `None`: the threshold of the spec, else no minimum.
        allowed_rerankers (list[str] | None): The strings that `reranker` may be: specs, or names in the configuration
            file. Set it where requests choose the reranker. Default `None`: any reranker is allowed.
        on_response (Callable[[RerankResponse], object] | None): Plain function that is called with each
            `RerankResponse` before the rows are returned. An exception that it raises reaches the caller. Default
            `None`.
        return_score (Literal["relevance", "all"]): `"all"` keeps the columns `_distance` and `_score` of the search;
            `"relevance"` drops them. Default `"relevance"`.

    Raises:
        ConfigError: An unknown backend or option, a missing key, a threshold that the scores do not support,
            or a reranker that is not allowed.
        InputError: `top_n` is not an integer of at least 1.

    Example:
        >>> import lancedb
        >>> from rerank_plugins.lancedb import LanceDBReranker
        >>> table = lancedb.connect("./database").create_table(
        ...     "notes",
        ...     [
        ...         {"text": "Bananas are yellow.", "vector": [1.0, 0.0]},
        ...         {"text": "Bees make honey from nectar.", "vector": [0.0, 1.0]},
        ...     ],
        ... )
        >>> reranker = LanceDBReranker("lexical", top_n=1)
        >>> search = table.search([1.0, 0.0]).rerank(reranker, query_string="How do bees make honey?")
        >>> [row["text"] for row in search.to_list()]
        ['Bees make honey from nectar.']
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
        """Check the arguments and look up the reranker. No model is loaded and nothing is sent."""
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

    def warmup(self, *, check: bool = False) -> None:
        """Load the model now, not at the first search. Does nothing for a hosted model without `check`.

        Args:
            check (bool): Whether to `check` every backend too, and to raise the first error. Default `False`.

        Raises:
            BackendError: The model could not be loaded, or a backend failed the check.
        """
        self._adapter.warmup(check=check)

    async def awarmup(self, *, check: bool = False) -> None:
        """Load the model now, as `warmup` does, without blocking the event loop.

        Args:
            check (bool): Whether to `check` every backend too, and to raise the first error. Default `False`.
        """
        await self._adapter.awarmup(check=check)

    def check(self, *, raise_on_error: bool = False, deadline: float | None = None) -> CheckReport:
        """Ask every backend of the reranker a question with a known answer; see `Reranker.check`.

        Args:
            raise_on_error (bool): Whether to raise the first error. Default `False`.
            deadline (float | None): Seconds for the whole check. Default `None`: the timeout of each backend.

        Returns:
            CheckReport: The state of each backend; `to_dict()` makes it plain data for a health endpoint.

        Raises:
            BackendError: A backend failed, with `raise_on_error` only.
        """
        return self._adapter.check(raise_on_error=raise_on_error, deadline=deadline)

    async def acheck(self, *, raise_on_error: bool = False, deadline: float | None = None) -> CheckReport:
        """Do what `check` does, without blocking the event loop.

        Args:
            raise_on_error (bool): Whether to raise the first error. Default `False`.
            deadline (float | None): Seconds for the whole check. Default `None`: the timeout of each backend.

        Returns:
            CheckReport: The state of each backend.
        """
        return await self._adapter.acheck(raise_on_error=raise_on_error, deadline=deadline)

    def rerank_hybrid(self, query: str, vector_results: pa.Table, fts_results: pa.Table) -> pa.Table:
        """Return the rows of both searches, each once, best first.

        Args:
            query (str | MatchQuery | PhraseQuery): The search query; not blank.
            vector_results (pa.Table): Rows of a vector search, with the column `_rowid`.
            fts_results (pa.Table): Rows of a full-text search, with the column `_rowid`.

        Returns:
            A `pa.Table`, at most `top_n` rows, with the columns that the docstring of the class describes.

        Raises:
            InputError: A blank query or one without words, a column that is missing or holds no text, or an instruction
                that the model cannot follow.
            BackendError: The backend failed, and so did its fallbacks.
            DeadlineExceeded: The deadline of the spec passed.
        """
        results = self._rows(vector_results), self._rows(fts_results)
        return self._reranked(query, RRFReranker(return_score="all").rerank_hybrid(query, *results))

    def rerank_vector(self, query: str, vector_results: pa.Table) -> pa.Table:
        """Return the rows of a vector search, best first.

        Args:
            query (str | MatchQuery | PhraseQuery): The search query; not blank.
            vector_results (pa.Table): Rows of the search: a pyarrow `Table`, `RecordBatch` or `RecordBatchReader`, a
                pandas or polars DataFrame, a query that has not run yet, or any iterable of rows (`query.to_list()`).

        Returns:
            A `pa.Table`, at most `top_n` rows, with the columns that the docstring of the class describes.

        Raises:
            InputError: As `rerank_hybrid`, or `vector_results` holds no rows.
            BackendError: The backend failed, and so did its fallbacks.
            DeadlineExceeded: The deadline of the spec passed.
        """
        return self._reranked(query, vector_results)

    def rerank_fts(self, query: str, fts_results: pa.Table) -> pa.Table:
        """Return the rows of a full-text search, best first; same arguments and errors as `rerank_vector`."""
        return self._reranked(query, fts_results)

    async def arerank(self, query: str, results: pa.Table) -> pa.Table:
        """Return the rows of any search, best first, without blocking the event loop.

        Args:
            query (str | MatchQuery | PhraseQuery): The search query; not blank.
            results (pa.Table): Rows of a search, in any form that `rerank_vector` accepts.

        Returns:
            A `pa.Table`, at most `top_n` rows, with the columns that the docstring of the class describes.

        Raises:
            InputError: As `rerank_vector`.
            BackendError: The backend failed, and so did its fallbacks.
            DeadlineExceeded: The deadline of the spec passed.
        """
        results = self._rows(results)
        return self._table(results, await self._adapter._arerank(*self._query_and_documents(query, results)))

    def _reranked(self, query: str, results: Any) -> pa.Table:
        results = self._rows(results)
        return self._table(results, self._adapter._rerank(*self._query_and_documents(query, results)))

    def _rows(self, results: Any) -> pa.Table:
        """Return the results of a search as a table.

        Raises:
            InputError: `results` is not a table, a query or an iterable of mappings.
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
        # The names of all rows: pyarrow's from_pylist drops columns that the first row does not have.
        names = list(dict.fromkeys(name for row in rows for name in row)) or [self.column]
        try:
            columns = {str(name): pa.array([row.get(name) for row in rows]) for name in names}
        except (pa.ArrowException, OverflowError) as error:
            raise InputError(
                f"The rows cannot be made a table: {clause(error)}. Pass `await query.to_arrow()`."
            ) from error
        return pa.table(columns)

    def _query_and_documents(self, query: Any, results: pa.Table) -> tuple[str, list[Any], list[float | None]]:
        """Return the text of the query, and the document and the score of the search of each row.

        Raises:
            InputError: The query has no text, or the column is missing or holds no text.
        """
        text = query if isinstance(query, str) else getattr(query, "query", None)  # MatchQuery and PhraseQuery have it
        if not isinstance(text, str):
            raise InputError(
                f"A reranker needs a query in words, got {type(query).__name__}: pass the query's text, or leave "
                "`rerank` out of the search and pass its result to `arerank` or `Reranker.rerank`."
            )
        if self.column not in results.column_names:
            raise InputError(
                f"The search returned no column {self.column!r}, only {', '.join(results.column_names)}: select it, or "
                "name another column with LanceDBReranker(column=…)."
            )
        kind = results.schema.field(self.column).type
        if not _is_readable(kind):
            readable = [field.name for field in results.schema if _is_readable(field.type)]
            choice = (
                f"the search returned {', '.join(readable)}" if readable else "the search returned none: select one"
            )
            raise InputError(
                f"The column {self.column!r} must hold strings or structs, got {kind}: name another column "
                f"with LanceDBReranker(column=…); {choice}."
            )
        documents = ["" if value is None else value for value in results[self.column].to_pylist()]
        return text, documents, _first_stage_scores(results)

    def _table(self, results: pa.Table, response: RerankResponse) -> pa.Table:
        """Return the rows of `results` in the order of `response`, with its columns added."""
        dropped = [SCORE_COLUMN, *(FIRST_STAGE_COLUMNS if self.score == "relevance" else ())]
        if response.degraded or _is_degraded(results):  # these columns may be an earlier answer's
            dropped += DEGRADED_COLUMNS
        rows = results.drop_columns([name for name in dropped if name in results.column_names])
        table = _without_string_views(rows).take(pa.array([result.index for result in response], pa.int64()))
        table = table.append_column(
            SCORE_COLUMN, pa.array([result.relevance_score for result in response], pa.float32())
        )
        if response.degraded:
            for name, value in zip(DEGRADED_COLUMNS, (True, response.reason, response.model), strict=True):
                table = table.append_column(name, pa.array([value] * len(table), pa.scalar(value).type))
        return table

    def __repr__(self) -> str:
        """Return a text with the label of the reranker and the column; no key."""
        return f"LanceDBReranker({self._adapter._live_reranker().scorer.label!r}, column={self.column!r})"

    __str__ = __repr__  # LanceDB shows it in the plan of a query


def _without_string_views(table: pa.Table) -> pa.Table:
    """Return `table` with string views, which polars exports, as strings: pyarrow cannot reorder string views."""
    for position, field in enumerate(table.schema):
        if pa.types.is_string_view(field.type):
            table = table.set_column(position, field.name, table[field.name].cast(pa.large_string()))
    return table


def _is_readable(kind: pa.DataType) -> bool:
    """Return whether a column of this type can hold documents: strings (also dictionary-encoded), structs or nulls."""
    if isinstance(kind, pa.BaseExtensionType):
        kind = kind.storage_type
    if pa.types.is_dictionary(kind):
        kind = kind.value_type
    is_text = pa.types.is_string(kind) or pa.types.is_large_string(kind) or pa.types.is_string_view(kind)
    return bool(is_text or pa.types.is_struct(kind) or pa.types.is_null(kind))


def _is_degraded(results: pa.Table) -> bool:
    """Return whether `results` is a degraded answer; a column of that name with another type is the user's own."""
    name = DEGRADED_COLUMNS[0]
    return name in results.column_names and pa.types.is_boolean(results.schema.field(name).type)


def _first_stage_scores(results: pa.Table) -> list[float | None]:
    """Return the score of each row in the search, higher is better: rank fusion, BM25 or negated distance."""
    for name, sign in ((SCORE_COLUMN, 1.0), ("_score", 1.0), ("_distance", -1.0)):
        if name in results.column_names:
            return [None if score is None else sign * score for score in results[name].to_pylist()]
    return [None] * len(results)
