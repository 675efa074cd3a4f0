"""Read and write Parquet and JSONL in parts, on the local disk or on S3. Each file is written whole or not at all."""

from __future__ import annotations

import hashlib
import io
import json
import logging
import math
import os
import posixpath
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..core.errors import ConfigError, MissingExtra, clause
from .arrow_schema import typed
from .batch_rows import ADDED, Columns, RejectedRow

try:
    import pyarrow as pa
    import pyarrow.fs as pafs
    import pyarrow.parquet as pq
except ModuleNotFoundError as error:
    raise MissingExtra("A batch", extra="batch", package="pyarrow") from error

__all__ = ["RERANKED", "Folder", "Part", "added", "parquet", "parts_of", "read"]

_log = logging.getLogger("rerank_plugins")
_FORMATS = {".parquet": "parquet", ".jsonl": "jsonl", ".ndjson": "jsonl"}

RERANKED = pa.list_(
    pa.struct(
        [
            ("index", pa.int64()),
            ("document", pa.string()),
            ("relevance_score", pa.float64()),
            ("raw_score", pa.float64()),
            ("truncated", pa.bool_()),
            ("reason", pa.string()),
        ]
    )
)
_UNFINISHED = ".unfinished"
DEEPEST = 200
"""Levels of nesting of a JSONL row: more than real data has, and far from Python's recursion limit."""
TAKEN = "which is the name of a column that the output adds. Rename it."
_TYPES = dict(zip(ADDED, (RERANKED, pa.string(), pa.bool_(), pa.string()), strict=True))


@dataclass(frozen=True, slots=True)
class Part:
    """Consecutive rows of one input file: plain data, so that it can be pickled."""

    name: str
    """The number of the file and of the part."""
    uri: str
    """The input of the batch."""
    path: str
    """The file, on the input's file system."""
    format: str
    first: int
    """The number of the first row (in JSONL: line), from 0."""
    rows: int
    """The number of rows (in JSONL: lines)."""
    offset: int = 0
    """In JSONL: the first byte of the part."""
    size: int = 0
    """In JSONL: the bytes of the part; in Parquet: of the whole file."""
    digest: str = ""
    """A hash of these bytes, so that an edited input is seen."""


def _file_system(uri: str) -> tuple[pafs.FileSystem, str]:
    """Return the file system and the path of a local path or an `s3://` address."""
    if not uri.startswith("s3://"):
        if "://" in uri.removeprefix("file://"):
            raise ConfigError(f"{uri} is neither a path nor an s3:// address. Name one of these.")
        return pafs.LocalFileSystem(), str(Path(uri.removeprefix("file://")).absolute())
    endpoint = os.environ.get("AWS_ENDPOINT_URL_S3") or os.environ.get("AWS_ENDPOINT_URL")
    options = {"endpoint_override": endpoint} if endpoint else {}
    region = os.environ.get("AWS_REGION") or os.environ.get("AWS_DEFAULT_REGION")
    return pafs.S3FileSystem(region=region, **options), uri.removeprefix("s3://").rstrip("/")


def parts_of(uri: str, rows: int, columns: Columns) -> list[Part]:
    """Return the parts of an input: a file, or a folder of them, by name.

    Raises:
        ConfigError: The input is missing or cannot be read, or a Parquet file lacks a column.
    """
    files, path = _file_system(uri)
    try:
        info = files.get_file_info(path)
        inside = files.get_file_info(pafs.FileSelector(path)) if info.type is pafs.FileType.Directory else [info]
    except OSError as error:
        raise ConfigError(f"{uri} cannot be read: {clause(error)}. Check the address and the AWS variables.") from error
    if info.type is pafs.FileType.NotFound:
        raise ConfigError(f"{uri} does not exist. Check the path.")
    kinds = {
        each.path: _FORMATS.get(posixpath.splitext(each.path)[1].lower()) if each.is_file else None for each in inside
    }
    known = sorted(path for path, kind in kinds.items() if kind)
    if not known:
        raise ConfigError(f"{uri} is, or holds, no file that ends in {', '.join(_FORMATS)}. Name one that does.")
    _warn_of_skipped_files(uri, sorted(set(kinds) - set(known)))
    return [
        part
        for number, path in enumerate(known)
        for part in _split(files, uri, path, str(kinds[path]), rows, columns, number)
    ]


