"""Documents from files: lines of text, or JSONL, each with the place where it was read."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from .core.errors import InputError, clause

__all__ = ["Row", "read"]

JSONL_SUFFIXES = (".jsonl", ".ndjson")


@dataclass(frozen=True, slots=True)
class Row:
    """One document, and where it was read."""

    file: str
    line: int
    """Counted from 1, blank lines included."""
    value: Any
    """The line, or its JSON value, as it was read."""
    document: Any
    """What is reranked of it: a text, or a mapping of fields."""


def read(file: str, *, jsonl: bool = False, field: str | None = None) -> Iterator[Row]:
    """Yield the documents of a file; blank lines are none.

    Args:
        file: A path, or `-` for standard input; in UTF-8.
        jsonl: Each line is a JSON string or object; always so for `.jsonl` and `.ndjson`.
        field: The field of an object that is its text; without one the object is a mapping, read as any other.

    Raises:
        InputError: The file cannot be read, or a line of it (the message says which, and never what it holds).
    """
    jsonl = jsonl or file.lower().endswith(JSONL_SUFFIXES)
    for number, raw in enumerate(_content(file).removeprefix(b"\xef\xbb\xbf").split(b"\n"), start=1):
        where = f"{file}, line {number}"
        try:
            text = raw.decode("utf-8").removesuffix("\r")
        except UnicodeDecodeError as error:
            raise InputError(
                f"{where} is not UTF-8 (byte {raw[error.start]:#04x}). "
                "Name a text file, or convert it first: iconv -f latin1 -t utf-8."
            ) from error
        if text.strip():
            value = _parsed(text, where) if jsonl else text
            yield Row(file, number, value, _document(value, field, where))


def _content(file: str) -> bytes:
    if file == "-":
        return sys.stdin.buffer.read()
    try:
        return Path(file).read_bytes()
    except OSError as error:
        raise InputError(f"{file} cannot be read: {error.strerror}. Check the path.") from error


def _parsed(text: str, where: str) -> Any:
    try:
        value = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise InputError(
            f"{where} is not JSON: {clause(error)}. Each line of a JSONL file is one JSON value."
        ) from error
    if not isinstance(value, str | dict):
        raise InputError(
            f"{where} is neither a JSON string nor an object, the two forms of a document. Mend that line."
        )
    return value


def _document(value: Any, field: str | None, where: str) -> Any:
    """Return what is reranked of a row: the text of one field, or the mapping, of which the reranker reads all fields."""
    if not isinstance(value, dict) or field is None:
        return value
    if field not in value:
        raise InputError(f"{where} has no field {field!r}: it has {', '.join(map(repr, value)) or 'none at all'}.")
    if not isinstance(value[field], str):
        raise InputError(f"{where}: the field {field!r} is no text. Name another with --field.")
    return value[field]
