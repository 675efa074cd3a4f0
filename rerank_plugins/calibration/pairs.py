"""Judged data: one JSON object a line, with the candidates that a first stage found for a query, and their labels."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..core.errors import InputError, clause
from ..core.types import is_score

__all__ = ["Question", "questions"]

_OF_A_TEXT = {"id", "text", "score"}
"""What stands around a text in the lists that `compare` reads; a mapping with more is a document of fields."""


@dataclass(frozen=True, slots=True)
class Question:
    """A query with the candidates for it and their grades (0: not relevant)."""

    query: str
    candidates: tuple[Any, ...]
    labels: tuple[float, ...]


def questions(path: Path) -> Iterator[Question]:
    """Yield the questions of a JSONL file ({"query", "candidates", "labels"}).

    Raises:
        InputError: Nothing is there, or a line is not of that form.
    """
    for number, line in _lines(path):
        row = _row(line, path, number)
        query, found, labels = row.get("query"), row.get("candidates"), row.get("labels")
        if (
            not isinstance(query, str)
            or not isinstance(found, list)
            or not isinstance(labels, list)
            or len(found) != len(labels)
            or not all(isinstance(each, bool) or is_score(each) for each in labels)
            or not all(isinstance(each, str | dict) for each in found)
        ):
            raise InputError(
                f'{path}, line {number}: it needs {{"query": text, "candidates": [text, …], "labels": [finite number, …]}}, one '
                "label for each candidate."
            )
        yield Question(query, tuple(map(_document, found)), tuple(map(float, labels)))


def _document(value: Any) -> Any:
    alone = isinstance(value, dict) and isinstance(value.get("text"), str) and value.keys() <= _OF_A_TEXT
    return value["text"] if alone else value


def _lines(path: Path) -> Iterator[tuple[int, str]]:
    try:
        content = path.read_text("utf-8-sig")
    except OSError as error:
        raise InputError(f"{path} cannot be read: {error.strerror}. Check the path.") from error
    except UnicodeDecodeError as error:
        raise InputError(f"{path} is not UTF-8: convert it first, iconv -f latin1 -t utf-8.") from error
    # At line feeds alone: a JSON text may hold what Unicode calls a line's end besides.
    return ((number, line) for number, line in enumerate(content.split("\n"), start=1) if line.strip())


def _row(line: str, path: Path, number: int) -> dict[str, Any]:
    try:
        row = json.loads(line)
    except ValueError as error:
        raise InputError(f"{path}, line {number} is no JSON: {clause(error)}.") from error
    if not isinstance(row, dict):
        raise InputError(f"{path}, line {number} is no JSON object.")
    return row
