"""Infer the Parquet types of JSONL columns once over the whole input, so that all parts have the same types."""

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
"""Metadata of a column whose values are JSON in strings."""
_UNLIKE = (pa.ArrowException, OverflowError)


class Types:
    """Infer the type that each column has in all rows."""

    def __init__(self) -> None:
        """Start without rows."""
        self._types: dict[str, pa.DataType | None] = {}
        self.changed: set[str] = set()
        """Columns whose type changed: earlier values may not fit the new one (2 ** 60 among fractions)."""

    def look(self, rows: Sequence[Mapping[str, Any]]) -> None:
        """Add rows; later rows may have further columns."""
        for name in dict.fromkeys(name for row in rows for name in row):
            before = self._types.get(name, pa.null())
            self._types[name] = after = _both(before, [row.get(name) for row in rows])
            if after is not None and before not in (after, pa.null()):
                self.changed.add(name)

    def look_again(self, rows: Sequence[Mapping[str, Any]]) -> None:
        """Check rows a second time: a changed column that cannot hold one of their values gets no type."""
        for name in self.changed:
            kind = self._types[name]
            try:
                if kind is not None:
                    pa.array([row.get(name) for row in rows], kind)
            except _UNLIKE:
                self._types[name] = None

    def schema(self) -> pa.Schema:
        """Return the schema. A column without a common type that Parquet can hold is a string column of JSON."""
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
    """Return the names of the columns that hold JSON in strings."""
    return [field.name for field in schema if field.metadata == _JSON]


def _written(kind: pa.DataType) -> bool:
    """Return whether Parquet can hold this type: an empty table is written and read back."""
    sink = pa.BufferOutputStream()
    try:
        pq.write_table(pa.schema([("column", kind)]).empty_table(), sink)
        return bool(pq.read_schema(pa.BufferReader(sink.getvalue())).field("column").type == kind)
    except (pa.ArrowException, OSError):  # an object without fields, or 50 nested lists, which no reader opens
        return False


def typed(rows: Sequence[Mapping[str, Any]], schema: pa.Schema) -> pa.Table:
    """Return rows as a table.

    Raises:
        ConfigError: A value does not fit the inferred type (a large integer among fractions).
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
