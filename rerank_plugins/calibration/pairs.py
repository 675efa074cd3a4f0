"""Judged data: one JSON object a line, with the candidates that a first stage found for a query, and their labels."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..core.errors import InputError, MissingExtra

__all__ = ["Question", "questions"]


@dataclass(frozen=True, slots=True)
class Question:
    """A query with the candidates for it and their grades (0: not relevant)."""

    query: str
    candidates: tuple[str, ...]
    labels: tuple[float, ...]


def questions(path: Path, candidates: int) -> Iterator[Question]:
    """Yield the questions of a JSONL file ({"query", "candidates", "labels"}) or of a BEIR folder.

    Of a folder (`corpus.jsonl`, `queries.jsonl` or `.tsv`, `qrels/test.tsv` or `qrels.txt`) the candidates are BM25's best;
    what is not judged counts as not relevant.

    Raises:
        InputError: Nothing is there, or a line is not of that form.
        MissingExtra: A folder, and bm25s is not installed.
    """
    if path.is_dir():
        yield from _folder(path, candidates)
        return
    for number, line in enumerate(_lines(path), start=1):
        row = _row(line, path, number)
        query, found, labels = row.get("query"), row.get("candidates"), row.get("labels")
        if (
            not isinstance(query, str)
            or not isinstance(found, list)
            or not isinstance(labels, list)
            or len(found) != len(labels)
            or not all(isinstance(each, int | float) for each in labels)
        ):
            raise InputError(
                f'{path}, line {number}: it needs {{"query": text, "candidates": [text, …], "labels": [number, …]}}, one '
                "label for each candidate."
            )
        yield Question(query, tuple(found), tuple(map(float, labels)))


def _folder(folder: Path, candidates: int) -> Iterator[Question]:
    try:
        import bm25s
    except ImportError as error:
        raise MissingExtra("Candidates for a BEIR folder", extra="calibration", package="bm25s") from error

    rows = [_row(line, folder / "corpus.jsonl", at) for at, line in enumerate(_lines(folder / "corpus.jsonl"), 1)]
    texts = [f"{row.get('title', '')}\n{row.get('text', '')}".strip() for row in rows]
    grades: dict[str, dict[str, float]] = {}
    for line in _lines(_either(folder, "qrels.txt", "qrels/test.tsv")):
        first, *middle, document, grade = line.split()
        if grade.lstrip("-").isdigit():  # not the header that BEIR's files have
            grades.setdefault(first, {})[document if middle or document else first] = float(grade)
    index = bm25s.BM25()
    index.index(bm25s.tokenize(texts, stopwords="en", show_progress=False), show_progress=False)
    for name, query in _queries(_either(folder, "queries.tsv", "queries.jsonl")):
        if name not in grades:
            continue
        asked = bm25s.tokenize([query], stopwords="en", show_progress=False)
        found, _ = index.retrieve(asked, k=min(candidates, len(texts)), show_progress=False)
        kept = [int(at) for at in found[0]]
        labels = tuple(grades[name].get(str(rows[at]["_id"]), 0.0) for at in kept)
        yield Question(query, tuple(texts[at] for at in kept), labels)


def _queries(path: Path) -> Iterator[tuple[str, str]]:
    for number, line in enumerate(_lines(path), start=1):
        if path.suffix == ".tsv":
            name, _, query = line.partition("\t")
            yield name, query
        else:
            row = _row(line, path, number)
            yield str(row["_id"]), str(row["text"])


def _either(folder: Path, *names: str) -> Path:
    found = next((folder / name for name in names if (folder / name).is_file()), None)
    if found is None:
        raise InputError(f"{folder} holds none of {', '.join(names)}: is it a BEIR folder?")
    return found


def _lines(path: Path) -> list[str]:
    try:
        return [line for line in path.read_text("utf-8").splitlines() if line.strip()]
    except OSError as error:
        raise InputError(f"{path} cannot be read: {error.strerror}. Check the path.") from error


def _row(line: str, path: Path, number: int) -> dict[str, Any]:
    try:
        row = json.loads(line)
    except ValueError as error:
        raise InputError(f"{path}, line {number} is no JSON: {error}.") from error
    if not isinstance(row, dict):
        raise InputError(f"{path}, line {number} is no JSON object.")
    return row