def _warn_of_skipped_files(uri: str, files: list[str]) -> None:
    names = [name for name in map(posixpath.basename, files) if not name.startswith(("_", "."))]
    if names:
        more = ", …" if len(names) > 5 else ""
        _log.warning(
            "%s: %d passed over, not ending in %s: %s",
            uri, len(names), ", ".join(_FORMATS), ", ".join(names[:5]) + more,
        )  # fmt: skip


def _split(
    files: pafs.FileSystem, uri: str, path: str, kind: str, rows: int, columns: Columns, number: int
) -> Iterator[Part]:
    if kind == "jsonl":
        for position, (first, lines, offset, size, digest) in enumerate(_blocks(files, path, rows)):
            yield Part(f"{number:05}-{position:05}", uri, path, kind, first, lines, offset, size, digest)
        return
    try:
        with files.open_input_file(path) as stream:
            file, size = pq.ParquetFile(stream), stream.size()
            count, names = file.metadata.num_rows, file.schema_arrow.names
    except pa.ArrowInvalid as error:
        raise ConfigError(f"{path} is not a Parquet file: {clause(error)}. Remove it from the input.") from error
    wanted = [columns.query, columns.documents, *([columns.retrieval_scores] if columns.retrieval_scores else [])]
    if missing := [name for name in wanted if name not in names]:
        raise ConfigError(f"{path} has no column {missing[0]!r}; it has {', '.join(names)}. Name the column to read.")
    if repeated := sorted({name for name in names if names.count(name) > 1}):
        raise ConfigError(
            f"{path} has more than one column {repeated[0]!r}. Rename them, so that each has a name of its own."
        )
    if taken := [name for name in ADDED if name in names]:
        raise ConfigError(f"{path} has a column {taken[0]!r}, {TAKEN}")
    digest = _digest(files, path) if count else ""
    for position, first in enumerate(range(0, count, rows)):
        name = f"{number:05}-{position:05}"
        yield Part(name, uri, path, kind, first, min(rows, count - first), size=size, digest=digest)


def _digest(files: pafs.FileSystem, path: str) -> str:
    """Return a hash of a whole file. Reading it once more costs little beside reranking it."""
    digest = _hash()
    with files.open_input_stream(path) as stream:
        while block := stream.read(1 << 20):
            digest.update(block)
    return str(digest.hexdigest())


def _hash() -> Any:
    return hashlib.blake2b(digest_size=16)


def _blocks(files: pafs.FileSystem, path: str, lines: int) -> Iterator[tuple[int, int, int, int, str]]:
    """Yield first line, number of lines, first byte, number of bytes and hash of each part of a JSONL file."""
    first, offset, size, count, digest = 0, 0, 0, 0, _hash()
    with files.open_input_stream(path) as stream:
        for line in io.BufferedReader(stream, 1 << 20):
            size, count = size + len(line), count + 1
            digest.update(line)
            if count == lines:
                yield first, count, offset, size, digest.hexdigest()
                first, offset, size, count, digest = first + count, offset + size, 0, 0, _hash()
    if count:
        yield first, count, offset, size, digest.hexdigest()


