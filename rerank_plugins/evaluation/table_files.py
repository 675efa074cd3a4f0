"""Rows of tables in Parquet, JSONL or TSV, each with the file and line for error messages."""

from __future__ import annotations

import gzip
import itertools
import json
import zlib
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from ..core.errors import InputError, MissingExtra, clause
from .hub_data import DataFiles

__all__ = ["table_rows"]


def table_rows(files: DataFiles, names: Sequence[str]) -> Iterator[tuple[Mapping[str, Any], str]]:
    """Yield (row, file for error messages) of all files of one table."""
    for name in names:
        path = files.path(name)
        read = _parquet_rows if name.endswith(".parquet") else _tsv_rows if name.endswith(".tsv") else _jsonl_rows
        count = 0
        try:
            for count, row in enumerate(read(path), start=1):  # noqa: B007 (the error below names it)
                yield row
        except (OSError, EOFError, UnicodeDecodeError, zlib.error) as error:
            raise InputError(
                f"{path} cannot be read after row {count} ({clause(error)}): download it again."
            ) from error


def _tsv_rows(path: Path) -> Iterator[tuple[Mapping[str, Any], str]]:
    # Not by the csv module: it limits the length of a field, for the whole process.
    with path.open(encoding="utf-8-sig", newline="\n") as lines:
        header: list[str] | None = None
        for number, line in enumerate(lines, start=1):
            cells = line.rstrip("\r\n").split("\t")
            if header is None:
                header = cells
            elif line.strip():
                yield dict(zip(header, cells, strict=False)), f"{path}, line {number}"


def _jsonl_rows(path: Path) -> Iterator[tuple[Mapping[str, Any], str]]:
    with (gzip.open if path.suffix == ".gz" else open)(path, "rt", encoding="utf-8-sig") as lines:
        for number, line in enumerate(lines, start=1):
            if line.strip():
                yield _json_row(line, f"{path}, line {number}"), f"{path}, line {number}"


def _parquet_rows(path: Path) -> Iterator[tuple[Mapping[str, Any], str]]:
    try:
        import pyarrow as pa
        import pyarrow.parquet as pq
    except ModuleNotFoundError as error:
        raise MissingExtra("A data set in Parquet", extra="batch", package="pyarrow") from error
    try:
        with pq.ParquetFile(path) as file:
            rows = itertools.chain.from_iterable(batch.to_pylist() for batch in file.iter_batches())
            for number, row in enumerate(rows, start=1):
                yield row, f"{path}, row {number}"
    except pa.ArrowException as error:
        raise InputError(f"{path} is not a valid Parquet file ({clause(error)}): download it again.") from error


def _json_row(line: str, where: str) -> Mapping[str, Any]:
    try:
        row = json.loads(line)
    except (ValueError, RecursionError) as error:
        raise InputError(f"{where} is not JSON: {clause(error)}. Correct that line.") from error
    if not isinstance(row, dict):
        raise InputError(f"{where} is not a JSON object. Correct that line.")
    return row
