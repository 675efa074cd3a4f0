"""Judged data: one JSON object per line, with a query, the candidates of a first stage, and their labels."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..core.errors import InputError, clause
from ..core.types import is_score

__all__ = ["JudgedQuery", "read_judged_queries"]

_CANDIDATE_FIELDS = {"id", "text", "score"}
"""Fields of a candidate in the lists that `compare` reads. A mapping with other fields is a structured document."""


@dataclass(frozen=True, slots=True)
class JudgedQuery:
    """A query with the candidates for it and their grades (0: not relevant)."""

    query: str
    candidates: tuple[Any, ...]
    labels: tuple[float, ...]


def read_judged_queries(path: Path) -> Iterator[JudgedQuery]:
    """Yield the judged queries of a JSONL file ({"query", "candidates", "labels"}).

    Raises:
        InputError: The file cannot be read, or a line does not have that form.
    """
    for number, line in _read_lines(path):
        row = _parse_row(line, path, number)
        query, candidates, labels = row.get("query"), row.get("candidates"), row.get("labels")
        if (
            not isinstance(query, str)
            or not isinstance(candidates, list)
            or not isinstance(labels, list)
            or len(candidates) != len(labels)
            or not all(isinstance(label, bool) or is_score(label) for label in labels)
            or not all(isinstance(candidate, str | dict) for candidate in candidates)
        ):
            raise InputError(
                f'{path}, line {number}: a line must be {{"query": text, "candidates": [text, …], '
                '"labels": [finite number, …]}} with one label for each candidate. Correct that line.'
            )
        yield JudgedQuery(query, tuple(map(_parse_document, candidates)), tuple(map(float, labels)))


def _parse_document(value: Any) -> Any:
    is_candidate = isinstance(value, dict) and isinstance(value.get("text"), str) and value.keys() <= _CANDIDATE_FIELDS
    return value["text"] if is_candidate else value


def _read_lines(path: Path) -> Iterator[tuple[int, str]]:
    try:
        content = path.read_text("utf-8-sig")
    except OSError as error:
        raise InputError(f"{path} cannot be read: {error.strerror}. Check the path.") from error
    except UnicodeDecodeError as error:
        raise InputError(f"{path} is not UTF-8: convert it first, iconv -f latin1 -t utf-8.") from error
    # Split at line feeds only. `str.splitlines` also splits at Unicode line ends, which a JSON string may contain.
    return ((number, line) for number, line in enumerate(content.split("\n"), start=1) if line.strip())


def _parse_row(line: str, path: Path, number: int) -> dict[str, Any]:
    try:
        row = json.loads(line)
    except ValueError as error:
        raise InputError(f"{path}, line {number} is not JSON: {clause(error)}. Correct that line.") from error
    if not isinstance(row, dict):
        raise InputError(f"{path}, line {number} is not a JSON object. Correct that line.")
    return row