def read(part: Part) -> tuple[list[int], list[dict[str, Any] | RejectedRow], pa.Table | None]:
    """Return the numbers of a part's rows, the rows, and for Parquet also the table."""
    files, _ = _file_system(part.uri)
    with files.open_input_file(part.path) as stream:
        if part.format == "parquet":
            table = _slice(pq.ParquetFile(stream), part)
            return list(range(part.first, part.first + part.rows)), table.to_pylist(), table
        stream.seek(part.offset)
        content = stream.read(part.size)
    digest = _hash()
    digest.update(content)
    if digest.hexdigest() != part.digest:
        raise ConfigError(f"{part.path} was changed while the batch runs. Start again with a new output folder.")
    numbered = [(part.first + n, line) for n, line in enumerate(content.split(b"\n")) if line.strip()]
    return [number for number, _ in numbered], [_parsed(line) for _, line in numbered], None


def _slice(file: pq.ParquetFile, part: Part) -> pa.Table:
    """Return the rows of a part; only the row groups that hold them are read."""
    groups, before, first = [], 0, None
    for group in range(file.metadata.num_row_groups):
        count = file.metadata.row_group(group).num_rows
        if before < part.first + part.rows and before + count > part.first:
            groups.append(group)
            first = before if first is None else first
        before += count
    return file.read_row_groups(groups).slice(part.first - (first or 0), part.rows)


def _parsed(line: bytes) -> dict[str, Any] | RejectedRow:
    try:
        text = line.decode().removeprefix("\ufeff")
        value = json.loads(text)
        if "\\ud" in text.lower():  # a lone surrogate, which neither UTF-8 nor Parquet can hold
            whole = json.dumps(value, ensure_ascii=False).encode("utf-16-le", "surrogatepass")
            value = json.loads(whole.decode("utf-16-le", "replace"))
    except (ValueError, RecursionError) as error:
        return RejectedRow(f"not JSON in UTF-8: {error}", line.decode("utf-8", "backslashreplace"))
    if not isinstance(value, dict):
        return RejectedRow("not a JSON object", value)
    if text.count("[") + text.count("{") > DEEPEST and _too_deep(value):
        return RejectedRow(f"nested deeper than {DEEPEST} levels", text)
    if taken := [name for name in ADDED if name in value]:
        return RejectedRow(f"has a field {taken[0]!r}, {TAKEN}", value)
    return value


def _too_deep(value: Any) -> bool:
    waiting = [(value, 1)]
    while waiting:
        item, depth = waiting.pop()
        if isinstance(item, dict | list):
            if depth > DEEPEST:
                return True
            waiting.extend((each, depth + 1) for each in (item.values() if isinstance(item, dict) else item))
    return False


def added(answers: Sequence[Mapping[str, Any]]) -> list[tuple[str, pa.Array]]:
    """Return the added columns of the answers as typed arrays."""
    return [(name, pa.array([each[name] for each in answers], kind)) for name, kind in _TYPES.items()]


