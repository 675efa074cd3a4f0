"""Parquet and JSONL, here or on S3, in parts: each is read alone, and what comes of it is there whole or not at all."""

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
from .columns import typed
from .rows import ADDED, Bad, Columns

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
"""Levels of a JSONL row: more than data has, and far from Python's limit of recursion."""
TAKEN = "which is the name of a column that the output adds. Rename it."
_TYPES = dict(zip(ADDED, (RERANKED, pa.string(), pa.bool_(), pa.string()), strict=True))


@dataclass(frozen=True, slots=True)
class Part:
    """Some consecutive rows of one input file: plain data, so that it travels."""

    name: str
    """The file's number and the part's."""
    uri: str
    """The input that was named."""
    path: str
    """The file, on that input's file system."""
    format: str
    first: int
    """The number of its first row (of a JSONL file: line), from 0."""
    rows: int
    """How many; of a JSONL file: lines."""
    offset: int = 0
    """Of a JSONL file: its first byte."""
    size: int = 0
    """… and how many; of a Parquet file: those of all of it."""
    digest: str = ""
    """Of the content: of a JSONL part its bytes, of a Parquet file all of them. An edited input is another one."""


def _opened(uri: str) -> tuple[pafs.FileSystem, str]:
    """Return the file system and the path of a local path or an `s3://` address."""
    if not uri.startswith("s3://"):
        if "://" in uri.removeprefix("file://"):
            raise ConfigError(f"{uri} is neither a path nor an s3:// address. Name one of these.")
        return pafs.LocalFileSystem(), str(Path(uri.removeprefix("file://")).absolute())
    endpoint = os.environ.get("AWS_ENDPOINT_URL_S3") or os.environ.get("AWS_ENDPOINT_URL")
    told = {"endpoint_override": endpoint} if endpoint else {}
    region = os.environ.get("AWS_REGION") or os.environ.get("AWS_DEFAULT_REGION")
    return pafs.S3FileSystem(region=region, **told), uri.removeprefix("s3://").rstrip("/")


def parts_of(uri: str, rows: int, columns: Columns) -> list[Part]:
    """Return the parts of an input: a file, or a folder of them, by name.

    Raises:
        ConfigError: There is nothing, nothing that can be read, or a Parquet file without the columns.
    """
    files, path = _opened(uri)
    try:
        told = files.get_file_info(path)
        inside = files.get_file_info(pafs.FileSelector(path)) if told.type is pafs.FileType.Directory else [told]
    except OSError as error:
        raise ConfigError(f"{uri} cannot be read: {clause(error)}. Check the address and the AWS variables.") from error
    if told.type is pafs.FileType.NotFound:
        raise ConfigError(f"There is no {uri}. Check the path.")
    kinds = {
        each.path: _FORMATS.get(posixpath.splitext(each.path)[1].lower()) if each.is_file else None for each in inside
    }
    known = sorted(path for path, kind in kinds.items() if kind)
    if not known:
        raise ConfigError(f"{uri} is, or holds, no file that ends in {', '.join(_FORMATS)}. Name one that does.")
    _tell_what_is_passed_over(uri, sorted(set(kinds) - set(known)))
    return [
        part
        for number, path in enumerate(known)
        for part in _split(files, uri, path, str(kinds[path]), rows, columns, number)
    ]


def _tell_what_is_passed_over(uri: str, files: list[str]) -> None:
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
        raise ConfigError(f"{path} is no Parquet file: {clause(error)}. Take it out of the input.") from error
    wanted = [columns.query, columns.documents, *([columns.retrieval_scores] if columns.retrieval_scores else [])]
    if missing := [name for name in wanted if name not in names]:
        raise ConfigError(f"{path} has no column {missing[0]!r}; it has {', '.join(names)}. Name the column to read.")
    if repeated := sorted({name for name in names if names.count(name) > 1}):
        raise ConfigError(f"{path} has more than one column {repeated[0]!r}. Rename them, so that each can be kept.")
    if taken := [name for name in ADDED if name in names]:
        raise ConfigError(f"{path} has a column {taken[0]!r}, {TAKEN}")
    digest = _digest(files, path) if count else ""
    for position, first in enumerate(range(0, count, rows)):
        name = f"{number:05}-{position:05}"
        yield Part(name, uri, path, kind, first, min(rows, count - first), size=size, digest=digest)


def _digest(files: pafs.FileSystem, path: str) -> str:
    """Return a hash of a whole file. It is read once more for this, which costs little beside reranking it."""
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


def read(part: Part) -> tuple[list[int], list[dict[str, Any] | Bad], pa.Table | None]:
    """Return the numbers of a part's rows, the rows, and the same as a table where the input has types."""
    files, _ = _opened(part.uri)
    with files.open_input_file(part.path) as stream:
        if part.format == "parquet":
            table = _slice(pq.ParquetFile(stream), part)
            return list(range(part.first, part.first + part.rows)), table.to_pylist(), table
        stream.seek(part.offset)
        content = stream.read(part.size)
    digest = _hash()
    digest.update(content)
    if digest.hexdigest() != part.digest:
        raise ConfigError(f"{part.path} was changed while the batch runs. Start again, with a new output folder.")
    numbered = [(part.first + n, line) for n, line in enumerate(content.split(b"\n")) if line.strip()]
    return [number for number, _ in numbered], [_parsed(line) for _, line in numbered], None


def _slice(file: pq.ParquetFile, part: Part) -> pa.Table:
    """Return the part's rows, and read only the row groups that hold them."""
    groups, before, first = [], 0, None
    for group in range(file.metadata.num_row_groups):
        count = file.metadata.row_group(group).num_rows
        if before < part.first + part.rows and before + count > part.first:
            groups.append(group)
            first = before if first is None else first
        before += count
    return file.read_row_groups(groups).slice(part.first - (first or 0), part.rows)


