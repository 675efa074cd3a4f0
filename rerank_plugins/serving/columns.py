"""What the columns of JSONL rows are in Parquet: found once over the whole input, so that all parts have the same."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from ..core.errors import ConfigError, MissingExtra, clause

try:
    import pyarrow as pa
    import pyarrow.parquet as pq
except ModuleNotFoundError as error:
    raise MissingExtra("A batch", extra="batch", package="pyarrow") from error

__all__ = ["Types", "as_json", "typed"]

_JSON = {b"rerank_plugins": b"json"}
"""Marks a column whose values are JSON in text."""
_UNLIKE = (pa.ArrowException, OverflowError)


class Types:
    """Looks at rows, and tells the type that each of their columns has in all of them."""

    def __init__(self) -> None:
        """Begin without rows."""
        self._types: dict[str, pa.DataType | None] = {}
        self.changed: set[str] = set()
        """Columns whose type changed on the way: values seen before may not fit the new one (2 ** 60 among fractions)."""

    def look(self, rows: Sequence[Mapping[str, Any]]) -> None:
        """Look at more rows; a column that none of them has may come with the next."""
        for name in dict.fromkeys(name for row in rows for name in row):
            before = self._types.get(name, pa.null())
            self._types[name] = after = _both(before, [row.get(name) for row in rows])
            if after is not None and before not in (after, pa.null()):
                self.changed.add(name)

    def look_again(self, rows: Sequence[Mapping[str, Any]]) -> None:
        """Look at rows a second time: a changed column that does not hold one of their values has no type."""
        for name in self.changed:
            kind = self._types[name]
            try:
                if kind is not None:
                    pa.array([row.get(name) for row in rows], kind)
            except _UNLIKE:
                self._types[name] = None

    def schema(self) -> pa.Schema:
        """Return the columns; one whose values have no common type that Parquet can keep is text, each value as JSON."""
        return pa.schema(
            [
                pa.field(name, pa.string(), metadata=_JSON) if kind is None or not _written(kind) else (name, kind)
                for name, kind in self._types.items()
            ]
        )


def _both(before: pa.DataType | None, values: list[Any]) -> pa.DataType | None:
    if before is None:
        return None
    try:
        schemas = [pa.schema([("column", kind)]) for kind in (before, pa.array(values).type)]
        return pa.unify_schemas(schemas, promote_options="permissive").field(0).type
    except _UNLIKE:
        return None


def as_json(schema: pa.Schema) -> list[str]:
    """Return the names of the columns that are JSON in text."""
    return [field.name for field in schema if field.metadata == _JSON]


def _written(kind: pa.DataType) -> bool:
    """Tell whether Parquet keeps values of this type: an empty table of it is written and read back."""
    sink = pa.BufferOutputStream()
    try:
        pq.write_table(pa.schema([("column", kind)]).empty_table(), sink)
        return bool(pq.read_schema(pa.BufferReader(sink.getvalue())).field("column").type == kind)
    except (pa.ArrowException, OSError):  # an object without fields; lists inside 50 lists, which no reader opens
        return False


def typed(rows: Sequence[Mapping[str, Any]], schema: pa.Schema) -> pa.Table:
    """Return rows as a table.

    Raises:
        ConfigError: A value is not what the columns were found to be (a large whole number among fractions).
    """
    arrays: Iterable[pa.Array] = (_array(field, [row.get(field.name) for row in rows]) for field in schema)
    return pa.Table.from_arrays(list(arrays), schema=schema)


def _array(field: pa.Field, values: list[Any]) -> pa.Array:
    if field.metadata == _JSON:
        values = [None if value is None else json.dumps(value, ensure_ascii=False) for value in values]
    try:
        return pa.array(values, field.type)
    except _UNLIKE as error:
        raise ConfigError(
            f"{field.name!r} cannot be written as Parquet: {clause(error)}. Use --format jsonl."
        ) from error