class Folder:
    """The output folder: reranked rows in `part-…` files, everything else in folders that readers skip (`_…`)."""

    def __init__(self, uri: str, kind: str) -> None:
        """Write files of `kind` (`parquet` or `jsonl`) into the folder `uri`."""
        self._files, self._path = _file_system(uri)
        self._kind = kind
        self._warned = False

    def text(self, name: str) -> str | None:
        """Return the content of a file, `None` where there is none."""
        path = f"{self._path}/{name}"
        if self._files.get_file_info(path).type is pafs.FileType.NotFound:
            return None
        with self._files.open_input_stream(path) as stream:
            return bytes(stream.read()).decode()

    def names(self, folder: str) -> list[str]:
        """Return the names of the files in a folder inside."""
        infos = self._files.get_file_info(pafs.FileSelector(f"{self._path}/{folder}", allow_not_found=True))
        return [info.base_name for info in infos if info.is_file]

    def empty(self) -> bool:
        """Return whether the folder holds nothing but unfinished files."""
        infos = self._files.get_file_info(pafs.FileSelector(self._path, allow_not_found=True))
        return all(info.path.endswith(_UNFINISHED) for info in infos)

    def remove(self, name: str) -> None:
        """Remove a file that an earlier attempt may have left."""
        path = f"{self._path}/{name}"
        if self._files.get_file_info(path).is_file:
            self._files.delete_file(path)

    def write(self, name: str, content: bytes) -> None:
        """Write a file whole or not at all."""
        path = f"{self._path}/{name}"
        if not isinstance(self._files, pafs.LocalFileSystem):  # an object on S3 appears when it is complete
            with self._files.open_output_stream(path) as stream:
                stream.write(content)
            return
        self._files.create_dir(posixpath.dirname(path))
        unfinished = f"{posixpath.dirname(path)}/_{os.getpid()}-{posixpath.basename(path)}{_UNFINISHED}"
        with self._files.open_output_stream(unfinished) as stream:
            stream.write(content)
        Path(unfinished).replace(path)

    def write_rows(
        self,
        part: Part,
        rows: Sequence[Mapping[str, Any]],
        answers: Sequence[Mapping[str, Any]],
        table: Any,
        drop: str,
        schema: pa.Schema | None = None,
    ) -> None:
        """Write the rows of a part with their answers, without the column of the candidates.

        Rows of JSONL (`table` is `None`) get the types of `schema` in Parquet.
        """
        name = self.rows_of(part)
        remaining = [{key: value for key, value in row.items() if key != drop} for row in rows]
        if self._kind == "jsonl":
            lines = [self._line(part, row | dict(answer)) for row, answer in zip(remaining, answers, strict=True)]
            self.write(name, "".join(lines).encode())
            return
        output = typed(remaining, schema or pa.schema([])) if table is None else table.drop_columns([drop])
        for column, values in added(answers):
            output = output.append_column(column, values)
        self.write(name, parquet(output))

    def write_bad(self, part: Part, bad: Sequence[tuple[int, RejectedRow]]) -> None:
        """Write the rejected rows, each with its file, its number (from 1) and the reason."""
        lines = [
            self._line(part, {"file": part.path, "row": n + 1, "reason": each.reason, "value": each.row})
            for n, each in bad
        ]
        self.write(self.bad_of(part), "".join(lines).encode())

    def rows_of(self, part: Part) -> str:
        """Return the name of the file of a part's rows."""
        return f"part-{part.name}.{self._kind}"

    def bad_of(self, part: Part) -> str:
        """Return the name of the file of a part's rejected rows."""
        return f"_set_aside/part-{part.name}.jsonl"

    def _line(self, part: Part, value: Any) -> str:
        """Return a line of JSON. NaN and infinity stay if the input was JSONL; otherwise they become null."""
        try:
            return json.dumps(value, ensure_ascii=False, default=str, allow_nan=part.format == "jsonl") + "\n"
        except ValueError:
            if not self._warned:
                self._warned = True
                _log.warning(
                    "%s: NaN and infinity are written as null, since JSON lacks them. --format parquet keeps them.",
                    part.path,
                )
            return json.dumps(_finite(value), ensure_ascii=False, default=str) + "\n"


def parquet(table: pa.Table) -> bytes:
    """Return the bytes of a Parquet file that opens again.

    Raises:
        ConfigError: It cannot be written, or cannot be read back.
    """
    sink = pa.BufferOutputStream()
    try:
        pq.write_table(table, sink)
        written = sink.getvalue()
        again = pq.ParquetFile(pa.BufferReader(written))
        whole = again.metadata.num_rows == table.num_rows and again.schema_arrow.names == table.column_names
    except (pa.ArrowException, OSError) as error:
        raise ConfigError(f"These rows cannot be written as Parquet: {clause(error)}. Use --format jsonl.") from error
    if not whole:
        raise ConfigError(
            "These rows cannot be written as Parquet: they do not read back the same. Use --format jsonl."
        )
    return bytes(written)


def _finite(value: Any) -> Any:
    """Return `value` with null for each number that JSON lacks (NaN, infinity)."""
    if isinstance(value, dict):
        return {name: _finite(each) for name, each in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(each) for each in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