def _parsed(line: bytes) -> dict[str, Any] | Bad:
    try:
        text = line.decode().removeprefix("\ufeff")
        value = json.loads(text)
        if "\\ud" in text.lower():  # half of an emoji may be written so, and is nothing that UTF-8 or Parquet can hold
            whole = json.dumps(value, ensure_ascii=False).encode("utf-16-le", "surrogatepass")
            value = json.loads(whole.decode("utf-16-le", "replace"))
    except (ValueError, RecursionError) as error:
        return Bad(f"no JSON in UTF-8: {error}", line.decode("utf-8", "backslashreplace"))
    if not isinstance(value, dict):
        return Bad("no JSON object, which a row is", value)
    if text.count("[") + text.count("{") > DEEPEST and _too_deep(value):
        return Bad(f"nested deeper than {DEEPEST} levels", text)
    if taken := [name for name in ADDED if name in value]:
        return Bad(f"has a field {taken[0]!r}, {TAKEN}", value)
    return value


def _too_deep(value: Any) -> bool:
    waiting = [(value, 1)]
    while waiting:
        digest, depth = waiting.pop()
        if isinstance(digest, dict | list):
            if depth > DEEPEST:
                return True
            waiting.extend((each, depth + 1) for each in (digest.values() if isinstance(digest, dict) else digest))
    return False


def added(answers: Sequence[Mapping[str, Any]]) -> list[tuple[str, pa.Array]]:
    """Return the columns of answers as typed arrays."""
    return [(name, pa.array([each[name] for each in answers], kind)) for name, kind in _TYPES.items()]


class Folder:
    """Where a batch writes: the reranked rows in `part-…` files; in folders that readers pass over, everything else."""

    def __init__(self, uri: str, kind: str) -> None:
        """Write files of `kind` (`parquet` or `jsonl`) into the folder `uri`."""
        self._files, self._path = _opened(uri)
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
        found = self._files.get_file_info(pafs.FileSelector(f"{self._path}/{folder}", allow_not_found=True))
        return [each.base_name for each in found if each.is_file]

    def empty(self) -> bool:
        """Tell whether nothing is there but what was never finished."""
        found = self._files.get_file_info(pafs.FileSelector(self._path, allow_not_found=True))
        return all(each.path.endswith(_UNFINISHED) for each in found)

    def remove(self, name: str) -> None:
        """Remove a file that an earlier try may have left."""
        path = f"{self._path}/{name}"
        if self._files.get_file_info(path).is_file:
            self._files.delete_file(path)

    def write(self, name: str, content: bytes) -> None:
        """Write a file: whole, or not at all."""
        path = f"{self._path}/{name}"
        if not isinstance(self._files, pafs.LocalFileSystem):  # an object appears when it is complete
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

        Rows without types (`table` is `None`) have those of `schema` in Parquet.
        """
        name = self.rows_of(part)
        kept = [{key: value for key, value in row.items() if key != drop} for row in rows]
        if self._kind == "jsonl":
            lines = [self._line(part, row | dict(answer)) for row, answer in zip(kept, answers, strict=True)]
            self.write(name, "".join(lines).encode())
            return
        made = typed(kept, schema or pa.schema([])) if table is None else table.drop_columns([drop])
        for column, values in added(answers):
            made = made.append_column(column, values)
        self.write(name, parquet(made))

    def write_bad(self, part: Part, bad: Sequence[tuple[int, Bad]]) -> None:
        """Write the rows that were set aside, each with its file, its number (from 1) and the reason."""
        lines = [
            self._line(part, {"file": part.path, "row": n + 1, "reason": each.reason, "value": each.row})
            for n, each in bad
        ]
        self.write(self.bad_of(part), "".join(lines).encode())

    def rows_of(self, part: Part) -> str:
        """Return the name of the file of a part's rows."""
        return f"part-{part.name}.{self._kind}"

    def bad_of(self, part: Part) -> str:
        """Return the name of the file of a part's rows that were set aside."""
        return f"_set_aside/part-{part.name}.jsonl"

    def _line(self, part: Part, value: Any) -> str:
        """Return a line of JSON. NaN and infinity are no JSON: they stay where JSONL held them, else they become null."""
        try:
            return json.dumps(value, ensure_ascii=False, default=str, allow_nan=part.format == "jsonl") + "\n"
        except ValueError:
            if not self._warned:
                self._warned = True
                _log.warning(
                    "%s: NaN and infinity are written as null, since JSON has no such numbers. --format parquet keeps them.",
                    part.path,
                )
            return json.dumps(_finite(value), ensure_ascii=False, default=str) + "\n"


def parquet(table: pa.Table) -> bytes:
    """Return the bytes of a Parquet file that was seen to open again.

    Raises:
        ConfigError: It cannot be written, or nothing could read it.
    """
    sink = pa.BufferOutputStream()
    try:
        pq.write_table(table, sink)
        written = sink.getvalue()
        again = pq.ParquetFile(pa.BufferReader(written))
        whole = again.metadata.num_rows == table.num_rows and again.schema_arrow.names == table.column_names
    except (pa.ArrowException, OSError) as error:
        raise ConfigError(f"These rows cannot be kept as Parquet: {clause(error)}. Use --format jsonl.") from error
    if not whole:
        raise ConfigError("These rows cannot be kept as Parquet: they read back otherwise. Use --format jsonl.")
    return bytes(written)


def _finite(value: Any) -> Any:
    """Return `value` with null for each number that JSON does not have (NaN, infinity)."""
    if isinstance(value, dict):
        return {name: _finite(each) for name, each in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(each) for each in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
