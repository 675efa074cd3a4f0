"""Reads documents from a text file or a JSONL file, with the path and line number of each."""

from __future__ import annotations

import codecs
import contextlib
import json
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from .core.errors import InputError, clause

__all__ = ["JSONL_SUFFIXES", "Row", "read_row", "read_rows"]

JSONL_SUFFIXES = (".jsonl", ".ndjson")


@dataclass(frozen=True, slots=True)
class Row:
    """One document, with its file and line."""

    file: str
    """Path of the file, or `-` for standard input."""
    line: int
    """Line number, from 1. Blank lines count."""
    value: Any
    """The text of the line, or its parsed JSON."""
    document: Any
    """The document to rerank: a string, or a mapping of fields."""
    offset: int = 0
    """Position of the line in the file, in bytes."""


def read_rows(file: str, *, jsonl: bool = False, field: str | None = None) -> Iterator[Row]:
    """Yield the documents of a UTF-8 file. Blank lines are skipped.

    Args:
        file: A path, or `-` for standard input.
        jsonl: Whether each line is JSON: a string or an object. The suffixes `.jsonl` and `.ndjson` imply it.
        field: The field of an object that is the document; `None` takes the whole object as a mapping of fields.

    Raises:
        InputError: The file or a line cannot be read. The message names the line, but does not quote it.
    """
    jsonl = jsonl or file.lower().endswith(JSONL_SUFFIXES)
    for number, offset, raw in _byte_lines(file):
        location = f"{file}, line {number}"
        try:
            text = raw.decode("utf-8").removesuffix("\r")
        except UnicodeDecodeError as error:
            raise InputError(
                f"{location} is not UTF-8 (byte {raw[error.start]:#04x}). "
                "Pass a text file, or convert it first: iconv -f latin1 -t utf-8."
            ) from error
        if text.strip():
            value = _parse_line(text, location) if jsonl else text
            yield Row(file, number, value, _document(value, field, location), offset)


def read_row(file: str, line: int, offset: int) -> Any:
    """Return the parsed JSON of one line of a JSONL file that `read_rows` has read before.

    Args:
        file: The path.
        line: The line's number, for the error.
        offset: Its position in bytes.

    Raises:
        InputError: The file cannot be read, or has changed since.
    """
    try:
        with Path(file).open("rb") as stream:
            stream.seek(offset)
            raw = stream.readline()
    except OSError as error:
        raise _unreadable(file, error) from error
    try:
        return _parse_line(raw.decode("utf-8-sig").rstrip("\r\n"), f"{file}, line {line}")
    except (UnicodeDecodeError, InputError) as error:
        raise InputError(
            f"{file}, line {line} has changed while the file was in use: run the command again."
        ) from error


def _byte_lines(file: str) -> Iterator[tuple[int, int, bytes]]:
    """Yield number, position in bytes and content of each line. One line at a time is in memory."""
    offset = 0
    try:
        with contextlib.nullcontext(sys.stdin.buffer) if file == "-" else Path(file).open("rb") as stream:
            for number, raw in enumerate(stream, start=1):
                yield number, offset, (raw.removeprefix(codecs.BOM_UTF8) if number == 1 else raw).removesuffix(b"\n")
                offset += len(raw)
    except OSError as error:
        raise _unreadable(file, error) from error


def _unreadable(file: str, error: OSError) -> InputError:
    return InputError(f"{file} cannot be read: {error.strerror}. Check the path.")


def _parse_line(text: str, location: str) -> Any:
    try:
        value = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise InputError(
            f"{location} is not JSON: {clause(error)}. Each line of a JSONL file is one JSON value."
        ) from error
    if not isinstance(value, str | dict):
        raise InputError(f"{location} must be a JSON string or object, got {type(value).__name__}. Correct that line.")
    return value


def _document(value: Any, field: str | None, location: str) -> Any:
    """Return the document of a line: the text of one field, or the value itself."""
    if not isinstance(value, dict) or field is None:
        return value
    if field not in value:
        raise InputError(
            f"{location} has no field {field!r}: its fields are {', '.join(map(repr, value)) or 'none'}. "
            "Name one of them with --field."
        )
    if not isinstance(value[field], str):
        raise InputError(f"{location}: the field {field!r} must be a string. Name another field with --field.")
    return value[field]
